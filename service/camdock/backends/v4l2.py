"""v4l2: a Linux camera through linuxpy: MJPEG as it comes, everything else encoded from its planes.

Runs in: the worker.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from linuxpy.ioctl import ioctl
from linuxpy.video import raw
from linuxpy.video.device import (
    IOC,
    BufferType,
    Capability,
    Device,
    Memory,
    V4L2Error,
    VideoCapture,
    get_control,
    get_raw_format,
    iter_read_controls,
    iter_read_formats,
    read_capabilities,
    set_control,
)

from camdock import devices
from camdock.backends import Backend, Opened
from camdock.errors import CameraError, SourceBusy, SourceDenied, SourceFailed, SourceMissing
from camdock.frame import Picture, whole_jpeg
from camdock.settings import Limits, Settings
from camdock.source import device_path

BUFFERS = 4
# What we can turn into JPEG, the cheapest first: a camera that encodes costs us nothing.
PREFERRED = ("MJPG", "JPEG", "YU12", "NV12", "YV12", "YUYV", "UYVY", "RGB3", "BGR3", "GREY")
DEFAULT_SIZES = {"MJPG": (1280, 720), "JPEG": (1280, 720)}
DEFAULT_RAW_SIZE = (640, 480)
# Video nodes that capture, but are no cameras: parts of the Pi's and other codecs and image processors.
NO_CAMERAS = ("bcm2835-isp", "bcm2835-codec", "rpi-hevc-dec", "unicam", "rp1-cfe", "pispbe", "rkisp1", "hantro-vpu")
GAIN_STEPS = 16  # V4L2 gives gain no unit; most sensors count in sixteenths, and their least is none

CID_EXPOSURE_AUTO, CID_EXPOSURE_ABSOLUTE = 0x009A0901, 0x009A0902
CID_GAIN, CID_ANALOGUE_GAIN = 0x00980913, 0x009E0903
EXPOSURE_UNIT_US = 100  # V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 microseconds
AUTO, MANUAL, APERTURE_PRIORITY = 0, 1, 3
_FLAG_ERROR, _FLAG_MONOTONIC, _TIMESTAMP_MASK = 0x40, 0x2000, 0xE000


def holders(path: str) -> list[str]:
    """Which other processes have a device open: "pid 812 (guvcview)"; only those that we may look into."""
    found, _closed = devices.holders([path])
    return [f"pid {pid} ({name})" for pid, name in found.get(path, {}).items()]


def error_of(error: OSError, path: str) -> CameraError:
    """The camera's error for the driver's, naming the device."""
    match error.errno:
        case errno.ENOENT:
            return SourceMissing(f"{path} does not exist", "plug the camera in; it is looked for every second")
        case errno.ENODEV | errno.ENXIO:
            return SourceMissing(
                f"{path} was unplugged, or its driver is gone", "plug it in again; it is looked for every second"
            )
        case errno.EACCES | errno.EPERM:
            return SourceDenied(f"{path} may not be opened by this user (uid {os.getuid()})", _permission(error, path))
        case errno.EBUSY:
            by = " and ".join(holders(os.path.realpath(path))) or "another process"
            return SourceBusy(f"{path} is held by {by}", "stop that program, or let it be the source: relay:http://...")
        case _:
            name = errno.errorcode.get(error.errno or 0, "error")
            return SourceFailed(f"{path}: the driver answers {name}: {error.strerror}", "`dmesg` says more")


def _permission(error: OSError, path: str) -> str:
    """What gives this process the right to open a device: a line for the machine, or for the container it runs in."""
    boxed = any(os.path.exists(mark) for mark in devices.IN_CONTAINER)
    if error.errno == errno.EPERM and boxed:
        # The group is right, or EACCES would have come first: the container's list of devices refuses.
        return """`--device-cgroup-rule 'c 81:* rw'`, in compose.yaml `device_cgroup_rules: ["c 81:* rw"]`"""
    number, name, mode = 44, "video", 0o660  # Debian's, where the node cannot even be looked at
    with suppress(OSError, KeyError):
        status = os.stat(path)
        number, mode = status.st_gid, status.st_mode
        name = grp.getgrgid(number).gr_name
    if number == 0 or mode & 0o060 != 0o060:  # group root would be a gift, and another one may not open it either
        where = "on the machine itself: " if boxed else ""
        return f"{where}`sudo chgrp video {path} && sudo chmod 660 {path}`; for good with a udev rule"
    # By number: the name may stand for another group inside, or for none.
    inside = f"""`--group-add {number}`, in compose.yaml `group_add: ["{number}"]`"""
    if boxed:
        return inside
    return f"`sudo usermod -aG {name} USER`, then start the service anew; in a container: {inside}"


def is_camera(path: str) -> bool:
    """Whether a video node gives pictures that we can use. Raises OSError when it cannot be opened."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _is_camera(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _is_camera(descriptor: int) -> bool:
    capabilities = read_capabilities(descriptor)
    able = Capability(capabilities.device_caps or capabilities.capabilities)
    if Capability.VIDEO_CAPTURE not in able or Capability.STREAMING not in able or Capability.VIDEO_M2M in able:
        return False
    if capabilities.driver.decode("latin-1").rstrip("\0") in NO_CAMERAS:
        return False
    return any(
        one.pixel_format.human_str() in PREFERRED for one in iter_read_formats(descriptor, BufferType.VIDEO_CAPTURE)
    )


def first_camera() -> str | None:
    """The lowest-numbered camera of this machine, by the name that survives replugging; None when there is none.

    A camera that cannot be opened is a camera too: better its reason than a test card.
    """
    for number in range(64):
        path = f"/dev/video{number}"
        if not os.path.exists(path):
            continue
        try:
            found = is_camera(path)
        except OSError as error:
            found = error.errno in (errno.EACCES, errno.EPERM, errno.EBUSY)
        if found:
            return _stable_name(path)
    return None


def _stable_name(path: str) -> str:
    for folder in ("/dev/v4l/by-id", "/dev/v4l/by-path"):
        with suppress(OSError):
            for link in sorted(Path(folder).iterdir()):
                if os.path.realpath(link) == path:
                    return str(link)
    return path


class V4L2(Backend):
    """One V4L2 capture device with memory-mapped buffers."""

    usual_settle_frames = BUFFERS + 1  # every buffer may be filled, and the sensor is a picture ahead

    def open(self) -> Opened:
        self.path = device_path(self.source.target)
        self._last_sequence: int | None = None
        self.device = Device(self.path)
        try:
            return self._open()
        except (OSError, V4L2Error) as error:
            self.close()
            if isinstance(error, OSError):
                raise error_of(error, self.path) from error
            raise SourceFailed(
                f"{self.path}: {error}", "it may be no capture device: `v4l2-ctl --list-devices`"
            ) from error

    def _open(self) -> Opened:
        self.device.open()
        self.descriptor = self.device.fileno()
        if not _is_camera(self.descriptor):
            raise SourceFailed(
                f"{self.path} gives no pictures that can be used: it is no camera, or its formats are unknown",
                "`v4l2-ctl --list-devices` shows which node is the camera, often the one with the lowest number",
            )
        self.controls = {control.id: control for control in iter_read_controls(self.descriptor)}
        self.format = self._choose_format()
        self.capture = VideoCapture(self.device, size=BUFFERS)
        width, height = self.source.options.get("size") or DEFAULT_SIZES.get(self.format, DEFAULT_RAW_SIZE)
        self.capture.set_format(width, height, self.format)
        got = get_raw_format(self.descriptor, BufferType.VIDEO_CAPTURE).fmt.pix
        self.size, self.stride = (got.width, got.height), got.bytesperline
        # What a driver leaves open is video range, except beside the colourspace that is named after JPEG.
        unsaid = got.quantization == raw.Quantization.DEFAULT and got.colorspace != raw.Colorspace.JPEG
        self.is_video_range = got.quantization == raw.Quantization.LIM_RANGE or unsaid
        fps = 0.0
        with suppress(OSError, ZeroDivisionError):  # not every driver knows its rate; some say 0/0
            if "fps" in self.source.options:
                self.capture.set_fps(self.source.options["fps"])
            fps = float(self.capture.get_fps())
        self.late_ns = int(2.5e9 / fps) if fps else 200_000_000
        self._picture_of = self._reader()
        self.capture.open()
        self._maps = self.capture.buffer.buffers
        self._buffer = raw.v4l2_buffer(type=BufferType.VIDEO_CAPTURE, memory=Memory.MMAP)
        name = read_capabilities(self.descriptor).card.decode("utf-8", "replace").rstrip("\0")
        return Opened(self.source.redacted, f"{name} ({self.path})", self.size, fps, self.format)

    def _choose_format(self) -> str:
        offered = [one.pixel_format.human_str() for one in iter_read_formats(self.descriptor, BufferType.VIDEO_CAPTURE)]
        asked = self.source.options.get("format")
        if asked and asked not in offered:
            raise SourceFailed(f"{self.path} does not offer {asked}", "it offers " + ", ".join(offered))
        return asked or next(name for name in PREFERRED if name in offered)

    def _reader(self) -> Callable[[bytes, int], Picture | None]:
        """How a buffer of this format becomes a Picture."""
        if self.format in ("MJPG", "JPEG"):
            return self._jpeg
        import numpy as np  # only for cameras that do not encode

        from camdock import imaging

        (width, height), size = self.size, self.size
        stride = self.stride or width
        packed = {"YUYV": 2, "UYVY": 2, "RGB3": 3, "BGR3": 3, "GREY": 1}

        def planes(data: bytes, captured_ns: int) -> Picture | None:
            flat = np.frombuffer(data, np.uint8)
            pitch = max(stride, width * packed.get(self.format, 1))
            rows = height if self.format in packed else height * 3 // 2
            if flat.size < pitch * rows:
                return None
            lines = flat[: pitch * rows].reshape(rows, pitch)
            match self.format:
                case "YUYV" | "UYVY":
                    is_uyvy, is_video = self.format == "UYVY", self.is_video_range
                    split = imaging.split_yuyv(lines, width, height, uyvy=is_uyvy, video_range=is_video)
                    return Picture(size, captured_ns, planes=split)
                case "NV12":
                    split = imaging.split_nv12(lines, width, height)
                case "GREY":
                    return Picture(size, captured_ns, planes=(np.ascontiguousarray(lines[:, :width]),))
                case "RGB3" | "BGR3":
                    array = np.ascontiguousarray(lines[:, : width * 3]).reshape(height, width, 3)
                    return Picture(size, captured_ns, rgb=array, order=self.format[:3])
                case _:  # YU12, and YV12 with the two chroma planes the other way round
                    y, *chroma = imaging.split_yuv420(flat, width, height, pitch)
                    split = (y, *(chroma if self.format == "YU12" else reversed(chroma)))
            return Picture(size, captured_ns, planes=imaging.to_full_range(split) if self.is_video_range else split)

        return planes

    def _jpeg(self, data: bytes, captured_ns: int) -> Picture | None:
        jpeg = whole_jpeg(data)
        return None if jpeg is None else Picture(self.size, captured_ns, jpeg=jpeg)

    def read(self, wait_s: float) -> Picture | None:
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            if not select.select([self.descriptor], [], [], left)[0]:
                return None
            frame = self._take()
            if frame is None:
                continue
            # A buffer this old means that we are behind: take the newest one, or every picture comes this late.
            while time.monotonic_ns() - frame[1] > self.late_ns and select.select([self.descriptor], [], [], 0)[0]:
                newer = self._take()
                if newer is None:
                    break
                self.drops["late"] += 1
                frame = newer
            picture = self._picture_of(*frame)
            if picture is not None:
                return picture
            self.drops["broken"] += 1
        return None

    def _take(self) -> tuple[bytes, int] | None:
        """(bytes, captured_ns) of the next buffer, which goes straight back to the driver; None for a bad one.

        linuxpy's own reader makes two structures and copies one for every frame; this uses one of its structures.
        """
        buffer = self._buffer
        try:
            fcntl.ioctl(self.descriptor, IOC.DQBUF, buffer)
            # All that is wanted of it is read before it goes back: QBUF writes into the structure too.
            data = self._maps[buffer.index][: buffer.bytesused]
            flags, sequence = buffer.flags, buffer.sequence
            stamp = buffer.timestamp.secs * 1_000_000_000 + buffer.timestamp.usecs * 1000
            fcntl.ioctl(self.descriptor, IOC.QBUF, buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise error_of(error, self.path) from error
        if self._last_sequence is not None and sequence > self._last_sequence + 1:
            self.drops["lost"] += sequence - self._last_sequence - 1
        self._last_sequence = sequence
        if flags & _FLAG_ERROR or not data:
            self.drops["broken"] += 1
            return None
        now = time.monotonic_ns()
        # Some drivers' clocks drift or start at nought; a stamp that cannot be true is not used.
        is_true = flags & _TIMESTAMP_MASK == _FLAG_MONOTONIC and now - 10_000_000_000 < stamp <= now
        return data, stamp if is_true else now

    # --- settings -------------------------------------------------------------------------------------------------

    def _gain_control(self) -> Any:
        return self.controls.get(CID_GAIN) or self.controls.get(CID_ANALOGUE_GAIN)

    def limits(self) -> Limits:
        exposure, gain = self.controls.get(CID_EXPOSURE_ABSOLUTE), self._gain_control()
        return Limits(
            exposure_us=(exposure.minimum * EXPOSURE_UNIT_US, exposure.maximum * EXPOSURE_UNIT_US)
            if exposure
            else None,
            gain=(1.0, 1.0 + (gain.maximum - gain.minimum) / GAIN_STEPS) if gain else None,
            auto_exposure=CID_EXPOSURE_AUTO in self.controls,
        )

    def apply(self, wanted: Settings) -> Settings:
        asked = {name: self.source.options[name] for name in ("exposure_us", "gain") if name in self.source.options}
        wanted = Settings().changed(asked).changed(wanted.given())
        if CID_EXPOSURE_AUTO not in self.controls and not wanted.auto_exposure:
            wanted = Settings(wanted.exposure_us, wanted.gain)  # manual is all it knows
        self.limits().check(wanted.given(), self.path)
        # uvcvideo marks exposure_time_absolute inactive while auto_exposure is on: auto goes first.
        if wanted.auto_exposure is not None:
            self._set(CID_EXPOSURE_AUTO, self._auto_mode() if wanted.auto_exposure else MANUAL)
        if wanted.exposure_us is not None:
            self._set(CID_EXPOSURE_ABSOLUTE, round(wanted.exposure_us / EXPOSURE_UNIT_US))
        if wanted.gain is not None:
            control = self._gain_control()
            self._set(control.id, control.minimum + round((wanted.gain - 1.0) * GAIN_STEPS))
        return self._applied()

    def _auto_mode(self) -> int:
        # Webcams know aperture priority (the exposure follows the light), others a full automatic.
        menu = raw.v4l2_querymenu(id=CID_EXPOSURE_AUTO, index=APERTURE_PRIORITY)
        try:
            ioctl(self.descriptor, IOC.QUERYMENU, menu)
        except OSError:
            return AUTO
        return APERTURE_PRIORITY

    def _set(self, control_id: int, value: int) -> None:
        try:
            set_control(self.descriptor, control_id, value)
        except OSError as error:
            raise error_of(error, f"{self.path}: control {self.controls[control_id].name.decode('latin-1')}") from error

    def _get(self, control_id: int) -> int | None:
        with suppress(OSError):
            return int(get_control(self.descriptor, control_id))
        return None

    def _applied(self) -> Settings:
        exposure = self._get(CID_EXPOSURE_ABSOLUTE) if CID_EXPOSURE_ABSOLUTE in self.controls else None
        mode = self._get(CID_EXPOSURE_AUTO) if CID_EXPOSURE_AUTO in self.controls else None
        gain, control = None, self._gain_control()
        if control is not None and (value := self._get(control.id)) is not None:
            gain = 1.0 + (value - control.minimum) / GAIN_STEPS
        return Settings(
            exposure_us=None if exposure is None else exposure * EXPOSURE_UNIT_US,
            gain=gain,
            auto_exposure=None if mode is None else mode != MANUAL,
        )

    def close(self) -> None:
        with suppress(OSError, AttributeError):
            self.capture.close()
        with suppress(OSError):
            self.device.close()

    def still_there(self) -> None:
        try:
            os.stat(self.path)
        except OSError as error:
            raise error_of(error, self.path) from error
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise error_of(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), self.path)
