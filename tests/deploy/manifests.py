"""Holds every pod of the Kubernetes manifests to what the homes promise.

    manifests.py PROGRAM FOLDER FILE...

FOLDER holds the configuration files that the manifests mount; PROGRAM judges the arguments and those files.
"""

import pathlib
import re
import subprocess
import sys

import yaml

HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
WITHOUT_ROOT = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}

# What deploy/image.py sets.
OF_IMAGE = {"STATE_DIRECTORY": "/var/lib/schemabridge"}


def main(program, folder, *paths):
    kinds = set()
    for path in paths:
        documents = list(yaml.safe_load_all(pathlib.Path(path).read_text()))
        settings = {name: data for document in documents if document["kind"] == "ConfigMap"
                    for name, data in document["data"].items()}
        for document in documents:
            if document["kind"] in ("Pod", "Deployment", "DaemonSet"):
                kinds.add(document["kind"])
                spec = document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]
                check_pod(program, folder, spec, settings)
    assert kinds == {"Pod", "Deployment", "DaemonSet"}, kinds


def check_pod(program, folder, spec, settings):
    [container] = [it for it in spec.get("initContainers", []) + spec["containers"] if it["name"] == "schemabridge"]
    command, *flags = container["args"]
    assert command == "serve", command
    said = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    context = {**spec.get("securityContext", {}), **container["securityContext"]}
    for key, value in {**HARDENED, **WITHOUT_ROOT}.items():
        assert context[key] == value, (key, context)
    drain = sum(seconds(said.get(flag, "0s")) for flag in ("drain-delay", "drain-timeout"))
    assert 0 < drain < spec["terminationGracePeriodSeconds"], drain
    assert not any("hostPort" in port for port in container.get("ports", [])), "a hostPort leaves the pod's address open"
    on_node = spec.get("hostNetwork", False)
    if on_node or spec.get("initContainers"):
        assert said["listen"].startswith("127.0.0.1:"), said
    if on_node:
        assert said["admin-listen"].startswith("127.0.0.1:"), said
    check_probes(container, said["admin-listen"], on_node)
    environment = {**OF_IMAGE, **{key: value for key, value in settings.items() if key.startswith("SCHEMABRIDGE_")}}
    here = [flag.replace("/etc/schemabridge/", f"{folder}/") for flag in flags]
    subprocess.run([program, "check-config", *here], env=environment, check=True, stdout=subprocess.DEVNULL)


def check_probes(container, admin, on_node):
    named = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        get = container[probe]["httpGet"]
        assert get["path"] == path, get
        assert str(named.get(get["port"], get["port"])) == admin.rsplit(":", 1)[1], (get, admin)
        assert (get.get("host") == "127.0.0.1") == on_node, get


def seconds(text):
    return int(re.fullmatch("([0-9]+)s", text)[1])


main(*sys.argv[1:])
