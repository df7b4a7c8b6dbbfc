"""What the doctor says of picamera2 and libcamera, from what its errand found."""

from __future__ import annotations

from typing import Any

import pytest

from camdock.doctor.answer import Answer
from camdock.doctor.pi import SYMPTOM, checks
from camdock.doctor.report import Status

FOUND: dict[str, Any] = {
    "copies": {"picamera2": ["0.3.38 from pip (/venv/picamera2)"], "libcamera": ["of unknown version from apt (/usr)"]},
    "several": [],
    "install": "install it",
    "version": "0.3.38",
    "is_too_old": False,
    "dies_of_two": False,
    "heap_folder": "/dev/dma_heap",
    "heaps": {"/dev/dma_heap/linux,cma": True},
}
LOADED: dict[str, Any] = {"message": "", "hint": "", "versions": {"picamera2": "0.3.38", "libcamera": "0.7.1"}}


def said(found: dict[str, Any], *loaded: dict[str, Any], **trouble: Any) -> dict[str, tuple[Status, str, str]]:
    """Status, words and hint of each check."""
    made = checks(Answer([FOUND | found, *loaded], **trouble))
    return {one.name: (one.status, one.what, one.hint) for one in made}


def test_where_all_fits_it_says_so() -> None:
    assert {status for status, _, _ in said({}, LOADED).values()} == {Status.OK}
    assert said({}, LOADED)["picamera2.library"][1] == "picamera2 0.3.38, libcamera 0.7.1 load together"


@pytest.mark.parametrize(
    ("found", "status", "words", "hint"),
    [
        ({"is_too_old": True, "version": "0.3.12"}, Status.BAD, "makes it in configure()", "picamera2>=0.3.17"),
        ({"heaps": {}}, Status.BAD, "there is no /dev/dma_heap", "compose.pi.yaml"),
        ({"heaps": {"/dev/dma_heap/linux,cma": False}}, Status.BAD, "may not be opened by this user", "-aG video"),
        ({"dies_of_two": True, "version": "0.3.27"}, Status.OK, "opens a camera twice", "0.3.37"),
    ],
)
def test_each_cause_of_the_missing_allocator_is_told(
    found: dict[str, Any], status: Status, words: str, hint: str
) -> None:
    what = said(found, LOADED)["picamera2.allocator"]
    assert what[0] is status
    assert SYMPTOM in what[1]
    assert words in what[1]
    assert hint in what[2]


def test_what_is_missing_double_or_does_not_load_is_told() -> None:
    nothing = said({"copies": {"picamera2": [], "libcamera": []}}, {"message": "it does not load", "hint": "do this"})
    assert nothing["picamera2.copies"] == (Status.BAD, "picamera2 is not installed", "install it")
    assert nothing["picamera2.library"] == (Status.BAD, "it does not load", "do this")
    double = said({"several": ["picamera2 is installed 2 times: this, not that"]}, LOADED)["picamera2.copies"]
    assert double[:2] == (Status.WARNING, "picamera2 is installed 2 times: this, not that")
    assert "keep one" in double[2]


def test_a_library_that_hangs_or_dies_while_it_is_loaded_is_told() -> None:
    hung = said({}, trouble="no answer within 3.0 s", hung=True)["picamera2.library"]
    assert hung[:2] == (Status.UNKNOWN, "picamera2 does not load: no answer within 3.0 s")
    died = said({}, trouble="its process was ended by SIGSEGV")["picamera2.library"]
    assert died[0] is Status.BAD
    (only,) = checks(Answer(trouble="its process was ended by SIGSEGV"))
    assert (only.name, only.status) == ("picamera2", Status.BAD)
