#!/usr/bin/env python3
"""Several servers over one bucket: they answer as one server with all events would, and none needs another.

    tests/events/bucket.py --bin target/release/seaworthy --venv DIR [--seed N]

It makes the virtual environment in DIR if there is none; S3 is played by moto. Events go to one server without a bucket and to one of
two with one, which are compared. Then a server is killed while it and the other are asked, and the bucket stops to answer
for a while. The last line is `N passed, N failed`; exit code 0 if nothing failed.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCHES, ROWS = 60, 400
QUESTIONS = [
    {"calculate": ["count"]},
    {"calculate": ["count", "sum(n)", "min(n)", "max(n)"], "group_by": ["service.name"]},
    {"calculate": ["count", "avg(duration_ms)"], "group_by": ["route", "status"], "limit": 1000},
    {"calculate": ["count_distinct(user)"]},
    {"calculate": ["count"], "group_by": ["user"], "order": ["user"], "limit": 50},
    {"calculate": ["p50(duration_ms)", "p99(duration_ms)"], "group_by": ["service.name"]},
    {"calculate": ["heatmap(duration_ms)"], "step": "1m"},
    {"calculate": ["count"], "where": "build = 'b7' and duration_ms > 500"},
    {"calculate": ["count"], "where": "rare.3 exists"},
    {"fields": ["n", "user"], "where": "status = 500", "order": ["n"], "limit": 200},
    {"calculate": ["count"], "group_by": ["service.name"], "step": "30s"},
]


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, what, fine, seen=""):
        self.passed += bool(fine)
        self.failed += not fine
        seen = f": {seen}" if seen != "" else ""
        print(f"  {'ok    ' if fine else 'FAILED'} {what}{seen}", flush=True)
        return bool(fine)


check = Checks()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, seconds, done):
    end = time.time() + seconds
    while True:
        if done():
            return True
        if time.time() > end:
            print(f"  gave up waiting: {what}", flush=True)
            return False
        time.sleep(0.1)


class Server:
    def __init__(self, binary, data, bucket=None, more=(), endpoint=None):
        self.binary, self.data, self.bucket, self.more, self.endpoint = binary, data, bucket, list(more), endpoint
        self.token = None
        self.start()

    def start(self):
        command = [self.binary, "serve", "--data", self.data, "--listen", "127.0.0.1:0", "--json"]
        environment = dict(os.environ, RUST_LOG="warn")
        if self.bucket:
            command += ["--events-bucket", self.bucket, *self.more]
            environment |= {
                "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": self.endpoint,
            }
        log = open(self.data + ".log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        started = json.loads(self.process.stdout.readline())
        self.base = f"http://{started['address']}"
        self.token = started["admin_token"] or self.token

    def kill(self):
        self.process.kill()
        self.process.wait()

    def call(self, path, body=None, timeout=60):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.base + path, data, headers)
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            error.msg = f"{error.msg}: {error.read().decode(errors='replace')[:500]}"
            raise

    def send(self, spans, timeout=60):
        """Whether it was acknowledged."""
        try:
            self.call("/v1/traces", spans, timeout)
            return True
        except (urllib.error.URLError, OSError):
            return False

    def ask(self, question, timeout=60):
        return self.call("/api/v1/query", {"from": "-1h"} | question, timeout)

    def count(self, where=None):
        answer = self.ask({"calculate": ["count"]} | ({"where": where} if where else {}))
        return answer["rows"][0]["count"] if answer["rows"] else 0


def attribute(key, value):
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}[type(value)]
    return {"key": key, "value": {kind: str(value) if kind == "intValue" else value}}


def batch(rng, number, n_rows, start_nanos):
    """Spans of one request; `n` numbers them over all batches."""
    services = {}
    for row in range(n_rows):
        n = number * 10_000 + row
        begin = start_nanos + (number * ROWS + row) * 5_000_000
        duration = int(rng.lognormvariate(3, 1.5) * 1e6)
        attributes = {
            "n": n, "user": f"u{rng.randrange(5_000)}", "route": f"/r{rng.randrange(12)}",
            "status": rng.choice([200, 200, 200, 404, 500]), "build": f"b{rng.randrange(9)}",
        }
        if rng.random() < 0.02:
            attributes[f"rare.{rng.randrange(7)}"] = rng.choice(["x", 3, 2.5, True])
        span = {
            "traceId": f"{n + 1:032x}", "spanId": f"{n + 1:016x}", "name": "work", "kind": 2,
            "startTimeUnixNano": str(begin), "endTimeUnixNano": str(begin + duration),
            "attributes": [attribute(key, value) for key, value in attributes.items()],
        }
        services.setdefault(rng.choice(["web", "api", "db"]), []).append(span)
    return {
        "resourceSpans": [
            {"resource": {"attributes": [attribute("service.name", name)]}, "scopeSpans": [{"spans": spans}]}
            for name, spans in services.items()
        ]
    }


def install(venv):
    python = Path(venv) / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "bucket-requirements.txt"], check=True)
    return python


def moto(python, port, log):
    process = subprocess.Popen(
        [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)

    def up():
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{port}/events", method="PUT"), timeout=5).close()
            return True
        except (urllib.error.URLError, OSError):
            return False
    if not until("moto", 60, up):
        sys.exit("moto did not start")
    return process


def same(a, b):
    """Whether two answers are equal, floats but for their last digits."""
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def rows(answer):
    return sorted(answer["rows"], key=lambda row: json.dumps(row, sort_keys=True))


def equal_answers(one, others, when):
    wrong = []
    for question in QUESTIONS:
        expected = rows(one.ask(question))
        for name, server in others.items():
            answer = server.ask(question)
            if answer["incomplete"] or not same(expected, rows(answer)):
                wrong.append((name, question, answer["incomplete"]))
    check(f"{len(QUESTIONS)} questions have one server's answers on {len(others)} servers, {when}", not wrong, wrong or "")
    selection = {"where": "duration_ms > 500", "from": "-1h"}
    compared = [server.call("/api/v1/compare", selection) for server in (one, *others.values())]
    found = [
        [c["selected"]["n"], c["baseline"]["n"], [(v["attribute"], v["value"], v["selected_n"]) for v in c["ranked"]]]
        for c in compared
    ]
    check(f"so has a comparison, {when}", found[0][0] > 0 and all(f == found[0] for f in found), found[0][:2])


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bin", required=True)
    arguments.add_argument("--venv", required=True)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    arguments = arguments.parse_args()
    print(f"seed {arguments.seed}")
    rng = random.Random(arguments.seed)
    binary = str(Path(arguments.bin).resolve())
    python = install(arguments.venv)
    processes = []
    with tempfile.TemporaryDirectory() as directory:
        log = open(f"{directory}/moto.log", "ab")
        port = free_port()
        s3 = moto(python, port, log)
        processes.append(s3)
        try:
            run(binary, directory, port, s3, rng, processes)
        finally:
            for process in processes:
                try:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                except OSError:
                    pass
            if check.failed:
                for path in Path(directory).glob("*.log"):
                    if path.name != "moto.log":
                        print(f"--- {path.name}\n{path.read_text()[-3000:]}")
    print(f"{check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


def run(binary, directory, port, s3, rng, processes):
    endpoint, address = f"http://127.0.0.1:{port}", "s3://events/prod/eu"
    # Files are small and some of b's are in the bucket alone, so that every form takes part.
    one = Server(binary, f"{directory}/one")
    a = Server(binary, f"{directory}/a", address, [], endpoint)
    b = Server(binary, f"{directory}/b", address, ["--events-ack", "bucket", "--events-max-gib", "0"], endpoint)
    processes += [one.process, a.process, b.process]

    began = time.time_ns() - 1_200_000_000_000
    sent = 0
    for number in range(BATCHES):
        spans = batch(rng, number, ROWS, began)
        target = (a, b)[number % 2]
        if not (one.send(spans) and target.send(spans)):
            sys.exit(f"batch {number} was refused")
        sent += ROWS
    both = {"a": a, "b": b}
    for name, server in both.items():
        check(f"{name} sees all events", until("all events", 30, lambda: server.count() == sent), server.count())
    equal_answers(one, both, "from what was just sent")

    # A restart makes files of what was in the log.
    for server in both.values():
        server.kill()
        server.start()
        processes.append(server.process)
    for name, server in both.items():
        until("all events", 30, lambda: server.count() == sent)
    equal_answers(one, both, "after both were killed and started again")
    status = b.call("/api/v1/status")
    check("the status says how it stands", status["bucket"]["other_servers"] == 1 and not status["bucket"]["problem"],
          status["bucket"])

    # a is killed while both are asked and b takes events.
    outcomes = {"a": [], "b": []}
    stop = threading.Event()

    def ask(name, server):
        while not stop.is_set():
            start = time.time()
            try:
                answer = server.ask({"calculate": ["count", "p99(duration_ms)"], "group_by": ["user"], "limit": 10_000})
                outcome = "answer" if not answer["incomplete"] and len(answer["rows"]) > 1_000 else f"wrong: {answer['incomplete']}"
            except urllib.error.HTTPError as error:
                outcome = f"HTTP {error.code}"
            except (OSError, ValueError, __import__("http").client.HTTPException):
                outcome = "connection lost"
            outcomes[name].append((outcome, time.time() - start))
            if outcome == "connection lost":
                return
    threads = [threading.Thread(target=ask, args=item) for item in both.items()]
    for thread in threads:
        thread.start()
    time.sleep(1)
    a.kill()
    time.sleep(1.5)
    stop.set()
    for thread in threads:
        thread.join()
    last, took = outcomes["a"][-1]
    check("who asks the server that is killed has a clean error within 2 s", last == "connection lost" and took < 2, f"{took:.2f} s")
    kinds = {outcome for outcome, _ in outcomes["b"]}
    slowest = max(took for _, took in outcomes["b"])
    check("who asks the other has every answer", kinds == {"answer"}, f"{len(outcomes['b'])}, slowest {slowest:.2f} s")

    # b is killed at random moments under load; what it acknowledged is in the bucket, so a has it.
    a.start()
    processes.append(a.process)
    acknowledged, number = [], BATCHES
    for _ in range(3):
        killer = threading.Timer(rng.uniform(0.3, 1.5), b.kill)
        killer.start()
        while b.process.poll() is None:
            if b.send(batch(rng, number, 20, began)):
                acknowledged.append(number)
            number += 1
        killer.join()
        # b stays dead while a is asked.
        wanted = {n * 10_000 + row for n in acknowledged for row in range(20)}

        def there():
            answer = a.ask({"fields": ["n"], "where": f"n >= {BATCHES * 10_000}", "limit": 100_000})
            seen = [row["n"] for row in answer["rows"]]
            return wanted <= set(seen) and len(seen) == len(set(seen))
        check("what the dead server acknowledged is on the other, once", until("events", 15, there), len(acknowledged))
        b.start()
        processes.append(b.process)

    # The bucket does not answer for a while.
    s3.send_signal(signal.SIGSTOP)
    start = time.time()
    check("without the bucket one takes events", a.send(batch(rng, number, 20, began), 5), f"{time.time() - start:.2f} s")
    own = f"n >= {number * 10_000} and n < {(number + 1) * 10_000}"
    check("and shows them", a.count(own) == 20)
    start = time.time()
    refused = b.send(batch(rng, number + 1, 20, began), 60)
    check("who waits for the bucket is told to try again", not refused, f"{time.time() - start:.1f} s")
    until("incomplete", 30, lambda: a.ask({"calculate": ["count"]})["incomplete"])
    incomplete = a.ask({"calculate": ["count"]})["incomplete"]
    check("answers say what may be missing", any("other servers" in text for text in incomplete), incomplete)
    s3.send_signal(signal.SIGCONT)
    check("when it is back both see everything",
          until("events", 60, lambda: b.count(own) == 20 and not b.ask({"calculate": ["count"]})["incomplete"]))
    check("and new events are acknowledged", until("events", 30, lambda: b.send(batch(rng, number + 2, 20, began))))


if __name__ == "__main__":
    sys.exit(main())
