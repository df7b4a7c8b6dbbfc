"""picamera2 and libcamera: which fit each other, and how often they are installed. Nothing of them is needed here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from camdock import picamera2lib
from camdock.errors import DriverMissing
from camdock.picamera2lib import copies, load, misfit, numbers, reasons, several

HERE = importlib.util.find_spec("libcamera") is not None


def install(folder: Path, name: str, version: str) -> str:
    """A package as pip leaves it, and the entry of sys.path that it is on."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(folder)


@pytest.mark.parametrize(
    ("picamera2", "libcamera", "works"),
    [
        ("0.3.12", "0.7.1", False),
        ("0.3.12", "0.4.0", False),
        ("0.3.22", "0.4.0", True),
        ("0.3.24", "0.4.0", True),
        ("0.3.27", "0.4.0", False),
        ("0.3.38", "0.4.0", False),
        ("0.3.22", "0.7.1", True),
        ("0.3.27", "0.7.1", True),
        ("0.3.38", "0.7.1", True),
        ("of unknown version", "0.7.1", True),
    ],
)
def test_a_pairing_that_cannot_work_is_named_with_one_that_does(picamera2: str, libcamera: str, works: bool) -> None:
    wrong = misfit(picamera2, libcamera, has_new_control=libcamera != "0.4.0")
    assert (wrong is None) == works
    if wrong is not None:
        message, hint = wrong
        assert message == f"picamera2 {picamera2} does not work with libcamera {libcamera}"
        assert "pip install 'picamera2" in hint


def test_versions_are_compared_by_their_numbers() -> None:
    assert numbers("v0.7.1") == (0, 7, 1)
    assert numbers("0.3.9") < numbers("0.3.12")
    assert numbers("of unknown version") == ()


def test_two_installations_are_found_and_the_first_on_the_path_is_the_one_that_is_used(tmp_path: Path) -> None:
    path = [install(tmp_path / "venv", "picamera2", "0.3.27"), install(tmp_path / "apt", "picamera2", "0.3.24")]
    assert [one.version for one in copies("picamera2", path)] == ["0.3.27", "0.3.24"]
    (words,) = several(path)
    assert words.startswith("picamera2 is installed 2 times: 0.3.27 from pip")
    assert "not 0.3.24" in words
    assert not several(path[:1])
    assert not several([path[0], path[0]]), "one place named twice is one installation"


def test_the_reason_below_an_error_that_says_nothing_is_found() -> None:
    outer = RuntimeError("Camera __init__ sequence did not complete.")
    outer.__context__ = RuntimeError("Failed to acquire camera: Device or resource busy")
    assert list(reasons(outer)) == [
        "Camera __init__ sequence did not complete.",
        "Failed to acquire camera: Device or resource busy",
    ]


def test_what_stands_in_for_pykms_comes_last_and_names_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "pykms", raising=False)
    monkeypatch.setitem(sys.modules, "kms", sys)  # PyPI's, say
    picamera2lib._without_screen()
    assert sys.path[-1] == str(picamera2lib.HEADLESS)
    import pykms

    assert pykms.PixelFormat.RGB888 == "RGB888"
    with pytest.raises(ImportError):
        importlib.import_module("kms")
    monkeypatch.delitem(sys.modules, "pykms")


@pytest.mark.skipif(HERE, reason="libcamera is installed here")
def test_without_libcamera_it_says_what_to_install() -> None:
    with pytest.raises(DriverMissing) as caught:
        load()
    assert "libcamera" in caught.value.message
    assert "apt install python3-libcamera" in caught.value.hint
    assert "--system-site-packages" in caught.value.hint
