"""The service's unit, as systemd sees it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from camdock_release.disk import link, remove
from camdock_release.errors import Failed, say
from camdock_release.store import UNIT

SYSTEMCTL_WITHIN_S = 90.0
LOG_LINES = 60
_WANTED_BY = re.compile(r"^WantedBy=(.*)$", re.MULTILINE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")  # Compose writes for a terminal


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
        self.folder, self.unit_file, self.target = folder, folder / UNIT, str(root / "current" / UNIT)

    @staticmethod
    def _call(*words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words, check=False, capture_output=True, text=True, timeout=SYSTEMCTL_WITHIN_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"no answer within {SYSTEMCTL_WITHIN_S:.0f} s")

    def install(self, text: str) -> None:
        """Make the unit, of which this is the text, known and wanted where its [Install] says. Raises OSError."""
        wanted = {self.folder / f"{name}.wants" / UNIT for line in _WANTED_BY.findall(text) for name in line.split()}
        for path in self._links() - wanted:
            remove(path)
        for path in wanted:
            path.parent.mkdir(exist_ok=True)
        for path, target in ((self.unit_file, self.target), *((path, str(self.unit_file)) for path in sorted(wanted))):
            if not path.is_symlink() or os.readlink(path) != target:
                link(path, target)

    def _links(self) -> set[Path]:
        """What wants it now, of this release or of another one."""
        return {path for folder in self.folder.glob("*.wants") if (path := folder / UNIT).is_symlink()}

    def uninstall(self) -> None:
        """Make it unknown."""
        for path in (*self._links(), self.unit_file):
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

    def start_soon(self) -> None:
        """Have it started once whoever comes before it has ended: at boot that is us."""
        self._call("systemctl", "start", "--no-block", UNIT)

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
            "--no-pager", "--quiet", "--all",
        )  # fmt: skip
        return [_CONTROL.sub("", line) for line in told.stdout.splitlines()]
