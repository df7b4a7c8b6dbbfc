"""What the operations of a recipe do to a picture. What may be asked of each, and its limits, is in recipe.py.

Runs in: the pixels process, never in the API process.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from camdock import imaging, lettering
from camdock.errors import OperationImpossible

Step = dict[str, Any]
MOST_BYTES = 64 << 20  # of an answer
QUARTERS = {
    90: Image.Transpose.ROTATE_270,  # Pillow counts the other way round
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def process(picture: bytes, kind: str, steps: list[Step], answer: str, most_pixels: int) -> bytes:
    """A picture through its operations.

    picture  a file, kind as imaging.decode takes it
    steps    operations as recipe.py lets them through
    answer   "picture": the encoded picture; "measurements": JSON, see imaging.measure
    raises   ImageUnreadable, OperationImpossible
    """
    encode: Step = {"op": "encode", "format": "jpeg", "quality": 90}
    if steps and steps[-1]["op"] == "encode":
        *steps, encode = steps
    at_least = None
    if (
        steps and steps[0]["op"] == "resize"
    ):  # more need not be decoded; a side that is not given leaves it to the other
        at_least = (steps[0]["width"] or 1, steps[0]["height"] or 1)
    image = imaging.decode(picture, kind, most_pixels, at_least)
    for index, step in enumerate(steps):
        where = f"operations.{index} ({step['op']})"
        try:
            image = DO[step["op"]](image, step)
        except OperationImpossible as error:
            raise OperationImpossible(f"{where}: {error.message}", error.hint) from None
        if image.width * image.height > most_pixels:
            raise OperationImpossible(
                f"{where}: {image.width}x{image.height} are more than {most_pixels:,} pixels", "ask for a smaller size"
            )
    if answer == "measurements":
        return json.dumps(imaging.measure(image)).encode()
    return _encoded(image, encode, len(steps))


def _resize(image: Image.Image, step: Step) -> Image.Image:
    width, height = step["width"], step["height"]
    if step["fit"] == "cover":
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    to = (width, height) if step["fit"] == "stretch" else imaging.fitted(image.size, width, height)
    return image.resize(to, Image.Resampling.LANCZOS) if to != image.size else image


def _crop(image: Image.Image, step: Step) -> Image.Image:
    x, y, width, height = step["x"], step["y"], step["width"], step["height"]
    if x + width > image.width or y + height > image.height:
        raise OperationImpossible(
            f"{width}x{height} at {x},{y} lies outside of the picture, which has {image.width}x{image.height} pixels",
            "x + width and y + height may be as large as the picture",
        )
    return image.crop((x, y, x + width, y + height))


def _rotate(image: Image.Image, step: Step) -> Image.Image:
    degrees = step["degrees"] % 360
    if degrees == 0:
        return image
    if degrees in QUARTERS:
        return image.transpose(QUARTERS[degrees])
    ground = ImageOps.grayscale(Image.new("RGB", (1, 1), step["background"])).getpixel((0, 0))
    return image.rotate(
        -degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=ground if image.mode == "L" else step["background"]
    )


def _flip(image: Image.Image, step: Step) -> Image.Image:
    left_right = step["direction"] == "horizontal"
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT if left_right else Image.Transpose.FLIP_TOP_BOTTOM)


def _grayscale(image: Image.Image, _step: Step) -> Image.Image:
    return image.convert("L")


def _blur(image: Image.Image, step: Step) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(step["radius"]))


def _sharpen(image: Image.Image, step: Step) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(step["radius"], step["percent"], threshold=0))


def otsu(histogram: list[int]) -> int:
    """The brightness up to which a picture is dark: what tells its two halves apart best.

    histogram  256 counts
    source     Otsu, "A threshold selection method from gray-level histograms", 1979
    """
    counts = np.asarray(histogram, np.float64)
    dark = np.cumsum(counts)
    moments = np.cumsum(counts * np.arange(256))
    bright = dark[-1] - dark
    with np.errstate(divide="ignore", invalid="ignore"):
        between = dark * bright * (moments / dark - (moments[-1] - moments) / bright) ** 2
    return int(np.argmax(np.nan_to_num(between[:255])))


def _threshold(image: Image.Image, step: Step) -> Image.Image:
    gray = image.convert("L")
    level = otsu(gray.histogram()) if step["level"] is None else step["level"]
    return gray.point([255 if value > level else 0 for value in range(256)])


def _edges(image: Image.Image, _step: Step) -> Image.Image:
    return Image.fromarray(imaging.steepness(np.asarray(image.convert("L"))))


def _equalise(image: Image.Image, _step: Step) -> Image.Image:
    if image.mode == "L":
        return ImageOps.equalize(image)
    y, cb, cr = image.convert("YCbCr").split()
    return Image.merge("YCbCr", (ImageOps.equalize(y), cb, cr)).convert("RGB")


def _normalise(image: Image.Image, step: Step) -> Image.Image:
    return ImageOps.autocontrast(image, (step["cutoff"], step["cutoff"]), preserve_tone=True)


def _annotate(image: Image.Image, step: Step) -> Image.Image:
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    at, text, font = (step["x"], step["y"]), step["text"], lettering.font(step["size"])
    if step["background"] is not None:
        left, top, right, bottom = draw.textbbox(at, text, font=font)
        margin = step["size"] // 4
        draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), step["background"])
    draw.text(at, text, step["colour"], font)
    return image


DO: dict[str, Callable[[Image.Image, Step], Image.Image]] = {
    "resize": _resize,
    "crop": _crop,
    "rotate": _rotate,
    "flip": _flip,
    "grayscale": _grayscale,
    "blur": _blur,
    "sharpen": _sharpen,
    "threshold": _threshold,
    "edges": _edges,
    "equalise": _equalise,
    "normalise": _normalise,
    "annotate": _annotate,
}
# What Pillow writes each format with. PNG: level 6 takes three times as long for a tenth less; WebP: likewise.
SAVED: dict[str, Step] = {
    "jpeg": {"format": "JPEG"},
    "png": {"format": "PNG", "compress_level": 3},
    "webp": {"format": "WEBP", "method": 2},
    "tiff": {"format": "TIFF", "compression": "tiff_lzw"},
    "bmp": {"format": "BMP"},
}


def _encoded(image: Image.Image, step: Step, index: int) -> bytes:
    """The file. Nothing of the one that came is in it but pixels."""
    where = f"operations.{index} (encode)"
    image.info.clear()
    out = io.BytesIO()
    quality = {"quality": step["quality"]} if step["format"] in ("jpeg", "webp") else {}
    try:
        image.save(out, **SAVED[step["format"]], **quality)
    except (OSError, ValueError, SystemError) as error:  # a side that the format cannot have
        raise OperationImpossible(
            f"{where}: {image.width}x{image.height} pixels do not fit into {step['format']}: {str(error)[:100]}",
            "make it smaller before, or encode it as png",
        ) from error
    if out.tell() > MOST_BYTES:
        raise OperationImpossible(f"{where}: {out.tell():,} bytes are more than {MOST_BYTES:,}", "encode it as jpeg")
    return out.getvalue()
