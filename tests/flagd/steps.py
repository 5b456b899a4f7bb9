"""Carries plans out with the Python providers: flagd's (in its two resolvers) and the one for OFREP.

One JSON line in for each plan, `{"plan", "target"}`, and one out, `{"failed": null | [step, why]}`. Before the answer
there may be questions, `{"ask": "lose" | "modify", ...}`: who reads them does it to the daemon and answers with a line.
js/steps.mjs is the same for Node. Runs in the virtual environment; what the providers log goes to standard error.
"""

import json
import logging
import sys
import threading
import time

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import CacheType, ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.provider import ProviderStatus

try:
    from openfeature.contrib.provider.ofrep import OFREPProvider
except ImportError:  # the environment of the older provider has none
    OFREPProvider = None

# How long an event may take if the step does not say.
PATIENCE_SECS = 20.0
# The first reconnect comes well within the shortest outage, 1 s: only one that fails makes the provider stale. An outage of
# 3 s is longer than the time of grace.
WAITS = {"deadline_ms": 2000, "stream_deadline_ms": 0, "retry_backoff_ms": 400, "retry_backoff_max_ms": 400,
         "retry_grace_period": 2}
# The older provider asks three times whatever the error; the last answer comes after up to 3.6 s.
THREE_TIMES = {"deadline_ms": 6000}
EVENTS = {
    "ready": ProviderEvent.PROVIDER_READY,
    "error": ProviderEvent.PROVIDER_ERROR,
    "stale": ProviderEvent.PROVIDER_STALE,
    "change": ProviderEvent.PROVIDER_CONFIGURATION_CHANGED,
}


class Failed(Exception):
    pass


def expect(what, seen, wanted):
    """Equal, and a boolean is no number."""
    if seen != wanted or isinstance(seen, bool) != isinstance(wanted, bool):
        raise Failed(f"{what} is {seen!r}, not {wanted!r}")


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def ask(question):
    say(question)
    if not sys.stdin.readline():
        sys.exit("nobody answers")


def flagd_provider(target, options):
    named = {"cache": ("cache", CacheType), "selector": ("selector", str)}
    given = {named[key][0]: named[key][1](value) for key, value in options.items()}
    if target["ca"]:
        given |= {"tls": True, "cert_path": target["ca"]}
    if target["repeats"]:
        given |= THREE_TIMES
    resolver = ResolverType(target["resolver"])
    return FlagdProvider(host="localhost", port=target["port"], resolver_type=resolver, **(WAITS | given))


def ofrep_provider(target, options):
    headers = {"Flagd-Selector": options["selector"]} if "selector" in options else {}
    return OFREPProvider(f"http://localhost:{target['port']}", headers_factory=lambda: headers)


class Scenario:
    providers = {}

    def __init__(self, target):
        self.target = target
        self.options = {}
        self.attributes = {}
        self.key = None
        self.events = []
        self.news = threading.Condition()

    def option(self, key, value):
        self.options[key] = value

    def provider(self, type):
        """One for each target and set of options; fresh ones serve one scenario only."""
        shared = json.dumps([self.target, self.options], sort_keys=True)
        domain = self.providers.get(shared)
        if domain is None or self.target["fresh"]:
            domain = f"domain-{len(self.providers)}"
            self.providers[shared] = domain
            make = ofrep_provider if self.target["resolver"] == "ofrep" else flagd_provider
            api.set_provider(make(self.target, self.options), domain)
        self.client = api.get_client(domain)
        end = time.monotonic() + 10
        while self.client.get_provider_status() != ProviderStatus.READY:
            if time.monotonic() > end:
                raise Failed(f"the provider is {self.client.get_provider_status()} after 10 s")
            time.sleep(0.02)

    def flag(self, type, key, default):
        self.wanted = (type.lower(), key, default)

    def context(self, path, value):
        inner = self.attributes
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value

    def targeting_key(self, value):
        self.key = value

    def handler(self, event):
        def note(details):
            with self.news:
                self.events.append((event, details))
                self.news.notify_all()

        self.client.add_handler(EVENTS[event], note)

    def fired(self, event, within_ms):
        """Takes the event, and drops what came before it: a later step waits for a later event."""

        def place():
            return next((n for n, (name, _) in enumerate(self.events) if name == event), None)

        patience = within_ms / 1000 if within_ms else PATIENCE_SECS
        with self.news:
            if not self.news.wait_for(lambda: place() is not None, patience):
                raise Failed(f"no event {event} in {patience:g} s, but {[name for name, _ in self.events]}")
            self.last = self.events[place()][1]
            del self.events[: place() + 1]

    def in_payload(self):
        if self.wanted[1] not in (self.last.flags_changed or []):
            raise Failed(f"the flags of the event are {self.last.flags_changed}")

    def evaluate(self):
        type, key, default = self.wanted
        details = getattr(self.client, f"get_{type}_details")
        self.details = details(key, default, EvaluationContext(self.key, self.attributes))

    def modify(self):
        with self.news:
            self.events = [event for event in self.events if event[0] != "change"]
        ask({"ask": "modify"})

    def lose(self, seconds):
        ask({"ask": "lose", "seconds": seconds})

    def value(self, value):
        self.compare("the value", self.details.value, value)

    def reason(self, reason):
        self.compare("the reason", getattr(self.details.reason, "value", self.details.reason), reason)

    def variant(self, variant):
        self.compare("the variant", self.details.variant, variant)

    def error_code(self, code):
        self.compare("the error code", self.details.error_code and self.details.error_code.value, code)

    def metadata(self, values):
        for key, value in values.items():
            self.compare(f"metadata.{key}", self.details.flag_metadata.get(key), value)

    def no_metadata(self):
        self.compare("the metadata", dict(self.details.flag_metadata), {})

    def status(self, status):
        expect("the status", self.client.get_provider_status().name, status)

    def compare(self, what, seen, wanted):
        try:
            expect(what, seen, wanted)
        except Failed as failed:
            because = f" (the provider says: {self.details.error_message})" if self.details.error_message else ""
            raise Failed(f"{failed}{because}") from None


def carry_out(plan, target):
    scenario = Scenario(target)
    for n, step in enumerate(plan):
        arguments = dict(step)
        try:
            getattr(scenario, arguments.pop("do"))(**arguments)
        except Exception as error:  # also the SDK's own
            return [n, str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"]
    return None


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    for line in iter(sys.stdin.readline, ""):
        say({"failed": carry_out(**json.loads(line))})
