"""Captures: the folder of saved stills. The folder is the index; nothing about it is kept in memory.

Runs in: the API process; every touch of the disk in threads of its own. Never looks at a pixel.

    capture_20261017_010203_004.jpg        the picture, as it came
    capture_20261017_010203_004.jpg.json   its metadata, whole and on the disk before the picture has its name
    .capture_20261017_010203_004.jpg.tmp   while it is written

The picture's name is what makes a capture: it appears last, and goes first. The metadata's name is taken exclusively
before anything is written, so it claims the other two, for other processes too; a lock on it says that its writer
lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from camdock.errors import CaptureMissing, StorageFailed, StorageFull
from camdock.frame import FORMATS, Still
from camdock.mistakes import must_not_fail

log = logging.getLogger("camdock")
T = TypeVar("T")

NAME = re.compile(r"capture_\d{8}_\d{6}_\d{3}\.(" + "|".join(ending for ending, _ in FORMATS.values()) + ")", re.ASCII)
_TEMPORARY = re.compile(rf"\.({NAME.pattern})\.tmp", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What a file system without hard links, or a kernel that is told to allow none, answers: FAT, exFAT, some of FUSE.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_MEDIA_TYPES = dict(FORMATS.values())
SIDECAR = ".json"
LARGEST_SIDECAR = 1 << 16
PRUNE_EVERY_S = 600.0  # by age; by size behind every capture
THREADS = 8  # readers and writers at once: a disk gains nothing from more
PRUNE_PAUSE_S = 1.0  # a burst of captures is looked through once


@dataclass(frozen=True, slots=True)
class Capture:
    """One saved still.

    path         the picture
    size_bytes   of the picture
    modified     Unix seconds of its file
    """

    path: Path
    size_bytes: int
    modified: float

    @property
    def filename(self) -> str:
        """Its name in the folder."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class Page:
    """Some captures, the newest first.

    count   of the whole folder
    before  what the next page begins behind; None on the last one
    """

    captures: tuple[Capture, ...]
    count: int
    before: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A capture that is being read: it can be deleted meanwhile.

    etag  the checksum of its metadata; from size and date where it has none
    """

    file: BinaryIO
    size_bytes: int
    etag: str
    media_type: str


class Captures:
    """The folder. Every method raises StorageFull or StorageFailed when the disk refuses.

    max_bytes     0: no limit; else the oldest captures are deleted above it
    max_age_days  0: no limit; else older captures are deleted
    """

    def __init__(self, folder: Path, *, max_bytes: int = 0, max_age_days: float = 0) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._max_age_days = max_age_days
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(THREADS, "captures")

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: what a killed service left half written is removed in the background, then what is too old."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(must_not_fail("captures are not looked through any more"))

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what touches the folder in threads of its own: a network mount that died holds up nothing else."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _run(self) -> None:
        await self._tend(self.sweep)
        while True:
            self._added.clear()
            if self._max_bytes or self._max_age_days:
                await self._tend(self.prune)
            await asyncio.sleep(PRUNE_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_EVERY_S):
                    await self._added.wait()

    async def _tend(self, work: Callable[[], int]) -> None:
        try:
            await self.aside(work)
        except (RuntimeError, MemoryError):  # no thread to be had just now; the next time there may be
            log.exception("captures are not looked through this time")

    # --- writing --------------------------------------------------------------------------------------------------

    async def add(self, still: Still) -> tuple[Capture, dict[str, Any]]:
        """Keep a still. Once this returns, a power cut does not take it.

        returns  the capture and its metadata
        """
        # The thread finishes what it began, also when nobody waits for it any more.
        adding = asyncio.create_task(self.aside(self._add, still))
        adding.add_done_callback(self._on_added)
        return await asyncio.shield(adding)

    def _on_added(self, adding: asyncio.Task[tuple[Capture, dict[str, Any]]]) -> None:
        if not adding.cancelled() and adding.exception() is None:
            self._added.set()

    def _add(self, still: Still) -> tuple[Capture, dict[str, Any]]:
        metadata = _metadata_of(still)
        text = json.dumps(metadata, indent=2).encode() + b"\n"
        try:
            self._make_folder()
            while True:
                name, claim = self._claim(still)
                try:
                    return self._write_claimed(name, claim, still.data, text), metadata
                except FileExistsError:  # another program has made a picture of that name meanwhile
                    continue
                finally:
                    os.close(claim)
        except OSError as error:
            raise self._storage_error(error) from error

    def _make_folder(self) -> None:
        missing = [one for one in (self.folder, *self.folder.parents) if not one.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        for one in missing:
            _sync(one.parent)

    def _write_claimed(self, name: str, claim: int, data: bytes, text: bytes) -> Capture:
        """The picture and its metadata, on the disk. Raises FileExistsError where somebody else made the picture."""
        path, temporary = self.folder / name, self.folder / f".{name}.tmp"
        made = [temporary]
        try:
            modified = _write(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), data)
            _write(os.dup(claim), text)
            _sync(self.folder)  # the metadata is there, whatever happens, before the picture is
            try:
                os.link(temporary, path)  # which, unlike a rename, replaces nothing
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                temporary.rename(path)
            made.append(path)
            temporary.unlink(missing_ok=True)
            _sync(self.folder)
        except BaseException:
            # The picture first: metadata alone is nothing. After a failed last sync it is not promised either.
            for file in (*made, self._sidecar(name)):
                file.unlink(missing_ok=True)
            raise
        return Capture(path, len(data), modified)

    def _claim(self, still: Still) -> tuple[str, int]:
        """A name that nobody has, of the moment or the next free millisecond, and its metadata's file, locked."""
        moment = datetime.fromtimestamp(still.captured_at)
        ending = FORMATS[still.format][0]
        while True:
            name = f"capture_{moment:%Y%m%d_%H%M%S}_{moment.microsecond // 1000:03d}.{ending}"
            moment += timedelta(milliseconds=1)
            sidecar = self._sidecar(name)
            try:
                claim = os.open(sidecar, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            except FileExistsError:
                continue
            try:
                fcntl.flock(claim, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                os.close(claim)
                sidecar.unlink()
                raise
            if os.fstat(claim).st_nlink == 0:  # swept by another process that starts, before it was locked
                os.close(claim)
            elif (self.folder / name).exists():  # of the service that was here before us: it kept no metadata
                sidecar.unlink()
                os.close(claim)
            else:
                return name, claim

    def _sidecar(self, name: str) -> Path:
        return self.folder / (name + SIDECAR)

    def _storage_error(self, error: OSError) -> StorageFailed:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return (StorageFull if full else StorageFailed)(
            f"{error.filename or self.folder}: {error.strerror}",
            "free some space: delete captures, or set CAMDOCK_CAPTURES_MAX_BYTES"
            if full
            else "point CAMDOCK_CAPTURES_DIR at a folder that the service may write to",
        )

    # --- reading --------------------------------------------------------------------------------------------------

    async def page(self, limit: int | None = None, before: str | None = None) -> Page:
        """The newest captures, or the newest of those whose name sorts before `before`; all without a limit."""
        return await self.aside(self._page, limit, before)

    async def listed(self, words: Callable[[Page], bytes]) -> bytes:
        """All of them, in these words: made in the thread that has listed them, for there may be very many."""
        return await self.aside(lambda: words(self._page(None, None)))

    def _page(self, limit: int | None, before: str | None) -> Page:
        names = self._names()
        end = len(names) if before is None else bisect_left(names, before)
        begin = 0 if limit is None else max(0, end - limit)
        found = tuple(filter(None, (self._stat(name) for name in reversed(names[begin:end]))))
        return Page(found, len(names), names[begin] if begin else None)

    def _names(self) -> list[str]:
        """Every capture's name, the oldest first. A name says when, so no file is looked at."""
        try:
            return sorted(filter(NAME.fullmatch, os.listdir(self.folder)))
        except FileNotFoundError:  # nothing was captured yet
            return []
        except OSError as error:
            raise self._storage_error(error) from error

    def _stat(self, name: str) -> Capture | None:
        path = self.folder / name
        try:
            status = path.stat()
        except OSError:  # deleted meanwhile
            return None
        return Capture(path, status.st_size, status.st_mtime)

    async def metadata(self, name: str) -> dict[str, Any]:
        """What was written beside a capture. Raises CaptureMissing when there is no such capture, or it has none."""
        return await self.aside(self._metadata, self._checked(name))

    def _metadata(self, name: str) -> dict[str, Any]:
        if not (self.folder / name).exists():
            raise _missing(name)
        try:
            with self._sidecar(name).open("rb") as file:
                found = json.loads(file.read(LARGEST_SIDECAR))
        except (FileNotFoundError, ValueError):
            found = None
        except OSError as error:
            raise self._storage_error(error) from error
        if not isinstance(found, dict):
            raise CaptureMissing(f"{name} has no metadata", "it was not saved by this service, or its file was changed")
        return found

    async def open(self, name: str) -> Opened:
        """A capture to be read; whoever calls this closes its file. Raises CaptureMissing."""
        return await self.aside(self._open, self._checked(name))

    def _open(self, name: str) -> Opened:
        try:
            file = (self.folder / name).open("rb", buffering=0)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            raise self._storage_error(error) from error
        status = os.fstat(file.fileno())
        try:
            mark = str(self._metadata(name).get("sha256"))
        except CaptureMissing:
            mark = ""
        except BaseException:
            file.close()
            raise
        if not _SHA256.fullmatch(mark):  # of another program, or changed by somebody: it becomes a header
            mark = f"{status.st_size:x}-{status.st_mtime_ns:x}"
        return Opened(file, status.st_size, f'"{mark}"', _MEDIA_TYPES[name.rpartition(".")[2]])

    @staticmethod
    def _checked(name: str) -> str:
        """The name, which cannot lead out of the folder. Raises CaptureMissing for whatever is no capture's name."""
        if not NAME.fullmatch(name):
            raise _missing(name)
        return name

    # --- deleting -------------------------------------------------------------------------------------------------

    async def delete(self, name: str) -> None:
        """Delete a capture and its metadata. Raises CaptureMissing."""
        await self.aside(self._delete, self._checked(name))

    def _delete(self, name: str) -> None:
        try:
            (self.folder / name).unlink()
            self._sidecar(name).unlink(missing_ok=True)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            raise self._storage_error(error) from error

    def prune(self) -> int:
        """Delete what is too old, then the oldest of what is too much; never the newest one. Returns how many."""
        deleted = 0
        try:
            for name in self._too_old_or_too_much():
                with contextlib.suppress(CaptureMissing):
                    self._delete(name)
                    deleted += 1
        except StorageFailed as error:
            log.warning("captures are not pruned: %s -- %s", error.message, error.hint)
        if deleted:
            log.info("%d captures deleted: above CAMDOCK_CAPTURES_MAX_BYTES or _MAX_AGE_DAYS", deleted)
        return deleted

    def _too_old_or_too_much(self) -> Iterator[str]:
        oldest = time.time() - self._max_age_days * 86400 if self._max_age_days else 0.0
        total = 0
        found = [capture for name in self._names() if (capture := self._stat(name))]
        # Not by name, which has the local time: that is set back once a year, and by whoever sets the clock.
        found.sort(key=lambda capture: (capture.modified, capture.filename), reverse=True)
        for turn, capture in enumerate(found):
            total += capture.size_bytes
            if turn and (capture.modified < oldest or 0 < self._max_bytes < total):
                yield capture.filename

    def sweep(self) -> int:
        """Remove what writers that are gone left half done; returns how many files. Other processes' work is left."""
        swept = 0
        try:
            entries = set(os.listdir(self.folder))
        except FileNotFoundError:
            return 0
        except OSError as error:
            self._warn(error)
            return 0
        claimed = {name for entry in entries if NAME.fullmatch(name := entry.removesuffix(SIDECAR)) and name != entry}
        unclaimed = {match[1] for entry in entries if (match := _TEMPORARY.fullmatch(entry))} - claimed
        for name in sorted((claimed | unclaimed) - entries):
            try:
                swept += self._sweep_one(name, is_claimed=name in claimed)
            except (FileExistsError, FileNotFoundError, BlockingIOError):
                pass  # somebody has just begun to write it, has removed it, or is about it
            except OSError as error:
                self._warn(error)
        if swept:
            log.info("%d files of captures that were never finished are removed", swept)
        return swept

    def _warn(self, error: OSError) -> None:
        refused = self._storage_error(error)
        log.warning("captures: %s -- %s", refused.message, refused.hint)

    def _sweep_one(self, name: str, *, is_claimed: bool) -> int:
        """Remove what is left of one capture, holding its claim as a writer does, until it is gone; returns how many.

        raises  FileExistsError, FileNotFoundError, BlockingIOError when it is somebody else's
        """
        sidecar, temporary = self._sidecar(name), self.folder / f".{name}.tmp"
        claim = os.open(sidecar, os.O_RDWR | os.O_CLOEXEC | (0 if is_claimed else os.O_CREAT | os.O_EXCL), 0o640)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(claim).st_nlink == 0 or (is_claimed and (self.folder / name).exists()):  # finished just now
                return 0
            had_temporary = temporary.exists()
            temporary.unlink(missing_ok=True)
            sidecar.unlink()
            return had_temporary + is_claimed
        finally:
            os.close(claim)


def _write(descriptor: int, content: bytes) -> float:
    """All of it, and on the disk; returns when it was modified, Unix seconds."""
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_mtime


def _sync(folder: Path) -> None:
    """Names are on the disk only once their folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _metadata_of(still: Still) -> dict[str, Any]:
    return {
        "camera": still.camera,
        "source": still.source,
        "device": still.device,
        "seq": still.seq,
        "captured_at": still.captured_at,
        "format": still.format,
        "size": {"width": still.size[0], "height": still.size[1]},
        "size_bytes": len(still.data),
        "sha256": hashlib.sha256(still.data).hexdigest(),
        "settings": asdict(still.settings),
        "sensor": dict(still.sensor),
    }


def _missing(name: str) -> CaptureMissing:
    return CaptureMissing(f"there is no capture called {name[:64]!r}", "GET /captures lists them")
