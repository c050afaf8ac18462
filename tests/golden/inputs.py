#!/usr/bin/env python3
"""Writes `inputs/<name>.config.json` and `inputs/<name>.manifest.json`: one image per oddity, every byte fixed here.

A layer is the text `layer <number>\n`: the schema 1 of an image names only digests, so nothing larger is needed.
`make.py` uploads these blobs; `python3 inputs.py` alone rewrites the inputs.
"""

import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
INPUTS = HERE / "inputs"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DAY = "2020-01-02T03:04:05Z"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(number):
    """The blob of layer `number`."""
    return b"layer %d\n" % number


def diff_ids(count):
    return ["sha256:%064x" % (number + 1) for number in range(count)]


def entry(text, empty=False, **more):
    """One history entry, keys in the order in which Docker's classic builder wrote them."""
    fields = {"created": DAY, "created_by": text, **more}
    fields = {key: value for key, value in fields.items() if value is not None}
    if empty:
        fields["empty_layer"] = True
    return fields


def config(layers, history, **more):
    """The bytes of a compact config over `layers` layers; `more` replaces or (None) removes top-level keys."""
    fields = {
        "architecture": "amd64",
        "os": "linux",
        "created": DAY,
        "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids(layers)},
        "history": history,
    }
    fields.update(more)
    fields = {key: value for key, value in fields.items() if value is not None}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def plain(count):
    return [entry("ADD file %d" % number) for number in range(count)]


def images():
    """Every image: name → (config bytes, numbers of its layers)."""
    add, env = entry("ADD x"), entry("ENV A=b", empty=True)
    made = {
        # Where the empty layers stand.
        "empty-first": (config(1, [env, add]), [0]),
        "empty-last": (config(1, [add, env]), [0]),
        "empty-both-ends": (config(2, [env, add, env, add, env, env]), [0, 1]),
        "empty-alone": (config(0, [env, env]), []),
        "empty-one-alone": (config(0, [env]), []),
        "empty-layer-false": (config(1, [{"created": DAY, "created_by": "ADD x", "empty_layer": False}]), [0]),
        # How many entries and layers.
        "one-entry": (config(1, [add]), [0]),
        "three-layers": (config(3, plain(3)), [0, 1, 2]),
        "duplicate-layers": (config(4, plain(4)), [0, 0, 1, 0]),
        "layers-128": (config(128, plain(128)), list(range(128))),
        "layers-128-with-empty": (
            config(128, [part for number in range(128) for part in (entry("ADD %d" % number), env)]),
            list(range(128)),
        ),
        # Text.
        "html": (
            config(2, [entry("RUN a < b && c > d & e", comment="<b>&amp;</b>", author="A <a@b.c>"), entry("ADD <&>")],
                   author="B & C <b@c.d>", comment="x > y"), [0, 1]),
        "unicode": (
            config(2, [entry("RUN echo 'žluťoučký kůň 日本語 🐳 \u00a0 e\u0301'", author="Æ Ø"), entry("ADD ü")],
                   author="Řehoř 🦀", comment="line\u2028paragraph\u2029end"), [0, 1]),
        "line-separators": (config(2, [entry("a\u2028b\u2029c"), entry("d\u2028e")]), [0, 1]),
        "replacement-character": (config(2, [entry("a\ufffdb"), entry("c\ufffd")]), [0, 1]),
        "control-characters": (
            config(2, [entry("".join(chr(code) for code in range(32)) + "\x7f\"\\/", comment="\b\f\n\r\t"), entry("\x01")],
                   comment="\x00\x1f\x7f\t"), [0, 1]),
        # Dates.
        "created-offsets": (
            config(4, [entry("a", created="2016-05-04T03:02:01+02:00"), entry("b", created="2016-05-04T03:02:01-11:30"),
                       entry("c", created="2016-05-04T03:02:01+00:00"), entry("d")],
                   created="2016-05-04T03:02:01.5+05:45"), [0, 1, 2, 3]),
        "created-negative-zero": (config(2, [entry("a", created="2016-05-04T03:02:01-00:00"), entry("b")]), [0, 1]),
        "created-fractions": (
            config(5, [entry("a", created="2016-05-04T03:02:01.000000000Z"), entry("b", created="2016-05-04T03:02:01.120Z"),
                       entry("c", created="2016-05-04T03:02:01.123456789Z"),
                       entry("d", created="2016-05-04T03:02:01.1234567891234Z"), entry("e")],
                   created="2016-05-04T03:02:01.100Z"), [0, 1, 2, 3, 4]),
        "created-null": (
            config(3, [{"created": None, "created_by": "a"}, {"created_by": "b"}, {"created": None}], created=None), [0, 1, 2]),
        "created-zero": (config(2, [entry("a", created="0001-01-01T00:00:00Z"), entry("b")], created="0001-01-01T00:00:00Z"), [0, 1]),
        "created-early": (config(2, [entry("a", created="1960-12-31T23:59:59Z"), entry("b")], created="1969-12-31T23:59:59Z"), [0, 1]),
        "created-absent": (config(2, [entry("a", created=None), entry("b")], created=None), [0, 1]),
        # Fields.
        "no-architecture": (config(1, [add], architecture=None), [0]),
        "architecture-arm-variant": (config(1, [add], architecture="arm", variant="v7"), [0]),
        "history-bare-entries": (config(2, [{}, {}]), [0, 1]),
        "history-all-fields": (
            config(2, [entry("a", author="Ann", comment="first"), entry("b", author="Bob", comment="second")],
                   author="Cy", comment="third", docker_version="20.10.24", container="0" * 64), [0, 1]),
        "history-unknown-fields": (config(2, [entry("a", extra={"z": 1, "a": 2}, number=1e300), entry("b", more=[1])]), [0, 1]),
        "unknown-fields": (
            config(1, [add], zebra={"z": 1, "a": [True, None, {}]}, alpha=[], nothing="", **{"org.example/x": {"y": "<&>"}}), [0]),
        "windows-base-layer": (
            config(2, plain(2), os="windows", **{"os.version": "10.0.14393.1066"},
                   rootfs={"type": "layers+base", "diff_ids": diff_ids(2), "base_layer": "windowsservercore"}), [0, 1]),
        "windows-base-layer-one-entry": (
            config(1, [add], os="windows",
                   rootfs={"type": "layers+base", "diff_ids": diff_ids(1), "base_layer": "nanoserver"}), [0]),
        "windows-base-layer-empty-first": (
            config(1, [env, add, env], os="windows",
                   rootfs={"type": "layers+base", "diff_ids": diff_ids(1), "base_layer": "windowsservercore"}), [0]),
        # What a translator must not hide: distribution refuses these, or drops layers without a word.
        "no-history": (config(2, None), [0, 1]),
        "no-history-no-layers": (config(0, None), []),
        "history-empty-list": (config(1, []), [0]),
        "history-too-long": (config(1, plain(2)), [0]),
        "history-too-short": (config(3, plain(2)), [0, 1, 2]),
        "diff-ids-missing-one": (config(1, plain(2)), [0, 1]),
        "diff-ids-one-too-many": (config(3, plain(2)), [0, 1]),
        "history-bad-created": (config(2, [entry("a", created="yesterday"), entry("b")]), [0, 1]),
        "history-created-blank": (config(2, [entry("a", created=""), entry("b")]), [0, 1]),
        "stray-keys": (
            config(2, plain(2), id=7, parent="nobody", Parent="NOBODY", Size=0, throwaway=False, layer_id="x", parent_id="y"), [0, 1]),
        "stray-keys-unicode-case": (config(1, [add], **{"\u017fize": 0, "layer_\u0131d": "x", "THROWAWAY": True}), [0]),
        "created-unreadable": (config(2, plain(2), created="yesterday"), [0, 1]),
        "no-rootfs": (config(1, [add], rootfs=None), [0]),
        "config-is-a-list": (b'[{"rootfs":{}}]', [0]),
    }
    made.update(written_by_hand())
    return made


def written_by_hand():
    """Configs whose very spelling is the point."""
    one = '"rootfs":{"type":"layers","diff_ids":["%s"]},"history":[{"created":"%s","created_by":"ADD x"}]' % (diff_ids(1)[0], DAY)
    two = '"rootfs":{"type":"layers","diff_ids":["%s","%s"]}' % tuple(diff_ids(2))
    texts = {
        "unsorted": ('{%s,"os":"linux","created":"%s","config":{"User":"","Env":["B=2","A=1"],"Cmd":null},"architecture":"arm64"}' % (one, DAY), [0]),
        "pretty-printed": (json.dumps(json.loads('{"z":{"b":[1, 2],"a":{}},%s,"architecture":"amd64","os":"linux","empty":[]}' % one), indent=4) + "\n", [0]),
        "pretty-printed-odd-blanks": ('\t{ "os" :\r\n"linux" , %s\n,"architecture":"amd64" , "config" : { "Cmd" : [ ] ,\t"Env":[ "A=b c" ] } }\n\n' % one, [0]),
        "big-numbers": (
            '{"architecture":"amd64","os":"linux",%s,"big":12345678901234567890123456789,"float":1.0,"exponent":1E+400,"small":-0.0e-7,'
            '"nested":{"n":[9007199254740993,0.1000000000000000055511151231257827,-0]}}' % one, [0]),
        "duplicate-top-level-keys": (
            '{"architecture":"s390x","os":"plan9","config":{"Cmd":["/first"]},"comment":"first",%s,"os":"linux","architecture":"amd64",'
            '"config":{"Cmd":["/last"]},"comment":"last"}' % one, [0]),
        "duplicate-nested-keys": (
            '{"architecture":"amd64","os":"linux",%s,"config":{"Cmd":["/first"],"Labels":{"a":"1","a":"2"},"Cmd":["/last"],"Cmd":null}}' % one, [0]),
        "escapes-in-source": (
            '{"architecture":"amd64","os":"linux",%s,"history":[{"created":"%s","created_by":"\\u003c\\u0026\\/ \\u00e9\\ud83d\\udc33 \\u2028"},'
            '{"created":"%s","created_by":"top"}],"config":{"Cmd":["\\u003c\\/x\\u003e","<x>","\\u00e9","\u2028","\\ud83d\\udc33"]}}' % (two, DAY, DAY), [0, 1]),
        "lone-surrogates": (
            '{"architecture":"amd64","os":"linux",%s,"history":[{"created":"%s","created_by":"a\\ud800b\\udc00c\\ud83dx"},'
            '{"created":"%s","created_by":"top"}],"config":{"Cmd":["\\ud800"]}}' % (two, DAY, DAY), [0, 1]),
        "keys-need-escaping": (
            '{"architecture":"amd64","os":"linux",%s,"<key>":1,"k\u2028":2,"\\u0061bc":3,"Abc":4,"ab\\tc":5,"é":6,"":7,"🐳":{"<in>":"&"}}' % one, [0]),
        "key-order-by-bytes": (
            '{"architecture":"amd64","os":"linux",%s,"Z":1,"a":1,"\uffff":1,"\U00010000":1,"_":1,"A":1,"aa":1,"a.b":1,"a-b":1}' % one, [0]),
        "duplicate-history-keys": (
            '{"architecture":"amd64","os":"linux",%s,"history":[{"created":"%s","created_by":"first","comment":"x","created_by":"last"},'
            '{"created_by":"top","created_by":"more"}]}' % (two, DAY), [0, 1]),
        "nulls-everywhere": ('{"architecture":"amd64","os":null,%s,"config":null,"comment":null,"author":null,"container_config":null}' % one, [0]),
        "history-null-fields": (
            '{"architecture":"amd64","os":"linux",%s,"history":[{"created":null,"created_by":null,"comment":null,"author":null,'
            '"empty_layer":null},{"created_by":"top"}]}' % two, [0, 1]),
    }
    made = {name: (text.encode(), layers) for name, (text, layers) in texts.items()}
    made["invalid-utf-8"] = (
        ('{"architecture":"amd64","os":"linux",%s,"history":[{"created":"%s","created_by":"' % (two, DAY)).encode()
        + b"a\xffb\xc3(c\xed\xa0\x80d"
        + ('"},{"created":"%s","created_by":"top"}]}' % DAY).encode(),
        [0, 1],
    )
    made["invalid-utf-8-in-config"] = (
        ('{"architecture":"amd64","os":"linux",%s,"config":{"Cmd":["a' % one).encode() + b"\xffb\xed\xa0\x80" + b'"]}}', [0])
    return made


def manifest(config_bytes, layers):
    """The schema 2 manifest in the form that Docker pushes: three blanks of indent, this order of keys."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "size": len(config_bytes), "digest": digest(config_bytes)},
        "layers": [
            {"mediaType": LAYER_TYPE, "size": len(layer(number)), "digest": digest(layer(number))} for number in layers
        ],
    }
    return json.dumps(document, indent=3).encode()


def write():
    INPUTS.mkdir(exist_ok=True)
    names = images()
    for stale in INPUTS.glob("*.json"):
        if stale.name.split(".")[0] not in names:
            stale.unlink()
    for name, (config_bytes, layers) in names.items():
        (INPUTS / f"{name}.config.json").write_bytes(config_bytes)
        (INPUTS / f"{name}.manifest.json").write_bytes(manifest(config_bytes, layers))


if __name__ == "__main__":
    write()
