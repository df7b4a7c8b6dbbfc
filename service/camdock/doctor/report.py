"""Check: one thing that was looked at, and all of them as text or JSON.

Runs in: the doctor's process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import camdock


class Status(StrEnum):
    """How it is. `unknown` could not be found out; only `bad` makes the exit status 1."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


_WORST_FIRST = (Status.BAD, Status.WARNING, Status.UNKNOWN, Status.OK)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    name     stable, for programs: `camera.front`
    what     one sentence
    hint     what to do, with the command in backticks; empty where there is nothing to do
    details  the facts behind it, for programs; the text shows those named `lines`
    """

    name: str
    status: Status
    what: str
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def worst(checks: Sequence[Check]) -> Status:
    """The worst status of all."""
    return min((check.status for check in checks), key=_WORST_FIRST.index, default=Status.OK)


def as_json(checks: Sequence[Check], took_s: float) -> str:
    """The report for programs."""
    return json.dumps(
        {
            "camdock": camdock.__version__,
            "status": worst(checks),
            "took_s": round(took_s, 2),
            "checks": [asdict(check) for check in checks],
        },
        indent=2,
    )


def as_text(checks: Sequence[Check], took_s: float) -> str:
    """The report for people: everything in one line each, then what is wrong and what mends it."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        mark = check.status.upper() if check.status is Status.BAD else check.status.value
        lines.append(f"{mark:<8} {check.name:<{width}}  {_plain(check.what)}")
        for line in check.details.get("lines", ()):
            indent = width + 11 + len(line) - len(line.lstrip(" "))
            lines.append(f"{'':<{indent}}{_plain(line)}")
    for status, title in ((Status.BAD, "Wrong"), (Status.WARNING, "Worth a look"), (Status.UNKNOWN, "Not found out")):
        those = [check for check in checks if check.status is status]
        if those:
            lines += ["", f"{title}:"]
        for number, check in enumerate(those, 1):
            lines.append(f"{number}. {_plain(check.what)}.")
            if check.hint:
                lines.append(f"   -> {_plain(check.hint)}")
    if worst(checks) is not Status.BAD:
        lines += ["", "Nothing is wrong."]
    return "\n".join([*lines, f"({len(checks)} checks, {took_s:.1f} s)"]) + "\n"


def _plain(text: str) -> str:
    """One line of printable text: devices, drivers and other processes name themselves."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split())).rstrip(".")
