"""The list of what is known and accepted, with a reason for each entry.

Runs in: any process.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from camdock.abi.check import Finding, Module
from camdock.abi.rules import RULES

_KEYS = ("package", "file", "rule", "reason")
_EXAMPLE = '[[allow]]\npackage = "soxr"\nrule = "unchecked"\nreason = "only used for lists, never for arrays"'


class ListInvalid(ValueError):
    """The list cannot be used: which entry, what is wrong with it, what to write."""


@dataclass(slots=True)
class Entry:
    """What is accepted: everything that every given part matches.

    package  a name, without its version; in any of the spellings that pip takes for the same
    file     a path as in the report, * and ? standing for anything
    rule     a key of rules.RULES
    """

    package: str | None
    file: str | None
    rule: str | None
    reason: str
    used: bool = False

    def __str__(self) -> str:
        return ", ".join(f"{key} {value!r}" for key in _KEYS[:3] if (value := getattr(self, key)) is not None)

    def covers_module(self, module: Module) -> bool:
        return (
            (self.package is None or _canonical(self.package) == _canonical(module.package.partition(" ")[0]))
            and (self.file is None or fnmatch.fnmatchcase(module.file, self.file))
            and (self.rule is None or self.rule == module.rule)
        )

    def covers_finding(self, finding: Finding) -> bool:
        return self.rule == finding.rule and self.package is None and self.file is None


@dataclass(slots=True)
class Allowed:
    """The whole list."""

    entries: list[Entry] = field(default_factory=list)

    def module(self, module: Module) -> str:
        """Why a module's verdict is accepted; "" where it is not."""
        if module.verdict == "ok":
            return ""
        return self._mark([entry for entry in self.entries if entry.covers_module(module)])

    def finding(self, finding: Finding) -> str:
        """Why a finding is accepted; "" where it is not."""
        return self._mark([entry for entry in self.entries if entry.covers_finding(finding)])

    def unused(self) -> list[Entry]:
        """Entries that covered nothing: what they were for is mended, or they are misspelt."""
        return [entry for entry in self.entries if not entry.used]

    @staticmethod
    def _mark(covering: list[Entry]) -> str:
        for entry in covering:
            entry.used = True
        return covering[0].reason if covering else ""


def read_allowed(path: str) -> Allowed:
    """The list in a TOML file. Raises ListInvalid."""
    try:
        said = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ListInvalid(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ListInvalid(f"{path} is no TOML: {error}. Write it like\n{_EXAMPLE}") from error
    tables = said.pop("allow", [])
    if said or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ListInvalid(f"{path} may hold tables called [[allow]] and nothing else. Write it like\n{_EXAMPLE}")
    return Allowed([_entry(path, number, table) for number, table in enumerate(tables, 1)])


def _entry(path: str, number: int, table: dict[str, object]) -> Entry:
    where = f"{path}, entry {number}"
    for key, value in table.items():
        if key not in _KEYS:
            raise ListInvalid(f"{where}: {key!r} is not known; there are {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.strip():
            raise ListInvalid(f"{where}: {key} must be a text that says something")
    said = {key: str(table[key]) if key in table else None for key in _KEYS}
    reason = said["reason"]
    if reason is None:
        raise ListInvalid(f"{where} has no reason: say why it is accepted, for whoever reads the list next year")
    if said["package"] is None and said["file"] is None and said["rule"] is None:
        raise ListInvalid(f"{where} would accept everything: name a package, a file or a rule")
    if said["rule"] is not None and said["rule"] not in RULES:
        raise ListInvalid(f"{where}: there is no rule {said['rule']!r}; there are {', '.join(RULES)}")
    return Entry(said["package"], said["file"], said["rule"], reason)


def _canonical(name: str) -> str:
    """As pip compares names of packages (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
