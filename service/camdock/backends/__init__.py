"""The Backend protocol and open_backend(): one class per driver family, each in its own file.

Runs in: the worker.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from camdock.errors import DriverMissing
from camdock.frame import Picture
from camdock.settings import Limits, Settings
from camdock.source import KINDS, Source

DEFAULT_QUALITY = 80

# kind of source -> module and class
BACKENDS: dict[str, tuple[str, str]] = {
    "auto": ("camdock.backends.auto", "Auto"),
    "synthetic": ("camdock.backends.synthetic", "Synthetic"),
    "v4l2": ("camdock.backends.v4l2", "V4L2"),
    "opencv": ("camdock.backends.opencv", "OpenCV"),
    "relay": ("camdock.backends.relay", "Relay"),
    "pixelink": ("camdock.backends.pixelink", "Pixelink"),
    "picamera2": ("camdock.backends.picamera2", "PiCamera"),
}


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening found.

    source  the source as it is now, without credentials: `auto` names the camera it took
    device  a name for people: "Logitech C920 (/dev/video0)"
    size    (width, height)
    fps     pictures per second that the device promises; 0.0 when it does not say
    format  what it delivers: MJPG, YUYV, ...
    """

    source: str
    device: str
    size: tuple[int, int]
    fps: float
    format: str


class SourceChanged(Exception):
    """The backend wants to be closed and opened again: another device is the right one now."""


class Backend:
    """One open device. Every method may block, leak or crash: the worker is there to be killed.

    drops       pictures that were thrown away, by reason
    settle_frames  pictures that are on their way with the old settings when new ones have been set
    quality     JPEG quality for pictures that the device does not encode
    versions    of libraries that do not say theirs the usual way, by import name
    wire_fault  set by `synthetic:` alone: how the next message is to be spoiled
    """

    usual_settle_frames = 0  # where the source does not say
    has_stamps = True  # whether captured_ns is when a picture was taken; else when it was read, and it may have waited

    def __init__(self, source: Source, first_seq: int = 1) -> None:
        self.source = source
        self.first_seq = first_seq
        self.drops: Counter[str] = Counter()
        self.versions: dict[str, str] = {}
        self.wire_fault: Literal["", "half_frame", "garbage"] = ""
        self.quality: int = source.options.get("quality", DEFAULT_QUALITY)
        self.settle_frames: int = source.options.get("settle_frames", self.usual_settle_frames)

    def open(self) -> Opened:
        """Open the device and start it. Raises a CameraError from the driver's error."""
        raise NotImplementedError

    def limits(self) -> Limits:
        """What the open device could do."""
        return Limits()

    def apply(self, wanted: Settings) -> Settings:
        """Set what is given in `wanted`, return what the device says it does now.

        raises  SettingUnsupported, SettingOutOfRange
        """
        self.limits().check(wanted.given(), self.source.redacted)
        return Settings()

    def read(self, wait_s: float) -> Picture | None:
        """The next picture; None when there was none within wait_s. Raises a CameraError."""
        raise NotImplementedError

    def still(self, wait_s: float) -> Picture | None:
        """Like `read`, for keeping: as good as the device can. What it encodes itself is kept as it is."""
        return self.read(wait_s)

    def close(self) -> None:
        """Give the device back. Nothing but `still_there` is asked of this backend afterwards."""

    def still_there(self) -> None:
        """Whether it could be opened again, as far as that is known without opening it; asked every other second.

        raises  the CameraError that opening would give; SourceChanged when another device is the right one now
        """


class Chooser(Backend):
    """Is another backend: the camera that it found, or a test card in its place until one appears.

    looks_every_s  for a camera, while it is a card that waits for one
    """

    looks_every_s = 2.0

    def __init__(self, source: Source, first_seq: int = 1) -> None:
        super().__init__(source, first_seq)
        self.inner, self.waits_for_camera = self._choose()
        self.looked_at = time.monotonic()
        self.drops, self.quality = self.inner.drops, self.inner.quality
        self.settle_frames, self.has_stamps = self.inner.settle_frames, self.inner.has_stamps

    def _choose(self) -> tuple[Backend, bool]:
        """The backend to be, not yet opened, and whether it stands in for a camera that may appear."""
        raise NotImplementedError

    def _has_appeared(self) -> bool:
        """Whether there is a camera by now."""
        raise NotImplementedError

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
        if self.waits_for_camera and time.monotonic() - self.looked_at > self.looks_every_s:
            self.looked_at = time.monotonic()
            if self._has_appeared():
                raise SourceChanged

    def close(self) -> None:
        self.inner.close()

    def still_there(self) -> None:
        self._look_again()
        self.inner.still_there()


def open_backend(source: Source, first_seq: int = 1) -> Backend:
    """The backend for a source, its driver library imported, not yet opened. Raises DriverMissing."""
    module_name, class_name = BACKENDS[source.kind]
    try:
        module: Any = importlib.import_module(module_name)
    except (ImportError, AttributeError, ValueError) as error:
        # ValueError: "numpy.dtype size changed", AttributeError: "_ARRAY_API not found" -- broken ABI speaks like this
        extra = KINDS[source.kind].extra
        raise DriverMissing(
            f"the library for {source.kind}: does not load: {error}",
            f"install it with `pip install 'camdock[{extra}]'` under constraints.txt"
            if extra
            else "`camdock doctor` says what is wrong with it",
        ) from error
    backend: Backend = getattr(module, class_name)(source, first_seq)
    return backend
