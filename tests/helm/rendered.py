"""What `helm template` makes of values. See tests/helm.sh, which says where `helm` and the gateway are."""

import json
import os
import pathlib
import subprocess
import tempfile

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
