"""What ends a piece of work early, and what keeps it from ending."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Refused(Exception):
    """Nothing was done; the message says why and what to do."""


class Interrupted(Exception):
    """Somebody wants us to end: a signal."""


class Failed(Exception):
    """The release does not pass; the message says what was seen."""


def say(text: str) -> None:
    """A sentence on stderr. Who reads it may be gone: that changes nothing about the switch."""
    with contextlib.suppress(OSError, ValueError):
        print(f"camdock-release: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until the end of this block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
