#!/usr/bin/env python3
"""End to end with a real app: Flask, OpenTelemetry SDK (OTLP over HTTP and gRPC) and the OpenFeature OFREP provider.

    tests/realapp/run.py --bin target/release/seaworthy --venv DIR

It makes the virtual environment in DIR if there is none. Needs nothing but Python; the packages go into DIR.
The last line is `N passed, N failed`; exit code 0 if nothing failed.

    load -> edge proxy -> front -> hop proxy -> stock
                 front -> control plane (flags, OTLP/HTTP), stock -> control plane (OTLP/gRPC)
"""

import argparse
import collections
import hashlib
import http.client
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
USERS = 3_000
RATE = 60.0
WORKERS = 64

SPEC = {
    "name": "slow-stock",
    "hypothesis": "an order survives a stock service that answers 400 ms later",
    "owner": "realapp",
    "service": "front",
    "treatment": {"fault": {"route": "stock", "delay": "400ms"}},
    "stages": [{"share": 0.05, "min": "120s"}],
    "baseline_ratio": 4,
    "kpi": {
        "success": "name = 'request' and route = 'front' and http.response.status_code < 500",
        "failure": "name = 'request' and route = 'front' and http.response.status_code >= 500",
    },
    "window": "2s",
    "settle": "2s",
    "alpha": 0.001,
    "warm_up": {"min_exposures": 50, "min": "3s", "max": "90s"},
    "max_duration": "10m",
}
# One that hurts nobody: it runs when the control plane dies.
HARMLESS = SPEC | {
    "name": "slightly-slow-stock",
    "treatment": {"fault": {"route": "stock", "delay": "20ms"}},
    "warm_up": {"min_exposures": 20, "min": "1s", "max": "90s"},
}


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, what, fine, seen=""):
        self.passed += bool(fine)
        self.failed += not fine
        seen = f": {seen}" if seen != "" else ""
        print(f"  {'ok    ' if fine else 'FAILED'} {what}{seen}", flush=True)
        return bool(fine)


class Processes:
    """Everything started here; all of it ends."""

    def __init__(self, logs):
        self.logs, self.all = logs, []

    def start(self, name, command, env, patience=40.0):
        """Starts and waits for the one line of JSON that says it is ready."""
        log = open(self.logs / f"{name}.log", "wb")
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=self.logs
        )
        log.close()
        self.all.append((name, process))
        lines = queue.Queue()

        def read():
            for line in process.stdout:
                lines.put(line)
            lines.put(b"")

        threading.Thread(target=read, daemon=True).start()
        end = time.monotonic() + patience
        while True:
            try:
                line = lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"{name} did not become ready\n{self.tail(name)}") from None
            if not line:
                raise RuntimeError(f"{name} ended with {process.wait()}\n{self.tail(name)}")
            if line.startswith(b"{"):
                return json.loads(line), process

    def tail(self, name, lines=20):
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join([line for line in text.splitlines() if '" 200 -' not in line][-lines:])

    def end(self):
        for _, process in self.all:
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + 3
        for _, process in self.all:
            try:
                process.wait(max(0.05, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def user(number):
    """A sticky user: whatever he is depends on his number only, each attribute on its own."""

    def pick(what, *values):
        return values[int(hashlib.sha256(f"{what} {number}".encode()).hexdigest()[:8], 16) % len(values)]

    return {
        "x-user-id": f"user-{number}",
        "X-Client": pick("client", "kiosk", "web", "phone", "tablet"),
        "X-Build": pick("build", "4.1.0", "4.1.1", "4.2.0"),
        "X-Store": pick("store", *(f"s{n}" for n in range(12))),
        "X-Region": pick("region", "north", "south", "east", "west"),
        "X-Payment": pick("payment", "card", "cash", "invoice"),
        "X-Loyalty": pick("loyalty", "yes", "no"),
    }


class Load:
    """Open loop: requests go out on time, whether or not the ones before were answered."""

    def __init__(self, address):
        self.address = address
        self.waiting = queue.Queue()
        self.going = True
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.kinds = collections.Counter()
        self.flags = collections.Counter()
        self.random = random.Random(7)
        for target in [self.drive] + [self.work] * WORKERS:
            threading.Thread(target=target, daemon=True).start()

    def drive(self):
        at = time.monotonic()
        while self.going:
            self.waiting.put((self.random.randrange(USERS), self.random.randrange(1, 9)))
            at += self.random.expovariate(RATE)
            time.sleep(max(0.0, at - time.monotonic()))

    def work(self):
        while True:
            number, items = self.waiting.get()
            if not self.going:
                return
            headers = user(number) | {"X-Items": str(items)}
            status, body = call(self.address, "/orders", headers)
            with self.lock:
                self.counts[status] += 1
                self.kinds[headers["X-Client"], status] += 1
                if status == 200:
                    answer = json.loads(body)
                    self.flags[answer["greeting"], answer["variant"], answer["error"]] += 1

    def seen(self):
        with self.lock:
            return self.counts.copy(), self.kinds.copy(), self.flags.copy()

    def stop(self):
        self.going = False
        for _ in range(WORKERS):
            self.waiting.put((0, 0))


def call(address, path, headers=None, timeout=10.0):
    """Status and body; the status is the error's name if there was no answer."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, b""
    finally:
        connection.close()


def until(patience, test, pause=0.1):
    """Polls; gives what the test gave and after how many seconds, or a false value."""
    began = time.monotonic()
    while True:
        found = test()
        spent = time.monotonic() - began
        if found or spent > patience:
            return found, spent
        time.sleep(pause)


def make_venv(folder):
    python = folder / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = folder / "requirements.installed"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print("making the virtual environment", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(HERE / "requirements.txt")],
        check=True,
    )
    stamp.write_text(wanted)
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path, help="the seaworthy binary")
    parser.add_argument("--venv", type=Path, help="where the virtual environment is kept; a cache directory if not given")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    args = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = make_venv((args.venv or cache / "seaworthy-realapp").absolute())
    work = Path(tempfile.mkdtemp(prefix="seaworthy-realapp-"))
    processes = Processes(work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check = Checks()
    began = time.monotonic()
    load = []
    try:
        scenario(args.bin.resolve(), python, work, processes, check, load)
    except Exception as error:  # whatever it was, it is one more failure
        check("the test runs to its end", False, f"{type(error).__name__}: {error}")
    finally:
        for one in load:
            one.stop()
        processes.end()
        if check.failed:
            for name, _ in processes.all:
                print(f"--- end of {name}.log\n{processes.tail(name)}")
        if args.keep:
            print(f"data and logs: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    print(f"took {time.monotonic() - began:.0f} s")
    print(f"{check.passed} passed, {check.failed} failed")
    return int(check.failed > 0)


def scenario(binary, python, work, processes, check, loads):
    base_env = {k: v for k, v in os.environ.items() if not k.startswith(("SEAWORTHY_", "OTEL_"))}
    base_env |= {"XDG_CONFIG_HOME": str(work / "config"), "PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "no_proxy": "*"}

    def step(text):
        print(text, flush=True)

    step("control plane")
    ready, control = processes.start(
        "control", [str(binary), "serve", "--json", "--listen", "127.0.0.1:0", "--data", str(work / "data")], base_env
    )
    address, url = ready["address"], f"http://{ready['address']}"
    admin = base_env | {"SEAWORTHY_URL": url, "SEAWORTHY_TOKEN": ready["admin_token"]}

    def cli(*words, patience=60, fine=(0,)):
        done = subprocess.run(
            [str(binary), *words], env=admin, capture_output=True, text=True, timeout=patience, cwd=work
        )
        if fine is not None and done.returncode not in fine:
            raise RuntimeError(f"seaworthy {' '.join(words)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done

    def ask(*words, **more):
        done = cli(*words, "--json", **more)
        return json.loads(done.stdout)

    def write(name, value):
        path = work / name
        path.write_text(json.dumps(value, indent=1))  # JSON is YAML
        return str(path)

    def token(name, role):
        return cli("token", "create", name, "--role", role).stdout.strip()

    step("tokens and a flag")
    front_token, stock_token, proxy_token = (
        token("front", "service"), token("stock", "service"), token("proxies", "proxy"),
    )
    check("tokens are made", all(t.startswith("sw_") for t in (front_token, stock_token, proxy_token)))
    flag = {
        "state": "ENABLED", "variants": {"plain": "good day", "warm": "good to see you"}, "defaultVariant": "warm",
    }
    cli("flag", "put", write("flags.yaml", {"flags": {"greeting": flag}}))

    def telemetry(service, protocol, secret):
        return {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{secret}",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }

    def proxy(name, config):
        config = {"name": name, "listen": "127.0.0.1:0", "control": url} | config
        path = write(f"{name}.yaml", config)
        command = [str(binary), "proxy", "--json", "--config", path]
        return processes.start(name, command, base_env | {"SEAWORTHY_TOKEN": proxy_token})[0]["address"]

    def app(role, **env):
        return processes.start(role, [str(python), str(HERE / "app.py"), role], base_env | env)[0]["address"]

    step("stock (OTLP/gRPC), hop proxy, front (OTLP/HTTP), edge proxy")
    stock = app("stock", **telemetry("stock", "grpc", stock_token))
    hop = proxy("hop", {"routes": [{"name": "stock", "path": "/stock", "upstream": f"http://{stock}"}]})
    front = app(
        "front",
        **telemetry("front", "http/protobuf", front_token),
        FLAGS_URL=url, FLAGS_TOKEN=front_token, STOCK_URL=f"http://{hop}",
    )
    edge = proxy("edge", {
        "edge": True, "subject": {"header": "x-user-id"},
        "routes": [{"name": "front", "path": "/", "upstream": f"http://{front}"}],
    })

    def health():
        return json.loads(call(hop, "/.seaworthy/healthz")[1] or "{}")

    step("the stock OTLP exporters with the right and with a wrong token")
    for protocol in ("http/protobuf", "grpc"):
        for secret, wanted in ((stock_token, True), ("sw_" + "0" * 40, False)):
            done = subprocess.run(
                [str(python), str(HERE / "app.py"), "probe"],
                env=base_env | telemetry("probe" if wanted else "intruder", protocol, secret),
                capture_output=True, text=True, timeout=60, cwd=work,
            )
            said = json.loads(done.stdout or "{}").get("exported")
            word = "takes the right token" if wanted else "refuses a wrong token"
            check(f"OTLP {protocol} {word}", said is wanted, f"exported {said}")

    step("every user gets an answer before anything is broken")
    status, body = call(edge, "/orders", user(1))
    check("an order through both proxies", status == 200, f"{status} {body.decode()[:120].strip()}")
    load = Load(edge)
    loads.append(load)
    time.sleep(2)

    step("experiment: 400 ms on stock for 5 % of the users")
    started = time.monotonic()
    done = cli("experiment", "start", write("spec.yaml", SPEC), "--wait", "--json", patience=150, fine=None)
    took = time.monotonic() - started
    check("exit code 1", done.returncode == 1, f"{done.returncode} {done.stderr.strip()} after {took:.1f} s")
    experiment = json.loads(done.stdout)
    verdict = experiment["verdict"] or {}
    check("it is stopped", experiment["state"] == "stopped", f"{experiment['state']}, {experiment['state_reason']}")
    check("by the guardrail failures", verdict.get("guardrail") == "failures", verdict.get("guardrail"))
    seconds = verdict.get("seconds_to_stop")
    check("in less than 40 s", seconds is not None and seconds < 40, seconds)
    arms = experiment["arms"]
    for name in ("treatment", "baseline"):
        keys = ("exposed", "windows", "hurt", "successes", "failures")
        print(f"         {name}: " + ", ".join(f"{arms[name][k]} {k}" for k in keys))
    print(f"         verdict: {json.dumps(verdict)}")
    check("few users were hurt", 0 < verdict.get("subjects_hurt", 0) <= 60, verdict.get("subjects_hurt"))
    off, spent = until(3, lambda: health().get("faults_on") == 0)
    check("the hop proxy breaks nothing any more", off, f"{spent:.1f} s later")

    counts, kinds, flags = load.seen()
    print(f"         answers: {dict(counts)}")
    failing = {kind for (kind, status), n in kinds.items() if status == 500}
    check("only kiosks saw 500", failing == {"kiosk"}, sorted(failing))
    check("the load is answered", counts[200] > 0.9 * sum(counts.values()), f"{sum(counts.values())} requests")
    got = {key for key, n in flags.items()}
    check("OFREP gave the flag's value to everybody", got == {("good to see you", "warm", None)}, sorted(map(str, got)))

    step("what is different about the hurt")
    time.sleep(1.5)
    compared = ask("compare", "--experiment", experiment["id"])
    top = (compared["ranked"] or [{}])[0]
    print(f"         {compared['summary']}")
    named = (top.get("attribute"), top.get("value")) == ("client.kind", "kiosk")
    check("hurt users: client.kind = kiosk is first", named, json.dumps(top))

    def rows(to="-0s"):
        where = "service.name = 'front' and kind = 'server'"
        return ask("query", "--where", where, "--limit", "1", "--to", to)["rows"]

    keys = (rows() or [{}])[0]
    print(f"         a row of front: {json.dumps(keys)}")
    own = ("client.kind", "client.build", "store", "region", "payment.method", "cart.items", "loyalty.member",
           "greeting", "enduser.id")
    check("front's own attributes arrived", all(k in keys for k in own), [k for k in own if k not in keys])
    check("the user's key is nowhere in clear text", "user-" not in json.dumps(keys) and "user.id" in keys,
          keys.get("user.id"))
    step("an incident that is no experiment: stock is slow for everybody, 3 s long")
    call(stock, "/slow/0.4")
    time.sleep(3)
    call(stock, "/slow/0")
    time.sleep(2)
    # What a filter names is not ranked, so these do not name client.kind. The instrumentation decides between old and
    # stable semantic conventions.
    code = next((k for k in ("http.response.status_code", "http.status_code") if k in keys), "http.status_code")
    here = "service.name = 'front' and kind = 'server' and "
    compared = ask("compare", "--where", f"{here}{code} >= 500", "--baseline-where", f"{here}{code} < 500")
    top = (compared["ranked"] or [{}])[0]
    print(f"         {compared['summary']}")
    named = (top.get("attribute"), top.get("value")) == ("client.kind", "kiosk")
    check("front's failed spans: client.kind = kiosk is first", named, json.dumps(top))
    names = [r["attribute"] for r in compared["ranked"]]
    outcomes = ("exception.", "error", "http.status", "http.response.", "status_", "user.id", "enduser.id")
    check("outcomes and identities are not ranked", not [n for n in names if n.startswith(outcomes)],
          [(r["attribute"], r["value"][:40], round(r["score"], 2)) for r in compared["ranked"][:6]])

    step("spans from both exporters, in the same traces as the proxies")
    answer = ask("query", "--group-by", "service.name", "--calculate", "count", "--where", "service.name exists")
    spans = {row["service.name"]: row["count"] for row in answer["rows"]}
    check("spans over OTLP/HTTP (front)", spans.get("front", 0) > 500, spans.get("front"))
    check("spans over OTLP/gRPC (stock)", spans.get("stock", 0) > 500, spans.get("stock"))
    check("none of the intruder", "intruder" not in spans and spans.get("probe") == 2, spans)
    # One whose spans had time to leave the exporters' batches.
    trace = rows(to="-4s")[0]["trace.trace_id"]
    whole = ask("query", "--where", f"trace.trace_id = '{trace}'", "--limit", "50")["rows"]
    parts = {row.get("proxy.name") or row.get("service.name") for row in whole}
    check("one trace has edge, front, hop and stock", {"edge", "front", "hop", "stock"} <= parts, sorted(map(str, parts)))

    step("a harmless experiment runs, and the control plane is killed")
    cli("experiment", "ack", experiment["id"], "--reason", "kiosks have no fallback")
    second = ask("experiment", "start", write("harmless.yaml", HARMLESS))["id"]
    on, spent = until(60, lambda: health().get("faults_on") == 1)
    shown = ask("experiment", "show", second)
    check("the hop proxy has a fault on", on, f"{spent:.1f} s after the start, {shown['state']}: {health()}")
    before = load.seen()[0]
    control.kill()
    control.wait()
    gone, spent = until(3.5, lambda: (h := health()).get("faults_on") == 0 and h.get("lease_is_valid") is False, 0.05)
    check("within 3.5 s no fault is on and the lease is over", gone, f"{spent:.2f} s, {health()}")
    time.sleep(2)
    after = load.seen()[0] - before
    check("the load is answered as before", after[200] > 100 and set(after) == {200}, dict(after))
    answers = [call(edge, "/orders", user(n))[0] for n in range(40)]
    check("requests through the edge still answer", answers == [200] * 40, collections.Counter(answers))
    check("no one else ended", [n for n, p in processes.all if p.poll() is not None] == ["control"],
          [n for n, p in processes.all if p.poll() is not None])


if __name__ == "__main__":
    sys.exit(main())
