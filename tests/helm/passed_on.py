"""What values say in Kubernetes' own words."""

import unittest

import kubernetes_validate

from rendered import KUBERNETES, UPSTREAM, Rendered


class PassedOn(unittest.TestCase):
    """What is Kubernetes' own is passed on as it stands, to where it belongs."""

    SIDE = {"name": "side", "image": "side.example/side"}
    VALUES = {
        **UPSTREAM,
        "replicaCount": 2, "store": {"url": "s3://images/gateway", "existingSecret": "bucket"},
        "namespaceOverride": "elsewhere", "commonLabels": {"team": "a"}, "imagePullSecrets": [{"name": "pull"}],
        "serviceAccount": {"annotations": {"role": "reader"}}, "podAnnotations": {"note": "b"}, "podLabels": {"tier": "c"}, "restartOnChange": True,
        "service": {"type": "NodePort", "nodePort": 30500, "annotations": {"note": "d"}, "internalTrafficPolicy": "Local",
                    "trafficDistribution": "PreferClose", "ipFamilyPolicy": "PreferDualStack"},
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}, "lifecycle": {"preStop": {"exec": {"command": ["e"]}}},
        "startupProbe": {"failureThreshold": 90}, "livenessProbe": {"timeoutSeconds": 7}, "readinessProbe": {"periodSeconds": 9},
        "nodeSelector": {"disk": "f"}, "tolerations": [{"key": "g", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "h", "operator": "Exists"}]}}]}},
        "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}], "priorityClassName": "high",
        "extraArgs": ["--access-log", "off"], "extraEnv": [{"name": "I", "value": "i"}], "envFrom": [{"configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "j", "emptyDir": {}}], "extraVolumeMounts": [{"name": "j", "mountPath": "/j"}],
        "extraContainers": [SIDE], "initContainers": [{**SIDE, "name": "first"}],
        "networkPolicy": {"egressTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "extraEgress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]},
    }

    def test_to_a_deployment(self):
        rendered = Rendered(values={**self.VALUES, "strategy": {"type": "Recreate"}})
        self.pod_has_it(rendered)
        self.assertEqual(rendered.one("Deployment")["spec"]["strategy"], {"type": "Recreate"})
        registry = next(each for each in rendered.all("Service") if not each["metadata"]["name"].endswith("-admin"))
        said = self.VALUES["service"]
        self.assertEqual({key: registry["spec"][key] for key in ("type", "internalTrafficPolicy", "trafficDistribution", "ipFamilyPolicy")},
                         {key: said[key] for key in ("type", "internalTrafficPolicy", "trafficDistribution", "ipFamilyPolicy")})
        self.assertEqual((registry["spec"]["ports"][0]["nodePort"], registry["metadata"]["annotations"]), (30500, {"note": "d"}))
        egress = rendered.one("NetworkPolicy")["spec"]["egress"]
        self.assertEqual(egress[1]["to"], [{"ipBlock": {"cidr": "192.0.2.0/24"}}])
        self.assertEqual(egress[2], {"ports": [{"port": 80, "protocol": "TCP"}]})

    def test_to_a_daemon_set(self):
        rendered = Rendered(values={**self.VALUES, "kind": "DaemonSet", "updateStrategy": {"type": "OnDelete"}})
        self.pod_has_it(rendered)
        self.assertEqual(rendered.one("DaemonSet")["spec"]["updateStrategy"], {"type": "OnDelete"})

    def test_to_what_scales_and_watches(self):
        metric = {"type": "Pods", "pods": {"metric": {"name": "in_flight"}, "target": {"type": "AverageValue", "averageValue": "50"}}}
        scaling = {"enabled": True, "metrics": [metric], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}}}
        relabeling = {"action": "labeldrop", "regex": "pod"}
        rendered = Rendered(values={**self.VALUES, "autoscaling": scaling, "metrics": {"serviceMonitor": {
            "enabled": True, "labels": {"k": "l"}, "relabelings": [relabeling], "metricRelabelings": [relabeling]}}})
        scaler = rendered.one("HorizontalPodAutoscaler")
        kubernetes_validate.validate(scaler, KUBERNETES[-1], strict=True)
        self.assertEqual((scaler["spec"]["metrics"][1], scaler["spec"]["behavior"]), (metric, scaling["behavior"]))
        monitor = rendered.one("ServiceMonitor")
        endpoint = monitor["spec"]["endpoints"][0]
        self.assertEqual((endpoint["relabelings"], endpoint["metricRelabelings"]), ([relabeling], [relabeling]))
        self.assertEqual(monitor["metadata"]["labels"]["k"], "l")

    def test_a_file_of_ones_own_takes_the_place_of_the_charts(self):
        rendered = Rendered(values={"existingConfigMap": "own"})
        self.assertEqual(rendered.all("ConfigMap"), [])
        self.assertEqual(next(each for each in rendered.pod()["volumes"] if each["name"] == "config")["configMap"], {"name": "own"})

    def pod_has_it(self, rendered):
        for each in rendered.objects:
            kubernetes_validate.validate(each, KUBERNETES[-1], strict=True)
            self.assertEqual(each["metadata"]["namespace"], "elsewhere", each["kind"])
            self.assertTrue(each["kind"] == "Pod" or each["metadata"]["labels"]["team"] == "a", each["kind"])
        template = next(each for each in rendered.objects if each["kind"] in ("Deployment", "DaemonSet"))["spec"]["template"]
        self.assertEqual((template["metadata"]["annotations"]["note"], template["metadata"]["labels"]["tier"]), ("b", "c"))
        self.assertIn("checksum/config", template["metadata"]["annotations"])
        for field in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"):
            self.assertEqual(template["spec"][field], self.VALUES[field], field)
        gateway = rendered.gateway()
        self.assertEqual(gateway["args"][-2:], ["--access-log", "off"])
        self.assertEqual(gateway["env"], self.VALUES["extraEnv"])
        self.assertEqual(gateway["envFrom"], [{"secretRef": {"name": "bucket"}}, {"configMapRef": {"name": "more"}}])
        self.assertEqual((gateway["lifecycle"], gateway["resources"]), (self.VALUES["lifecycle"], self.VALUES["resources"]))
        self.assertEqual((gateway["startupProbe"]["failureThreshold"], gateway["startupProbe"]["periodSeconds"]), (90, 1))
        self.assertEqual((gateway["livenessProbe"]["timeoutSeconds"], gateway["readinessProbe"]["periodSeconds"]), (7, 9))
        self.assertIn({"name": "j", "mountPath": "/j"}, gateway["volumeMounts"])
        self.assertIn({"name": "j", "emptyDir": {}}, template["spec"]["volumes"])
        self.assertEqual([each["name"] for each in template["spec"]["containers"]], ["schemabridge", "side"])
        self.assertEqual([each["name"] for each in template["spec"]["initContainers"]], ["first"])
        self.assertEqual(rendered.one("ServiceAccount")["metadata"]["annotations"], {"role": "reader"})
