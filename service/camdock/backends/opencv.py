"""opencv: whatever OpenCV opens: a camera's number, a video file (looped at its own rate), an RTSP or HTTP address.

Runs in: the worker.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camdock.backends import Backend, Opened
from camdock.errors import DriverMissing, SourceDenied, SourceFailed, SourceMissing
from camdock.frame import Picture, whole_jpeg
from camdock.settings import Limits, Settings
from camdock.source import host_of, redact

APIS = {
    "auto": cv2.CAP_ANY,
    "v4l2": cv2.CAP_V4L2,
    "ffmpeg": cv2.CAP_FFMPEG,
    "gstreamer": cv2.CAP_GSTREAMER,
}
OPEN_TIMEOUT_MS = 10_000  # the API's deadline is shorter; this one only keeps a forgotten thread from living for ever
READ_TIMEOUT_MS = 10_000
DEFAULT_FILE_FPS = 25.0
MJPG = cv2.VideoWriter.fourcc(*"MJPG")


class OpenCV(Backend):
    """One cv2.VideoCapture."""

    usual_settle_frames = 2  # a camera that was just opened has not found its exposure
    has_stamps = False

    def open(self) -> Opened:
        target, options = self.source.target, self.source.options
        self.api: str = options.get("backend", "auto")
        self.is_device = target.isdigit() or target.startswith("/dev/video")
        self.is_file = not self.is_device and "://" not in target
        self._check_library()
        self.still_there()
        self.capture = self._capture()
        if not self.capture.isOpened():
            raise self._not_opened()
        size = options.get("size")
        if self.is_device:
            self._set_up_device(size)
        self.wanted_size = None if self.is_device else size
        self.own_fps = self._rate()
        self.due = time.monotonic()
        width = int(self.capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self.capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        name = f"{Path(target).name if self.is_file else redact(target)} (OpenCV {self.capture.getBackendName()})"
        return Opened(self.source.redacted, name, self.wanted_size or (width, height), self.own_fps, self._format())

    def _check_library(self) -> None:
        # A wheel may name a back end that it would need a plugin for: only hasBackend() tries.
        if self.api != "auto" and not cv2.videoio_registry.hasBackend(APIS[self.api]):
            able = [name for name, api in APIS.items() if name == "auto" or cv2.videoio_registry.hasBackend(api)]
            raise DriverMissing(
                f"this OpenCV {cv2.__version__} was built without {self.api}", "take one of " + ", ".join(able)
            )

    @staticmethod
    def _check_file(path: str) -> None:
        try:
            with open(path, "rb"):
                pass
        except FileNotFoundError:
            raise SourceMissing(
                f"the file {path} does not exist", "look at the path; a relative one counts from the service's folder"
            ) from None
        except PermissionError:
            raise SourceDenied(f"the file {path} may not be read by uid {os.getuid()}", f"`chmod a+r {path}`") from None
        except OSError as error:
            raise SourceFailed(f"{path}: {error.strerror}", "a video file is needed") from None

    def _capture(self) -> Any:
        target, api = self.source.target, APIS[self.api]
        if self.is_device or self.is_file:
            return cv2.VideoCapture(int(target) if target.isdigit() else target, api)
        if api in (cv2.CAP_ANY, cv2.CAP_FFMPEG) and cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
            timeouts = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                OPEN_TIMEOUT_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                READ_TIMEOUT_MS,
            ]
            return cv2.VideoCapture(target, cv2.CAP_FFMPEG, timeouts)
        return cv2.VideoCapture(target, api)

    def _not_opened(self) -> Exception:
        target = self.source.target
        if self.is_file:
            return SourceFailed(
                f"OpenCV cannot read {target}: it is no video, or its codec is unknown", "`ffprobe` says more"
            )
        if self.is_device:
            return SourceFailed(f"OpenCV cannot open the camera {target}", f"try v4l2:{target}: it says why")
        return SourceMissing(
            f"nothing answers with a video at {host_of(target)}",
            "look at the address and the login; OpenCV's own words are in the log",
        )

    def _set_up_device(self, size: tuple[int, int] | None) -> None:
        # The camera's own JPEG, as it is: no decoding here and no encoding after it. Cameras without refuse the two.
        self.capture.set(cv2.CAP_PROP_FOURCC, MJPG)
        if size:
            self.capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            self.capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if "fps" in self.source.options:
            self.capture.set(cv2.CAP_PROP_FPS, self.source.options["fps"])
        if int(self.capture.get(cv2.CAP_PROP_FOURCC)) == MJPG:
            self.capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def _rate(self) -> float:
        fps = float(self.capture.get(cv2.CAP_PROP_FPS))
        own = fps if 0.01 <= fps <= 1000 else (DEFAULT_FILE_FPS if self.is_file else 0.0)
        asked = float(self.source.options.get("fps", own))
        if self.is_file:
            return asked
        return own if self.is_device else min(own or asked, asked)

    def _format(self) -> str:
        code = int(self.capture.get(cv2.CAP_PROP_FOURCC))
        text = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24))
        return text if text.isalnum() else "BGR"

    def limits(self) -> Limits:
        return Limits()

    def apply(self, wanted: Settings) -> Settings:
        self.limits().check(wanted.given(), self.source.redacted)
        return Settings()

    def read(self, wait_s: float) -> Picture | None:
        if self.is_file:
            now = time.monotonic()
            if self.due - now > wait_s:
                time.sleep(wait_s)
                return None
            time.sleep(max(0.0, self.due - now))
            self.due = max(self.due + 1 / self.own_fps, time.monotonic() - 1 / self.own_fps)
        elif not self.is_device and "fps" in self.source.options:
            # What comes in between is taken, or it would wait and be old; nothing is made of it.
            until = time.monotonic() + wait_s
            while (now := time.monotonic()) < self.due:
                if now > until:
                    return None
                if not self.capture.grab():
                    return self._at_end()
            self.due = max(self.due + 1 / self.own_fps, now - 0.5 / self.own_fps)
        done, array = self.capture.read()
        captured_ns = time.monotonic_ns()
        if not done or array is None:
            return self._at_end()
        self._just_rewound = False
        if array.dtype == np.uint8 and array.ndim == 2 and array.shape[0] == 1:  # the camera's JPEG, not decoded
            jpeg = whole_jpeg(array.tobytes())
            if jpeg is None:
                self.drops["broken"] += 1
                return None
            size = (int(self.capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self.capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
            return Picture(size, captured_ns, jpeg=jpeg)
        if self.wanted_size and (array.shape[1], array.shape[0]) != self.wanted_size:
            array = cv2.resize(array, self.wanted_size, interpolation=cv2.INTER_AREA)
        if array.ndim == 2:
            return Picture((array.shape[1], array.shape[0]), captured_ns, planes=(array,))
        return Picture(
            (array.shape[1], array.shape[0]), captured_ns, rgb=np.ascontiguousarray(array[..., :3]), order="BGR"
        )

    _just_rewound = False

    def _at_end(self) -> Picture | None:
        """Nothing came: a file begins again, anything else has gone away."""
        if not self.is_file:
            where = "the camera" if self.is_device else host_of(self.source.target)
            raise SourceMissing(f"{where} gives no more pictures", "it is opened again by itself")
        if self._just_rewound:
            raise SourceFailed(f"OpenCV finds no picture in {self.source.target}", "`ffprobe` says more")
        self._just_rewound = True
        if not self.capture.set(cv2.CAP_PROP_POS_FRAMES, 0):
            self.capture.release()
            self.capture = self._capture()
        return self.read(0.0)

    def still_there(self) -> None:
        target = self.source.target
        if self.is_file:
            self._check_file(target)
        node = target if target.startswith("/") else f"/dev/video{target}"
        if self.is_device and not os.path.exists(node):
            raise SourceMissing(f"{node} does not exist", "plug the camera in; it is looked for every second")

    def close(self) -> None:
        if hasattr(self, "capture"):
            self.capture.release()
