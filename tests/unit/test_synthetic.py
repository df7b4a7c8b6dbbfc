"""The test card: its number can be read by programs, it moves, and it can be any size."""

from __future__ import annotations

import io
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camdock.backends import open_backend
from camdock.backends.synthetic import NUMBER_BITS, Synthetic, mark_number
from camdock.errors import CameraError, SettingOutOfRange
from camdock.frame import Picture, jpeg_size, whole_jpeg
from camdock.imaging import encode_jpeg
from camdock.settings import Settings
from camdock.source import Source
from tests.tools.frames import read_number
from tests.tools.pictures import exposure_of


def card(options: str = "", first_seq: int = 1) -> Synthetic:
    """An open test card that is always due."""
    backend = open_backend(Source.parse(f"synthetic:?fps=1000&{options}"), first_seq)
    assert isinstance(backend, Synthetic)
    backend.open()
    return backend


def shot(backend: Synthetic) -> Picture:
    picture = backend.read(10.0)
    assert picture is not None
    return picture


def grey(picture: Picture) -> np.ndarray:
    """(H, W) as a viewer sees it, through JPEG."""
    return np.asarray(Image.open(io.BytesIO(encode_jpeg(picture, 80))).convert("L")).astype(int)


def test_one_that_remembers_has_its_settings_in_its_next_process(tmp_path: Path) -> None:
    options = f"in_flight=0&remembers={tmp_path / 'memory'}"
    card(options).apply(Settings(exposure_us=777, gain=2.0))
    again = card(options)
    assert exposure_of(encode_jpeg(shot(again), 80)) == 777
    assert again.apply(Settings()) == Settings(777, 2.0, False)


# --- the number -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, 0x555555, 0xAAAAAA, 0xFFFFFF, 0x800000, 1234567, 1 << 24, (1 << 24) + 5])
@pytest.mark.parametrize("width", [48, 100, 384, 1280])
def test_a_number_that_was_drawn_is_read_back(number: int, width: int) -> None:
    picture = np.full((48, width), 128, np.uint8)
    mark_number(picture, number)
    assert read_number(picture) == number % (1 << NUMBER_BITS)


@pytest.mark.parametrize("form", ["JPEG", "YUV420", "RGB"])
@pytest.mark.parametrize("size", ["640x480", "384x48", "320x240", "97x33", "1280x720"])
@pytest.mark.parametrize("quality", [30, 95])
def test_the_number_of_a_picture_survives_jpeg(form: str, size: str, quality: int) -> None:
    backend = card(f"size={size}&format={form}&quality={quality}", first_seq=0xABCDE)
    for number in (0xABCDE, 0xABCDF, 0xABCE0):
        assert read_number(encode_jpeg(shot(backend), quality)) == number


def test_the_number_goes_on_where_the_last_worker_ended() -> None:
    assert read_number(encode_jpeg(shot(card(first_seq=500)), 80)) == 500


def test_the_number_leaves_the_rest_of_the_picture_alone() -> None:
    picture = np.full((48, 400), 128, np.uint8)
    mark_number(picture, 0x123456)
    assert (picture[16:] == 128).all()
    assert (picture[:, 384:] == 128).all()
    assert (picture[:16, :384] != 128).all()


# --- moving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "YUV420", "RGB"])
def test_every_picture_differs_from_the_one_before(form: str) -> None:
    backend = card(f"format={form}")
    pictures = [grey(shot(backend)) for _ in range(4)]
    for before, after in pairwise(pictures):
        changed = np.abs(before - after) > 60
        assert changed[:16].any()  # the number
        assert changed[360:400].any()  # the sweep
        assert changed[420:].any()  # its number in digits
        assert not changed[200:350].any()  # the colours stand still


def test_the_sweep_crosses_the_whole_picture_and_begins_again() -> None:
    backend = card("size=160x120&format=YUV420")
    places = []
    for _ in range(200):
        band = np.asarray(shot(backend).planes[0])[92:98]
        places.append(int((band == 235).all(axis=0).argmax()))
    assert min(places) < 8
    assert max(places) > 140
    assert any(after < before for before, after in pairwise(places))


def test_the_label_is_drawn() -> None:
    one, other = (grey(shot(card(f"format=RGB&label={label}"))) for label in ("nothing", "something%20else"))
    assert (np.abs(one - other)[16:160] > 60).sum() > 100


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "YUV420", "RGB"])
@pytest.mark.parametrize(
    "size", [(16, 16), (17, 16), (16, 17), (33, 17), (17, 33), (23, 99), (25, 16), (16, 2000), (2000, 16), (641, 481)]
)
def test_any_size_gives_whole_pictures_of_that_size(size: tuple[int, int], form: str) -> None:
    backend = card(f"size={size[0]}x{size[1]}&format={form}")
    for _ in range(3):
        picture = shot(backend)
        jpeg = encode_jpeg(picture, 80)
        assert picture.size == jpeg_size(jpeg) == size
        assert whole_jpeg(jpeg) is jpeg
        assert np.asarray(Image.open(io.BytesIO(jpeg))).shape[:2] == size[::-1]


def test_the_forms_show_the_same_card() -> None:
    pictures: list[Any] = []
    for form in ("JPEG", "YUV420", "RGB"):
        image = Image.open(io.BytesIO(encode_jpeg(shot(card(f"format={form}&quality=95")), 95))).convert("RGB")
        pictures.append(np.asarray(image).astype(int)[200:350])
    assert np.abs(pictures[0] - pictures[1]).mean() < 2
    assert np.abs(pictures[0] - pictures[2]).mean() < 6


# --- what it says of itself -------------------------------------------------------------------------------------------


def test_opening_tells_what_was_asked_for() -> None:
    backend = open_backend(Source.parse("synthetic:?size=320x240&fps=12.5&format=RGB&label=x"))
    opened = backend.open()
    assert (opened.size, opened.fps, opened.format) == ((320, 240), 12.5, "RGB")
    assert opened.source == "synthetic:?size=320x240&fps=12.5&format=RGB&label=x"


def test_a_picture_is_stamped_when_it_is_taken() -> None:
    backend = card()
    before = time.monotonic_ns()
    assert before <= shot(backend).captured_ns <= time.monotonic_ns()


def test_a_picture_that_is_not_due_is_not_waited_for_longer_than_asked() -> None:
    backend = card()
    backend.due = time.monotonic() + 1000
    assert backend.read(0.001) is None


def test_a_machine_that_cannot_keep_up_gives_fewer_pictures_and_not_late_ones() -> None:
    backend = card("size=16x16")
    backend.fps = 10.0
    backend.due = time.monotonic() - 50
    shot(backend)
    assert backend.due >= time.monotonic() - 0.2


@pytest.mark.parametrize(
    ("fault", "code"), [("busy", "source_busy"), ("denied", "source_denied"), ("gone=/proc/self", "source_missing")]
)
def test_a_fault_of_opening_is_an_error_of_its_own(fault: str, code: str) -> None:
    with pytest.raises(CameraError) as caught:
        card(fault)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_fault_comes_after_as_many_pictures_as_asked() -> None:
    backend = card("error_after=2&size=16x16")
    shot(backend)
    shot(backend)
    with pytest.raises(CameraError) as caught:
        backend.read(1.0)
    assert caught.value.code == "source_failed"


def test_it_is_unplugged_while_the_file_exists(tmp_path: Path) -> None:
    file = tmp_path / "gone"
    backend = card(f"gone={file}")
    shot(backend)
    file.touch()
    with pytest.raises(CameraError) as caught:
        backend.read(1.0)
    assert caught.value.code == "source_missing"
    assert str(file) in caught.value.message


@pytest.mark.parametrize("fault", ["half_frame", "garbage"])
def test_a_fault_of_the_wire_is_announced_to_the_worker(fault: str) -> None:
    backend = card(f"{fault}_after=1&size=16x16")
    shot(backend)
    assert backend.wire_fault == ""
    shot(backend)
    assert backend.wire_fault == fault


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_applied_within_the_limits_and_reported() -> None:
    backend = card()
    assert backend.apply(Settings()) == Settings(10_000, 1.0, False)
    assert backend.apply(Settings(500, 4.0)) == Settings(500, 4.0, False)
    assert backend.apply(Settings(auto_exposure=True)) == Settings(10_000, 4.0, True)
    with pytest.raises(SettingOutOfRange):
        backend.apply(Settings(gain=17.0))
    assert backend.apply(Settings()) == Settings(10_000, 4.0, True)
