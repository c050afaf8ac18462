#!/usr/bin/env python3
"""Makes the golden files: the schema 1 that a real docker-registry 2.8 (Debian package `docker-registry`) gives for each input.

    python3 tests/golden/make.py

For every image of `inputs.py` the registry is asked for `test/repo:tag-1` without an Accept header, and its answer is kept:
`schema1/<name>.payload` (the bytes that the digest is of) and `schema1/<name>.signed` (the body as sent), or
`schema1/<name>.refused` (status and body) where it does not translate. Payloads come out the same on every run; a signature
has the time and a random number in it, so a `.signed` whose payload is unchanged is left alone.
"""

import base64
import hashlib
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import inputs

SCHEMA1 = inputs.HERE / "schema1"
REPOSITORY = "test/repo"
TAG = "tag-1"


class Registry:
    """One docker-registry process in a temporary directory, on a free loopback port."""

    def __init__(self, directory):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = directory / "config.yml"
        settings.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: '{directory}/data'}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}'}}\n"
        )
        self.process = subprocess.Popen(["docker-registry", "serve", str(settings)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.ask("GET", "/v2/")
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"docker-registry ended with {self.process.returncode}")
                time.sleep(0.05)
        raise SystemExit("docker-registry does not answer")

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def upload(self, data):
        digest = inputs.digest(data)
        if self.ask("HEAD", f"/v2/{REPOSITORY}/blobs/{digest}")[0] == 200:
            return
        _, headers, _ = self.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        location = headers["Location"].split(f":{self.port}", 1)[1]
        status, _, body = self.ask("PUT", f"{location}&digest={digest}", data, {"Content-Type": "application/octet-stream"})
        if status != 201:
            raise SystemExit(f"upload of {digest}: {status} {body!r}")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def payload_of(signed):
    """The signed bytes of a libtrust document: `formatLength` bytes of it and `formatTail`."""
    protected = json.loads(signed)["signatures"][0]["protected"]
    said = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
    tail = said["formatTail"]
    return signed[: said["formatLength"]] + base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4))


def ask_for_schema1(registry, config_bytes, layers):
    for blob in {config_bytes, *(inputs.layer(number) for number in layers)}:
        registry.upload(blob)
    status, _, body = registry.ask(
        "PUT", f"/v2/{REPOSITORY}/manifests/{TAG}", inputs.manifest(config_bytes, layers), {"Content-Type": inputs.MANIFEST_TYPE}
    )
    if status != 201:
        return status, body, None
    try:
        status, headers, body = registry.ask("GET", f"/v2/{REPOSITORY}/manifests/{TAG}")
    except http.client.HTTPException as broken:
        return "connection closed", str(type(broken).__name__).encode(), None
    return status, body, headers.get("Docker-Content-Digest")


def keep(name, status, body, digest):
    payload_file, signed_file, refused_file = (SCHEMA1 / f"{name}.{kind}" for kind in ("payload", "signed", "refused"))
    if status != 200:
        refused_file.write_bytes(f"{status}\n".encode() + body.rstrip() + b"\n")
        return
    payload = payload_of(body)
    if inputs.digest(payload) != digest:
        raise SystemExit(f"{name}: the payload is {inputs.digest(payload)}, the registry says {digest}")
    if not (payload_file.exists() and signed_file.exists() and payload_file.read_bytes() == payload):
        payload_file.write_bytes(payload)
        signed_file.write_bytes(body)


def main():
    inputs.write()
    SCHEMA1.mkdir(exist_ok=True)
    images = inputs.images()
    for stale in SCHEMA1.iterdir():
        if stale.name.split(".")[0] not in images:
            stale.unlink()
    with tempfile.TemporaryDirectory() as directory:
        registry = Registry(pathlib.Path(directory))
        try:
            for name, (config_bytes, layers) in images.items():
                status, body, digest = ask_for_schema1(registry, config_bytes, layers)
                keep(name, status, body, digest)
                print(f"{name}: {status} {digest or body.decode(errors='replace').strip()}")
        finally:
            registry.stop()


if __name__ == "__main__":
    sys.exit(main())
