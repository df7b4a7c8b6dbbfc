"""Nursery: a process that has imported the service, and forks one for every start: what `import` takes is spent once.

Runs in: Nursery and Forked in pytest; `python -m tests.tools.nursery` is the process with the imports. What it forks
runs `python -m camdock` from its first line on, in a session of its own; only that the modules are there already is
different. Three quarters of what a start costs are those imports, 0.8 s of a core.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self

STARTS_WITHIN_S = 30
ENDS_WITHIN_S = 20
LONGEST = 1 << 17  # bytes of one order: the environment, as JSON


class Forked:
    """A forked service; what subprocess.Popen offers, as far as the tests use it."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended; raises subprocess.TimeoutExpired."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("camdock", timeout or 0)
        return status

    def _status(self, within_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], within_s)[0]:
            told = os.read(self._ended, 16)
            os.close(self._ended)
            assert told, "the nursery ended before the service did"
            self.returncode = int(told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing, where it has ended: its number may be somebody else's."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks, for as long as the context lasts; started with the first service."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._orders.close()
            self._process.wait(10)

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None,
        log: BinaryIO,
        errors: BinaryIO | None = None,
    ) -> Forked:
        """`python -m camdock ARGUMENTS...` in a folder, or where pytest runs; what it says goes to `log`.

        errors  what it says on stderr, where that is to be told apart
        """
        if self._process is None:
            self._orders, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._orders.settimeout(STARTS_WITHIN_S)
            with its_end:
                command = [sys.executable, "-m", __name__]
                # Its own session: Ctrl-C is for pytest, which then closes the socket.
                self._process = subprocess.Popen(command, stdin=its_end.fileno(), start_new_session=True)
        ended, tells = os.pipe()
        try:
            given = {"arguments": [*arguments], "environment": {**environment}, "folder": str(folder or Path.cwd())}
            order = json.dumps(given).encode()
            socket.send_fds(self._orders, [order], [log.fileno(), (errors or log).fileno(), tells])
            return Forked(int(self._orders.recv(16)), ended)
        finally:
            os.close(tells)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """The same to its end, which must come by itself."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            forked = self.start(arguments, environment, None, said, errors)
            try:
                status = forked.wait(ENDS_WITHIN_S)
            finally:
                forked.kill()
            texts = [(file.seek(0), file.read())[1].decode() for file in (said, errors)]
        return subprocess.CompletedProcess([*arguments], status, *texts)


def _become(order: bytes, log: int, errors: int) -> None:
    """In the fork: everything that a new process has and this one has not."""
    given = json.loads(order)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(errors, 2)
    os.closerange(3, 64)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(given["environment"])
    os.chdir(given["folder"])
    sys.path[0] = given["folder"]
    sys.argv = ["camdock", *given["arguments"]]


def main() -> bool:
    """Fork for every order until there are no more; True in a fork, which is to be the service."""
    import camdock.app
    import camdock.config
    import camdock.server
    import camdock.systemd  # with app and server: what serve.py imports before it serves

    with contextlib.suppress(ImportError):  # the service does without it, too
        import uvloop  # noqa: F401
    # What only the first application imports and compiles. It never runs; a fork has the environment that it is given.
    os.environ.clear()
    camdock.app.build(camdock.config.Config(source="synthetic:"))
    gc.collect()
    gc.freeze()
    orders = socket.socket(fileno=os.dup(0))
    died, wakes = socket.socketpair()
    for end in (died, wakes):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders, died], [], [])
        if died in ready:
            died.recv(4096)
            for pid in list(running):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    tells = running.pop(pid)
                    with contextlib.suppress(BrokenPipeError):  # pytest is gone, and we will be, too
                        os.write(tells, b"%d" % os.waitstatus_to_exitcode(status))
                    os.close(tells)
        if orders in ready:
            order, descriptors, _, _ = socket.recv_fds(orders, LONGEST, 3)
            if not order:
                return False
            log, errors, tells = descriptors
            pid = os.fork()
            if pid == 0:
                _become(order, log, errors)
                return True
            os.close(log)
            os.close(errors)
            running[pid] = tells
            orders.send(b"%d" % pid)


if __name__ == "__main__" and main():
    import runpy

    runpy.run_module("camdock", run_name="__main__", alter_sys=True)
