"""A directory with a million recipes beside an empty one, and what a derived digest costs.

The recipes are written here as src/store/layout.rs and src/store/frame.rs describe them, without the documents that they
gave: those are bounded by size, and nothing that is measured here goes through them.
"""

import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

import image
import index
from peers import CORES, START_SECONDS, free_port

EDITION = 1
UPSTREAM, STALE = "default", "bench/stale"
SHELVES = 65_536
MISSES = 400
CROWD = 1_000
DOCKER_1_9 = "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/4.1.13 os/linux arch/amd64"
# Repositories of the made-up registry, each with an index of `index.CHILDREN` images.
REPOSITORIES = 3


def sha256(text):
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def framed(content):
    return f"schemabridge 1 sha256:{sha256(content)}\n".encode() + content


def write_recipes(root, shelves, on_each):
    """Fills some of the shelves, as many recipes on each as are asked for."""
    scope = sha256(f"{UPSTREAM}\n{STALE}")
    for shelf in shelves:
        folder = f"{root}/v1/recipes/{shelf >> 8:02x}/{shelf & 255:02x}"
        os.makedirs(folder, 0o700)
        for number in range(on_each(shelf)):
            derived = f"{shelf:04x}{sha256(f'derived {shelf} {number}')[4:]}"
            source = sha256(f"source {shelf} {number}")
            recipe = {"edition": EDITION, "upstream": UPSTREAM, "repository": STALE, "source": f"sha256:{source}",
                      "config": f"sha256:{sha256(source)}", "source_format": "oci", "target": "schema2",
                      "derived": f"sha256:{derived}"}
            with open(f"{folder}/{derived}.{scope}.{source}.{EDITION}", "wb", 0) as file:
                file.write(framed(json.dumps(recipe, separators=(",", ":")).encode()))


def make_store(root, recipes):
    """Writes so many recipes, evenly over all shelves."""
    free = os.statvfs(root.parent)
    if free.f_favail < recipes + SHELVES + 1000 or free.f_bavail * free.f_frsize < recipes * 4500:
        raise SystemExit(f"{root.parent} has no room for {recipes} recipes: say --recipes with a smaller number")
    on_each = lambda shelf: recipes // SHELVES + (shelf < recipes % SHELVES)
    workers = []
    for number in range(CORES):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write_recipes(root, range(number, SHELVES, CORES), on_each)
                code = 0
            finally:
                os._exit(code)
        workers.append(child)
    if any(os.waitpid(worker, 0)[1] for worker in workers):
        raise SystemExit(f"could not write the recipes below {root}")


def measure(bench):
    empty, full = (bench.peers.directory / name for name in ("empty", "full"))
    started = time.monotonic()
    make_store(full, bench.recipes)
    bench.report.note(figure="store", recipes=bench.recipes, written_in_seconds=time.monotonic() - started)
    # Names that mean nothing to the gateway would make it as good as empty.
    counted = json.loads(subprocess.run(
        [bench.peers.gateway_program, "store", "stat", "--store", f"file://{full}", "--json"],
        check=True, capture_output=True, text=True).stdout)
    if counted[f"recipes of edition {EDITION}"]["objects"] != bench.recipes or "unknown" in counted:
        raise SystemExit(f"the gateway counts otherwise: {counted}")
    try:
        starts(bench, empty, full)
        misses(bench, empty, full)
        derived(bench, full)
        crowds(bench)
    finally:
        shutil.rmtree(full)


def nothing(bench):
    """An upstream that has nothing."""
    port = free_port()
    return bench.peers.nginx(
        f"  access_log off;\n  server {{ listen 127.0.0.1:{port};\n    default_type application/json;\n"
        f"    location / {{ return 404 '{{\"errors\":[{{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"unknown\"}}]}}'; }} }}\n",
        port)


def digest_of_nobody(number):
    return f"/v2/{STALE}/manifests/sha256:{sha256(f'nobody has {number}')}"


def starts(bench, empty, full):
    """From the start of the process to its first answer: that nobody has a digest, for which it asks the store."""
    upstream = nothing(bench)
    seconds = {"empty": [], "full": []}
    for number in range(2 * bench.rounds):
        for name, root in (("empty", empty), ("full", full)):
            seconds[name].append(first_answer(bench, upstream, root, number))
    few, many = seconds["empty"], seconds["full"]
    bench.report.row("store: s from start to first answer, empty", few, "", None)
    bench.report.row(f"store: s from start to first answer, {bench.recipes} recipes", many, "< 1 s", lambda value: value < 1)
    ratios = [of_many / of_few for of_many, of_few in zip(many, few)]
    bench.report.row("store: start, full / empty", ratios, "~ 1", None)


def first_answer(bench, upstream, root, number):
    port = free_port()
    command = [bench.peers.gateway_program, "serve", "--upstream", upstream.url, "--store", f"file://{root}",
               "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{free_port()}"]
    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                image.request(port, "GET", digest_of_nobody(number), 404)
                return time.monotonic() - started
            except OSError:
                if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                    raise SystemExit(f"{command} gives no answer")
                time.sleep(0.001)
    finally:
        process.terminate()
        process.wait()


def misses(bench, empty, full):
    """A digest that nobody has, one request after the other through one connection."""
    upstream = nothing(bench)
    peers = {"upstream alone": upstream, "empty": bench.peers.gateway(upstream.url, store=f"file://{empty}"),
             "full": bench.peers.gateway(upstream.url, store=f"file://{full}")}
    found = {name: [] for name in peers}
    for number in range(bench.rounds):
        for name, peer in peers.items():
            targets = (digest_of_nobody(f"{number} {miss}") for miss in range(MISSES))
            found[name].append(quantiles(timed(peer.port, targets, 404)))
    for part, quantile in enumerate(("median", "p99")):
        values = {name: [round_[part] for round_ in rounds] for name, rounds in found.items()}
        label = f"by-digest miss, {quantile}"
        bench.report.row(f"{label}: ms, upstream alone", values["upstream alone"], "", None)
        bench.report.row(f"{label}: ms, empty store", values["empty"], "", None)
        bench.report.row(f"{label}: ms, {bench.recipes} recipes", values["full"], "< 5 ms", lambda value: value < 5)
        ratios = [many / few for many, few in zip(values["full"], values["empty"])]
        bench.report.row(f"{label}: full / empty", ratios, "~ 1", None)


def quantiles(milliseconds):
    """The median and the 99th percentile."""
    return statistics.median(milliseconds), statistics.quantiles(milliseconds, n=100)[98]


def timed(port, targets, status, headers=index.DOCKER_17_03):
    """How many milliseconds each GET takes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    milliseconds = []
    for target in targets:
        started = time.monotonic()
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        milliseconds.append((time.monotonic() - started) * 1e3)
        if answer.status != status:
            raise SystemExit(f"{target}: {answer.status} instead of {status}: {content[:500]!r}")
    connection.close()
    return milliseconds


class Logged:
    """An upstream behind nginx, which logs every request."""

    def __init__(self, bench, upstream):
        port = free_port()
        self.log = bench.peers.directory / f"requests-{port}.log"
        self.peer = bench.peers.nginx(
            f"  upstream origin-{port} {{ server 127.0.0.1:{upstream.port}; keepalive 64; }}\n"
            f"  log_format requests '$request_method $uri';\n"
            f"  server {{ listen 127.0.0.1:{port} backlog=4096; access_log {self.log} requests;\n"
            f"    proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;\n"
            f"    location / {{ proxy_pass http://origin-{port}; }} }}\n", port)
        self.url = self.peer.url
        self.seen = 0

    def new_lines(self):
        """The requests since this was asked last."""
        lines = self.log.read_text().splitlines()
        new, self.seen = lines[self.seen:], len(lines)
        return new


def store_operations(gateway):
    """How many operations of each kind the gateway has asked of its store."""
    said = image.request(gateway.admin_port, "GET", "/metrics", 200).content.decode()
    counts = re.findall(r'^schemabridge_store_operations_total\{operation="([^"]+)",result="\w+"\} (\d+)$', said, re.M)
    operations = {}
    for operation, count in counts:
        operations[operation] = operations.get(operation, 0) + int(count)
    return operations


def derived(bench, full):
    """Derived digests from the store and from memory: how long, and what is asked of the upstream and of the store."""
    port = free_port()
    made_up = bench.peers.start([sys.executable, str(pathlib.Path(index.__file__).resolve()), str(port), "0"], port)
    upstream = Logged(bench, made_up)
    gateway = bench.peers.gateway(upstream.url, store=f"file://{full}")
    targets = [target for number in range(REPOSITORIES) for target in children(gateway, f"bench/{number}")]
    for temperature in ("cold", "warm"):
        found, heads, others, reads = [], [], [], []
        for _ in range(bench.rounds):
            if temperature == "cold":
                gateway = bench.peers.gateway(upstream.url, store=f"file://{full}")
                timed(gateway.port, [digest_of_nobody("first")], 404)
            before = store_operations(gateway)
            upstream.new_lines()
            found.append(quantiles(timed(gateway.port, targets, 200)))
            asked, after = upstream.new_lines(), store_operations(gateway)
            heads.append(sum(line.startswith("HEAD ") for line in asked) / len(targets))
            others.append(sum(not line.startswith("HEAD ") for line in asked) / len(targets))
            reads.append((sum(after.values()) - sum(before.values())) / len(targets))
        label = f"derived by digest, {temperature}"
        bench.report.row(f"{label}: ms, median", [median for median, _ in found], "", None)
        bench.report.row(f"{label}: ms, p99", [high for _, high in found], "", None)
        bench.report.row(f"{label}: HEADs upstream for each", heads, "1", lambda value: value == 1)
        bench.report.row(f"{label}: other requests upstream for each", others, "0", lambda value: value == 0)
        most = 1 if temperature == "cold" else 0
        bench.report.row(f"{label}: store operations for each", reads, f"<= {most}", lambda value: value <= most)
    stored = children(made_up, "bench/0")[0]
    alone = [statistics.median(timed(made_up.port, [stored] * len(targets), 200)) for _ in range(bench.rounds)]
    bench.report.row("derived by digest: ms of one request to the upstream alone", alone, "", None)


def children(peer, repository):
    """The children of the list or index that Docker 17.03 is given, by the paths under which it asks for them."""
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=30)
    connection.request("GET", f"/v2/{repository}/manifests/named", headers=index.DOCKER_17_03)
    entries = json.loads(connection.getresponse().read())["manifests"]
    connection.close()
    return [f"/v2/{repository}/manifests/{entry['digest']}" for entry in entries]


def crowds(bench):
    """Many first requests for one tag at the same moment, to one replica and to three on one store."""
    registry = bench.peers.registry(False)
    image.push(registry.port)
    config = f"GET /v2/{image.REPOSITORY}/blobs/{image.digest(image.config())}"
    for replicas in (1, 3):
        fetches, seconds = [], []
        for number in range(bench.rounds):
            upstream = Logged(bench, registry)
            root = bench.peers.directory / f"crowd-{replicas}-{number}"
            gateways = [bench.peers.gateway(upstream.url, store=f"file://{root}") for _ in range(replicas)]
            started = time.monotonic()
            crowd([gateways[asker % replicas].port for asker in range(CROWD)])
            seconds.append(time.monotonic() - started)
            fetches.append(upstream.new_lines().count(config) / replicas)
        label = f"{CROWD} first requests for a tag, {replicas} replica{'s' if replicas > 1 else ''}"
        bench.report.row(f"{label}: derivations for each replica", fetches, "<= 1", lambda value: value <= 1)
        bench.report.row(f"{label}: s until all are answered", seconds, "", None)


def crowd(ports):
    """Connects to all of these ports, then asks each connection for the tag, and only then reads."""
    head = f"GET {image.manifest_path('oci')} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n" \
           f"User-Agent: {DOCKER_1_9}\r\n\r\n".encode()
    connections = [socket.create_connection(("127.0.0.1", port), 30) for port in ports]
    for connection in connections:
        connection.sendall(head)
    with concurrent.futures.ThreadPoolExecutor(CORES * 8) as readers:
        answers = set(readers.map(whole, connections))
    if len(answers) != 1 or not next(iter(answers)).startswith(b"{"):
        raise SystemExit(f"{len(answers)} different answers: {[answer[:300] for answer in answers]}")


def whole(connection):
    """The body of an answer with status 200; anything else as it came."""
    with connection:
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return body if head.startswith(b"HTTP/1.1 200 ") else received
