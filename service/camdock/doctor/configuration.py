"""The configuration: what is given, what of it cannot be used, and what the rest of the doctor has to go by.

Runs in: `read` in an errand, since a token's file may lie on a dead mount; `check` in the doctor's process.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camdock import devices
from camdock.doctor.answer import Answer
from camdock.doctor.report import Check, Status
from camdock.source import Source, SourceInvalid, device_path, parse_sources

if TYPE_CHECKING:
    from camdock.config import Config

INSTALL = "`pip install 'camdock[service]'`, or `make setup` in a clone"
_TLS = frozenset(("tls_cert", "tls_key"))
_SOURCES = ("CAMDOCK_SOURCE", "CAMDOCK_SOURCES")
_LIKE = 0.8  # how alike two names must be for one to be a slip of the pen


# --- the errand -------------------------------------------------------------------------------------------------------


def read() -> Iterator[dict[str, Any]]:
    """One answer: `mistakes` as sentences, and the configuration, as much of it as can be used.

    Where the service's libraries are not installed: `missing` names the first.
    """
    try:
        from camdock.config import EITHER, ConfigInvalid, names_of, of_file, read_config, variables
    except ImportError as error:  # not there, or it does not load
        yield {"missing": error.name or str(error), **_bare()}
        return
    known = {name for name, _default, _text in variables()}
    facts: dict[str, Any] = {"mistakes": []}
    try:
        names = {name for one in known for name in names_of(one.removeprefix("CAMDOCK_").lower())}
        _set(of_file(), names, [{name for field in pair for name in names_of(field)} for pair in EITHER])
    except ConfigInvalid as error:
        facts["mistakes"].append(str(error))
    strange = sorted(name for name in os.environ if name.upper().startswith("CAMDOCK_") and name.upper() not in known)
    alike = {name: difflib.get_close_matches(name.upper(), known, 1, _LIKE) for name in strange}
    facts["alike"] = {name: found[0] for name, found in alike.items() if found}
    # Before they are left out: what is wrong with their modes is worth knowing whatever is wrong with the rest.
    files = (_token_file(_given(name)) for name in ("CAMDOCK_TOKEN_FILE", "CAMDOCK_VIEWER_TOKEN_FILE"))
    facts["token_files"] = [file for file in files if file]
    facts["tls"] = bool(_given("CAMDOCK_TLS_CERT"))
    left_out: set[str] = set()
    while True:
        try:
            facts |= _told(read_config(file=False))
            break
        except ConfigInvalid as error:
            told = re.split(r"\n(?! )", str(error))
            facts["mistakes"] += [mistake for mistake in told if mistake not in facts["mistakes"]]
            # A certificate without its key would be the next mistake, and is none of the user's.
            fields = error.fields | (_TLS if error.fields & _TLS else frozenset())
            is_new = _leave_out({name for field in fields for name in names_of(field)})
            left_out |= fields
            if not is_new and _given("CAMDOCK_AUTH") == "off":
                break  # nothing is left to leave out: what else there is stays unknown
            os.environ["CAMDOCK_AUTH"] = "off"  # nothing is served here: or the host would be the next mistake
    if left_out.intersection(("source", "sources")):
        facts["cameras"] = {}
    yield facts


def _set(given: Mapping[str, str], known: Collection[str], either: Iterable[Collection[str]]) -> None:
    """Take into the environment, which wins, what `.env` gives: from there it can be left out.

    either  names that say the same in two ways: what the environment says in one, `.env` does not say in the other
    """
    said = {name for names in either if any(map(_given, names)) for name in names}
    for name, value in given.items():
        is_ours = name.upper() in known or name.upper().startswith("CAMDOCK_")
        if is_ours and name.upper() not in said and not _given(name.upper()):
            _leave_out({name.upper()})  # an empty one
            os.environ[name] = value


def _given(name: str) -> str:
    """What a variable is set to, in whichever letters; "" where it is not."""
    return next((value for one, value in os.environ.items() if one.upper() == name and value), "")


def _leave_out(names: Collection[str]) -> bool:
    """Take variables out of the environment, in whichever letters; returns whether one was there."""
    those = [name for name in os.environ if name.upper() in names]
    for name in those:
        del os.environ[name]
    return bool(those)


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
        "remarks": config.remarks,
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
    tls: bool = False
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
    found += [Check("configuration", Status.WARNING, remark) for remark in facts.get("remarks", ())]
    found += filter(None, (_of_mode(**file) for file in facts.get("token_files", ())))
    if all(one.status is not Status.BAD for one in found):
        cameras = ", ".join(f"{name} = {Source.parse(text).redacted}" for name, text in facts["cameras"].items())
        found.insert(0, Check("configuration", Status.OK, cameras))
    return found


def _of_mistake(mistake: str) -> Check:
    """A mistake of several lines, or of one in which what mends it stands behind a semicolon."""
    first, _, rest = mistake.partition("\n")
    name = "token" if first.startswith("CAMDOCK_TOKEN") else "configuration"
    what, mark, way_out = first.partition("; " if "TOKEN_FILE=" in first else "; `")
    hint = rest or mark[2:] + way_out or "`camdock --help` lists every source and variable"
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
