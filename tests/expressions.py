"""Every expression of the alerts and the dashboard, evaluated by a real Prometheus over a scrape of a real gateway.

    tests/expressions.py GATEWAY

An expression over a series that is not there would never fire and never draw. So each selector in it has to find something
after traffic of every kind, with the labels that it names and their values; each label that a legend or a summary shows has to
be one of the results'; and alerts on what went wrong here have to fire."""

import contextlib
import io
import json
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 60
OLD = "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0 os/linux arch/amd64"
# Alerts without a delay on what goes wrong in this test, once.
WENT_WRONG = ["SchemabridgeReloadFailed", "SchemabridgeDigestMismatch", "SchemabridgeCertificateExpires"]

sys.path.insert(0, str(ROOT / "benches"))
sys.dont_write_bytecode = True
import image  # noqa: E402


class Upstream(BaseHTTPRequestHandler):
    """A registry of two images, which says how much it allows. It is away for one repository, lies of one, moved one, and
    shows one only to the gateway."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        path = self.path.split("?")[0]
        found = DOCUMENTS.get(path)
        if path.startswith("/v2/away/"):
            status, kind, content = 503, "text/plain", b"away\n"
        elif path.startswith("/v2/private/") and "Authorization" not in self.headers:
            status, kind, content = 401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}'
        elif path.startswith("/v2/moved/"):
            status, kind, content = 307, "text/plain", b""
        elif path.startswith("/v2/liar/"):
            status, kind, content = 200, image.TYPES["oci"][0], b"{}"
        elif found:
            status, (kind, content) = 200, found
        else:
            status, kind, content = 404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"none"}]}'
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("RateLimit-Limit", "100;w=21600")
        self.send_header("RateLimit-Remaining", "76;w=21600")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        if status == 307:
            self.send_header("Location", path.replace("/v2/moved/", f"/v2/{image.REPOSITORY}/"))
        if status == 200 and "/manifests/" in path:
            said = image.digest(b"something else") if path.startswith("/v2/liar/") else image.digest(content)
            self.send_header("Docker-Content-Digest", said)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def documents():
    found = {}
    for form in image.TYPES:
        content = json.dumps(image.manifest(form)).encode()
        for reference in (form, image.digest(content)):
            found[image.manifest_path(reference)] = (image.TYPES[form][0], content)
    kind = image.TYPES["oci"][0]
    artifact = {"schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.example.chart",
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": image.digest(b"{}"), "size": 2}, "layers": []}
    for reference in ("none", image.digest(json.dumps(artifact).encode())):
        found[f"/v2/artifact/manifests/{reference}"] = (kind, json.dumps(artifact).encode())
    for content in (image.config(), *image.layers()):
        found[f"/v2/{image.REPOSITORY}/blobs/{image.digest(content)}"] = ("application/octet-stream", content)
    found.update(packed())
    return found


def packed():
    """An image whose one layer is compressed with zstd."""
    archive = io.BytesIO()
    tarfile.open(fileobj=archive, mode="w").close()
    layer = subprocess.run(["zstd", "--quiet", "--stdout"], input=archive.getvalue(), check=True, capture_output=True).stdout
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "history": [{"created_by": "COPY"}],
                         "rootfs": {"type": "layers", "diff_ids": [image.digest(archive.getvalue())]}}).encode()
    kind, config_kind, _ = image.TYPES["oci"]
    content = json.dumps({
        "schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": config_kind, "digest": image.digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": image.digest(layer), "size": len(layer)}],
    }).encode()
    found = {f"/v2/packed/manifests/{reference}": (kind, content) for reference in ("latest", image.digest(content))}
    return found | {f"/v2/packed/blobs/{image.digest(blob)}": ("application/octet-stream", blob) for blob in (config, layer)}


DOCUMENTS = documents()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command, log):
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(what, holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE_SECONDS} seconds")
        time.sleep(0.1)
    return found


def get(url, context=None, **headers):
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except OSError:
        return None, {}, b""


def traffic(base, context):
    """Every kind of request that an expression counts."""
    manifest = lambda tag: base + image.manifest_path(tag)
    for tag in ("oci", "schema2"):
        _, headers, _ = get(manifest(tag), context, User_Agent=OLD)
        derived = headers["Docker-Content-Digest"]
        get(manifest(derived), context, User_Agent=OLD)
        get(manifest(tag), context, Accept=image.TYPES[tag][0])
    get(manifest("oci"), context, Accept=image.TYPES["schema2"][0], User_Agent="docker/17.03.2-ce go/go1.7.5 os/linux arch/amd64")
    get(base + "/v2/artifact/manifests/none", context, User_Agent=OLD)
    get(f"{base}/v2/{image.REPOSITORY}/blobs/{image.digest(image.config())}", context)
    get(f"{base}/v2/moved/blobs/{image.digest(image.layers()[0])}", context, User_Agent=OLD)
    get(base + "/v2/packed/manifests/latest", context, User_Agent=OLD)
    get(base + "/v2/held/private/manifests/latest", context)
    get(base + "/v2/away/manifests/latest", context)
    get(base + "/v2/liar/manifests/latest", context, User_Agent=OLD)


def break_store(directory, base, context):
    """What would be kept cannot be any more: a file is where the directory was."""
    directory.rename(directory.with_name("kept"))
    directory.touch()
    status, _, body = get(base + image.manifest_path("schema2"), context, Accept=image.TYPES["oci"][0])
    if status != 503:
        raise SystemExit(f"a translation that cannot be kept was answered with {status}: {body[:200]!r}")


def certificate(directory):
    """One that is about to expire."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "5",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(directory / "key.pem"),
         "-out", str(directory / "certificate.pem")], check=True, capture_output=True)
    return directory / "certificate.pem", directory / "key.pem"


def expressions():
    """Each with where it stands and the labels that are shown of its results, the dashboard's variables filled in."""
    import yaml
    for rule in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]:
        shown = re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))
        yield f"alert {rule['alert']}", rule["expr"], shown
    dashboard = json.loads((ROOT / "deploy/grafana/schemabridge.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", filled(target["expr"]), re.findall(r"{{(\w+)}}", target["legendFormat"])
    for variable in dashboard["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", str(variable["query"]))
        if found:
            yield f"variable {variable['name']}", f"count by ({found[2]}) ({filled(found[1])})", [found[2]]


def filled(expression):
    expression = expression.replace("$__rate_interval", "30s")
    return re.sub(r"\$(job|instance|upstream)\b", ".*", expression)


def without_thresholds(expression):
    """What an alert looks at, whether or not it is as bad as it waits for."""
    return re.sub(r"(==|!=|<=?|>=?) *[\d.]+( *\* *\d+)?", "", expression)


def selectors(expression):
    """The series that an expression reads: every name with its braces."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', lambda quoted: quoted[0].replace("{", "\0").replace("}", "\1"), expression)
    for name, braces in re.findall(r"\b((?:schemabridge|process)_\w+|up)\b(\{[^}]*\})?", plain):
        yield (name + braces).replace("\0", "{").replace("\1", "}")


def main():
    gateway = sys.argv[1]
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="schemabridge-expressions-")))
        upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        stack.callback(upstream.shutdown)
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        chain, key = certificate(directory)
        port, admin, prometheus = free_port(), free_port(), free_port()
        settings = directory / "gateway.toml"
        text = (f'listen = ["127.0.0.1:{port}"]\nadmin_listen = "127.0.0.1:{admin}"\nstore = "file://{directory}/store"\n'
                f'tls_cert = ["{chain}"]\ntls_key = ["{key}"]\ntranscode = "zstd"\n'
                f'[[upstream]]\nname = "one"\nurl = "http://127.0.0.1:{upstream.server_port}"\n'
                f'[[upstream]]\nname = "held"\nurl = "http://127.0.0.1:{upstream.server_port}"\nprefix = "held"\n'
                'aliases = ["held.example"]\n'
                f'auth = {{ command = ["printf", \'{{"Username":"user","Secret":"password"}}\'], lifetime = "1h" }}\n'
                f'[blob_cache]\ndirectory = "{directory}/blobs"\nmax_size = "64MiB"\n')
        settings.write_text(text)
        process = stack.enter_context(running([gateway, "serve", "--config", str(settings)], directory / "gateway.log"))
        until("the gateway", lambda: get(f"http://127.0.0.1:{admin}/readyz")[0] == 200)
        context = ssl.create_default_context(cafile=str(chain))
        base = f"https://localhost:{port}"
        (directory / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n"
            f"rule_files: [{ROOT}/deploy/prometheus/alerts.yml]\n"
            f"scrape_configs:\n  - job_name: schemabridge\n    static_configs: [{{targets: ['127.0.0.1:{admin}']}}]\n")
        stack.enter_context(running(
            ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
             f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=warn"], directory / "prometheus.log"))
        until("Prometheus", lambda: get(f"http://127.0.0.1:{prometheus}/-/ready")[0] == 200)

        def evaluated(expression):
            query = urllib.parse.urlencode({"query": expression})
            _, _, body = get(f"http://127.0.0.1:{prometheus}/api/v1/query?{query}")
            return json.loads(body)

        # What rises later has to have been seen before.
        until("a scrape", lambda: evaluated("schemabridge_build_info")["data"]["result"])
        traffic(base, context)
        # A configuration that cannot be used, and then one that can.
        settings.write_text(text + "nonsense = 1\n")
        until("a reload that fails", lambda: b'config_reloads_total{result="failed"} 1' in get(f"http://127.0.0.1:{admin}/metrics")[2])
        settings.write_text(text)
        until("a reload", lambda: b'config_reloads_total{result="ok"} 1' in get(f"http://127.0.0.1:{admin}/metrics")[2])
        traffic(base, context)
        break_store(directory / "store", base, context)
        seen = set()
        for where, expression, shown in expressions():
            for selector in set(selectors(expression)):
                until(f"{where}: {selector} finds a series", lambda: evaluated(selector)["data"]["result"])
                seen.add(selector)
            answer = evaluated(expression)
            if answer["status"] != "success":
                raise SystemExit(f"{where}: {answer['error']}\n{expression}")
            looked_at = without_thresholds(expression) if where.startswith("alert") else expression
            results = until(f"{where} finds something: {looked_at}", lambda: evaluated(looked_at)["data"]["result"])
            for label in shown:
                if not any(result["metric"].get(label) for result in results):
                    raise SystemExit(f"{where} shows the label {label}, which is not in {results[0]['metric']}")
        missing = evaluated("schemabridge_there_is_no_such_series")["data"]["result"]
        if missing or process.poll() is not None:
            raise SystemExit("a series that is not there was found, or the gateway ended")
        for alert in WENT_WRONG:
            until(f"the alert {alert} fires", lambda: evaluated(f'ALERTS{{alertname="{alert}",alertstate="firing"}}')["data"]["result"])
        rules = json.loads(get(f"http://127.0.0.1:{prometheus}/api/v1/rules")[2])["data"]["groups"][0]["rules"]
        unhealthy = [rule["name"] for rule in rules if rule["health"] != "ok"]
        if unhealthy:
            raise SystemExit(f"Prometheus cannot evaluate {unhealthy}")
        scraped = get(f"http://127.0.0.1:{admin}/metrics")[2]
        subprocess.run(["promtool", "check", "metrics"], input=scraped, check=True)
        print(f"{len(list(expressions()))} expressions over {len(seen)} selectors: all find what they are about")


if __name__ == "__main__":
    main()
