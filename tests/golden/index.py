#!/usr/bin/env python3
"""Makes the golden files of lists and indexes: `index/<case>/`, one folder per rule.

    python3 tests/golden/index.py

A folder holds what a registry holds (`stored`, `child-<n>`, `config-<n>`), who asks (`client.json`), and what the answer must
be: `expected`, byte for byte, or `refused`, words that the 406 must say. What each expected document contains is written down
here case by case; only the bytes are computed, with Python's own JSON writer in the forms that Docker and the OCI tools use.
"""

import hashlib
import json
import pathlib
import shutil

HERE = pathlib.Path(__file__).parent / "index"

DOCKER = "application/vnd.docker.distribution.manifest"
SCHEMA1, SCHEMA2, LIST = f"{DOCKER}.v1+prettyjws", f"{DOCKER}.v2+json", f"{DOCKER}.list.v2+json"
OCI, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
DOCKER_TYPES = ["application/json", SCHEMA1, SCHEMA2, LIST]
LAYERS = {
    (SCHEMA2, "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    (OCI, "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    (OCI, "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    (OCI, "encrypted"): "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
    (OCI, "in-toto"): "application/vnd.in-toto+json",
}
CONFIGS = {SCHEMA2: "application/vnd.docker.container.image.v1+json", OCI: "application/vnd.oci.image.config.v1+json"}


def go(value, indent=None):
    """JSON as Go's encoder prints it."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """An image of one layer, in the forms in which a registry may hold it."""

    def __init__(self, name, architecture="amd64", packing="gzip", **config):
        told = {"architecture": architecture, "os": "linux", **config}
        self.config = go({**told, "config": {"Labels": {"name": name}}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]}})
        self.layer, self.packing = f"layer of {name} for {architecture}".encode(), packing

    def document(self, media_type, config_type=None):
        config_type = config_type or CONFIGS[media_type]
        parts = [(config_type, self.config), (LAYERS[OCI if config_type == CONFIGS[OCI] else media_type, self.packing], self.layer)]
        if media_type == SCHEMA2:
            config, layer = ({"mediaType": kind, "size": len(data), "digest": digest(data)} for kind, data in parts)
        else:
            config, layer = ({"mediaType": kind, "digest": digest(data), "size": len(data)} for kind, data in parts)
        manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]}
        return go(manifest, 3 if media_type == SCHEMA2 else None)

    @property
    def oci(self):
        return self.document(OCI)

    @property
    def schema2(self):
        return self.document(SCHEMA2)

    @property
    def hybrid(self):
        return self.document(SCHEMA2, CONFIGS[OCI])


def platform(text, **more):
    """`os/architecture[/variant]` in the order of the specifications' fields."""
    os, architecture, *variant = text.split("/")
    told = {"architecture": architecture, "os": os}
    for key in ["os.version", "os.features"]:
        if key in more:
            told[key] = more[key]
    if variant:
        told["variant"] = variant[0]
    if "features" in more:
        told["features"] = more["features"]
    return told


def entry(kind, child, on=None, **more):
    """An entry of an OCI index."""
    told = {"mediaType": kind, "digest": digest(child), "size": len(child)}
    for key in ["urls", "annotations"]:
        if key in more:
            told[key] = more[key]
    if on:
        told["platform"] = on if isinstance(on, dict) else platform(on)
    if "artifactType" in more:
        told["artifactType"] = more["artifactType"]
    return told


def docker_entry(kind, child, on=None):
    """An entry of a Docker list."""
    told = {"mediaType": kind, "size": len(child), "digest": digest(child)}
    if on:
        told["platform"] = on if isinstance(on, dict) else platform(on)
    return told


def index(entries, **more):
    return go({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more})


def docker_list(entries):
    return go({"schemaVersion": 2, "mediaType": LIST, "manifests": entries}, 3)


def attestation(statement, about):
    annotations = {"vnd.docker.reference.digest": digest(about), "vnd.docker.reference.type": "attestation-manifest"}
    return entry(OCI, statement, "unknown/unknown", annotations=annotations)


def docker(version, accept=()):
    return {"user_agent": f"docker/{version} go/go1.9 kernel/4.9.0 os/linux arch/amd64", "accept": [*DOCKER_TYPES, *accept]}


DOCKER_17, DOCKER_19_03_4 = docker("17.05.0-ce"), docker("19.03.4", [OCI, INDEX])
DOCKER_20 = docker("20.10.24", [OCI, INDEX])
OCI_ONLY = {"user_agent": "", "accept": [f"{OCI}, {INDEX}"]}


def case(name, client, stored, children=(), images=(), expected=None, refused=None):
    folder = HERE / name
    folder.mkdir(parents=True)
    files = {"stored": stored, "client.json": go(client, 2) + b"\n"}
    files |= {f"child-{number}": child for number, child in enumerate(children, 1)}
    files |= {f"config-{number}": image.config for number, image in enumerate(images, 1)}
    if expected is not None:
        files["expected"] = expected
    else:
        files["refused"] = "".join(f"{words}\n" for words in refused).encode()
    for file, content in files.items():
        (folder / file).write_bytes(content)


AMD64, ARM64, S390X = (Image("app", architecture) for architecture in ["amd64", "arm64", "s390x"])
ZSTD, SECRET = Image("packed", "amd64", "zstd"), Image("secret", "ppc64le", "encrypted")
STATEMENT = Image("statement", "unknown", "in-toto").oci
SBOM = go({
    "schemaVersion": 2, "mediaType": OCI, "artifactType": "application/vnd.example.sbom.v1",
    "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
    "layers": [{"mediaType": "application/vnd.example.sbom.v1+json", "digest": digest(b"sbom"), "size": 4}],
})
TWO = docker_list([docker_entry(SCHEMA2, AMD64.schema2, "linux/amd64"), docker_entry(SCHEMA2, ARM64.schema2, "linux/arm64")])
ONE = docker_list([docker_entry(SCHEMA2, AMD64.schema2, "linux/amd64")])


def lists():
    both = [entry(OCI, AMD64.oci, "linux/amd64"), entry(OCI, ARM64.oci, "linux/arm64")]
    children = [AMD64.oci, ARM64.oci]
    case("list-of-oci-children", DOCKER_17, index(both), children, expected=TWO)
    untyped = go({"schemaVersion": 2, "manifests": both})
    case("list-of-an-index-without-a-type", DOCKER_17, untyped, children, expected=TWO)
    annotated = index([{**one, "annotations": {"a": "b"}, "urls": ["https://example.com"]} for one in both], annotations={"c": "d"})
    case("list-says-no-annotations", DOCKER_17, annotated, children, expected=TWO)
    case("list-of-a-list-of-oci-children", DOCKER_17, docker_list(both), children, expected=TWO)
    mixed = index([entry(SCHEMA2, AMD64.schema2, "linux/amd64"), entry(OCI, ARM64.oci, "linux/arm64")])
    case("list-keeps-schema-2-children", DOCKER_17, mixed, [AMD64.schema2, ARM64.oci], expected=TWO)
    hybrid = index([entry(SCHEMA2, AMD64.hybrid, "linux/amd64"), entry(SCHEMA2, ARM64.hybrid, "linux/arm64")])
    case("list-makes-hybrid-children-proper", DOCKER_17, hybrid, [AMD64.hybrid, ARM64.hybrid], expected=TWO)
    lying = index([entry(SCHEMA2, AMD64.oci, "linux/amd64"), entry(OCI, ARM64.schema2, "linux/arm64")])
    case("list-goes-by-the-childrens-bytes", DOCKER_17, lying, [AMD64.oci, ARM64.schema2], expected=TWO)


def pruned_lists():
    image = entry(OCI, AMD64.oci, "linux/amd64")
    rest = [
        attestation(STATEMENT, AMD64.oci),
        entry(OCI, STATEMENT, "linux/mips", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        entry(OCI, SBOM, "linux/arm64", artifactType="application/vnd.example.sbom.v1"),
        entry(OCI, SBOM, "linux/riscv64"),
        entry("application/vnd.example.thing.v1", SBOM, "linux/386"),
    ]
    case("list-leaves-out-attestations-and-artifacts", DOCKER_17, index([*rest, image]), [STATEMENT, SBOM, AMD64.oci], expected=ONE)
    untranslatable = [entry(OCI, SECRET.oci, "linux/ppc64le"), entry(OCI, Image("packed", "s390x", "zstd").oci, "linux/s390x")]
    children = [SECRET.oci, Image("packed", "s390x", "zstd").oci, AMD64.oci]
    case("list-leaves-out-what-cannot-be-translated", DOCKER_17, index([*untranslatable, image]), children, expected=ONE)
    missing = entry(OCI, ARM64.oci, "linux/arm64")
    case("list-leaves-out-a-missing-child", DOCKER_17, index([missing, image]), [AMD64.oci], expected=ONE)
    packed = entry(OCI, ZSTD.oci, "linux/amd64")
    case("list-takes-gzip-after-zstd", DOCKER_17, index([packed, image]), [ZSTD.oci, AMD64.oci], expected=ONE)
    case("list-takes-gzip-before-zstd", DOCKER_17, index([image, packed]), [ZSTD.oci, AMD64.oci], expected=ONE)
    second = Image("second", "amd64").oci
    case("list-takes-the-first-of-a-platform", DOCKER_17, index([image, entry(OCI, second, "linux/amd64")]), [second, AMD64.oci], expected=ONE)
    inner = index([entry(OCI, ARM64.oci, "linux/arm64")])
    middle = docker_list([docker_entry(INDEX, inner)])
    outer = index([image, entry(LIST, middle), entry(OCI, S390X.oci, "linux/s390x")])
    three = [(AMD64, "amd64"), (ARM64, "arm64"), (S390X, "s390x")]
    flat = docker_list([docker_entry(SCHEMA2, one.schema2, f"linux/{name}") for one, name in three])
    case("list-flattens-nested-indexes", DOCKER_17, outer, [inner, middle, AMD64.oci, ARM64.oci, S390X.oci], expected=flat)


def platforms_of_lists():
    arm = Image("arm", "arm", **{"variant": "v6", "os.version": "1.2", "os.features": ["one"]})
    told = platform("linux/arm/v6", **{"os.version": "1.2", "os.features": ["one"]})
    blank = entry(OCI, S390X.oci, {"architecture": "", "os": ""})
    expected = docker_list([docker_entry(SCHEMA2, arm.schema2, told), docker_entry(SCHEMA2, S390X.schema2, "linux/s390x")])
    case("list-takes-platforms-from-configs", DOCKER_17, index([entry(OCI, arm.oci), blank]), [arm.oci, S390X.oci], [arm, S390X], expected)
    windows = [Image("windows", "amd64", number=number) for number in range(2)]
    versions = [platform("windows/amd64", **{"os.version": version, "os.features": ["win32k", "other"], "features": ["sse4"]}) for version in ["10.0.17763.1", "10.0.20348.1"]]
    both = list(zip(windows, versions))
    expected = docker_list([docker_entry(SCHEMA2, one.schema2, on) for one, on in both])
    case("list-keeps-all-of-a-platform", DOCKER_17, index([entry(OCI, one.oci, on) for one, on in both]), [one.oci for one in windows], expected=expected)
    twin = entry(OCI, Image("twin", "arm64").oci, "linux/arm64/v8")
    stored = index([entry(OCI, ARM64.oci, "linux/arm64"), twin])
    expected = docker_list([docker_entry(SCHEMA2, ARM64.schema2, "linux/arm64")])
    case("list-takes-arm64-for-arm64-v8", DOCKER_17, stored, [ARM64.oci, Image("twin", "arm64").oci], expected=expected)
    order = ["linux/arm/v7", "linux/amd64", "linux/arm", "linux/arm/v5", "linux/s390x", "linux/arm/v6"]
    images = {name: Image(name, name.split("/")[1]) for name in order}
    stored = index([entry(OCI, images[name].oci, name) for name in order])
    children = [images[name].oci for name in order]
    grouped = ["linux/arm/v6", "linux/arm/v5", "linux/arm", "linux/arm/v7", "linux/amd64", "linux/s390x"]
    for name, client, expected in [("list-groups-variants-for-docker-before-18.06", DOCKER_17, grouped), ("list-keeps-the-order-for-docker-19.03.4", DOCKER_19_03_4, order)]:
        case(name, client, stored, children, expected=docker_list([docker_entry(SCHEMA2, images[one].schema2, one) for one in expected]))


def indexes():
    features = platform("linux/amd64", features=["sse4"])
    stored = docker_list([docker_entry(SCHEMA2, AMD64.schema2, features), docker_entry(SCHEMA2, ARM64.schema2, "linux/arm64/v8")])
    expected = index([entry(OCI, AMD64.oci, "linux/amd64"), entry(OCI, ARM64.oci, "linux/arm64/v8")])
    case("index-of-schema-2-children", OCI_ONLY, stored, [AMD64.schema2, ARM64.schema2], expected=expected)
    # OCI words in a Docker list: some tools write them.
    words = {"a": "<&>\u2028 \u00e9\t\"", "vnd.docker.reference.digest.not": digest(AMD64.schema2)}
    about = [attestation(STATEMENT, AMD64.schema2), attestation(SBOM, S390X.schema2)]
    sbom = entry(OCI, SBOM, "linux/mips", artifactType="application/vnd.example.sbom.v1")

    def parent(kind, first, second, statement, sort):
        entries = [entry(kind, first, "linux/amd64", annotations=words, urls=["https://example.com/a?b&c"]), statement, sbom]
        return sort([*entries, *second], annotations={"org.example": "list"})

    def stored_list(entries, **more):
        return go({"schemaVersion": 2, "mediaType": LIST, "manifests": entries, **more})

    missing = [entry(SCHEMA2, S390X.schema2, "linux/s390x"), about[1]]
    stored = parent(SCHEMA2, AMD64.schema2, missing, about[0], stored_list)
    expected = parent(OCI, AMD64.oci, [], attestation(STATEMENT, AMD64.oci), index)
    case("index-keeps-attestations-about-new-digests", OCI_ONLY, stored, [AMD64.schema2, STATEMENT, SBOM], expected=expected)


def without_zstd():
    def text(child, on, tail=""):
        return f'{{ "platform":{{"os":"linux","architecture":"{on}"}},  "size" : {len(child)},"digest":"{digest(child)}","mediaType":"{OCI}"{tail} }}'

    def parent(entries):
        return f'{{"x-top":1.50,"mediaType":"{INDEX}","manifests":[{",".join(entries)}],"schemaVersion":2,"annotations":{{"a":"\\u00e9"}}}}'.encode()

    packed, plain = text(ZSTD.oci, "amd64"), text(ARM64.oci, "arm64", ',"x-own" : [ 1.0, "\\u00e9" ]')
    about = go(attestation(STATEMENT, ARM64.oci)).decode()
    children = [ZSTD.oci, ARM64.oci, STATEMENT]
    case("pruned-keeps-all-other-bytes", DOCKER_20, parent([plain, packed, about]), children, expected=parent([plain, about]))
    case("pruned-of-all-images-is-refused", DOCKER_20, parent([packed, about]), children, refused=["zstd", "every image"])


def refusals():
    case("refused-empty", DOCKER_17, index([]), refused=["it has no entries"])
    nothing = index([attestation(STATEMENT, AMD64.oci), entry(OCI, ZSTD.oci, "linux/amd64"), entry(OCI, ARM64.oci, "linux/arm64")])
    words = ["is an attestation", "linux/amd64 cannot be translated", "zstd", "linux/arm64 is not in the registry"]
    case("refused-nothing-left", DOCKER_17, nothing, [STATEMENT, ZSTD.oci], refused=words)
    deep = [index([entry(OCI, AMD64.oci, "linux/amd64")])]
    for _ in range(5):
        deep.append(index([entry(INDEX, deep[-1])]))
    case("refused-nested-too-deep", DOCKER_17, deep[-1], [AMD64.oci, *deep[:-1]], refused=["nested more than 4 deep"])
    many = index([entry(OCI, AMD64.oci, f"linux/arch{number}") for number in range(257)])
    case("refused-too-many-entries", DOCKER_17, many, [AMD64.oci], refused=["more than 256 entries"])
    lonely = docker_list([docker_entry(SCHEMA2, ARM64.schema2, "linux/arm64")])
    case("refused-nothing-left-of-a-list", OCI_ONLY, lonely, refused=["linux/arm64 is not in the registry"])


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    for make in [lists, pruned_lists, platforms_of_lists, indexes, without_zstd, refusals]:
        make()
