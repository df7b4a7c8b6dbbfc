"""What is installed, as one number, and the files that keep what was found out about it.

Runs in: the API process, in a thread of it, and `camdock seal`. Imports nothing of what it looks at.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import site
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import camdock

log = logging.getLogger("camdock")

FORMAT = 1
KEPT = 8  # answers in one file: services that share a home, with other sources or another environment
LARGEST_FILE = 1 << 20


def fingerprint(names: Collection[str], *, shipped: bool = False) -> str:
    """A number that changes with whatever the NumPy ABI check of these import names reads: 64 hexadecimal digits.

    That is the interpreter, the places it imports from, the packages installed there, the compiled files of `names`
    and of the libraries beside them, and the check itself. A file counts by its size and times; ctime among them,
    which nobody sets back.

    shipped  only what survives being packed here and unpacked elsewhere, as an image is: the size, and the full second
             in which the content last changed. Installing something changes that; who puts the times back does not
    """
    # Not sys.executable: `python` and `python3` of one environment are the same to the check.
    found = hashlib.sha256(repr((FORMAT, camdock.__version__, sys.prefix, sys.version, sorted(names))).encode())
    mark = _mark_shipped if shipped else _mark
    for file in sorted((Path(__file__).parent / "abi").glob("*.py")):
        found.update(mark(str(file)))
    for place in _places():
        marks = list(_marks(place, names, mark))
        if not shipped or any(marks):  # a folder to import from that gives nothing may be another one elsewhere: a home
            found.update(place.encode("utf-8", "surrogateescape"))
            for one in marks:
                found.update(one)
    return found.hexdigest()


def _places() -> list[str]:
    """Where a child process may import from. It reads PYTHONPATH, whatever we did."""
    places = [os.environ.get("PYTHONPATH", ""), *sys.path]
    places = [part for place in places for part in place.split(os.pathsep) if part]
    if site.ENABLE_USER_SITE is not None:  # None: not wanted by the administrator
        places.append(site.getusersitepackages())
    return list(dict.fromkeys(places))


def _marks(place: str, names: Collection[str], mark: Callable[[str], bytes]) -> Iterator[bytes]:
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError:  # a zip file, or nothing
        yield mark(place)
        return
    for entry in entries:
        stem, _, suffix = entry.name.partition(".")
        if entry.name.endswith((".dist-info", ".egg-info")):  # pip replaces it with the package
            yield from (mark(entry.path), mark(entry.path + "/METADATA"), mark(entry.path + "/RECORD"))
        elif not os.path.isdir(entry.path):  # entry.is_dir() raises where a link leads round or may not be followed
            if stem in names:
                yield mark(entry.path)
        elif stem in names or suffix == "libs":
            # Its own times say nothing: the first import writes __pycache__ into it.
            yield f"{entry.path}\n".encode("utf-8", "surrogateescape")
            linked: set[str] = set()  # where links have led: one that leads round is followed once
            for folder, below, files in os.walk(entry.path, followlinks=True):
                below[:] = sorted(
                    name for name in below if name != "__pycache__" and _is_new(f"{folder}/{name}", linked)
                )
                for file in sorted(files):
                    if ".so" in file or file == "version.py":
                        yield mark(f"{folder}/{file}")


def _is_new(folder: str, linked: set[str]) -> bool:
    if not os.path.islink(folder):
        return True
    before = len(linked)
    linked.add(os.path.realpath(folder))
    return len(linked) > before


def _mark(path: str) -> bytes:
    try:
        stat = os.stat(path)
    except OSError as error:
        return f"{path}\0{error.errno}\n".encode("utf-8", "surrogateescape")
    return f"{path}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode("utf-8", "surrogateescape")


def _mark_shipped(path: str) -> bytes:
    try:
        stat = os.stat(path)
    except OSError:
        return b""
    size = 0 if S_ISDIR(stat.st_mode) else stat.st_size  # a folder's is the file system's own affair
    return f"{path}\0{size} {int(stat.st_mtime)}\n".encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Seal:
    """What `camdock seal` leaves in an environment: everything in it fitted its NumPy, and nothing has changed since.

    names  the import names that were judged
    state  their fingerprint, as shipped
    numpy  the version they were judged by
    """

    names: tuple[str, ...]
    state: str
    numpy: str

    @staticmethod
    def path() -> Path:
        """Where the environment that this runs in keeps its seal."""
        return Path(sys.prefix, "share", "camdock", "seal.json")

    @classmethod
    def of(cls, names: Collection[str], numpy: str) -> Seal:
        """The seal of what is installed now."""
        return cls(tuple(sorted(names)), fingerprint(names, shipped=True), numpy)

    @classmethod
    def whole(cls, names: Collection[str]) -> Seal | None:
        """The environment's seal, if it covers all of `names` and is unbroken; else None."""
        try:
            document = json.loads(cls.path().read_bytes())
            if document["format"] != FORMAT:
                return None
            seal = cls(tuple(map(str, document["names"])), str(document["state"]), str(document["numpy"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            log.info("abi: %s is not used: %r", cls.path(), error)
            return None
        if not set(names) <= set(seal.names):
            return None
        if fingerprint(seal.names, shipped=True) != seal.state:
            log.info("abi: something was installed, removed or edited since this environment was sealed")
            return None
        return seal

    def write(self) -> None:
        """Put it into the environment; raises OSError."""
        text = json.dumps({"format": FORMAT, "names": self.names, "state": self.state, "numpy": self.numpy}, indent=1)
        _replace(self.path(), text + "\n")
        self.path().chmod(0o644)  # whoever runs the service reads it


class Answers:
    """A file of answers by fingerprint. One that cannot be read or written costs time at the next start, nothing else.

    path  None: nothing is kept
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def get(self, key: str) -> Any:
        """The answer that was kept under this key; None when there is none."""
        return self._read().get(key)

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer, and the newest others."""
        if self._path is None:
            return
        others = [(other, kept) for other, kept in self._read().items() if other != key]
        text = json.dumps({"format": FORMAT, "answers": dict([*others[1 - KEPT :], (key, answer)])}, indent=1)
        try:
            _replace(self._path, text)
        except OSError as error:
            log.info("abi: what was found is not kept, and is found again at the next start: %s", error)

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(LARGEST_FILE))
            if document["format"] != FORMAT or not isinstance(document["answers"], dict):
                return {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            log.info("abi: %s is not used: %r", self._path, error)
            return {}
        answers: dict[str, Any] = document["answers"]
        return answers


def _replace(path: Path, text: str) -> None:
    """Write to a temporary name, sync, rename: two services that start at once leave one whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
