#!/usr/bin/env python3
"""Random questions to `seaworthy serve`, and to DuckDB over the same rows: the answers are the same.

    tests/events/run.py --bin target/release/seaworthy --venv DIR [--seed N] [--queries N]

It makes the virtual environment in DIR if there is none. The rows (wide.py) are sent over OTLP in batches, so that some are
Parquet, some a segment and some in memory only; in the middle the server is started anew. The questions (questions.py) come from
a seed, which is printed. Counts, minima, maxima, histograms, heatmaps, groups, order and raw rows are the same exactly; sums but for
rounding; percentiles within 1 %; distinct values within 2 %, and exactly where there are few. The last line is
`N passed, N failed`; exit code 0 if nothing failed.
"""

import argparse
import gzip
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import wide

HERE = Path(__file__).resolve().parent
COLD_AFTER = 4 * wide.HOUR
# More than the rows of which a segment is made.
SEGMENT = 135_000
IN_MEMORY = 15_000
BATCH = 4_000
READY_SECS = 30.0
TENDED_SECS = 60.0


class Refused(Exception):
    """A question had no answer."""


class Server:
    """`seaworthy serve` on a folder; may be started again."""

    def __init__(self, binary, work):
        self.binary, self.work, self.token, self.process = binary, work, None, None

    def start(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SEAWORTHY_", "OTEL_"))}
        words = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", str(self.work / "data")]
        words += ["--events-cold-after", f"{COLD_AFTER // wide.SECOND}s"]
        with open(self.work / "serve.log", "ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), *words], env=clean | {"XDG_CONFIG_HOME": str(self.work / "config")},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self.process.wait()}: {self.tail()}")
        ready = json.loads(line)
        self.address, self.token = ready["address"], ready["admin_token"] or self.token

    def tail(self):
        return " | ".join((self.work / "serve.log").read_text(errors="replace").splitlines()[-5:])

    def call(self, path, body, headers):
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            connection.request("POST", path, body, {"authorization": f"Bearer {self.token}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def send(self, rows, encoder):
        for at in range(0, len(rows), BATCH):
            for path, body in encoder.requests(rows[at : at + BATCH]):
                headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
                status, said = self.call(path, gzip.compress(body, 1), headers)
                # An OTLP answer has content only if something was refused.
                if status != 200 or said:
                    raise RuntimeError(f"{path}: {status} {said[:300]}")

    def ask(self, body):
        status, said = self.call("/api/v1/query", json.dumps(body), {"content-type": "application/json"})
        if status != 200:
            raise Refused(f"{status} {said.decode(errors='replace')}")
        return json.loads(said)

    def stored(self):
        """Segments and Parquet files."""
        events = self.work / "data" / "events"
        # A segment may have a second file for what few rows have.
        segments = [path for path in events.rglob("*.arrow") if not path.name.endswith(".sparse.arrow")]
        return len(segments), len(list(events.rglob("*.parquet")))

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


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


def scenario(args, work, server):
    import duckdb

    import questions
    import truth
    import verify

    now = time.time_ns()
    maker, encoder = wide.Maker(args.seed), wide.Encoder()
    began = time.monotonic()

    def tell(text):
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    # Old enough to become Parquet; a segment; in memory, some of it late news of old traces.
    parts = [
        maker.rows(SEGMENT, now - 8 * wide.HOUR, now - 6 * wide.HOUR),
        maker.rows(SEGMENT, now - 3 * wide.HOUR, now - 100 * wide.MINUTE),
        maker.rows(IN_MEMORY, now - 8 * wide.HOUR, now - 100 * wide.MINUTE, late=0.2),
        maker.rows(IN_MEMORY, now - 8 * wide.HOUR, now - 100 * wide.MINUTE, late=0.2),
    ]
    schema = wide.Schema([row for part in parts for row in part])
    tell(f"{sum(map(len, parts))} rows are made")
    connection = duckdb.connect()
    server.start()

    def send(part):
        server.send(part, encoder)
        wide.load(connection, schema, part)

    def tended(segments, parquet):
        end = time.monotonic() + TENDED_SECS
        while server.stored() != (segments, parquet):
            if time.monotonic() > end:
                raise RuntimeError(f"{server.stored()} segments and Parquet files instead of {segments} and {parquet}")
            time.sleep(0.1)

    send(parts[0])
    tended(0, 1)
    send(parts[1])
    tended(1, 1)
    send(parts[2])
    tell("rows are Parquet, a segment, and in memory")
    asker = questions.Asker(random.Random(args.seed), schema, now - 8 * wide.HOUR - wide.MINUTE, now - 5 * wide.MINUTE)
    passed, failed, matched = 0, 0, 0
    for number in range(args.queries):
        if number == args.queries // 3:
            tell("the server is started again, and gets more")
            server.end()
            server.start()
            send(parts[3])
        question = asker.question()
        if args.only is not None and number != args.only:
            continue
        body = question.body()
        try:
            asked = time.monotonic()
            answer = server.ask(body)
            answered = time.monotonic()
            verify.check(question, answer, truth.Truth(connection, asker.known[wide.WEIGHT].value, question))
            passed += 1
            matched += answer["rows_matched"] > 0
            if args.verbose:
                print(f"{number}: {answered - asked:.2f} s and {time.monotonic() - answered:.2f} s", flush=True)
        except (Refused, verify.Different) as difference:
            failed += 1
            print(f"FAILED question {number}: {difference}\n  {json.dumps(body, ensure_ascii=False)}", flush=True)
    tell(f"{args.queries} questions, of which {matched} matched some row")
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path, help="the seaworthy binary")
    parser.add_argument("--venv", required=True, type=Path, help="where the virtual environment is kept")
    parser.add_argument("--seed", type=int, help="of rows and questions; random if not given")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--only", type=int, help="check this question alone")
    parser.add_argument("--verbose", action="store_true", help="how long each question took")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    args = parser.parse_args()
    python = make_venv(args.venv.absolute())
    if Path(sys.prefix).resolve() != args.venv.resolve():
        os.execv(python, [str(python), *sys.argv])
    args.seed = random.randrange(2**32) if args.seed is None else args.seed
    print(f"seed {args.seed}", flush=True)
    work = Path(tempfile.mkdtemp(prefix="seaworthy-events-"))
    server = Server(args.bin.resolve(), work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        passed, failed = scenario(args, work, server)
    finally:
        server.end()
        if args.keep:
            print(f"data and logs: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
