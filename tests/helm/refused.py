"""Values that cannot work."""

import unittest

from rendered import UPSTREAM, refusal


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
