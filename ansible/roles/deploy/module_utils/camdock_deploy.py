"""What the modules of role deploy share: text without credentials, whole files, short logs, one build at a time.

Runs in: modules on the target; standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CREDENTIALS = re.compile(r"(?<=//)[^/\s\"]+(?=@)")  # to the last @: not everybody writes %40
# The same names as the service hides in its own words.
_PARAMETER = re.compile(
    r"(?i)([?&#;](?:[\w.-]*(?:token|passw|pwd|secret|key|auth|sig)[\w.-]*|pass|user|usr)=)[^&;#\s\"]+"
)
NATIVE_RECIPE = 1  # goes up when a build from the same source is made in another way: the next run builds anew


def without_secrets(text: str) -> str:
    """The text with what stands before @ in addresses, and what follows token= and the like, as ***."""
    return _PARAMETER.sub(r"\1***", _CREDENTIALS.sub("***", text))


def build_of_source(version: str, digest: str, extras: list[str], python: str) -> str:
    """The id of a native build: its version, and what it is made from.

    digest  of the source archive, which contains the pins
    python  minor version of the target's interpreter, such as 3.13
    """
    made_from = json.dumps([NATIVE_RECIPE, digest, sorted(extras), python])
    return f"{version}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"


def build_of_image(version: str, digest: str) -> str:
    """The id of a container build. digest: 64 hexadecimal digits; version: "" where nobody knows it yet."""
    return f"{version or 'image'}-{digest[:12]}"


def complete(folder: Path) -> dict[str, Any] | None:
    """What a finished build says of itself; None where it is not finished or cannot be read."""
    try:
        said = json.loads((folder / "complete").read_text())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def write_whole(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write to a temporary name, sync, rename; raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as fsync does with a file's content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_lines(text: str, count: int = 25) -> list[str]:
    """The end of a log, readable: no empty lines, nothing that is not printable, no credentials."""
    lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines()]
    return [without_secrets(line)[:300] for line in lines if line.strip()][-count:]


class Busy(Exception):
    """Somebody else works on this host's builds; the message says who."""


@contextmanager
def alone(path: Path, within_s: float) -> Iterator[int]:
    """Hold the lock that whoever makes builds holds; yields its descriptor, to be passed on to child processes.

    A child that outlives us keeps the lock: what it still writes to, nobody else takes away or completes.
    raises  Busy when somebody else holds it for all of `within_s`
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        due = time.monotonic() + within_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > due:
                    raise Busy(f"another play has been building on this host for {within_s:.0f} s") from None
                time.sleep(0.5)  # flock knows no deadline
        yield descriptor
    finally:
        os.close(descriptor)
