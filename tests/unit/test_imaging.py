"""Pixels from a driver's buffer to JPEG, against the plainest way to say the same."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from camdock import imaging
from camdock.errors import ImageUnreadable
from camdock.frame import Picture, jpeg_size, whole_jpeg
from camdock.imaging import decode, encode_jpeg, split_nv12, split_yuv420, split_yuyv, to_full_range

Bytes = npt.NDArray[np.uint8]


def noise(*shape: int) -> Bytes:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def check(planes: tuple[Bytes, ...], *expected: list[list[int]]) -> None:
    """Every plane is right, and one that the encoder takes: contiguous bytes of its own."""
    for plane, wanted in zip(planes, expected, strict=True):
        assert plane.dtype == np.uint8
        assert plane.flags.c_contiguous
        assert plane.tolist() == wanted


SIZES = [(16, 16), (640, 480), (18, 34), (2, 2)]
PADDINGS = [0, 1, 3, 64]


@pytest.mark.parametrize("uyvy", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_packed_422_is_split_whatever_the_stride(width: int, height: int, padding: int, uyvy: bool) -> None:
    lines = noise(height + 1, 2 * width + padding)
    rows = lines.tolist()[:height]
    y_at, u_at, v_at = (1, 0, 2) if uyvy else (0, 1, 3)
    check(
        split_yuyv(lines, width, height, uyvy=uyvy),
        [[row[2 * x + y_at] for x in range(width)] for row in rows],
        [[row[4 * x + u_at] for x in range(width // 2)] for row in rows],
        [[row[4 * x + v_at] for x in range(width // 2)] for row in rows],
    )


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_semi_planar_420_is_split_whatever_the_stride(width: int, height: int, padding: int) -> None:
    lines = noise(height * 3 // 2, width + padding)
    rows = lines.tolist()
    chroma = rows[height:]
    check(
        split_nv12(lines, width, height),
        [row[:width] for row in rows[:height]],
        [[row[2 * x] for x in range(width // 2)] for row in chroma],
        [[row[2 * x + 1] for x in range(width // 2)] for row in chroma],
    )


@pytest.mark.parametrize("padding", [0, 2, 3, 64])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_planar_420_is_split_whatever_the_stride(width: int, height: int, padding: int) -> None:
    stride = width + padding
    data = noise(stride * height * 3 // 2 + 100)
    flat = data.tolist()
    first, pitch = stride * height, stride // 2
    second = first + pitch * (height // 2)

    def plane(at: int, step: int, columns: int, rows: int) -> list[list[int]]:
        return [flat[at + row * step : at + row * step + columns] for row in range(rows)]

    check(
        split_yuv420(data, width, height, stride),
        plane(0, stride, width, height),
        plane(first, pitch, width // 2, height // 2),
        plane(second, pitch, width // 2, height // 2),
    )


@pytest.mark.parametrize(("width", "height"), [(256, 2), (16, 16), (15, 17), (1, 1)])
def test_video_range_is_stretched_to_full_range_whatever_the_size(width: int, height: int) -> None:
    planes = [noise(height, width), noise(height, (width + 1) // 2), noise(height, (width + 1) // 2)]
    planes[0].ravel()[: min(256, width * height)] = np.arange(min(256, width * height))

    def stretched(value: int, high: int) -> int:
        return min(255, max(0, round((value - 16) * 255 / (high - 16))))

    check(
        to_full_range(planes),
        *(
            [[stretched(value, high) for value in row] for row in plane.tolist()]
            for plane, high in zip(planes, (235, 240, 240), strict=True)
        ),
    )


@pytest.mark.parametrize("uyvy", [False, True])
@pytest.mark.parametrize(("width", "height"), [(256, 256), (18, 130), (2, 2)])
def test_packed_422_in_video_range_is_stretched_on_the_way(width: int, height: int, uyvy: bool) -> None:
    lines = noise(height, 2 * width + 3)
    expected = to_full_range(split_yuyv(lines, width, height, uyvy=uyvy))
    planes = split_yuyv(lines, width, height, uyvy=uyvy, video_range=True)
    for plane, exact in zip(planes, expected, strict=True):
        assert np.abs(plane.astype(int) - exact).max() <= 1
    ends = np.repeat(np.array([[0, 16, 128, 235, 240, 255]], np.uint8).T, 8, axis=1)
    y, u, v = split_yuyv(ends, 4, 6, uyvy=uyvy, video_range=True)
    assert y[:, 0].tolist() == [0, 0, 130, 255, 255, 255]
    assert u[:, 0].tolist() == v[:, 0].tolist()
    assert u[2, 0] == 128, "grey is grey"
    assert u[[0, 1]].max() <= 1
    assert u[[4, 5]].min() >= 254


# --- there and back ---------------------------------------------------------------------------------------------------


def scene(width: int, height: int) -> Bytes:
    """Smooth colours, as JPEG likes them: (H, W, 3) RGB."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.stack((x, y, 1 - x), axis=2) * 200 + 25).astype(np.uint8)


def decoded(jpeg: bytes) -> npt.NDArray[np.int64]:
    assert whole_jpeg(jpeg) is jpeg
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def close(jpeg: bytes, wanted: Bytes, mean: float = 2.5) -> None:
    shown = decoded(jpeg)
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).mean() < mean


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (16, 16)])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_rgb_comes_back_with_its_colours_in_place(size: tuple[int, int], order: str) -> None:
    wanted = scene(*size)
    array = wanted if order == "RGB" else np.ascontiguousarray(wanted[..., ::-1])
    close(encode_jpeg(Picture(size, 0, rgb=array, order=order), 95), wanted)


@pytest.mark.parametrize("layout", ["YUYV", "UYVY", "NV12", "YU12"])
def test_what_a_camera_packs_comes_back_with_its_colours_in_place(layout: str) -> None:
    width, height = 64, 48
    wanted = scene(width, height)
    y, u, v = (np.asarray(plane) for plane in Image.fromarray(wanted).convert("YCbCr").split())
    if layout in ("YUYV", "UYVY"):
        lines = np.zeros((height, 2 * width + 6), np.uint8)
        at = 0 if layout == "YUYV" else 1
        lines[:, at : 2 * width : 2] = y
        lines[:, 1 - at : 2 * width : 4] = u[:, ::2]
        lines[:, 3 - at : 2 * width : 4] = v[:, ::2]
        planes = split_yuyv(lines, width, height, uyvy=layout == "UYVY")
    elif layout == "NV12":
        lines = np.zeros((height * 3 // 2, width + 3), np.uint8)
        lines[:height, :width] = y
        lines[height:, :width:2], lines[height:, 1:width:2] = u[::2, ::2], v[::2, ::2]
        planes = split_nv12(lines, width, height)
    else:
        flat = np.concatenate([y.ravel(), u[::2, ::2].ravel(), v[::2, ::2].ravel()])
        planes = split_yuv420(flat, width, height, width)
    close(encode_jpeg(Picture((width, height), 0, planes=planes), 95), wanted, mean=4)


def test_grey_is_grey() -> None:
    grey = scene(64, 48)[..., 0].copy()
    shown = decoded(encode_jpeg(Picture((64, 48), 0, planes=(grey,)), 95))
    assert np.abs(shown - grey[..., None]).mean() < 2.5
    assert np.ptp(shown, axis=2).max() == 0


def test_what_the_camera_encoded_is_passed_on_untouched() -> None:
    jpeg = b"\xff\xd8 not even looked at \xff\xd9"
    assert encode_jpeg(Picture((64, 48), 0, jpeg=jpeg), 80) is jpeg


def test_a_better_quality_is_larger_and_truer() -> None:
    wanted = scene(320, 240) // 2 + noise(240, 320, 3) // 4
    coarse, fine = (encode_jpeg(Picture((320, 240), 0, rgb=wanted), quality) for quality in (20, 95))
    assert len(coarse) < len(fine)
    assert np.abs(decoded(coarse) - wanted).mean() > np.abs(decoded(fine) - wanted).mean()


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (1920, 1080)])
def test_the_size_is_kept_at_any_size(size: tuple[int, int]) -> None:
    assert jpeg_size(encode_jpeg(Picture(size, 0, rgb=scene(*size)), 80)) == size


# --- pictures that somebody sent --------------------------------------------------------------------------------------

F = np.array([[0, 0, 0, 0], [0, 255, 255, 0], [0, 255, 0, 0]], np.uint8).repeat(16, 0).repeat(16, 1)


def file_of(image: Image.Image, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def shown(image: Image.Image) -> Bytes:
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_put_upright_as_people_see_it(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_stored = {1: F, 2: F[:, ::-1], 3: F[::-1, ::-1], 4: F[::-1], 5: F.T, 6: np.rot90(F), 7: np.rot90(F.T, 2),
                 8: np.rot90(F, -1)}[orientation]  # fmt: skip
    file = file_of(Image.fromarray(np.ascontiguousarray(as_stored)).convert("RGB"), kind, exif=exif)
    upright = decode(file, kind, 10_000)
    assert np.abs(shown(upright)[..., 0].astype(int) - F).mean() < 8
    assert decode(file, kind, 10_000, at_least=(8, 6)).size in [(64, 48), (8, 6)]
    assert not upright.info, "nothing of the file's own"


def test_a_jpeg_is_decoded_no_larger_than_it_needs_to_be() -> None:
    file = file_of(Image.fromarray(noise(480, 640, 3)), "JPEG")
    assert decode(file, "JPEG", 10**6).size == (640, 480)
    assert decode(file, "JPEG", 10**6, at_least=(100, 1)).size == (160, 120)
    assert decode(file, "JPEG", 10**6, at_least=(100, 100)).size == (160, 120)
    assert decode(file, "JPEG", 10**6, at_least=(161, 1)).size == (320, 240)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_kind_of_pixels_becomes_grey_or_rgb(mode: str) -> None:
    picture = Image.fromarray(F)
    if mode in ("I;16", "I", "F"):
        kinds: dict[str, Any] = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        picture = Image.fromarray((F.astype(np.float64) * 257).astype(kinds[mode]))
        assert picture.mode == mode
    else:
        picture = picture.convert("RGB").convert(mode)
    found = decode(file_of(picture, "TIFF"), "TIFF", 10_000)
    assert found.mode in ("L", "RGB")
    assert np.abs(shown(found)[..., 0].astype(int) - F).max() <= 4


def test_what_is_transparent_is_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    for kind in ("PNG", "WEBP"):
        file = file_of(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
        assert shown(decode(file, kind, 100))[..., 0].tolist() == [[0] * 4] * 2 + [[255] * 4] * 2


def test_of_several_pages_the_first_is_taken() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    for kind in ("TIFF", "WEBP", "PNG"):
        file = file_of(pages[0], kind, save_all=True, append_images=pages[1:])
        assert shown(decode(file, kind, 100))[4, 4].tolist() == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_picture_is_refused_in_words(kind: str) -> None:
    file = file_of(Image.fromarray(noise(40, 40, 3)), kind)
    with pytest.raises(ImageUnreadable, match="40x40 pixels, more than 1,599"):
        decode(file, kind, 1599)
    for broken in (file[: len(file) // 2], file[:20], b""):
        with pytest.raises(ImageUnreadable, match=kind):
            decode(broken, kind, 10**6)
    with pytest.raises(ImageUnreadable, match="cannot be read"):
        decode(file, "PNG" if kind != "PNG" else "BMP", 10**6)


# --- stills -----------------------------------------------------------------------------------------------------------


def _gradient() -> np.ndarray:
    """A picture whose colours change slowly: (64, 96, 3) uint8 RGB."""
    rows, columns = np.mgrid[0:64, 0:96]
    return np.stack([columns * 2, rows * 3, 255 - columns], axis=-1).astype(np.uint8)


def _planes_of(rgb: np.ndarray) -> tuple[np.ndarray, ...]:
    y, u, v = Image.fromarray(rgb).convert("YCbCr").split()
    return np.array(y), *(np.array(plane.resize((48, 32))) for plane in (u, v))


@pytest.mark.parametrize("still_format", ["JPG", "PNG", "TIFF"])
@pytest.mark.parametrize("given", ["RGB", "BGR", "planes", "grey"])
def test_a_still_shows_what_the_driver_gave(still_format: str, given: str) -> None:
    rgb = _gradient()
    pictures = {
        "RGB": Picture((96, 64), 0, rgb=rgb),
        "BGR": Picture((96, 64), 0, rgb=np.ascontiguousarray(rgb[..., ::-1]), order="BGR"),
        "planes": Picture((96, 64), 0, planes=_planes_of(rgb)),
        "grey": Picture((96, 64), 0, planes=(rgb[..., 0].copy(),)),
    }
    data = imaging.encode_still(pictures[given], still_format, 95)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ({"JPG": "JPEG"}.get(still_format, still_format), (96, 64))
    shown = np.asarray(image.convert("L" if given == "grey" else "RGB")).astype(int)
    wanted = rgb[..., 0] if given == "grey" else rgb
    exact = still_format != "JPG" and given != "planes"
    assert np.abs(shown - wanted).max() <= (0 if exact else 8)


def test_a_still_that_the_camera_encoded_is_kept() -> None:
    assert imaging.encode_still(Picture((1, 1), 0, jpeg=b"its own"), "PNG", 95) == b"its own"


@pytest.mark.parametrize("still_format", ["PNG", "TIFF"])
def test_a_camera_s_jpeg_is_converted_without_further_loss(still_format: str) -> None:
    jpeg = imaging.encode_jpeg(Picture((96, 64), 0, rgb=_gradient()), 80)
    converted = Image.open(io.BytesIO(imaging.converted(jpeg, still_format)))
    assert np.array_equal(np.asarray(converted), np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")))
    with pytest.raises(ValueError, match="decoded"):
        imaging.converted(jpeg[: len(jpeg) // 2], still_format)
