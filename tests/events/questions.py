"""Random questions: each part as our language writes it, and as SQL that means what docs/reference/query.md and filter.md say.

A value in SQL is four expressions, one for each type, of which at most one is not NULL: that is how values of several types
stand side by side in one attribute. A condition in SQL is true or false, never NULL.
"""

import dataclasses
import datetime

import wide

LETTERS = {str: "s", int: "i", float: "f", bool: "b"}
NULLS = {"s": "NULL::VARCHAR", "i": "NULL::BIGINT", "f": "NULL::DOUBLE", "b": "NULL::BOOLEAN"}
# What a whole number can hold; other numbers beyond it stay what they are.
WHOLE = "{0} = trunc({0}) AND {0} >= -9223372036854775808.0 AND {0} < 9223372036854775808.0"


def text_literal(text):
    return "'" + text.replace("'", "''") + "'"


def our_text(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def our_literal(value):
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return our_text(value)
    return repr(value)


def our_name(name):
    plain = all(c.isalnum() or c in "._-/$" for c in name) and not name[0].isdigit()
    return name if plain else f"`{name}`"


@dataclasses.dataclass(frozen=True)
class Value:
    """SQL by type."""

    s: str = NULLS["s"]
    i: str = NULLS["i"]
    f: str = NULLS["f"]
    b: str = NULLS["b"]

    def has(self, letter):
        return getattr(self, letter) != NULLS[letter]

    def letters(self):
        return [letter for letter in "sifb" if self.has(letter)]

    def number(self):
        """As a DOUBLE; NULL if it is none."""
        match self.has("i"), self.has("f"):
            case True, True:
                return f"coalesce(({self.i})::DOUBLE, {self.f})"
            case True, False:
                return f"({self.i})::DOUBLE"
            case False, True:
                return f"({self.f})"
        return NULLS["f"]

    def exists(self):
        parts = [f"({getattr(self, letter)}) IS NOT NULL" for letter in self.letters()]
        return "(" + " OR ".join(parts) + ")" if parts else "false"

    def normal(self):
        """Equal numbers are one value: the one that is whole is a whole number."""
        if not self.has("f"):
            return self
        whole = f"CASE WHEN {WHOLE.format(f'({self.f})')} THEN ({self.f})::BIGINT END"
        return Value(
            self.s, f"coalesce({self.i}, {whole})" if self.has("i") else whole,
            f"CASE WHEN NOT ({WHOLE.format(f'({self.f})')}) THEN ({self.f}) END", self.b,
        )

    def word(self):
        """One text for each different value."""
        value = self.normal()
        parts = [f"'{letter}' || ({getattr(value, letter)})::VARCHAR" for letter in value.letters()]
        return f"coalesce({', '.join(parts)})" if parts else NULLS["s"]


def literal(value):
    match value:
        case bool():
            return Value(b="true" if value else "false")
        case str():
            return Value(s=text_literal(value))
        case int():
            return Value(i=f"({value})::BIGINT" if value != -(2**63) else "(-9223372036854775807 - 1)::BIGINT")
    return Value(f=f"'{value!r}'::DOUBLE")


def compared(a, sign, b):
    """Whether two values compare so; false if one is not there. Text and numbers never equal each other."""
    parts = []
    for letter in "sb":
        if a.has(letter) and b.has(letter):
            parts.append(f"({getattr(a, letter)}) {sign} ({getattr(b, letter)})")
    if a.has("i") and b.has("i"):
        parts.append(f"({a.i}) {sign} ({b.i})")
    # Two whole numbers are compared above, exactly.
    for x, y in (("i", "f"), ("f", "i"), ("f", "f")):
        if a.has(x) and b.has(y):
            parts.append(f"({getattr(a, x)})::DOUBLE {sign} ({getattr(b, y)})::DOUBLE")
    return "(" + " OR ".join(f"coalesce({part}, false)" for part in parts) + ")" if parts else "false"


def different(a, b):
    return f"({a.exists()} AND {b.exists()} AND NOT {compared(a, '=', b)})"


@dataclasses.dataclass
class Test:
    """One comparison of a field. `prefix` is that of a related span."""

    prefix: str
    text: str
    sql: str


@dataclasses.dataclass
class Node:
    """`and`, `or` or `not` of conditions. `text` if it is written in another way."""

    word: str
    parts: list
    text: str = ""


def condition_text(node):
    if node.text:
        return node.text
    if node.word == "not":
        return f"not ({condition_text(node.parts[0])})"
    return f" {node.word} ".join(
        f"({condition_text(part)})" if isinstance(part, Node) else part.text for part in node.parts
    )


def relation(node):
    """The prefix that all conditions have, if none is negated."""
    if isinstance(node, Test):
        return node.prefix
    if node.word == "not":
        return ""
    first = relation(node.parts[0])
    return first if all(relation(part) == first for part in node.parts) else ""


def condition_sql(node, window):
    """`window` is the time asked for; related spans are looked for up to an hour beyond it."""
    if relation(node):
        return related(relation(node), node, window)
    if isinstance(node, Test):
        return node.sql
    if node.word == "not":
        return f"(NOT {condition_sql(node.parts[0], window)})"
    parts = [part for part in node.parts]
    done = []
    if node.word == "and":
        # Conditions with one prefix that stand in one `and` mean one span.
        for prefix in ("root.", "parent.", "any."):
            same = [part for part in parts if relation(part) == prefix]
            parts = [part for part in parts if relation(part) != prefix]
            if same:
                done.append(related(prefix, Node("and", same), window))
    done += [condition_sql(part, window) for part in parts]
    return "(" + f" {node.word} ".join(done) + ")"


def plain_sql(node):
    if isinstance(node, Test):
        return node.sql
    return "(" + f" {node.word} ".join(plain_sql(part) for part in node.parts) + ")"


def related(prefix, node, window):
    begin, end = window
    where = f"trace IS NOT NULL AND time >= {begin - wide.HOUR} AND time < {end + wide.HOUR} AND {plain_sql(node)}"
    match prefix:
        case "any.":
            which = f"SELECT trace FROM e WHERE {where}"
        case "root.":
            which = f"SELECT trace FROM e WHERE {where} AND parent IS NULL AND duration IS NOT NULL"
        case "parent.":
            which = f"SELECT (trace, span) FROM e WHERE {where} AND span IS NOT NULL AND duration IS NOT NULL"
            return f"coalesce(parent IS NOT NULL AND trace IS NOT NULL AND (trace, parent) IN ({which}), false)"
    return f"coalesce(trace IN ({which}), false)"


@dataclasses.dataclass
class Field:
    name: str
    value: Value
    # Some of its values, to compare with.
    samples: list


@dataclasses.dataclass
class Figure:
    """A calculation: as it is written, and what of."""

    text: str
    kind: str
    value: Value | None = None
    share: float = 0.0


@dataclasses.dataclass
class Question:
    begin: int
    end: int
    condition: Test | Node | None = None
    # Name, text, value.
    calculated: list = dataclasses.field(default_factory=list)
    # Text, value.
    groups: list = dataclasses.field(default_factory=list)
    figures: list = dataclasses.field(default_factory=list)
    # Figure, sign, number.
    having: list = dataclasses.field(default_factory=list)
    # What by (`time`, or the place of a group or figure), descending, as it is written.
    order: list = dataclasses.field(default_factory=list)
    limit: int = 100
    offset: int = 0
    step: int | None = None
    fill: bool = False
    back: int | None = None
    # Text, value: of raw rows.
    fields: list = dataclasses.field(default_factory=list)

    def body(self):
        body = {"from": stamp(self.begin), "to": stamp(self.end), "limit": self.limit, "timeout_s": 60}
        if self.condition:
            body["where"] = condition_text(self.condition)
        if self.calculated:
            body["calculated_fields"] = [{"name": name, "expression": text} for name, text, _ in self.calculated]
        for key, texts in (
            ("group_by", [text for text, _ in self.groups]),
            ("calculate", [figure.text for figure in self.figures]),
            ("having", [f"{figure.text} {sign} {number!r}" for figure, sign, number in self.having]),
            ("order", [text for _, _, text in self.order]),
            ("fields", [text for text, _ in self.fields]),
        ):
            if texts:
                body[key] = texts
        if self.offset:
            body["offset"] = self.offset
        if self.step:
            body["step_ms"] = self.step // 1_000_000
        if self.fill:
            body["fill"] = True
        if self.back:
            body["compare_to"] = f"{self.back // 1_000_000}ms"
        return body


def stamp(nanos):
    whole = datetime.datetime.fromtimestamp(nanos // wide.SECOND, datetime.UTC)
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + f".{nanos % wide.SECOND:09}Z"


PATTERNS = ["^c1", "[0-9]{2}$", "(?i)upper", "a.*b", "^$", "^(eu|us)$", "é", "x{5}", "^/[ab]/[0-9]$", "t+", "[^a-z ]"]
SIGNS = ["=", "!=", "<", "<=", ">", ">="]
WIDTHS = [5, 10, 7, 0.5, 2.5, 100]


class Asker:
    """Draws questions about the rows of a schema, in the time from `begin` to `end`."""

    def __init__(self, random, schema, begin, end):
        self.random, self.schema, self.begin, self.end = random, schema, begin, end
        self.known = {}
        for name, kinds in schema.types.items():
            value = Value(**{LETTERS[kind]: schema.column(name, kind) for kind in kinds})
            self.known[name] = Field(name, value, schema.samples[name])
        durations = [random.lognormvariate(2, 2) for _ in range(50)]
        self.known["duration_ms"] = Field("duration_ms", Value(f="(duration / 1e6)"), durations)
        self.known["trace.trace_id"] = Field("trace.trace_id", Value(s="trace"), ["0" * 32, "f" * 31])
        self.known["trace.parent_id"] = Field("trace.parent_id", Value(s="parent"), ["0" * 16])
        self.rare = [name for name in self.known if name.startswith("rare.")]
        # Names that are often asked for.
        self.main = [name for name in self.known if not name.startswith(("rare.", "trace."))]
        self.numbers = ["duration_ms", "amount", "latency.ms", "cart.items", "http.status", "session.number", "retries",
                        "mixed", "größe in cm"]
        self.small = ["service.name", "name", "region", "http.route", "http.status", "beta", "kind", "error", "retries",
                      "mixed", "cart.items", "message", "meta.sample_rate", "big", "meta.signal_type"]

    def field(self, fields=None):
        if fields is None:
            fields = self.rare if self.random.random() < 0.1 else self.main
        return self.known[self.random.choice(fields)]

    # Conditions.

    def test(self, prefix=""):
        random = self.random
        field = self.known["trace.parent_id"] if random.random() < 0.03 else self.field()
        if random.random() < 0.04:
            # Nobody has it.
            field = Field("no.such.field", Value(), [1, "x"])
        name = our_name(prefix + field.name)
        value = field.value
        if random.random() < 0.8:
            other = random.choice(field.samples)
        else:
            other = random.choice([0, 1, -1, 2.5, "x", "", True, False, 10**15, 200, "200"])
        texts = [v for v in field.samples if isinstance(v, str)]
        match random.randrange(12):
            case 0:
                return Test(prefix, f"{name} exists", value.exists())
            case 1:
                # Not outside of a related span's conditions: no such span has it.
                return Node("not", [Test(prefix, f"{name} exists", value.exists())], f"{name} not exists")
            case 2 | 3 if texts:
                return self.text_test(prefix, name, value, random.choice(texts))
            case 4 | 5:
                values = [random.choice(field.samples) for _ in range(random.randrange(1, 6))] + [other]
                listed = ", ".join(our_literal(v) for v in values)
                inside = "(" + " OR ".join(compared(value, "=", literal(v)) for v in values) + ")"
                if random.random() < 0.6:
                    return Test(prefix, f"{name} in ({listed})", inside)
                return Test(prefix, f"{name} not in ({listed})", f"({value.exists()} AND NOT {inside})")
            case 6 if not prefix:
                moment = random.randrange(self.begin, self.end)
                sign = random.choice(["<", ">=", ">", "<="])
                return Test("", f"time {sign} '{stamp(moment)}'", f"(time {sign} {moment})")
        sign = random.choice(SIGNS)
        sql = different(value, literal(other)) if sign == "!=" else compared(value, sign, literal(other))
        return Test(prefix, f"{name} {sign} {our_literal(other)}", sql)

    def text_test(self, prefix, name, value, sample):
        random = self.random
        cut = random.randrange(len(sample) + 1)
        part = sample[cut : cut + random.randrange(1, 6)]
        words = [("contains", "contains"), ("does-not-contain", "contains"), ("starts-with", "starts_with"),
                 ("ends-with", "ends_with"), ("matches", "")]
        word, function = random.choice(words)
        if word == "starts-with":
            part = sample[: random.randrange(4)]
        if word == "ends-with":
            part = sample[-random.randrange(1, 4) :]
        if word == "matches":
            part = random.choice(PATTERNS)
            within = f"coalesce(regexp_matches({value.s}, {text_literal(part)}), false)"
        else:
            within = f"coalesce({function}({value.s}, {text_literal(part)}), false)"
        sql = f"({value.exists()} AND NOT {within})" if word == "does-not-contain" else within
        return Test(prefix, f"{name} {word} {our_text(part)}", sql)

    def condition(self, depth=0):
        random = self.random
        roll = random.random()
        if roll < 0.25 and depth < 2:
            return Node("and", [self.condition(depth + 1) for _ in range(random.randrange(2, 4))])
        if roll < 0.45 and depth < 2:
            return Node("or", [self.condition(depth + 1) for _ in range(random.randrange(2, 4))])
        if roll < 0.55 and depth < 3:
            return Node("not", [self.condition(depth + 1)])
        if roll < 0.68:
            prefix = random.choice(["root.", "parent.", "any."])
            if random.random() < 0.5:
                return self.test(prefix)
            return Node(random.choice(["and", "or"]), [self.test(prefix) for _ in range(2)])
        return self.test()

    # Expressions: text and value.

    def number(self, depth=0):
        random = self.random
        roll = random.randrange(9 if depth < 2 else 3)
        if roll < 3:
            # A number on its own is a field's name.
            if depth and random.random() < 0.3:
                n = random.choice([0, 1, 2, 3, 7, 100, 0.5, 1.25])
                return our_literal(n), literal(n)
            field = self.field(self.numbers)
            return our_name(field.name), field.value
        text, value = self.number(depth + 1)
        if roll < 6:
            right_text, right = self.number(depth + 1)
            sign = random.choice(["+", "-", "*", "/", "%"])
            return f"({text} {sign} {right_text})", arithmetic(value, sign, right)
        if roll == 6:
            width = random.choice(WIDTHS)
            return f"bucket({text}, {width!r})", bucket(value, width)
        if roll == 7:
            name = random.choice(["floor", "ceil", "abs"])
            whole = f"abs(({value.i})::HUGEINT)" if name == "abs" else value.i
            if name == "abs" and value.has("i"):
                fits = f"({whole}) <= 9223372036854775807"
                lost = f"CASE WHEN NOT {fits} THEN ({whole})::DOUBLE END"
                other = f"coalesce({lost}, abs({value.f}))" if value.has("f") else lost
                return f"abs({text})", Value(i=f"CASE WHEN {fits} THEN ({whole})::BIGINT END", f=other)
            return f"{name}({text})", Value(i=whole, f=f"{name}({value.f})" if value.has("f") else NULLS["f"])
        x = value.number()
        return f"floor(log10({text}))", Value(f=f"floor(CASE WHEN {x} > 0 THEN log10({x}) END)")

    def text(self):
        random = self.random
        field = self.field(["service.name", "region", "http.route", "message", "retries", "name"])
        name, value = our_name(field.name), field.value
        match random.randrange(4):
            case 0:
                return f"upper({our_name('region')})", Value(s=f"upper({self.known['region'].value.s})")
            case 1:
                return f"lower({name})", Value(s=f"lower({value.s})")
            case 2:
                other = self.field(["region", "http.route", "beta", "cart.items"])
                mine, theirs = concatenable(value), concatenable(other.value)
                return f"concat({name}, ' ', {our_name(other.name)})", Value(s=f"({mine}) || ' ' || ({theirs})")
        return f"cast({name}, 'text')", Value(s=concatenable(value))

    def truth(self):
        random = self.random
        match random.randrange(5):
            case 0:
                field = self.field()
                return f"exists({our_name(field.name)})", Value(b=field.value.exists())
            case 1:
                function = random.choice(["contains", "starts_with", "ends_with"])
                part = random.choice(["a", "/b", "e", "é", "w"])
                field = self.field(["service.name", "http.route", "message"])
                sql = f"{function}({field.value.s}, {text_literal(part)})"
                return f"{function}({our_name(field.name)}, {our_text(part)})", Value(b=sql)
            case 2:
                (left, a), (right, b) = self.truth(), self.truth()
                word = random.choice(["and", "or"])
                sql = f"(coalesce({a.b}, false) {word} coalesce({b.b}, false))"
                return f"({left} {word} {right})", Value(b=sql)
            case 3:
                text, value = self.truth()
                return f"(not {text})", Value(b=f"(NOT coalesce({value.b}, false))")
        (left, a), (right, b) = self.number(1), self.number(2)
        sign = random.choice(SIGNS)
        holds = f"NOT {compared(a, '=', b)}" if sign == "!=" else compared(a, sign, b)
        there = f"({a.exists()} AND {b.exists()})"
        return f"({left} {sign} {right})", Value(b=f"CASE WHEN {there} THEN {holds} END")

    def expression(self):
        """Any kind."""
        random = self.random
        match random.randrange(8):
            case 0 | 1:
                return self.number()
            case 2:
                return self.text()
            case 3:
                return self.truth()
            case 4:
                (test, condition), (a_text, a), (b_text, b) = self.truth(), self.value(), self.value()
                return f"if({test}, {a_text}, {b_text})", chosen(condition.b, a, b)
            case 5:
                (test, condition), (a_text, a) = self.truth(), self.value()
                return f"if({test}, {a_text})", chosen(condition.b, a, Value())
            case 6:
                (a_text, a), (b_text, b) = self.value(), self.value()
                return f"coalesce({a_text}, {b_text})", chosen(a.exists(), a, b)
        field = self.field(["http.status", "retries", "beta", "cart.items"])
        target = random.choice(["int", "float", "bool"])
        return f"cast({our_name(field.name)}, '{target}')", cast(field.value, target)

    def value(self):
        field = self.field(self.small)
        return our_name(field.name), field.value

    # Whole questions.

    def figure(self):
        random = self.random
        kind = random.choice(["count", "count", "rate", "sum", "avg", "min", "max", "rate_sum", "percentile", "percentile",
                              "count_distinct", "count_distinct", "histogram", "concurrency"])
        if kind in ("count", "rate", "concurrency"):
            return Figure(kind, kind)
        if kind == "count_distinct":
            text, value = self.expression() if random.random() < 0.2 else self.any_field()
            return Figure(f"{kind}({text})", kind, value)
        text, value = self.number() if random.random() < 0.3 else self.number_field()
        if kind == "percentile":
            word, share = random.choice([("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p5", 0.05), ("p75", 0.75)])
            return Figure(f"{word}({text})", kind, value, share)
        return Figure(f"{kind}({text})", kind, value)

    def any_field(self):
        field = self.field()
        return our_name(field.name), field.value

    def number_field(self):
        field = self.field(self.numbers)
        return our_name(field.name), field.value

    def window(self):
        random = self.random
        if random.random() < 0.3:
            return self.begin, self.end
        begin = random.randrange(self.begin, self.end)
        end = min(self.end, begin + random.choice([wide.MINUTE, 10 * wide.MINUTE, wide.HOUR, 3 * wide.HOUR]))
        if random.random() < 0.5:
            begin, end = (t // wide.MINUTE * wide.MINUTE for t in (begin, end))
        return (begin, end) if begin < end else (self.begin, self.end)

    def question(self):
        random = self.random
        question = Question(*self.window())
        added = []
        for place in range(random.choice([0, 0, 0, 1, 2])):
            text, value = self.expression()
            name = f"made.{place}"
            question.calculated.append((name, text, value))
            added.append(name)
            columns = Value(**{letter: f"made{place}_{letter}" for letter in value.letters()})
            self.known[name] = Field(name, columns, [1, 10, 100.5, "eu", True])
            for names in (self.main, self.small, self.numbers):
                names += [name] * 6
        try:
            self.fill_in(question)
        finally:
            for name in added:
                del self.known[name]
                for names in (self.main, self.small, self.numbers):
                    names[:] = [n for n in names if n != name]
        return question

    def fill_in(self, question):
        random = self.random
        if random.random() < 0.75:
            question.condition = self.condition()
        if random.random() < 0.1:
            return self.raw(question)
        for _ in range(random.choice([0, 1, 1, 1, 2, 2, 3])):
            if random.random() < 0.12:
                text, value = self.any_field()
                if random.random() < 0.5:
                    text, value = "customer.id", self.known["customer.id"].value
            elif random.random() < 0.25:
                text, value = self.expression()
            else:
                text, value = self.value()
            if text not in [known for known, _ in question.groups]:
                question.groups.append((text, value))
        for _ in range(random.choice([1, 1, 2, 3])):
            figure = self.figure()
            if figure.text not in [known.text for known in question.figures]:
                question.figures.append(figure)
        length = question.end - question.begin
        if random.random() < 0.4:
            widths = [s * wide.SECOND for s in (1, 7, 60, 300, 3_600)] + [1_500_000_000]
            question.step = random.choice([w for w in widths if length // w <= 300] or [3_600 * wide.SECOND])
            question.fill = random.random() < 0.3
            if random.random() < 0.3:
                text, value = self.number_field()
                question.figures.append(Figure(f"heatmap({text})", "histogram", value))
        if random.random() < 0.2:
            question.back = random.choice([wide.MINUTE, 10 * wide.MINUTE + 30 * wide.SECOND, wide.HOUR, 2 * wide.HOUR])
        self.rank(question)

    def rank(self, question):
        random = self.random
        figures = [figure for figure in question.figures if figure.kind != "histogram"]
        firm = [figure for figure in figures if figure.kind in ("count", "sum", "avg", "min", "max")]
        if firm and random.random() < 0.25:
            for _ in range(random.choice([1, 1, 2])):
                number = random.choice([0, 1, 5, 10.5, 50, 200.25, -3])
                question.having.append((random.choice(firm), random.choice(SIGNS), number))
        if random.random() < 0.5:
            places = [(("group", n), text) for n, (text, _) in enumerate(question.groups)]
            places += [(("figure", n), f.text) for n, f in enumerate(question.figures) if f.kind != "histogram"]
            if question.step:
                places.append((("time", 0), "time"))
            random.shuffle(places)
            for key, text in places[: random.choice([1, 1, 2])]:
                match random.randrange(4):
                    case 0:
                        question.order.append((key, True, f"-{text}"))
                    case 1:
                        question.order.append((key, True, f"{text} desc"))
                    case 2:
                        question.order.append((key, False, f"{text} asc"))
                    case 3:
                        # Figures are largest first, fields smallest first, unless told.
                        question.order.append((key, key[0] == "figure", text))
        question.limit = random.choice([1, 3, 10, 100, 1_000])
        if random.random() < 0.15:
            question.offset = random.choice([1, 2, 10])

    def raw(self, question):
        random = self.random
        for _ in range(random.randrange(1, 5)):
            text, value = self.expression() if random.random() < 0.3 else self.any_field()
            if text not in [known for known, _ in question.fields]:
                question.fields.append((text, value))
        for _ in range(random.choice([0, 1, 2])):
            place = random.randrange(len(question.fields))
            text = question.fields[place][0]
            if random.random() < 0.7 and ("group", place) not in [key for key, _, _ in question.order]:
                descending = random.random() < 0.5
                question.order.append((("group", place), descending, f"{text} {'desc' if descending else 'asc'}"))
        question.limit = random.choice([1, 10, 200])
        question.offset = random.choice([0, 0, 3])


def concatenable(value):
    """As text: that of whole numbers and truth values is the same everywhere."""
    parts = [f"({getattr(value, letter)})::VARCHAR" for letter in value.letters()]
    return f"coalesce({', '.join(parts)})" if parts else NULLS["s"]


def chosen(test, a, b):
    test = f"coalesce({test}, false)"
    return Value(**{
        letter: f"CASE WHEN {test} THEN {getattr(a, letter)} ELSE {getattr(b, letter)} END"
        for letter in "sifb" if a.has(letter) or b.has(letter)
    })


def finite(sql):
    return f"CASE WHEN isfinite({sql}) THEN {sql} END"


def arithmetic(a, sign, b):
    x, y = a.number(), b.number()
    match sign:
        case "/":
            return Value(f=f"CASE WHEN {y} <> 0 THEN {finite(f'({x} / {y})')} END")
        case "%":
            other = f"CASE WHEN {y} <> 0 THEN {finite(f'({x} % {y})')} END"
            whole = f"CASE WHEN ({b.i}) <> 0 THEN (({a.i})::HUGEINT % ({b.i})::HUGEINT)::BIGINT END"
        case _:
            other = finite(f"({x} {sign} {y})")
            huge = f"(({a.i})::HUGEINT {sign} ({b.i})::HUGEINT)"
            whole = f"CASE WHEN {huge} BETWEEN -9223372036854775808 AND 9223372036854775807 THEN {huge}::BIGINT END"
    if not (a.has("i") and b.has("i")):
        return Value(f=other)
    # Whole numbers stay whole but where they would overflow.
    return Value(i=whole, f=f"CASE WHEN ({whole}) IS NULL THEN {other} END")


def bucket(value, width):
    other = finite(f"(floor({value.number()} / {float(width)!r}::DOUBLE) * {float(width)!r}::DOUBLE)")
    if isinstance(width, float) or not value.has("i"):
        return Value(f=other)
    n = f"({value.i})::HUGEINT"
    # As the remainder is never negative, the bucket is never above the number.
    low = f"({n} - (({n} % {width}) + {width}) % {width})"
    # `greatest` passes over what is NULL.
    whole = f"CASE WHEN ({value.i}) IS NOT NULL THEN greatest({low}, -9223372036854775808)::BIGINT END"
    return Value(i=whole, f=f"CASE WHEN ({value.i}) IS NULL THEN {other} END" if value.has("f") else NULLS["f"])


def cast(value, target):
    match target:
        case "int":
            parts = [f"try_cast(CASE WHEN regexp_full_match(trim({value.s}), '[+-]?[0-9]+') THEN trim({value.s}) END AS BIGINT)",
                     value.i, f"CASE WHEN abs({value.f}) < 9.2e18 THEN trunc({value.f})::BIGINT END", f"({value.b})::BIGINT"]
            return Value(i=f"coalesce({', '.join(parts)})")
        case "float":
            parts = [f"try_cast(CASE WHEN regexp_full_match(trim({value.s}), '[+-]?[0-9]+') THEN trim({value.s}) END AS DOUBLE)",
                     f"({value.i})::DOUBLE", value.f, f"({value.b})::BIGINT::DOUBLE"]
            return Value(f=f"coalesce({', '.join(parts)})")
    text = f"CASE WHEN trim({value.s}) IN ('true', '1') THEN true WHEN trim({value.s}) IN ('false', '0') THEN false END"
    return Value(b=f"coalesce({text}, ({value.i}) <> 0, ({value.f}) <> 0, {value.b})")
