"""Files below a root, whatever holds them: a folder, a wheel, the layers of an image. Links never lead out of the root.

Paths are relative to the root, with forward slashes; "" is the root itself. Nothing here writes.

Runs in: any process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex, overload

from camdock.abi.facts import Bytes, Unreadable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

COMPILED = re.compile(r"\.so(?:\.\d+)*$")
TEXT_LIMIT = 16 << 20  # bytes of a RECORD or a version.py; torch's RECORD has 1 MB
FILE_LIMIT = 1 << 30  # bytes of a compiled file; the largest in public wheels has some 900 MB
ENTRY_LIMIT = 2_000_000  # entries of all folders walked; an image of a whole desktop has 500,000
WINDOW = 32 << 20  # bytes of a mapped file that may stay in memory while it is searched
PIECE = 1 << 20  # bytes of it copied at a time
IN_MEMORY = 1 << 20  # up to here reading is quicker than mapping
LINE_LIMIT = 4096  # bytes; no path is longer
LINK_LIMIT = 40  # as many as Linux follows
_PASSED_OVER = frozenset({"__pycache__", ".git", "node_modules"})  # hold no modules that an import would find

Kind = Literal["folder", "file", "link", "other"]


class TargetUnreadable(Exception):
    """A target cannot be read: the message says which, what is wrong with it, and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """One compiled file: the path that it was found by, and where the links on that path end."""

    path: str
    real: str


class Tree(ABC):
    """Read access to files below a root.

    name     what people call it, in front of paths in messages
    outside  links met on the way that lead to something outside of the root
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.outside: set[str] = set()
        self._seen_entries = 0

    @abstractmethod
    def _kind(self, path: str) -> tuple[Kind, str] | None:
        """What is at a path whose folders are no links, and where a link leads; None: nothing."""

    @abstractmethod
    def _names(self, folder: str) -> list[str]:
        """The names in a folder that exists."""

    @abstractmethod
    def load(self, real: str) -> contextlib.AbstractContextManager[Bytes]:
        """A file's bytes, while the context lasts. Raises Unreadable: absent, no plain file, too large, damaged."""

    def resolve(self, path: str) -> tuple[str, Kind] | None:
        """Where a path leads, every link followed inside the root, and what is there; None: nothing."""
        done: list[str] = []
        todo = path.split("/")[::-1]
        links = 0
        kind: Kind = "folder"
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if done:
                    done.pop()
                kind = "folder"
                continue
            here = "/".join([*done, part])
            found = self._kind(here)
            if found is None or (kind != "folder"):
                return None
            if found[0] != "link":
                done.append(part)
                kind = found[0]
                continue
            links += 1
            if links > LINK_LIMIT:
                return None
            target = found[1]
            if target.startswith("/"):
                done = []
            todo += target.split("/")[::-1]
        return "/".join(done), kind

    def real(self, path: str) -> str | None:
        found = self.resolve(path)
        return found[0] if found else None

    def is_folder(self, path: str) -> bool:
        found = self.resolve(path)
        return found is not None and found[1] == "folder"

    def is_file(self, path: str) -> bool:
        found = self.resolve(path)
        return found is not None and found[1] == "file"

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none where there is no such folder."""
        found = self.resolve(folder)
        if found is None or found[1] != "folder":
            return []
        names = self._names(found[0])
        self._count(len(names))
        return sorted(names)

    def text(self, path: str, limit: int = TEXT_LIMIT) -> str | None:
        """A text file; None where there is none that can be read. What is no UTF-8 is replaced."""
        found = self.resolve(path)
        if found is None or found[1] != "file":
            return None
        try:
            with self.load(found[0]) as data:
                return str(data[:limit], "utf-8", "replace")
        except Unreadable:
            return None

    def lines_with(self, path: str, word: bytes, limit: int = TEXT_LIMIT) -> Iterator[str]:
        """The lines of a text file that contain a word, one by one, so that a large file takes no memory."""
        found = self.resolve(path)
        if found is None or found[1] != "file":
            return
        with contextlib.suppress(Unreadable), self.load(found[0]) as data:
            end = min(len(data), limit)
            at = data.find(word, 0, end)
            while at >= 0:
                first = max(at - LINE_LIMIT, 0)
                begin = first + bytes(data[first:at]).rfind(b"\n") + 1
                stop = data.find(b"\n", at, min(at + LINE_LIMIT, end))
                stop = min(at + LINE_LIMIT, end) if stop < 0 else stop
                yield bytes(data[begin:stop]).decode("utf-8", "replace").rstrip("\r")
                at = data.find(word, stop, end)

    def walk(self, folder: str, stop: Collection[str] = (), wanted: re.Pattern[str] = COMPILED) -> Iterator[Place]:
        """The files below a folder whose names match, each once, real ones before those that only a link leads to.

        stop  folders (real paths) that are not entered
        """
        start = self.resolve(folder)
        if start is None or start[1] != "folder":
            return
        entered: set[str] = set()
        given: set[str] = set()
        links: list[str] = []
        todo = [(folder, start[0])]
        while todo or links:
            if not todo:
                link = links.pop()
                found = self.resolve(link)
                if found is None:
                    if wanted is COMPILED and self._leads_out(link):
                        self.outside.add(link)
                elif found[1] == "folder" and found[0] not in entered and not _leads_up(found[0], link):
                    todo.append((link, found[0]))
                elif found[1] == "file" and found[0] not in given and wanted.search(link):
                    given.add(found[0])
                    yield Place(link, found[0])
                continue
            path, real = todo.pop()
            if real in entered or (real in stop and real != start[0]):
                continue
            entered.add(real)
            names = self._names(real)
            self._count(len(names))
            for name in names:
                below = f"{real}/{name}" if real else name
                shown = f"{path}/{name}" if path else name
                kind = self._entry(real, name)
                if kind == "folder":
                    if name not in _PASSED_OVER:
                        todo.append((shown, below))
                elif kind == "link":
                    links.append(shown)
                elif kind == "file" and below not in given and wanted.search(name):
                    given.add(below)
                    yield Place(shown, below)

    def _entry(self, folder: str, name: str) -> Kind | None:
        found = self._kind(f"{folder}/{name}" if folder else name)
        return found[0] if found else None

    def _leads_out(self, link: str) -> bool:
        """Does a link that leads to nothing here lead to something outside?"""
        return False

    def _count(self, entries: int) -> None:
        self._seen_entries += entries
        if self._seen_entries > ENTRY_LIMIT:
            raise TargetUnreadable(
                f"{self.name} has more than {ENTRY_LIMIT:,} files and folders: name a smaller part of it"
            )


def _leads_up(real: str, link: str) -> bool:
    return real == "" or link.startswith(real + "/")


class FolderTree(Tree):
    """A folder on disk. Devices, pipes and sockets are never opened."""

    def __init__(self, root: Path | str, name: str | None = None) -> None:
        self.root = os.path.realpath(root)
        super().__init__(name or str(root))
        self._prefix = "" if self.root == "/" else self.root
        self._kinds: dict[str, dict[str, Kind]] = {}

    def on_disk(self, path: str) -> str:
        """A path of the tree as everybody on this machine writes it."""
        return f"{self._prefix}/{path.lstrip('/')}"

    def _kind(self, path: str) -> tuple[Kind, str] | None:
        full = f"{self._prefix}/{path}"
        try:
            mode = os.lstat(full).st_mode
            if stat.S_ISLNK(mode):
                return "link", os.readlink(full)
        except (OSError, ValueError):  # ValueError: a NUL in a name that a file told us
            return None
        return ("folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"), ""

    def _names(self, folder: str) -> list[str]:
        kinds: dict[str, Kind] = {}
        try:
            with os.scandir(f"{self._prefix}/{folder}") as entries:
                for entry in entries:
                    if entry.is_symlink():
                        kinds[entry.name] = "link"
                    elif entry.is_dir(follow_symlinks=False):
                        kinds[entry.name] = "folder"
                    else:
                        kinds[entry.name] = "file" if entry.is_file(follow_symlinks=False) else "other"
        except OSError:
            return []
        self._kinds = {folder: kinds}
        return list(kinds)

    def _entry(self, folder: str, name: str) -> Kind | None:
        known = self._kinds.get(folder)
        return known.get(name) if known is not None else super()._entry(folder, name)

    def _leads_out(self, link: str) -> bool:
        return os.path.exists(f"{self._prefix}/{link}")

    @contextlib.contextmanager
    def load(self, real: str) -> Iterator[Bytes]:
        with opened(f"{self._prefix}/{real}") as data:
            yield data


@contextlib.contextmanager
def opened(path: str) -> Iterator[Bytes]:
    """The bytes of a plain file on disk; large ones are mapped, not read. Raises Unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror}") from error
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise Unreadable("is no plain file")
        if state.st_size > FILE_LIMIT:
            raise Unreadable(f"has {state.st_size >> 20} MB; {FILE_LIMIT >> 20} MB at most are read")
        if state.st_size <= IN_MEMORY:
            try:
                data = os.read(descriptor, IN_MEMORY)
            except OSError as error:
                raise Unreadable(f"cannot be read: {error.strerror}") from error
            yield data
            return
        try:
            mapped = _Mapped(descriptor, state.st_size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise Unreadable(f"cannot be mapped: {error}") from error
        try:
            yield mapped
        finally:
            with contextlib.suppress(BufferError):  # somebody holds a view of it: it closes when that is gone
                mapped.close()
    finally:
        os.close(descriptor)


class _Mapped(mmap.mmap):
    """A mapped file that is searched without all of it staying in memory: pages read count as this process's."""

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> int | bytes:
        found = super().__getitem__(key)
        if isinstance(found, bytes) and len(found) > IN_MEMORY and isinstance(key, slice) and key.step is None:
            self._forget(key.start or 0, len(found))
        return found

    def _forget(self, start: int, length: int) -> None:
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        self.madvise(mmap.MADV_DONTNEED, first, min(length, len(self) - first))

    def find(self, sub: Buffer, start: int = 0, stop: int | None = None, /) -> int:
        end = len(self) if stop is None else min(stop, len(self))
        length = len(memoryview(sub))
        if end - start <= PIECE:
            return super().find(sub, start, end)
        while start < end:
            # bytes.find is some five times quicker than mmap's own in CPython 3.11, which compares at every position;
            # one piece's end overlaps the next one's beginning, so that nothing lies across
            found = super().__getitem__(slice(start, min(start + PIECE + length, end))).find(sub)
            if len(self) > WINDOW:
                self._forget(start, PIECE)
            if found >= 0:
                return start + found
            start += PIECE
        return -1


class ListedTree(Tree):
    """An archive's files by their names. `nodes`: what is there; folders above them are understood."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._nodes: dict[str, tuple[Kind, str]] = {}
        self._below: dict[str, dict[str, None]] = {"": {}}

    def add(self, path: str, kind: Kind, target: str = "") -> None:
        """Put a file (or link to `target`) at a clean path; what was there before is gone."""
        self._nodes[path] = (kind, target)
        while path:
            folder, _, name = path.rpartition("/")
            names = self._below.setdefault(folder, {})
            if name in names:
                return
            names[name] = None
            path = folder

    def _kind(self, path: str) -> tuple[Kind, str] | None:
        if path in self._nodes:
            return self._nodes[path]
        return ("folder", "") if path in self._below else None

    def _names(self, folder: str) -> list[str]:
        return list(self._below.get(folder, ()))


def clean(name: str) -> str | None:
    """An archive member's name as a path below the root; None where it would lead outside or is no name at all."""
    if name.startswith("/") or "\0" in name or "\\" in name or re.match(r"[A-Za-z]:", name):
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)
