"""What the chart makes of its values. See tests/helm.sh, which says where `helm` and the gateway are."""

import base64
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

import kubernetes_validate
import yaml

CHART = pathlib.Path("helm/schemabridge")
HOMES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
# The oldest that the chart is for, the oldest that starts sidecars first, and newer ones.
KUBERNETES = ["1.27", "1.29", "1.33", "1.37"]
# Kinds that are not Kubernetes' own: their shape is looked at here.
FOREIGN = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate", "HTTPRoute"}
UPSTREAM = {"upstreams": [{"name": "one", "url": "https://one.example"}]}


def helm(*arguments, values=None, release="gateway"):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values or {}, file)
        file.flush()
        return subprocess.run(
            [os.environ["HELM"], "template", release, str(CHART), "--namespace", "images", "--kube-version", KUBERNETES[2],
             "--values", file.name, *arguments],
            capture_output=True, text=True)


class Rendered:
    """What `helm template` prints, by kind and name."""

    def __init__(self, *arguments, values=None, release="gateway"):
        said = helm(*arguments, values=values, release=release)
        if said.returncode != 0:
            raise AssertionError(said.stderr)
        self.objects = [each for each in yaml.safe_load_all(said.stdout) if each]

    def all(self, kind):
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind):
        found = self.all(kind)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} objects are a {kind}")
        return found[0]

    def pod(self):
        return next(each for each in self.objects if each["kind"] in ("Deployment", "DaemonSet"))["spec"]["template"]["spec"]

    def gateway(self):
        pod = self.pod()
        return next(each for each in [*pod["containers"], *pod.get("initContainers", [])] if each["name"] == "schemabridge")

    def file(self):
        return next(each for each in self.all("ConfigMap") if "schemabridge.toml" in each["data"])["data"]["schemabridge.toml"]


def home(name, *arguments, release="gateway"):
    return Rendered("--values", str(CHART / f"ci/{name}-values.yaml"), *arguments, release=release)


def refusal(values, *arguments):
    said = helm(*arguments, values=values)
    return said.stderr if said.returncode != 0 else None


class EveryHome(unittest.TestCase):
    def test_there_are_all(self):
        self.assertEqual(HOMES, ["daemonset", "default", "mirror", "multi-upstream", "sidecar", "tls"])

    def test_kubernetes_takes_it(self):
        for name in HOMES:
            for version in KUBERNETES:
                if name == "sidecar" and version == "1.27":
                    continue
                for each in home(name, "--kube-version", version).objects:
                    if each["kind"] not in FOREIGN:
                        with self.subTest(home=name, version=version, kind=each["kind"]):
                            kubernetes_validate.validate(each, version, strict=True)

    def test_validation_can_fail(self):
        each = home("default").one("Deployment")
        each["spec"]["replica"] = 1
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(each, KUBERNETES[0], strict=True)

    def test_the_gateway_takes_its_file(self):
        for name in HOMES:
            with self.subTest(home=name), tempfile.TemporaryDirectory() as directory:
                text = home(name).file()
                # What is mounted there in a pod.
                root = pathlib.Path(directory)
                for path in set(re.findall(r'"/etc/schemabridge/([^"]+)"', text)):
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                make_files(root)
                file = root / "schemabridge.toml"
                file.write_text(text.replace("/etc/schemabridge/", f"{root}/").replace("/var/", f"{root}/var/"))
                said = subprocess.run([os.environ["GATEWAY"], "check-config", "--config", str(file)],
                                      capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
                self.assertEqual(said.returncode, 0, f"{said.stderr}\n{text}")

    def test_nothing_is_allowed_that_is_not_needed(self):
        for name in HOMES:
            with self.subTest(home=name):
                rendered = home(name)
                pod, container = rendered.pod(), rendered.gateway()
                self.assertEqual(pod["automountServiceAccountToken"], False)
                self.assertEqual(pod["enableServiceLinks"], False)
                self.assertEqual(pod["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(pod["securityContext"]["runAsUser"], 65532)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertEqual(container["securityContext"], {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
                self.assertEqual(rendered.one("ServiceAccount")["automountServiceAccountToken"], False)
                self.assertIn("memory", container["resources"]["limits"])

    def test_a_namespace_may_be_restricted(self):
        """What the strictest Pod Security Standard asks of volumes and the network, where the pod is the gateway's alone."""
        for name in sorted({*HOMES} - {"daemonset", "sidecar"}):
            with self.subTest(home=name):
                pod = home(name).pod()
                for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
                    self.assertNotIn(field, pod)
                kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
                self.assertLessEqual(kinds, {"configMap", "secret", "emptyDir", "persistentVolumeClaim"})
                self.assertNotIn("hostPort", json.dumps(pod))

    def test_the_end_has_time(self):
        for name in HOMES:
            with self.subTest(home=name):
                rendered = home(name)
                said = dict(re.findall(r'^(drain_\w+) = "(\d+)s"$', rendered.file(), re.MULTILINE))
                self.assertGreater(rendered.pod()["terminationGracePeriodSeconds"],
                                   int(said["drain_delay"]) + int(said["drain_timeout"]))

    def test_kubernetes_asks_where_the_gateway_answers(self):
        for name in HOMES:
            with self.subTest(home=name):
                container = home(name).gateway()
                asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
                self.assertEqual({probe: get["path"] for probe, get in asked.items()},
                                 {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"})
                self.assertEqual({get["port"] for get in asked.values()}, {"admin"})

    def test_the_gateway_answers_the_probes_and_helm_test(self):
        rendered = home("default")
        listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        with tempfile.TemporaryDirectory() as directory:
            file = pathlib.Path(directory) / "schemabridge.toml"
            file.write_text(rendered.file().replace("0.0.0.0:5000", listen).replace("0.0.0.0:5001", admin)
                            .replace("/var/", f"{directory}/var/").replace('drain_delay = "10s"', 'drain_delay = "0s"'))
            arguments = [str(file) if each.endswith(".toml") else each for each in rendered.gateway()["args"]]
            log = open(file.with_suffix(".log"), "wb")
            with log, subprocess.Popen([os.environ["GATEWAY"], *arguments], stdout=log, stderr=log) as gateway:
                try:
                    healthy = [os.environ["GATEWAY"], *rendered.one("Pod")["spec"]["containers"][0]["args"][:-1], admin]
                    deadline = time.monotonic() + 60
                    while subprocess.run(healthy, capture_output=True).returncode != 0 and time.monotonic() < deadline:
                        time.sleep(0.1)
                    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                        with urllib.request.urlopen(f"http://{admin}{rendered.gateway()[probe]['httpGet']['path']}", timeout=20) as answer:
                            self.assertEqual(answer.status, 200, probe)
                finally:
                    gateway.terminate()

    def test_no_secret_is_in_a_config_map(self):
        secret = "correct-horse-battery-staple-2024"
        rendered = Rendered(values={**UPSTREAM, "admin": {"token": secret}})
        holders = [each["kind"] for each in rendered.objects if secret in json.dumps(each)]
        self.assertEqual(holders, ["Secret"])
        self.assertIn("/etc/schemabridge/admin/token", rendered.file())

    def test_names_are_short_enough_and_two_releases_do_not_clash(self):
        long = "a-release-with-a-name-of-fifty-three-characters-in-it"
        for each in home("mirror", release=long).objects:
            self.assertLessEqual(len(each["metadata"]["name"]), 63, each["kind"])
        for name in HOMES:
            one = {(each["kind"], each["metadata"]["name"]) for each in home(name, release="one").objects}
            two = {(each["kind"], each["metadata"]["name"]) for each in home(name, release="two").objects}
            self.assertEqual(one & two, set())

    def test_long_names_of_releases_differ_to_their_end(self):
        names = lambda release: {(each["kind"], each["metadata"]["name"]) for each in home("mirror", release=release).objects}
        self.assertEqual(names("a" * 52 + "1") & names("a" * 52 + "2"), set())

    def test_the_pod_of_helm_test_may_ask_and_is_not_taken_for_the_gateway(self):
        for name in sorted({*HOMES} - {"daemonset"}):
            with self.subTest(home=name):
                rendered = home(name)
                labels = rendered.one("Pod")["metadata"]["labels"].items()
                for each in rendered.objects:
                    for selector in selectors(each["spec"]) if each["kind"] not in FOREIGN and "spec" in each else []:
                        self.assertFalse(selector.items() <= labels, f"{each['kind']} selects it")
                for admin in rendered.one("NetworkPolicy")["spec"]["ingress"][-1:]:
                    senders = [each["podSelector"]["matchLabels"] for each in admin.get("from", []) if "podSelector" in each]
                    self.assertTrue("from" not in admin or any(sender.items() <= labels for sender in senders))
                service, port = rendered.one("Pod")["spec"]["containers"][0]["args"][-1].split(":")
                admin = next(each for each in rendered.all("Service") if each["metadata"]["name"] == service)
                self.assertEqual(admin["spec"]["ports"][0]["port"], int(port))

    def test_mounted_names_are_unique(self):
        for name in HOMES:
            pod = home(name).pod()
            volumes = [each["name"] for each in pod["volumes"]]
            self.assertEqual(len(volumes), len(set(volumes)))
            containers = [*pod["containers"], *pod.get("initContainers", [])]
            mounts = {each["name"] for container in containers for each in container.get("volumeMounts", [])}
            self.assertLessEqual(mounts, set(volumes))


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


class Refused(unittest.TestCase):
    def test_what_cannot_work_is_refused_in_words(self):
        held = {"upstreams": [{"name": "one", "url": "https://one.example", "existingSecret": "one"}]}
        tls = {"enabled": True, "existingSecret": "own"}
        daemon = {**UPSTREAM, "kind": "DaemonSet"}
        for values, words in [
            ({}, "no registry"),
            ({**UPSTREAM, "replicaCount": 2}, "several replicas"),
            ({**UPSTREAM, "autoscaling": {"enabled": True}}, "several replicas"),
            ({**UPSTREAM, "tls": {"enabled": True}}, "TLS without a certificate"),
            ({**UPSTREAM, "tls": {"enabled": True, "certManager": {"enabled": True}}}, "issuerRef"),
            ({**UPSTREAM, "tls": {"clientAuth": "require"}}, "clientCaSecret"),
            (held, "credentials of the gateway's own"),
            ({**UPSTREAM, "sidecar": True}, "extraContainers"),
            ({**UPSTREAM, "nodeConfig": {"enabled": True}}, "kind: DaemonSet"),
            ({**UPSTREAM, "ingress": {"enabled": True}}, "ingress.hosts"),
            ({**UPSTREAM, "sidecar": True, "kind": "DaemonSet", "extraContainers": [{"name": "a"}]}, "one of `sidecar`"),
            ({**UPSTREAM, "hostPort": {"enabled": True}}, "kind: DaemonSet"),
            ({**UPSTREAM, "drainTimeout": "2m"}, "take 130 seconds together"),
            ({**UPSTREAM, "listen": "127.0.0.1:5000"}, "nobody beyond the pod"),
            ({**UPSTREAM, "listen": "[::1]:5000"}, "nobody beyond the pod"),
            ({**UPSTREAM, "adminListen": "127.0.0.1:5001"}, "Kubernetes asks at the address of the pod"),
            ({**UPSTREAM, "adminListen": "0.0.0.0:5000"}, "the same port"),
            ({**daemon, "metrics": {"serviceMonitor": {"enabled": True}}}, "podMonitor"),
            ({**daemon, "metrics": {"podMonitor": {"enabled": True}}}, "Prometheus could not ask"),
            ({**daemon, "persistence": {"enabled": True}}, "one volume for every node"),
            ({**held, "kind": "DaemonSet", "listen": "0.0.0.0:5000"}, "credentials of the gateway's own"),
            ({**UPSTREAM, "tls": {**tls, "clientAuth": "request", "clientCaSecret": "clients"}}, "clientNames"),
            ({**UPSTREAM, "tls": tls, "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}, "plain HTTP"),
            ({**UPSTREAM, "door": {"tokens": {"existingSecret": "clients"}}}, "cannot be for both"),
            ({"upstreams": [{**held["upstreams"][0], "settings": {"auth": {"mode": "anonymous"}}}]}, "in two places"),
        ]:
            with self.subTest(values=values):
                self.assertIn(words, refusal(values) or "it was rendered")
        for values in [
            {**held, "door": {"allowAnonymous": True}},
            {**held, "door": {"tokens": {"existingSecret": "clients"}}},
            {**UPSTREAM, "door": {"tokens": {"existingSecret": "clients"}}, "config": 'auth = "anonymous"'},
            {**daemon, "metrics": {"podMonitor": {"enabled": True}}, "adminListen": "0.0.0.0:5001"},
            {**daemon, "persistence": {"enabled": True, "existingClaim": "shared"}},
        ]:
            with self.subTest(values=values):
                self.assertIsNone(refusal(values))

    def test_kubernetes_is_new_enough(self):
        sidecar = {**UPSTREAM, "sidecar": True, "extraContainers": [{"name": "docker", "image": "docker"}]}
        self.assertIn("1.29 does", refusal(sidecar, "--kube-version", "1.28") or "it was rendered")
        self.assertIn("incompatible with Kubernetes", refusal(UPSTREAM, "--kube-version", "1.26") or "it was rendered")

    def test_values_have_a_schema(self):
        for path, value in [
            ("kind", "StatefulSet"), ("replicaCount", 0), ("replicacount", 1), ("image.digest", "sha256:abc"), ("image.repository", ""),
            ("listen", "localhost:5000"), ("drainDelay", "10"), ("drainTimeout", "soon"), ("log.level", "verbose"), ("service.type", "ExternalName"),
            ("service.port", 70000), ("tls.clientAuth", "maybe"), ("admin.token", "too short"), ("store.url", "memory:"), ("cacheSize", "lots"),
            ("upstreams", [{"name": "one"}]), ("upstreams", [{"name": "a b", "url": "https://one.example"}]),
            ("upstreams", [{"name": "one", "url": "https://user:password@one.example"}]), ("networkPolicy.egressPorts", []),
            ("persistence.accessModes", ["ReadOnlyMany"]), ("podDisruptionBudget.unhealthyPodEvictionPolicy", "Never"), ("trustedProxies", "10.0.0.0/8"),
            ("hostPort.ip", "localhost"), ("store.endpoint", "https://key:secret@s3.example"), ("store.maxSize", "8Gi"),
            ("podLabels", {"app.kubernetes.io/name": "another"}), ("commonLabels", {"app.kubernetes.io/instance": "another"}),
        ]:
            values = {"upstreams": UPSTREAM["upstreams"]}
            inner = values
            *folders, last = path.split(".")
            for folder in folders:
                inner = inner.setdefault(folder, {})
            inner[last] = value
            with self.subTest(path=path, value=value):
                self.assertRegex(refusal(values) or "it was rendered", "values don't meet the specifications of the schema")


class Documents(unittest.TestCase):
    def test_the_chart_is_of_this_version(self):
        version = re.search(r'^version = "(.+)"$', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
        self.assertEqual(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], version)

    def test_the_readme_has_every_value(self):
        self.assertEqual((CHART / "README.md").read_text(), readme(), "run tests/helm/readme.py")

    def test_alerts_and_dashboard_are_those_of_deploy(self):
        rules = yaml.safe_load(pathlib.Path("deploy/prometheus/alerts.yml").read_text())
        self.assertEqual(yaml.safe_load((CHART / "files/alerts.yml").read_text()), rules)
        dashboard = pathlib.Path("deploy/grafana/schemabridge.json").read_text()
        self.assertEqual((CHART / "files/dashboard.json").read_text(), dashboard)

    def test_the_schema_and_the_values_have_the_same_keys(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        schema = json.loads((CHART / "values.schema.json").read_text())

        def compare(values, schema, path):
            if "properties" not in schema or not isinstance(values, dict):
                return
            allowed = {key for key, value in schema["properties"].items() if value is not False}
            self.assertEqual(set(values), allowed - {"global"}, path)
            for key, value in values.items():
                compare(value, schema["properties"][key], f"{path}.{key}")

        compare(values, schema, "values")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def selectors(spec):
    """The labels by which this finds pods."""
    for key, value in spec.items():
        if key in ("selector", "podSelector", "labelSelector"):
            yield value.get("matchLabels", value)


def readme():
    from readme import text
    return text()


def make_files(root):
    """Something of each kind that a pod is given, good enough to be read."""
    run = lambda *command: subprocess.run(command, check=True, capture_output=True)
    for folder in root.iterdir():
        if folder.name in ("tls", "client-ca", "ca"):
            key, certificate = folder / "tls.key", folder / "tls.crt"
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", "/CN=test", "-addext", "subjectAltName=DNS:test", "-keyout", str(key), "-out", str(certificate))
            (folder / "ca.crt").write_bytes(certificate.read_bytes())
        elif folder.name == "signing-key":
            run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(folder / "signing-key.pem"))
        elif folder.name in ("tokens", "admin"):
            (folder / {"tokens": "tokens", "admin": "token"}[folder.name]).write_text("t" * 40 + "\n")
        elif folder.name == "upstreams":
            for upstream in folder.iterdir():
                (upstream / "password").write_text("password\n")
                login = base64.b64encode(b"user:password").decode()
                (upstream / ".dockerconfigjson").write_text(json.dumps({"auths": {"ghcr.example": {"auth": login}}}))


if __name__ == "__main__":
    unittest.main()
