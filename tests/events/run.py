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
import bisect
import datetime
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
            raise Different(f"{status} {said.decode(errors='replace')}")
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


class Different(Exception):
    """An answer is not what it should be."""


def nanos(text):
    """Of RFC 3339."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC).timestamp())
    return seconds * wide.SECOND + int((fraction + "0" * 9)[:9])


def expect(what, said, wanted):
    if said != wanted:
        raise Different(f"{what}: {said!r:.300} instead of {wanted!r:.300}")


def near(what, said, fact):
    """`said` is a number of JSON, or none."""
    if fact.value is None or said is None:
        return expect(what, said, fact.value)
    if not abs(said - fact.value) <= fact.slack:
        raise Different(f"{what}: {said!r} instead of {fact.value!r} (within {fact.slack:g})")


SIGNS = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}


def check(question, answer, truth, tools):
    """Raises if the answer is wrong."""
    expect("incomplete", answer["incomplete"], [])
    expect("rows_matched", answer["rows_matched"], truth.matched())
    if question.fields:
        return check_raw(question, answer, truth, tools)
    figures = question.figures
    series = truth.groups(False)
    totals = [truth.facts(figure, False) for figure in figures]
    for figure, facts in zip(figures, totals):
        if figure.kind == "concurrency":
            # What began before is a group, too.
            series |= {key for key, fact in facts.items() if fact.value > 0}
    if not question.groups:
        series.add((0, ()))
    series, unsure = having(question, series, totals)
    if not unsure:
        expect("groups", answer["groups"], len(series))
        expect("has_more", answer["has_more"], len(series) > question.offset + question.limit)
    lines = read_lines(question, answer, tools)
    chosen = check_order(question, lines, series, unsure, totals)
    truth.choose([key for _, key in chosen])
    check_figures(question, answer, lines, chosen, truth, 0)
    if question.back:
        check_figures(question, answer, lines, chosen, truth, question.back)


def nothing(figure):
    """The figure of no event."""
    return 0.0 if figure.kind in ("count", "rate", "count_distinct", "concurrency") else None


def total(figure, facts, key):
    fact = facts.get(key)
    if fact is None:
        from truth import Fact

        return Fact(nothing(figure), 0.0)
    return fact


def having(question, series, totals):
    """Series that satisfy the conditions, and those of which rounding decides."""
    sure, unsure = set(), set()
    for key in series:
        holds, firm = True, True
        for wanted, sign, number in question.having:
            place = question.figures.index(wanted)
            fact = total(wanted, totals[place], key)
            if fact.value is None:
                holds = False
                continue
            if abs(fact.value - number) <= fact.slack and fact.slack > 0:
                firm = False
            holds = holds and SIGNS[sign](fact.value, number)
        (sure if firm else unsure).add(key) if holds or not firm else None
    return sure | unsure, unsure


def read_lines(question, answer, tools):
    """Lines of the answer: slot, key, cells by column."""
    lines = []
    for row in answer["rows"]:
        slot = nanos(row["time"]) // question.step if question.step else 0
        key = tuple(tools.said_value(row[text]) for text, _ in question.groups)
        lines.append((slot, key, row))
    expect("lines of their own", len({(slot, key) for slot, key, _ in lines}), len(lines))
    return lines


def check_order(question, lines, series, unsure, totals):
    """The answer's series are the right ones in the right order. Returns them."""
    from truth import rank

    chosen = list(dict.fromkeys((0, key) for _, key, _ in lines))
    strange = [key for key in chosen if key not in series]
    expect("series that should not be there", strange, [])
    order = [(key, descending) for key, descending, _ in question.order]
    if not any(kind in ("figure", "group") for (kind, _), _ in order):
        place = next((n for n, figure in enumerate(question.figures) if figure.kind != "histogram"), None)
        if place is not None:
            order.append((("figure", place), True))
    numbers = {key: [total(f, facts, key) for f, facts in zip(question.figures, totals)] for key in series}
    slack = max((numbers[key][place].slack for (kind, place), _ in order if kind == "figure" for key in series), default=0)
    lines_in_order = [(key[1], [fact.value for fact in numbers[key]]) for key in series]
    rank(lines_in_order, order)
    ranked = [(0, key) for key, _ in lines_in_order]
    wanted = ranked[question.offset : question.offset + question.limit]
    if question.step and not question.fill and not chosen and not question.groups:
        wanted = []  # no time bucket has anything
    if slack == 0 and not unsure:
        expect("series", sorted(chosen, key=repr), sorted(wanted, key=repr))
        ranks = {key: rank for rank, key in enumerate(ranked)}
    else:
        if not unsure:
            expect("number of series", len(chosen), len(wanted))
        check_best(question, order[0], chosen, numbers)
        # With what was said, the order is right.
        said = [] if question.step else [(key, [row.get(f.text) for f in question.figures]) for _, key, row in lines]
        rank(said, order)
        ranks = {(0, key): place for place, (key, _) in enumerate(said)} or dict.fromkeys(chosen, 0)
    backwards = any(kind == "time" and descending for (kind, _), descending in order)
    places = [((-slot if backwards else slot), ranks[0, key]) for slot, key, _ in lines]
    expect("order of lines", places, sorted(places))
    return chosen


def check_best(question, first, chosen, numbers):
    """Where figures are estimates, no series is in the answer that surely is not among the best."""
    (kind, place), descending = first
    if kind != "figure":
        return
    sign = -1 if descending else 1
    best = sorted(sign * fact.value + fact.slack for facts in numbers.values() for fact in [facts[place]] if fact.value is not None)
    for key in chosen:
        fact = numbers[key][place]
        if fact.value is not None:
            surely_before = bisect.bisect_left(best, sign * fact.value - fact.slack)
            if surely_before > question.offset + question.limit - 1:
                raise Different(f"{key}: {surely_before} series come before it")


def check_figures(question, answer, lines, chosen, truth, back):
    by_slot = question.step is not None
    ending = " earlier" if back else ""
    facts = {figure.text: truth.facts(figure, by_slot, back) for figure in question.figures}
    if not back:
        expect_lines(question, lines, chosen, truth, facts)
    for figure in question.figures:
        column = figure.text + ending
        if column not in answer["columns"]:
            raise Different(f"no column {column!r} in {answer['columns']}")
        if figure.kind == "histogram":
            edges = sorted({(b["low"], b["high"]) for _, _, row in lines for b in row[column]})
            counted = truth.histogram(figure, edges, by_slot, back)
            for slot, key, row in lines:
                said = {(b["low"], b["high"]): b["count"] for b in row[column]}
                expect(f"{column} of {key} at {slot}", said, counted.get((slot, key), {}))
            continue
        for slot, key, row in lines:
            near(f"{column} of {key} at {slot}", row[column], total(figure, facts[figure.text], (slot, key)))


def expect_lines(question, lines, chosen, truth, facts):
    """There is a line for each time bucket in which a chosen series has something, or for each one."""
    if not question.step:
        return
    wanted = {key for key in chosen}
    if question.fill:
        there = {(slot, key) for slot in truth.slots() for _, key in wanted}
    else:
        there = {(slot, key) for slot, key in truth.groups(True) if (0, key) in wanted}
        for figure in question.figures:
            if figure.kind == "concurrency":
                there |= {(slot, key) for (slot, key), fact in facts[figure.text].items() if (0, key) in wanted and fact.value > fact.slack}
    said = {(slot, key) for slot, key, _ in lines}
    expect("lines that are missing", sorted(there - said, key=repr)[:5], [])
    # What is in flight for less than rounding may show.
    if not any(figure.kind == "concurrency" for figure in question.figures):
        expect("lines that should not be there", sorted(said - there, key=repr)[:5], [])


def check_raw(question, answer, truth, tools):
    rows = truth.raw()
    # The newest come first where the fields do not decide.
    order = [((lambda row, place=place: row[1][place]), descending) for (_, place), descending, _ in question.order]
    tools.put_in_order(rows, order)
    wanted = rows[question.offset : question.offset + question.limit]
    said = [(nanos(row["time"]), tuple(tools.said_value(row[text]) for text, _ in question.fields)) for row in answer["rows"]]
    expect("number of rows", len(said), len(wanted))
    for n, (a, b) in enumerate(zip(said, wanted)):
        expect(f"row {n}", a, b)
    expect("has_more", answer["has_more"], len(rows) > question.offset + question.limit)


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
            check(question, answer, truth.Truth(connection, asker.known[wide.WEIGHT].value, question), truth)
            passed += 1
            matched += answer["rows_matched"] > 0
            if args.verbose:
                print(f"{number}: {answered - asked:.2f} s and {time.monotonic() - answered:.2f} s", flush=True)
        except Different as difference:
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
