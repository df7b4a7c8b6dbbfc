"""Backoff: the pause before a camera's next worker.

Runs in: the API process.
"""

from __future__ import annotations

from camdock.errors import CameraError, SourceDenied, SourceMissing


class Backoff:
    """The pause before the next worker: 0.2 s, doubling; 5 s from the fifth failure in a row on. A frame resets it.

    failures  since the last frame, of whatever kind
    """

    FIRST_S, LONGEST_S, MISSING_S, PERSON_S = 0.2, 5.0, 1.0, 30.0
    PATIENCE = 5  # a driver that failed so often in a row is not hammered any more
    # The kernel makes a node for root alone; udev gives it its group a moment later, on a busy Pi a second or two.
    DENIED_SOON = 3

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A frame came."""
        self.failures = 0
        self._failed = 0  # with a device that was there: to look whether it is costs nothing
        self._denied = 0

    def next_s(self, error: CameraError) -> float:
        """Seconds to wait after `error`: 1 while the device is missing, 30 where only a person can help.

        The first three refusals since a frame, or since the device was missing, are asked again after a second.
        """
        self.failures += 1
        if isinstance(error, SourceDenied) and self._denied < self.DENIED_SOON:
            self._denied += 1
            return self.MISSING_S
        if not error.retry:
            return self.PERSON_S
        if isinstance(error, SourceMissing):
            self._denied = 0
            return self.MISSING_S
        self._failed += 1
        return self.FIRST_S * 2 ** (self._failed - 1) if self._failed < self.PATIENCE else self.LONGEST_S
