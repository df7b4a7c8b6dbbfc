"""auto: the first camera of this machine; without one a test card that says so, until a camera appears.

Runs in: the worker.
"""

from __future__ import annotations

from camdock.backends import Backend, Chooser, open_backend
from camdock.source import Source


class Auto(Chooser):
    """Chooses once, then is what it chose. Camera remembers the choice, so that an unplugged camera is waited for."""

    def _choose(self) -> tuple[Backend, bool]:
        path, problem = _look()
        options = self.source.text.partition("?")[2]
        if path is not None:
            chosen = f"v4l2:{path}" + (f"?{options}" if options else "")
        else:
            label = problem or "no camera found: this is a test card"
            chosen = f"synthetic:?label={label}" + (f"&{options}" if options else "")
        return open_backend(Source.parse(chosen), self.first_seq), path is None and problem is None

    def _has_appeared(self) -> bool:
        return _look()[0] is not None


def _look() -> tuple[str | None, str | None]:
    """(path of the first camera or None, why none could be looked for or None)."""
    try:
        from camdock.backends.v4l2 import first_camera
    except ImportError:
        return None, "no V4L2 library: this is a test card"
    return first_camera(), None
