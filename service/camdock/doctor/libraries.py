"""Libraries: whether they fit the installed NumPy, and whether each back end's loads.

Runs in: `abi` in an errand; the rest in the doctor's process. What loads them is drivers.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camdock.doctor.answer import Answer
from camdock.doctor.report import Check, Status
from camdock.gate import CHECK, CheckFailed, Report
from camdock.installed import Answers, Seal, fingerprint
from camdock.pixels import LOADS
from camdock.source import KINDS, Source

VIDEO_BACKENDS: tuple[str, ...] = ("V4L2", "FFMPEG", "GSTREAMER")  # by OpenCV's names


# --- the ABI ----------------------------------------------------------------------------------------------------------


def names_of(sources: Iterable[Source]) -> list[str]:
    """The import names that the service judges at its start for these sources."""
    loads = (*(KINDS[source.kind].loads for source in sources), *LOADS.values())
    return sorted({name for names in loads for name in names})


def abi(names: list[str], cache: str) -> Iterator[dict[str, Any]]:
    """One answer: `how` it was found out, by which `numpy`, what breaks as `message` and `hint`, `unjudged` modules."""
    if seal := Seal.whole(names):
        yield {"how": "sealed", "numpy": seal.numpy, "message": "", "hint": "", "unjudged": [], "findings": []}
        return
    how, report = "read", None
    document = Answers(Path(cache) if cache else None).get(fingerprint(names))
    if document is not None:
        try:
            how, report = "known from before", Report.of(document, names)
        except CheckFailed:
            how = "read"
    if report is None:
        # In this process's group, so that it dies with it.
        only = [word for name in names for word in ("--only", name)]
        done = subprocess.run([*CHECK, *only], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        try:
            report = Report.of(json.loads(done.stdout), names)
        except (ValueError, CheckFailed) as error:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [str(error)]
            yield {"how": "failed", "message": words[-1]}
            return
    breaking = report.breaking()
    yield {
        "how": how,
        "numpy": report.numpy,
        "message": breaking.message if breaking else "",
        "hint": breaking.hint.removesuffix(", then restart Camdock") if breaking else "",
        "unjudged": [f"{one.module}: {one.evidence}" for one in report.modules if one.verdict == "unknown"],
        "findings": [f"{message}{f' -- {fix}' if fix else ''}" for message, fix in report.findings],
        "modules": [asdict(one) for one in report.modules],
    }


def check_abi(answer: Answer, *, enabled: bool) -> Check:
    """Whether the libraries of these cameras fit NumPy: the service starts no camera where they do not."""
    facts = answer.facts
    if not facts or facts["how"] == "failed":
        why = facts.get("message") or answer.stuck or answer.trouble
        return Check("abi", Status.UNKNOWN, f"libraries could not be judged: {why}",
                     "`camdock abi check`; a slow machine: `camdock doctor --deadline 60`")  # fmt: skip
    if facts["message"]:
        what = facts["message"] + ("" if enabled else "; CAMDOCK_ABI=off: cameras are started on them all the same")
        return Check("abi", Status.BAD, what, f"{facts['hint']}, then restart the service", facts)
    if not facts["numpy"]:
        return Check("abi", Status.WARNING, "NumPy is not installed", "`pip install 'camdock[service]'`", facts)
    if facts["unjudged"]:
        what = f"{len(facts['unjudged'])} modules could not be judged; the first is {facts['unjudged'][0]}"
        return Check("abi", Status.UNKNOWN, what, "`camdock abi check`", facts)
    if facts["findings"]:
        return Check("abi", Status.WARNING, facts["findings"][0], "`camdock abi check` says more", facts)
    return Check("abi", Status.OK, f"all fits NumPy {facts['numpy']} ({facts['how']})", "", facts)


# --- back ends --------------------------------------------------------------------------------------------------------


def idle_kinds(used: Collection[str]) -> list[str]:
    """The kinds of source that need a library of their own, and that no camera shows to work."""
    return [name for name, kind in KINDS.items() if kind.extra and name not in used]


def check_backend(kind: str, answer: Answer) -> Check:
    """A back end that no camera uses: whether it would load. That it is not installed is no mistake."""
    name, facts = f"backend.{kind}", answer.facts
    if not facts:
        # Not in time says little on a slow machine; a process that died says much.
        status = Status.UNKNOWN if answer.hung else Status.WARNING
        return Check(name, status, f"the library for {kind}: does not load: {answer.stuck or answer.trouble}")
    if not facts["installed"]:
        extra = KINDS[kind].extra
        return Check(name, Status.OK, f"not installed, and no camera uses it (`pip install 'camdock[{extra}]'`)")
    if facts["message"]:
        return Check(name, Status.WARNING, f"{facts['message']}; no camera uses it", facts["hint"])
    return Check(name, Status.OK, "loads; no camera uses it")


def check_video_backend(name: str, answer: Answer) -> Check | None:
    """What OpenCV can open with; None without OpenCV."""
    check, facts = f"opencv.{name.lower()}", answer.facts
    if not facts:
        status = Status.UNKNOWN if answer.hung else Status.WARNING
        return Check(check, status, f"OpenCV with {name}: {answer.stuck or answer.trouble}")
    if not facts["version"]:
        return None
    able = "there" if facts["able"] else "not in this build"
    return Check(check, Status.OK, f"OpenCV {facts['version']}: {able}", "", facts)
