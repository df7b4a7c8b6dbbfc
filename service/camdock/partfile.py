"""PartFile: the newest part of one broadcast as a file in memory, whose pages the kernel lends to every socket.

Runs in: the API process. A write copies the part into the kernel once for every viewer; this copies it once for all.
"""

from __future__ import annotations

import contextlib
import os

from camdock.frame import Frame

# The kernel lends 64 KB at a time. Each piece costs what it costs to send a packet, and with the second one that is as
# much as a copy out of a processor's cache.
LARGEST = 1 << 16
NONE = -1


class PartFile:
    """Of one broadcast.

    Every part gets a file of its own, never written to again: what a viewer has not read yet is read from its pages,
    which the kernel keeps for as long as that takes.
    """

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._descriptor = NONE

    def send(self, socket: int, frame: Frame) -> int:
        """Hand the frame's part to a non-blocking TCP socket.

        socket   its descriptor; nothing that was written to it before may wait outside the kernel
        returns  how many bytes it took: less than all when it is full, 0 when they must go another way, too. Errors are
                 left to whoever writes the rest, and meets them again.
        """
        if frame is not self._frame:
            self.close()
            self._take(frame)
        if self._descriptor == NONE:
            return 0
        try:
            return os.sendfile(socket, self._descriptor, 0, len(frame.part))
        except OSError:
            return 0

    def _take(self, frame: Frame) -> None:
        self._frame = frame
        if len(frame.part) > LARGEST:
            return
        # No descriptor left, no memory, a Python that was built for an old libc: written, as to a few viewers.
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.memfd_create("part")
            if os.write(self._descriptor, frame.part) < len(frame.part):
                self.close()

    def close(self) -> None:
        """Give the file back; the next `send` makes another."""
        self._frame = None
        if self._descriptor != NONE:
            os.close(self._descriptor)
            self._descriptor = NONE
