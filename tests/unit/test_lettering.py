"""Text in pictures: inside its bounds, and there to be read."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camdock.lettering import GROUND, font, notice, wrapped

REASON = "/dev/video0 is held by pid 812 (guvcview)"
HINT = "stop that program, or let it be the source: relay:http://127.0.0.1:8080/?action=stream"


def picture(
    size: tuple[int, int], title: str = "front: offline", texts: tuple[str, ...] = (REASON, HINT)
) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(notice(size, title, texts, "12:34:56   for 9 s"))).convert("RGB"), int)


def ink(shown: np.ndarray) -> np.ndarray:
    """(H, W) bool: where something was drawn."""
    return np.abs(shown - np.array(GROUND)).max(axis=2) > 40


# --- wrapped ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.text("Wil.mä/-", min_size=1, max_size=60), max_size=8).map(" ".join),
    st.integers(8, 40),
    st.integers(60, 700),
)
def test_every_line_fits_and_no_letter_is_lost(text: str, height: int, width: int) -> None:
    lines = wrapped(text, height, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        assert font(height).getlength(line) <= width or len(line) == 1


@pytest.mark.parametrize("word", ["W" * 20 + "i" * 60, "i" * 60 + "W" * 20, "W" * 200, "/dev/v4l/by-id/" + "usb-" * 30])
def test_a_long_word_is_cut_to_lines_that_fit_and_are_not_wasted(word: str) -> None:
    lines = wrapped("see " + word + " there", 20, 200)
    widths = [font(20).getlength(line) for line in lines]
    assert max(widths) <= 200
    assert "".join(lines).replace(" ", "") == f"see{word}there"
    assert all(width > 140 for width in widths[1:-2]), widths


def test_words_stay_whole_while_they_fit() -> None:
    lines = wrapped(HINT, 20, 400)
    assert " ".join(lines) == HINT
    for line, following in pairwise(lines):
        assert font(20).getlength(f"{line} {following.split()[0]}") > 400


def test_nothing_is_nothing() -> None:
    assert wrapped("", 20, 200) == []
    assert wrapped(" \n\t ", 20, 200) == []


@pytest.mark.parametrize("width", [0, -5, 1])
def test_no_room_at_all_is_a_letter_a_line(width: int) -> None:
    assert wrapped("ab cd", 20, width) == ["a", "b", "c", "d"]


# --- notice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(160, 120), (320, 240), (640, 480), (1280, 720), (720, 1280), (160, 1280), (1280, 120)]
)
@pytest.mark.parametrize("text", [REASON, "x" * 400, "word " * 200, "W" * 90])
def test_no_ink_touches_the_left_right_and_lower_edge(size: tuple[int, int], text: str) -> None:
    shown = picture(size, texts=(text, HINT))
    assert shown.shape == (size[1], size[0], 3)
    unit = max(10, min(size[1] // 16, size[0] // 22))
    marks = ink(shown)[unit // 3 + 4 :]  # the bar at the top reaches from edge to edge
    assert marks[:, : unit // 2].sum() == 0
    assert marks[:, -unit // 2 :].sum() == 0
    assert marks[-2:].sum() == 0
    assert marks.any()


@pytest.mark.parametrize("title", ["x" * 60, "long name: offline " * 5, "W" * 40])
def test_a_long_title_keeps_its_margins_too(title: str) -> None:
    marks = ink(picture((640, 480), title, texts=()))[29 // 3 + 4 :]
    assert marks[:, :14].sum() == 0
    assert marks[:, -14:].sum() == 0


def lines_of_text(shown: np.ndarray) -> int:
    """How many rows of letters there are, counted as gaps are passed."""
    rows = ink(shown).any(axis=1)
    return int(np.count_nonzero(rows[1:] & ~rows[:-1])) + int(rows[0])


def test_the_letters_are_large_and_bright_enough_to_read() -> None:
    shown = picture((640, 480))
    assert shown[ink(shown)].max(axis=1).mean() > 150
    rows = ink(shown)[20:].any(axis=1)
    heights = [len(run) for run in "".join("x" if row else " " for row in rows).split()]
    assert max(heights) >= 20
    assert sorted(heights)[len(heights) // 2] >= 14


def test_a_program_that_reads_finds_the_words_of_the_title() -> None:
    # The rendered title, laid over the picture, is found where it was drawn: letters, not blots.
    size, title = (640, 480), "front: stalled"
    shown = picture(size, title).max(axis=2)
    unit = 29  # min(480 // 16, 640 // 22)
    mask = font(unit * 5 // 4).getmask(title)
    letters = np.array(mask, float).reshape(mask.size[::-1])
    best = 0.0
    for top in range(unit - 2, unit + 30):
        for left in range(unit - 2, unit + 6):
            window = shown[top : top + letters.shape[0], left : left + letters.shape[1]]
            best = max(best, float(np.corrcoef(window.ravel(), letters.ravel())[0, 1]))
    assert best > 0.95


def test_reason_and_hint_are_both_there() -> None:
    nothing, reason, both = (picture((640, 480), texts=texts) for texts in ((), (REASON,), (REASON, HINT)))
    assert lines_of_text(nothing) < lines_of_text(reason) < lines_of_text(both)
    amber = (both[..., 0] > 180) & (both[..., 2] < 90)
    assert amber[60:].any()  # the reason stands out
    assert not ((nothing[..., 0] > 180) & (nothing[..., 2] < 90))[60:].any()


def test_the_footer_changes_the_picture() -> None:
    one = notice((640, 480), "front", (), "12:00:00")
    other = notice((640, 480), "front", (), "12:00:01")
    assert one != other


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 17), (17, 300), (300, 17)])
def test_a_size_too_small_for_text_is_a_picture_all_the_same(size: tuple[int, int]) -> None:
    assert picture(size).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("text", ["", "\n\n", "ü–µ…😀", "\x00\x1b[31m", "العربية 中文"])
def test_any_text_can_be_drawn(text: str) -> None:
    assert picture((640, 480), text, (text, text)).shape == (480, 640, 3)
