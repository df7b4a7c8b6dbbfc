"""What can go wrong, each for as long as a file of its name lies in the folder that CAMDOCK_RIG_FAULTS names.

Runs in: whatever process imports picamera2 beside sitecustomize.py.

    stall        the sensor completes nothing any more
    cancelled    libcamera completes requests as cancelled, as when a ribbon cable came loose; picamera2 loses them
    busy         somebody has acquired the camera before: libcamera's own refusal
    double       the camera is opened a second time in this process: ends picamera2's listening thread before 0.3.37
    no_heap      picamera2's own allocator, where there is no /dev/dma_heap
    close_hangs  stopping the camera does not come back, and keeps the interpreter's lock
    crash        a segmentation fault in the middle of a stream
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import libcamera

_FOLDER = os.environ.get("CAMDOCK_RIG_FAULTS", "")  # "" where what a picture costs is measured: nothing is looked for
_LOOK_S = 0.01
_opened_again = threading.Event()


def there(name: str) -> bool:
    """Whether a fault is wanted now."""
    return bool(_FOLDER) and Path(_FOLDER, name).exists()


def install(real: Any) -> None:
    """Put under libcamera what is not asked for by the stand-ins."""
    real.acquire, real.status = libcamera.Camera.acquire, libcamera.Request.status

    lost: list[Any] = []

    def acquire(self: Any) -> Any:
        if there("busy"):
            real.acquire(self)
        return real.acquire(self)

    def status(self: Any) -> Any:
        if not there("cancelled"):
            return real.status.__get__(self)
        lost.append(
            self
        )  # picamera2 lets go of it, and the pipeline's thread may not be done with what is no lie to it
        return libcamera.Request.Status.Cancelled

    libcamera.Camera.acquire = acquire
    libcamera.Request.status = property(status)


def before_a_picture(opener: Any) -> None:
    """Called for each picture, in the rig's own thread."""
    if there("crash"):
        ctypes.string_at(0)
    if there("double") and not _opened_again.is_set():
        _opened_again.set()
        place = next(iter(opener._cm.cameras.values())).rig_place
        threading.Thread(target=_open_again, args=(opener, place)).start()
    while there("stall"):
        time.sleep(_LOOK_S)


def _open_again(opener: Any, place: int) -> None:
    with contextlib.suppress(RuntimeError):
        opener(place)


def before_a_stop() -> None:
    """Called where libcamera is told to stop."""
    if there("close_hangs"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        while True:
            ctypes.PyDLL(None).pause()
