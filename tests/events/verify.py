"""Whether an answer is the one that DuckDB gives (truth.py): exactly, or as near as docs/reference/query.md says."""

import bisect
import datetime

import wide
from truth import Fact, put_in_order, rank, said_value


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


def check(question, answer, truth):
    """Raises if the answer is wrong."""
    expect("incomplete", answer["incomplete"], [])
    expect("rows_matched", answer["rows_matched"], truth.matched())
    if question.fields:
        return check_raw(question, answer, truth)
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
    lines = read_lines(question, answer)
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


def read_lines(question, answer):
    """Lines of the answer: slot, key, cells by column."""
    lines = []
    for row in answer["rows"]:
        slot = nanos(row["time"]) // question.step if question.step else 0
        key = tuple(said_value(row[text]) for text, _ in question.groups)
        lines.append((slot, key, row))
    expect("lines of their own", len({(slot, key) for slot, key, _ in lines}), len(lines))
    return lines


def check_order(question, lines, series, unsure, totals):
    """The answer's series are the right ones in the right order. Returns them."""
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


def check_raw(question, answer, truth):
    rows = truth.raw()
    # The newest come first where the fields do not decide.
    order = [((lambda row, place=place: row[1][place]), descending) for (_, place), descending, _ in question.order]
    put_in_order(rows, order)
    wanted = rows[question.offset : question.offset + question.limit]
    said = [(nanos(row["time"]), tuple(said_value(row[text]) for text, _ in question.fields)) for row in answer["rows"]]
    expect("number of rows", len(said), len(wanted))
    for n, (a, b) in enumerate(zip(said, wanted)):
        expect(f"row {n}", a, b)
    expect("has_more", answer["has_more"], len(rows) > question.offset + question.limit)
