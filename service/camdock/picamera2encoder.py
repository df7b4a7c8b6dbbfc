"""The JPEG encoder of a Pi 4 and earlier, through picamera2: its newest picture, and when it was taken.

Runs in: the worker. Imports picamera2, so it is imported only where there is such an encoder.
"""

from __future__ import annotations

import queue
from typing import Any

from picamera2.encoders.mjpeg_encoder import MJPEGEncoder
from picamera2.outputs import Output

WAITING = 2  # pictures; more would only be late


class _Newest(Output):  # type: ignore[misc]  # picamera2 has no types
    """Takes what the encoder's thread gives, and lets go of the oldest when nobody fetches it."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: queue.Queue[tuple[bytes, int]] = queue.Queue(WAITING)

    def outputframe(self, frame: Any, _keyframe: bool = True, timestamp: int | None = None, *_more: Any) -> None:
        """`timestamp`: microseconds since the encoder's first picture."""
        while True:
            try:
                self.pictures.put_nowait((bytes(frame), timestamp or 0))
                return
            except queue.Full:
                self.pictures.get_nowait()


class Encoded:
    """A running encoder on a running camera."""

    def __init__(self, camera: Any) -> None:
        self._camera, self._output, self._encoder = camera, _Newest(), MJPEGEncoder()
        camera.start_encoder(self._encoder, self._output)

    def next(self, wait_s: float) -> tuple[bytes, int] | None:
        """A JPEG and its sensor's time in nanoseconds; None when there was none in time."""
        try:
            jpeg, passed_us = self._output.pictures.get(timeout=wait_s)
        except queue.Empty:
            return None
        return jpeg, ((self._encoder.firsttimestamp or 0) + passed_us) * 1000

    def stop(self) -> None:
        """Give the encoder back; the camera runs on."""
        self._camera.stop_encoder(self._encoder)
