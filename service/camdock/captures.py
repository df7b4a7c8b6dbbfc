"""Captures: the folder of saved stills. The folder is the index; nothing about it is kept in memory.

Runs in: the API process; every touch of the disk in a thread of its own. Never looks at a pixel.

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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from camdock.errors import CaptureMissing, StorageFailed, StorageFull
from camdock.frame import FORMATS, Still

log = logging.getLogger("camdock")

NAME = re.compile(r"capture_\d{8}_\d{6}_\d{3}\.(" + "|".join(ending for ending, _ in FORMATS.values()) + ")", re.ASCII)
_TEMPORARY = re.compile(rf"\.({NAME.pattern})\.tmp", re.ASCII)
_MEDIA_TYPES = dict(FORMATS.values())
SIDECAR = ".json"
LARGEST_SIDECAR = 1 << 16
PRUNE_EVERY_S = 600.0  # by age; by size behind every capture
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

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: what a killed service left half written is removed in the background, then what is too old."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await asyncio.to_thread(self.sweep)
        while True:
            self._added.clear()
            if self._max_bytes or self._max_age_days:
                await asyncio.to_thread(self.prune)
            await asyncio.sleep(PRUNE_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_EVERY_S):
                    await self._added.wait()

    # --- writing --------------------------------------------------------------------------------------------------

    async def add(self, still: Still) -> tuple[Capture, dict[str, Any]]:
        """Keep a still. Once this returns, a power cut does not take it.

        returns  the capture and its metadata
        """
        # The thread finishes what it began, also when nobody waits for it any more.
        added = await asyncio.shield(asyncio.to_thread(self._add, still))
        self._added.set()
        return added

    def _add(self, still: Still) -> tuple[Capture, dict[str, Any]]:
        metadata = _metadata_of(still)
        text = json.dumps(metadata, indent=2).encode() + b"\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            name, claim = self._claim(still)
            try:
                path, temporary = self.folder / name, self.folder / f".{name}.tmp"
                try:
                    _write(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), still.data)
                    _write(os.dup(claim), text)
                    self._sync()  # the metadata is there, whatever happens, before the picture is
                    temporary.rename(path)
                    self._sync()
                except BaseException:
                    # The picture first: metadata alone is nothing. After a failed last sync it is not promised either.
                    for file in (temporary, path, self._sidecar(name)):
                        file.unlink(missing_ok=True)
                    raise
            finally:
                os.close(claim)
            return Capture(path, len(still.data), path.stat().st_mtime), metadata
        except OSError as error:
            raise self._storage_error(error) from error

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

    def _sync(self) -> None:
        """Names are on the disk only once their folder is."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

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
        return await asyncio.to_thread(self._page, limit, before)

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
        return await asyncio.to_thread(self._metadata, self._checked(name))

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
        return await asyncio.to_thread(self._open, self._checked(name))

    def _open(self, name: str) -> Opened:
        try:
            file = (self.folder / name).open("rb", buffering=0)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            raise self._storage_error(error) from error
        status = os.fstat(file.fileno())
        try:
            mark = str(self._metadata(name)["sha256"])
        except (CaptureMissing, KeyError):
            mark = f"{status.st_size:x}-{status.st_mtime_ns:x}"
        except BaseException:
            file.close()
            raise
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
        await asyncio.to_thread(self._delete, self._checked(name))

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
            log.warning("captures are not pruned: %s", error.message)
        if deleted:
            log.info("%d captures deleted: above CAMDOCK_CAPTURES_MAX_BYTES or _MAX_AGE_DAYS", deleted)
        return deleted

    def _too_old_or_too_much(self) -> Iterator[str]:
        oldest = time.time() - self._max_age_days * 86400 if self._max_age_days else 0.0
        total = 0
        for turn, name in enumerate(reversed(self._names())):
            if (capture := self._stat(name)) is None:
                continue
            total += capture.size_bytes
            if turn and (capture.modified < oldest or 0 < self._max_bytes < total):
                yield name

    def sweep(self) -> int:
        """Remove what writers that are gone left half done; returns how many files. Other processes' work is left."""
        swept = 0
        try:
            entries = set(os.listdir(self.folder))
            for entry in entries:
                temporary = _TEMPORARY.fullmatch(entry)
                name = temporary[1] if temporary else entry.removesuffix(SIDECAR)
                is_left = name not in entries and (temporary or (entry != name and NAME.fullmatch(name)))
                if is_left and not self._is_being_written(name):
                    (self.folder / entry).unlink(missing_ok=True)
                    swept += 1
        except FileNotFoundError:
            return 0
        except OSError as error:
            log.warning("%s", self._storage_error(error).message)
        if swept:
            log.info("%d files of captures that were never finished are removed", swept)
        return swept

    def _is_being_written(self, name: str) -> bool:
        try:
            claim = os.open(self._sidecar(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(claim)
        return (self.folder / name).exists()  # finished just now


def _write(descriptor: int, content: bytes) -> None:
    """All of it, and on the disk."""
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


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
    }


def _missing(name: str) -> CaptureMissing:
    return CaptureMissing(f"there is no capture called {name[:64]!r}", "GET /captures lists them")
