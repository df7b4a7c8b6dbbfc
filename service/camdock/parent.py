"""The parent as a child process sees it: the wire to it, its orders, its death.

Runs in: the worker and the pixels process. The other end is child.py.
"""

from __future__ import annotations

import ctypes
import os
import queue
import select
import signal
import threading
from collections.abc import Mapping
from typing import Any

from camdock import wire
from camdock.wire import Kind, Message

LEAVE_WITHIN_S = 1.0
_PR_SET_PDEATHSIG = 1


def take_wire() -> int:
    """The file descriptor of the frame pipe. From here on stdout is stderr: a driver that prints writes to the log."""
    frames = os.dup(1)
    os.dup2(2, 1)
    return frames


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the API process ends: a driver that holds the GIL never sees the pipe close."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(0)


class Orders:
    """Messages from the API process, read by a thread so that a blocking driver does not hide the end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.ended = threading.Event()

    def first(self) -> Message:
        """The START message; ends the process when the pipe ends first."""
        threading.Thread(target=self._read, daemon=True, name="orders").start()
        return self._queue.get()

    def waiting(self) -> Message | None:
        """The next order, or None."""
        return None if self._queue.empty() else self._queue.get()

    def within(self, wait_s: float) -> Message | None:
        """The next order if it comes in time; any message at all once the orders have `ended`."""
        try:
            return self._queue.get(timeout=wait_s)
        except queue.Empty:
            return None

    def _read(self) -> None:
        unpacker = wire.Unpacker()
        while unpacker.fill(self._descriptor):
            for message in unpacker.messages():
                self._queue.put(message)
        # The API wants us gone, or is gone. An orderly end first; then the whole group, children of the driver too.
        self.ended.set()
        self._queue.put(Message(Kind.START))
        select.select([], [], [], LEAVE_WITHIN_S)
        os.killpg(0, signal.SIGKILL)


def send(descriptor: int, kind: Kind, meta: Mapping[str, Any], blob: bytes = b"") -> None:
    """Write one message whole. A reader that is gone ends the process: nobody is left to give pictures to."""
    pieces = [memoryview(wire.head(kind, meta, len(blob))), memoryview(blob)]
    try:
        while pieces:
            written = os.writev(descriptor, pieces)
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][written:]
    except BrokenPipeError:
        os._exit(0)
