"""`camdock seal`, with a small program in place of the check; the real check seals every image (tests/image)."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from camdock import seal
from camdock.__main__ import main
from camdock.installed import Seal
from camdock.pixels import LOADS
from camdock.source import KINDS


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The words that the check was started with are in this file; `answer` beside it is its exit status."""
    program = tmp_path / "check.py"
    program.write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(' '.join(sys.argv[1:]))\n"
        f"sys.exit(int(pathlib.Path({str(tmp_path / 'answer')!r}).read_text()))\n"
    )
    (tmp_path / "answer").write_text("0")
    monkeypatch.setattr(seal, "CHECK", (sys.executable, "-I", str(program), "check", "--json"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    return tmp_path / "asked"


def test_what_fits_is_sealed_for_every_name_that_a_camera_may_load(
    asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["seal"]) == 0
    names = {name for kind in KINDS.values() for name in kind.loads} | {
        name for loads in LOADS.values() for name in loads
    }
    whole = Seal.whole(names)
    assert whole is not None
    assert set(whole.names) == names
    assert whole.numpy == importlib.metadata.version("numpy")
    words = asked.read_text().split()
    assert words[:2] == ["check", "--strict"]
    assert {word for before, word in pairwise(words) if before == "--only"} == names
    assert capsys.readouterr().out == f"Sealed: {Seal.path()}\n"


def test_all_means_every_compiled_file(asked: Path) -> None:
    assert main(["seal", "--all"]) == 0
    assert asked.read_text() == "check --strict"


@pytest.mark.parametrize("status", [1, 2])
def test_what_breaks_or_cannot_be_judged_is_not_sealed_and_an_older_seal_goes(
    asked: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["seal"]) == 0
    asked.with_name("answer").write_text(str(status))
    assert main(["seal"]) == 1
    assert not Seal.path().exists()
    assert "not sealed, for the reason above" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(sys.prefix).touch()
    assert main(["seal"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("camdock seal: not sealed: ")
    assert sys.prefix in complaint


def test_without_numpy_there_is_nothing_to_judge_by(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert main(["seal"]) == 1
    assert "NumPy is not installed here" in capsys.readouterr().err
    assert not asked.exists()


def test_a_change_while_it_is_read_breaks_the_seal(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    program = tmp_path / "check.py"
    (tmp_path / "place" / "numpy").mkdir(parents=True)
    program.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'place/numpy/new.so')!r}).touch()\n")
    assert main(["seal"]) == 0
    assert json.loads(Seal.path().read_bytes())["names"]
    assert Seal.whole(["numpy"]) is None
