"""Readable text in pictures: the card of the synthetic camera, and the picture that says why there is none.

Runs in: the worker and the pixels process. Needs Pillow (its own scalable font), not NumPy.
"""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial

from PIL import Image, ImageDraw, ImageFont

INK = (235, 238, 242)
GROUND = (24, 28, 34)
ACCENT = (232, 163, 23)


@lru_cache(maxsize=16)
def font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in scalable font at so many pixels."""
    return ImageFont.load_default(size=height)


def _start_px(word: str, height: int, count: int) -> int:
    return math.ceil(font(height).getlength(word[:count]))


def wrapped(text: str, height: int, width: int) -> list[str]:
    """`text` in lines that are at most `width` pixels wide at a font height of `height`; long words are cut."""
    lines: list[str] = []
    for word in text.split():
        candidate = f"{lines[-1]} {word}" if lines else word
        if lines and font(height).getlength(candidate) <= width:
            lines[-1] = candidate
            continue
        while font(height).getlength(word) > width and len(word) > 1:
            fits = max(1, bisect_right(range(len(word)), width, key=partial(_start_px, word, height)) - 1)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines


def notice(size: tuple[int, int], title: str, texts: Sequence[str], footer: str) -> bytes:
    """The JPEG that viewers get while there is no picture.

    size    (width, height)
    title   the camera and its state
    texts   the reason and the hint, a paragraph each
    footer  a line that changes, so that a viewer sees the stream is alive
    """
    width, height = size
    unit = max(10, min(height // 16, width // 22))
    margin = unit
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, unit // 3), fill=ACCENT)
    y = margin
    for line in wrapped(title, unit * 5 // 4, width - 2 * margin):
        draw.text((margin, y), line, INK, font(unit * 5 // 4))
        y += unit * 7 // 4
    y += unit // 2
    floor = height - margin - unit
    for number, text in enumerate(texts):
        for line in wrapped(text, unit, width - 2 * margin):
            if y + unit > floor:
                break
            draw.text((margin, y), line, ACCENT if number == 0 else INK, font(unit))
            y += unit * 3 // 2
        y += unit // 2
    draw.text((margin, floor), footer, (150, 156, 165), font(max(9, unit * 3 // 4)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
