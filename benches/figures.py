"""The figures of the gateway as ratios to its peers, measured in neighbouring pairs. See run.sh."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import image
import index
import layers
import service
import store
from peers import CORES, Peers, free_port
from service import BLOB, BLOB_BYTES

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/schemabridge"
# The client of the measurements: reads schema 1 only.
DOCKER_1_9 = "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/4.1.13 os/linux arch/amd64"
CONNECTIONS = 32
STREAMS = 64
STREAMS_SECONDS_MAX = 90


class Report:
    """Collects the figures: each as a JSON line as soon as it is there, all as a table at the end."""

    def __init__(self, file):
        self.lines = open(file, "a") if file else None
        self.rows = []

    def note(self, **fields):
        print("  " + "  ".join(f"{key}={shown(value)}" for key, value in fields.items()), flush=True)
        if self.lines:
            self.lines.write(json.dumps(fields) + "\n")
            self.lines.flush()

    def row(self, figure, values, target, reached):
        """`reached` says of the median whether it meets the target."""
        low, middle, high = min(values), statistics.median(values), max(values)
        verdict = "" if reached is None else ("yes" if reached(middle) else "no")
        self.rows.append((figure, *(f"{value:.3g}" for value in (low, middle, high)), target, verdict))
        self.note(figure=figure, min=low, median=middle, max=high, target=target, reached=verdict)

    def table(self):
        rows = [("figure", "min", "median", "max", "target", "reached"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def shown(value):
    return f"{value:.4g}" if isinstance(value, float) else value


def at_least(target):
    return {"target": f">= {target}", "reached": lambda value: value >= target}


def below(target, unit):
    return {"target": f"< {target} {unit}", "reached": lambda value: value < target}


class Bench:
    """What the measurements share: the peers, the report and how long each measurement takes."""

    def __init__(self, peers, report, arguments):
        self.peers, self.report = peers, report
        self.rounds, self.seconds, self.recipes = arguments.rounds, arguments.seconds, arguments.recipes

    def compare(self, figure, measure, *contestants):
        """Measures the contestants, (name, peer) each, in turn and in as many rounds as were asked for; the first is
        the gateway. Gives the values of each, round by round."""
        values = {name: [] for name, _ in contestants}
        for number in range(self.rounds):
            for name, peer in contestants:
                before, started = peer.cpu_seconds(), time.monotonic()
                count, took = measure(peer)
                cpu = peer.cpu_seconds() - before
                values[name].append((count / took, cpu / count))
                self.report.note(figure=figure, round=number, of=name, per_second=count / took,
                                 cpu_us=cpu / count * 1e6, wall_seconds=time.monotonic() - started)
        return values

    def ratios(self, figure, values, gateway, peer, target):
        """Each round's rate of the gateway over the peer's; the CPU time of each goes with it, for the explanation."""
        pairs = list(zip(values[gateway], values[peer]))
        self.report.row(figure, [ours[0] / theirs[0] for ours, theirs in pairs], **at_least(target))
        self.report.note(figure=figure, cpu_us_gateway=1e6 * statistics.median(ours[1] for ours, _ in pairs),
                         cpu_us_peer=1e6 * statistics.median(theirs[1] for _, theirs in pairs))

    def program(self, name):
        """The built bench of this name."""
        return bench_program(name)

    def wrk(self, tag):
        """Requests per second for a manifest, all of them answered with 200."""
        def measure(peer):
            said = subprocess.run(
                ["wrk", "-t", str(CORES), "-c", str(CONNECTIONS), "-d", f"{self.seconds}s",
                 "-H", f"User-Agent: {DOCKER_1_9}", peer.url + image.manifest_path(tag)],
                check=True, capture_output=True, text=True, timeout=self.seconds + 30).stdout
            if "Non-2xx" in said or "Socket errors" in said:
                raise SystemExit(f"{peer.url}: not every request was answered:\n{said}")
            count, took = re.search(r"(\d+) requests in ([\d.]+)s", said).groups()
            return int(count), float(took)
        return measure


def cached_manifest(bench):
    """A cached schema 1 beside nginx with the same bytes in a file, and beside the registry's own conversion."""
    peers = bench.peers
    for logs in (True, False):
        registry = peers.registry(logs)
        image.push(registry.port)
        flags = ["--tag-ttl", "60s", "--log-level", "info" if logs else "error"]
        gateway = peers.gateway(registry.url, *flags)
        document = served(gateway, "oci")
        served(registry, "schema2")
        port = free_port()
        file = peers.directory / f"static-{port}"
        path = file / image.manifest_path("oci").lstrip("/")
        path.parent.mkdir(parents=True)
        path.write_bytes(document)
        nginx = peers.nginx(
            f"  server {{ listen 127.0.0.1:{port}; root {file}; {access_log(peers, port, logs)}\n"
            f"    default_type application/vnd.docker.distribution.manifest.v1+prettyjws; }}\n", port)
        label = f"cached schema 1 ({len(document)} bytes), logs {'on' if logs else 'off'}"
        values = bench.compare(label, bench.wrk("oci"), ("gateway", gateway), ("nginx", nginx))
        bench.ratios(f"{label}: / nginx file", values, "gateway", "nginx", 0.6)
        by_tag = lambda peer: bench.wrk("schema2" if peer is registry else "oci")(peer)
        values = bench.compare(label, by_tag, ("gateway", gateway), ("registry", registry))
        bench.ratios(f"{label}: / registry's conversion", values, "gateway", "registry", 10)


def served(peer, tag):
    """The schema 1 document that an old Docker is given for a tag."""
    answer = image.request(peer.port, "GET", image.manifest_path(tag), 200, headers={"User-Agent": DOCKER_1_9})
    if not answer.getheader("Content-Type").startswith("application/vnd.docker.distribution.manifest.v1"):
        raise SystemExit(f"{peer.url} answered {answer.getheader('Content-Type')} instead of schema 1")
    return answer.content


def access_log(peers, port, logs):
    return f"access_log {peers.directory}/nginx-{port}.access;" if logs else "access_log off;"


def asking_each_time(bench):
    """Without memory of consents, beside nginx that proxies each HEAD; and what the HTTP client alone costs."""
    peers = bench.peers
    registry = peers.registry(False)
    image.push(registry.port)
    answer = image.request(registry.port, "HEAD", image.manifest_path("oci"), 200, headers={"Accept": image.TYPES["oci"][0]})
    fast = quick_upstream(peers, registry, answer)
    heads = bench_program("heads")
    for name, upstream in (("nginx", fast), ("registry", registry)):
        gateway = peers.gateway(upstream.url, "--tag-ttl", "0s")
        served(gateway, "oci")
        proxy = reverse_proxy(peers, upstream)
        label = f"HEAD, asking upstream ({name}) each time"
        load = lambda peer: run_heads(heads, "socket", peer, bench.seconds)[:2]
        values = bench.compare(label, load, ("gateway", gateway), ("nginx", proxy))
        bench.ratios(f"{label}: / nginx proxy_pass", values, "gateway", "nginx", 0.5)
        shares = []
        for _, cpu in values["gateway"]:
            count, _, used = run_heads(heads, "client", upstream, bench.seconds)
            shares.append(used / count / cpu)
        bench.report.row(f"{label}: HTTP client's share of CPU", shares, "", None)


def quick_upstream(peers, registry, answer):
    """nginx that answers the HEAD of the tag by itself and leaves everything else to the registry."""
    port = free_port()
    return peers.nginx(
        f"  access_log off;\n  server {{ listen 127.0.0.1:{port};\n"
        f"    location = {image.manifest_path('oci')} {{\n"
        f"      default_type {answer.getheader('Content-Type')};\n"
        f"      add_header Docker-Content-Digest {answer.getheader('Docker-Content-Digest')};\n"
        f"      return 200 \"{'x' * int(answer.getheader('Content-Length'))}\"; }}\n"
        f"    location / {{ proxy_pass {registry.url}; }} }}\n", port)


def reverse_proxy(peers, upstream):
    """nginx in front of an upstream, with an access log and connections that are kept, like the gateway."""
    port = free_port()
    return peers.nginx(
        f"  upstream origin {{ server 127.0.0.1:{upstream.port}; keepalive 64; keepalive_requests 1000000000; }}\n"
        f"  server {{ listen 127.0.0.1:{port}; {access_log(peers, port, True)}\n"
        f"    proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_max_temp_file_size 0;\n"
        f"    proxy_set_header Accept \"{', '.join(types[0] for types in image.TYPES.values())}\";\n"
        f"    location / {{ proxy_pass http://origin; }} }}\n", port)


def run_heads(program, mode, peer, seconds):
    """HEAD requests through `CONNECTIONS` connections: how many, in how long, for how much CPU of the sender."""
    process = subprocess.Popen(
        [program, mode, f"127.0.0.1:{peer.port}", image.manifest_path("oci"), str(CONNECTIONS), str(seconds), DOCKER_1_9],
        stdout=subprocess.PIPE, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"heads {mode} {peer.url} failed")
    count, took = said.split()
    return int(count), float(took), usage.ru_utime + usage.ru_stime


def blob(bench):
    """A blob of 1 GiB beside `proxy_pass`, both in front of one nginx; then the memory of 64 streams at once."""
    peers = bench.peers
    origin = peers.origin(BLOB, BLOB_BYTES)
    gateway, proxy = peers.gateway(origin.url), reverse_proxy(peers, origin)
    download(origin)  # into the page cache
    values = bench.compare("blob of 1 GiB", download, ("gateway", gateway), ("nginx", proxy))
    bench.ratios("blob of 1 GiB: / nginx proxy_pass", values, "gateway", "nginx", 0.9)
    for name, upstream in (("gateway", gateway), ("nginx", proxy)):
        bench.report.note(figure="blob of 1 GiB", of=name, cpu_seconds_per_gib=statistics.median(
            cpu for _, cpu in values[name]) * BLOB_BYTES)
    fresh = peers.gateway(origin.url)
    many_streams(fresh)
    bench.report.row(f"memory with {STREAMS} streams, half of them slow", [fresh.peak_memory_mib()], **below(64, "MiB"))


def download(peer):
    said = subprocess.run(
        ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", peer.url + BLOB],
        check=True, capture_output=True, text=True, timeout=120).stdout
    count, took = said.split()
    if int(count) != BLOB_BYTES:
        raise SystemExit(f"{peer.url}: {count} bytes instead of {BLOB_BYTES}")
    return int(count), float(took)


def many_streams(peer):
    """Half of the streams as fast as they can and to their end, the other half at 100 KiB/s while the first last."""
    half = STREAMS // 2
    curl = ["curl", "-sS", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max", str(half),
            "--max-time"]
    each = [word for _ in range(half) for word in ("-o", "/dev/null", peer.url + BLOB)]
    slow = subprocess.Popen([*curl, str(STREAMS_SECONDS_MAX + 60), "--limit-rate", "100K", *each], stderr=subprocess.DEVNULL)
    try:
        subprocess.run([*curl, str(STREAMS_SECONDS_MAX), *each], stderr=subprocess.DEVNULL, timeout=STREAMS_SECONDS_MAX + 30)
        if slow.poll() is not None:
            raise SystemExit(f"the slow streams of {peer.url} ended before the fast ones")
    finally:
        slow.terminate()
        slow.wait()


def translate(bench):
    """CPU time of one translation by number of layers, without and with the signature."""
    program = bench_program("translate")
    nanoseconds = {}
    for _ in range(bench.rounds):
        said = subprocess.run([program], check=True, capture_output=True, text=True, timeout=120).stdout
        for line in map(json.loads, said.splitlines()):
            bench.report.note(**line)
            what = f"translate {line['cell']}{', signed' if line['signature'] else ''}"
            nanoseconds.setdefault(what, {}).setdefault(line["layers"], []).append(line["cpu_ns"])
    for what, by_layers in nanoseconds.items():
        target = {"target": "", "reached": None} if what.endswith("signed") else below(1, "ms")
        bench.report.row(f"{what}: ms of CPU, 128 layers", [value / 1e6 for value in by_layers[128]], **target)
        per_layer = ", ".join(f"{statistics.median(values) / layers:.0f} ({layers})" for layers, values in by_layers.items())
        bench.report.note(figure=f"{what}: ns per layer (layers)", median=per_layer)
        growth = [many / 1024 / (few / 128) for many, few in zip(by_layers[1024], by_layers[128])]
        bench.report.row(f"{what}: ns per layer, 1024 layers / 128", growth, "~ 1", None)


def bench_program(name):
    """The built bench of this name."""
    said = subprocess.run(["cargo", "build", "--release", "--bench", name, "--message-format=json-render-diagnostics"],
                          cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in map(json.loads, said.splitlines()):
        if line.get("target", {}).get("name") == name and line.get("executable"):
            return line["executable"]
    raise SystemExit(f"cargo built no bench {name}")


FIGURES = {"cached": cached_manifest, "asking": asking_each_time, "blob": blob, "translate": translate,
           "index": index.measure, "store": store.measure,
           "layers": layers.measure,
           "tls": service.tls, "start": service.start, "idle": service.idle, "pulls": service.pulls}


def main():
    parser = argparse.ArgumentParser(prog="benches/run.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements for each figure (default 5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of one measurement of a rate (default 4)")
    parser.add_argument("--recipes", type=int, default=1_000_000, help="how many the large store has (default 1000000)")
    parser.add_argument("--only", action="append", choices=FIGURES, help="measure this only; repeatable")
    parser.add_argument("--gateway", metavar="FILE", default=GATEWAY, help="measure this program (default: the release)")
    parser.add_argument("--json", metavar="FILE", help="add every measurement to this file, a JSON object a line")
    arguments = parser.parse_args()
    report = Report(arguments.json)
    for name in arguments.only or FIGURES:
        with tempfile.TemporaryDirectory(prefix="schemabridge-bench-") as directory:
            with Peers(pathlib.Path(directory), str(arguments.gateway)) as peers:
                print(name, flush=True)
                FIGURES[name](Bench(peers, report, arguments))
    print()
    report.table()


if __name__ == "__main__":
    sys.exit(main())
