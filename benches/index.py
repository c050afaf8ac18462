"""A slow registry of large indexes, and how many round trips to it one of them costs, cold.

The registry makes up what it is asked for: every repository has an index of CHILDREN images of its own under each of two
tags, `named` with their platforms and `unnamed` without, so that the platforms are in the children's configs alone. Each
answer comes a round trip after its request, any number of them at once.
"""

import asyncio
import functools
import hashlib
import http.client
import json
import pathlib
import statistics
import sys
import time

from peers import free_port

CHILDREN = 30
LAYERS = 10
ROUND_TRIPS = (0.02, 0.2)
# Reads manifest lists and nothing of OCI.
DOCKER_17_03 = {
    "User-Agent": "docker/17.03.2-ce go/go1.7.5 git-commit/f5ec1e2 kernel/4.9.0 os/linux arch/amd64",
    "Accept": "application/json, application/vnd.docker.distribution.manifest.v1+prettyjws, "
              "application/vnd.docker.distribution.manifest.v2+json, "
              "application/vnd.docker.distribution.manifest.list.v2+json",
}
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# And how many answers of the upstream may wait for each other: the tag, the index, its children, and their configs.
TAGS = {"named": 3, "unnamed": 4}


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(media_type, content, **more):
    return {"mediaType": media_type, "digest": digest(content), "size": len(content), **more}


@functools.cache
def documents(repository):
    """Everything in a repository, as (type, bytes) by tag or digest."""
    entries, found = [], {}
    for number in range(CHILDREN):
        platform = {"os": "linux", "architecture": f"cpu{number}"}
        layers = [f"{repository} {number} {layer}".encode() for layer in range(LAYERS)]
        config = json.dumps({
            **platform, "config": {"Cmd": ["/bin/sh"]}, "created": "2024-03-01T10:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            "history": [{"created": "2024-03-01T10:00:00Z", "created_by": f"ADD {layer}"} for layer in range(LAYERS)],
        }).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer) for layer in layers]}).encode()
        found[digest(config)] = ("application/octet-stream", config)
        found[digest(manifest)] = (MANIFEST, manifest)
        entries.append(descriptor(MANIFEST, manifest, platform=platform))
    for tag in TAGS:
        if tag == "unnamed":
            entries = [{key: value for key, value in entry.items() if key != "platform"} for entry in entries]
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        found[tag] = found[digest(index)] = (INDEX, index)
    return found


async def answer(round_trip, reader, writer):
    """The requests of one connection, one after the other."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split("\r\n", 1)[0].split(" ")
            parts = target.removeprefix("/v2/").rsplit("/", 2)
            due = asyncio.get_running_loop().time() + round_trip
            found = documents(parts[0]).get(parts[2]) if len(parts) == 3 else ("application/json", b"{}")
            status = "200 OK" if found else "404 Not Found"
            media_type, content = found or ("application/json", b'{"errors": []}')
            lines = [f"HTTP/1.1 {status}", f"Content-Type: {media_type}", f"Content-Length: {len(content)}",
                     f"Docker-Content-Digest: {digest(content)}", "", ""]
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            writer.write("\r\n".join(lines).encode() + (b"" if method == "HEAD" else content))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(port, round_trip):
    # The whole crowd of a cold index connects at once.
    server = await asyncio.start_server(functools.partial(answer, round_trip), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def measure(bench):
    """The wall time of a cold index over the round trip to the upstream, in repositories that nobody has asked for. With
    the long round trip nothing else counts, and the figure is how many answers wait for each other."""
    for round_trip in ROUND_TRIPS:
        for tag, trips in TAGS.items():
            port = free_port()
            program = [sys.executable, str(pathlib.Path(__file__).resolve()), str(port), str(round_trip)]
            upstream = bench.peers.start(program, port)
            cold_index(bench, upstream, round_trip, tag, trips)


def cold_index(bench, upstream, round_trip, tag, trips):
    """One fresh repository after the other. The upstream alone, asked for the index itself, says what of a round trip is
    its own; the gateway may add the work of its cores."""
    rounds = 2 * bench.rounds
    gateway = bench.peers.gateway(upstream.url)
    # The first request of all pays for what is made once.
    ask(gateway, tag, "bench/first")
    repositories = [f"bench/{number}" for number in range(rounds)]
    bare = [ask(upstream, tag, repository, INDEX) / round_trip for repository in repositories]
    before = gateway.cpu_seconds()
    cold = [ask(gateway, tag, repository) / round_trip for repository in repositories]
    work = (gateway.cpu_seconds() - before) / rounds / round_trip
    warm = [ask(gateway, tag, repository) / round_trip for repository in repositories]
    label = f"index of {CHILDREN}, platforms {tag}, {round_trip * 1e3:.0f} ms"
    most = trips * statistics.median(bare) + work
    bench.report.row(f"{label}: round trips, cold", cold, f"<= {trips} + work = {most:.2f}", lambda value: value <= most)
    bench.report.row(f"{label}: round trips, warm", warm, "", None)
    bench.report.row(f"{label}: one bare request", bare, "", None)
    bench.report.note(figure=label, cpu_ms_of_one_cold_index=work * round_trip * 1e3)


def ask(peer, tag, repository, media_type=LIST):
    """Asks as Docker 17.03; gives the wall time in seconds."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=30)
    connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers=DOCKER_17_03)
    answer = connection.getresponse()
    content = answer.read()
    took = time.monotonic() - started
    connection.close()
    if answer.status != 200 or answer.getheader("Content-Type") != media_type:
        raise SystemExit(f"{peer.url} answered {answer.status} {answer.getheader('Content-Type')}: {content[:500]!r}")
    listed = len(json.loads(content)["manifests"])
    if listed != CHILDREN:
        raise SystemExit(f"{peer.url} listed {listed} children instead of {CHILDREN}")
    return took


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
