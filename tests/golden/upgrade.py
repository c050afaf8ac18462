#!/usr/bin/env python3
"""Makes the golden files of the upgrade: the config that a real Docker makes of each schema 1 document.

    python3 tests/golden/upgrade.py

Needs `dockerd` and `docker` 20.10 (Debian package `docker.io`) and root. A registry of this script's own serves every
document of `cases()` to a dockerd with empty stores; what that keeps as the image's config is `upgrade/<name>.config.json`.
Where it refuses, `upgrade/<name>.refused` has its words. `<name>.schema1.json` is the document, and `<name>.layers.json`
what hashlib and gzip say of its layers. Docker of this age asks for a signature and for the right id of its key, and does
not look at the signature itself: the key here is the generator of P-256, and the signature is zeros.
"""

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

FOLDER = pathlib.Path(__file__).resolve().parent / "upgrade"
PRETTY_JWS = "application/vnd.docker.distribution.manifest.v1+prettyjws"

GENERATOR_X = bytes.fromhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
GENERATOR_Y = bytes.fromhex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
PUBLIC_KEY_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def key_id():
    digest = hashlib.sha256(PUBLIC_KEY_HEAD + GENERATOR_X + GENERATOR_Y).digest()[:30]
    digits = base64.b32encode(digest).decode()
    return ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A tar archive of one file, and the blob that it is pushed as."""

    def __init__(self, content, compression="gzip"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            member = tarfile.TarInfo(f"file-{content}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
        self.archive = out.getvalue()
        self.compression = compression
        self.blob = self.archive if compression == "none" else gzip.compress(self.archive, mtime=0)
        self.digest = sha256(self.blob)

    def facts(self):
        return {"diff_id": sha256(self.archive), "size": len(self.blob), "compression": self.compression}


class EmptyLayer(Layer):
    """What every old Docker pushed for a step that made no layer."""

    def __init__(self):
        self.blob = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
        self.archive = gzip.decompress(self.blob)
        self.compression = "gzip"
        self.digest = sha256(self.blob)


BASE, MIDDLE, TOP, PLAIN, EMPTY = Layer("base"), Layer("middle"), Layer("top"), Layer("plain", "none"), EmptyLayer()


def payload_text(payload):
    return json.dumps(payload, indent=3)


def signed(payload):
    """The payload in the form that `docker push` gave it, and a signature."""
    text = payload_text(payload)
    protected = {"formatLength": len(text) - 2, "formatTail": base64url(b"\n}"), "time": "2020-01-01T00:00:00Z"}
    signature = {
        "header": {
            "jwk": {
                "crv": "P-256",
                "kid": key_id(),
                "kty": "EC",
                "x": base64url(GENERATOR_X),
                "y": base64url(GENERATOR_Y),
            },
            "alg": "ES256",
        },
        "signature": base64url(bytes(64)),
        "protected": base64url(json.dumps(protected, separators=(",", ":")).encode()),
    }
    return f'{text[:-2]},\n   "signatures": {json.dumps([signature])}\n}}'.encode()


def identity(number):
    return hashlib.sha256(f"id {number}".encode()).hexdigest()


def chain(entries):
    """Entries, the lowest first, with ids and parents where they have none."""
    written, parent = [], ""
    for number, (layer, entry) in enumerate(entries):
        if isinstance(entry, dict):
            entry = {"id": identity(number), **({"parent": parent} if parent else {}), **entry}
            parent, entry = entry["id"], json.dumps(entry, ensure_ascii=False)
        else:
            entry = entry.replace("@ID", identity(number)).replace("@PARENT", parent)
            parent = identity(number)
        written.append((layer, entry))
    return written


def document(name, entries):
    entries = list(reversed(chain(entries)))
    return {
        "schemaVersion": 1,
        "name": "upgrade",
        "tag": name,
        "architecture": "amd64",
        "fsLayers": [{"blobSum": layer.digest} for layer, _ in entries],
        "history": [{"v1Compatibility": entry} for _, entry in entries],
    }


def step(command, **more):
    return {"created": "2016-05-05T05:05:05.123456789Z", "container_config": {"Cmd": [command]}, **more}


CONFIG = {
    "Hostname": "abc", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False,
    "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "Image": "", "Volumes": None, "WorkingDir": "",
    "Entrypoint": None, "OnBuild": [], "Labels": {},
}


def top(version, **more):
    version = {} if version is None else {"docker_version": version}
    return {
        "architecture": "amd64", "os": "linux", "created": "2017-07-07T07:07:07.7Z", "author": "somebody",
        "container": "c0ffee", "config": CONFIG, "container_config": {**CONFIG, "Cmd": ["/bin/sh", "-c", "true"]},
        **version, **more,
    }


def cases():
    plain = [(BASE, step("base"))]
    yield "classic", plain + [
        (EMPTY, step("ENV a=b", throwaway=True)), (MIDDLE, step("middle", author="me", comment="c")),
        (TOP, top("17.03.2-ce")),
    ]
    for version in ["1.7.1", "1.8.2", "1.8.3", "1.8.3-rc1", "1.10.3", "20.10.24+dfsg1", "swarm", None]:
        yield f"version-{version}".lower().replace("+", "-"), plain + [(TOP, top(version, Size=7, parent_id="p", layer_id="l"))]
    yield "one-entry", [(BASE, top("1.12.6"))]
    yield "empty-layers-without-throwaway", plain + [(EMPTY, step("ENV")), (EMPTY, top("1.6.2", Size=0))]
    yield "top-is-throwaway", plain + [(EMPTY, top("1.12.6", throwaway=True))]
    yield "all-are-throwaway", [(EMPTY, step("x", throwaway=True)), (EMPTY, top("1.12.6", throwaway=True))]
    yield "a-layer-twice", plain + [(MIDDLE, step("m")), (BASE, step("again")), (MIDDLE, top("1.12.6"))]
    yield "a-layer-is-a-plain-archive", [(PLAIN, step("plain")), (TOP, top("1.12.6"))]
    full = {
        **CONFIG, "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Volumes": {"/b": {}, "/a": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5000000000, "Timeout": 0, "StartPeriod": 3, "Retries": 3},
        "ArgsEscaped": True, "Entrypoint": ["/e"], "NetworkDisabled": True, "MacAddress": "02:42", "OnBuild": ["RUN x"],
        "Labels": {"z": "1", "a": "<&>"}, "StopSignal": "TERM", "StopTimeout": 0, "Shell": ["/bin/bash", "-c"],
        "Unknown": 1,
    }
    for version in ["1.7.1", "1.13.1", None]:
        yield f"every-field-{version}".lower(), plain + [
            (TOP, top(version, config=full, variant="v8", unknown={"b": 1, "a": [1.50, 12345678901234567890]}))
        ]
    odd = {
        "cmd": "in one string", "ENTRYPOINT": "too", "Env": [None, "a"], "ExposedPorts": {}, "Volumes": {},
        "Shell": [], "Healthcheck": {}, "OnBuild": None, "Labels": {"k": None}, "StopTimeout": None, "Tty": True,
    }
    yield "odd-fields", plain + [(TOP, top("1.5.0", config=odd, container_config=odd))]
    yield "no-configs", plain + [(TOP, {"docker_version": "1.5.0", "os": "linux"})]
    yield "nulls", plain + [
        (TOP, top("1.5.0", config=None, container_config=None, author=None, created=None, comment=None))
    ]
    yield "nulls-as-they-are", plain + [(TOP, top("1.12.0", config=None, created=None, comment=None))]
    yield "keys-in-another-case", plain + [
        (TOP, '{"ID":"@ID","PARENT":"@PARENT","Created":"2016-01-01T00:00:00+02:00","OS":"linux","Docker_Version":"1.7.0",'
              '"Config":{"HOSTNAME":"h"},"Container_Config":{"cmd":["a","b"]},"ſize":1}')
    ]
    yield "keys-in-another-case-as-they-are", plain + [
        (TOP, '{"ID":"@ID","Parent":"@PARENT","created":"2016-01-01T00:00:00Z","docker_version":"1.12.0","os":"linux"}')
    ]
    yield "blanks-escapes-and-order", plain + [
        (TOP, ' { "os" : "linux" , "z" : "<\\u003c\\/\u2028\\u2029é" , "id" : "@ID" , "docker_version" : "1.12.0" ,\n'
              '"a" : { "z" : 1.0 , "b" : [ ] } , "parent" : "@PARENT" , "created" : "2016-01-01T00:00:00.1200Z" }')
    ]
    yield "repeated-keys", plain + [
        (TOP, '{"id":"@ID","parent":"@PARENT","created":"2016-01-01T00:00:00Z","docker_version":"1.12.0","os":"linux",'
              '"config":{"a":1,"a":2},"x":1,"x":2,"comment":"1","comment":"2"}')
    ]
    yield "html-in-an-old-one", plain + [(TOP, top("1.2.0", comment="<&>\u2028\u007f\u0001\\\"\n\t\b"))]
    yield "times", [
        (BASE, step("base", created="2016-01-01T00:00:00.000Z")), (MIDDLE, step("m", created="2016-01-01T00:00:00.10+02:00")),
        (TOP, top("1.5.0", created="2016-01-01T00:00:00.123456789Z")),
    ]
    yield "commands", [
        (BASE, step("one")), (MIDDLE, {"created": "2016-01-01T00:00:00Z", "container_config": {"Cmd": ["a", "", "b c"]}}),
        (EMPTY, {"created": "2016-01-01T00:00:00Z", "container_config": {"Cmd": "string"}, "throwaway": True}),
        (EMPTY, {"created": "2016-01-01T00:00:00Z", "throwaway": True}), (TOP, top("1.12.0")),
    ]
    same = {"id": identity(1), "parent": identity(0)}
    yield "neighbours-with-one-id", plain + [
        (MIDDLE, step("kept", **same)), (TOP, step("dropped", **same)), (TOP, top("1.12.0", parent=identity(1)))
    ]
    yield "the-topmost-two-with-one-id", plain + [
        (MIDDLE, top("1.12.0", comment="kept", **same)), (TOP, top("1.12.0", comment="dropped", **same))
    ]
    yield "refused-an-id-twice", plain + [
        (MIDDLE, step("m")), (TOP, {**top("1.12.0"), "id": identity(0)})
    ]
    yield "refused-lying-parent", plain + [(TOP, top("1.12.0", parent=identity(7)))]
    yield "refused-no-parent", plain + [(TOP, top("1.12.0", parent=""))]
    yield "refused-base-has-a-parent", [(BASE, step("base", parent=identity(7))), (TOP, top("1.12.0"))]
    yield "refused-id-in-capitals", [(BASE, top("1.12.0", id="AB" * 32))]
    yield "refused-id-too-short", [(BASE, top("1.12.0", id="ab"))]
    yield "refused-no-id", [(BASE, '{"created":"2016-01-01T00:00:00Z","os":"linux"}')]
    yield "refused-not-json", [(BASE, "{")]
    yield "refused-a-list", [(BASE, "[]")]
    yield "refused-created-is-no-time", plain + [(TOP, top("1.12.0", created="yesterday"))]
    yield "refused-created-is-empty", plain + [(TOP, top("1.12.0", created=""))]
    yield "refused-throwaway-is-a-word", plain + [(TOP, top("1.12.0", throwaway="yes"))]
    yield "refused-command-is-a-number", plain + [(TOP, top("1.12.0", container_config={"Cmd": 1}))]
    yield "refused-environment-is-a-string", plain + [(TOP, top("1.5.0", config={"Env": "x"}))]


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    documents, blobs, digests = {}, {}, {}

    def do_GET(self):
        kind, _, name = self.path.partition("/upgrade/")[2].partition("/")
        found = {"manifests": self.documents, "blobs": self.blobs}.get(kind, {}).get(name)
        if self.path == "/v2/":
            found = b"{}"
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", PRETTY_JWS if kind == "manifests" else "application/octet-stream")
        if name in self.digests:
            self.send_header("Docker-Content-Digest", self.digests[name])
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(found or b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def start_dockerd(directory):
    host = f"unix://{directory}/docker.sock"
    command = [
        "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--oom-score-adjust=0",
        "--storage-driver=vfs", f"--data-root={directory}/data", f"--exec-root={directory}/exec",
        f"--pidfile={directory}/pid", f"--host={host}",
    ]
    log = open(directory / "log", "wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(600):
        if subprocess.run(["docker", "--host", host, "version"], capture_output=True).returncode == 0:
            return host, process
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit((directory / "log").read_text()[-4000:])


def main():
    if os.geteuid() != 0:
        raise SystemExit("dockerd can be started by root only: run this as root")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Registry.blobs = {layer.digest: layer.blob for layer in [BASE, MIDDLE, TOP, PLAIN, EMPTY]}
    for old in [*FOLDER.glob("*.json"), *FOLDER.glob("*.refused")]:
        old.unlink()
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        host, dockerd = start_dockerd(directory)
        try:
            for name, entries in cases():
                make(name, entries, host, directory, server.server_address[1])
        finally:
            dockerd.send_signal(signal.SIGTERM)
            dockerd.wait()


def make(name, entries, host, directory, port):
    body = signed(document(name, entries))
    payload_digest = sha256(payload_text(document(name, entries)).encode())
    Registry.documents[name] = Registry.documents[payload_digest] = body
    Registry.digests[name] = Registry.digests[payload_digest] = payload_digest
    (FOLDER / f"{name}.schema1.json").write_bytes(body)
    layers = {layer.digest: layer.facts() for layer, _ in entries}
    (FOLDER / f"{name}.layers.json").write_text(json.dumps(layers, indent=1, sort_keys=True) + "\n")
    reference = f"127.0.0.1:{port}/upgrade:{name}"
    docker = lambda *words: subprocess.run(["docker", "--host", host, *words], capture_output=True, text=True)
    pulled = docker("pull", reference)
    if pulled.returncode != 0:
        words = pulled.stderr.strip().replace(str(port), "PORT")
        (FOLDER / f"{name}.refused").write_text(words + "\n")
        print(f"{name}: {words}", file=sys.stderr)
        return
    identity = docker("image", "inspect", "--format", "{{.Id}}", reference).stdout.strip()
    config = (directory / "data/image/vfs/imagedb/content/sha256" / identity.partition(":")[2]).read_bytes()
    assert sha256(config) == identity
    (FOLDER / f"{name}.config.json").write_bytes(config)


if __name__ == "__main__":
    main()
