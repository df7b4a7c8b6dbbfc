"""What the doctor says of libraries: the seal is respected, what breaks is named with what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from camdock.doctor import libraries
from camdock.doctor.answer import Answer
from camdock.doctor.report import Status
from camdock.installed import Seal
from camdock.source import Source

BREAKS = {"how": "read", "numpy": "2.4.6", "message": "simplejpeg 1.7.2 does not load", "hint": "`pip install x`",
          "unjudged": [], "findings": []}  # fmt: skip


def test_it_asks_of_the_same_libraries_as_the_gate_at_start() -> None:
    assert libraries.names_of([Source.parse("v4l2:0")]) == ["PIL", "linuxpy", "numpy", "simplejpeg"]
    assert "requests" in libraries.names_of([Source.parse("relay:http://host/")])


def test_a_sealed_environment_is_not_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Seal, "path", staticmethod(lambda: tmp_path / "seal.json"))
    Seal.of(["PIL", "numpy"], "9.9.9").write()
    (answer,) = libraries.abi(["numpy"], "")
    assert (answer["how"], answer["numpy"]) == ("sealed", "9.9.9")
    assert libraries.check_abi(Answer([answer]), enabled=True).what == "all fits NumPy 9.9.9 (sealed)"


def test_what_breaks_is_bad_whether_or_not_the_service_minds() -> None:
    found = libraries.check_abi(Answer([BREAKS]), enabled=True)
    assert (found.status, found.what) == (Status.BAD, "simplejpeg 1.7.2 does not load")
    assert found.hint == "`pip install x`, then restart the service"
    assert "CAMDOCK_ABI=off" in libraries.check_abi(Answer([BREAKS]), enabled=False).what


def test_a_check_without_an_answer_is_unknown_and_modules_nobody_can_judge_too() -> None:
    late = libraries.check_abi(Answer(trouble="no answer within 7 s", hung=True), enabled=True)
    assert late.status is Status.UNKNOWN
    assert "no answer within 7 s" in late.what
    strange = libraries.check_abi(Answer([{**BREAKS, "message": "", "unjudged": ["cv2: for arm"]}]), enabled=True)
    assert (strange.status, "cv2: for arm" in strange.what) == (Status.UNKNOWN, True)


def test_a_back_end_that_is_not_installed_is_no_mistake_and_one_that_crashes_is_worth_a_look() -> None:
    absent = libraries.check_backend("opencv", Answer([{"installed": False}]))
    assert (absent.status, "camdock[opencv]" in absent.what) == (Status.OK, True)
    crashed = libraries.check_backend("opencv", Answer(trouble="it was ended by SIGSEGV"))
    assert (crashed.status, "SIGSEGV" in crashed.what) == (Status.WARNING, True)
    assert libraries.check_video_backend("FFMPEG", Answer([{"version": ""}])) is None
