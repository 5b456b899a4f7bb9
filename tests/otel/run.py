#!/usr/bin/env python3
"""Stock OpenTelemetry SDKs deliver traces and logs to `seaworthy serve`, and each type of attribute comes back as it was sent.

    tests/otel/run.py --bin target/release/seaworthy --venv DIR [--rust TARGET_DIR]

It makes the virtual environment and the folder of npm packages in DIR if there are none. Needs Python; for the Node SDK, node and
npm; for the Rust exporter (only with --rust, where it is built), cargo. Each SDK gets nothing but the environment variables that
OpenTelemetry's specification knows. The last line is `N passed, N failed`; exit code 0 if nothing failed.

What is sent is written down in emit.py, emit.mjs and rust/src/main.rs, in the same words; what is to come back is here.
"""

import argparse
import base64
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Of one SDK in one mode; it exports when it ends.
PATIENCE_SECS = 60
# Texts are cut here.
TEXT_BYTES_MAX = 16 << 10

ATTRIBUTES = {
    "a.text": "hello",
    "a.empty": "",
    "a.unicode": "naïve 日本 🦀",
    "a.long": "é" * (TEXT_BYTES_MAX // 2),
    "a.yes": True,
    "a.no": False,
    "a.small": 42,
    "a.negative": -7,
    "a.large": 2**60 + 1,
    "a.least": -(2**63),
    "a.double": 2.5,
    "a.whole": 3.0,
    "a.tiny": -1e-300,
    "a.nan": "NaN",
    "a.infinite": "-Infinity",
    "a.texts": '["a,b","\\"c\\"","é"]',
    "a.ints": f"[1,-2,{2**60}]",
    "a.doubles": "[1.5,-2.5]",
    "a.truths": "[true,false]",
    "a.none": "[]",
}
BYTES = base64.b64encode(bytes([0, 255, 16])).decode()
MAP = {"inner": {"list": [1, "two"], "bytes": BYTES}, "yes": True}
# Set by OTEL_RESOURCE_ATTRIBUTES.
RESOURCE = {"deployment.environment.name": "test", "host.label": "café, 1"}
ENCODED_RESOURCE = "deployment.environment.name=test,host.label=caf%C3%A9%2C%201"

# What a language cannot say, or says in another way.
OWN = {
    "node": {
        # A number of JavaScript: there is no 2^60 + 1, and what is whole is sent as a whole number.
        "a.large": 2**60,
        "a.whole": 3,
    },
    # Numbers of its JSON have 17 digits, what is beyond 64 bits is no whole number any more, and what is not finite is not sent.
    "node json": {
        "a.large": 1_152_921_504_606_847_000,
        "a.ints": "[1,-2,1152921504606847000]",
        "a.least": -(2.0**63),
        "a.whole": 3,
        "a.nan": None,
        "a.infinite": None,
    },
    "python": {},
    # It takes what OTEL_RESOURCE_ATTRIBUTES says as it is written.
    "rust": {"host.label": "caf%C3%A9%2C%201"},
}
SCOPE_ATTRIBUTES = {"node": {}, "python": {"scope.color": "red"}, "rust": {"scope.color": "red"}}


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, what, said, wanted):
        fine = same(said, wanted)
        self.passed += fine
        self.failed += not fine
        if not fine:
            print(f"  FAILED {what}: {said!r:.300} instead of {wanted!r:.300}", flush=True)


def same(a, b):
    """Equal, and of one type: 1 is not true, and 3 is not 3.0."""
    return type(a) is type(b) and a == b


class Server:
    def __init__(self, binary, work):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SEAWORTHY_", "OTEL_"))}
        self.env = clean | {"XDG_CONFIG_HOME": str(work / "config"), "NO_PROXY": "*", "no_proxy": "*"}
        words = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", str(work / "data")]
        self.log = work / "serve.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(binary), *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self.process.wait()}: {self.log.read_text()[-500:]}")
        ready = json.loads(line)
        self.url, self.admin = f"http://{ready['address']}", ready["admin_token"]
        made = subprocess.run(
            [str(binary), "token", "create", "sdk", "--role", "service"], check=True, capture_output=True, text=True,
            env=self.env | {"SEAWORTHY_URL": self.url, "SEAWORTHY_TOKEN": self.admin},
        )
        self.token = made.stdout.strip()

    def ask(self, path, body=None):
        headers = {"authorization": f"Bearer {self.admin}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, body and json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def emit(server, language, command, protocol, compression):
    """Runs an SDK with the variables that its user would set; gives the ids that it prints."""
    service = f"{language} {protocol}{' gzip' if compression else ''}"
    env = server.env | {
        "OTEL_SERVICE_NAME": service,
        "OTEL_RESOURCE_ATTRIBUTES": ENCODED_RESOURCE,
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{server.token}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
    }
    if compression:
        env["OTEL_EXPORTER_OTLP_COMPRESSION"] = "gzip"
    kind = "grpc" if protocol == "grpc" else "http"
    done = subprocess.run([*command, kind], env=env, capture_output=True, text=True, timeout=PATIENCE_SECS)
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-800:]}")
    return service, json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


def verify(check, server, language, service, ids):
    found = server.ask("/api/v1/query", {"where": f"service.name = '{service}'", "limit": 100})["rows"]
    rows = {row.get("name") or row.get("body"): row for row in found}
    names = ["root", "child", "a line", "shop.opened", "cache.miss", "exception", "link"]
    check(f"{service}: rows", sorted(rows, key=str), sorted(names))
    check(f"{service}: each once", len(found), len(rows))
    root, child, line, opened, miss, exception, link = (rows.get(name, {}) for name in names)

    def holds(what, row, wanted):
        for name, value in wanted.items():
            check(f"{service}, {what}, {name}", row.get(name), value)

    resource = {name: OWN[language].get(name, value) for name, value in RESOURCE.items()}
    parts = ("root", root), ("child", child), ("line", line), ("event", opened), ("span event", miss), ("link", link)
    for what, row in parts:
        holds(what, row, resource | {"service.name": service})
    own = OWN["node json"] if "http/json" in service else OWN[language]
    holds("root", root, ATTRIBUTES | own | {
        "meta.signal_type": "trace", "kind": "server", "error": False, "otel.scope.name": "shop",
        "trace.trace_id": ids["trace"], "trace.span_id": ids["root"], "trace.parent_id": None,
    } | SCOPE_ATTRIBUTES[language])
    holds("child", child, {
        "kind": "client", "error": True, "status_message": "no luck", "exception.message": "it broke",
        "trace.trace_id": ids["trace"], "trace.span_id": ids["child"], "trace.parent_id": ids["root"],
    })
    check(f"{service}: the root lasts as long as the child", root.get("duration_ms", -1) >= child.get("duration_ms", 0) >= 0, True)
    holds("line", line, {
        "meta.signal_type": "log", "severity": "WARN", "body": "a line", "a.text": "hello", "a.small": 42, "a.bytes": BYTES,
        "trace.trace_id": ids["trace"], "trace.span_id": ids["root"], "duration_ms": None,
    })
    check(f"{service}, line, a.map", json.loads(line.get("a.map", "null")), MAP)
    holds("event", opened, {"meta.signal_type": "log", "severity": "INFO", "trace.trace_id": None})
    check(f"{service}, event, body", json.loads(opened.get("body", "null")), MAP)

    of_root = {"trace.trace_id": ids["trace"], "trace.span_id": None, "trace.parent_id": ids["root"], "duration_ms": None}
    holds("span event", miss, of_root | {
        "meta.signal_type": "span_event", "meta.annotation_type": "span_event", "key": "k1", "size": 3,
    })
    holds("link", link, of_root | {
        "meta.signal_type": "link", "meta.annotation_type": "link", "why": "a retry", "link.trace_id": f"{0xabc:032x}",
        "link.span_id": f"{0xdef:016x}",
    })
    holds("exception", exception, {
        "meta.signal_type": "span_event", "exception.message": "it broke", "trace.parent_id": ids["child"],
    })

    trace = server.ask(f"/api/v1/traces/{ids['trace']}")
    tree = [(span["row"].get("name") or span["row"].get("body"), span["depth"], span["parent_missing"]) for span in trace["spans"]]
    check(f"{service}: the trace", sorted(tree), [("a line", 1, False), ("child", 1, False), ("root", 0, False)])
    below = {
        span["row"].get("name"): ([event["name"] for event in span["events"]], [link["why"] for link in span["links"]])
        for span in trace["spans"] if span["row"].get("kind")
    }
    check(f"{service}: events and links", below, {"root": (["cache.miss"], ["a retry"]), "child": (["exception"], [])})
    check(f"{service}: nothing is missing", trace["missing"], [])


def make_venv(folder):
    python = folder / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = folder / "requirements.installed"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print("making the virtual environment", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(HERE / "requirements.txt")]
    subprocess.run(pip, check=True)
    stamp.write_text(wanted)
    return python


def make_packages(folder):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "emit.mjs", folder)
    wanted = (HERE / "js" / "package.json").read_text()
    stamp = folder / "package.installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing the npm packages", flush=True)
        (folder / "package.json").write_text(wanted)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
        stamp.write_text(wanted)
    return ["node", str(folder / "emit.mjs")]


def build(target):
    words = ["cargo", "build", "--quiet", "--locked", "--manifest-path", str(HERE / "rust" / "Cargo.toml")]
    subprocess.run([*words, "--target-dir", str(target)], check=True)
    return [str(target / "debug" / "otel-client")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path, help="the seaworthy binary")
    parser.add_argument("--venv", required=True, type=Path, help="where Python's and npm's packages are kept")
    parser.add_argument("--rust", type=Path, help="where the Rust client is built; without it, it is left out")
    args = parser.parse_args()
    folder = args.venv.absolute()
    languages = {"python": [str(make_venv(folder)), str(HERE / "emit.py")]}
    if shutil.which("node") and shutil.which("npm"):
        languages["node"] = make_packages(folder / "js")
    else:
        print("node: left out: node and npm are not there")
    if args.rust:
        languages["rust"] = build(args.rust.absolute())
    work = Path(tempfile.mkdtemp(prefix="seaworthy-otel-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check = Checks()
    server = Server(args.bin.resolve(), work)
    try:
        jobs = [
            (language, command, protocol, compression)
            for language, command in languages.items()
            for protocol in ("http/protobuf", "grpc", *(["http/json"] if language == "node" else []))
            for compression in (False, True)
        ]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = [(job, pool.submit(emit, server, *job)) for job in jobs]
            for (language, _, protocol, compression), run in runs:
                name = f"{language}, {protocol}{', gzip' if compression else ''}"
                before = check.failed
                try:
                    service, ids, said = run.result()
                    verify(check, server, language, service, ids)
                except (RuntimeError, OSError, subprocess.TimeoutExpired, ValueError) as error:
                    check(f"{name}: runs to its end", str(error), "")
                    continue
                print(f"{name}: {'fine' if check.failed == before else f'FAILED; the SDK said: {said[-500:]}'}", flush=True)
    finally:
        server.end()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{check.passed} passed, {check.failed} failed")
    return int(check.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
