"""A real lotlogd in a directory of its own, and what it stored: what the tests share. Not a test.

The daemon is found by ``LOTLOGD``, else among the repository's builds, else on the PATH.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
REPOSITORY = os.path.dirname(os.path.dirname(PACKAGE))
SOURCE = os.path.join(PACKAGE, "src")
#: How long anything may take before a test gives it up.
PATIENCE_SECONDS = 60.0

# Installed or not: the tests of an installed wheel say so with LOTLOG_INSTALLED=1.
if not os.environ.get("LOTLOG_INSTALLED") and SOURCE not in sys.path:
    sys.path.insert(0, SOURCE)

for name in list(os.environ):  # nothing of the surroundings but the binaries
    if name.startswith("LOTLOG_") and name not in ("LOTLOG_INSTALLED", "LOTLOG_JSON", "LOTLOG_COMMAND"):
        del os.environ[name]


def binary(name: str, variable: str) -> str:
    """The path of a built binary; a test that needs it fails without."""
    named = os.environ.get(variable)
    if named:
        return named
    built = [os.path.join(REPOSITORY, "target", kind, name) for kind in ("release", "debug")]
    built = sorted(filter(os.path.exists, built), key=os.path.getmtime)
    found = built[-1] if built else shutil.which(name)
    if found is None:
        raise AssertionError(f"no {name}: build it with `cargo build`, or name it with {variable}")
    return found


def until(what: str, condition, seconds: float = PATIENCE_SECONDS):
    """Asks again and again until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not come true in {seconds} s: {what}")
        time.sleep(0.005)


class Daemon:
    """A place for daemons, one after the other, and the one that runs there."""

    def __init__(self, *flags: str, start: bool = True):
        self.home = tempfile.mkdtemp(prefix="lotlog-py-")
        self.socket = os.path.join(self.home, "s")
        self.data = os.path.join(self.home, "data")
        self.process = None
        if start:
            self.start(*flags)

    def start(self, *flags: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("LOTLOG")}
        with open(os.path.join(self.home, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [binary("lotlogd", "LOTLOGD"), "--data-dir", self.data, "--socket", self.socket, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=env,
            )
        until("the daemon answers", self._answers)

    def _answers(self) -> bool:
        import socket

        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended instead of serving: {self.process.returncode}\n{self.own_log()}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(self.socket)
                connection.sendall(b'{"op":"status"}\n')
                return connection.recv(1) == b"{"
            except OSError:
                return False

    def own_log(self) -> str:
        with open(os.path.join(self.home, "log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """As an operator does."""
        self.process.terminate()
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.own_log()
        self.process = None

    def freeze(self) -> None:
        """It is there and does nothing: not only told to, but with all of its threads standing."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"the daemon ended instead of standing still\n{self.own_log()}"

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def lot_path(self, lot: str) -> str:
        return os.path.join(self.data, "lots", urllib.parse.quote(lot, safe="") + ".jsonl")

    def records(self, lot: str) -> list:
        """What stands in a lot's file."""
        try:
            with open(self.lot_path(lot), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return []
        assert text.endswith("\n"), "a lot file ends in the middle of a line"
        return [json.loads(line) for line in text.splitlines()]

    def all_records(self) -> list:
        paths = sorted(glob.glob(os.path.join(self.data, "lots", "*.jsonl")))
        found = []
        for path in paths:
            with open(path, encoding="utf-8") as file:
                found += [json.loads(line) for line in file]
        return found


class TestCase(unittest.TestCase):
    """A test with a daemon of its own."""

    def daemon(self, *flags: str, start: bool = True) -> Daemon:
        daemon = Daemon(*flags, start=start)
        self.addCleanup(daemon.close)
        return daemon

    def directory(self) -> str:
        path = tempfile.mkdtemp(prefix="lotlog-py-")
        self.addCleanup(shutil.rmtree, path, True)
        return path

    def environment(self, **variables: str) -> None:
        """Sets environment variables until the test ends."""
        for name, value in variables.items():
            before = os.environ.get(name)
            os.environ[name] = value
            if before is None:
                self.addCleanup(os.environ.pop, name, None)
            else:
                self.addCleanup(os.environ.__setitem__, name, before)

    def python(self, code: str, *arguments: str, interpreter=(), timeout: float = PATIENCE_SECONDS, **variables: str):
        """Runs a program in a Python of its own; the finished process."""
        paths = [] if os.environ.get("LOTLOG_INSTALLED") else [SOURCE]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths + [PACKAGE]), **variables}
        return subprocess.run(
            [sys.executable, *interpreter, "-c", code, *arguments],
            env=env,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
