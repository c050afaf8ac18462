"""The programs beside which the gateway is measured: started on free loopback ports, stopped by their ids."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))
START_SECONDS = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peer:
    """A running program and the loopback port that it listens on."""

    def __init__(self, process, port):
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}"

    def at(self, port):
        """Another port of the same program."""
        return Peer(self.process, port)

    def cpu_seconds(self):
        """What the program and its workers have used so far, user and system."""
        main = self.process.pid
        children = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text().split()
        total = 0
        for pid in [main, *children]:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def peak_memory_mib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmHWM in /proc: this runs on Linux only")


class Peers(contextlib.ExitStack):
    """Everything that one run starts; all of it ends with the run."""

    def __init__(self, directory, gateway):
        super().__init__()
        self.directory, self.gateway_program = directory, gateway
        self.started = 0

    def start(self, command, port):
        self.started += 1
        log = open(self.directory / f"{self.started}-{pathlib.Path(command[0]).name}.log", "wb")
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.directory)
        self.callback(stop, process)
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                said = pathlib.Path(log.name).read_text(errors="replace")[-2000:]
                raise SystemExit(f"{command[0]} did not start listening on port {port}:\n{said}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return Peer(process, port)
            time.sleep(0.02)

    def gateway(self, upstream, *flags, store="memory:"):
        port, admin_port = free_port(), free_port()
        peer = self.start(
            [self.gateway_program, "serve", "--upstream", upstream, "--store", store,
             "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin_port}", *flags],
            port)
        peer.admin_port = admin_port
        return peer

    def registry(self, logs, store="registry"):
        port = free_port()
        settings = self.directory / f"registry-{port}.yml"
        settings.write_text(
            f"version: 0.1\n"
            f"log:\n  level: {'info' if logs else 'error'}\n  accesslog:\n    disabled: {'false' if logs else 'true'}\n"
            f"storage:\n  filesystem:\n    rootdirectory: {self.directory / store}\n  cache:\n    blobdescriptor: inmemory\n"
            f"http:\n  addr: 127.0.0.1:{port}\n")
        return self.start(["docker-registry", "serve", str(settings)], port)

    def origin(self, path, size):
        """nginx that serves a file of so many zero bytes at this path."""
        port, root = free_port(), self.directory / "origin"
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True)
        with open(file, "wb") as out:
            out.truncate(size)
        return self.nginx(f"  access_log off;\n  server {{ listen 127.0.0.1:{port}; root {root};\n"
                          f"    default_type application/octet-stream; }}\n", port)

    def nginx(self, servers, port):
        """nginx with as many workers as the gateway has, and these `server` blocks, one of which listens on `port`."""
        settings = self.directory / f"nginx-{port}.conf"
        temporary = "".join(
            f"  {name}_temp_path {self.directory}/nginx-{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;\n" if os.getuid() == 0 else ""
        settings.write_text(
            f"{user}daemon off;\nworker_processes {CORES};\npid {settings}.pid;\nerror_log stderr warn;\n"
            f"events {{ worker_connections 4096; }}\n"
            f"http {{\n{temporary}  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000000;\n{servers}}}\n")
        nginx = "/usr/sbin/nginx" if os.access("/usr/sbin/nginx", os.X_OK) else "nginx"
        return self.start([nginx, "-e", "stderr", "-c", str(settings)], port)


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
