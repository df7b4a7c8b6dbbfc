"""What stands in for the parts that only a Raspberry Pi has, under the real picamera2 on libcamera's virtual pipeline.

Runs in: whatever process imports picamera2 beside sitecustomize.py.

    part of a Pi                stands here as                    what it cannot prove
    dma-heap memory             Memory: memory files              contiguous memory running out; caches kept coherent
    the image signal processor  Isp: NumPy on NV12                its strides, colours and speed; two streams at once
    the sensor                  Sensor: a list of controls, one   that a control shows some pictures late; automatic
                                picture for each frame duration   exposure that searches; raw modes, autofocus, HDR
    the encoder of a Pi 4       nothing                           hardware JPEG at all

Real are picamera2, libcamera and its Python binding: cameras, configurations, requests, threads, start, stop, closing.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import faults
import libcamera
import numpy as np
import picamera2.picamera2 as library
from picamera2.allocators import DmaAllocator
from picamera2.allocators.allocator import Allocator, Sync
from PIL import Image
from prepared import Prepared

REAL = SimpleNamespace()  # what was there before
CHANNELS = {"RGB888": 3, "BGR888": 3, "XRGB8888": 4, "XBGR8888": 4}


# --- the image signal processor ---------------------------------------------------------------------------------------


class Isp:
    """Turns the virtual pipeline's NV12, video range, into what was asked for, as bright as the sensor is set."""

    def __init__(self, name: str, size: tuple[int, int], *, full_range: bool) -> None:
        self.name, self.size, self.full_range = name, size, full_range
        width, height = size
        # As the Pi's does: lines begin at multiples of 64 bytes, those of a chroma plane too.
        self.stride = -(-width * CHANNELS[name] // 64) * 64 if name in CHANNELS else -(-width // 128) * 128
        self.bytes = self.stride * height if name in CHANNELS else self.stride * height * 3 // 2

    def convert(self, nv12: Any, brightness: float) -> Any:
        """(bytes,) uint8 in the stream's format and stride."""
        width, height = self.size
        levels = np.arange(256)
        stretched = (levels - 16) * (255 / 219) if self.full_range or self.name in CHANNELS else levels
        y = np.clip(stretched * brightness, 0, 255).astype(np.uint8)[nv12[: width * height].reshape(height, width)]
        pairs = nv12[width * height :].reshape(height // 2, width // 2, 2)
        if self.full_range or self.name in CHANNELS:
            pairs = np.clip((levels - 128) * (255 / 224) + 128, 0, 255).astype(np.uint8)[pairs]
        u, v = pairs[..., 0], pairs[..., 1]
        out = np.zeros(self.bytes, np.uint8)
        if self.name == "YUV420":
            first = self.stride * height
            out[:first].reshape(height, self.stride)[:, :width] = y
            chroma = out[first:].reshape(2, height // 2, self.stride // 2)
            chroma[0, :, : width // 2], chroma[1, :, : width // 2] = u, v
            return out
        if self.name not in CHANNELS:
            raise NotImplementedError(f"the stand-in makes no {self.name}")
        rgb = _rgb(y, u, v)
        if self.name in ("RGB888", "XRGB8888"):  # libcamera's names are little-endian
            rgb = rgb[..., ::-1]
        lines = out.reshape(height, self.stride)[:, : width * CHANNELS[self.name]].reshape(height, width, -1)
        lines[..., :3] = rgb
        if lines.shape[2] == 4:
            lines[..., 3] = 255
        return out


def _rgb(y: Any, u: Any, v: Any) -> Any:
    """Full-range planes to (H, W, 3)."""
    size = (y.shape[1], y.shape[0])
    chroma = [Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.NEAREST) for plane in (u, v)]
    return np.asarray(Image.merge("YCbCr", [Image.fromarray(y), *chroma]).convert("RGB"))


# --- memory -----------------------------------------------------------------------------------------------------------


class Memory(Allocator):  # type: ignore[misc]
    """Buffers in memory files where a Pi has them in /dev/dma_heap; what libcamera wrote is converted on completion."""

    now: ClassVar[Memory]

    def __init__(self) -> None:
        super().__init__()
        if faults.there("no_heap"):
            DmaAllocator()  # the real one, in a container that really has no /dev/dma_heap
        self.sync = _Mapped
        Memory.now = self
        self.isps: list[Isp] = []  # one for each stream, in order
        self.mapped: dict[Any, mmap.mmap] = {}
        self.said: dict[Any, dict[Any, Any]] = {}  # what the sensor said when a buffer was filled
        self._captured: dict[Any, tuple[mmap.mmap, Isp]] = {}
        self._buffers: dict[Any, list[Any]] = {}
        self._descriptors: list[int] = []
        self._prepared: dict[Any, Prepared] = {}

    def allocate(self, libcamera_config: Any, _use_case: Any = None) -> None:
        self.close()
        for place, config in enumerate(libcamera_config):
            isp, made = self.isps[place], []
            width, height = config.size.width, config.size.height
            prepared = Prepared.wanted(isp, Isp.convert)
            for _ in range(config.buffer_count):
                descriptor = os.memfd_create("camdock-rig", os.MFD_CLOEXEC)
                self._descriptors.append(descriptor)
                os.ftruncate(descriptor, config.frame_size)
                buffer = libcamera.FrameBuffer([
                    _plane(descriptor, 0, width * height), _plane(descriptor, width * height, width * height // 2)
                ])  # fmt: skip
                made.append(buffer)
                self._captured[buffer] = mmap.mmap(descriptor, config.frame_size), isp
                self.mapped[buffer] = mmap.mmap(-1, isp.bytes)
                if prepared is not None:
                    self._prepared[buffer] = prepared
            self._buffers[config.stream] = made

    def buffers(self, stream: Any) -> list[Any]:
        return self._buffers[stream]

    def acquire(self, buffers: Mapping[Any, Any]) -> None:
        """A request was completed; nobody has seen its buffers yet."""
        for buffer in buffers.values():
            self.said[buffer] = Sensor.now.said
            if prepared := self._prepared.get(buffer):
                self.mapped[buffer] = prepared.next()
                continue
            captured, isp = self._captured[buffer]
            nv12 = np.frombuffer(captured, np.uint8)
            self.mapped[buffer][:] = isp.convert(nv12, Sensor.now.brightness).tobytes()

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._buffers, self._captured, self.mapped, self._prepared = [], {}, {}, {}, {}
        self.said.clear()


class _Mapped(Sync):  # type: ignore[misc]
    def __init__(self, allocator: Memory, buffer: Any, _write: bool) -> None:
        self._allocator, self._buffer = allocator, buffer

    def __enter__(self) -> Any:
        return self._allocator.mapped.get(self._buffer)

    def __exit__(self, *_: object) -> None: ...


def _plane(descriptor: int, offset: int, length: int) -> Any:
    plane = libcamera.FrameBuffer.Plane()
    plane.fd, plane.offset, plane.length = descriptor, offset, length
    return plane


# --- the sensor -------------------------------------------------------------------------------------------------------


class Sensor:
    """Its controls, in force at once, what it says of a picture, and one picture for each frame duration."""

    CONTROLS: ClassVar[Mapping[str, tuple[Any, Any, Any]]] = {
        "AeEnable": (False, True, True),
        "ExposureTime": (29, 1_000_000, 20_000),
        "AnalogueGain": (1.0, 16.0, 1.0),
        "FrameDurationLimits": (16_667, 2_000_000, 33_333),
    }
    USUAL_US, USUAL_GAIN, LIGHT_K = 20_000, 1.0, 4700
    now: ClassVar[Sensor]

    def __init__(self) -> None:
        self.asked_us, self.gain, self.frame_us = self.USUAL_US, self.USUAL_GAIN, 33_333
        self.is_automatic = True
        self.said = self._metadata()

    def set(self, name: str, value: Any) -> None:
        """One control, by libcamera's name."""
        match name:
            case "AeEnable":
                self.is_automatic = bool(value)
            case "ExposureTimeMode":  # picamera2's way of saying it from 0.3.27 on: 0 automatic, 1 by hand
                self.is_automatic = value == 0
            case "ExposureTime" if value:
                self.asked_us = int(value)
            case "AnalogueGain" if value:
                self.gain = float(value)
            case "FrameDurationLimits":
                self.frame_us = int(value[0])
        if self.is_automatic:
            self.asked_us, self.gain = self.USUAL_US, self.USUAL_GAIN
        self.said = self._metadata()

    @property
    def exposure_us(self) -> int:
        """The time between two pictures is what really clips it."""
        return min(self.asked_us, self.frame_us)

    @property
    def brightness(self) -> float:
        """Of a picture, 1.0 where automatic exposure would have it."""
        return self.exposure_us * self.gain / (self.USUAL_US * self.USUAL_GAIN)

    def _metadata(self) -> dict[Any, Any]:
        """What a Pi's pipeline adds to a completed request; made here: for each it would cost who measures."""
        said = {
            "ExposureTime": self.exposure_us, "AnalogueGain": self.gain, "ColourTemperature": self.LIGHT_K,
            "AeState": 2, "FrameDuration": self.frame_us,
        }  # fmt: skip
        return {getattr(libcamera.controls, name): value for name, value in said.items()
                if hasattr(libcamera.controls, name)}  # fmt: skip


class Pace:
    """Passes queued requests on to the camera one at a time: a sensor completes one for each frame duration."""

    def __init__(self) -> None:
        self._queued: queue.SimpleQueue[tuple[Any, Any, int]] = queue.SimpleQueue()
        self._run_number = 0
        threading.Thread(target=self._run, daemon=True, name="rig: pace").start()

    def queue(self, camera: Any, request: Any) -> None:
        self._queued.put((camera, request, self._run_number))

    def stopped(self) -> None:
        """What is queued belongs to a run that is over: libcamera would have cancelled it."""
        self._run_number += 1

    def _run(self) -> None:
        # The kernel's name of it, too: whoever counts processor time from outside leaves it out (test_cost.py).
        Path("/proc/thread-self/comm").write_text("rig: pace")
        due = time.monotonic()
        while True:
            camera, request, number = self._queued.get()
            due = max(due + Sensor.now.frame_us / 1e6, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            faults.before_a_picture(library.Picamera2)
            if number == self._run_number:
                REAL.queue_request(camera, request)


# --- putting them under picamera2 -------------------------------------------------------------------------------------


def install() -> None:
    """Once for a process."""
    Sensor.now = Sensor()
    _put_memory_and_isp()
    _put_sensor()
    faults.install(REAL)


def _put_memory_and_isp() -> None:
    one = library.Picamera2
    library.DmaAllocator = Memory
    REAL.update_stream_config, REAL.update_camera_config = one._update_stream_config, one._update_camera_config

    def update_stream_config(self: Any, stream_config: Any, libcamera_stream_config: Any) -> None:
        wanted = stream_config["format"]
        REAL.update_stream_config(self, stream_config, libcamera_stream_config)
        isp = Isp(wanted, stream_config["size"], full_range=self.rig_full_range)
        stream_config |= {"format": wanted, "stride": isp.stride, "framesize": isp.bytes}
        self.allocator.isps.append(isp)

    def update_camera_config(self: Any, camera_config: Any, libcamera_config: Any) -> None:
        self.allocator.isps = []
        space = camera_config["colour_space"]
        self.rig_full_range = str(space.range).endswith("Full")
        REAL.update_camera_config(self, camera_config, libcamera_config)
        camera_config["colour_space"] = space

    one._update_stream_config, one._update_camera_config = update_stream_config, update_camera_config


def _put_sensor() -> None:
    camera, request = libcamera.Camera, libcamera.Request
    REAL.controls, REAL.start, REAL.stop = camera.controls, camera.start, camera.stop
    REAL.queue_request, REAL.set_control, REAL.metadata = camera.queue_request, request.set_control, request.metadata
    pace = Pace()

    def controls(self: Any) -> dict[Any, Any]:
        advertised = dict(REAL.controls.__get__(self))
        for name, (low, high, usual) in Sensor.CONTROLS.items():
            advertised[getattr(libcamera.controls, name)] = SimpleNamespace(min=low, max=high, default=usual)
        return advertised

    def start(self: Any, given: Mapping[Any, Any] | None = None) -> Any:
        for control, value in (given or {}).items():
            Sensor.now.set(control.name, value)
        return REAL.start(self, {})

    def stop(self: Any) -> Any:
        faults.before_a_stop()
        pace.stopped()
        return REAL.stop(self)

    def metadata(self: Any) -> dict[Any, Any]:
        said = Memory.now.said.get(next(iter(self.buffers.values())), {})
        return {**REAL.metadata.__get__(self), **said}

    def raw_modes(self: Any) -> list[dict[str, Any]]:
        formats = self.camera.generate_configuration([libcamera.StreamRole.VideoRecording]).at(0).formats
        return [{"format": str(one), "size": (size.width, size.height)}
                for one in formats.pixel_formats for size in formats.sizes(one)]  # fmt: skip

    camera.controls = property(controls)
    camera.start, camera.stop = start, stop
    camera.queue_request = lambda self, one: pace.queue(self, one)
    request.set_control = lambda self, control, value: Sensor.now.set(control.name, value)
    request.metadata = property(metadata)
    library.Picamera2._get_raw_modes = raw_modes
    REAL.init = library.Picamera2.__init__

    def init(self: Any, camera_num: int = 0, *arguments: Any, **named: Any) -> None:
        self.rig_place = camera_num  # for the fault that opens it again
        REAL.init(self, camera_num, *arguments, **named)

    library.Picamera2.__init__ = init
