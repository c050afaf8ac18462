"""What each home of the gateway needs."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from rendered import HOMES, UPSTREAM, Rendered, home, refusal


class Homes(unittest.TestCase):
    def test_a_daemon_set_is_for_its_node_alone(self):
        rendered = home("daemonset")
        pod = rendered.pod()
        self.assertEqual(pod["hostNetwork"], True)
        self.assertIn('listen = ["127.0.0.1:5000"]', rendered.file())
        self.assertIn('admin_listen = "127.0.0.1:5001"', rendered.file())
        self.assertNotIn("hostPort", json.dumps(pod))
        self.assertEqual(rendered.gateway()["livenessProbe"]["httpGet"]["host"], "127.0.0.1")
        self.assertEqual(pod["priorityClassName"], "system-node-critical")
        self.assertEqual(pod["tolerations"], [{"operator": "Exists"}])
        for kind in ("Service", "NetworkPolicy", "Deployment", "PodDisruptionBudget"):
            self.assertEqual(rendered.all(kind), [])

    def test_nodes_are_told_of_the_gateway_by_the_gateway(self):
        init = home("daemonset").pod()["initContainers"][0]
        (mount,) = init["volumeMounts"]
        with tempfile.TemporaryDirectory() as directory:
            certs = pathlib.Path(directory + mount["mountPath"])
            certs.mkdir(parents=True)
            arguments = [directory + each if each == "/node" else each for each in init["args"]]
            subprocess.run([os.environ["GATEWAY"], *arguments], check=True, capture_output=True)
            for registry in ("docker.io", "registry.example"):
                self.assertIn('[host."http://127.0.0.1:5000', (certs / registry / "hosts.toml").read_text())

    def test_a_port_of_the_node_leads_to_a_pod_of_the_cluster(self):
        values = {**UPSTREAM, "kind": "DaemonSet", "hostPort": {"enabled": True, "port": 7439}, "nodeConfig": {"enabled": True, "registries": ["one.example"]}}
        rendered = Rendered(values=values)
        self.assertNotIn("hostNetwork", rendered.pod())
        registry = rendered.gateway()["ports"][0]
        self.assertEqual((registry["hostIP"], registry["hostPort"], registry["containerPort"]), ("127.0.0.1", 7439, 5000))
        self.assertIn('listen = ["0.0.0.0:5000"]', rendered.file())
        self.assertIn("http://127.0.0.1:7439", rendered.pod()["initContainers"][0]["args"])
        self.assertEqual(len(rendered.all("NetworkPolicy")), 1)
        # Its address is open within the cluster, unlike that of a gateway in the node's network.
        held = {**values, "upstreams": [{**UPSTREAM["upstreams"][0], "existingSecret": "one"}]}
        self.assertIn("credentials of the gateway's own", refusal(held) or "it was rendered")
        self.assertIsNone(refusal({**held, "hostPort": {"enabled": False}}))

    def test_a_sidecar_starts_before_what_it_is_for(self):
        rendered = home("sidecar")
        pod = rendered.pod()
        self.assertEqual([each["name"] for each in pod["initContainers"]], ["schemabridge"])
        self.assertEqual(rendered.gateway()["restartPolicy"], "Always")
        self.assertEqual([each["name"] for each in pod["containers"]], ["docker"])
        self.assertIn('listen = ["127.0.0.1:5000"]', rendered.file())
        mounted = json.dumps(pod["containers"])
        self.assertNotIn("/etc/schemabridge", mounted)
        self.assertEqual([each["metadata"]["name"] for each in rendered.all("Service")], ["gateway-schemabridge-admin"])

    def test_the_mirror_lets_nobody_in_without_a_token(self):
        rendered = home("mirror")
        self.assertIn("tokens_file =", rendered.file())
        self.assertNotIn("allow_anonymous", rendered.file())
        self.assertNotIn("replicas", rendered.one("Deployment")["spec"])
        self.assertEqual(rendered.one("HorizontalPodAutoscaler")["spec"]["minReplicas"], 2)
        mounted = {each["name"]: each["secret"]["secretName"] for each in rendered.pod()["volumes"] if "secret" in each}
        self.assertEqual(mounted, {"signing-key": "signing", "admin": "page", "tokens": "clients", "upstream-0": "hub", "upstream-1": "ghcr"})
        self.assertEqual(rendered.gateway()["envFrom"], [{"secretRef": {"name": "bucket"}}])

    def test_the_mirror_may_be_asked_and_ask_only_where_it_was_said(self):
        policy = home("mirror").one("NetworkPolicy")["spec"]
        self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
        registry, admin = policy["ingress"]
        self.assertEqual(registry, {"ports": [{"port": "registry", "protocol": "TCP"}], "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})
        self.assertEqual(admin["ports"], [{"port": "admin", "protocol": "TCP"}])
        self.assertIn("namespaceSelector", admin["from"][0])
        ports = {(each["port"], each["protocol"]) for rule in policy["egress"] for each in rule["ports"]}
        self.assertEqual(ports, {(53, "UDP"), (53, "TCP"), (443, "TCP")})

    def test_the_ports_of_urls_are_open(self):
        values = {"store": {"url": "s3://images/gateway", "endpoint": "http://minio:9000"}, "upstreams": [
            {"name": "one", "url": "https://one.example:8443/base"}, {"name": "two", "url": "http://two.example"},
            {"name": "three", "url": "https://[2001:db8::1]:5443", "settings": {"proxy": {"https": "http://egress.example:3128"}}}]}
        egress = Rendered(values=values).one("NetworkPolicy")["spec"]["egress"][1]
        self.assertEqual({each["port"] for each in egress["ports"]}, {443, 8443, 80, 5443, 3128, 9000})

    def test_the_store_fits_its_directory(self):
        for name in HOMES:
            rendered = home(name)
            kept = re.search(r'^store_max_size = "(\d+)GiB"$', rendered.file(), re.MULTILINE)
            store = next(each for each in rendered.pod()["volumes"] if each["name"] == "store")
            if "s3://" in rendered.file():
                self.assertIsNone(kept)
            elif "emptyDir" in store:
                self.assertLess(int(kept[1]), int(store["emptyDir"]["sizeLimit"].removesuffix("Gi")))

    def test_a_budget_is_there_for_more_than_one_replica(self):
        shared = {"store": {"url": "s3://images/gateway"}}
        self.assertEqual(Rendered(values=UPSTREAM).all("PodDisruptionBudget"), [])
        self.assertEqual(Rendered(values={**UPSTREAM, **shared, "replicaCount": 2}).one("PodDisruptionBudget")["spec"]["maxUnavailable"], 1)
        least = {"podDisruptionBudget": {"minAvailable": 1}}
        spec = Rendered(values={**UPSTREAM, **shared, **least, "replicaCount": 2}).one("PodDisruptionBudget")["spec"]
        self.assertEqual((spec.get("minAvailable"), spec.get("maxUnavailable")), (1, None))

    def test_one_volume_is_for_one_pod_at_a_time(self):
        rendered = home("multi-upstream")
        self.assertEqual(rendered.one("Deployment")["spec"]["strategy"], {"type": "Recreate"})
        self.assertEqual(rendered.one("PersistentVolumeClaim")["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})

    def test_tls_is_what_the_service_is_called(self):
        rendered = home("tls")
        certificate = rendered.one("Certificate")["spec"]
        self.assertEqual(certificate["dnsNames"], ["images.example"])
        own = {**UPSTREAM, "tls": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "corp"}}}}
        self.assertEqual(Rendered(values=own).one("Certificate")["spec"]["dnsNames"],
                         ["gateway-schemabridge", "gateway-schemabridge.images", "gateway-schemabridge.images.svc"])
        # Docker before 1.10 reads no other elliptic curve.
        self.assertEqual(certificate["privateKey"], {"algorithm": "ECDSA", "size": 256})
        secrets = {each["name"]: each["secret"]["secretName"] for each in rendered.pod()["volumes"] if "secret" in each}
        self.assertEqual(secrets["tls"], certificate["secretName"])
        self.assertIn('client_auth = "require"', rendered.file())

    def test_whoever_ends_tls_leads_to_the_service(self):
        rendered = home("multi-upstream")
        route = rendered.one("HTTPRoute")["spec"]
        service = rendered.all("Service")[1]
        self.assertEqual(route["rules"][0]["backendRefs"], [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}])
        self.assertEqual(route["rules"][0]["timeouts"], {"request": "0s"})
        rendered = home("mirror")
        ingress = rendered.one("Ingress")
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        self.assertEqual(backend, {"name": "gateway-schemabridge", "port": {"name": "registry"}})
        self.assertEqual(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"], "0")
        spoken = "nginx.ingress.kubernetes.io/backend-protocol"
        self.assertNotIn(spoken, ingress["metadata"]["annotations"])
        within = home("mirror", "--set", "tls.enabled=true", "--set", "tls.existingSecret=own").one("Ingress")
        self.assertEqual(within["metadata"]["annotations"][spoken], "HTTPS")

    def test_secrets_are_mounted_so_that_a_change_is_seen(self):
        for name in HOMES:
            self.assertNotIn("subPath", json.dumps(home(name).objects))

    def test_who_watches_finds_what_it_selects(self):
        rendered = home("mirror")
        monitor = rendered.one("ServiceMonitor")
        labels = monitor["spec"]["selector"]["matchLabels"]
        matching = [each for each in rendered.all("Service") if labels.items() <= each["metadata"]["labels"].items()]
        self.assertEqual([each["metadata"]["name"] for each in matching], ["gateway-schemabridge-admin"])
        self.assertEqual(monitor["spec"]["endpoints"][0]["port"], matching[0]["spec"]["ports"][0]["name"])
        self.assertTrue(rendered.one("PrometheusRule")["spec"]["groups"])
        dashboard = next(each for each in rendered.all("ConfigMap") if "schemabridge.json" in each["data"])
        self.assertTrue(json.loads(dashboard["data"]["schemabridge.json"])["panels"])
        pods = home("multi-upstream").one("PodMonitor")["spec"]
        self.assertLessEqual(pods["selector"]["matchLabels"].items(),
                             home("multi-upstream").one("Deployment")["spec"]["template"]["metadata"]["labels"].items())

    def test_a_selector_finds_the_pods(self):
        for name in HOMES:
            rendered = home(name)
            each = next(each for each in rendered.objects if each["kind"] in ("Deployment", "DaemonSet"))
            labels = each["spec"]["template"]["metadata"]["labels"].items()
            self.assertLessEqual(each["spec"]["selector"]["matchLabels"].items(), labels)
            for service in rendered.all("Service"):
                self.assertLessEqual(service["spec"]["selector"].items(), labels)

    def test_an_image_is_named_by_its_digest_if_there_is_one(self):
        digest = "sha256:" + "a" * 64
        image = {"registry": "registry.example", "repository": "tools/schemabridge", "digest": digest}
        self.assertEqual(Rendered(values={**UPSTREAM, "image": image}).gateway()["image"], f"registry.example/tools/schemabridge@{digest}")

    def test_objects_of_ones_own_are_templates(self):
        names = [each["metadata"]["name"] for each in home("multi-upstream").all("ConfigMap")]
        self.assertIn("gateway-extra", names)

    def test_a_change_restarts_pods_only_where_that_is_wanted(self):
        annotations = lambda values: Rendered(values=values).one("Deployment")["spec"]["template"]["metadata"].get("annotations", {})
        self.assertEqual(annotations(UPSTREAM), {})
        self.assertIn("checksum/config", annotations({**UPSTREAM, "restartOnChange": True}))
