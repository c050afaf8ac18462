#!/usr/bin/env python3
"""Makes `store-edition-<n>/`: what a store of edition <n> holds, written by a gateway of that edition.

    cargo build && python3 tests/golden/store.py target/debug/schemabridge

`upstream/` is what the registry behind the gateway holds, a folder for each repository: `latest.manifest` is tagged, the other
`*.manifest` are its children, `*.config` are blobs. This script serves it on loopback to the binary that it is given, asks
through that for every tag as old and new clients do, and keeps the directory that the binary wrote as `store/`. A signing key
that is there already is used again, so a second run of the same edition changes no byte.
"""

import hashlib
import http.client
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
DOCKER = "application/vnd.docker.distribution.manifest"
SCHEMA2, LIST = f"{DOCKER}.v2+json", f"{DOCKER}.list.v2+json"
OCI, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
CONFIGS = {SCHEMA2: "application/vnd.docker.container.image.v1+json", OCI: "application/vnd.oci.image.config.v1+json"}
LAYERS = {SCHEMA2: "application/vnd.docker.image.rootfs.diff.tar.gzip", OCI: "application/vnd.oci.image.layer.v1.tar+gzip"}
# Docker 1.9 sends no Accept header and reads schema 1; Docker 17 reads Docker's types; the last reads OCI types only.
CLIENTS = [
    {"User-Agent": "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0-4-amd64 os/linux arch/amd64"},
    {"User-Agent": "docker/17.05.0-ce go/go1.7.5 git-commit/89658be kernel/4.9.0-amd64 os/linux arch/amd64", "Accept": f"{SCHEMA2}, {LIST}"},
    {"Accept": f"{OCI}, {INDEX}"},
]


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(name, architecture):
    """A config with an instruction that adds no layer between two that do."""
    history = [
        {"created": "2023-01-02T03:04:05Z", "created_by": "COPY <base> / # buildkit", "comment": "buildkit.dockerfile.v0"},
        {"created": "2023-01-02T03:04:05Z", "created_by": f"LABEL name={name}", "empty_layer": True},
        {"created": "2023-01-02T03:04:06.5Z", "created_by": "COPY top / # buildkit", "comment": "buildkit.dockerfile.v0"},
    ]
    diff_ids = [digest(f"{name} {architecture} {layer}".encode()) for layer in ("base", "top")]
    return compact({
        "architecture": architecture, "config": {"Cmd": ["/bin/sh"], "Labels": {"name": name}}, "created": "2023-01-02T03:04:06.5Z",
        "history": history, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })


def manifest(media_type, config_bytes):
    layers = [f"{number} of {digest(config_bytes)}".encode() for number in range(2)]
    parts = [(CONFIGS[media_type], config_bytes), *((LAYERS[media_type], layer) for layer in layers)]
    config, *layers = ({"mediaType": kind, "digest": digest(data), "size": len(data)} for kind, data in parts)
    value = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}
    return json.dumps(value, indent=3).encode() if media_type == SCHEMA2 else compact(value)


def write_upstream(folder):
    shutil.rmtree(folder, ignore_errors=True)
    for repository, media_type in (("oci", OCI), ("schema2", SCHEMA2)):
        (folder / repository).mkdir(parents=True)
        told = config(repository, "amd64")
        (folder / repository / "image.config").write_bytes(told)
        (folder / repository / "latest.manifest").write_bytes(manifest(media_type, told))
    (folder / "index").mkdir()
    entries = []
    for architecture in ("amd64", "arm64"):
        told = config("index", architecture)
        child = manifest(OCI, told)
        (folder / "index" / f"{architecture}.config").write_bytes(told)
        (folder / "index" / f"{architecture}.manifest").write_bytes(child)
        platform = {"architecture": architecture, "os": "linux"}
        entries.append({"mediaType": OCI, "digest": digest(child), "size": len(child), "platform": platform})
    (folder / "index" / "latest.manifest").write_bytes(compact({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))


class Registry(http.server.BaseHTTPRequestHandler):
    """Reads only, and only what `upstream/` holds."""

    folder = None
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = re.fullmatch(r"/v2/(\w+)/(manifests|blobs)/([\w:]+)", self.path)
        held = {}
        if asked and (self.folder / asked[1]).is_dir():
            suffix = {"manifests": ".manifest", "blobs": ".config"}[asked[2]]
            files = [file for file in (self.folder / asked[1]).iterdir() if file.suffix == suffix]
            held = {name: file.read_bytes() for file in files for name in (file.stem, digest(file.read_bytes()))}
        data = held.get(asked[3]) if asked else None
        body = data if data is not None else b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}'
        self.send_response(200 if data is not None else 404)
        if data is not None:
            self.send_header("Docker-Content-Digest", digest(data))
        self.send_header("Content-Type", json.loads(body).get("mediaType", "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def start(binary, upstream, store):
    """The gateway, and the port that it says it listens on."""
    command = [binary, "serve", "--upstream", upstream, "--store", store.as_uri(), "--log-format", "json"]
    command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        said = json.loads(line)
        if said.get("message") == "listening":
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, int(said["address"].rsplit(":", 1)[1])
    raise SystemExit(f"the gateway ended with {process.wait()}")


def ask(port, repository, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", f"/v2/{repository}/manifests/latest", skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    print(f"{repository}: {answer.status} {answer.getheader('Schemabridge-Translation', 'as stored')}")
    if answer.status != 200:
        raise SystemExit(body.decode())


def fill(binary, upstream, store):
    Registry.folder = upstream
    registry = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    process, port = start(binary, f"http://127.0.0.1:{registry.server_port}", store)
    try:
        for repository in sorted(folder.name for folder in upstream.iterdir()):
            for client in CLIENTS:
                ask(port, repository, client)
        # A claim is settled behind the answer.
        while any(b"at_work" in claim.read_bytes() for claim in (store / "v1/claims").rglob("*") if claim.is_file()):
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait()
        registry.shutdown()


def main():
    with tempfile.TemporaryDirectory() as directory:
        upstream, store = pathlib.Path(directory, "upstream"), pathlib.Path(directory, "store")
        write_upstream(upstream)
        store.mkdir()
        for key in sorted(HERE.glob("store-edition-*/store/v1/signing-key"))[:1]:
            (store / "v1").mkdir()
            shutil.copy(key, store / "v1")
        fill(sys.argv[1], upstream, store)
        [edition] = (folder.name for folder in (store / "v1" / "documents").iterdir())
        kept = HERE / f"store-edition-{edition}"
        for part in (upstream, store):
            shutil.rmtree(kept / part.name, ignore_errors=True)
            shutil.copytree(part, kept / part.name)


if __name__ == "__main__":
    sys.exit(main())
