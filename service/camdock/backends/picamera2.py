"""picamera2: a camera on a Raspberry Pi's ribbon cable: YUV420 encoded from its planes, stills by a mode switch.

Runs in: the worker. In here `picamera2` is the library, which camdock/picamera2lib.py loads.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from camdock import devices, imaging
from camdock.backends import Backend, Opened
from camdock.errors import CameraError, SourceBusy, SourceDenied, SourceFailed, SourceMissing, SourceStalled
from camdock.frame import Picture
from camdock.picamera2controls import controls_of
from camdock.picamera2lib import HEAPS, heaps, load, reasons
from camdock.settings import Limits, Settings

SIZE, FPS = (1280, 720), 30.0
BUFFERS = 6  # picamera2's own number for video: fewer, and a slow moment costs pictures
STILL_BUFFERS = 1  # one picture of 12 megapixels at a time: contiguous memory is scarce
STILL_WITHIN_S = 5.0  # a mode switch and the sensor's slowest picture; an exposure comes on top
CONVERGE_WITHIN_S = 1.5  # how long a still waits for automatic exposure to find its value
ENCODER = "/dev/video11"  # of the Pi 4 and earlier; picamera2 opens it by this name
ENCODER_CARD = "bcm2835-codec-encode"
AE_SEARCHING = 1  # libcamera's AeStateSearching


class PiCamera(Backend):
    """One camera, by its place in picamera2's list, by libcamera's id, or by its model.

    usual_settle_frames  0: a still is taken in a mode that is started with its settings
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.library = load()
        self.versions = self.library.versions
        controls = self.library.libcamera.controls
        self._ae_state = getattr(controls, "AeState", None)
        self._told = (
            ("exposure_us", int, controls.ExposureTime),
            ("gain", lambda value: round(value, 3), controls.AnalogueGain),
            ("colour_temperature_k", int, controls.ColourTemperature),
            ("timestamp_ns", int, controls.SensorTimestamp),
        )
        self.camera: Any = None
        self.encoder: Any = None
        self.sensor: dict[str, Any] = {}
        self.is_searching = self.is_video_range = self.is_hardware = False
        self.main: dict[str, Any] = {}  # picamera2's words for the stream of the mode in force
        self.controls: dict[str, Any] = {}  # those of the settings in force; _live_controls: of the last live picture
        self._live_controls: dict[str, Any] = {}
        self._is_stopped = False  # by a still
        self._completed = select.poll()
        self._newest: Any = None  # a request that was completed and not fetched
        self._late = 0  # requests that were let go of because a newer one came
        self._last_number: int | None = None

    # --- opening --------------------------------------------------------------------------------------------------

    def open(self) -> Opened:
        cameras = self._cameras()
        place = self._place(cameras)
        self.name = f"{cameras[place].get('Model', 'camera')} ({cameras[place]['Id']})"
        try:
            self.camera = self.library.Picamera2(place)
            self._completed.register(self.camera.notifymeread, select.POLLIN)
            self.controls = self._controls_for(self._wanted(Settings()))
            self._stream()
        except (RuntimeError, OSError) as error:
            raise self._error(error, "to open") from error
        self.size = self.main["size"]
        self.format = "MJPG" if self.encoder else self.main["format"]
        return Opened(self.source.redacted, self.name, self.size, self._fps(), self.format)

    def _cameras(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.library.Picamera2.global_camera_info()
        return found

    def _place(self, cameras: list[dict[str, Any]]) -> int:
        """Which of them is meant; the place in this list is what picamera2 takes, not `Num`. Raises SourceMissing."""
        target = self.source.target
        listed = ", ".join(f"{place} is {one.get('Model', '?')} ({one['Id']})" for place, one in enumerate(cameras))
        if target.isdecimal():
            found = [int(target)] if int(target) < len(cameras) else []
        else:
            found = [place for place, one in enumerate(cameras) if one["Id"] == target] or [
                place for place, one in enumerate(cameras) if one.get("Model", "").lower() == target.lower()
            ]
        if len(found) == 1:
            return found[0]
        if found:
            raise SourceMissing(f"{len(found)} cameras are called {target}: {listed}", "name it by its number or id")
        hint = "switch the machine off, look at both ends of the ribbon cable; `rpicam-hello --list-cameras` shows it"
        if cameras:
            raise SourceMissing(f"libcamera finds no camera {target}; there is {listed}", hint)
        if not heaps():
            hint += f"; there is no {HEAPS} either: a container is given both by compose.pi.yaml"
        raise SourceMissing("libcamera finds no camera", hint)

    def _stream(self) -> None:
        """Configure for live pictures and start."""
        options = self.source.options
        size, chosen = options.get("size", SIZE), options.get("format", "YUV420")
        self._configure(self._video(size, chosen))
        self.is_hardware = self._wants_hardware(chosen)
        self.camera.post_callback = None if self.is_hardware else self._on_request
        # False: picamera2 turns its event loop in a thread, for its encoder. None: read() turns it. A thread of its
        # own would be woken for each picture, and wake this one.
        self.camera.start(show_preview=False if self.is_hardware else None)
        if self.is_hardware:
            self._start_encoder()

    def _video(self, size: tuple[int, int], chosen: str) -> Any:
        # Full range, as JPEG means it. No raw stream: nobody looks at one, and it would take memory.
        return self.camera.create_video_configuration(
            main={"size": size, "format": chosen}, raw=None, controls=self.controls, transform=self._transform(),
            buffer_count=BUFFERS, display=None, queue=False, colour_space=self.library.libcamera.ColorSpace.Sycc(),
        )  # fmt: skip

    def _transform(self) -> Any:
        flips = {name: int(self.source.options.get(name, False)) for name in ("hflip", "vflip")}
        return self.library.libcamera.Transform(**flips)

    def _configure(self, config: Any) -> None:
        self.camera.configure(config)
        self._last_number = None  # each mode counts anew
        self._note_mode()

    def _note_mode(self) -> None:
        """The stream of the mode in force, and whether it gives video range, which JPEG does not mean."""
        config = self.camera.camera_configuration()
        self.main, space = config["main"], config.get("colour_space")
        self.is_video_range = str(getattr(space, "range", "")).endswith("Limited")

    def _fps(self) -> float:
        """What is promised: what was asked for, as far as this mode can."""
        return round(1e6 / self.frame_us, 3)

    @property
    def frame_us(self) -> int:
        """Microseconds from one picture to the next."""
        wanted = round(1e6 / self.source.options.get("fps", FPS))
        shortest, longest = self.camera.camera_controls.get("FrameDurationLimits", (wanted, wanted))[:2]
        return int(max(shortest, min(wanted, longest)))

    # --- the hardware's encoder -----------------------------------------------------------------------------------

    def _wants_hardware(self, chosen: str) -> bool:
        asked = self.source.options.get("encoder", "auto")
        # Asked of the node itself: without any /dev/video* picamera2 takes a Pi 5 for a Pi 4, which has an encoder.
        there = asked != "software" and chosen == "YUV420" and has_encoder()
        if asked == "hardware" and not there:
            raise SourceFailed(
                f"{self.name}: this machine has no JPEG encoder ({ENCODER} is none)",
                "`encoder=software`; the Pi 5 has none, and a container must be given the node",
            )
        return there

    def _start_encoder(self) -> None:
        from camdock.picamera2encoder import Encoded  # imports more of picamera2

        self.encoder = Encoded(self.camera)

    # --- pictures -------------------------------------------------------------------------------------------------

    def read(self, wait_s: float) -> Picture | None:
        self._resume()
        self._live_controls = self.controls
        if self.encoder:
            taken = self.encoder.next(wait_s)
            return Picture(self.size, self._captured_ns(taken[1]), jpeg=taken[0]) if taken else None
        request = self._request(wait_s)
        if request is None:
            return None
        try:
            self._note(request)
            return self._encoded(request)
        finally:
            request.release()

    def _encoded(self, request: Any) -> Picture:
        """The live picture of a request, encoded while the camera's memory is ours: nothing is copied on the way."""
        with self.library.MappedArray(request, "main", reshape=False, write=False) as mapped:
            picture = self._picture(mapped.array)
            return replace(picture, jpeg=imaging.encode_jpeg(picture, self.quality), planes=(), rgb=None)

    def _request(self, wait_s: float) -> Any:
        """The newest completed request, which must be released; None when there was none in time."""
        self._turn(wait_s)
        request, self._newest = self._newest, None
        return request

    def _turn(self, wait_s: float) -> None:
        """One turn of picamera2's event loop: completed requests are passed to _on_request, jobs are gone on with."""
        if self._completed.poll(wait_s * 1000):
            self.camera.notifymeread.read()
            try:
                self.camera.process_requests(None)
            except (RuntimeError, OSError) as error:
                raise self._error(error, "to go on") from error

    def _on_request(self, request: Any) -> None:
        """Called for every completed request, out of _turn.

        capture_request() would do, at the price of a job for each picture and one more turn of that loop (a tenth of
        what a picture costs); and one that is cancelled may take a buffer with it.
        """
        request.acquire()
        self._late += self._let_go()
        self._newest = request

    def _let_go(self) -> bool:
        """Give the request back that nobody fetched; whether there was one."""
        older, self._newest = self._newest, None
        if older is not None:
            older.release()
        return older is not None

    def _note(self, request: Any) -> None:
        """Keep what the sensor says of this picture."""
        given = request.request.metadata  # converted anew each time that it is looked at
        number = int(request.request.sequence)
        late, self._late = self._late, 0
        if late:
            self.drops["late"] += late
        if self._last_number is not None and number > self._last_number + 1 + late:
            self.drops["lost"] += number - self._last_number - 1 - late
        self._last_number = number
        self.sensor = {
            name: kind(value) for name, kind, control in self._told if (value := given.get(control)) is not None
        }
        self.is_searching = self._ae_state is not None and given.get(self._ae_state) == AE_SEARCHING

    @staticmethod
    def _captured_ns(stamp: int) -> int:
        """A sensor's time on our clock: it may count from the boot, sleep included. Now, where it cannot be true."""
        now, asleep = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        for candidate in (stamp, stamp - asleep):
            if now - 10_000_000_000 < candidate <= now:
                return candidate
        return now

    def _picture(self, flat: Any) -> Picture:
        """A buffer of the stream in force as a Picture; its planes are the buffer's memory where lines have no padding.

        flat  (bytes of the buffer,) uint8
        """
        (width, height), stride = self.main["size"], self.main["stride"]
        captured_ns = self._captured_ns(self.sensor.get("timestamp_ns", 0))
        match self.main["format"]:
            case "YUV420":
                split = imaging.split_yuv420(flat, width, height, stride)
                planes = imaging.to_full_range(split) if self.is_video_range else split
                return Picture((width, height), captured_ns, planes=planes, sensor=self.sensor)
            case "RGB888" | "BGR888" as name:  # DRM's names are little-endian: RGB888 has blue first
                lines = flat[: stride * height].reshape(height, stride)[:, : width * 3]
                rgb = np.ascontiguousarray(lines).reshape(height, width, 3)
                order = "BGR" if name == "RGB888" else "RGB"
                return Picture((width, height), captured_ns, rgb=rgb, order=order, sensor=self.sensor)
            case name:
                raise SourceFailed(f"{self.name} gives {name}, which is not understood", "`format=RGB888`")

    # --- stills ---------------------------------------------------------------------------------------------------

    def still(self, wait_s: float) -> Picture | None:
        """One picture of the whole sensor: the camera changes its mode, takes one, and changes back."""
        self._resume()
        self._converge()
        self._last_number = None
        if self.encoder:
            self.encoder.stop()
            self.encoder = None
        self.camera.post_callback = None  # the still's own picture is none for looking at
        self._let_go()
        within_s = STILL_WITHIN_S + 3 * self.controls.get("ExposureTime", 0) / 1e6
        config = self.camera.create_still_configuration(
            main={"format": "RGB888" if self.source.options.get("format") == "RGB888" else "YUV420"}, raw=None,
            controls=self.controls, buffer_count=STILL_BUFFERS, transform=self._transform(),
        )  # fmt: skip
        live = self.main, self.is_video_range
        try:
            request = self._switched(config, within_s)
        except TimeoutError as error:
            self.camera.cancel_all_and_flush()
            raise SourceStalled(
                f"{self.name}: no still within {within_s:.1f} s", "look at the ribbon cable and `dmesg`"
            ) from error
        except (RuntimeError, OSError) as error:
            raise self._error(error, "to take a still") from error
        try:
            self._note_mode()
            self._note(request)
            with self.library.MappedArray(request, "main", reshape=False, write=False) as mapped:
                picture = self._picture(mapped.array.copy())  # it is encoded when live pictures come again
        finally:
            self.main, self.is_video_range = live
            request.release()
        self._is_stopped = True
        if self.controls == self._live_controls:  # else with those that come back now: nobody shall see the still's own
            self._resume()
        return picture

    def _switched(self, config: Any, within_s: float) -> Any:
        """The first picture of another mode, with the camera stopped behind it. Raises TimeoutError."""
        switch = self.camera.switch_mode_capture_request_and_stop
        if self.is_hardware:
            return switch(config, wait=within_s)
        finished: list[Any] = []
        job = switch(config, wait=False, signal_function=finished.append)
        until = time.monotonic() + within_s
        while not finished:
            if (left_s := until - time.monotonic()) <= 0:
                raise TimeoutError
            self._turn(left_s)
        return job.get_result()

    def _resume(self) -> None:
        """Live pictures again, behind a still."""
        if self._is_stopped:
            try:
                self._stream()
            except (RuntimeError, OSError) as error:
                raise self._error(error, "to go on behind a still") from error
            self._is_stopped = False

    def _converge(self) -> None:
        """Read until automatic exposure has found its value, or takes too long."""
        until = time.monotonic() + CONVERGE_WITHIN_S
        while time.monotonic() < until:
            if not (self.controls.get("AeEnable") and self.is_searching):
                return
            request = self._request(max(0.0, until - time.monotonic()))
            if request is not None:
                self._note(request)
                request.release()

    # --- settings -------------------------------------------------------------------------------------------------

    def limits(self) -> Limits:
        able = self.camera.camera_controls
        exposure, gain = able.get("ExposureTime"), able.get("AnalogueGain")
        return Limits(
            exposure_us=(max(1, int(exposure[0])), int(exposure[1])) if exposure and exposure[1] else None,
            gain=(float(gain[0]), float(gain[1])) if gain else None,
            auto_exposure="AeEnable" in able,
        )

    def _wanted(self, wanted: Settings) -> Settings:
        asked = {name: self.source.options[name] for name in ("exposure_us", "gain") if name in self.source.options}
        return Settings().changed(asked).changed(wanted.given())

    def apply(self, wanted: Settings) -> Settings:
        wanted = self._wanted(wanted)
        self.limits().check(wanted.given(), self.name)
        self.controls = self._controls_for(wanted)
        if self._is_stopped:
            self._resume()  # which starts with them
        else:
            self.camera.set_controls(self.controls)
        automatic = self.controls.get("AeEnable")
        return Settings(
            exposure_us=self.controls.get("ExposureTime") or self.sensor.get("exposure_us"),
            gain=self.controls.get("AnalogueGain") or self.sensor.get("gain"),
            auto_exposure=automatic,
        )

    def _controls_for(self, wanted: Settings) -> dict[str, Any]:
        """Every control that follows from the settings; each mode is started with all of them."""
        able = self.camera.camera_controls
        controls: dict[str, Any] = {}
        automatic = wanted.exposure_us is None and wanted.auto_exposure is not False
        exposure_us = wanted.exposure_us or 0
        if not automatic and not exposure_us:
            exposure_us = self.sensor.get("exposure_us", 0)
        gain = wanted.gain or (0.0 if automatic else self.sensor.get("gain", 0.0))
        if "AeEnable" in able:
            controls["AeEnable"] = automatic
        # Nought gives the value back to the automatic (picamera2 from 0.3.27 says so to libcamera 0.7 by a mode).
        if "ExposureTime" in able:
            controls["ExposureTime"] = exposure_us
        if "AnalogueGain" in able:
            controls["AnalogueGain"] = gain
        if "FrameDurationLimits" in able:
            # They clip the exposure: a longer one needs longer frames.
            frame_us = max(self.frame_us, exposure_us)
            controls["FrameDurationLimits"] = (frame_us, frame_us)
        return controls | controls_of(self.source.options, able, self.library.libcamera.controls, self.name)

    # --- the end, and errors --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the camera back. libcamera may hang in here when the cable is loose: then the worker is killed."""
        self._let_go()
        camera, self.camera, self.encoder = self.camera, None, None
        self._is_stopped = False
        if camera is not None:
            camera.cancel_all_and_flush()
            camera.close()

    def _error(self, error: Exception, what: str) -> CameraError:
        """The camera's error for the library's, whose own words often are only that it failed."""
        words = list(reasons(error))
        text = next((one for one in reversed(words) if one), "")
        if any("resource busy" in one or "requiring state Available" in one for one in words):
            held = " and ".join(_holders()) or "another process"
            return SourceBusy(
                f"{self.name} is held by {held}", "stop that program; libcamera gives a camera to one alone"
            )
        if any("dmaHeap" in one or HEAPS in one for one in words):
            return heap_error(self.name)
        if isinstance(error, PermissionError):
            return SourceDenied(
                f"{self.name}: {text}", "the user needs the group video; in a container compose.pi.yaml"
            )
        return SourceFailed(
            f"{self.name} failed {what}: {text}", "the log above has libcamera's own words; `dmesg` more"
        )


def heap_error(name: str) -> SourceDenied:
    """Why there is no memory for pictures, and what to do about it."""
    nodes = heaps()
    if not nodes:
        return SourceDenied(
            f"{name}: there is no {HEAPS}, where picamera2 takes the memory for its pictures",
            "in a container: compose.pi.yaml gives it the machine's devices; on the machine itself: a Raspberry Pi "
            "kernel makes it",
        )
    return SourceDenied(
        f"{name}: no memory for pictures from {', '.join(nodes)}",
        "its user needs the group video: `sudo usermod -aG video USER`, then start the service anew",
    )


def has_encoder() -> bool:
    """Whether this machine's video node 11 is the JPEG encoder of a Pi 4 or earlier."""
    if not os.path.exists(ENCODER):
        return False
    node = devices.Node(ENCODER, "video", 0, 0, 0, "", "")
    devices.ask(node, Path(ENCODER))
    return node.name == ENCODER_CARD


def _holders() -> list[str]:
    """Which other processes have the camera's parts open: "pid 812 (rpicam-vid)"."""
    parts = [str(path) for path in Path("/dev").glob("media*")]
    found, _closed = devices.holders(parts)
    others: Mapping[int, str] = {
        pid: name for held in found.values() for pid, name in held.items() if pid != os.getpid()
    }
    return [f"pid {pid} ({name})" for pid, name in others.items()]
