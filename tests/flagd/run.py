#!/usr/bin/env python3
"""The flagd end-to-end suite (flagd-testbed), run against `seaworthy flagd start` through the stock providers.

    tests/flagd/run.py --bin target/release/seaworthy --venv DIR

It makes the virtual environments and the folder of npm packages in DIR if there are none. Needs Python and, for the
modes of the Node provider, node and npm; for the scenarios with TLS, openssl. The suite is not part of this repository:
--testbed says where it is, and without it only the change stream is tried (change_stream.py: a page's provider against
`seaworthy serve`). The last line is `N passed, M failed, K left out`; exit code
0 if nothing failed.

    gherkin -> pickles.py -> plans -> run.py -> steps.py, js/steps.mjs -> provider -> daemon
                                         |___________________________________________/
                                             starts, kills, starts again, edits the flags

A mode is a provider in one of its resolvers. The scenarios that only evaluate share one worker and the daemons they
need; one that loses its daemon or edits the flags has its own worker, daemon and folder, and runs beside the others.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import fnmatch
import http.client
import json
import os
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import change_stream

HERE = Path(__file__).resolve().parent
TESTBED = HERE.parents[1].parent / "shared" / "conformance" / "flagd-testbed"
# Below the ephemeral range: nobody gets one of these by chance.
PORTS = range(20_000, 32_000)
READY_SECS = 10.0
# Longer than the longest chain of waits for events in one scenario that passes.
SCENARIO_SECS = 90.0
# As in the suite's own launchpad.
SOURCES = ["flags/allFlags.json", "rawflags/selector-flags.json", "rawflags/selector-flag-combined-metadata.json"]
CONTEXT = {"injectedmetadata": "set"}
CONFIG_OF = {"stable": "default", "metadata": "metadata", "ssl": "ssl", "syncpayload": "sync-payload",
             "socket": "socket"}

NO_SOCKET = ("@unixsocket", "the provider has no option for a socket")
NO_DISABLED = ("disabled/*", "evaluation.v1 cannot say that there is no value: the provider gets FLAG_NOT_FOUND")


@dataclasses.dataclass(frozen=True)
class Mode:
    name: str
    client: str
    worker: str
    resolver: str
    # Of `fractional`: in rpc and by OFREP the daemon hashes, in process the provider does.
    generation: str
    # How the daemon gets its sources: "config" (a file), "uris" (-f) or "sources" (-s).
    style: str
    # What this provider cannot do, whatever the daemon does: a tag or a glob over feature/name, and the reason.
    gaps: tuple = ()
    # The one feature that is run, and what it shows beside another mode.
    only: tuple = ("*", "")
    # What the flags' metadata says about `fractional`.
    bucketing: str = ""


MODES = [
    Mode("python-rpc", "openfeature-provider-flagd 0.6.1, flagd.evaluation.v2", "python", "rpc", "v2", "config",
         (NO_SOCKET,)),
    Mode("python-rpc-v1", "openfeature-provider-flagd 0.2.7, flagd.evaluation.v1", "python-v1", "rpc", "v2", "uris",
         (NO_SOCKET, NO_DISABLED)),
    Mode("python-in-process", "openfeature-provider-flagd 0.6.1, flagd.sync.v1", "python", "in-process", "v3", "config",
         (NO_SOCKET,)),
    Mode("node-rpc", "@openfeature/flagd-provider 0.16.1, flagd.evaluation.v2", "node", "rpc", "v2", "uris",
         (("rpc-caching/Stale and Error stage", "the provider uses its cache only while it is connected"),)),
    Mode("node-in-process", "@openfeature/flagd-provider 0.16.1, flagd.sync.v1", "node", "in-process", "v2", "sources"),
    Mode("python-rpc-v3", "openfeature-provider-flagd 0.6.1, flagd.evaluation.v2", "python", "rpc", "v3", "config",
         only=("targeting", "as in python-rpc"), bucketing="flagd-v3"),
    Mode("python-ofrep", "openfeature-provider-ofrep 0.3.0", "python", "ofrep", "v2", "sources"),
    Mode("node-ofrep", "@openfeature/ofrep-provider 0.1.3", "node", "ofrep", "v2", "uris",
         tuple((pattern, "the provider takes an answer without a value for a broken one")
               for pattern in ("disabled/*", "evaluation/Resolves flag with no default variant correctly"))),
]
# Not of the suite: see change_stream.py.
STREAM = Mode("node-web", "@openfeature/ofrep-web-provider 0.4.3, OFREP's change stream", "node", "ofrep", "v2", "")


def reason_to_leave_out(pickle, mode, missing):
    tags = set(pickle["tags"])
    if mode.worker in missing:
        return missing[mode.worker]
    if not fnmatch.fnmatchcase(pickle["feature"], mode.only[0]):
        return mode.only[1]
    if pickle["feature"] == "config":
        return "about options of the client: no daemon takes part"
    if mode.resolver == "ofrep" and pickle["feature"] not in ("evaluation", "disabled", "targeting"):
        return "OFREP evaluates only"
    wanted = "@rpc" if mode.resolver == "ofrep" else f"@{mode.resolver}"
    if wanted not in tags:
        return f"not tagged {wanted}"
    if tags & {"@unavailable", "@forbidden"}:
        return "no daemon takes part"
    if "@targetURI" in tags:
        return "needs an Envoy in front of the daemon"
    if "@customCert" in tags and "openssl" in missing:
        return missing["openssl"]
    generations = {tag for tag in tags if re.fullmatch(r"@fractional-v\d+", tag)}
    if generations and f"@fractional-{mode.generation}" not in generations:
        return f"fractional of another generation than {mode.generation}"
    # The older provider's protocol has no answer without a value: the scenarios of its time are the deprecated ones.
    old = mode.worker == "python-v1"
    if ("@no-default-variant" if old else "@deprecated") in tags:
        return f"about no default variant in evaluation.{'v2' if old else 'v1'}"
    for pattern, reason in mode.gaps:
        if pattern in tags or fnmatch.fnmatchcase(f"{pickle['feature']}/{pickle['name']}", pattern):
            return reason
    return None


class Report:
    """Counts, and prints each failure as it comes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = collections.Counter()
        self.failed = collections.Counter()

    def add(self, mode, what, why):
        with self.lock:
            (self.failed if why else self.passed)[mode.name] += 1
            if why:
                print(f"FAILED {mode.name} {what}: {why}", flush=True)


class Ports:
    """Ports that stay ours while their daemon is away: each is held by a socket that does not listen. A daemon may listen
    beside it (SO_REUSEADDR on both), another run of this suite finds it taken."""

    def __init__(self):
        self.lock = threading.Lock()
        self.left = random.sample(PORTS, len(PORTS))
        self.held = []

    def take(self):
        with self.lock:
            while True:
                port = self.left.pop()
                try:
                    # Without the option at first: it shares with nobody.
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", port))
                    holder = socket.socket()
                    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    holder.bind(("127.0.0.1", port))
                except OSError:
                    continue
                self.held.append(holder)
                return port


class Daemon:
    """`seaworthy flagd start` in a folder of its own, with the flags of the suite. Keeps its ports when it comes back."""

    def __init__(self, binary, folder, config, mode, testbed, ports, certificates, env):
        self.folder, self.log, self.env = folder, folder / "daemon.log", env
        self.ports = {name: ports.take() for name in ("port", "management-port", "sync-port", "ofrep-port")}
        self.process, self.comeback, self.was_ready = None, None, False
        self.sockets = {"rpc": folder / "rpc.sock", "in-process": folder / "sync.sock"} if config == "socket" else {}
        self.ca = certificates / "ca.crt" if config == "ssl" else None
        (folder / "flags").mkdir(parents=True)
        shutil.copytree(testbed / "flags", folder / "rawflags")
        # As the launchpad merges them; what is there to be selected stays in files of its own.
        self.flags = {}
        for path in sorted((folder / "rawflags").glob("*.json")):
            if not path.name.startswith("selector-"):
                for key, value in json.loads(path.read_text()).items():
                    self.flags.setdefault(key, {}).update(value)
        if mode.bucketing:
            self.flags.setdefault("metadata", {})["bucketing"] = mode.bucketing
        self.write()
        self.command = [str(binary), "flagd", "start", *self.arguments(config, mode.style, certificates)]

    def arguments(self, config, style, certificates):
        short = {"port": "-p", "management-port": "-m", "sync-port": "-g", "ofrep-port": "-r"}
        for name, port in self.ports.items():
            yield from (short[name], str(port)) if style == "config" else (f"--{name}={port}",)
        if self.sockets:
            yield from ("-d", str(self.sockets["rpc"]), "--sync-socket-path", str(self.sockets["in-process"]))
        pair = [str(certificates / "server.crt"), str(certificates / "server.key")] if config == "ssl" else []
        if config == "sync-payload":
            style = "config"
        sources = [{"uri": uri, "provider": "file"} for uri in SOURCES]
        if style == "config":
            document = {"sources": sources, "context-value": CONTEXT}
            if pair:
                document |= {"server-cert-path": pair[0], "server-key-path": pair[1]}
            if config == "sync-payload":
                document["disable-sync-metadata"] = True
            path = self.folder / f"{config}.json"
            path.write_text(json.dumps(document, indent=1))
            yield from ("--config", str(path))
            return
        if style == "uris":
            for uri in SOURCES:
                yield from ("-f", f"file:{uri}")
        else:
            yield from ("-s", json.dumps(sources))
        for key, value in CONTEXT.items():
            yield from ("-X", f"{key}={value}") if style == "uris" else (f"--context-value={key}={value}",)
        if pair:
            names = ("-c", "-k") if style == "uris" else ("--server-cert-path", "--server-key-path")
            yield from (names[0], pair[0], names[1], pair[1])

    def write(self):
        """In place, as an editor may do it: the daemon can see half of it."""
        (self.folder / "flags" / "allFlags.json").write_text(json.dumps(self.flags, indent=2))

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + READY_SECS
        while self.readiness() != 200:
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {self.process.returncode}: {self.tail()}")
            if time.monotonic() > end:
                raise RuntimeError(f"the daemon is not ready after {READY_SECS:g} s: {self.tail()}")
            time.sleep(0.02)
        self.was_ready = True

    def readiness(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["management-port"], timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def tail(self):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    def lose(self, seconds):
        """Kills it; it comes back by itself."""
        self.process.kill()
        self.process.wait()
        self.comeback = threading.Timer(seconds, self.start)
        self.comeback.start()

    def modify(self):
        flag = self.flags["flags"]["changing-flag"]
        flag["defaultVariant"] = "bar" if flag["defaultVariant"] == "foo" else "foo"
        self.write()

    def end(self):
        """What was wrong with its end, if anything was."""
        if self.comeback:
            self.comeback.cancel()
            self.comeback.join()
        if self.process is None:
            return None
        if self.process.poll() is not None:
            return None if self.comeback else f"the daemon had ended with {self.process.returncode}: {self.tail()}"
        self.process.terminate()
        try:
            self.process.wait(5)
            return None
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "the daemon does not end within 5 s of SIGTERM"


class Worker:
    """A process of steps.py or js/steps.mjs."""

    def __init__(self, command, log, env):
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def carry_out(self, plan, target, daemon):
        """None, or the step's number (None if unknown) and what was wrong."""
        self.say({"plan": plan, "target": target})
        end = time.monotonic() + SCENARIO_SECS
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                self.end()
                return None, f"no answer in {SCENARIO_SECS:g} s"
            if not line:
                return None, f"the worker ended with {self.process.wait()}"
            message = json.loads(line)
            if "failed" in message:
                return message["failed"]
            if message["ask"] == "lose":
                daemon.lose(message["seconds"])
            else:
                daemon.modify()
            self.say({})

    def say(self, message):
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # its end is seen where it is read

    def ended(self):
        return self.process.poll() is not None

    def end(self):
        self.process.kill()
        self.process.wait()


class Suite:
    def __init__(self, args, work, packages, certificates, report):
        self.args, self.work, self.certificates, self.report = args, work, certificates, report
        self.packages = packages
        self.ports = Ports()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SEAWORTHY_", "FLAGD_", "OFREP_", "OTEL_"))}
        self.env |= {"XDG_CONFIG_HOME": str(work / "config"), "NO_PROXY": "*", "no_proxy": "*"}

    def tasks(self, selected):
        """Calls that run scenarios: one for all of a mode that only evaluate, one for each of the others."""
        shared, alone = [], []
        for mode, pickles in selected.items():
            several = []
            for pickle in pickles:
                if any(step["do"] in ("lose", "modify") for step in pickle["plan"]):
                    alone.append((self.run, mode, [pickle], self.work / f"{mode.name}-{pickle['feature']}-{pickle['line']}"))
                else:
                    several.append(pickle)
            if several:
                shared.append((self.run, mode, several, self.work / mode.name))
        return shared + alone

    def run(self, mode, pickles, folder):
        daemons, worker = {}, None
        folder.mkdir()
        try:
            for pickle in pickles:
                name = f"{pickle['feature']}.feature:{pickle['line']} {pickle['name']}"
                config = CONFIG_OF[next(step["type"] for step in pickle["plan"] if step["do"] == "provider")]
                try:
                    daemon = daemons.get(config) or self.daemon(mode, config, folder, daemons)
                    if not daemon.was_ready:
                        raise RuntimeError("the daemon did not start, see the first failure")
                    if worker is None or worker.ended():
                        worker = Worker(self.command(mode.worker), folder / "worker.log", self.env)
                    target = self.target(mode, daemon, fresh="@caching" in pickle["tags"])
                    # Where the daemon is away for a while, waiting for it would be the answer.
                    lasting = all(step["do"] != "lose" for step in pickle["plan"])
                    target["repeats"] = lasting and mode.worker == "python-v1"
                    failed = worker.carry_out(pickle["plan"], target, daemon)
                except Exception as error:  # whatever it was, it is one more failure
                    failed = None, f"{type(error).__name__}: {error}"
                if failed and failed[0] is not None:
                    failed = None, f"at «{pickle['steps'][failed[0]]}»: {failed[1]}"
                self.report.add(mode, name, failed and failed[1])
        finally:
            # The daemons first: their end is to be seen with streams open.
            for config, daemon in daemons.items():
                if why := daemon.end():
                    self.report.add(mode, f"{folder.name}, configuration {config}", why)
            if worker:
                worker.end()

    def daemon(self, mode, config, folder, daemons):
        daemons[config] = daemon = Daemon(
            self.args.bin, folder / config, config, mode, self.args.testbed, self.ports, self.certificates, self.env
        )
        daemon.start()
        return daemon

    def command(self, worker):
        if worker == "node":
            return ["node", str(HERE / "js" / "steps.mjs"), str(self.packages["node"])]
        return [str(self.packages[worker]), str(HERE / "steps.py")]

    def target(self, mode, daemon, fresh):
        port = daemon.ports[{"rpc": "port", "in-process": "sync-port", "ofrep": "ofrep-port"}[mode.resolver]]
        path = daemon.sockets.get(mode.resolver)
        return {"resolver": mode.resolver, "port": port, "ca": daemon.ca and str(daemon.ca),
                "socket": path and str(path), "fresh": fresh}


def make_venv(folder, requirements):
    python = folder / "bin" / "python"
    wanted = requirements.read_text()
    stamp = folder / "requirements.installed"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making the virtual environment of {requirements.name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(requirements)], check=True
    )
    stamp.write_text(wanted)
    return python


def make_node_modules(folder):
    wanted = (HERE / "js" / "package.json").read_text()
    stamp = folder / "package.installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    print("installing the npm packages", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(wanted)
    quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(["npm", "install", *quiet], cwd=folder, check=True)
    stamp.write_text(wanted)
    return folder


def make_certificates(folder):
    """An authority and a certificate for localhost of its, valid for two days."""

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
    openssl("req", "-x509", *key, "ca.key", "-out", "ca.crt", "-subj", "/CN=conformance", "-days", "2")
    openssl("req", *key, "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.crt", *signed)


def print_left_out(left_out):
    """For each mode and reason the scenarios, outlines with how many of their examples."""
    for mode, reasons in left_out.items():
        print(f"left out of {mode.name}:")
        for reason, pickles in reasons.items():
            print(f"  {len(pickles)}: {reason}")
            of_feature = collections.defaultdict(collections.Counter)
            for pickle in pickles:
                of_feature[pickle["feature"]][pickle["name"]] += 1
            for feature, names in of_feature.items():
                if feature == "config":  # wholly, so without names
                    print(f"      {feature}.feature: all of it")
                    continue
                listed = "; ".join(name if n == 1 else f"{name} ({n})" for name, n in names.items())
                print(f"      {feature}.feature: {listed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path, help="the seaworthy binary")
    parser.add_argument("--venv", type=Path, help="where the packages are kept; a cache directory if not given")
    parser.add_argument("--testbed", type=Path, default=TESTBED, help="the flagd-testbed; ../shared/conformance if not given")
    parser.add_argument("--modes", help=f"some of {','.join(mode.name for mode in MODES)}")
    parser.add_argument("--only", default="*", help="a glob over feature/name of the scenarios to run")
    parser.add_argument("--jobs", type=int, default=8, help="how many scenarios or groups of them run at once")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    args = parser.parse_args()
    args.bin, args.testbed = args.bin.resolve(), args.testbed.resolve()
    names = args.modes.split(",") if args.modes else [mode.name for mode in [*MODES, STREAM]]
    modes = [mode for mode in MODES if mode.name in names]
    if len(modes) + (STREAM.name in names) != len(names):
        parser.error(f"unknown mode in {args.modes}")
    if not (args.testbed / "gherkin").is_dir():
        print(f"the suite is skipped: no flagd-testbed at {args.testbed}")
        modes = []

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = (args.venv or cache / "seaworthy-flagd").absolute()
    missing = {}
    packages = {}
    if modes:
        packages["python"] = make_venv(kept / "python", HERE / "requirements.txt")
    if any(mode.worker == "python-v1" for mode in modes):
        packages["python-v1"] = make_venv(kept / "python-v1", HERE / "requirements-v1.txt")
    if STREAM.name in names or any(mode.worker == "node" for mode in modes):
        if shutil.which("node") and shutil.which("npm"):
            packages["node"] = make_node_modules(kept / "js")
        else:
            missing["node"] = "node and npm are not there"
    if not shutil.which("openssl"):
        missing["openssl"] = "openssl is not there"

    pickles = []
    if modes:
        print(f"flagd-testbed {(args.testbed / 'version.txt').read_text().strip()}", flush=True)
        compiled = subprocess.run(
            [str(packages["python"]), str(HERE / "pickles.py"), str(args.testbed / "gherkin")],
            check=True, stdout=subprocess.PIPE,
        )
        pickles = json.loads(compiled.stdout)
    selected = {mode: [] for mode in modes}
    left_out = {mode: collections.defaultdict(list) for mode in modes}
    for pickle in pickles:
        if not fnmatch.fnmatchcase(f"{pickle['feature']}/{pickle['name']}", args.only):
            continue
        for mode in modes:
            if reason := reason_to_leave_out(pickle, mode, missing):
                left_out[mode][reason].append(pickle)
            else:
                selected[mode].append(pickle)

    work = Path(tempfile.mkdtemp(prefix="seaworthy-flagd-"))
    if "openssl" not in missing:
        make_certificates(work / "certificates")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    began = time.monotonic()
    suite = Suite(args, work, packages, work / "certificates", report)
    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for done in [pool.submit(*task) for task in suite.tasks(selected)]:
                done.result()
        # Alone, for it measures how long a change takes.
        if STREAM.name in names and "node" in packages:
            checks = change_stream.check(
                args.bin, HERE / "js" / "web.mjs", packages["node"], work / STREAM.name, suite.ports.take(), suite.env
            )
            for what, why, note in checks:
                report.add(STREAM, what, why)
                if note:
                    print(f"{STREAM.name}: {what}: {note}", flush=True)
    finally:
        if args.keep:
            print(f"data and logs: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    print_left_out(left_out)
    if STREAM.name in names:
        modes.append(STREAM)
        left_out[STREAM] = {} if "node" in packages else {missing["node"]: [None]}
    for mode in modes:
        out = sum(map(len, left_out[mode].values()))
        passed, failed = report.passed[mode.name], report.failed[mode.name]
        print(f"{mode.name} ({mode.client}): {passed} passed, {failed} failed, {out} left out")
    print(f"took {time.monotonic() - began:.0f} s")
    passed, failed = report.passed.total(), report.failed.total()
    out = sum(len(pickles) for reasons in left_out.values() for pickles in reasons.values())
    skipped = "" if modes != [STREAM] or args.modes else "; the suite itself was skipped: it is not there"
    print(f"{passed} passed, {failed} failed, {out} left out{skipped}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
