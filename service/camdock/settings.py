"""Settings and Limits of a camera, and the file that keeps the wanted ones.

Runs in: every process; the file belongs to the API process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from camdock.errors import SettingOutOfRange, SettingUnsupported, StorageFailed, StorageFull


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be changed while a camera runs. None means: not set by us, or not known.

    exposure_us    exposure time, integer microseconds; setting it turns auto_exposure off
    gain           linear factor, 1.0 = none
    auto_exposure  True when the camera chooses exposure (and gain) itself
    """

    exposure_us: int | None = None
    gain: float | None = None
    auto_exposure: bool | None = None

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with the values of `changes`; whoever sets an exposure wants it, so auto exposure goes off."""
        merged = dict(changes)
        if merged.get("exposure_us") is not None and "auto_exposure" not in merged:
            merged["auto_exposure"] = False
        if merged.get("auto_exposure"):
            merged.setdefault("exposure_us", None)
        return replace(self, **merged)

    def given(self) -> dict[str, Any]:
        """Only the values that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def undoing(self, overrides: Settings) -> Settings:
        """What brings these, which are in force, back once `overrides` were applied on top."""
        names = set(overrides.given())
        back: dict[str, Any] = {"gain": self.gain} if "gain" in names else {}
        if names & {"exposure_us", "auto_exposure"}:
            # A camera that chose by itself goes on doing so; what it had chosen is no wish of anybody.
            back["auto_exposure"] = self.auto_exposure
            back["exposure_us"] = None if self.auto_exposure else self.exposure_us
        return Settings(**back)


SETTING_NAMES = tuple(field.name for field in fields(Settings))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a camera could do; None where it has no such setting.

    exposure_us, gain  (lowest, highest), both included
    auto_exposure      whether it can be switched
    """

    exposure_us: tuple[int, int] | None = None
    gain: tuple[float, float] | None = None
    auto_exposure: bool = False

    def check(self, changes: Mapping[str, Any], thing: str) -> None:
        """Raise SettingUnsupported or SettingOutOfRange, naming `thing`, unless all of `changes` can be done."""
        for name, value in changes.items():
            if value is None:
                continue
            able = getattr(self, name)
            if not able:
                can = [other for other in SETTING_NAMES if getattr(self, other)]
                raise SettingUnsupported(
                    f"{thing} has no setting {name}",
                    "it has " + ", ".join(can) if can else "it has none that can be set",
                )
            if isinstance(able, tuple) and not able[0] <= value <= able[1]:
                raise SettingOutOfRange(
                    f"{name}={value} lies outside what {thing} can do", f"from {able[0]} to {able[1]}"
                )

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Limits:
        """From the wire, where a pair is a list."""
        pairs = {name: tuple(raw[name]) if raw.get(name) else None for name in ("exposure_us", "gain")}
        return cls(exposure_us=pairs["exposure_us"], gain=pairs["gain"], auto_exposure=bool(raw.get("auto_exposure")))


class SettingsFile:
    """The wanted settings of one camera, kept over restarts of the service."""

    def __init__(self, path: Path, default: Settings | None = None) -> None:
        self.path = path
        self._default = default or Settings()

    def load(self) -> Settings:
        """What was kept; the default when there is no file. Raises ValueError when the file cannot be used."""
        try:
            raw = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return self._default
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} cannot be read: {error}; delete it to start from the camera's own settings"
            ) from error
        kinds: dict[str, tuple[type, ...]] = {"exposure_us": (int,), "gain": (int, float), "auto_exposure": (bool,)}
        known: dict[str, Any] = {
            name: value
            for name, value in (raw.items() if isinstance(raw, dict) else ())
            if isinstance(value, kinds.get(name, ())) and (not isinstance(value, bool) or name == "auto_exposure")
        }
        return Settings(**known)

    def delete(self) -> None:
        """Forget what was kept, as far as the disk lets us."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def save(self, settings: Settings) -> None:
        """Write to a temporary name, sync, rename: a power cut leaves the old file or the new one.

        raises  StorageFull, StorageFailed
        """
        try:
            self._write(settings)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFull if full else StorageFailed)(
                f"{self.path}: {error.strerror}",
                "free some space" if full else "point CAMDOCK_STATE_DIR at a folder that the service may write to",
            ) from error

    def _write(self, settings: Settings) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(settings.given(), file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
