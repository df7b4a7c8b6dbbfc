"""auto: the first camera of this machine; without one a test card that says so, until a camera appears.

Runs in: the worker.
"""

from __future__ import annotations

import time
from typing import Any

from camdock.backends import Backend, Opened, SourceChanged, open_backend
from camdock.frame import Picture
from camdock.settings import Limits, Settings
from camdock.source import Source

LOOK_EVERY_S = 2.0


class Auto(Backend):
    """Chooses once, then is what it chose. Camera remembers the choice, so that an unplugged camera is waited for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        path, problem = _look()
        options = self.source.text.partition("?")[2]
        if path is not None:
            chosen = f"v4l2:{path}" + (f"?{options}" if options else "")
        else:
            label = problem or "no camera found: this is a test card"
            chosen = f"synthetic:?label={label}" + (f"&{options}" if options else "")
        self.waits_for_camera = path is None and problem is None
        self.looked_at = time.monotonic()
        self.inner = open_backend(Source.parse(chosen), self.first_seq)
        self.drops, self.quality = self.inner.drops, self.inner.quality
        self.settle_frames = self.inner.settle_frames

    def open(self) -> Opened:
        return self.inner.open()

    def limits(self) -> Limits:
        return self.inner.limits()

    def apply(self, wanted: Settings) -> Settings:
        return self.inner.apply(wanted)

    def read(self, wait_s: float) -> Picture | None:
        self._look_again()
        return self.inner.read(wait_s)

    def still(self, wait_s: float) -> Picture | None:
        self._look_again()
        return self.inner.still(wait_s)

    def _look_again(self) -> None:
        if self.waits_for_camera and time.monotonic() - self.looked_at > LOOK_EVERY_S:
            self.looked_at = time.monotonic()
            if _look()[0] is not None:
                raise SourceChanged

    def close(self) -> None:
        self.inner.close()

    def still_there(self) -> None:
        self._look_again()
        self.inner.still_there()


def _look() -> tuple[str | None, str | None]:
    """(path of the first camera or None, why none could be looked for or None)."""
    try:
        from camdock.backends.v4l2 import first_camera
    except ImportError:
        return None, "no V4L2 library: this is a test card"
    return first_camera(), None
