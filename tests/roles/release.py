"""What the tests of camdock-release share: its modules, a root with releases in it, and a systemd that only notes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[2] / "ansible" / "roles" / "deploy" / "files"
sys.path.insert(0, str(FILES))  # as the tool does itself, beside which the modules lie

from camdock_release import disk, errors, gate, looking, prune, store, switch, unit  # noqa: E402
from camdock_release.command import main  # noqa: E402

__all__ = ["FILES", "disk", "errors", "gate", "looking", "main", "make_release", "prune", "store", "switch", "unit"]


def make_release(
    root: Path, name: str, created: float = 0, build: str = "b1", *, tls: bool = False, **changed: Any
) -> Path:
    """A whole release and its build; `changed` goes into its release.json, None takes a key out."""
    folder, built = root / "releases" / name, root / "builds" / build
    for one in (folder, built):
        one.mkdir(parents=True, exist_ok=True)
    (built / "complete").write_text("{}")
    told = {
        "id": name, "build": build, "mode": "native", "version": "1.2", "created": created, "port": 8000,
        "cameras": ["front"], "gate": "pictures", **changed,
    }  # fmt: skip
    (folder / "release.json").write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    (folder / "camdock.env").write_text(
        "CAMDOCK_HOST=0.0.0.0\n" + ('CAMDOCK_TLS_CERT="/etc/camdock/tls.crt"\n' if tls else "")
    )
    (folder / store.UNIT).write_text("[Service]\n[Install]\nWantedBy=multi-user.target\n")
    if not (folder / "build").is_symlink():
        (folder / "build").symlink_to(f"../../builds/{build}")
    return folder


STARTED = unit.UnitState("loaded", "active", "running", "success", 0, "i1", "0")


class Noting(unit.Systemd):
    """Starts and stops nothing; knows what would run: `runs` is the release that was started last, or None."""

    def __init__(self, root: Path) -> None:
        folder = root / "units"
        folder.mkdir(exist_ok=True)
        super().__init__(root, folder)
        self._root = root
        self.runs: str | None = None
        self.shuts_down = False
        self.told = STARTED
        self.said: list[str] = []

    def reload(self) -> None:
        self.said.append("reload")

    def stop(self) -> None:
        self.said.append("stop")
        self.runs = None

    def kill(self) -> None:
        self.stop()

    def start(self) -> None:
        self.said.append("start")
        self.runs = (self._root / "current").readlink().name

    def start_soon(self) -> None:
        self.start()

    def state(self) -> unit.UnitState:
        return self.told

    def is_going_down(self) -> bool:
        return self.shuts_down

    def log(self, since: float) -> list[str]:
        return ["a line"]
