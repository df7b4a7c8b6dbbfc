"""What the tests of sources look at: pictures of a live camera, their rate, the numbers drawn into them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from tests.tools import frames
from tests.tools.service import Picture, Service, Viewer, until

RATE_WITHIN = 0.05


def rate(pictures: list[Picture]) -> float:
    """Pictures per second by their times of capture."""
    stamps = [float(picture.headers["x-timestamp"]) for picture in pictures]
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


def numbers(pictures: list[Picture]) -> list[int]:
    """The numbers drawn into the pictures; decodes every one, strictly."""
    found = []
    for picture in pictures:
        Image.open(io.BytesIO(picture.jpeg)).load()
        found.append(frames.read_number(picture.jpeg))
    return found


def exposure_of(jpeg: bytes) -> int:
    """What `in_flight` and the PixeLINK camera draw in: the exposure that a picture really had, in blocks at 5/6."""
    image = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
    side = min(16, image.shape[1] // 24 & ~1)
    row = image[image.shape[0] * 5 // 6 + side // 2]
    return sum(int(row[bit * side + side // 2] > 128) << bit for bit in range(24))


@contextmanager
def awake(service: Service, name: str = "camera") -> Iterator[Viewer]:
    """A viewer of a camera that is live or rests, behind whatever was there before it looked."""
    until(
        lambda: service.camera(name)["state"] in ("live", "idle"), 15, lambda: f"{service.camera(name)}\n{service.log}"
    )
    began = time.time()
    with service.stream(f"/cameras/{name}/stream") as viewer:
        while float(viewer.take(1)[0].headers["x-timestamp"]) < began or service.camera(name)["state"] != "live":
            assert time.time() - began < 10, f"it does not wake:\n{service.log}"
        yield viewer


def watch(service: Service, count: int = 90, fps: float | None = None, name: str = "camera") -> list[Picture]:
    """So many pictures of a camera that is live or rests; with `fps` at that rate, within 5 %, in one of three tries.

    A machine that does something else for a moment loses pictures; a service that cannot keep the rate never keeps it.
    """
    with awake(service, name) as viewer:
        for _ in range(3):
            pictures = viewer.take(count)
            if fps is None or rate(pictures) == pytest.approx(fps, rel=RATE_WITHIN):
                return pictures
    raise AssertionError(f"{rate(pictures):.2f} pictures per second instead of {fps}")
