"""Releases, builds, which one runs, and the journal of a switch: the folders below the root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camdock_release.disk import link, read_json, remove, sync_folder, write_whole
from camdock_release.errors import Refused, say

UNIT = "camdock.service"
LOCK_WITHIN_S = 150.0  # a whole switch with its watch, and the way back
POLL_S = 0.1
HISTORY = 20


def variables(path: Path) -> dict[str, str]:
    """The variables of a file that systemd's EnvironmentFile= reads (one line each, quotes around a value or not)."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            found[name.strip()] = value
    return found


@dataclass(frozen=True)
class Release:
    """One folder of releases/, as its release.json describes it.

    created  Unix seconds
    address  what to connect to from this host; never a wildcard
    tls      its port speaks https alone
    """

    id: str
    folder: Path
    build: str
    mode: str
    version: str
    created: float
    port: int
    cameras: tuple[str, ...]
    gate: str
    address: str
    tls: bool

    @classmethod
    def read(cls, folder: Path) -> Release:
        """Raises Refused when there is none, or it is not whole."""
        try:
            told = read_json(folder / "release.json")
            environment = variables(folder / "camdock.env")
        except FileNotFoundError as error:
            raise Refused(f"there is no whole release in {folder}: {error.filename} is missing") from None
        except (OSError, ValueError) as error:
            raise Refused(f"{folder / 'camdock.env'} cannot be read: {error}") from None
        kinds: dict[str, Any] = {
            "id": str, "build": str, "mode": str, "version": str, "created": (int, float), "port": int,
            "cameras": list, "gate": str,
        }  # fmt: skip
        for name, kind in kinds.items():
            if not isinstance(told.get(name), kind) or isinstance(told[name], bool):
                raise Refused(f"{folder / 'release.json'}: {name} is missing, or not of its kind")
        if told["id"] != folder.name:
            raise Refused(f"{folder / 'release.json'} is of another release: {told['id']}")
        if told["mode"] not in ("native", "container"):
            raise Refused(f"{folder / 'release.json'}: mode is native or container, not {told['mode']!r}")
        if told["gate"] not in ("pictures", "live", "off"):
            raise Refused(f"{folder / 'release.json'}: gate is pictures, live or off, not {told['gate']!r}")
        if not told["cameras"]:
            raise Refused(f"{folder / 'release.json'}: it names no camera")
        address = str(told.get("address") or environment.get("CAMDOCK_HOST") or "127.0.0.1").strip("[]")
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
        return cls(
            told["id"], folder, told["build"], told["mode"], told["version"], float(told["created"]), told["port"],
            tuple(map(str, told["cameras"])), told["gate"], address,
            bool(environment.get("CAMDOCK_TLS_CERT")),
        )  # fmt: skip

    def check_whole(self) -> None:
        """Raises Refused unless everything is there that a switch to it needs."""
        for name in (UNIT, "build/complete", *(["compose.yaml"] if self.mode == "container" else [])):
            if not (self.folder / name).exists():
                raise Refused(f"release {self.id} is not whole: {self.folder / name} is missing")


class Store:
    """The folders and files below the root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases, self.builds, self.current = root / "releases", root / "builds", root / "current"
        self.journal, self.history = root / "switch.json", root / "history.json"
        # Written before a switch begins, so that its end needs no room on the disk:
        self.confirmed, self.back = root / ".history.json.confirmed", root / ".current.back"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one. Waits for the one who is at work; raises Refused when that takes too long."""
        try:
            lock = (self.root / ".lock").open("a+")
        except FileNotFoundError:
            raise Refused(f"{self.root} does not exist: nothing was ever deployed here") from None
        except OSError as error:
            raise Refused(f"{self.root} cannot be locked: {error.strerror}; this needs root") from None
        due, told = time.monotonic() + LOCK_WITHIN_S, False
        with lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        say("another camdock-release is at work; waiting for its end")
                        told = True
                    if time.monotonic() > due:
                        raise Refused(
                            f"another camdock-release is at work for more than {LOCK_WITHIN_S:.0f} s"
                        ) from None
                    time.sleep(POLL_S)
            yield

    def release(self, name: str) -> Release:
        """A release by its id; raises Refused."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", name):
            raise Refused(f"{name!r} is not the id of a release")
        if not (self.releases / name).is_dir():
            known = ", ".join(one.id for one in self.all()) or "none"
            raise Refused(f"there is no release {name}; there are: {known}")
        return Release.read(self.releases / name)

    def all(self) -> list[Release]:
        """Every release that can be read, the oldest first."""
        found = []
        for folder in self.releases.iterdir() if self.releases.is_dir() else ():
            with contextlib.suppress(Refused):
                if not folder.name.startswith("."):
                    found.append(Release.read(folder))
        return sorted(found, key=lambda one: (one.created, one.id))

    def current_id(self) -> str | None:
        """What `current` names, there or not."""
        with contextlib.suppress(FileNotFoundError):
            return Path(os.readlink(self.current)).name
        return None

    def unconfirmed(self) -> dict[str, Any] | None:
        """The switch that is not confirmed: from, to, began, attempt. None: there is none."""
        try:
            journal = read_json(self.journal)
        except FileNotFoundError:
            return None
        # Confirmed is what stands in the history; only the journal's removal was left to do.
        return None if self._read_history().get("attempt") == journal.get("attempt") else journal

    def _read_history(self) -> dict[str, Any]:
        try:
            return read_json(self.history)
        except FileNotFoundError:
            return {}
        except Refused as error:
            raise Refused(
                f"{error}. Look at it, and move it away: the releases stay, and what is forgotten is which of them "
                "have served, so that no rollback goes there before the next two deployments"
            ) from None

    def confirmed_ids(self) -> list[str]:
        """Confirmed releases that are still there, the newest last."""
        told = self._read_history().get("confirmed", [])
        return [str(one["id"]) for one in told if (self.releases / str(one["id"]) / "release.json").exists()]

    def previous_id(self) -> str | None:
        """The release that a rollback goes to; None when there is none."""
        confirmed, current = self.confirmed_ids(), self.current_id()
        before = confirmed[: len(confirmed) - confirmed[::-1].index(current) - 1] if current in confirmed else confirmed
        return next((one for one in reversed(before) if one != current), None)

    def begin(self, release: Release, *, is_rollback: bool) -> None:
        """Write down that a switch begins, and all that its end needs, whichever it is. Raises OSError."""
        attempt, before = uuid.uuid4().hex, self.current_id()
        told = [one for one in self._read_history().get("confirmed", []) if one.get("id") in self.confirmed_ids()]
        if is_rollback:  # what lay behind it is taken back: the next rollback goes one further
            place = max(index for index, one in enumerate(told) if one["id"] == release.id)
            told = told[: place + 1]
        else:
            told = [*told, {"id": release.id, "at": time.time()}][-HISTORY:]
        try:
            write_whole(self.confirmed, {"attempt": attempt, "confirmed": told})
            if before is not None:
                link(self.back, f"releases/{before}")
            write_whole(self.journal, {"from": before, "to": release.id, "began": time.time(), "attempt": attempt})
        except OSError:
            for path in (self.journal, self.back, self.confirmed):
                with contextlib.suppress(OSError):
                    remove(path)
            raise

    def confirm(self) -> None:
        """The release that `current` names stays."""
        self.confirmed.replace(self.history)
        sync_folder(self.root)
        self.tidy()

    def tidy(self) -> None:
        """Remove the journal, and then what was made ready beside it, half-made files too."""
        for path in (self.journal, self.back, self.confirmed, *self.root.glob(".*.new")):
            remove(path)

    def point_at(self, release: Release) -> None:
        """The one atomic step forward."""
        link(self.current, f"releases/{release.id}")

    def point_back(self, before: str | None) -> None:
        """The one atomic step back; with nothing before, `current` goes away."""
        if self.current_id() == before:
            return
        if before is None:
            remove(self.current)
        elif self.back.is_symlink() and Path(os.readlink(self.back)).name == before:
            self.back.replace(self.current)
            sync_folder(self.root)
        else:
            link(self.current, f"releases/{before}")
