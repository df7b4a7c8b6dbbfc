"""Files that are whole after a power cut, names that change in one step, and what a full disk means."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camdock_release.errors import Refused


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON so that after a power cut either the old or the new file is there, whole. Raises OSError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def remove(path: Path) -> None:
    """Take a name away, for good; nothing happens when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def link(path: Path, target: str) -> None:
    """Make `path` a link to `target`, in one step for whoever looks."""
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    beside.symlink_to(target)
    beside.replace(path)
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises FileNotFoundError; Refused when it cannot be understood."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise Refused(f"{path} holds no JSON object")
    return document


def full(error: OSError, folder: Path) -> str:
    """What an error of the disk means, in words, with how much room there is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or folder}: {error.strerror}"
    room = os.statvfs(folder)
    free_mb, inodes = room.f_bavail * room.f_frsize / 1e6, room.f_favail
    return (
        f"the file system of {folder} is full: {free_mb:.1f} MB and {inodes} inodes are free; "
        f"make room there, `camdock-release prune --keep 1` may help"
    )
