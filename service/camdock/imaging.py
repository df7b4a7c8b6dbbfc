"""Pure functions on arrays and pictures: pixels to JPEG, files to pixels, what can be measured.

Runs in: the worker and the pixels process, never in the API process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageStat

from camdock.errors import ImageUnreadable
from camdock.frame import Picture, jpeg_size

LINES_AT_ONCE = 64  # of what a camera packs: two bytes a pixel stay in the cache
MOST_PIXELS = 100_000_000  # of a picture that is decoded: nothing hostile takes all the memory

Plane = npt.NDArray[np.uint8]


def fitted(size: tuple[int, int], width: int | None, height: int | None) -> tuple[int, int]:
    """The largest (width, height) of the same shape inside a box, at least 1x1, never larger than `size`."""
    scale = min(1.0, (width or size[0]) / size[0], (height or size[1]) / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def rendition(jpeg: bytes, width: int | None, height: int | None, quality: int) -> bytes:
    """The picture of a JPEG inside a box of width x height pixels, at another quality.

    jpeg    a JPEG; or a PNG or TIFF, which take longer
    raises  ValueError when it cannot be decoded, or has more than a hundred million pixels
    """
    if not jpeg.startswith(b"\xff\xd8"):
        return _small(_open(jpeg), width, height, quality)
    size = jpeg_size(jpeg)
    if size is None or not all(size) or size[0] * size[1] > MOST_PIXELS:
        raise ValueError("no JPEG, or one that is too large" if size is None or all(size) else "a JPEG without a size")
    to = fitted(size, width, height)
    # libjpeg decodes to the next eighth that is large enough: a 1080p picture to 720x405 for 640x360.
    pixels = simplejpeg.decode_jpeg(
        jpeg, "RGB", fastdct=True, fastupsample=True, min_width=to[0], min_height=to[1], min_factor=1
    )
    if (pixels.shape[1], pixels.shape[0]) != to:
        pixels = np.asarray(Image.fromarray(pixels).resize(to, Image.Resampling.BILINEAR))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420", fastdct=True))


def _open(data: bytes) -> Image.Image:
    """A JPEG, PNG or TIFF, decoded to RGB or grey. Raises ValueError."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "TIFF"))
        if image.width * image.height > MOST_PIXELS:
            raise ValueError("a picture that is too large")
        return image if image.mode in ("RGB", "L") else image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a file that is cut; a broken PNG
        raise ValueError("no picture that can be decoded") from error


def _small(image: Image.Image, width: int | None, height: int | None, quality: int) -> bytes:
    output = io.BytesIO()
    try:
        to = fitted(image.size, width, height)
        image.convert("RGB").resize(to, Image.Resampling.BILINEAR).save(output, "JPEG", quality=quality)
    except (OSError, SyntaxError) as error:  # its pixels are decoded only here
        raise ValueError("no picture that can be decoded") from error
    return output.getvalue()


def converted(data: bytes, still_format: str) -> bytes:
    """A camera's own JPEG as a PNG or TIFF. Raises ValueError."""
    return _lossless(_open(data), still_format)


def _lossless(image: Image.Image, still_format: str) -> bytes:
    output = io.BytesIO()
    options = {"compression": "tiff_deflate"} if still_format == "TIFF" else {"compress_level": 3}
    try:
        image.save(output, still_format, **options)
    except (OSError, SyntaxError) as error:  # its pixels are decoded only here
        raise ValueError("no picture that can be decoded") from error
    return output.getvalue()


def encode_still(picture: Picture, still_format: str, quality: int) -> bytes:
    """The picture at full quality: pixels as they are, chroma as fine as they have it, the exact transform.

    picture       planes or rgb, as in `encode_jpeg`; one that the camera encoded is kept as it is
    still_format  JPG, PNG or TIFF
    quality       1 to 100, for JPG
    """
    if picture.jpeg is not None:
        return picture.jpeg
    if still_format == "JPG":
        if picture.planes:
            y, u, v = picture.planes if len(picture.planes) == 3 else (picture.planes[0], None, None)
            return bytes(simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality, fastdct=False))
        return bytes(simplejpeg.encode_jpeg(picture.rgb, quality, picture.order, "444", fastdct=False))
    if picture.planes:
        y, *chroma = map(Image.fromarray, picture.planes)
        if not chroma:
            return _lossless(y, still_format)
        full = [plane.resize(picture.size, Image.Resampling.BILINEAR) for plane in chroma]
        return _lossless(Image.merge("YCbCr", [y, *full]).convert("RGB"), still_format)
    array = picture.rgb if picture.order == "RGB" else np.ascontiguousarray(picture.rgb[..., ::-1])
    return _lossless(Image.fromarray(array), still_format)


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """The picture as a JPEG; the camera's own bytes when it encodes.

    picture  planes: Y (H, W), U and V (H or H/2, W/2) uint8, or Y alone; else rgb (H, W, 3) uint8
    quality  1 to 100
    """
    if picture.jpeg is not None:
        return picture.jpeg
    if picture.planes:
        y, u, v = picture.planes if len(picture.planes) == 3 else (picture.planes[0], None, None)
        return bytes(simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality, fastdct=True))
    return bytes(simplejpeg.encode_jpeg(picture.rgb, quality, picture.order, "420", fastdct=True))


def split_yuyv(
    data: npt.NDArray[np.uint8], width: int, height: int, *, uyvy: bool = False, video_range: bool = False
) -> tuple[Plane, Plane, Plane]:
    """Packed 4:2:2 to planes Y (H, W), U and V (H, W/2).

    data         (H, stride) uint8, stride >= 2 * width, the bytes of a line in the order Y U Y V (or U Y V Y)
    video_range  stretch them on the way, as `to_full_range` does, to within 1

    A block of lines at a time, which stays in the processor's cache, in whole numbers of two bytes, which keep the
    loops vectorised: 1280x720 at a camera's pace in 0.7 ms, stretched in 1.3 instead of 2.4.
    """
    lines = np.ascontiguousarray(data[:height, : 2 * width])
    y = np.empty((height, width), np.uint8)
    u, v = np.empty((2, height, width // 2), np.uint8)
    room = np.empty((LINES_AT_ONCE, width), np.uint16)
    for top in range(0, height, LINES_AT_ONCE):
        pairs = lines[top : top + LINES_AT_ONCE].view("<u2")
        wide, here = room[: len(pairs)], slice(top, top + len(pairs))
        np.right_shift(pairs, 8, out=wide) if uyvy else np.bitwise_and(pairs, 0xFF, out=wide)
        if video_range:
            _stretch_luma(wide)
        y[here] = wide
        np.bitwise_and(pairs, 0xFF, out=wide) if uyvy else np.right_shift(pairs, 8, out=wide)
        if video_range:
            _stretch_chroma(wide.view(np.int16))
        both = wide.view("<u4")
        u[here] = both  # its lowest byte
        np.right_shift(both, 16, out=both)
        v[here] = both
    return y, u, v


def _stretch_luma(wide: npt.NDArray[np.uint16]) -> None:
    """(Y - 16) * 255 / 219, rounded, in place: 149/128 is 0.03 % less, and stays within 16 bits."""
    np.clip(wide, 16, 235, out=wide)
    wide *= 149
    wide -= 16 * 149 - 64
    wide >>= 7


def _stretch_chroma(wide: npt.NDArray[np.int16]) -> None:
    """128 + (C - 128) * 255 / 224, in place; grey stays grey. 291/256 is 0.15 % less, and stays within 16 bits."""
    np.clip(wide, 16, 240, out=wide)
    wide -= 128
    wide *= 291
    wide += 128
    wide >>= 8
    wide += 128


def split_nv12(data: npt.NDArray[np.uint8], width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """Semi-planar 4:2:0 (Y plane, then U V pairs) to planes Y (H, W), U and V (H/2, W/2).

    data  (H * 3/2, stride) uint8
    """
    pairs = np.ascontiguousarray(data[height : height + height // 2, :width]).view("<u2")
    return np.ascontiguousarray(data[:height, :width]), pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)


def split_yuv420(data: npt.NDArray[np.uint8], width: int, height: int, stride: int) -> tuple[Plane, Plane, Plane]:
    """Planar 4:2:0 to planes Y (H, W), then the two chroma planes (H/2, W/2) in the order they stand in.

    data    (at least H * stride * 3/2,) uint8; chroma lines are half a stride long
    """
    half_h, half_s, half_w = height // 2, stride // 2, width // 2
    first = height * stride
    second = first + half_h * half_s

    def plane(at: int, rows: int, pitch: int, columns: int) -> Plane:
        return np.ascontiguousarray(data[at : at + rows * pitch].reshape(rows, pitch)[:, :columns])

    return plane(0, height, stride, width), plane(first, half_h, half_s, half_w), plane(second, half_h, half_s, half_w)


def _pairs_table(low: int, high: int) -> npt.NDArray[np.uint16]:
    """A table of 65,536 pairs of bytes, each byte stretched from low..high to 0..255."""
    one = np.clip(np.round((np.arange(256) - low) * 255.0 / (high - low)), 0, 255).astype(np.uint16)
    return (one[None, :] | one[:, None] << 8).astype(np.uint16).ravel()


_LUMA, _CHROMA = _pairs_table(16, 235), _pairs_table(16, 240)


def to_full_range(planes: Sequence[Plane]) -> tuple[Plane, ...]:
    """Planes Y, U, V in video range (16..235, chroma 16..240) to the full range that JPEG means.

    planes  contiguous uint8
    source  ITU-R BT.601 2.5.3; JFIF 1.02 page 3. Without it black is grey and colours are pale.

    Two bytes at a time: 0.4 ms for a million pixels, half of what a table of single bytes takes.
    """

    def stretched(table: npt.NDArray[np.uint16], plane: Plane) -> Plane:
        flat = plane.reshape(-1)
        if flat.size % 2:
            return table[:256].astype(np.uint8)[plane]
        return np.take(table, flat.view(np.uint16), mode="clip").view(np.uint8).reshape(plane.shape)

    return tuple(map(stretched, (_LUMA, _CHROMA, _CHROMA), planes))


# --- pictures that somebody sent --------------------------------------------------------------------------------------


def decode(data: bytes, kind: str, most_pixels: int, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The first picture of a file as people see it: upright, grey or RGB, 8 bits, nothing of the file's own about it.

    kind      Pillow's name of the format, the only one that is tried: "JPEG", "PNG", "WEBP", "TIFF", "BMP"
    at_least  (width, height) that will be made of it: a JPEG is decoded to half, a quarter or an eighth where that is
              still as large, which costs a third
    raises    ImageUnreadable, also for more pixels than may be, which the header says before anything is decoded
    """
    Image.MAX_IMAGE_PIXELS = None  # ours is asked instead, and does not warn
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            width, height = image.size
            if width * height > most_pixels:
                raise ImageUnreadable(
                    f"the picture has {width}x{height} pixels, more than {most_pixels:,}", "send a smaller one"
                )
            if at_least is not None:
                turned = _orientation(image) >= FIRST_TURNED
                image.draft("RGB", (at_least[1], at_least[0]) if turned else at_least)
            image.load()
            orientation = _orientation(image)
            upright = _plain(image)
    except ImageUnreadable:
        raise
    except MemoryError:
        raise ImageUnreadable("the picture needs more memory than it may have", "send a smaller one") from None
    except Exception as error:  # what Pillow's decoders raise over hostile bytes is not limited to OSError
        raise ImageUnreadable(
            f"this {kind} cannot be read: {str(error)[:200] or type(error).__name__}",
            "it may be cut short: send it again, or save it anew with another program",
        ) from error
    if (turn := UPRIGHT.get(orientation)) is not None:
        upright = upright.transpose(turn)
    return upright


# How a picture with this orientation is put upright. source: Exif 2.32, tag 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FIRST_TURNED = 5


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - a picture whose Exif is broken is a picture all the same
        return 1
    return found if isinstance(found, int) else 1


def _plain(image: Image.Image) -> Image.Image:
    """Mode L or RGB, on white where it is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        ground = Image.new("RGB", over.size, "white")
        ground.paste(over, mask=over.getchannel("A"))
        return ground
    plain = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if plain is image:
        plain = image.copy()  # of its own: the file's is closed
    plain.info.clear()
    return plain


def _eight_bits(values: npt.NDArray[Any]) -> Plane:
    """16 bits by their upper half; anything wider, whose range nothing tells, from its darkest to its brightest."""
    if values.dtype.itemsize == 2:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    low, high = float(finite.min()), float(finite.max())
    if values.dtype.kind == "i" and low >= 0 and high <= 0xFFFF:  # 16-bit PNG as older Pillow reads it
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    return ((finite - low) * (255.0 / max(high - low, 1e-9))).clip(0, 255).astype(np.uint8)


def measure(image: Image.Image) -> dict[str, Any]:
    """Figures of a picture in mode L or RGB: see images.Measurements."""
    gray = image.convert("L")
    histogram = gray.histogram()
    return {
        "width": image.width,
        "height": image.height,
        "mean": [round(value, 3) for value in ImageStat.Stat(image).mean],
        "histogram": histogram,
        "sharpness": round(sharpness(np.asarray(gray)), 3),
        "too_dark": round(histogram[0] / (gray.width * gray.height), 6),
        "too_bright": round(histogram[255] / (gray.width * gray.height), 6),
    }


STRIP = 256  # lines at a time: what is wider than a byte is never made for a whole picture


def sharpness(gray: Plane) -> float:
    """Variance of the Laplacian inside the border; higher is sharper. 0 for what is smaller than 3x3.

    gray     (H, W) uint8
    returns  counts², comparable only between pictures of the same scene and size
    source   Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000
    """
    height, width = gray.shape
    if height < 3 or width < 3:
        return 0.0
    total, squares = 0, 0
    for top in range(0, height - 2, STRIP):
        part = gray[top : top + STRIP + 2].astype(np.int16)
        inner = part[1:-1, 1:-1]
        laplacian = part[:-2, 1:-1] + part[2:, 1:-1] + part[1:-1, :-2] + part[1:-1, 2:] - 4 * inner
        total += int(laplacian.sum(dtype=np.int64))
        wide = laplacian.astype(np.int32)
        squares += int((wide * wide).sum(dtype=np.int64))
    count = (height - 2) * (width - 2)
    return float(squares / count - (total / count) ** 2)


def steepness(gray: Plane) -> Plane:
    """Magnitude of the Sobel gradient, limited to 255; 0 at the border.

    gray  (H, W) uint8
    """
    height, width = gray.shape
    found = np.zeros((height, width), np.uint8)
    for top in range(0, height - 2, STRIP):
        part = gray[top : top + STRIP + 2].astype(np.float32)
        across = part[:, 2:] - part[:, :-2]
        down = part[2:] - part[:-2]
        x = across[:-2] + 2 * across[1:-1] + across[2:]
        y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
        lines = np.minimum(np.sqrt(x * x + y * y), 255)
        found[top + 1 : top + 1 + len(lines), 1:-1] = lines.astype(np.uint8)
    return found
