"""picamera2 and libcamera: loaded on a machine without a screen, how often they are installed, whether they fit.

Runs in: the worker, and an errand of the doctor.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from camdock.errors import DriverMissing

HEADLESS = Path(__file__).parent / "headless"
OLDEST = (0, 3, 17)  # 0.3.12 makes its allocator in configure(), which fails first beside a newer libcamera
MENDED = (0, 3, 37)  # before, opening a camera twice in one process ends the thread that its pictures come through
HEAPS = "/dev/dma_heap"
INSTALL = (
    "`sudo apt install python3-libcamera libcamera-ipa`, and picamera2 beside it: python3-picamera2, or `pip install "
    "'camdock[picamera2]'` in a virtual environment made with --system-site-packages"
)
NEW_CONTROL = "ExposureTimeMode"  # libcamera 0.4.0 has none, 0.7.1 has; picamera2 0.3.27 sets it, 0.3.24 does not


@dataclass(frozen=True, slots=True)
class Copy:
    """One installation of a package: where, and its version ("" when it does not say)."""

    folder: str
    version: str

    @property
    def origin(self) -> str:
        """Who put it there: apt, or pip."""
        return "apt" if self.folder.startswith("/usr/lib/python3") else "pip"

    def __str__(self) -> str:
        return f"{self.version or 'of unknown version'} from {self.origin} ({self.folder})"


def copies(name: str, path: Sequence[str] | None = None) -> list[Copy]:
    """Every installation of a package on the import path, the one that is imported first."""
    found: dict[str, Copy] = {}
    for entry in sys.path if path is None else path:
        spec = PathFinder.find_spec(name, [entry])
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = os.path.realpath(next(iter(spec.submodule_search_locations)))
        versions = [one.version for one in importlib.metadata.distributions(name=name, path=[entry])]
        found.setdefault(folder, Copy(folder, versions[0] if versions else ""))
    return list(found.values())


def several(path: Sequence[str] | None = None) -> list[str]:
    """What is installed more than once, in words."""
    words = []
    for name in ("picamera2", "libcamera"):
        first, *others = copies(name, path) or [Copy("", "")]
        if others:
            also = " and ".join(map(str, others))
            words.append(f"{name} is installed {len(others) + 1} times: {first} is used, not {also}")
    return words


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, to be compared: (0, 3, 27). () where it has none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


def misfit(picamera2: str, libcamera: str, *, has_new_control: bool) -> tuple[str, str] | None:
    """Why these two cannot work together, and the pairing that does; None where nothing is known against them.

    has_new_control  whether libcamera knows NEW_CONTROL
    source           tried with picamera2 0.3.12 to 0.3.38 on libcamera 0.4.0 and 0.7.1; the README has the table
    """
    version = numbers(picamera2)
    pair = f"picamera2 {picamera2} does not work with libcamera {libcamera}"
    if version and version < OLDEST:
        return pair, "`pip install 'picamera2>=0.3.17,<0.4'`; 0.3.22 and 0.3.24 work with libcamera 0.4.0 and 0.7.1"
    if version >= (0, 3, 27) and not has_new_control:
        return pair, "`pip install 'picamera2==0.3.24'`, or libcamera 0.7.1 from trixie-backports for this picamera2"
    return None


def _without_screen() -> None:
    """Have a pykms to import: the real one where there is one, else ours; and never what is called kms."""
    if str(HEADLESS) not in sys.path:
        sys.path.append(str(HEADLESS))
    # picamera2 tries kms first, and PyPI's package of that name is something else entirely. Nothing is drawn here, so
    # none is needed: an import of it is an ImportError from here on.
    sys.modules["kms"] = None  # type: ignore[assignment]


def versions(libcamera: Any) -> dict[str, str]:
    """What is loaded, for the log."""
    try:
        picamera2 = importlib.metadata.version("picamera2")
    except importlib.metadata.PackageNotFoundError:
        picamera2 = ""
    number = str(getattr(libcamera.CameraManager, "version", "")).removeprefix("v")
    return {"picamera2": picamera2 or "of unknown version", "libcamera": number or "of unknown version"}


@dataclass(frozen=True, slots=True)
class Library:
    """What is loaded.

    Picamera2, MappedArray  picamera2's classes
    libcamera               libcamera's Python binding
    versions                of both
    """

    Picamera2: Any
    MappedArray: Any
    libcamera: Any
    versions: dict[str, str]


def heaps() -> list[str]:
    """The nodes that memory for pictures is taken from; none on a machine that is no Pi."""
    return sorted(map(str, Path(HEAPS).glob("*")))


def load() -> Library:
    """picamera2 over libcamera. Raises DriverMissing with what is lacking, or with the pairing that works."""
    # It tells of every mode that it adjusts, which is each time somebody looks; what goes wrong is told all the same.
    # Without heaps each of its pipelines says "Could not open any dma-buf provider", whenever a worker is started: the
    # back end's own words tell it once. Where there are heaps this category tells of memory that runs out.
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN" if heaps() else "*:WARN,DmaBufAllocator:FATAL")
    try:
        import libcamera
    except (ImportError, AttributeError) as error:
        raise DriverMissing(f"libcamera's Python binding does not load: {error}", INSTALL) from error
    found = versions(libcamera)
    has_new_control = hasattr(libcamera.controls, NEW_CONTROL)
    if wrong := misfit(found["picamera2"], found["libcamera"], has_new_control=has_new_control):
        raise DriverMissing(*wrong)
    _without_screen()
    try:
        import picamera2
    except (ImportError, AttributeError, ValueError, OSError) as error:
        # ValueError: "numpy.dtype size changed": apt's modules beside pip's NumPy
        raise DriverMissing(f"picamera2 does not load: {error}", INSTALL) from error
    for words in several():
        print(words, file=sys.stderr, flush=True)
    return Library(picamera2.Picamera2, picamera2.MappedArray, libcamera, found)


def reasons(error: BaseException) -> Iterator[str]:
    """An error's words and those of what it came from: picamera2's own says no more than that it failed."""
    while True:
        yield f"{error}" or type(error).__name__
        before = error.__cause__ or error.__context__
        if before is None:
            return
        error = before
