"""What the gateway costs as a service: TLS, the start, memory at rest, idle connections, and pulls of mixed clients."""

import json
import pathlib
import resource
import socket
import ssl
import subprocess
import time

import image
from peers import free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOB_BYTES = 1 << 30
BLOB = f"/v2/{image.REPOSITORY}/blobs/sha256:{'0' * 64}"
IDLE_CONNECTIONS = 10_000
# As many as one address may have by default; the crowd comes from enough of them.
PER_ADDRESS = 1_000
PULLS_PER_SECOND = 1_000
PULL_SECONDS = 60
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def tls(bench):
    """A blob of 1 GiB through TLS, beside nginx' TLS in front of the same nginx."""
    peers = bench.peers
    certificate, key = self_signed(peers.directory)
    origin = peers.origin(BLOB, BLOB_BYTES)
    gateway = peers.gateway(origin.url, "--tls-cert", str(certificate), "--tls-key", str(key))
    port = free_port()
    proxy = peers.nginx(
        f"  upstream origin {{ server 127.0.0.1:{origin.port}; keepalive 64; }}\n"
        f"  server {{ listen 127.0.0.1:{port} ssl; access_log off;\n"
        f"    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n"
        f"    proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_max_temp_file_size 0;\n"
        f"    location / {{ proxy_pass http://origin; }} }}\n", port)
    for version in ("1.2", "1.3"):
        load = lambda peer: download(peer, certificate, version)
        load(gateway)
        label = f"blob of 1 GiB over TLS {version}"
        values = bench.compare(label, load, ("gateway", gateway), ("nginx", proxy))
        bench.ratios(f"{label}: / nginx TLS proxy_pass", values, "gateway", "nginx", 0.9)


def self_signed(directory):
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def download(peer, certificate, version):
    said = subprocess.run(
        ["curl", "-sS", "--fail", "--http1.1", "--cacert", str(certificate), f"--tlsv{version}", "--tls-max", version,
         "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256",
         "-o", "/dev/null", "-w", "%{size_download} %{time_total}", f"https://127.0.0.1:{peer.port}{BLOB}"],
        check=True, capture_output=True, text=True, timeout=120).stdout
    count, took = said.split()
    if int(count) != BLOB_BYTES:
        raise SystemExit(f"{peer.url}: {count} bytes instead of {BLOB_BYTES}")
    return int(count), float(took)


def start(bench):
    """From the start of the process to its first answer, and its memory while nothing happens."""
    times, memory = [], []
    for _ in range(max(bench.rounds, 3)):
        port, admin_port = free_port(), free_port()
        store = bench.peers.directory / f"store-{port}"
        command = [bench.peers.gateway_program, "serve", "--upstream", "http://127.0.0.1:1", "--store", f"file://{store}",
                   "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin_port}", "--log-level", "error"]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            times.append((first_answer(admin_port, began) - began) * 1000)
            time.sleep(1)
            memory.append(resident_mib(process.pid))
        finally:
            process.terminate()
            process.wait(20)
    bench.report.row("start to first answer, ms", times, target="< 100 ms", reached=lambda value: value < 100)
    bench.report.row("resident memory at rest, MiB", memory, target="< 20 MiB", reached=lambda value: value < 20)


def first_answer(port, began):
    while time.monotonic() < began + 20:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return time.monotonic()
        except OSError:
            pass
        time.sleep(0.001)
    raise SystemExit("the gateway did not answer within 20 seconds")


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc: this runs on Linux only")


def idle(bench):
    """Connections that each had one answer and wait, plain and over TLS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    certificate, key = self_signed(bench.peers.directory)
    for name, flags in (("plain", []), ("TLS", ["--tls-cert", str(certificate), "--tls-key", str(key)])):
        gateway = bench.peers.gateway("http://127.0.0.1:1", "--log-level", "error",
                                      "--connections", str(IDLE_CONNECTIONS), *flags)
        context = ssl.create_default_context(cafile=str(certificate)) if flags else None
        connections = [connected(gateway.port, number, context) for number in range(IDLE_CONNECTIONS)]
        alive = sum(1 for connection in connections if connection is not None)
        if alive != IDLE_CONNECTIONS:
            raise SystemExit(f"only {alive} of {IDLE_CONNECTIONS} connections were answered")
        bench.report.row(f"memory with {IDLE_CONNECTIONS} idle connections, {name}", [resident_mib(gateway.process.pid)],
                         target="< 200 MiB", reached=lambda value: value < 200)
        for connection in connections:
            connection.close()


def connected(port, number, context):
    """A connection that had an answer; from another loopback address for each thousand."""
    plain = socket.socket()
    plain.settimeout(20)
    plain.bind((f"127.0.1.{1 + number // PER_ADDRESS}", 0))
    plain.connect(("127.0.0.1", port))
    connection = context.wrap_socket(plain, server_hostname="localhost") if context else plain
    connection.sendall(b"GET /v1/_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection if connection.recv(4096).startswith(b"HTTP/1.1 404") else None


def pulls(bench):
    """Mixed clients for a minute: every body hashed, and compared with the digest and type that this client is due.

    What each is due is worked out without the gateway: what is stored by its bytes, schema 1 by docker-registry's own
    conversion of a schema 2 image of the same config and layers under the same tag, the other two by the words of the
    specifications, here."""
    peers = bench.peers
    upstream, oracle = quick_registry(peers), peers.registry(False)
    image.push(oracle.port, {"schema2": "schema2", "oci": "schema2"})
    gateway = peers.gateway(upstream.url, "--tag-ttl", "60s")
    seconds = min(PULL_SECONDS, bench.seconds * 15)
    plan = peers.directory / "plan.json"
    plan.write_text(json.dumps({"address": f"127.0.0.1:{gateway.port}", "pulls_per_second": PULLS_PER_SECOND,
                                "seconds": seconds, "clients": list(clients(upstream, oracle))}))
    said = subprocess.run([bench.program("pulls"), str(plan)], check=True, stdout=subprocess.PIPE, text=True,
                          timeout=seconds + 120).stdout
    seen = json.loads(said)
    bench.report.note(figure="pulls of mixed clients", **seen)
    bench.report.row("wrong answers", [seen["wrong"] + seen["left_out"]], target="0", reached=lambda value: value == 0)
    bench.report.row("pulls per second", [seen["pulls"] / seen["seconds"]], target=f">= {PULLS_PER_SECOND}",
                     reached=lambda value: value >= PULLS_PER_SECOND * 0.995)


def quick_registry(peers):
    """nginx that answers for the image as a registry would, out of files: one that costs little beside the gateway."""
    return registry_of_files(peers, peers.directory / "quick", [])


def registry_of_files(peers, root, documents):
    """The same, and for these documents, (repository, tag, media type, bytes) each, whose blobs stand in this directory."""
    for content in (image.config(), *image.layers()):
        file = root / "v2" / image.REPOSITORY / "blobs" / image.digest(content)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    of_the_image = [(image.REPOSITORY, form, image.TYPES[form][0], json.dumps(image.manifest(form)).encode())
                    for form in image.TYPES]
    locations = ""
    for repository, tag, media_type, content in (*of_the_image, *documents):
        file = root / tag
        file.write_bytes(content)
        for reference in (tag, image.digest(content)):
            locations += (f"    location = /v2/{repository}/manifests/{reference} {{ alias {file}; default_type {media_type};\n"
                          f"      add_header Docker-Content-Digest {image.digest(content)}; }}\n")
    port = free_port()
    return peers.nginx(f"  access_log off;\n  server {{ listen 127.0.0.1:{port}; root {root};\n{locations}"
                       f"    default_type application/octet-stream; }}\n", port)


def clients(upstream, oracle):
    """Each client of the table of clients with each stored form that it can be given: its requests and what they give."""
    for record in json.loads((ROOT / "tests/clients.json").read_text()):
        for stored in ("schema2", "oci"):
            served = record["results"][stored]["serve"]
            if served is None:
                continue
            content_type, due = due_to(served, stored, upstream, oracle)
            signed = served == "schema1"
            expected = lambda method, path, content_type, due, signed: {
                "method": method, "path": path, "content_type": content_type, "digest": due, "signed": signed}
            requests = [expected("GET", image.manifest_path(stored), content_type, due, signed)]
            if any(line.startswith("HEAD") and "manifests" in line for line in record["by_tag"]):
                requests = [expected("HEAD", image.manifest_path(stored), content_type, due, signed),
                            expected("GET", image.manifest_path(due), content_type, due, signed)]
            content = b"layer 0" if signed else image.config()
            path = f"/v2/{image.REPOSITORY}/blobs/{image.digest(content)}"
            requests.append(expected("GET", path, None, image.digest(content), False))
            yield {"user_agent": record["user_agent"], "accept": record["accept"], "requests": requests}


def due_to(served, stored, upstream, oracle):
    """The type and the digest of what a client that reads `served` is due where `stored` is stored."""
    if served == "schema1":
        answer = image.request(oracle.port, "GET", image.manifest_path(stored), 200, headers={"Accept": SCHEMA1})
        if answer.getheader("Content-Type") != SCHEMA1:
            raise SystemExit(f"the registry converted to {answer.getheader('Content-Type')}")
        return SCHEMA1, answer.getheader("Docker-Content-Digest")
    content_type = image.TYPES[served][0]
    if served == stored:
        answer = image.request(upstream.port, "GET", image.manifest_path(stored), 200, headers={"Accept": content_type})
        return content_type, image.digest(answer.content)
    document = image.manifest(served)
    if served == "schema2":
        text = json.dumps(document, indent=3)
    else:
        text = json.dumps(document, separators=(",", ":"))
    return content_type, image.digest(text.encode())
