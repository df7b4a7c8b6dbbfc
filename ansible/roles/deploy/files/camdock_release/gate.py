"""The gate: does a release give pictures that move, and does it go on doing so?"""

from __future__ import annotations

import contextlib
import http
import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camdock_release.errors import Failed, Interrupted
from camdock_release.looking import Asker, Viewer
from camdock_release.store import UNIT, Release
from camdock_release.unit import Systemd

POLL_S = 0.2  # each look asks systemd and the service: a small machine has other things to do just now
WATCH_EVERY_S = 0.5
LONGEST_GAP_S = 5.0  # without a new picture while it is watched


@dataclass
class Sight:
    """One camera as the gate sees it: what is needed to tell whether pictures move.

    moved_at  monotonic, when a new picture was last known to have come; None: not yet
    """

    name: str
    viewer: Viewer
    frames: int | None = None
    shown: int = 0
    steps: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    restarts_before: Mapping[str, int] = field(default_factory=dict)
    moved_at: float | None = None
    why_not: str = "the service does not answer"

    def note(self, told: Mapping[str, Any] | None, now: float) -> None:
        """Take in what /cameras says. Raises Failed when nothing can come of it any more."""
        if told is None:
            self.why_not = "the service knows no camera of this name"
            return
        reason = told.get("reason") or {}
        if reason.get("code") == "driver_missing":
            raise Failed(f"{self.name}: {reason.get('message')} -- {reason.get('hint')}")
        frames, shown = int(told["frames"]), self.viewer.pictures
        if told["state"] != "live":
            why = f": {reason['message']} -- {reason['hint']}" if reason else ""
            self.why_not = f"it is {told['state']}{why}"
        elif self.frames is None or frames <= self.frames or shown <= self.shown:
            self.why_not = "it is live, and no new picture comes"
        else:
            # `frames` counts pictures of the camera alone: the one that says why there is none is not among them.
            self.steps += 1
            self.moved_at = now
        if self.frames is not None and frames < self.frames:
            raise Failed(f"{self.name}: the service was restarted meanwhile")
        self.frames, self.shown, self.restarts = frames, shown, told["restarts"]

    def restarted(self) -> str:
        """Why its driver was started again since it gave its first pictures; "" when it was not."""
        return ", ".join(why for why, count in self.restarts.items() if count > self.restarts_before.get(why, 0))


@dataclass
class Darkness:
    """Adds up the time without pictures, in seconds."""

    total: float = 0.0
    since: float | None = field(default_factory=time.monotonic)

    def ends(self, at: float) -> None:
        """There is a picture."""
        if self.since is not None:
            self.total += max(0.0, at - self.since)
            self.since = None

    def begins(self, at: float) -> None:
        """There are none any more."""
        if self.since is None:
            self.since = at

    @property
    def seconds(self) -> float:
        """So far."""
        return round(self.total + (time.monotonic() - self.since if self.since is not None else 0), 2)


class Gate:
    """The question that decides: does this release give pictures that move?

    kind       pictures, live (the service answers) or off (the process is there)
    is_fresh   the unit was started for this: no process of it may end any more
    """

    def __init__(
        self, release: Release, systemd: Systemd, token_file: Path, kind: str, *, is_fresh: bool = True
    ) -> None:
        self.release, self.kind = release, kind
        self._systemd, self._is_fresh = systemd, is_fresh
        self._asker = Asker(release, token_file)
        self._sights = [
            Sight(name, Viewer(self._asker, name)) for name in (release.cameras if kind == "pictures" else ())
        ]
        self._invocation = ""
        self._lives_at: float | None = None
        self._why_not = "the service does not answer"
        self.warnings: list[str] = []

    def pass_within(self, appear_s: float, watch_s: float, darkness: Darkness) -> None:
        """Wait for pictures, then watch them. Raises Failed with what was seen instead."""
        for sight in self._sights:
            sight.viewer.start()
        try:
            self._appear(time.monotonic() + appear_s, appear_s)
            darkness.ends(time.monotonic())
            try:
                self._watch(time.monotonic() + watch_s)
            except (Failed, Interrupted):
                seen = [at for sight in self._sights if (at := sight.moved_at) is not None]
                darkness.begins(min(seen, default=time.monotonic()))
                raise
            for sight in self._sights:
                if len(sight.viewer.digests) == 1:
                    self.warnings.append(
                        f"{sight.name}: all its pictures are the same to the last byte: a covered lens or a dark room, "
                        "or a driver that repeats one"
                    )
        finally:
            for sight in self._sights:
                sight.viewer.leave()

    def _appear(self, due: float, appear_s: float) -> None:
        while not self._is_there(time.monotonic()):
            if time.monotonic() > due:
                late = "; ".join(f"{one.name}: {one.why_not}" for one in self._sights if one.steps < 2)
                raise Failed(f"after {appear_s:g} s: {late or self._why_not}")
            time.sleep(POLL_S)

    def _watch(self, due: float) -> None:
        for sight in self._sights:
            sight.restarts_before = sight.restarts
        while (now := time.monotonic()) < due:
            self._is_there(now)
            for sight in self._sights:
                if why := sight.restarted():
                    raise Failed(f"{sight.name}: its driver process ended while it was watched: {why}")
                if sight.moved_at is not None and now - sight.moved_at > LONGEST_GAP_S:
                    raise Failed(f"{sight.name}: no new picture for {now - sight.moved_at:.1f} s: {sight.why_not}")
            if self._lives_at is not None and now - self._lives_at > LONGEST_GAP_S:
                raise Failed(f"no answer for {now - self._lives_at:.1f} s: {self._why_not}")
            time.sleep(WATCH_EVERY_S)

    def _is_there(self, now: float) -> bool:
        """Look once at everything. Raises Failed when the unit has ended."""
        state = self._systemd.state()
        if state.loaded not in ("loaded", ""):
            raise Failed(f"systemd cannot use {UNIT}: {state.loaded}")
        # Before systemd has begun with it, a unit that was asked to start is inactive, with the last start's results.
        if state.invocation and state.active != "inactive":
            if self._is_fresh and state.has_ended:
                raise Failed(f"the service has ended: {state}")
            if self._invocation and state.invocation != self._invocation:
                raise Failed(f"the service was restarted: {state}")
            self._invocation = state.invocation
        elif self._invocation:
            raise Failed(f"the service has ended: {state}")
        if state.active != "active":
            self._why_not = f"the service is {state}"
        if self.kind == "off":
            return state.active == "active"
        if self.kind == "live":
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                status, _ = self._asker.get("/health/live")
                self._why_not = f"/health/live answers {status}"
                if status == http.HTTPStatus.OK:
                    self._lives_at = now
            return self._lives_at is not None and state.active == "active"
        try:
            if (told := self._ask_cameras()) is not None:
                for sight in self._sights:
                    sight.note(told.get(sight.name), now)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # not ours, or of another time
            raise Failed(f"{UNIT} does not tell of its cameras as a Camdock does: {error!r}") from None
        return state.active == "active" and all(sight.steps >= 2 for sight in self._sights)

    def _ask_cameras(self) -> dict[str, dict[str, Any]] | None:
        """What /cameras says, by name; None when it does not answer."""
        try:
            status, told = self._asker.get("/cameras")
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = f"the service does not answer on {self.release.address}:{self.release.port} ({error})"
        else:
            if status == http.HTTPStatus.OK:
                return {one["name"]: one for one in told}
            why = f"the service answers {status} to /cameras"
            if status == http.HTTPStatus.UNAUTHORIZED:
                why += ": it does not take this host's token"
        self._why_not = why
        for sight in self._sights:
            sight.why_not = why
        return None
