"""Our own dialect in process: what the stock Python and Node providers make of the document that `sync` gives them is what the
server answers, for random flags, segments and contexts.

    agreement.py --bin SEAWORTHY --js FOLDER [--seed N]

Runs in the virtual environment of run.py; FOLDER holds the npm packages. A provider hashes by the generation it speaks (Python 3,
Node 2), so each gets flags whose splits are pinned to it. Flags that flagd's JSON cannot say are not in the document: these
are counted, and more than half must be there. The last line is `N passed, M failed`.
"""

import argparse
import http.client
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider import ProviderStatus

HERE = Path(__file__).resolve().parent
FLAGS, CONTEXTS = 60, 40
DEFAULT = "the code default"


def condition(rng, depth):
    attribute = rng.choice(["plan", "n", "org.id", "targetingKey", "v"])
    kinds = 8 if depth > 2 else 12
    kind = rng.randrange(kinds)
    if kind == 0:
        return {"attr": attribute, "op": "in", "values": ["pro", "u1", 3], "negate": rng.random() < 0.5}
    if kind == 1:
        return {"attr": attribute, "op": rng.choice(["lt", "lte", "gt", "gte"]), "values": [3]}
    if kind == 2:
        return {"attr": attribute, "op": rng.choice(["starts_with", "ends_with", "contains"]), "values": ["p", "1"]}
    if kind == 3:
        return {"attr": attribute, "op": "exists", "negate": rng.random() < 0.5}
    if kind == 4:
        return {"attr": "v", "op": rng.choice(["semver_lt", "semver_gte", "semver_eq"]), "values": ["1.2.0"]}
    if kind == 5:
        return {"attr": "$now", "op": rng.choice(["before", "after"]), "values": ["2026-01-01T00:00:00Z"]}
    if kind == 6:
        return {"segment": "s"}
    if kind == 7:
        # Not `==`: engines differ over a number beside a text.
        return {"logic": {"===": [{"var": "plan"}, "pro"]}}
    if kind == 8:
        return {"not": condition(rng, depth + 1)}
    if kind == 9:
        return {"all": [condition(rng, depth + 1), condition(rng, depth + 1)]}
    if kind == 10:
        return {"any": [condition(rng, depth + 1), condition(rng, depth + 1)]}
    return {"flag": "parent", "variants": ["on"]}


def serve(rng, generation):
    kind = rng.randrange(5)
    if kind == 0:
        return "on"
    if kind == 1:
        return None
    if kind == 2:
        steps = [{"at": "2026-01-01T00:00:00Z", "share": 0.3}, {"at": "2099-01-01T00:00:00Z", "share": 0.7}]
        return {"ramp": {"from": "off", "to": "on", "bucketing": generation, "total": 100, "salt": "r", "steps": steps}}
    split = {"bucketing": generation, "weights": [["on", rng.randrange(10)], ["off", 1], ["third", 5]]}
    if rng.random() < 0.5:
        split["salt"] = "s"
    return {"split": split}


def flag(rng, generation, depth):
    rules = [{"when": condition(rng, depth), "serve": serve(rng, generation)} for _ in range(rng.randrange(4))]
    definition = {
        "variants": {"on": "1", "off": "0", "third": "3"}, "on": rng.random() < 0.9, "rules": rules,
        "off_variant": rng.choice(["off", None]), "fallthrough": serve(rng, generation),
    }
    if rng.random() < 0.5:
        definition["targets"] = [{"variant": "third", "subjects": ["u1", "u2"]}]
    return definition


def world(rng, generation):
    # A flag that needs nothing, and others that may need it.
    parent = flag(rng, generation, 9)
    parent["rules"] = [rule for rule in parent["rules"] if "parent" not in json.dumps(rule)]
    # What others need must say its salt: without one, generation 3 hashes the key of whatever flag the rule is written into.
    for served in [rule["serve"] for rule in parent["rules"]] + [parent["fallthrough"]]:
        if isinstance(served, dict) and "split" in served:
            served["split"].setdefault("salt", "p")
    flags = {"parent": parent} | {f"f{n}": flag(rng, generation, 0) for n in range(FLAGS)}
    for definition in list(flags.values())[1:]:
        if rng.random() < 0.3:
            definition["prerequisites"] = [{"flag": "parent", "variants": ["on", "third"]}]
    segment = {"include": ["u3"], "exclude": ["u4"], "when": {"attr": "plan", "op": "in", "values": ["pro"]}}
    return {"flags": flags, "segments": {"s": segment}}


def context(rng, n):
    values = ["pro", 3, "1.2.0", True, 2.5, "u1"]
    made = {name: rng.choice(values) for name in ("plan", "n", "v") if rng.random() < 0.7}
    if rng.random() < 0.5:
        made["org"] = {"id": rng.choice(values)}
    if n % 5 != 4:
        made["targetingKey"] = f"u{n}"
    return made


class Daemon:
    def __init__(self, binary, folder, document):
        path = folder / "flags.json"
        path.write_text(json.dumps(document))
        command = [str(binary), "flagd", "start", "--json", "-f", f"file:{path}", "-p", "0", "-m", "0", "-g", "0", "-r", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the daemon ended with {self.process.wait()}")
        self.addresses = json.loads(line)

    def port(self, name):
        return int(self.addresses[name].rsplit(":", 1)[1])

    def bulk(self, asked):
        connection = http.client.HTTPConnection("127.0.0.1", self.port("ofrep"), timeout=10)
        body = json.dumps({"context": asked})
        connection.request("POST", "/ofrep/v1/evaluate/flags", body, {"Content-Type": "application/json"})
        answers = json.loads(connection.getresponse().read())["flags"]
        connection.close()
        return {answer["key"]: answer.get("value", DEFAULT) for answer in answers}


def by_python(daemon, keys, contexts):
    provider = FlagdProvider(
        host="localhost", port=daemon.port("sync"), resolver_type=ResolverType.IN_PROCESS, deadline_ms=5000
    )
    api.set_provider(provider, "agreement")
    client = api.get_client("agreement")
    end = time.monotonic() + 10
    while client.get_provider_status() != ProviderStatus.READY:
        if time.monotonic() > end:
            sys.exit("the Python provider is not ready after 10 s")
        time.sleep(0.02)
    answers = []
    for asked in contexts:
        attributes = {name: value for name, value in asked.items() if name != "targetingKey"}
        evaluated = EvaluationContext(asked.get("targetingKey"), attributes)
        details = {key: client.get_string_details(key, DEFAULT, evaluated) for key in keys}
        answers.append({
            key: None if found.error_code and found.error_code.value == "FLAG_NOT_FOUND" else found.value
            for key, found in details.items()
        })
    api.shutdown()
    return answers


def by_node(folder):
    def ask(daemon, keys, contexts):
        asked = json.dumps({"port": daemon.port("sync"), "keys": keys, "contexts": contexts, "default": DEFAULT})
        done = subprocess.run(
            ["node", str(HERE / "js" / "agreement.mjs"), str(folder)], input=asked, stdout=subprocess.PIPE, text=True, check=True
        )
        return json.loads(done.stdout)

    return ask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path)
    parser.add_argument("--js", type=Path, help="without it only the Python provider is asked")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    # The provider logs each text that is no version; here they are meant.
    logging.disable(logging.CRITICAL)
    print(f"agreement, seed {args.seed}", flush=True)
    engines = [("python", "flagd-v3", by_python)] + ([("node", "flagd-v2", by_node(args.js.resolve()))] if args.js else [])
    passed = failed = 0
    for name, generation, ask in engines:
        rng = random.Random(f"{args.seed}{name}")
        document, contexts = world(rng, generation), [context(rng, n) for n in range(CONTEXTS)]
        keys = list(document["flags"])
        with tempfile.TemporaryDirectory(prefix="seaworthy-agreement-") as folder:
            daemon = Daemon(args.bin.resolve(), Path(folder), document)
            try:
                ours, theirs = [daemon.bulk(asked) for asked in contexts], ask(daemon, keys, contexts)
            finally:
                daemon.process.kill()
                daemon.process.wait()
        absent = {key for key in keys if theirs[0][key] is None}
        for key in keys:
            if key in absent:
                continue
            differing = [n for n in range(CONTEXTS) if ours[n][key] != theirs[n][key]]
            passed, failed = passed + (not differing), failed + bool(differing)
            for n in differing[:1]:
                print(f"FAILED {name} {key}: the server says {ours[n][key]!r}, in process it is {theirs[n][key]!r}")
                print(f"    context {json.dumps(contexts[n])}\n    flag {json.dumps(document['flags'][key])}")
        print(f"{name}: {len(keys) - len(absent)} of {len(keys)} flags in the document, {CONTEXTS} contexts", flush=True)
        if len(absent) * 2 > len(keys):
            failed += 1
            print(f"FAILED {name}: {len(absent)} of {len(keys)} flags are not in the document")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
