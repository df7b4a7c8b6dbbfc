"""The service's unit, as systemd sees it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from camdock_release.disk import link, remove
from camdock_release.errors import Failed, say
from camdock_release.store import UNIT

SYSTEMCTL_WITHIN_S = 90.0
LOG_LINES = 60


@dataclass(frozen=True)
class UnitState:
    """What systemd says about the service now."""

    loaded: str
    active: str
    sub: str
    result: str
    restarts: int
    invocation: str
    status: str

    @property
    def has_ended(self) -> bool:
        """Whether the process that was started is gone, whatever systemd does about it."""
        return self.active in ("failed", "inactive", "deactivating") or self.sub == "auto-restart" or self.restarts > 0

    def __str__(self) -> str:
        return f"{self.active} ({self.sub}; result {self.result}, exit status {self.status}, {self.restarts} restarts)"


class Systemd:
    """The service's unit. `folder` is where the host's own units are."""

    def __init__(self, root: Path, folder: Path = Path("/etc/systemd/system")) -> None:
        self.unit_file, self.target = folder / UNIT, str(root / "current" / UNIT)
        self.wanted = folder / "multi-user.target.wants" / UNIT

    @staticmethod
    def _call(*words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words, check=False, capture_output=True, text=True, timeout=SYSTEMCTL_WITHIN_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"no answer within {SYSTEMCTL_WITHIN_S:.0f} s")

    def install(self) -> None:
        """Make the unit known to systemd, and wanted at boot. Raises OSError."""
        self.wanted.parent.mkdir(exist_ok=True)
        for path, target in ((self.unit_file, self.target), (self.wanted, str(self.unit_file))):
            if not path.is_symlink() or os.readlink(path) != target:
                link(path, target)

    def uninstall(self) -> None:
        """Make it unknown."""
        for path in (self.wanted, self.unit_file):
            remove(path)

    def reload(self) -> None:
        """Have systemd read its units again."""
        done = self._call("systemctl", "daemon-reload")
        if done.returncode:
            say(f"systemctl daemon-reload: {done.stderr.strip()}")

    def stop(self) -> None:
        """Stop the service, in order."""
        done = self._call("systemctl", "stop", UNIT)
        if done.returncode and "not loaded" not in done.stderr:
            say(f"systemctl stop {UNIT}: {done.stderr.strip()}")

    def kill(self) -> None:
        """End the service without waiting for it: what gives no pictures needs no time to take its leave."""
        self._call("systemctl", "kill", "--signal=SIGKILL", UNIT)
        self.stop()

    def start(self) -> None:
        """Ask for a start; returns at once. Raises Failed when systemd does not even try."""
        self._call("systemctl", "reset-failed", UNIT)
        done = self._call("systemctl", "start", "--no-block", UNIT)
        if done.returncode:
            raise Failed(f"systemd does not start {UNIT}: {done.stderr.strip() or done.returncode}")

    def state(self) -> UnitState:
        """What it says now."""
        names = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "InvocationID", "ExecMainStatus")
        told = self._call("systemctl", "show", UNIT, *(f"--property={name}" for name in names)).stdout
        found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
        loaded, active, sub, result, restarts, invocation, status = (found.get(name, "") for name in names)
        return UnitState(loaded, active, sub, result, int(restarts or 0), invocation, status)

    def is_going_down(self) -> bool:
        """Whether the machine shuts down: nothing can be started any more."""
        return self._call("systemctl", "is-system-running").stdout.strip() == "stopping"

    def log(self, since: float) -> list[str]:
        """The last lines of the service's log since then (Unix seconds)."""
        told = self._call(
            "journalctl", f"--unit={UNIT}", f"--since=@{since:.6f}", f"--lines={LOG_LINES}", "--output=cat",
            "--no-pager", "--quiet",
        )  # fmt: skip
        return told.stdout.splitlines()
