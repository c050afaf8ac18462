"""Reads an image's tar as Docker 1.9 does, from `repositories` along the parents, and as later ones do.

    read_as_docker_1_9.py TAR NAME TAG

Prints the paths in the image with owner and mode, once both ways have led to the same layers.
"""

import hashlib
import json
import re
import sys
import tarfile


def main(path, name, tag):
    with tarfile.open(path) as archive:
        read = lambda member: archive.extractfile(member).read()
        identifier = json.loads(read("repositories"))[name][tag]
        old_layers, old_settings = chain(read, identifier)
        [entry] = json.loads(read("manifest.json"))
        config = json.loads(read(entry["Config"]))
        new_layers = [read(layer) for layer in entry["Layers"]]
        assert entry["RepoTags"] == [f"{name}:{tag}"], entry
        assert old_layers == new_layers, "the two ways lead to other layers"
        assert old_settings == config["config"], "the two ways lead to other settings"
        digests = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in new_layers]
        assert config["rootfs"]["diff_ids"] == digests, config["rootfs"]
        for layer in archive.getmembers():
            assert layer.mtime == 0 and not layer.pax_headers, layer.name
        [layer] = entry["Layers"]
        with tarfile.open(fileobj=archive.extractfile(layer)) as files:
            for file in files:
                print(f"/{file.name} {file.uid}:{file.gid} {file.mode:o}")


def chain(read, identifier):
    """The layers, the lowest first, and the settings of the topmost."""
    layers, settings = [], None
    while identifier:
        assert re.fullmatch("[0-9a-f]{64}", identifier), identifier
        assert read(f"{identifier}/VERSION") == b"1.0"
        image = json.loads(read(f"{identifier}/json"))
        assert image["id"] == identifier, "an image under another's id"
        assert image["os"] == "linux" and image["architecture"], image
        layers.insert(0, read(f"{identifier}/layer.tar"))
        settings = settings or image["config"]
        identifier = image.get("parent")
    return layers, settings


main(*sys.argv[1:])
