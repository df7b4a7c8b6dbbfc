"""synthetic: a test card that moves, with its number and a clock drawn in, and the faults that a driver can have.

Runs in: the worker. Every test, the doctor and every demonstration share these faults.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from camdock.backends import Backend, Opened
from camdock.errors import SourceBusy, SourceDenied, SourceFailed, SourceMissing
from camdock.frame import Picture
from camdock.imaging import encode_jpeg
from camdock.lettering import font
from camdock.settings import Limits, Settings

DEFAULT_SIZE = (640, 480)
NUMBER_BITS = 24
BAR_COLOURS = (
    (235, 235, 235),
    (230, 220, 30),
    (40, 200, 220),
    (50, 200, 60),
    (200, 60, 200),
    (220, 50, 40),
    (50, 70, 220),
)
GLYPHS = "0123456789:.-# "


def mark_number(y: npt.NDArray[Any], number: int, row: int = 0) -> None:
    """Draw the low 24 bits of a number as black and white blocks in a row: read by programs, survives JPEG.

    y    (H, W) or (H, W, 3) uint8, changed in place; the lowest bit stands left, in blocks of 16 x 16 where they fit
    row  where the blocks begin
    """
    side = min(16, y.shape[1] // NUMBER_BITS & ~1)
    for bit in range(NUMBER_BITS):
        y[row : row + side, bit * side : (bit + 1) * side] = 235 if number >> bit & 1 else 16


class Synthetic(Backend):
    """The make-believe camera."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        options = self.source.options
        self.size: tuple[int, int] = options.get("size", DEFAULT_SIZE)
        self.fps: float = options.get("fps", 30.0)
        self.format: str = options.get("format", "JPEG")
        self.count = 0
        self.settings = Settings(exposure_us=10_000, gain=1.0, auto_exposure=False)
        self.memory = Path(options["remembers"]) if "remembers" in options else None
        if self.memory is not None and self.memory.exists():
            self.settings = Settings(**json.loads(self.memory.read_text()))
        self.in_flight: int | None = options.get("in_flight")
        # The exposures of the pictures on their way, the next one first.
        self.exposures = deque(
            [self.settings.exposure_us or 0] * ((self.in_flight or 0) + 1), maxlen=(self.in_flight or 0) + 1
        )

    def open(self) -> Opened:
        options = self.source.options
        if options.get("hang_open"):
            hang()
        if options.get("busy"):
            raise SourceBusy(
                "the synthetic camera is held by nobody, but was told to be busy", "take busy out of the source"
            )
        if options.get("denied"):
            raise SourceDenied("the synthetic camera was told to refuse", "take denied out of the source")
        self._check_plugged()
        if options.get("spawn"):
            subprocess.Popen(["/bin/sleep", "1000"])
        self._draw_card()
        self.due = time.monotonic()
        return Opened(self.source.redacted, "synthetic test card", self.size, self.fps, self.format)

    def still_there(self) -> None:
        self._check_plugged()

    def _check_plugged(self) -> None:
        gone = self.source.options.get("gone")
        if gone and Path(gone).exists():
            raise SourceMissing(f"the synthetic camera is unplugged while {gone} exists", f"delete {gone}")

    def _draw_card(self) -> None:
        width, height = self.size
        card = Image.new("RGB", self.size, (40, 44, 52))
        draw = ImageDraw.Draw(card)
        for index, colour in enumerate(BAR_COLOURS):
            left, right = (width * at // len(BAR_COLOURS) for at in (index, index + 1))
            draw.rectangle((left, height * 5 // 12, right, height * 3 // 4), fill=colour)
        unit = max(10, height // 14)
        draw.text((unit // 2, 16 + unit // 4), "SYNTHETIC", (255, 255, 255), font(unit))
        label = self.source.options.get("label", "no real camera: this is a test card")
        draw.text((unit // 2, 16 + unit * 3 // 2), label, (232, 163, 23), font(max(9, unit * 2 // 3)))
        y, cb, cr = card.convert("YCbCr").split()
        self.y = np.array(y)
        self.chroma = [np.array(plane.resize(((width + 1) // 2, (height + 1) // 2))) for plane in (cb, cr)]
        self.rgb = np.array(card)
        self.glyphs = {}
        for glyph in GLYPHS:
            cell = Image.new("L", (int(font(unit).getlength(glyph)) + 1, unit * 5 // 4), 16)
            ImageDraw.Draw(cell).text((0, 0), glyph, 235, font(unit))
            self.glyphs[glyph] = np.array(cell)
        self.text_at = (height - unit * 3 // 2, unit // 2)

    def limits(self) -> Limits:
        return Limits(exposure_us=(10, 2_000_000), gain=(1.0, 16.0), auto_exposure=True)

    def apply(self, wanted: Settings) -> Settings:
        self.limits().check(wanted.given(), "the synthetic camera")
        self.settings = self.settings.changed(wanted.given())
        if self.settings.exposure_us is None:
            self.settings = Settings(10_000, self.settings.gain, self.settings.auto_exposure)
        if self.memory is not None:
            self.memory.write_text(json.dumps(asdict(self.settings)))
        return self.settings

    def _read_pixels(self, wait_s: float) -> Picture | None:
        self._fault()
        self._check_plugged()
        now = time.monotonic()
        if self.due - now > wait_s:
            time.sleep(wait_s)
            return None
        time.sleep(max(0.0, self.due - now))
        # A machine that cannot keep up gives fewer pictures, not late ones.
        self.due = max(self.due + 1 / self.fps, time.monotonic() - 1 / self.fps)
        return self._draw(time.monotonic_ns())

    def read(self, wait_s: float) -> Picture | None:
        picture = self._read_pixels(wait_s)
        return self._delivered(picture) if picture is not None else None

    def still(self, wait_s: float) -> Picture | None:
        options = self.source.options
        if options.get("hang_still"):
            hang()
        if options.get("crash_still"):
            ctypes.string_at(0)
        if options.get("error_still"):
            raise SourceFailed("the synthetic camera was told to fail at stills", "take error_still out of the source")
        # Pixels, as a camera gives them that is asked for its best, unless it was made one that gives nothing but JPEG.
        return self.read(wait_s) if options.get("format") == "JPEG" else self._read_pixels(wait_s)

    def _delivered(self, picture: Picture) -> Picture:
        if self.format != "JPEG":
            return picture
        jpeg = encode_jpeg(picture, self.quality)
        return Picture(self.size, picture.captured_ns, jpeg=jpeg, sensor=picture.sensor)

    def _draw(self, captured_ns: int) -> Picture:
        number = self.first_seq + self.count
        self.count += 1
        width, height = self.size
        moment = time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(moment)) + f".{int(moment * 10) % 10}"
        text = f"#{number % 10**7:07d} {clock}"
        sweep = number * max(2, width // 160) % max(1, width - 8)
        levels = (self.rgb if self.format == "RGB" else self.y).copy()
        mark_number(levels, number)
        self.exposures.append(self.settings.exposure_us or 0)
        if self.in_flight is not None:
            mark_number(levels, self.exposures[0], height * 5 // 6)
        row, column = self.text_at
        for glyph in text:
            cell = self.glyphs[glyph][:, : max(0, width - column)]
            target = levels[row : row + cell.shape[0], column : column + cell.shape[1]]
            cell = cell[: target.shape[0]]
            target[:] = cell if levels.ndim == 2 else cell[..., None]
            column += self.glyphs[glyph].shape[1]
        levels[height * 3 // 4 : height * 5 // 6, sweep : sweep + 8] = 235
        sensor = {"exposure_us": self.exposures[0], "gain": self.settings.gain}
        if self.format == "RGB":
            return Picture(self.size, captured_ns, rgb=levels, sensor=sensor)
        return Picture(self.size, captured_ns, planes=(levels, *self.chroma), sensor=sensor)

    def _fault(self) -> None:
        """Fail if it is time to."""
        options, count = self.source.options, self.count

        def due(name: str) -> bool:
            return name in options and count >= options[name]

        if due("hang_after"):
            hang()
        if due("crash_after"):
            ctypes.string_at(0)
        if due("kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)
        if due("stop_after"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if due("error_after"):
            raise SourceFailed("the synthetic camera was told to report an error", "take error_after out of the source")
        if due("stall_after"):
            self.due = float("inf")
        if due("half_frame_after"):
            self.wire_fault = "half_frame"
        if due("garbage_after"):
            self.wire_fault = "garbage"
        if options.get("chatter"):
            print("\n".join(f"driver: debug {count} {line}" for line in range(500)), flush=True)
        if "block_on" in options and count >= options.get("block_after", 1):
            Path(options["block_on"]).read_bytes()


def hang() -> None:
    """What the worst drivers do: block for ever in C with the GIL held, deaf to SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    while True:
        ctypes.PyDLL(None).pause()  # PyDLL keeps the GIL, CDLL would give it up
