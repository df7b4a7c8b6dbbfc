"""pykms, as far as picamera2 asks for it where nothing is shown on a screen: names of pixel formats.

Runs in: the worker, where no real pykms is installed. Up to 0.3.38 picamera2 imports its previews, and with them pykms,
whether or not anybody looks at a screen of that machine.
"""

from __future__ import annotations


class _Names(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class PixelFormat(metaclass=_Names):
    """Every format is its own name; nothing draws with it. What would draw (Card, ResourceManager) is not here."""
