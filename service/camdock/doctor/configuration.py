"""The configuration: what is given, what of it cannot be used, and what the rest of the doctor has to go by.

Runs in: `read` in an errand, since a token's file may lie on a dead mount; `check` in the doctor's process.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camdock import devices
from camdock.doctor.answer import Answer
from camdock.doctor.report import Check, Status
from camdock.source import Source, SourceInvalid, device_path, parse_sources

if TYPE_CHECKING:
    from camdock.config import Config

INSTALL = "`pip install 'camdock[service]'`, or `make setup` in a clone"
_SOURCES = ("CAMDOCK_SOURCE", "CAMDOCK_SOURCES")
_LIKE = 0.8  # how alike two names must be for one to be a slip of the pen


# --- the errand -------------------------------------------------------------------------------------------------------


def read() -> Iterator[dict[str, Any]]:
    """One answer: `mistakes` as sentences, and the configuration, as much of it as can be used.

    Where the service's libraries are not installed: `missing` names the first.
    """
    try:
        from camdock.config import ConfigInvalid, read_config, variables
    except ImportError as error:  # not there, or it does not load
        yield {"missing": error.name or str(error), **_bare()}
        return
    known = {name for name, _default, _text in variables()}
    strange = sorted(name for name in os.environ if name.startswith("CAMDOCK_") and name not in known)
    alike = {name: difflib.get_close_matches(name, known, 1, _LIKE) for name in strange}
    facts: dict[str, Any] = {"mistakes": [], "alike": {name: found[0] for name, found in alike.items() if found}}
    # Before it is left out: what is wrong with its mode is worth knowing whatever is wrong with the rest.
    facts["token_file"] = _token_file(os.environ.get("CAMDOCK_TOKEN_FILE", ""))
    left_out: set[str] = set()
    for _ in range(3):
        try:
            facts |= _told(read_config())
            break
        except ConfigInvalid as error:
            facts["mistakes"] += re.split(r"\n(?! )", str(error))
            left_out.update(re.findall(r"\b(?:CAMDOCK_[A-Z_]+[A-Z]|HOST|PORT)\b", str(error)))
            for name in left_out:
                os.environ.pop(name, None)
            os.environ["CAMDOCK_AUTH"] = "off"  # nothing is served here: or the host would be the next mistake
    if left_out.intersection(_SOURCES):
        facts["cameras"] = {}
    yield facts


def _told(config: Config) -> dict[str, Any]:
    folders = {}
    try:
        folders["settings"] = str(config.settings_path("").parent)
        folders["captures"] = str(config.captures_path)
    except RuntimeError:  # a user without a home
        folders["settings"] = ""
    return {
        "cameras": {name: source.text for name, source in config.cameras.items()},
        "host": config.host,
        "port": config.port,
        "token": config.secret.get_secret_value() if config.secret else "",
        "folders": folders,
        "abi": config.abi,
        "abi_cache": str(config.abi_cache_path or ""),
    }


def _bare() -> dict[str, Any]:
    """The cameras alone, read without the libraries that read the rest."""
    given = {name: os.environ.get(name, "") for name in _SOURCES}
    try:
        cameras = parse_sources(given["CAMDOCK_SOURCES"]) if given["CAMDOCK_SOURCES"] else {
            "camera": Source.parse(given["CAMDOCK_SOURCE"] or "auto")
        }  # fmt: skip
    except SourceInvalid as error:
        return {"mistakes": [str(error)], "cameras": {}}
    return {"mistakes": [], "cameras": {name: source.text for name, source in cameras.items()}}


def _token_file(path: str) -> dict[str, Any] | None:
    try:
        status = os.stat(path) if path else None
    except (OSError, ValueError):
        return None
    return {"path": path, "mode": stat.S_IMODE(status.st_mode)} if status and stat.S_ISREG(status.st_mode) else None


# --- the doctor -------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """What the other checks go by: the part of the configuration that can be used."""

    cameras: dict[str, Source] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0  # 0: not looked at
    token: str = field(default="", repr=False)
    folders: dict[str, str] = field(default_factory=dict)
    abi: str = "check"
    abi_cache: str = ""

    @classmethod
    def of(cls, answer: Answer) -> Known:
        """The answer of the errand, whatever of it came."""
        facts = answer.facts or _bare()
        given = {name: facts[name] for name in cls.__annotations__ if name in facts}
        cameras = {name: Source.parse(text) for name, text in given.pop("cameras", {}).items()}
        return cls(cameras=cameras, **given)

    @property
    def paths(self) -> dict[str, str]:
        """The device of each camera that has one, as it is called in /dev."""
        devices_of = {}
        for name, source in self.cameras.items():
            is_device = source.target.isdigit() or source.target.startswith("/dev/")
            if source.kind == "v4l2" or (source.kind == "opencv" and is_device):
                devices_of[name] = device_path(source.target)
        return devices_of


def check(answer: Answer) -> list[Check]:
    """What is wrong with the configuration: a check for each mistake, or one that all is well."""
    facts = answer.facts
    if not facts:
        what = f"the configuration cannot be read: {answer.stuck or answer.trouble}"
        hint = "is the file of CAMDOCK_TOKEN_FILE on a mount that does not answer? `mount` lists them"
        return [Check("configuration", Status.BAD, what, hint)]
    found = [_of_mistake(mistake) for mistake in facts["mistakes"]]
    if "missing" in facts:
        what = f"the camera service is not installed: {facts['missing']} is missing; only the cameras could be read"
        found.insert(0, Check("configuration", Status.BAD, what, INSTALL))
    for name, meant in facts.get("alike", {}).items():
        found.append(
            Check("configuration", Status.WARNING, f"{name} is set, and nothing reads it", f"was {meant} meant?")
        )
    if (file := facts.get("token_file")) and (trouble := _of_mode(**file)):
        found.append(trouble)
    if all(one.status is not Status.BAD for one in found):
        cameras = ", ".join(f"{name} = {Source.parse(text).redacted}" for name, text in facts["cameras"].items())
        found.insert(0, Check("configuration", Status.OK, cameras))
    return found


def _of_mistake(mistake: str) -> Check:
    """A mistake of several lines, or of one in which the command that mends it stands behind a semicolon."""
    first, _, rest = mistake.partition("\n")
    name = "token" if first.startswith("CAMDOCK_TOKEN") else "configuration"
    what, semicolon, command = first.partition("; `")
    hint = rest or (f"`{command}" if semicolon else "`camdock --help` lists every source and variable")
    return Check(name, Status.BAD, what, hint)


def _of_mode(path: str, mode: int) -> Check | None:
    """A token that others may change is bad, one that they may read worth a look. In a container nobody else is."""
    boxed = any(os.path.exists(mark) for mark in devices.IN_CONTAINER)
    if not mode & (0o002 if boxed else 0o006):
        return None
    able, status = ("change", Status.BAD) if mode & 0o002 else ("read", Status.WARNING)
    return Check(
        "token", status, f"everybody on this machine may {able} the token in {path} (mode {mode:o})",
        f"`chmod o= {shlex.quote(path)}`, and a new token if somebody may have seen it",
    )  # fmt: skip
