"""Random wide events: made, written as OTLP protobuf, and as columns for DuckDB.

Several services with attributes of their own, one attribute of several types, values that are missing, rare attributes, many
values, negative numbers, numbers beyond 2^53, text of all scripts and lengths, weights (some of them nonsense), traces with roots and
parents, of which some are missing, some long before their children; log records within traces.
"""

import dataclasses
import random
import struct

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

SERVICES = ["web", "api", "billing", "search", "edge", "café", "倉庫"]
NAMES = ["GET /play", "GET /cart", "POST /order", "render", "select", "charge", "lookup", "größe prüfen", "flush", "tick"]
KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"]
TEXTS = ["", "plain", "two words", "it's", 'a "quote"', "back\\slash", "naïve café", "Привет", "日本語テキスト", "🦀 crab", "line\nbreak",
         "tab\there", "UPPER lower", "100%", "under_score", "a,b;c", "x" * 2_000, "é" * 300]
BIG = [2**53, 2**53 + 1, 2**60 + 7, -(2**53) - 1, 2**63 - 1, -(2**63)]
# What it is called in a question, and what it may be called when it is sent.
WEIGHT = "meta.sample_rate"
WEIGHT_SENT = ["SampleRate", WEIGHT]
WEIGHTS = [2, 5, 10, 100, 2.5, 1, 0.5, 0, -3, "x", True]
RARE = 120


@dataclasses.dataclass
class Row:
    time: int
    # None for a log record.
    duration: int | None
    trace: bytes
    span: bytes
    parent: bytes
    content: "Content"


@dataclasses.dataclass(eq=False)
class Content:
    """What rows have in common."""

    # A log record has neither a kind nor a status.
    is_log: bool
    service: str
    name: str
    kind: int
    # None: the span has no status.
    error: bool | None
    attributes: dict

    def fields(self):
        """As a question sees it."""
        own = {"service.name": self.service, "name": self.name, **self.weight()}
        if self.is_log:
            return {**own, "meta.signal_type": "log", **self.own_attributes()}
        own |= {"meta.signal_type": "trace", "kind": KINDS[self.kind]}
        if self.error is not None:
            own["error"] = self.error
        return {**own, **self.own_attributes()}

    def weight(self):
        """What becomes of a weight, as docs/reference/intake.md has it."""
        for name in WEIGHT_SENT:
            if name in self.attributes:
                sent = self.attributes[name]
                if type(sent) in (int, float) and sent >= 1:
                    return {WEIGHT: float(sent)} if sent != 1 else {}
                return {"meta.dropped_attributes": 1} if name == WEIGHT else {name: sent}
        return {}

    def own_attributes(self):
        return {name: value for name, value in self.attributes.items() if name not in WEIGHT_SENT}


class Maker:
    """Rows of a seed. Times are unique."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.times = set()
        # Traces that later rows may join: trace, span, time.
        self.open = []
        # Contents so far. Most rows have one of these: making rows is what takes the time.
        self.contents = []

    def rows(self, count, begin, end, late=0.0):
        """So many rows that begin within the time; a share of them belongs to traces of before."""
        rows = []
        pick = self.random.random
        while len(rows) < count:
            if late and self.open and pick() < late:
                trace, parent, time = self.open[self.random.randrange(len(self.open))]
                rows.append(self.row(trace, parent, time + self.random.randrange(1, 20 * SECOND)))
            elif pick() < 0.12:
                self.trace(rows, self.random.randrange(begin, end))
            else:
                rows.append(self.row(b"", b"", self.random.randrange(begin, end)))
        return rows

    def trace(self, rows, time):
        random = self.random
        trace = random.randbytes(16)
        root = self.row(trace, b"", time)
        spans = [root]
        if random.random() < 0.9:
            rows.append(root)  # else the root is lost
        for _ in range(random.randrange(5)):
            # Some long after the root: within the hour in which related spans are looked for, or beyond.
            late = random.choice([30 * MINUTE, 80 * MINUTE]) if random.random() < 0.01 else random.randrange(SECOND)
            of = random.choice(spans)
            child = self.row(trace, of.span, min(of.time + late, time + 80 * MINUTE))
            spans.append(child)
            rows.append(child)
        if random.random() < 0.3:
            of = random.choice(spans)
            log = self.row(trace, b"", of.time + random.randrange(SECOND))
            log.span, log.duration = of.span, None
            log.content = dataclasses.replace(log.content, is_log=True)
            rows.append(log)
        if random.random() < 0.05:
            self.open.append((trace, random.choice(spans).span, time))

    def row(self, trace, parent, time):
        random = self.random
        while time in self.times:
            time += 1
        self.times.add(time)
        if self.contents and random.random() < 0.8:
            content = self.contents[int(random.random() * len(self.contents))]
        else:
            content = self.content()
            self.contents.append(content)
        length = int(random.lognormvariate(16, 2)) if random.random() < 0.98 else 0
        if random.random() < 0.001:
            length = random.randrange(90) * MINUTE
        return Row(time, length, trace, random.randbytes(8), parent, content)

    def content(self):
        random = self.random
        pick = random.random
        service = random.choice(SERVICES)
        a = {"region": ("eu", "us", "ap", "sa")[min(3, int(random.expovariate(1.2)))]}
        if pick() < 0.8:
            a["http.route"] = f"/{random.choice(('a', 'b', 'c'))}/{int(random.expovariate(0.3))}"
        if pick() < 0.7:
            status = random.choice((200, 200, 200, 204, 301, 404, 500, 503))
            # One attribute, whose type depends on the service, and within one on the row.
            a["http.status"] = str(status) if service == "billing" or (service == "edge" and pick() < 0.5) else status
        if pick() < 0.6:
            a["customer.id"] = f"c{int(random.paretovariate(0.25)) % 150_000}"
        if pick() < 0.4:
            a["session.number"] = random.randrange(90_000)
        if pick() < 0.7:
            amount = random.gauss(20, 60)
            a["amount"] = int(amount) if service in ("billing", "api") else round(amount, 2)
        if pick() < 0.5:
            a["latency.ms"] = random.lognormvariate(3, 1.5)
        if pick() < 0.5:
            a["cart.items"] = random.randrange(-3, 40)
        if pick() < 0.3:
            a["retries"] = {"search": pick() < 0.5, "api": f"{random.randrange(4)}"}.get(service, random.randrange(4))
        if pick() < 0.5:
            a["beta"] = pick() < 0.2
        if pick() < 0.3:
            a["message"] = random.choice(TEXTS)
        if pick() < 0.1:
            a["größe in cm"] = random.randrange(100)
        if pick() < 0.02:
            a["big"] = random.choice(BIG)
        if pick() < 0.03:
            a["mixed"] = random.choice((1, 1.0, "1", True, -0.0, 0, 2.5, "", False, 1e300, -7))
        if pick() < 0.15:
            a[random.choice(WEIGHT_SENT)] = random.choice(WEIGHTS)
        if pick() < 0.1:
            a[f"rare.{random.randrange(RARE)}"] = random.randrange(5) if pick() < 0.5 else f"r{random.randrange(5)}"
        error = random.choice((None, None, False, True))
        return Content(False, service, random.choice(NAMES), random.randrange(6), error, a)


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def message(field, body):
    """A field of wire type 2: bytes, text or a message."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def any_value(value):
    match value:
        case bool():
            return b"\x10" + varint(int(value))
        case int():
            return b"\x18" + varint(value & (2**64 - 1))
        case float():
            return b"\x21" + struct.pack("<d", value)
        case str():
            return message(1, value.encode())
    raise TypeError(f"no attribute: {value!r}")


class Encoder:
    """Rows to requests; remembers what a name and value look like, since most come again."""

    def __init__(self):
        self.known, self.contents = {}, {}

    def attribute(self, field, name, value):
        # 1, 1.0 and True are one key of a dictionary, 0.0 and -0.0 too.
        key = (field, name, type(value), repr(value) if isinstance(value, float) else value)
        found = self.known.get(key)
        if found is None:
            found = message(field, message(1, name.encode()) + message(2, any_value(value)))
            self.known[key] = found
        return found

    def content(self, content):
        """The fields of a record that are its content's."""
        found = self.contents.get(content)
        if found is None:
            field = 6 if content.is_log else 9
            parts = [self.attribute(field, name, value) for name, value in content.attributes.items()]
            if content.is_log:
                parts.append(message(12, content.name.encode()))
            else:
                parts += [message(5, content.name.encode()), b"\x30" + varint(content.kind)]
                if content.error is not None:
                    parts.append(message(15, b"\x18" + varint(2 if content.error else 1)))
            found = self.contents[content] = b"".join(parts)
        return found

    def span(self, row):
        times = struct.pack("<BQBQ", 0x39, row.time, 0x41, row.time + row.duration)
        ids = message(1, row.trace) + message(2, row.span) + message(4, row.parent)
        return message(2, ids + times + self.content(row.content))

    def log(self, row):
        ids = message(9, row.trace) + message(10, row.span)
        return message(2, struct.pack("<BQ", 0x09, row.time) + ids + self.content(row.content))

    def request(self, rows, make):
        by_service = {}
        for row in rows:
            by_service.setdefault(row.content.service, []).append(make(row))
        return b"".join(
            message(1, message(1, self.attribute(1, "service.name", service)) + message(2, b"".join(records)))
            for service, records in by_service.items()
        )

    def requests(self, rows):
        """Path and body of what tells these rows."""
        spans = [row for row in rows if row.duration is not None]
        logs = [row for row in rows if row.duration is None]
        if spans:
            yield "/v1/traces", self.request(spans, self.span)
        if logs:
            yield "/v1/logs", self.request(logs, self.log)


# Letter of a type in the names of DuckDB's columns.
TYPES = {str: ("s", "VARCHAR"), int: ("i", "BIGINT"), float: ("f", "DOUBLE"), bool: ("b", "BOOLEAN")}


class Schema:
    """Which attributes there are, of which types, and some values of each."""

    def __init__(self, rows):
        self.types, self.samples = {}, {}
        for content in dict.fromkeys(row.content for row in rows):
            for name, value in content.fields().items():
                self.types.setdefault(name, set()).add(type(value))
                samples = self.samples.setdefault(name, [])
                if len(samples) < 400:
                    samples.append(value)
        self.places = {name: place for place, name in enumerate(self.types)}

    def column(self, name, kind):
        return f"a{self.places[name]}_{TYPES[kind][0]}"


def load(connection, schema, rows):
    """Adds rows to the table `events` of a DuckDB."""
    import pyarrow

    def numbers(values):
        return pyarrow.array(values, pyarrow.int64())

    def ids(values):
        return pyarrow.array([value.hex() or None for value in values], pyarrow.string())

    table = {
        "time": numbers([row.time for row in rows]),
        "duration": numbers([row.duration for row in rows]),
        "trace": ids([row.trace for row in rows]),
        "span": ids([row.span for row in rows]),
        "parent": ids([row.parent for row in rows]),
    }
    arrow = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    contents = {content: place for place, content in enumerate(dict.fromkeys(row.content for row in rows))}
    places = numbers([contents[row.content] for row in rows])
    values = {(name, kind): [None] * len(contents) for name, kinds in schema.types.items() for kind in kinds}
    for content, place in contents.items():
        for name, value in content.fields().items():
            values[name, type(value)][place] = value
    for (name, kind), column in values.items():
        table[schema.column(name, kind)] = pyarrow.array(column, arrow[kind]).take(places)
    new_rows = pyarrow.table(table)
    connection.register("new_rows", new_rows)
    if connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'").fetchone()[0]:
        connection.execute("INSERT INTO events BY NAME SELECT * FROM new_rows")
    else:
        connection.execute("CREATE TABLE events AS SELECT * FROM new_rows")
    connection.unregister("new_rows")
