"""Every operation on real pictures, measured against OpenCV and NumPy, or against what it means."""

from __future__ import annotations

import io
import json
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from camdock.errors import ImageUnreadable, OperationImpossible
from camdock.operations import DO, SAVED, otsu, process
from camdock.recipe import OPERATIONS, RECIPE, name_of
from tests.tools.frames import PHOTOGRAPHS

COFFEE = (PHOTOGRAPHS / "coffee.jpg").read_bytes()  # 600x400
Pixels = npt.NDArray[np.uint8]
MOST = 50_000_000


def png(pixels: Pixels) -> bytes:
    """A file without loss."""
    return bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1])


def pixels_of(file: bytes) -> Pixels:
    """(H, W, 3) RGB or (H, W) of any file, by OpenCV."""
    found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found[..., ::-1] if found.ndim == 3 else found, np.uint8)


PHOTO = pixels_of(COFFEE)
LOSSLESS = png(PHOTO)
GRAY = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)


def done(*steps: dict[str, Any], picture: bytes = LOSSLESS, kind: str = "PNG", most: int = MOST) -> Pixels:
    """The pixels of a picture behind these operations, checked as the API checks them, written without loss."""
    asked = [one.model_dump() for one in RECIPE.validate_python([*steps, {"op": "encode", "format": "png"}])]
    return pixels_of(process(picture, kind, asked, "picture", most))


def psnr(one: Pixels, other: Pixels) -> float:
    """How alike two pictures are, in dB; from 40 on nobody sees a difference."""
    assert one.shape == other.shape
    return float(cv2.PSNR(one, np.ascontiguousarray(other)))


def test_every_operation_that_may_be_asked_can_be_done() -> None:
    assert {name_of(one) for one in OPERATIONS} == {*DO, "encode"}
    assert set(SAVED) == {"jpeg", "png", "webp", "tiff", "bmp"}


# --- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 300}, (300, 200)),
        ({"height": 100}, (150, 100)),
        ({"width": 300, "height": 300}, (300, 200)),
        ({"width": 5000}, (600, 400)),
        ({"width": 300, "height": 300, "fit": "cover"}, (300, 300)),
        ({"width": 700, "height": 100, "fit": "stretch"}, (700, 100)),
        ({"width": 1}, (1, 1)),
    ],
)
@pytest.mark.parametrize(("picture", "kind"), [(LOSSLESS, "PNG"), (COFFEE, "JPEG")])
def test_a_size_is_fitted_filled_or_kept_to(picture: bytes, kind: str, asked: Any, size: tuple[int, int]) -> None:
    found = done({"op": "resize", **asked}, picture=picture, kind=kind)
    assert (found.shape[1], found.shape[0]) == size


@pytest.mark.parametrize("width", [500, 300, 200, 150, 61])
def test_a_smaller_jpeg_looks_like_the_whole_one_made_smaller_by_opencv(width: int) -> None:
    height = round(400 * width / 600)
    expected = np.asarray(cv2.resize(PHOTO, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    assert psnr(done({"op": "resize", "width": width}, picture=COFFEE, kind="JPEG"), expected) > 30


def test_filling_a_box_cuts_off_both_sides_alike() -> None:
    found = done({"op": "resize", "width": 200, "height": 200, "fit": "cover"})
    expected = np.asarray(cv2.resize(PHOTO[:, 100:500], (200, 200), interpolation=cv2.INTER_AREA), np.uint8)
    assert psnr(found, expected) > 30


def test_a_crop_is_exactly_those_pixels() -> None:
    found = done({"op": "crop", "x": 17, "y": 33, "width": 101, "height": 57})
    assert np.array_equal(found, PHOTO[33:90, 17:118])
    assert np.array_equal(done({"op": "crop", "width": 600, "height": 400}), PHOTO)


@pytest.mark.parametrize(("x", "y", "width", "height"), [(500, 0, 101, 10), (0, 399, 10, 2), (600, 0, 1, 1)])
def test_a_crop_outside_of_the_picture_is_refused_with_its_place(x: int, y: int, width: int, height: int) -> None:
    crop = {"op": "crop", "x": x, "y": y, "width": width, "height": height}
    with pytest.raises(OperationImpossible, match=r"operations\.1 \(crop\).*600x400"):
        done({"op": "grayscale"}, crop)


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1), (-90, 1), (360, 0), (0, 0)])
def test_quarter_turns_are_clockwise_and_exact(degrees: int, turns: int) -> None:
    assert np.array_equal(done({"op": "rotate", "degrees": degrees}), np.rot90(PHOTO, turns))


def test_any_other_turn_holds_the_whole_picture_on_its_background() -> None:
    found = done({"op": "rotate", "degrees": 30, "background": "#ff0000"})
    assert found.shape[:2] == (pytest.approx(646, abs=2), pytest.approx(720, abs=2))
    assert found[0, 0].tolist() == [255, 0, 0]
    turn = cv2.getRotationMatrix2D((300, 200), -30, 1)
    centre = np.asarray(cv2.warpAffine(PHOTO, turn, (600, 400), flags=cv2.INTER_CUBIC)[150:250, 250:350], np.uint8)
    top, left = (found.shape[0] - 400) // 2 + 150, (found.shape[1] - 600) // 2 + 250
    assert psnr(np.ascontiguousarray(found[top : top + 100, left : left + 100]), centre) > 25
    gray = done({"op": "grayscale"}, {"op": "rotate", "degrees": 30, "background": "#ffffff"})
    assert (gray.ndim, gray[0, 0]) == (2, 255)


def test_a_flip_mirrors() -> None:
    assert np.array_equal(done({"op": "flip"}), PHOTO[:, ::-1])
    assert np.array_equal(done({"op": "flip", "direction": "vertical"}), PHOTO[::-1])


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_grayscale_is_opencvs() -> None:
    assert np.abs(done({"op": "grayscale"}).astype(int) - GRAY).max() <= 1


@pytest.mark.parametrize("radius", [1, 2.5, 8])
def test_a_blur_is_opencvs(radius: float) -> None:
    expected = np.asarray(cv2.GaussianBlur(PHOTO, (0, 0), radius), np.uint8)
    assert psnr(done({"op": "blur", "radius": radius}), expected) > 38


def test_sharpening_is_the_unsharp_mask() -> None:
    soft = cv2.GaussianBlur(PHOTO, (0, 0), 2.0).astype(float)
    expected = np.clip(PHOTO + 1.5 * (PHOTO - soft), 0, 255).astype(np.uint8)
    assert psnr(done({"op": "sharpen"}), expected) > 32


@pytest.mark.parametrize("level", [0, 60, 254])
def test_a_threshold_leaves_white_what_is_brighter(level: int) -> None:
    gray = done({"op": "grayscale"})
    assert np.array_equal(done({"op": "threshold", "level": level}), np.where(gray > level, 255, 0))


def test_the_threshold_that_is_chosen_is_otsus() -> None:
    gray = done({"op": "grayscale"})
    level, expected = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert otsu(np.bincount(gray.ravel(), minlength=256).tolist()) == level
    assert np.array_equal(done({"op": "threshold"}), expected)
    flat = png(np.full((4, 4), 9, np.uint8))
    assert set(done({"op": "threshold"}, picture=flat).ravel()) <= {0, 255}


def test_edges_are_opencvs_sobel() -> None:
    gray = done({"op": "grayscale"}).astype(np.float32)
    x, y = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    expected = np.minimum(np.sqrt(x * x + y * y), 255).astype(np.uint8)
    found = done({"op": "edges"})
    assert np.abs(found[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 1
    assert done({"op": "edges"}, picture=png(GRAY[:2, :2])).tolist() == [[0, 0], [0, 0]]


def test_equalising_is_opencvs_on_brightness_and_keeps_colours() -> None:
    gray = png(GRAY)
    assert psnr(done({"op": "equalise"}, picture=gray), np.asarray(cv2.equalizeHist(GRAY), np.uint8)) > 35
    before = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2YCrCb)
    before[..., 0] = cv2.equalizeHist(np.ascontiguousarray(before[..., 0]))
    expected = np.asarray(cv2.cvtColor(before, cv2.COLOR_YCrCb2RGB), np.uint8)
    assert psnr(done({"op": "equalise"}), expected) > 33


def test_normalising_uses_the_whole_range() -> None:
    flat = png((GRAY // 4 + 90).astype(np.uint8))
    found = done({"op": "normalise", "cutoff": 0}, picture=flat)
    assert (found.min(), found.max()) == (0, pytest.approx(255, abs=1))
    ordered = np.argsort((GRAY // 4).ravel(), kind="stable")
    assert (np.diff(found.ravel()[ordered].astype(int)) >= 0).all(), "what was brighter is brighter"
    single = png(np.full((4, 4, 3), 77, np.uint8))
    assert done({"op": "normalise"}, picture=single).shape == (4, 4, 3)


def test_text_is_drawn_where_and_as_it_was_asked() -> None:
    black = png(np.zeros((100, 400), np.uint8))
    where = {"op": "annotate", "text": "front door", "x": 50, "y": 30, "size": 30}
    found = done({**where, "colour": "#ff0000"}, picture=black)
    rows, columns = np.nonzero(found[..., 0] > 128)
    assert (rows.min() > 29, rows.max() < 70, columns.min() > 48) == (True, True, True)
    assert 100 < columns.max() - columns.min() < 250
    assert not found[..., 1:].any()
    boxed = done({**where, "background": "#0000ff"}, picture=black)
    assert boxed[40, 47].tolist() == [0, 0, 255]
    assert np.array_equal(done({**where, "x": 60000}), PHOTO), "outside of it nothing is drawn, and nothing fails"


# --- the list ---------------------------------------------------------------------------------------------------------


def test_operations_are_done_in_their_order() -> None:
    crop, turn = {"op": "crop", "width": 100, "height": 50}, {"op": "rotate", "degrees": 90}
    assert np.array_equal(done(crop, turn), np.rot90(PHOTO[:50, :100], -1))
    assert np.array_equal(done(turn, crop), np.rot90(PHOTO, -1)[:50, :100])


def test_what_becomes_too_large_is_refused_with_its_place() -> None:
    grow = {"op": "resize", "width": 4000, "height": 4000, "fit": "stretch"}
    with pytest.raises(OperationImpossible, match=r"operations\.1 \(resize\): 4000x4000 are more than 1,000,000"):
        done({"op": "flip"}, grow, most=1_000_000)
    with pytest.raises(ImageUnreadable, match="600x400 pixels, more than 200,000"):
        done(most=200_000)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("gray", [False, True])
def test_every_format_is_written(form: str, gray: bool) -> None:
    steps = [{"op": "grayscale"}] * gray + [{"op": "encode", "format": form, "quality": 95}]
    written = process(LOSSLESS, "PNG", steps, "picture", MOST)
    with Image.open(io.BytesIO(written)) as image:
        assert image.format == form.upper()
        found = np.asarray(image.convert("RGB"))
    expected = np.repeat(GRAY[..., None], 3, axis=2) if gray else PHOTO
    assert psnr(found, np.asarray(expected, np.uint8)) > 32


def test_a_lower_quality_is_smaller_and_90_is_what_nobody_asked_for() -> None:
    sizes = [len(process(LOSSLESS, "PNG", [{"op": "encode", "format": "jpeg", "quality": q}], "picture", MOST))
             for q in (30, 90)]  # fmt: skip
    assert sizes[0] < sizes[1] == len(process(LOSSLESS, "PNG", [], "picture", MOST))


def test_a_side_that_the_format_cannot_have_is_refused_with_its_place() -> None:
    wide = png(np.zeros((1, 17000), np.uint8))
    with pytest.raises(OperationImpossible, match=r"operations\.0 \(encode\): 17000x1 pixels do not fit into webp"):
        process(wide, "PNG", [{"op": "encode", "format": "webp", "quality": 90}], "picture", MOST)


def test_measurements_are_of_what_the_operations_made() -> None:
    found = json.loads(process(LOSSLESS, "PNG", [{"op": "crop", "x": 0, "y": 0, "width": 90, "height": 60}],
                               "measurements", MOST))  # fmt: skip
    part = PHOTO[:60, :90]
    assert (found["width"], found["height"]) == (90, 60)
    assert found["mean"] == pytest.approx(part.reshape(-1, 3).mean(axis=0), abs=0.01)
    gray = np.asarray(Image.fromarray(part).convert("L"))
    assert found["histogram"] == np.bincount(gray.ravel(), minlength=256).tolist()
    expected = cv2.Laplacian(gray, cv2.CV_64F, ksize=1)[1:-1, 1:-1].var()
    assert found["sharpness"] == pytest.approx(expected, rel=1e-4)


def test_a_blurred_picture_is_less_sharp_and_an_overexposed_one_is_told() -> None:
    def measured(*steps: dict[str, Any], picture: bytes = LOSSLESS) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(process(picture, "PNG", list(steps), "measurements", MOST))
        return found

    assert measured({"op": "blur", "radius": 2})["sharpness"] < measured()["sharpness"] / 10
    half = np.full((10, 10), 100, np.uint8)
    half[:5], half[9] = 255, 0
    found = measured(picture=png(half))
    assert (found["too_bright"], found["too_dark"], found["mean"]) == (0.5, 0.1, [pytest.approx(167.5)])
    assert measured(picture=png(half[:2, :2]))["sharpness"] == 0
