"""pixelink: a PixeLINK camera through the vendor's library and their pixelinkWrapper; without one a test card.

Runs in: the worker. The SDK counts exposure in seconds and gain in decibels; above this file they are microseconds and
a linear factor.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from camdock.backends import Backend, Chooser, Opened, open_backend
from camdock.errors import (
    CameraError,
    DriverMissing,
    SettingOutOfRange,
    SourceBusy,
    SourceDenied,
    SourceFailed,
    SourceMissing,
    SourceStalled,
)
from camdock.frame import Picture
from camdock.pixelinksdk import GONE, SDK_HINT, absent, load, name_of, serials
from camdock.settings import Limits, Settings
from camdock.source import Source

RETRIES = 5  # pictures in a row that fail before the camera has failed
# The test card: the lab service's size, a rate that costs little. YUV420: a still is encoded at the quality asked for.
CARD = {"size": "1280x1024", "fps": "10", "format": "YUV420"}

BUSY = {"ApiCameraInUseError", "ApiRequiresControlAccess", "ApiNoCameraAvailableError"}
UNFIT = {"ApiOSVersionError", "ApiVersionError", "ApiInvalidOhciDriverError", "ApiNotSupportedOnLiteVersion"}
LATE = {"ApiTimeoutError", "ApiCameraTimeoutError"}
RETRIED = LATE | {"ApiInvalidFrameReceivedError", "ApiBadFrameSizeError", "ApiGetNextFrameBusy", "ApiFrameInUseError"}
REFUSED = {"ApiOutOfRangeError", "ApiCameraRejectedValueError", "ApiInvalidParameterError"}


# --- the source -------------------------------------------------------------------------------------------------------


class Pixelink(Chooser):
    """The camera; where there is none, or no SDK, a test card until there is one. `?simulate=0`: no card."""

    looks_every_s = 3.0  # the SDK asks the USB and every network for cameras

    def _choose(self) -> tuple[Backend, bool]:
        self.why = ""
        if self.source.options.get("simulate", True) and (why := self._absence()):
            self.why = f"simulated: {why}"
            given = {name: str(self.source.options[name]) for name in ("fps", "quality") if name in self.source.options}
            if size := self.source.options.get("size"):
                given["size"] = f"{size[0]}x{size[1]}"
            options = {**CARD, **given, "label": self.why}
            text = "&".join(f"{name}={quote(value)}" for name, value in options.items())
            return open_backend(Source.parse(f"synthetic:?{text}"), self.first_seq), True
        return PixelinkCamera(self.source, self.first_seq), False

    def _absence(self) -> str:
        target = self.source.target
        try:
            return absent(load(), int(target) if target else None)
        except DriverMissing as error:
            return error.message

    def _has_appeared(self) -> bool:
        return not self._absence()

    def open(self) -> Opened:
        opened = super().open()
        return replace(opened, device=self.why) if self.why else opened


class PixelinkCamera(Backend):
    """One open camera."""

    usual_settle_frames = 3  # one may be on the wire, one in the sensor, one has begun

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.api = load()
        self.serial = int(self.source.target) if self.source.target else None
        self.handle: int | None = None

    def open(self) -> Opened:
        api = self.api
        self._initialize()
        try:
            self._stream(api.StreamState.STOP)  # a process that was killed leaves it running
            self._read_features()
            self._set_up()
            self._stream(api.StreamState.START)
            info = self._done(api.getCameraInfo(self.handle), "to say what it is")[0]
        except CameraError:
            self.close()
            raise
        model = info.ModelName.decode("utf-8", "replace").strip() or "camera"
        formats = vars(api.PixelFormat).items()
        pixel_format = next((name for name, value in formats if value == self.pixel_format), str(self.pixel_format))
        # From now on this camera is waited for: no card takes its place.
        text = f"pixelink:{self.source.target}?{self._options()}"
        return Opened(text, f"PixeLINK {model} ({self.opened_serial})", self.size, self._fps(), pixel_format)

    def _options(self) -> str:
        pairs = filter(None, self.source.text.partition("?")[2].split("&"))
        return "&".join([*(pair for pair in pairs if pair.partition("=")[0] != "simulate"), "simulate=0"])

    def _initialize(self) -> None:
        self.opened_serial = self.serial
        if missing := absent(self.api, self.serial):
            raise SourceMissing(missing, "plug it in, and look at its power; it is looked for every second")
        for serial in serials(self.api) if self.serial is None else [self.serial]:
            self.opened_serial = serial
            answer = self.api.initialize(serial)
            if self.api.apiSuccess(answer[0]):
                self.handle = answer[1]
                return
            error = self._error(answer[0], "to open")
            if not isinstance(error, SourceBusy):
                break
        raise error

    def _read_features(self) -> None:
        """What the camera has: feature -> (flags, (lowest, highest) of each of its parameters)."""
        api = self.api
        all_of_them = self._done(api.getCameraFeatures(self.handle, api.FeatureId.ALL), "to say what it can do")[0]
        self.features: dict[int, tuple[int, list[tuple[float, float]]]] = {}
        for feature in all_of_them.Features[: all_of_them.uNumberOfFeatures]:
            if feature.uFlags & api.FeatureFlags.PRESENCE:
                params = feature.Params[: feature.uNumberOfParameters]
                ranges = [(param.fMinValue, param.fMaxValue) for param in params]
                self.features[feature.uFeatureId] = feature.uFlags, ranges

    def _set_up(self) -> None:
        """Region of interest, rate and pixel format: as asked for, else as they are found; a buffer for the frames."""
        features, options = self.api.FeatureId, self.source.options
        if "size" in options and features.ROI in self.features:
            limits = self.features[features.ROI][1]
            width, height = (
                int(max(least, min(wanted, most)))
                for wanted, (least, most) in zip(options["size"], limits[2:4], strict=True)
            )
            left, top = ((int(limits[at][1]) - side) // 2 for at, side in ((2, width), (3, height)))
            self._set(features.ROI, [left, top, width, height])
        if "fps" in options and features.FRAME_RATE in self.features:
            self._set(features.FRAME_RATE, [self._within(features.FRAME_RATE, options["fps"])])
        columns, rows = self._get(features.ROI)[1][2:4]
        across = down = 1.0  # so many of the sensor's pixels make one of the picture's
        if features.PIXEL_ADDRESSING in self.features:
            _, values = self._get(features.PIXEL_ADDRESSING)
            across, down = (values[2], values[3]) if len(values) >= 4 else (values[0], values[0])
        self.size = int(columns / across), int(rows / down)
        self.pixel_format = int(self._get(features.PIXEL_FORMAT)[1][0])
        pixel_bytes = self.api.getBytesPerPixel(self.pixel_format)
        if not pixel_bytes:
            raise SourceFailed(f"{self._thing()} has the unknown pixel format {self.pixel_format}", "set another one")
        self.buffer = ctypes.create_string_buffer(math.ceil(self.size[0] * self.size[1] * pixel_bytes))
        self.failed = 0
        self.last_number: int | None = None

    def _fps(self) -> float:
        for feature in (self.api.FeatureId.ACTUAL_FRAME_RATE, self.api.FeatureId.FRAME_RATE):
            if feature in self.features:
                return float(self._get(feature)[1][0])
        return 0.0

    # --- pictures -------------------------------------------------------------------------------------------------

    def read(self, wait_s: float) -> Picture | None:
        until = time.monotonic() + wait_s
        while True:
            picture = self._next()
            if picture is not None or time.monotonic() >= until:
                return picture

    def _next(self) -> Picture | None:
        """The next picture as RGB; None for one that failed. Raises when too many have failed in a row."""
        api = self.api
        answer = api.getNextFrame(self.handle, self.buffer)  # waits for it, outside of the GIL
        captured_ns = time.monotonic_ns()
        if api.apiSuccess(answer[0]):
            description = answer[1]
            answer = api.formatImage(self.buffer, description, api.ImageFormat.RAW_RGB24_NON_DIB)
        if not api.apiSuccess(answer[0]):
            self.failed += 1
            if name_of(api, answer[0]) not in RETRIED or self.failed >= RETRIES:
                raise self._error(answer[0], "to give a picture")
            self.drops["failed"] += 1
            return None
        self.failed = 0
        number = int(description.uFrameNumber)
        if self.last_number is not None and number > self.last_number + 1:
            self.drops["lost"] += number - self.last_number - 1
        self.last_number = number
        import numpy as np

        width, height = self.size
        pixels = np.frombuffer(answer[1], np.uint8)
        if pixels.size != width * height * 3:
            self.drops["broken"] += 1
            return None
        return Picture(self.size, captured_ns, rgb=pixels.reshape(height, width, 3))

    # --- settings -------------------------------------------------------------------------------------------------

    def limits(self) -> Limits:
        features, flags = self.api.FeatureId, self.api.FeatureFlags
        exposure, gain = self.features.get(features.EXPOSURE), self.features.get(features.GAIN)
        return Limits(
            exposure_us=(_us(exposure[1][0][0]), _us(exposure[1][0][1])) if exposure else None,
            gain=(_factor(gain[1][0][0]), _factor(gain[1][0][1])) if gain else None,
            auto_exposure=bool(exposure and exposure[0] & flags.AUTO),
        )

    def apply(self, wanted: Settings) -> Settings:
        asked = {name: self.source.options[name] for name in ("exposure_us", "gain") if name in self.source.options}
        wanted = Settings().changed(asked).changed(wanted.given())
        limits, features = self.limits(), self.api.FeatureId
        if not limits.auto_exposure and not wanted.auto_exposure:
            wanted = Settings(wanted.exposure_us, wanted.gain)  # manual is all it knows
        limits.check(wanted.given(), self._thing())
        if wanted.auto_exposure:
            self._set(features.EXPOSURE, self._get(features.EXPOSURE)[1], self.api.FeatureFlags.AUTO)
        elif wanted.exposure_us is not None:
            self._set(features.EXPOSURE, [self._within(features.EXPOSURE, wanted.exposure_us / 1e6)])
        elif wanted.auto_exposure is False:
            self._set(features.EXPOSURE, self._get(features.EXPOSURE)[1][:1])
        if wanted.gain is not None:
            decibels = 20 * math.log10(wanted.gain) if wanted.gain > 0 else -math.inf
            self._set(features.GAIN, [self._within(features.GAIN, decibels)])
        return self._applied()

    def _within(self, feature: int, value: float) -> float:
        """The limits are rounded in our units: what lies inside those may lie a hair outside in the camera's."""
        low, high = self.features[feature][1][0]
        return max(low, min(value, high))

    def _applied(self) -> Settings:
        features, flags = self.api.FeatureId, self.api.FeatureFlags
        exposure_us = gain = auto_exposure = None
        if features.EXPOSURE in self.features:
            mode, values = self._get(features.EXPOSURE)
            exposure_us = _us(values[0])
            if self.features[features.EXPOSURE][0] & flags.AUTO:
                auto_exposure = bool(mode & flags.AUTO)
        if features.GAIN in self.features:
            gain = _factor(self._get(features.GAIN)[1][0])
        return Settings(exposure_us, gain, auto_exposure)

    def _get(self, feature: int) -> tuple[int, list[float]]:
        flags, values = self._done(self.api.getFeature(self.handle, feature), "to read a feature")
        return flags, list(values)

    def _set(self, feature: int, values: list[float], flag: int | None = None) -> None:
        api = self.api
        flags = api.FeatureFlags.MANUAL if flag is None else flag
        answer = api.setFeature(self.handle, feature, flags, values)
        if name_of(api, answer[0]) == "ApiNotPermittedWhileStreaming":
            self._stream(api.StreamState.STOP)
            answer = api.setFeature(self.handle, feature, flags, values)
            self._stream(api.StreamState.START)
        if name_of(api, answer[0]) in REFUSED:
            raise SettingOutOfRange(f"{self._thing()} refuses {values} for its feature {feature}", "take another value")
        self._done(answer, "to set a feature")

    # --- the end, and errors --------------------------------------------------------------------------------------

    def close(self) -> None:
        if self.handle is not None:
            self.api.setStreamState(self.handle, self.api.StreamState.STOP)
            self.api.uninitialize(self.handle)
            self.handle = None

    def still_there(self) -> None:
        if missing := absent(self.api, self.opened_serial):
            raise SourceMissing(missing, "plug it in again; it is looked for every second")

    def _stream(self, state: int) -> None:
        self._done(self.api.setStreamState(self.handle, state), "to start or stop its pictures")

    def _done(self, answer: tuple[Any, ...], what: str) -> tuple[Any, ...]:
        """What a call gave behind its code. Raises the camera's error for the SDK's."""
        if not self.api.apiSuccess(answer[0]):
            raise self._error(answer[0], what)
        return answer[1:]

    def _thing(self) -> str:
        return f"the PixeLINK camera {self.opened_serial}"

    def _error(self, code: int, what: str) -> CameraError:
        """The camera's error for the SDK's code."""
        name, thing = name_of(self.api, code), self._thing()
        if name in BUSY:
            return SourceBusy(f"{thing} is held by another process ({name})", "stop the other program, such as Capture")
        if name == "ApiOSAccessDeniedError":
            return SourceDenied(
                f"{thing} may not be opened by this user (uid {os.getuid()})", "install the udev rules of the SDK"
            )
        if name in UNFIT:
            return DriverMissing(f"{thing}: the PixeLINK SDK does not fit it or this system ({name})", SDK_HINT)
        # Whatever a call says when the cable is pulled while it runs.
        if name in GONE or self.opened_serial not in serials(self.api):
            return SourceMissing(f"{thing} was unplugged ({name})", "plug it in again; it is looked for every second")
        if name in LATE:
            return SourceStalled(f"{thing} took too long {what} ({name})", "look at its cable, its power and `dmesg`")
        return SourceFailed(f"{thing} failed {what}: {name}{self._report(code, name)}", "`dmesg` says more")

    def _report(self, code: int, name: str) -> str:
        """What the SDK says beyond its code; nothing where its report has another layout than the wrapper thinks."""
        answer: tuple[Any, ...] = self.api.getErrorReport(self.handle) if self.handle is not None else (-1,)
        if not self.api.apiSuccess(answer[0]) or answer[1].uReturnCode != code:
            return ""
        if answer[1].strReturnCode.decode("utf-8", "replace") != name:
            return ""
        return f": {answer[1].strReport.decode('utf-8', 'replace').strip()}"


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _factor(decibels: float) -> float:
    return round(10 ** (decibels / 20), 4)
