"""From one release to another, and back."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from camdock_release.disk import full
from camdock_release.errors import ENDING, Failed, Interrupted, Refused, go_on, say, undisturbed
from camdock_release.gate import Darkness, Gate
from camdock_release.store import UNIT, Release, Store
from camdock_release.unit import Systemd

CONFIRMED, NOT_CONFIRMED, USAGE = 0, 1, 2  # exit status
SETTLE_S = 60.0  # how long a release may take to serve when there is nothing better to turn to: a first or an old one


@dataclass
class Outcome:
    """How it went, for people and for programs.

    outcome  confirmed; unchanged (nothing to do); refused (nothing was changed); put_back; stopped (nothing runs: there
             was no release before); down (the one before does not serve either)
    """

    outcome: str
    release: str | None
    previous: str | None
    reason: str = ""
    without_pictures_s: float = 0.0
    log: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The exit status."""
        return CONFIRMED if self.outcome in ("confirmed", "unchanged") else NOT_CONFIRMED

    def __str__(self) -> str:
        dark = f"{self.without_pictures_s:.1f} s without pictures"
        text = {
            "confirmed": f"{self.release} serves ({dark}); before it: {self.previous or 'nothing'}",
            "unchanged": f"nothing to do: {self.reason}",
            "refused": f"{self.release} was not tried, nothing was changed: {self.reason}",
            "put_back": f"{self.release} was taken back, {self.previous} serves again ({dark}): {self.reason}",
            "stopped": f"{self.release} was stopped, and there is no release before it: {self.reason}",
            "down": f"NOTHING SERVES: {self.release} was taken back, and {self.previous} does not serve either: "
            f"{self.reason}",
        }[self.outcome]
        lines = [text, *(f"warning: {one}" for one in self.warnings)]
        if self.log:
            lines += ["the service's log:", *(f"  {line}" for line in self.log)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Asked:
    """How to look: seconds to wait for pictures, seconds to watch them, and which gate (None: the release's own)."""

    appear_s: float = 8.0
    watch_s: float = 30.0
    gate: str | None = None


class Switcher:
    """Takes the host from one release to another, and back."""

    def __init__(self, store: Store, systemd: Systemd, token_file: Path) -> None:
        self._store, self._systemd, self._token_file = store, systemd, token_file

    def switch(self, name: str, asked: Asked, *, is_rollback: bool = False) -> Outcome:
        """Go to a release; it is confirmed, or the one before is back. Raises Refused before anything is changed."""
        store = self._store
        release = store.release(name)
        release.check_whole()
        if store.unconfirmed() is not None:
            raise Refused("there is a switch that was never confirmed: `camdock-release recover` puts it back")
        before = store.current_id()
        if before == release.id:
            return self._look_at_current(release, asked)
        is_reloaded = self._unit_text(before) != self._unit_text(release.id)
        gate = Gate(release, self._systemd, self._token_file, asked.gate or release.gate)
        with undisturbed():
            try:
                store.begin(release, is_rollback=is_rollback)
                self._systemd.install(self._unit_text(release.id))
            except OSError as error:
                store.tidy()
                return Outcome("refused", release.id, before, full(error, store.root))
            say(f"{before or 'nothing'} -> {release.id}")
            try:
                return self._try(release, before, gate, asked, is_reloaded=is_reloaded)
            except Interrupted as error:  # between a failure and the way back
                is_native = release.mode == "native"
                return self._put_back(release.id, before, str(error), Darkness(), time.time(), is_killed=is_native)

    def _try(self, release: Release, before: str | None, gate: Gate, asked: Asked, *, is_reloaded: bool) -> Outcome:
        """The part after the journal is written; called while signals wait, which from here on mean: put back."""
        store = self._store
        darkness, began = Darkness(), time.time()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            # Stopped first, and by its own unit: `current` names the files with which it is stopped.
            self._systemd.stop()
            began = time.time()
            store.point_at(release)
            if is_reloaded:
                self._systemd.reload()
            self._systemd.start()
            # Nobody goes without pictures for a first one, and a small machine reads all of it from its card now.
            gate.pass_within(asked.appear_s if before else max(asked.appear_s, SETTLE_S), asked.watch_s, darkness)
            go_on()
            store.confirm()
        except (Failed, Interrupted, OSError) as error:
            reason = full(error, store.root) if isinstance(error, OSError) else str(error)
            say(f"{release.id}: {reason}")
            return self._put_back(release.id, before, reason, darkness, began, is_killed=release.mode == "native")
        if not is_reloaded:  # the same text: that systemd reads it anew costs nobody a picture now
            self._systemd.reload()
        return Outcome("confirmed", release.id, before, "", darkness.seconds, warnings=gate.warnings)

    def rollback(self, asked: Asked) -> Outcome:
        """Go to the release before the current one. Raises Refused when there is none."""
        before = self._store.previous_id()
        if before is None:
            raise Refused(f"there is no release before {self._store.current_id() or 'the first one'} to go back to")
        return self.switch(before, asked, is_rollback=True)

    def recover(self, *, is_boot: bool) -> Outcome:
        """Put back what was never confirmed. At boot the service is left to systemd, which waits for us to end."""
        store = self._store
        journal = store.unconfirmed()
        current = store.current_id()
        if journal is None:
            store.tidy()
            return Outcome("unchanged", current, store.previous_id(), f"{current or 'no release'} is confirmed")
        tried, before = str(journal["to"]), journal["from"]
        reason = "the switch to it was never confirmed: it was interrupted"
        if is_boot or self._systemd.is_going_down():
            store.point_back(before)
            if before is None:
                self._systemd.uninstall()
            self._systemd.reload()
            store.tidy()
            if before is not None:  # a unit that could not be loaded was not queued
                self._systemd.start_soon()
            return Outcome("put_back" if before else "stopped", tried, before, reason)
        began = time.time()
        return self._put_back(tried, before, reason, Darkness(), began, is_killed=False)

    def _put_back(
        self, tried: str, before: str | None, reason: str, darkness: Darkness, began: float, *, is_killed: bool
    ) -> Outcome:
        """Make the release before the current one again, and see that it serves. No signal gets in between."""
        go_on()
        store, systemd = self._store, self._systemd
        log = systemd.log(began)
        (systemd.kill if is_killed else systemd.stop)()
        store.point_back(before)
        if before is None:
            systemd.uninstall()
            systemd.reload()
            store.tidy()
            return Outcome("stopped", tried, None, reason, darkness.seconds, log)
        systemd.reload()
        if systemd.is_going_down():  # `recover` at the next boot finds the rest done
            return Outcome("put_back", tried, before, f"{reason}; the machine shuts down", darkness.seconds, log)
        again = time.time()
        try:
            systemd.start()
            store.tidy()
            release = store.release(before)
            Gate(release, systemd, self._token_file, release.gate).pass_within(SETTLE_S, 0, darkness)
        except (Failed, Refused) as error:
            store.tidy()  # more cannot be put back, and a journal that stays would keep every other release out
            log += [f"--- {before}:", *systemd.log(again)]
            return Outcome("down", tried, before, f"{reason}; {before}: {error}", darkness.seconds, log)
        return Outcome("put_back", tried, before, reason, darkness.seconds, log)

    def _look_at_current(self, release: Release, asked: Asked) -> Outcome:
        """The release is there already: only start it if it is not, and look."""
        began = time.time()
        try:
            self._systemd.install(self._unit_text(release.id))
            if self._systemd.state().active not in ("active", "activating"):
                self._systemd.reload()
                self._systemd.start()
            self.gate(asked)
        except (Failed, OSError) as error:
            return Outcome("refused", release.id, self._store.previous_id(), str(error), 0, self._systemd.log(began))
        return Outcome("unchanged", release.id, self._store.previous_id(), f"{release.id} is current, and serves")

    def gate(self, asked: Asked) -> list[str]:
        """Look at the current release. Returns warnings; raises Failed with what was seen, Refused."""
        current = self._store.current_id()
        if current is None:
            raise Refused("there is no current release")
        release = self._store.release(current)
        gate = Gate(release, self._systemd, self._token_file, asked.gate or release.gate, is_fresh=False)
        gate.pass_within(asked.appear_s, asked.watch_s, Darkness())
        return gate.warnings

    def _unit_text(self, name: str | None) -> str:
        with contextlib.suppress(OSError):
            return (self._store.releases / str(name) / UNIT).read_text("utf-8")
        return ""
