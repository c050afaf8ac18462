"""What holds wherever the chart is installed."""

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

from rendered import FOREIGN, HOMES, KUBERNETES, UPSTREAM, Rendered, home


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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def selectors(spec):
    """The labels by which this finds pods."""
    for key, value in spec.items():
        if key in ("selector", "podSelector", "labelSelector"):
            yield value.get("matchLabels", value)


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
