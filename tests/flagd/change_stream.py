"""The OFREP web provider, told of changes by the change stream alone: `seaworthy serve`, js/web.mjs as the page.

    PUT /api/v1/flags/{key} -> serve -> change stream -> provider -> bulk evaluation -> event to the page

run.py calls `check` and counts what it yields.
"""

import contextlib
import http.client
import json
import queue
import statistics
import subprocess
import threading
import time

FLAG = "banner"
CHANGES = 20
# What the provider promises to the page, measured from before the change is asked for.
WITHIN_SECS = 1.0
START_SECS = 20.0
# It comes back after 1 to 5 s, and again if the server is not up then.
COMEBACK_SECS = 20.0


class Wrong(Exception):
    pass


class Server:
    def __init__(self, binary, folder, port, env):
        self.command = [str(binary), "serve", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}", "--json"]
        self.folder, self.env, self.port, self.token = folder, env, port, None

    def start(self):
        with open(self.folder / "serve.log", "ab") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise Wrong(f"serve ended with {self.process.wait()}: {(self.folder / 'serve.log').read_text()[-500:]}")
        self.token = json.loads(line)["admin_token"] or self.token

    def call(self, method, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, json.dumps(body), {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise Wrong(f"{method} {path}: {answer.status} {text[:300]!r}")
            return json.loads(text)
        finally:
            connection.close()

    def put(self, value):
        """The value for everybody; before, the moment."""
        at = time.time()
        definition = {"state": "ENABLED", "variants": {"one": value}, "defaultVariant": "one"}
        # For everybody at once, which needs a reason.
        self.call("PUT", f"/api/v1/flags/{FLAG}?break_glass=true&reason=test", definition)
        return at

    def kill(self):
        self.process.kill()
        self.process.wait()


class Page:
    def __init__(self, script, packages, server, token, api_key, env):
        asked = {"base": f"http://127.0.0.1:{server.port}", "token": token, "flag": FLAG, "apiKey": api_key}
        with open(server.folder / "page.log", "ab") as log:
            self.process = subprocess.Popen(
                ["node", str(script), str(packages), json.dumps(asked)],
                env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )
        self.said = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.said.put(json.loads(line))
        self.said.put(None)

    def hears(self, event, value, within):
        """The message in which the page has this value; others before it are passed over."""
        end, others = time.monotonic() + within, []
        while True:
            try:
                message = self.said.get(timeout=max(0.001, end - time.monotonic()))
            except queue.Empty:
                raise Wrong(f"no {event} with {value!r} in {within:g} s, but {others}") from None
            if message is None:
                raise Wrong(f"the page ended with {self.process.wait()}")
            if message["event"] == event and message["value"] == value:
                return message
            others.append((message["event"], message["value"]))

    def end(self):
        self.process.kill()
        self.process.wait()


def check(binary, script, packages, folder, port, env):
    """Yields (what, None or what was wrong, a note)."""
    folder.mkdir()
    server = Server(binary, folder, port, env)
    with contextlib.ExitStack() as stack:
        try:
            server.start()
            stack.callback(server.kill)
            server.put("first")
            token = server.call("POST", "/api/v1/tokens", {"name": "page", "role": "evaluate"})["secret"]
            pages = [Page(script, packages, server, token, api_key, env) for api_key in (False, True)]
            for page in pages:
                stack.callback(page.end)
            for page in pages:
                page.hears("ready", "first", START_SECS)
        except (Wrong, OSError, ValueError) as error:
            yield "the provider is ready", str(error), ""
            return
        yield "the provider is ready, with a bearer token and with an API key", None, ""
        for what, step in [
            (f"{CHANGES} changes arrive within {WITHIN_SECS:g} s each, without polling", changes),
            ("a killed flag is the code default", killed),
            ("a change that was missed while the server was away", missed),
        ]:
            try:
                yield what, None, step(server, pages)
            except (Wrong, OSError) as error:
                yield what, str(error), ""


def changes(server, pages):
    # A page that has just come may ask once more, for what may have changed before it listened.
    time.sleep(1)
    took, before = [], None
    for n in range(CHANGES):
        at = server.put(f"value {n}")
        heard = [page.hears("change", f"value {n}", WITHIN_SECS) for page in pages]
        took += [message["at_ms"] / 1000 - at for message in heard]
        requests = [message["requests"] for message in heard]
        if before and any(now != then + 1 for now, then in zip(requests, before)):
            answers = [message["answers"] for message in heard]
            raise Wrong(f"not one request for change {n}: {before}, then {requests}, answered {answers}")
        before = requests
    if max(took) > WITHIN_SECS:
        raise Wrong(f"a change took {max(took):.3f} s")
    # Nothing changes now, and nobody asks: the next message counts at most one request more.
    time.sleep(3)
    server.put("after silence")
    for page, then in zip(pages, before):
        heard = page.hears("change", "after silence", WITHIN_SECS)
        if heard["requests"] != then + 1:
            raise Wrong(f"{heard['requests'] - then} requests for one change after 3 s of silence")
    return f"median {statistics.median(took) * 1000:.0f} ms, longest {max(took) * 1000:.0f} ms of {len(took)}"


def killed(server, pages):
    server.call("POST", f"/api/v1/flags/{FLAG}/kill", {"reason": "test"})
    for page in pages:
        page.hears("change", "code default", WITHIN_SECS)
    return ""


def missed(server, pages):
    server.kill()
    server.start()
    server.call("POST", f"/api/v1/flags/{FLAG}/revive?break_glass=true&reason=test", {})
    at = server.put("while away")
    took = [page.hears("change", "while away", COMEBACK_SECS)["at_ms"] / 1000 - at for page in pages]
    return f"after {max(took):.1f} s"
