"""What a question's answer is, by DuckDB: one statement of SQL for each figure, and how far an answer may be from it."""

import collections

import pyarrow

import wide
from questions import condition_sql

# What DuckDB calls a row's weight: what is no sensible weight counts as one event.
WEIGHT = "CASE WHEN {0} > 0 AND isfinite({0}) THEN {0} ELSE 1.0 END"
RELATIVE = {"percentile": 0.01, "count_distinct": 0.02}
# Distinct values are counted exactly up to here.
EXACT_DISTINCT = 16_384
ROUNDING = 1e-9

# A figure: its value (None: there is none), and by how much an answer may differ.
Fact = collections.namedtuple("Fact", "value slack")


class Truth:
    def __init__(self, connection, weight, question):
        self.connection, self.question = connection, question
        self.weight = WEIGHT.format(weight.number())
        self.step = question.step
        # Tables that are there.
        self.made = set()
        self.is_chosen = False
        # Normalised keys, by type.
        self.keys = []
        for place, (_, value) in enumerate(question.groups):
            value = value.normal()
            self.keys += [(f"k{place}{letter}", getattr(value, letter)) for letter in "sifb"]

    def run(self, sql):
        return self.connection.execute(sql).fetchall()

    def table(self, back=0):
        """Makes a table of the rows that match, once, and gives its name: with when a row began, put over the window asked for
        if that is an earlier one (t), its weight (w), keys, and what figures look at (x0, d0 …). Where spans in flight are asked
        for, it has those of the hour before, too; the others are marked as `inside`."""
        name = f"m{back}"
        if name in self.made:
            return self.narrowed(name)
        q = self.question
        begin, end = q.begin - back, q.end - back
        where = condition_sql(q.condition, (begin, end)) if q.condition else "true"
        source = "events"
        for place, (_, _, value) in enumerate(q.calculated):
            columns = [f"{getattr(value, letter)} AS made{place}_{letter}" for letter in value.letters()]
            source = f"(SELECT *, {', '.join(columns)} FROM {source})" if columns else source
        columns = [f"{sql} AS {key}" for key, sql in self.keys]
        for place, figure in enumerate(q.figures):
            if figure.kind == "count_distinct":
                columns.append(f"{figure.value.word()} AS d{place}")
            elif figure.value:
                columns.append(f"{figure.value.number()} AS x{place}")
        for place, (_, value) in enumerate(q.fields):
            columns += [f"{getattr(value.normal(), letter)} AS f{place}{letter}" for letter in "sifb"]
        before = wide.HOUR if any(figure.kind == "concurrency" for figure in q.figures) else 0
        self.connection.execute(f"""CREATE OR REPLACE TEMP TABLE {name} AS
            WITH e AS NOT MATERIALIZED (SELECT * FROM {source})
            SELECT {', '.join([f'time + {back} AS t', f'time >= {begin} AS inside', 'duration', f'{self.weight} AS w', *columns])}
            FROM e WHERE time >= {begin - before} AND time < {end} AND {where}""")
        self.made.add(name)
        return self.narrowed(name)

    def choose(self, keys):
        """From now on only the series with these keys are looked at."""
        arrow = {"s": pyarrow.string(), "i": pyarrow.int64(), "f": pyarrow.float64(), "b": pyarrow.bool_()}
        columns = {}
        for place in range(len(self.question.groups)):
            for letter in "sifb":
                values = [key[place][1] if key[place] and key[place][0] == letter else None for key in keys]
                columns[f"k{place}{letter}"] = pyarrow.array(values, arrow[letter])
        if columns:
            chosen = pyarrow.table(columns)
            self.connection.register("given", chosen)
            self.connection.execute("CREATE OR REPLACE TEMP TABLE chosen AS SELECT * FROM given")
            self.connection.unregister("given")
            self.is_chosen = True

    def narrowed(self, name):
        """The table without what is not chosen."""
        narrow = f"{name}_chosen"
        if self.is_chosen and narrow not in self.made:
            same = " AND ".join(f"m.{key} IS NOT DISTINCT FROM c.{key}" for key, _ in self.keys)
            sql = f"CREATE OR REPLACE TEMP TABLE {narrow} AS SELECT m.* FROM {name} m SEMI JOIN chosen c ON {same}"
            self.connection.execute(sql)
            self.made.add(narrow)
        return narrow if self.is_chosen else name

    def group(self, by_slot):
        names = [name for name, _ in self.keys]
        return ([f"t // {self.step}"] if by_slot else ["0"]) + names

    def facts(self, figure, by_slot, back=0):
        """By slot and key, where there is one."""
        group = self.group(by_slot)
        said = ", ".join(f"{sql} AS g{n}" for n, sql in enumerate(group))
        names = ", ".join(f"g{n}" for n in range(len(group)))
        place = self.question.figures.index(figure)
        x = f"x{place}"
        of = f"FROM {self.table(back)} WHERE inside"
        match figure.kind:
            case "concurrency":
                return self.concurrency(by_slot, back)
            case "histogram":
                return {}
            case "percentile":
                # The smallest value at or below which the share of the weight lies.
                sql = f"""SELECT {names}, min(x), 0.0 FROM (
                    SELECT {names}, x, sum(w) OVER (PARTITION BY {names} ORDER BY x RANGE UNBOUNDED PRECEDING) AS below,
                    sum(w) OVER (PARTITION BY {names}) AS total FROM (SELECT {said}, {x} AS x, w {of} AND {x} IS NOT NULL))
                    WHERE below >= {figure.share} * total * (1 - 1e-12) GROUP BY {names}"""
            case kind:
                value, scale = {
                    "count": ("sum(w)", "0.0"),
                    "rate": ("sum(w)", "sum(w)"),
                    "sum": (f"sum({x} * w)", f"sum(abs({x} * w))"),
                    "rate_sum": (f"sum({x} * w)", f"sum(abs({x} * w))"),
                    "avg": (f"sum({x} * w) / sum(w) FILTER ({x} IS NOT NULL)",
                            f"sum(abs({x} * w)) / sum(w) FILTER ({x} IS NOT NULL)"),
                    "min": (f"min({x})", "0.0"),
                    "max": (f"max({x})", "0.0"),
                    "count_distinct": (f"count(DISTINCT d{place})", "0.0"),
                }[kind]
                sql = f"SELECT {said}, {value}, {scale} {of} GROUP BY ALL"
        facts = {}
        for *key, value, scale in self.run(sql):
            slot, key = key[0], compact(key[1:])
            if value is None:
                continue
            if figure.kind in ("rate", "rate_sum"):
                seconds = self.seconds(slot, by_slot)
                value, scale = value / seconds, scale / seconds
            facts[slot, key] = self.fact(figure, value, scale)
        return facts

    def fact(self, figure, value, scale):
        slack = ROUNDING * (scale or 0.0)
        if figure.kind == "percentile" or (figure.kind == "count_distinct" and value > EXACT_DISTINCT):
            slack = RELATIVE[figure.kind] * abs(value)
        return Fact(float(value), slack)

    def bounds(self, slot, by_slot):
        q = self.question
        if not by_slot:
            return q.begin, q.end
        return max(q.begin, slot * self.step), min(q.end, (slot + 1) * self.step)

    def seconds(self, slot, by_slot):
        begin, end = self.bounds(slot, by_slot)
        return (end - begin) / wide.SECOND

    def slots(self):
        return range(self.question.begin // self.step, (self.question.end - 1) // self.step + 1)

    def concurrency(self, by_slot, back):
        slots = self.slots() if by_slot else [0]
        self.connection.execute("CREATE OR REPLACE TEMP TABLE slots (slot BIGINT, low BIGINT, high BIGINT)")
        self.connection.executemany("INSERT INTO slots VALUES (?, ?, ?)", [(n, *self.bounds(n, by_slot)) for n in slots])
        names = [name for name, _ in self.keys]
        keys = "".join(f", {name}" for name in names)
        sql = f"""SELECT slot{keys}, sum(w * (least(t + duration, high) - greatest(t, low))) / any_value(high - low)
            FROM {self.table(back)} JOIN slots ON t < high AND t + duration > low WHERE duration > 0 GROUP BY slot{keys}"""
        found = self.run(sql)
        # Sums of what fills many buckets are made by adding and taking away.
        top = max((row[-1] for row in found), default=0.0)
        return {(slot, compact(key)): Fact(value, ROUNDING * (value + top)) for slot, *key, value in found}

    def matched(self):
        return self.run(f"SELECT count(*) FROM {self.table()} WHERE inside")[0][0]

    def groups(self, by_slot):
        """Slots and keys that have events."""
        group = self.group(by_slot)
        found = self.run(f"SELECT DISTINCT {', '.join(group)} FROM {self.table()} WHERE inside")
        return {(key[0], compact(key[1:])) for key in found}

    def histogram(self, figure, edges, by_slot, back=0):
        """Events in each of some buckets, by slot and key, and how many numbers there are in all: `(low, high)` to count."""
        self.connection.execute("CREATE OR REPLACE TEMP TABLE edges (low DOUBLE, high DOUBLE)")
        if edges:
            self.connection.executemany("INSERT INTO edges VALUES (?, ?)", [list(edge) for edge in edges])
        group = self.group(by_slot)
        said = ", ".join(f"{sql} AS g{n}" for n, sql in enumerate(group))
        names = ", ".join(f"g{n}" for n in range(len(group)))
        inside = """(high > 0 AND x >= low AND x < high) OR (low < 0 AND x > low AND x <= high) OR (low = 0 AND high = 0 AND x = 0)"""
        x = f"x{self.question.figures.index(figure)}"
        sql = f"""WITH c AS (SELECT {said}, {x} AS x, sum(w) AS w FROM {self.table(back)} WHERE inside AND {x} IS NOT NULL GROUP BY ALL)
            SELECT {names}, low, high, sum(w) FROM c LEFT JOIN edges ON {inside} GROUP BY ALL"""
        found = collections.defaultdict(dict)
        for *key, low, high, count in self.run(sql):
            found[key[0], compact(key[1:])][low, high] = count
        return found

    def raw(self):
        """Time and values of all rows that match, newest first."""
        columns = [f"f{place}{letter}" for place in range(len(self.question.fields)) for letter in "sifb"]
        found = self.run(f"SELECT t, {', '.join(columns)} FROM {self.table()} WHERE inside ORDER BY t DESC")
        return [(row[0], compact(row[1:])) for row in found]


def compact(columns):
    """Four columns by type to one value, with its letter."""
    values = []
    for place in range(0, len(columns), 4):
        found = [(letter, v) for letter, v in zip("sifb", columns[place : place + 4]) if v is not None]
        values.append(found[0] if found else None)
    return tuple(values)


def said_value(value):
    """A value of JSON as `compact` gives it."""
    match value:
        case None:
            return None
        case bool():
            return ("b", value)
        case str():
            return ("s", value)
        case float() if value != int(value) or not -(2.0**63) <= value < 2.0**63:
            return ("f", value)
    return ("i", int(value))


RANK = {"i": 0, "f": 0, "s": 1, "b": 2}


def put_in_order(lines, order):
    """Sorts by (value of a line, descending), the first of most weight. Numbers come before text and text before truth values;
    what is absent comes last in either direction; equal lines keep their order."""
    for value, descending in reversed(order):

        def place(line):
            found = value(line)
            if found is None:
                return (not descending,)
            return (descending, RANK[found[0]], found[1]) if isinstance(found, tuple) else (descending, found)

        lines.sort(key=place, reverse=descending)


def rank(series, order):
    """Sorts series, which are (keys, numbers), by (what of, descending); those that are equal in all of it by their keys."""

    def value(kind, place):
        return lambda line: line[0][place] if kind == "group" else line[1][place]

    wanted = [(value(*key), descending) for key, descending in order if key[0] != "time"]
    n_keys = len(series[0][0]) if series else 0
    put_in_order(series, wanted + [(value("group", place), False) for place in range(n_keys)])
