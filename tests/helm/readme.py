"""Writes the README of the chart from the comments of its values: tests/helm/readme.py > helm/schemabridge/README.md"""

import json
import pathlib
import sys

import yaml

CHART = pathlib.Path("helm/schemabridge")
HEAD = """# schemabridge

A gateway that stands between container clients and a registry, and answers each in a manifest format that it can read.

    helm install gateway helm/schemabridge --set 'upstreams[0].name=registry' --set 'upstreams[0].url=https://registry.example'

| home | values |
|---|---|
| in front of a registry | [ci/default-values.yaml](ci/default-values.yaml); with TLS [ci/tls-values.yaml](ci/tls-values.yaml) |
| on every node, for that node | [ci/daemonset-values.yaml](ci/daemonset-values.yaml) |
| beside an old Docker, in its pod | [ci/sidecar-values.yaml](ci/sidecar-values.yaml) |
| the way out of a company | [ci/mirror-values.yaml](ci/mirror-values.yaml) |
| several registries | [ci/multi-upstream-values.yaml](ci/multi-upstream-values.yaml) |

It runs as nobody, on a file system that it cannot write, without capabilities and without a token of Kubernetes; a NetworkPolicy
lets it be asked at two ports and ask at those that are named. More than one replica is refused without a store that they share,
and credentials of the gateway's own without a door. A change of the configuration or of a Secret needs no restart, but for keys that hold
until the end.

An image that comes through the gateway is no use for starting it: let nodes pull its image from elsewhere.

## Values

| key | default | what it is |
|---|---|---|
"""


def text():
    """The whole file. Every value has a comment of its own, or one of the map that it is in."""
    rows, path, comment = [], [], []
    for line in (CHART / "values.yaml").read_text().splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            comment.append(bare.lstrip("# ").removeprefix("-- ").strip())
            continue
        if not bare or bare.startswith("- ") or ":" not in bare:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        key, _, value = bare.partition(":")
        path[depth:] = [key]
        if value.strip() or comment:
            shown = f"`{json.dumps(yaml.safe_load(value))}`" if value.strip() else ""
            rows.append(f"| `{'.'.join(path)}` | {shown} | {' '.join(comment)} |".replace("  ", " "))
        comment = []
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
