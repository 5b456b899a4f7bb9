"""Compiles the feature files of a folder to plans: one JSON array on standard output, sorted by feature and line.

    {"feature", "line", "name", "tags", "steps": [text], "plan": [instruction]}

A plan has one instruction for each step, in the same order; pickles of config.feature, about options of the client
and with steps of its own, have an empty one. The values in it are typed already, so that the two
programs that carry plans out (steps.py, js/steps.mjs) hold no step table. The line is the one of the example row: a
pickle has one address. A step that nothing here matches ends the program. Runs in the virtual environment.
"""

import json
import re
import sys
from pathlib import Path

from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler


TYPES = {
    "Boolean": lambda value: value.lower() == "true",
    "CacheType": str,
    "Float": float,
    "Integer": int,
    "Object": json.loads,
    # As it stands, also where the suite writes "\\u0301": its answers are for these six characters.
    "String": str,
    "StringList": lambda value: value.split(","),
}


def typed(kind, value):
    return TYPES[kind](value)


def metadata(_, table):
    return {"do": "metadata", "values": {row["key"]: typed(row["metadata_type"], row["value"]) for row in table}}


def fired(_, event, within=None):
    return {"do": "fired", "event": event, "within_ms": int(within) if within else None}


def flag(state, kind, key, default):
    state["kind"] = kind
    return {"do": "flag", "type": kind, "key": key, "default": typed(kind, default)}


# A step's text, and what makes its instruction from the state of the pickle so far and from the groups.
STEPS = [
    (r'an option "(.*?)" of type "(.*?)" with value "(.*)"',
     lambda _, key, kind, value: {"do": "option", "key": key, "value": typed(kind, value)}),
    (r"a (\w+) flagd provider", lambda _, kind: {"do": "provider", "type": kind}),
    (r'a (\w+)-flag with key "(.*)" and a default value "(.*)"', flag),
    (r'a context containing a key "(.*?)", with type "(.*?)" and with value "(.*)"',
     lambda _, key, kind, value: {"do": "context", "path": [key], "value": typed(kind, value)}),
    (r'a context containing a nested property with outer key "(.*?)" and inner key "(.*?)", with value "(.*)"',
     lambda _, outer, inner, value: {"do": "context", "path": [outer, inner], "value": value}),
    (r'a context containing a targeting key with value "(.*)"',
     lambda _, value: {"do": "targeting_key", "value": value}),
    (r"a (\w+) event handler", lambda _, event: {"do": "handler", "event": event}),
    (r"an? (\w+) event was fired", fired),
    (r"the (\w+) event handler should have been executed(?: within (\d+)ms)?", fired),
    (r"the flag should be part of the event payload", lambda _: {"do": "in_payload"}),
    (r"the flag was evaluated with details", lambda _: {"do": "evaluate"}),
    (r"the flag was modified", lambda _: {"do": "modify"}),
    (r"the connection is lost for (\d+)s", lambda _, seconds: {"do": "lose", "seconds": int(seconds)}),
    (r'the resolved details value should be "(.*)"',
     lambda state, value: {"do": "value", "value": typed(state["kind"], value)}),
    (r'the reason should be "(.*)"', lambda _, reason: {"do": "reason", "reason": reason}),
    (r'the variant should be "(.*)"', lambda _, variant: {"do": "variant", "variant": variant}),
    (r'the error-code should be "(.*)"', lambda _, code: {"do": "error_code", "code": code or None}),
    (r"the resolved metadata should contain", metadata),
    (r"the resolved metadata is empty", lambda _: {"do": "no_metadata"}),
    (r"the client should be in (\w+) state", lambda _, status: {"do": "status", "status": status.upper()}),
]


def instruction(step, state):
    for pattern, make in STEPS:
        if found := re.fullmatch(pattern, step["text"], re.DOTALL):
            rows = step.get("argument", {}).get("dataTable", {}).get("rows", [])
            cells = [[cell["value"] for cell in row["cells"]] for row in rows]
            table = [[dict(zip(cells[0], row)) for row in cells[1:]]] if cells else []
            return make(state, *(group for group in found.groups() if group is not None), *table)
    sys.exit(f"no instruction for the step: {step['text']}")


def plans(path):
    document = Parser().parse(path.read_text())
    document["uri"] = path.name
    for pickle in Compiler().compile(document):
        state = {}
        yield {
            "feature": path.stem,
            "line": pickle["location"]["line"],
            "name": pickle["name"],
            "tags": sorted({tag["name"] for tag in pickle["tags"]}),
            "steps": [step["text"] for step in pickle["steps"]],
            "plan": [instruction(step, state) for step in pickle["steps"] if path.stem != "config"],
        }


if __name__ == "__main__":
    found = [plan for path in Path(sys.argv[1]).glob("*.feature") for plan in plans(path)]
    json.dump(sorted(found, key=lambda plan: (plan["feature"], plan["line"])), sys.stdout)
