"""Guard: a tiny process that outlives the API process by a moment and kills what it left behind.

Runs in: Guard in the API process; `python guard.py` is the other one. A parent-death signal ends a worker, but not the
children that its driver started; whole process groups can only be killed by somebody who is still there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys


class Guard:
    """Knows the process groups of all running children."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def hold(self, group: int) -> None:
        """From now on `group` dies with us."""
        self._groups.add(group)
        self._tell(b"+%d\n" % group)

    def let_go(self, group: int) -> None:
        """`group` is gone; its number may soon be somebody else's."""
        self._groups.discard(group)
        self._tell(b"-%d\n" % group)

    def stop(self) -> None:
        """End the guard itself, which kills every group still held."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _tell(self, line: bytes) -> None:
        if self._process is None or self._process.poll() is not None:
            # -S: without site-packages; it needs nothing of them and takes 11 MB
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
            )
            line = b"".join(b"+%d\n" % group for group in sorted(self._groups))
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has just died: the next call starts another
            self._process.stdin.write(line)


def main() -> None:
    """Take notes until the API process is gone, then kill."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
