"""A check as a table for people, as JSON, and as SARIF or JUnit for continuous integration.

Runs in: any process.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from camdock import __version__
from camdock.abi.allowed import Allowed
from camdock.abi.check import Finding, Module, Report
from camdock.abi.rules import RULES, Verdict

SHOWN = 3  # modules of one package with the same trouble, unless all are asked for
WIDTH = 80  # columns, where nothing says how wide the terminal is
_COLOURS: dict[Verdict, str] = {"breaks": "31;1", "breaks-on-use": "31", "hazard": "33;1", "unknown": "33", "ok": "32"}
_LEVELS: dict[Verdict, str] = {
    "breaks": "error", "breaks-on-use": "error", "hazard": "warning", "unknown": "warning", "ok": "none",
}  # fmt: skip
_SAID: dict[Verdict, str] = {
    "breaks": "BREAKS when it is imported",
    "breaks-on-use": "BREAKS when it is first used",
    "hazard": "WRONG DATA, without a message",
    "unknown": "not known",
    "ok": "ok",
}
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Unread:
    """A target that could not be read, and why."""

    target: str
    error: str


Result = Report | Unread
_NOTHING = Allowed()


def as_json(results: Sequence[Result], allowed: Allowed = _NOTHING) -> str:
    """One object for one target; for several an object that lists them under "targets", whatever could be read.

    What is accepted has its reason in "accepted"; a target that could not be read has an "error" and nothing else.
    """
    if len(results) == 1:
        return json.dumps(_object(results[0], allowed), indent=2)
    return json.dumps({"targets": [{"target": one.target, **_object(one, allowed)} for one in results]}, indent=2)


def _object(result: Result, allowed: Allowed) -> dict[str, Any]:
    if isinstance(result, Unread):
        return {"error": result.error}
    return {
        "numpy": result.numpy,
        "modules": [_with_reason(asdict(one), allowed.module(one)) for one in result.modules],
        "findings": [_with_reason(asdict(one), allowed.finding(one)) for one in result.findings],
    }


def _with_reason(said: dict[str, Any], accepted: str) -> dict[str, Any]:
    return {**said, "accepted": accepted} if accepted else said


# ------------------------------------------------------------------------------------------------------ for people


def as_table(
    results: Sequence[Result],
    allowed: Allowed = _NOTHING,
    *,
    everything: bool = False,
    colour: bool = False,
    width: int = WIDTH,
) -> str:
    """What is wrong, worst first, and how to mend it. `everything`: also every module that is right.

    Targets that could not be read are not in it: that is said beside it.
    """
    reports = [one for one in results if isinstance(one, Report)]
    return "\n".join(_table(report, allowed, everything, colour, max(40, width)) for report in reports)


def _table(report: Report, allowed: Allowed, everything: bool, colour: bool, width: int) -> str:
    by = f"judged by NumPy {report.numpy}" if report.numpy else "no NumPy to judge by"
    lines = [*_wrapped(f"{printable(report.target)}: {by}", width, ""), ""]
    wrong = [module for module in report.modules if module.verdict != "ok"]
    for accepted, group in _groups(wrong, allowed):
        lines += [*_group(group, everything, colour, width), *_accepted(accepted, width), ""]
    if everything:
        right = [module for module in report.modules if module.verdict == "ok"]
        lines += [f"ok  {printable(one.module)}  {printable(one.package)}".rstrip() for one in right]
        lines += [""] if right else []
    for finding in report.findings:
        mark = "note" if finding.is_note else "FINDING"
        lines += [_coloured(f"{mark}: {RULES[finding.rule].title}", "" if finding.is_note else "33;1", colour)]
        lines += _wrapped(printable(finding.message), width, "    ")
        lines += [*_fix(finding.fix), *_accepted(allowed.finding(finding), width), ""]
    return "\n".join([*lines, *_wrapped(_counts(report, allowed, everything), width, ""), ""])


def _groups(modules: list[Module], allowed: Allowed) -> list[tuple[str, list[Module]]]:
    """Modules of one package with the same verdict for the same reason, in the order of each group's first.

    With each group why it is accepted; "" where it is not.
    """
    groups: dict[tuple[str, ...], list[Module]] = {}
    for one in modules:
        groups.setdefault((allowed.module(one), one.verdict, one.package, one.rule, one.fix), []).append(one)
    return [(key[0], group) for key, group in groups.items()]


def _group(group: list[Module], everything: bool, colour: bool, width: int) -> list[str]:
    first = group[0]
    said = _coloured(_SAID[first.verdict], _COLOURS[first.verdict], colour)
    whose = f"{printable(first.package)}: " if first.package else ""
    lines = [f"{said}: {RULES[first.rule].title}"]
    shown = group if everything else group[:SHOWN]
    lines += _wrapped(f"{whose}{', '.join(printable(one.module) for one in shown)}", width, "  ")
    evidence = ""
    for one in shown:
        lines.append(f"    {printable(one.file)}")  # never broken: it is there to be copied
        if one.evidence != evidence:
            lines += _wrapped(printable(one.evidence), width, "      ")
        evidence = one.evidence
    if len(group) > len(shown):
        lines.append(f"    and {len(group) - len(shown)} more; --all lists them")
    return [*lines, *_fix(first.fix)]


def _fix(fix: str) -> list[str]:
    return [f"  fix: {printable(fix)}"] if fix else []


def _accepted(reason: str, width: int) -> list[str]:
    return _wrapped(f"accepted: {printable(reason)}", width, "  ") if reason else []


def _counts(report: Report, allowed: Allowed, everything: bool) -> str:
    counts = Counter(module.verdict for module in report.modules)
    found = sum(not finding.is_note for finding in report.findings)
    parts = [f"{counts[verdict]} {verdict}" for verdict in _SAID if counts[verdict] and verdict != "ok"]
    parts += [f"{found} finding{'s' if found > 1 else ''}"] if found else []
    accepted = sum(bool(allowed.module(one)) for one in report.modules)
    accepted += sum(bool(allowed.finding(one)) for one in report.findings if not one.is_note)
    parts += [f"{accepted} of these accepted"] if accepted else []
    plain = sum(module.rule == "no-numpy" for module in report.modules)
    ok = f"{counts['ok']} ok" + (f" ({plain} of them do not use NumPy)" if plain else "")
    listed = "" if everything or not counts["ok"] else "; --all lists them"
    return ", ".join([*parts, ok]) + listed


def printable(text: str) -> str:
    """A text of a target without anything that a terminal obeys."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _coloured(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


# ---------------------------------------------------------------------------------------------------- for machines


def as_sarif(results: Sequence[Result], allowed: Allowed = _NOTHING) -> str:
    """SARIF 2.1.0: one run for each target; modules that are right are left out, what is accepted is suppressed."""
    runs = [_run(result, f"TARGET{number}", allowed) for number, result in enumerate(results, 1)]
    return json.dumps(
        {
            "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
            "version": "2.1.0",
            "runs": runs,
        },
        indent=2,
    )


def _run(result: Result, base: str, allowed: Allowed) -> dict[str, Any]:
    """One target's run. `base`: the name that its paths are relative to, so that no two targets' are the same."""
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "camdock abi",
                "semanticVersion": __version__,
                "rules": [
                    {"id": name, "shortDescription": {"text": rule.title}, "fullDescription": {"text": rule.why}}
                    for name, rule in RULES.items()
                ],
            }
        },
        "automationDetails": {"id": f"camdock abi/{_plain(result.target)}/"},
    }
    if isinstance(result, Unread):
        told = {"level": "error", "message": {"text": _plain(result.error)}}
        run["invocations"] = [{"executionSuccessful": False, "toolExecutionNotifications": [told]}]
        return {**run, "results": []}
    where = {"uri": f"file://{_uri(result.folder.rstrip('/'))}/"} if result.folder else {}
    run["originalUriBaseIds"] = {base: {**where, "description": {"text": _plain(result.target)}}}
    run["properties"] = {"target": _plain(result.target), "numpy": result.numpy}
    run["results"] = [
        {**_result(one, _LEVELS[one.verdict], allowed.module(one)), "locations": [_location(result, one.file, base)]}
        for one in result.modules
        if one.verdict != "ok"
    ]
    run["results"] += [
        _result(one, "note" if one.is_note else "warning", allowed.finding(one)) for one in result.findings
    ]
    return run


def _result(one: Module | Finding, level: str, accepted: str) -> dict[str, Any]:
    text = f"{one.module}: {RULES[one.rule].title}. {one.evidence}" if isinstance(one, Module) else one.message
    text = f"{text}. To mend it: {one.fix}" if one.fix else text
    result: dict[str, Any] = {
        "ruleId": one.rule,
        "ruleIndex": list(RULES).index(one.rule),
        "level": level,
        "message": {"text": _plain(text)},
    }
    if accepted:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": accepted}]
    return result


def _location(report: Report, file: str, base: str) -> dict[str, Any]:
    if file.startswith("/"):  # outside of what the target's paths are relative to
        place = {"uri": f"file://{_uri(report.system.rstrip('/') + file)}"}
    else:
        place = {"uri": _uri(file), "uriBaseId": base}
    return {"physicalLocation": {"artifactLocation": place}}


def _uri(path: str) -> str:
    return quote(path.encode("utf-8", "surrogateescape"))


def as_junit(results: Sequence[Result], allowed: Allowed = _NOTHING) -> str:
    """JUnit XML: a test suite for each target, a test case for each module and finding; what is accepted is skipped."""
    root = ElementTree.Element("testsuites", name="camdock abi")
    for result in results:
        if isinstance(result, Unread):
            cases = [ElementTree.Element("testcase", classname="targets", name=_plain(result.target))]
            ElementTree.SubElement(cases[0], "error", message=_plain(result.error), type="unreadable")
        else:
            cases = [_case(one, allowed.module(one)) for one in result.modules]
            cases += [_finding_case(one, allowed.finding(one)) for one in result.findings]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_plain(result.target),
            tests=str(len(cases)),
            failures=str(sum(case.find("failure") is not None for case in cases)),
            errors=str(sum(case.find("error") is not None for case in cases)),
            skipped=str(sum(case.find("skipped") is not None for case in cases)),
        )
        suite.extend(cases)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _case(module: Module, accepted: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_plain(module.package or "modules"), name=_plain(module.file))
    if module.verdict in ("breaks", "breaks-on-use", "hazard"):
        _outcome(case, "failure", module.rule, module.evidence, module.fix, accepted)
    elif module.verdict == "unknown":
        _outcome(case, "skipped", module.rule, module.evidence, module.fix, accepted)
    return case


def _finding_case(finding: Finding, accepted: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname="findings", name=_plain(finding.rule))
    if not finding.is_note:
        _outcome(case, "failure", finding.rule, finding.message, finding.fix, accepted)
    return case


def _outcome(case: ElementTree.Element, kind: str, rule: str, message: str, fix: str, accepted: str) -> None:
    text = f"{RULES[rule].title}: {message}"
    if accepted:
        kind, text = "skipped", f"accepted: {accepted} ({text})"
    outcome = ElementTree.SubElement(case, kind, message=_plain(text), type=rule)
    if fix:
        outcome.text = _plain(f"To mend it: {fix}")


def _plain(text: str) -> str:
    """Without the signs that no XML document may have, and that are no text anywhere else."""
    return _NOT_XML.sub("\ufffd", text)
