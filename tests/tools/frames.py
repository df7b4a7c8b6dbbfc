"""Makes what the test camera sees: JPEG frames, raw pictures and video files, from the photographs in this folder.

Runs in the tests and the bench, before a server is started; needs OpenCV and NumPy. Sets are kept in `.cache/frames`.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from tests.tools.build import cache

HERE = Path(__file__).resolve().parent
PHOTOGRAPHS = HERE / "photographs"

NUMBER_BITS = 24
BLOCK = 16  # two JPEG blocks in luma, one in 4:2:0 chroma: its value does not mix with the neighbour's

# What cameras send: a webcam's plain mode, and the 254 KB that a detailed scene costs one at 720p.
SETS = {(640, 360): 37_000, (640, 480): 60_000, (1280, 720): 254_000, (1920, 1080): 400_000}
FRAMES = 48  # of one set: 1.6 s at 30 fps before the pictures come round again


# --- the number in the picture --------------------------------------------------------------------------------------


def _block(width: int) -> int:
    return min(BLOCK, width // NUMBER_BITS & ~1)


def draw_number(picture: np.ndarray, number: int) -> None:
    """Writes the low 24 bits of number into the top row of blocks, lowest bit first, as `fakev4l2.c` does.

    picture  (H, W) or (H, W, 3) uint8, changed in place
    """
    block = _block(picture.shape[1])
    for bit in range(NUMBER_BITS):
        picture[:block, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0


def read_number(picture: bytes | np.ndarray, drawn_width: int | None = None) -> int:
    """The number that `draw_number` or the test camera wrote into a picture; JPEG and resizing do not hurt it.

    picture      a JPEG, or an array (H, W) or (H, W, 3) uint8
    drawn_width  width of the picture when the number was drawn, if it has been resized since
    raises       ValueError if the JPEG does not decode
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
        if decoded is None:
            raise ValueError("not a JPEG that can be decoded")
        picture = decoded
    scale = picture.shape[1] / drawn_width if drawn_width else 1.0
    block = _block(drawn_width or picture.shape[1]) * scale
    number = 0
    for bit in range(NUMBER_BITS):
        # The middle half of the block: its edges have rung under JPEG.
        left, right = math.floor((bit + 0.25) * block), math.ceil((bit + 0.75) * block)
        inner = picture[math.floor(block * 0.25) : math.ceil(block * 0.75), left:right]
        number |= int(inner.mean() > 127) << bit
    return number


# --- panning --------------------------------------------------------------------------------------------------------


def _photographs() -> list[np.ndarray]:
    found = [cv2.imread(str(file)) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    return [photograph for photograph in found if photograph is not None]


def _pan(size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
    """`count` pictures (H, W, 3) uint8 BGR: a window gliding over one photograph after the other, there and back."""
    width, height = size
    photographs = _photographs()
    for index in range(count):
        turn, place = divmod(index * len(photographs), count)
        photograph = photographs[turn]
        swing = 0.5 - 0.5 * math.cos(2 * math.pi * place / count)
        high, wide = photograph.shape[:2]
        scale = 0.8 * min(wide / width, high / height)
        left = round((wide - width * scale) * swing)
        top = round((high - height * scale) * swing)
        window = photograph[top : top + math.floor(height * scale), left : left + math.floor(width * scale)]
        yield cv2.resize(window, size, interpolation=cv2.INTER_CUBIC)


def _grainy(picture: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """A sensor's noise, the same in the three colours, new in each frame."""
    if sigma <= 0:
        return picture.copy()
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape[:2])
    return np.clip(picture + noise[..., None], 0, 255).astype(np.uint8)


def _encode(picture: np.ndarray, quality: int, sigma: float, number: int) -> bytes:
    # Neither optimised nor progressive: a camera uses the standard's Huffman tables, and FAKEV4L2_NODHT relies on them.
    noisy = _grainy(picture, sigma, seed=number)
    draw_number(noisy, number)
    done, jpeg = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV did not encode a picture")
    return jpeg.tobytes()


def _tune(pictures: list[np.ndarray], target_bytes: int) -> tuple[int, float]:
    """Quality and grain with which the pictures take target_bytes on average.

    Photographs blown up to 720p are smoother than what a camera sees, so grain makes up what is missing at a usual
    quality; only where even the clean picture is too large does the quality fall.
    """
    sample = list(enumerate(pictures))[:: max(1, len(pictures) // 8)]

    def mean_bytes(quality: int, sigma: float) -> float:
        return sum(len(_encode(picture, quality, sigma, number)) for number, picture in sample) / len(sample)

    quality = 85
    while quality > 10 and mean_bytes(quality, 0) > target_bytes:
        quality -= 5
    low, high = 0.0, 64.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_bytes(quality, middle) < target_bytes else (low, middle)
    return quality, (low + high) / 2


# --- sets of frames, and files ----------------------------------------------------------------------------------------


def _key(*facts: object) -> str:
    digest = hashlib.sha256(repr((facts, cv2.__version__)).encode())
    for file in [Path(__file__), *sorted(PHOTOGRAPHS.glob("*.jpg"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _publish(unfinished: Path, target: Path) -> None:
    """Puts a finished folder or file in its place; whoever was first with the same content wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(unfinished)


def _place(name: str) -> tuple[Path, Path]:
    folder = cache("frames")
    return folder / name, folder / f"{name}.{os.getpid()}.tmp"


def jpeg_frames(
    folder: Path | None, size: tuple[int, int], target_bytes: int, count: int = FRAMES, raw: int = 4
) -> Path:
    """A folder for FAKEV4L2_JPEGS: `<W>x<H>/NNN.jpg`, of target_bytes on average (+-5 %), each showing its number NNN.

    folder   where to put them, beside what is there; None: a folder of the cache, for this set alone
    raw      so many of the pictures also as `<W>x<H>/NNN.ppm`, which the camera shows in its raw formats
    returns  the folder
    """
    width, height = size
    cached, unfinished = _place(f"{width}x{height}-{_key(size, target_bytes, count, raw)}")
    if not cached.exists():
        inner = unfinished / f"{width}x{height}"
        shutil.rmtree(unfinished, ignore_errors=True)
        inner.mkdir(parents=True)
        pictures = list(_pan(size, count))
        quality, sigma = _tune(pictures, target_bytes)
        for number, picture in enumerate(pictures):
            (inner / f"{number:03}.jpg").write_bytes(_encode(picture, quality, sigma, number))
        for number in range(raw):
            shown = number * count // raw
            grainy = _grainy(pictures[shown], min(sigma, 4.0), seed=shown)
            # As a camera would show it: the number is drawn by fakev4l2 into each frame.
            cv2.imwrite(str(inner / f"{number:03}.ppm"), grainy)
        _publish(unfinished, cached)
    if folder is None:
        return cached
    for part in sorted(cached.iterdir()):
        shutil.copytree(part, folder / part.name, dirs_exist_ok=True)
    return folder


def camera_frames(*wanted: tuple[int, int]) -> Path:
    """A folder for FAKEV4L2_JPEGS with the usual sets (`SETS`) of these sizes; all of them without an argument."""
    chosen = wanted or tuple(SETS)
    if len(chosen) == 1:
        return jpeg_frames(None, chosen[0], SETS[chosen[0]])
    name = "+".join(f"{width}x{height}" for width, height in chosen)
    cached, unfinished = _place(f"{name}-{_key(chosen, SETS, FRAMES)}")
    if not cached.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        for size in chosen:
            jpeg_frames(unfinished, size, SETS[size])
        _publish(unfinished, cached)
    return cached


def video_file(
    path: Path, size: tuple[int, int] = (640, 480), fps: float = 30, count: int = 90, codec: str = "MJPG"
) -> Path:
    """A video of `count` frames panning over the photographs, each showing its number from 0 (see `read_number`).

    codec    four letters that OpenCV's writer knows: MJPG in .avi, mp4v in .mp4
    raises   RuntimeError if this OpenCV cannot write that
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    if not writer.isOpened():
        raise RuntimeError(f"OpenCV cannot write {codec} to {path.name}")
    for number, picture in enumerate(_pan(size, count)):
        draw_number(picture, number)
        writer.write(picture)
    writer.release()
    return path
