"""Work on layers beside the programs that do the same, its memory, and what it does to whoever waits for a manifest."""

import contextlib
import hashlib
import json
import os
import stat
import subprocess
import tarfile
import threading
import time
import urllib.request

import image
import service
from peers import CORES, free_port

REPOSITORY = "bench/layers"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+"
# Where the content of layers comes from: programs, libraries, texts, as an image of a distribution has them.
TREE = "/usr"
ARCHIVE_BYTES = 256 << 20
ARCHIVES = 4
# Layers of 1 GiB for the figures of memory and of latency, all in work at once.
LARGE_LAYERS = 8
MANIFESTS_PER_SECOND = 200
LATENCY_SECONDS_MIN = 10
# Reads schema 1 only; reads no schema 1; reads schema 2 and cannot unpack zstd.
DOCKER_1_9 = "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/4.1.13 os/linux arch/amd64"
READS_OCI = {"User-Agent": "crane/v0.21.9 go-containerregistry/v0.21.9", "Accept": image.TYPES["oci"][0]}
READS_GZIP = {"User-Agent": "docker/20.10.24 go/go1.19.8 os/linux arch/amd64", "Accept": image.TYPES["oci"][0]}


class Layer:
    """A compressed archive in the upstream's directory."""

    def __init__(self, folder, pieces, archives):
        self.archive_bytes = sum(archive.stat().st_size for archive in archives)
        self.diff_id, self.digest = digest_of(archives), digest_of(pieces)
        self.file = folder / self.digest
        with open(self.file, "wb") as out:
            subprocess.run(["cat", *map(str, pieces)], check=True, stdout=out)
        self.size = self.file.stat().st_size


class Upstream:
    """nginx with images whose layers are trees of files, once compressed with gzip and once with zstd."""

    def __init__(self, peers):
        self.root = peers.directory / "layers"
        self.blobs = self.root / "v2" / REPOSITORY / "blobs"
        self.blobs.mkdir(parents=True)
        self.documents = []
        plain, pieces = list(archives(peers.directory)), {"gzip": [], "zstd": []}
        for archive in plain:
            for compression, command in (("gzip", ["gzip", "-6", "-n", "-c"]), ("zstd", ["zstd", "-q", "-3", "-c"])):
                packed = peers.directory / f"{archive.name}.{compression}"
                with open(packed, "wb") as out:
                    subprocess.run([*command, str(archive)], check=True, stdout=out)
                pieces[compression].append(packed)
        # Members and frames that follow each other are one archive.
        normal = [[number] for number in range(ARCHIVES)]
        large = [turned(range(ARCHIVES), number) for number in range(LARGE_LAYERS)]
        layers_of = lambda kind, orders: [Layer(self.blobs, [pieces[kind][at] for at in order], [plain[at] for at in order])
                                          for order in orders]
        self.layers = {kind: layers_of(kind, normal) for kind in pieces}
        self.large = {kind: layers_of(kind, large) for kind in pieces}
        for name, layers in (("normal", self.layers), ("large", self.large)):
            self.tag(f"schema1-{name}", SCHEMA1, schema1(layers["gzip"]))
            self.tag(f"zstd-{name}", image.TYPES["oci"][0], self.oci(layers["zstd"]))
        self.port = service.registry_of_files(peers, self.root, self.documents).port
        self.url = f"http://127.0.0.1:{self.port}"

    def oci(self, layers):
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}).encode()
        (self.blobs / image.digest(config)).write_bytes(config)
        media_type, config_type, _ = image.TYPES["oci"]
        return {"schemaVersion": 2, "mediaType": media_type,
                "config": {"mediaType": config_type, "digest": image.digest(config), "size": len(config)},
                "layers": [{"mediaType": f"{OCI_LAYER}zstd", "digest": layer.digest, "size": layer.size}
                           for layer in layers]}

    def tag(self, tag, media_type, document):
        self.documents.append((REPOSITORY, tag, media_type, json.dumps(document).encode()))


def digest_of(files):
    """The digest of these files, one after the other."""
    found = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            while piece := opened.read(1 << 20):
                found.update(piece)
    return "sha256:" + found.hexdigest()


def turned(order, number):
    """Another order for each number."""
    start = number % len(order)
    turned = [*order[start:], *order[:start]]
    return turned if number < len(order) else turned[::-1]


def archives(directory):
    """Archives of the files of a tree, each of the next so many bytes; from the start again where it is not large enough."""
    files = files_of_a_tree()
    for number in range(ARCHIVES):
        path = directory / f"{number}.tar"
        with tarfile.open(path, "w") as archive:
            while archive.offset < ARCHIVE_BYTES:
                file = next(files)
                with contextlib.suppress(OSError):
                    archive.add(file, recursive=False)
        yield path


def files_of_a_tree():
    while True:
        for folder, folders, names in os.walk(TREE):
            folders.sort()
            for name in sorted(names):
                file = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(os.lstat(file).st_mode) and os.lstat(file).st_size < ARCHIVE_BYTES // 4:
                        yield file


def schema1(layers):
    """A schema 1 without signatures over these layers, the lowest first."""
    def entry(number):
        said = {"id": f"{number + 1:064x}", "created": "2015-06-07T08:09:10Z", "os": "linux", "architecture": "amd64",
                "container_config": {"Cmd": ["/bin/sh", "-c", f"step {number}"]}, "config": {}}
        if number:
            said["parent"] = f"{number:064x}"
        return {"v1Compatibility": json.dumps(said)}
    return {"schemaVersion": 1, "name": REPOSITORY, "tag": "latest", "architecture": "amd64",
            "fsLayers": [{"blobSum": layer.digest} for layer in reversed(layers)],
            "history": [entry(number) for number in reversed(range(len(layers)))]}


def measure(bench):
    upstream = Upstream(bench.peers)
    throughput(bench, upstream)
    memory(bench, upstream)
    latency(bench, upstream)


WORK = {
    "upgrade": {"tag": "schema1-{}", "headers": READS_OCI, "kind": "gzip", "target": 0.8,
                "other": "gzip -dc | sha256sum", "command": "gzip -dc '{0}' | sha256sum"},
    "transcode": {"tag": "zstd-{}", "headers": READS_GZIP, "kind": "zstd", "target": 0.9,
                  "other": "zstd -dc | gzip -1", "command": "zstd -q -dc '{0}' | gzip -1 > '{1}'"},
}


def opted_in(bench, upstream, at_once, *flags):
    """A gateway that knows nothing of any layer, with a store on the disk."""
    store = bench.peers.directory / f"store-{free_port()}"
    return bench.peers.gateway(upstream.url, "--upgrade-schema1", "--transcode", "zstd", "--derive-timeout", "1h",
                               "--layers-at-once", str(at_once), *flags, store=f"file://{store}")


def throughput(bench, upstream):
    for at_once in dict.fromkeys((max(1, CORES - 1), CORES)):
        for name, work in WORK.items():
            layers = upstream.layers[work["kind"]]
            archive_mib = sum(layer.archive_bytes for layer in layers) / 2**20
            label = f"{name} of {len(layers)} layers ({archive_mib:.0f} MiB of archives), {at_once} at once"
            ratios = []
            for number in range(bench.rounds):
                ours, cpu = through_the_gateway(bench, upstream, work, at_once)
                theirs, cpu_of_others = by_others(bench, layers, work["command"], at_once)
                bench.report.note(figure=label, round=number, mib_per_second_gateway=archive_mib / ours,
                                  mib_per_second_others=archive_mib / theirs, cpu_seconds_gateway=cpu,
                                  cpu_seconds_others=cpu_of_others)
                ratios.append(theirs / ours)
            target = {"target": f">= {work['target']}", "reached": lambda value, of=work["target"]: value >= of}
            bench.report.row(f"{label}: / {work['other']}", ratios, **target)


def through_the_gateway(bench, upstream, work, at_once):
    gateway = opted_in(bench, upstream, at_once)
    cpu, started = gateway.cpu_seconds(), time.monotonic()
    pull(gateway, work, "normal")
    took = time.monotonic() - started
    cpu = gateway.cpu_seconds() - cpu
    gateway.process.terminate()
    gateway.process.wait()
    return took, cpu


def pull(gateway, work, size):
    request = urllib.request.Request(gateway.url + manifest_path(work["tag"].format(size)), headers=work["headers"])
    with urllib.request.urlopen(request, timeout=1800) as answer:
        document = json.load(answer)
    if document["schemaVersion"] != 2 or any(layer["mediaType"].endswith("zstd") for layer in document["layers"]):
        raise SystemExit(f"{gateway.url} answered with {document}")


def by_others(bench, layers, command, at_once):
    """The same layers through a pipe of other programs, as many pipes at once."""
    waiting, out = list(layers), bench.peers.directory
    def work(number):
        with contextlib.suppress(IndexError):
            while True:
                command_of = command.format(waiting.pop().file, out / f"out-{number}")
                subprocess.run(command_of, shell=True, check=True, stdout=subprocess.DEVNULL)
    used = lambda: sum(os.times()[2:4])
    cpu, started = used(), time.monotonic()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.monotonic() - started, used() - cpu


def memory(bench, upstream):
    for name, work in WORK.items():
        gateway = opted_in(bench, upstream, LARGE_LAYERS)
        peak, ended = [0], threading.Event()
        watching = threading.Thread(target=watch, args=(gateway, peak, ended))
        watching.start()
        pull(gateway, work, "large")
        ended.set()
        watching.join()
        if peak[0] < LARGE_LAYERS:
            raise SystemExit(f"only {peak[0]} layers were in work at once")
        bench.report.row(f"memory while {LARGE_LAYERS} layers of 1 GiB are in work, {name}", [gateway.peak_memory_mib()],
                         target="< 128 MiB", reached=lambda value: value < 128)
        gateway.process.terminate()
        gateway.process.wait()


def watch(gateway, peak, ended):
    while not ended.wait(0.1):
        peak[0] = max(peak[0], layers_in_work(gateway))


def layers_in_work(gateway):
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("schemabridge_layers_in_work"))


def latency(bench, upstream):
    """The p99 of a cached manifest at a steady rate, first at rest, then while both kinds of work are under way."""
    seconds, program = max(LATENCY_SECONDS_MIN, bench.seconds), bench.program("pulls")
    for at_once in dict.fromkeys((max(1, CORES - 1), CORES)):
        label = f"cached manifest, {MANIFESTS_PER_SECOND} a second, {at_once} layers in work"
        ratios = []
        for number in range(bench.rounds):
            gateway = opted_in(bench, upstream, at_once, "--tag-ttl", "1h")
            plan = manifests_plan(bench, gateway, seconds)
            idle = pulled(program, plan)
            working = [threading.Thread(target=abandoned_pull, args=(gateway, work), daemon=True) for work in WORK.values()]
            for worker in working:
                worker.start()
            while layers_in_work(gateway) < at_once:
                time.sleep(0.01)
            busy = pulled(program, plan)
            if layers_in_work(gateway) < at_once:
                raise SystemExit("the work ended before the measurement")
            gateway.process.kill()
            gateway.process.wait()
            bench.report.note(figure=label, round=number, **{f"{state}_{key}": seen[key] for state, seen in
                              (("idle", idle), ("busy", busy)) for key in ("median_ms", "p99_ms", "max_ms")})
            ratios.append(busy["p99_ms"] / idle["p99_ms"])
        bench.report.row(f"{label}: p99 / idle p99", ratios, target="<= 3", reached=lambda value: value <= 3)


def abandoned_pull(gateway, work):
    # The gateway is killed before it is done.
    with contextlib.suppress(OSError):
        pull(gateway, work, "large")


def manifests_plan(bench, gateway, seconds):
    path = image.manifest_path("oci")
    answer = image.request(gateway.port, "GET", path, 200, headers={"User-Agent": DOCKER_1_9})
    expected = {"method": "GET", "path": path, "content_type": SCHEMA1, "signed": True,
                "digest": answer.getheader("Docker-Content-Digest")}
    plan = bench.peers.directory / "manifests.json"
    plan.write_text(json.dumps({"address": f"127.0.0.1:{gateway.port}", "pulls_per_second": MANIFESTS_PER_SECOND,
                                "seconds": seconds, "clients": [{"user_agent": DOCKER_1_9, "accept": [],
                                                                 "requests": [expected]}]}))
    return plan


def pulled(program, plan):
    said = subprocess.run([program, str(plan)], check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    seen = json.loads(said.stdout)
    if seen["wrong"] or seen["left_out"]:
        raise SystemExit(f"not every manifest was right: {seen}")
    return seen


def manifest_path(tag):
    return f"/v2/{REPOSITORY}/manifests/{tag}"
