"""An image for the measurements, pushed as schema 2 and as OCI."""

import hashlib
import http.client
import json

REPOSITORY = "bench/image"
LAYERS = 10
TYPES = {
    "schema2": ("application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    "oci": ("application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip"),
}


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def config():
    """A config as BuildKit writes it: a history entry for each layer and one without between them."""
    history = []
    for number in range(LAYERS):
        history.append({"created": "2024-03-01T10:00:00Z", "comment": "buildkit.dockerfile.v0",
                        "created_by": f"RUN /bin/sh -c apt-get update && apt-get install -y package-{number} # buildkit"})
        history.append({"created": "2024-03-01T10:00:00Z", "comment": "buildkit.dockerfile.v0",
                        "created_by": f"ENV NUMBER={number}", "empty_layer": True})
    return json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2024-03-01T10:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers()]},
    }).encode()


def layers():
    return [b"layer %d" % number for number in range(LAYERS)]


def manifest(form):
    """The manifest in this form, its keys in the order in which Docker and the specification write them."""
    media_type, config_type, layer_type = TYPES[form]
    order = ("mediaType", "size", "digest") if form == "schema2" else ("mediaType", "digest", "size")

    def descriptor(kind, content):
        said = {"mediaType": kind, "digest": digest(content), "size": len(content)}
        return {key: said[key] for key in order}

    return {"schemaVersion": 2, "mediaType": media_type, "config": descriptor(config_type, config()),
            "layers": [descriptor(layer_type, layer) for layer in layers()]}


def push(port, forms=None):
    """Pushes the image to the registry on this port, each form under its tag; without any, each under its own name."""
    for blob in [config(), *layers()]:
        location = request(port, "POST", f"/v2/{REPOSITORY}/blobs/uploads/", 202).getheader("Location")
        target = "/" + location.split("/", 3)[3] if location.startswith("http") else location
        request(port, "PUT", f"{target}&digest={digest(blob)}", 201, blob)
    for tag, form in (forms or {form: form for form in TYPES}).items():
        request(port, "PUT", manifest_path(tag), 201, json.dumps(manifest(form)).encode(), {"Content-Type": TYPES[form][0]})


def manifest_path(tag):
    return f"/v2/{REPOSITORY}/manifests/{tag}"


def request(port, method, target, status, body=None, headers=None):
    """One request whose answer must have this status; its body is in `content`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, target, body, headers or {})
    answer = connection.getresponse()
    answer.content = answer.read()
    connection.close()
    if answer.status != status:
        raise SystemExit(f"{method} {target}: {answer.status} instead of {status}: {answer.content[:500]!r}")
    return answer
