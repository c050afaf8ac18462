#!/usr/bin/env python3
"""Signs schema 1 payloads in libtrust's form with Python's `cryptography`, as an oracle for translate::sign.

Run in this directory; writes key.sec1.pem, key.pkcs8.pem, key.id and the *.signed files.
"""
import base64
import hashlib
import json
import pathlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

PEM, PRIVATE = serialization.Encoding.PEM, serialization.PrivateFormat
secret = int.from_bytes(hashlib.sha256(b"schemabridge test key").digest(), "big")
key = ec.derive_private_key(secret, ec.SECP256R1())
for name, form in [("sec1", PRIVATE.TraditionalOpenSSL), ("pkcs8", PRIVATE.PKCS8)]:
    text = key.private_bytes(PEM, form, serialization.NoEncryption())
    pathlib.Path(f"key.{name}.pem").write_bytes(text)
spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
letters = base64.b32encode(hashlib.sha256(spki).digest()[:30]).decode()
key_id = ":".join(letters[at : at + 4] for at in range(0, 48, 4))
pathlib.Path("key.id").write_text(key_id)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(payload, time, indent):
    head = payload.rstrip()[:-1].rstrip()
    tail = payload[len(head) :]
    fields = {"formatLength": len(head), "formatTail": b64(tail), "time": time}
    protected = b64(json.dumps(fields, separators=(",", ":")).encode())
    data = f"{protected}.{b64(payload)}".encode()
    der = key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = utils.decode_dss_signature(der)
    point = key.public_key().public_numbers()
    x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
    jwk = {"crv": "P-256", "kid": key_id, "kty": "EC", "x": b64(x), "y": b64(y)}
    signature = b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    block = [{"header": {"jwk": jwk, "alg": "ES256"}, "signature": signature, "protected": protected}]
    if indent is None:
        return head + b',"signatures":' + json.dumps(block, separators=(",", ":")).encode() + b"}"
    lines = json.dumps(block, indent=len(indent)).replace("\n", "\n" + indent)
    return head + f',\n{indent}"signatures": {lines}\n}}'.encode()


golden = pathlib.Path("../distribution/out/single-layer.payload").read_bytes()
pathlib.Path("derived.signed").write_bytes(sign(golden, "2020-01-02T03:04:05Z", "   "))

LAYER = "sha256:" + hashlib.sha256(b"").hexdigest()


def stored(created):
    top = json.dumps({"id": "00" * 32, **created})
    layers, history = [{"blobSum": LAYER}], [{"v1Compatibility": top}]
    return {"name": "a/b", "tag": "t", "architecture": "é", "fsLayers": layers, "history": history, "schemaVersion": 1}


for name, created, indent, end, time in [
    ("compact", {"created": "2021-01-01T01:05:05.5+02:30"}, None, "", "2020-12-31T22:35:05Z"),
    ("newline", {"created": "1969-12-31T23:59:59Z"}, None, "\n", "1970-01-01T00:00:00Z"),
    ("pretty", {}, "  ", "\n", "1970-01-01T00:00:00Z"),
]:
    separators = (",", ":") if indent is None else None
    text = json.dumps(stored(created), indent=indent and len(indent), separators=separators, ensure_ascii=False)
    payload = (text + end).encode()
    pathlib.Path(f"{name}.unsigned").write_bytes(payload)
    pathlib.Path(f"{name}.signed").write_bytes(sign(payload, time, indent))
