"""Makes uploads that nobody means well: broken, lying, enormous, in disguise. The same for the same seed.

Runs in the tests; needs Pillow and NumPy.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

FORMATS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "BMP": "bmp"}


@dataclass(frozen=True)
class Hostile:
    """One request: its body, what it says of itself, the query behind the address."""

    what: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


@cache
def honest(kind: str, width: int = 96, height: int = 64) -> bytes:
    """A picture that is what it says."""
    pixels = np.random.default_rng(7).integers(0, 256, (height // 4, width // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def _truncated(chance: random.Random) -> bytes:
    file = honest(chance.choice(list(FORMATS)))
    return file[: chance.randrange(len(file))]


def _spoiled(chance: random.Random) -> bytes:
    file = bytearray(honest(chance.choice(list(FORMATS))))
    first = chance.choice([0, 4, 20])
    for _ in range(chance.choice([1, 3, 30, 300])):
        file[chance.randrange(first, len(file))] = chance.randrange(256)
    return bytes(file)


def _stuffed(chance: random.Random) -> bytes:
    """Bytes put in, taken out, or said twice."""
    file = honest(chance.choice(list(FORMATS)))
    at, length = chance.randrange(len(file)), chance.choice([1, 7, 4096])
    return file[:at] + chance.choice([b"", b"\0" * length, b"\xff" * length, file, chance.randbytes(length)]) + file[
        at + chance.choice([0, 0, length]) :
    ]  # fmt: skip


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@cache
def _zeros(length: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(length >> 20)), packer.flush()])


def _png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _bomb(chance: random.Random) -> bytes:
    """Little that unpacks to much."""
    side = chance.choice([3000, 7000, 7072, 20_000, 65_000, 2**31 - 1])
    text = _chunk(chance.choice([b"zTXt", b"iCCP"]), b"x\0\0" + _zeros(100 << 20))
    international = _chunk(b"iTXt", b"x\0\1\0\0\0" + _zeros(100 << 20))
    return chance.choice(
        [
            lambda: _png(side, side, _zeros(100 << 20)),
            lambda: _png(7000, 7000, _zeros(140 << 20)),
            lambda: _png(8, 8, zlib.compress(bytes(8 * 25)), before=text),
            lambda: _png(8, 8, zlib.compress(bytes(8 * 25)), before=international * 3),
            lambda: _png(7000, 7000, b"", depth=16, colour=6),
        ]
    )()


def _huge(chance: random.Random) -> bytes:
    """A head that promises more than there is."""
    side = chance.choice([0, 1, 7072, 16_383, 65_535, 2**31 - 1])
    kind = chance.choice(list(FORMATS))
    file = bytearray(honest(kind))
    match kind:
        case "JPEG":
            at = file.index(b"\xff\xc0") + 5
            file[at : at + 4] = struct.pack(">HH", min(side, 65_535), min(side, 65_535))
        case "PNG":
            return _png(side, chance.choice([1, side]), zlib.compress(bytes(1000)))
        case "BMP":
            file[18:26] = struct.pack("<ii", side, -side)
        case "WEBP":
            canvas = (min(side, 16_383) - 1) & 0xFFFFFF
            extended = b"VP8X" + struct.pack("<IB3x", 10, 2) + canvas.to_bytes(3, "little") * 2
            file = bytearray(b"RIFF\0\0\0\0WEBP" + extended + b"ANIM\6\0\0\0" + bytes(6) + file[12:])
            file[4:8] = struct.pack("<I", len(file) - 8)
        case _:
            return _tiff({256: side, 257: side}, chance)
    return bytes(file)


def _tiff(values: dict[int, int], chance: random.Random) -> bytes:
    """A TIFF of one strip whose tags say what they like."""
    tags = {256: 8, 257: 8, 258: 8, 259: chance.choice([1, 5, 8, 32773, 7]), 262: 1, 273: 200, 277: 1, 278: 8, 279: 64}
    tags |= values
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value & 0xFFFFFFFF) for tag, value in sorted(tags.items()))
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0") + chance.randbytes(64)


def _lying_tiff(chance: random.Random) -> bytes:
    tag = chance.choice([254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 330, 338, 700])
    return _tiff({tag: chance.choice([0, 1, 2, 8, 255, 65_535, 2**31, 2**32 - 1])}, chance)


def _scans(chance: random.Random) -> bytes:
    """A progressive JPEG that goes over its pixels again and again."""
    out = io.BytesIO()
    Image.new("L", (chance.choice([500, 2500]),) * 2, 127).save(out, "JPEG", progressive=True)
    file = out.getvalue()
    last = file.rindex(b"\xff\xda")
    return file[:last] + file[last:-2] * chance.choice([10, 200]) + b"\xff\xd9"


def _disguised(chance: random.Random) -> bytes:
    """Something else, or two things at once."""
    begins = chance.choice([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*", b"BM", b""])
    other = [
        b"%!PS-Adobe-3.0 EPSF\n(/etc/passwd) run\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a" + bytes(50),
        b"PK\3\4" + bytes(100),
        b"\x7fELF" + bytes(60),
        b"<?php system('id');",
        b"SIMPLE  =",
        b"\0\0\0\x1cftypavif",
    ]
    file = honest(chance.choice(list(FORMATS)))
    return chance.choice([begins + chance.choice(other), chance.choice(other) + file, file + chance.choice(other)])


def _metadata(chance: random.Random) -> bytes:
    """A good picture with metadata that is none."""
    exif = b"Exif\0\0" + chance.choice(
        [b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\0\0\0\x08" + chance.randbytes(300), chance.randbytes(99)]
    )
    out = io.BytesIO()
    image = Image.open(io.BytesIO(honest("PNG")))
    if chance.random() < 0.5:
        image.save(out, "JPEG", exif=exif, icc_profile=chance.randbytes(500), comment=chance.randbytes(50))
    else:
        info = PngImagePlugin.PngInfo()
        for number in range(100):
            info.add_text(f"k{number}", "x" * 1000, zip=True)
        image.save(out, "PNG", pnginfo=info, exif=exif)
    return out.getvalue()


BODIES: dict[str, Callable[[random.Random], bytes]] = {
    "truncated": _truncated,
    "spoiled": _spoiled,
    "stuffed": _stuffed,
    "bomb": _bomb,
    "huge": _huge,
    "lying TIFF": _lying_tiff,
    "scans": _scans,
    "disguised": _disguised,
    "metadata": _metadata,
    "noise": lambda chance: chance.randbytes(chance.choice([0, 1, 100, 100_000])),
    "too long": lambda chance: honest("JPEG") + bytes(chance.choice([20_000_001, 20_100_000])),
}
SELDOM = ("bomb", "scans", "too long")  # what takes a second of a core each
OPERATIONS: list[Any] = [
    [],
    [{"op": "resize", "width": 64}],
    [{"op": "resize", "width": 8192, "height": 8192, "fit": "stretch"}],
    [{"op": "rotate", "degrees": 45}, {"op": "edges"}, {"op": "encode", "format": "png"}],
    [{"op": "equalise"}, {"op": "normalise"}, {"op": "threshold"}, {"op": "encode", "format": "webp"}],
    [{"op": "annotate", "text": "\u202e\0𝕏", "size": 400, "x": 65_535}],
    [{"op": "crop", "x": 65_535, "width": 65_535, "height": 1}],
    [{"op": "flip"}] * 21,
    [{"op": "blur", "radius": 1e999}],
    "[[[[",
    '[{"op": "\\ud800"}]',
    "null",
]


def _form(body: bytes, chance: random.Random, operations: str) -> tuple[bytes, dict[str, str]]:
    """A form, whole or not quite."""
    name = chance.choice(["file", "file", "file", "f\0le", "../../file", '"'])
    part = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    form = (
        part.format(name, '; filename="../../x.jpg"').encode() + body + b"\r\n"
        + part.format("operations", "").encode() + operations.encode("utf-8", "replace")
        + chance.choice([b"\r\n--b--\r\n", b"\r\n--b--\r\n", b"\r\n--b", b""])
    )  # fmt: skip
    boundary = chance.choice(["b", "b", "b", "c", '"', "b" * 500])
    return form, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def uploads(count: int, seed: int) -> Iterator[Hostile]:
    """So many, of all kinds in turns; what takes long comes every eighth time it could."""
    chance = random.Random(seed)
    kinds = [kind for kind in BODIES if kind not in SELDOM]
    for number in range(count):
        what = chance.choice(SELDOM) if number % 24 == 23 else kinds[number % len(kinds)]
        body = BODIES[what](chance)
        asked = chance.choice(OPERATIONS) if chance.random() < 0.5 else []
        operations = asked if isinstance(asked, str) else json.dumps(asked)
        query = {"answer": chance.choice(["picture", "measurements", "picture", "\0"])}
        if chance.random() < 0.3 and what != "too long":
            form, headers = _form(body, chance, operations)
            yield Hostile(f"{number}: {what} in a form", form, headers, query)
            continue
        query["operations"] = operations
        kind = chance.choice(
            [*(f"image/{name}" for name in FORMATS.values()), "image/x-\0", "image/svg+xml", "text/html"]
        )
        yield Hostile(f"{number}: {what}", body, {"Content-Type": kind.replace("\0", "?")}, query)
