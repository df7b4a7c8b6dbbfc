"""Pictures that were converted beforehand, for measuring: a Pi's image signal processor costs no processor time.

Runs in: a process whose CAMDOCK_RIG_PICTURE names a photograph: each picture is that one, moved on. Whatever format is
asked for, handing a picture out is one assignment, so that no side of a comparison pays for the rig's conversion.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

PICTURES, STEP = 8, 16


class Prepared:
    """Some converted pictures, one after the other, for ever."""

    def __init__(self, pictures: list[mmap.mmap]) -> None:
        self._pictures = itertools.cycle(pictures)

    @classmethod
    def wanted(cls, isp: Any, convert: Callable[[Any, Any, float], Any]) -> Prepared | None:
        """For one stream; None where the pipeline's own pictures are converted as they come."""
        path = os.environ.get("CAMDOCK_RIG_PICTURE")
        if not path:
            return None
        width, height = isp.size
        photograph = Image.fromarray(simplejpeg.decode_jpeg(Path(path).read_bytes())).resize((width, height))
        made = []
        for number in range(PICTURES):
            moved = Image.fromarray(np.roll(np.asarray(photograph), number * STEP, axis=1))
            memory = mmap.mmap(-1, isp.bytes)
            memory[:] = convert(isp, _nv12(moved), 1.0).tobytes()
            made.append(memory)
        return cls(made)

    def next(self) -> mmap.mmap:
        """The next one."""
        return next(self._pictures)


def _nv12(image: Image.Image) -> Any:
    """(bytes,) uint8 in video range, as the virtual pipeline would give it."""
    y, u, v = (np.asarray(plane, np.float32) for plane in image.convert("YCbCr").split())
    u, v = (plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean((1, 3)) for plane in (u, v))
    pairs = np.stack([(u - 128) * (224 / 255) + 128, (v - 128) * (224 / 255) + 128], -1)
    return np.concatenate(
        [(y * (219 / 255) + 16).round().astype(np.uint8).reshape(-1), pairs.round().astype(np.uint8).reshape(-1)]
    )
