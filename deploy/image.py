#!/usr/bin/env python3
"""Writes the image as a tar for `docker load`, without a daemon and without root.

    deploy/image.py --program PROGRAM --libraries ROOT --output FILE

Docker before 1.10 reads `repositories` and a folder a layer, later ones and podman read `manifest.json`: both are there
and name the same layer. Equal inputs give equal bytes.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import platform
import tarfile
import time

USER = 65532
STATE = "var/lib/schemabridge"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The C library that the program asks for, and what resolves names in it.
LIBRARIES = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libresolv.so.2", "libutil.so.1",
             "libnss_files.so.2", "libnss_dns.so.2"]
LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
PASSWD = f"schemabridge:x:{USER}:{USER}:schemabridge:/{STATE}:/sbin/nologin\n"


def main():
    arguments = parse_arguments()
    made_at = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    layer = tar_of(files_of_layer(arguments), made_at)
    arguments.output.write_bytes(tar_of(files_of_image(arguments, layer, made_at), made_at))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, required=True, help="what deploy/build.sh printed")
    parser.add_argument("--libraries", type=pathlib.Path, required=True, help="the root that deploy/bullseye.sh printed")
    parser.add_argument("--authorities", type=pathlib.Path, default=pathlib.Path("/", AUTHORITIES))
    parser.add_argument("--machine", choices=LOADERS, default=platform.machine())
    parser.add_argument("--name", default="schemabridge")
    parser.add_argument("--version", required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    return parser.parse_args()


def files_of_layer(arguments):
    """The files by path: their bytes and mode. A path that ends in a slash is a folder."""
    libraries = f"lib/{arguments.machine}-linux-gnu"
    files = {
        "usr/bin/schemabridge": (arguments.program.read_bytes(), 0o755),
        AUTHORITIES: (arguments.authorities.read_bytes(), 0o644),
        "etc/passwd": (PASSWD.encode(), 0o644),
        "etc/group": (f"schemabridge:x:{USER}:\n".encode(), 0o644),
        "etc/nsswitch.conf": (b"hosts: files dns\n", 0o644),
        LOADERS[arguments.machine]: (library(arguments, LOADERS[arguments.machine]), 0o755),
        "usr/share/doc/libc6/copyright": (library(arguments, "usr/share/doc/libc6/copyright"), 0o644),
        STATE + "/": (b"", 0o700),
        "tmp/": (b"", 0o1777),
    }
    for name in LIBRARIES:
        files[f"{libraries}/{name}"] = (library(arguments, f"{libraries}/{name}"), 0o644)
    return files


def library(arguments, path):
    file = arguments.libraries / path
    while file.is_symlink():
        # An absolute link means the root that it stands in, not this machine's.
        target = os.readlink(file)
        file = arguments.libraries / target.lstrip("/") if target.startswith("/") else file.parent / target
    try:
        return file.read_bytes()
    except OSError as error:
        raise SystemExit(f"{file}: {error.strerror}; --libraries wants a root of Debian 11, as deploy/bullseye.sh makes it")


def files_of_image(arguments, layer, made_at):
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made_at))
    common = {
        "architecture": ARCHITECTURES[arguments.machine],
        "config": settings(arguments.version),
        "created": created,
        "os": "linux",
    }
    config = encoded({
        **common,
        "history": [{"created": created, "created_by": "deploy/image.py"}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    })
    digest = hashlib.sha256(config).hexdigest()
    # The id of Docker 1.9 is any 64 digits, and it is one that changes with the content.
    old = {**common, "id": digest, "container_config": common["config"], "Size": len(layer)}
    contents = {
        f"{digest}/VERSION": b"1.0",
        f"{digest}/json": encoded(old),
        f"{digest}/layer.tar": layer,
        f"{digest}.json": config,
        "manifest.json": encoded([{
            "Config": f"{digest}.json",
            "RepoTags": [f"{arguments.name}:{arguments.version}"],
            "Layers": [f"{digest}/layer.tar"],
        }]),
        "repositories": encoded({arguments.name: {arguments.version: digest}}),
    }
    return {path: (content, 0o644) for path, content in contents.items()}


def settings(version):
    second = 1_000_000_000
    return {
        "User": f"{USER}:{USER}",
        # No setting of the gateway's own: a variable goes before the operator's file, and would open what that closes.
        "Env": ["PATH=/usr/bin", f"STATE_DIRECTORY=/{STATE}"],
        "Entrypoint": ["/usr/bin/schemabridge"],
        "Cmd": ["serve"],
        "ExposedPorts": {"5000/tcp": {}},
        "Volumes": {f"/{STATE}": {}},
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", "/usr/bin/schemabridge", "healthcheck"],
            "Interval": 30 * second,
            "Timeout": 5 * second,
            "StartPeriod": 5 * second,
            "Retries": 3,
        },
        "Labels": {
            "org.opencontainers.image.title": "schemabridge",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    }


def encoded(document):
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def tar_of(files, made_at):
    """A tar in which only the files, their modes and the one time differ; folders come before what is in them."""
    folders = {f"{parent}/" for path in files for parent in pathlib.PurePosixPath(path).parents if parent.name}
    entries = {**dict.fromkeys(folders, (b"", 0o755)), **files}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(entries):
            content, mode = entries[path]
            entry = tarfile.TarInfo(path.rstrip("/"))
            entry.mode, entry.mtime, entry.size = mode, made_at, len(content)
            if path.endswith("/"):
                entry.type = tarfile.DIRTYPE
            if path == STATE + "/":
                entry.uid = entry.gid = USER
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


if __name__ == "__main__":
    main()
