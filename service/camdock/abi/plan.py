"""`camdock abi plan`: the wheels of a constraints file, judged for other Pythons and machines before any is installed.

Runs in: any process; check() in processes of its own, pip as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import monotonic

from packaging.utils import canonicalize_name

from camdock.abi.check import Finding, Module, Report, check
from camdock.abi.numpys import NumPyUnknown
from camdock.abi.requirements import Constraints, FileUnusable, Wanted, read_constraints, read_wanted
from camdock.abi.rules import WORST_FIRST
from camdock.abi.targets import TargetUnreadable
from camdock.abi.wheels import AT_ONCE, MACHINES, PipFailed, PipMissing, Platform, Wheel, fetch, resolve

PYTHONS = "3.11,3.12,3.13"
_BREAKING = ("breaks", "breaks-on-use")
_DOUBTFUL = ("hazard", "unknown")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """One package on one platform. `modules`: its compiled ones; `problem`: why they could not be judged, else ""."""

    platform: Platform
    wheel: Wheel
    modules: tuple[Module, ...] = ()
    problem: str = ""

    def verdict(self) -> str:
        """The worst of its modules; "built" from source, "unread", or "pure" where it has no compiled module."""
        if self.wheel.built or self.problem:
            return "built" if self.wheel.built else "unread"
        return min((module.verdict for module in self.modules), key=WORST_FIRST.index, default="pure")


@dataclass(frozen=True, slots=True)
class Plan:
    """A set of pins, judged. `findings`: pins missing or left over; `unread`: what could not be had or read."""

    constraints: str
    numpy: str
    platforms: tuple[Platform, ...]
    judged: list[Judged] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unread: list[Finding] = field(default_factory=list)

    def bad(self, strict: bool = False) -> list[tuple[Judged, Module]]:
        """The modules that do not fit, each with its package; `strict` counts those that are in doubt, too."""
        counted = _BREAKING + _DOUBTFUL if strict else _BREAKING
        return [(judged, module) for judged in self.judged for module in judged.modules if module.verdict in counted]

    def exit_code(self, strict: bool = False) -> int:
        """0 clean, 1 findings, 2 something could not be had or read."""
        if self.unread or any(judged.problem for judged in self.judged):
            return 2
        return 1 if self.findings or self.bad(strict) else 0


# ------------------------------------------------------------------------------------------------------- judging


class Judge:
    """Judges wheel files, each pair of file and NumPy once."""

    def __init__(self, cache: Path, say: Say) -> None:
        self.cache = cache
        self._say = say
        self._known: dict[tuple[str, str], Report | str] = {}

    def __call__(self, pairs: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Report | str]:
        """The reports by (file name, NumPy's version); a text where there can be none: why."""
        new = sorted(set(pairs) - self._known.keys())
        if len(new) > 1:
            self._say(f"judging {len(new)} wheels")
            # spawn: a fork of a process with threads may hang
            with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
                self._known |= dict(zip(new, pool.map(partial(_judge, self.cache), new, chunksize=4), strict=True))
        else:
            self._known |= {pair: _judge(self.cache, pair) for pair in new}
        return self._known


def _judge(cache: Path, pair: tuple[str, str]) -> Report | str:
    file, numpy = pair
    try:
        return check(target=str(cache / file), numpy=numpy)
    except (TargetUnreadable, NumPyUnknown) as error:
        return str(error)


def judge_set(sets: Mapping[Platform, Iterable[Wheel]], numpy: str, judge: Judge, say: Say) -> list[Judged]:
    """Fetches the wheels of every platform, and judges them by that NumPy. Raises PipMissing, OSError."""
    listed = {platform: list(wheels) for platform, wheels in sets.items()}
    failed = fetch(listed, judge.cache, say)
    reasons = {
        wheel.file: reason
        for (platform, name), reason in failed.items()
        for wheel in listed[platform]
        if wheel.name == name
    }
    files = {wheel.file for wheels in listed.values() for wheel in wheels if not wheel.built}
    reports = judge((file, numpy) for file in files - reasons.keys())
    judged = []
    for platform, wheels in listed.items():
        for wheel in sorted(wheels, key=lambda wheel: wheel.name):
            if wheel.built:
                judged.append(Judged(platform, wheel))
                continue
            report = reasons[wheel.file] if wheel.file in reasons else reports[wheel.file, numpy]
            if isinstance(report, str):
                judged.append(Judged(platform, wheel, problem=report))
            else:
                judged.append(Judged(platform, wheel, modules=tuple(report.modules)))
    return judged


# ------------------------------------------------------------------------------------------------------ planning


def plan(constraints: Constraints, wanted: Wanted | None, platforms: Iterable[Platform], cache: Path, say: Say) -> Plan:
    """Judges what pip would install of these pins on each platform.

    wanted  what is to be installed: then a pin that it needs nowhere is a finding, and so is a package without a pin.
            None: every pin, wherever its own marker allows it
    raises  FileUnusable, PipMissing, OSError
    """
    platforms = tuple(platforms)
    if "numpy" not in constraints.pins:
        raise FileUnusable(f"{constraints.path} pins no numpy: nothing to judge by")
    done = Plan(constraints.path.name, constraints.pins["numpy"].version, platforms)
    if wanted is not None and next(iter(constraints.pins)) != "numpy":
        done.findings.append(
            Finding(
                "numpy-not-first",
                f"NumPy is not the first pin of {constraints.path.name}: it is installed first, alone, so that nothing "
                "compiled chooses another one",
                "move its line to the top",
            )
        )
    sets: dict[Platform, dict[str, Wheel]] = {}
    choose = partial(_choose, constraints, wanted, say)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for platform, (wheels, unread) in zip(platforms, pool.map(choose, platforms), strict=True):
            sets[platform] = wheels
            done.unread.extend(unread)
    if wanted is not None and not done.unread:
        done.findings.extend(_against_pins(constraints, sets))
    chosen = {platform: wheels.values() for platform, wheels in sets.items()}
    done.judged.extend(judge_set(chosen, done.numpy, Judge(cache, say), say))
    return done


def _choose(
    constraints: Constraints, wanted: Wanted | None, say: Say, platform: Platform
) -> tuple[dict[str, Wheel], list[Finding]]:
    began = monotonic()
    try:
        if wanted is None:
            return _choose_each(constraints, platform)
        requirements = [str(requirement) for requirement, _ in wanted.requirements]
        built = built_from_source(constraints.versions, wanted)
        return resolve(platform, requirements, _lines(constraints, platform), built), []
    except PipFailed as error:
        return {}, [
            Finding("unresolved", f"{platform}: pip finds no set of wheels: " + str(error).replace("\n", "; "), "")
        ]
    finally:
        say(f"{platform}: resolved in {monotonic() - began:.0f} s")


def built_from_source(versions: Mapping[str, str], wanted: Wanted) -> dict[str, str]:
    """Versions by name of what is built where it is installed. Raises FileUnusable where one has no pin."""
    if unpinned := sorted(wanted.from_source.keys() - versions.keys()):
        raise FileUnusable(f"--no-binary names {', '.join(unpinned)}, and no pin says which version")
    return {name: versions[name] for name in wanted.from_source}


def _lines(constraints: Constraints, platform: Platform) -> list[str]:
    return [
        f"{pin.name}=={pin.version}"
        for pin in constraints.pins.values()
        if pin.marker is None or pin.marker.evaluate(dict(platform.markers))
    ]


def _choose_each(constraints: Constraints, platform: Platform) -> tuple[dict[str, Wheel], list[Finding]]:
    lines = _lines(constraints, platform)
    unread: list[Finding] = []
    while lines:
        try:
            return resolve(platform, lines, dependencies=False), unread
        except PipFailed as error:
            missing = canonicalize_name(error.missing.partition("==")[0])
            rest = [line for line in lines if line.partition("==")[0] != missing]
            if len(rest) == len(lines):
                raise
            lines = rest
            pin = constraints.pins[missing]
            unread.append(
                Finding(
                    "no-wheel",
                    f"{platform}: there is no wheel of {pin.name} {pin.version} for it",
                    f"say with a marker in a requirements file (-r) where {pin.name} is not needed, or pin another one",
                )
            )
    return {}, unread


def _against_pins(constraints: Constraints, sets: Mapping[Platform, Mapping[str, Wheel]]) -> list[Finding]:
    findings = []
    unpinned: dict[tuple[str, str], list[str]] = {}
    for platform, wheels in sets.items():
        for name, wheel in wheels.items():
            if name not in constraints.pins:
                unpinned.setdefault((name, wheel.version), []).append(str(platform))
    for (name, version), where in sorted(unpinned.items()):
        findings.append(Finding("not-pinned", f"{name} is installed on {', '.join(where)}", f"pin {name}=={version}"))
    for name in sorted(constraints.pins.keys() - {name for wheels in sets.values() for name in wheels}):
        line = constraints.pins[name].index + 1
        findings.append(Finding("left-over", f"line {line} pins {name}, and nothing asks for it", "remove the line"))
    return findings


# ------------------------------------------------------------------------------------------------------ reporting


def table(plan: Plan, strict: bool = False) -> str:
    """For a person: packages with something compiled down, platforms across; below it what is wrong."""
    cells: dict[str, dict[Platform, str]] = {}
    versions = {}
    pure = set()
    for judged in plan.judged:
        versions[judged.wheel.name] = judged.wheel.version
        verdict = judged.verdict()
        if verdict == "pure":
            pure.add(judged.wheel.name)
        cells.setdefault(judged.wheel.name, {})[judged.platform] = (
            f"{len(judged.modules)} ok" if verdict == "ok" else verdict
        )
    shown = {name: row for name, row in cells.items() if set(row.values()) != {"pure"}}
    rows = [["", *map(str, plan.platforms)]]
    for name in sorted(shown, key=lambda name: (name != "numpy", name)):
        rows.append([f"{name} {versions[name]}", *(shown[name].get(platform, "-") for platform in plan.platforms)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if pure_only := pure - shown.keys():
        lines.append(f"and {len(pure_only)} packages without a compiled module")
    if any(judged.wheel.built for judged in plan.judged):
        lines.append("built: from source, where it is installed; `camdock abi check` judges the result there")
    lines += _troubles(plan, strict)
    return "\n".join(lines)


def _troubles(plan: Plan, strict: bool) -> list[str]:
    lines: list[str] = []
    grouped: dict[Module, tuple[Wheel, list[str]]] = {}
    for judged, module in plan.bad(strict=True):
        grouped.setdefault(module, (judged.wheel, []))[1].append(str(judged.platform))
    for module, (wheel, where) in grouped.items():
        lines += ["", f"{module.verdict}: {wheel.name} {wheel.version} with NumPy {plan.numpy} on {', '.join(where)}"]
        lines += [f"  {module.file}", f"  {module.rule}: {module.evidence}"]
        if module.fix:
            lines.append(f"  fix: {module.fix}")
    problems: dict[tuple[str, str], list[str]] = {}
    for judged in plan.judged:
        if judged.problem:
            problems.setdefault((judged.wheel.file, judged.problem), []).append(str(judged.platform))
    for (file, problem), where in problems.items():
        lines += ["", f"could not be judged: {file} ({', '.join(where)})", f"  {problem}"]
    for finding in plan.unread + plan.findings:
        lines += ["", f"{finding.rule}: {finding.message}"] + ([f"  fix: {finding.fix}"] if finding.fix else [])
    counted = len(plan.bad(strict)) + len(plan.findings)
    words = {0: "clean", 1: "not clean", 2: "not known: something could not be had or read"}
    doubtful = len(plan.bad(strict=True)) - len(plan.bad())
    more = f", {doubtful} in doubt (counted with --strict)" if doubtful and not strict else ""
    lines += ["", f"{plan.constraints}, NumPy {plan.numpy}: {words[plan.exit_code(strict)]}{more}"]
    if counted:
        lines[-1] += f", {counted} finding{'s' if counted > 1 else ''}"
    return lines


def as_json(plan: Plan) -> str:
    """Keys as in the issue's check --json, with the platform and wheel of each module."""
    return json.dumps(
        {
            "constraints": plan.constraints,
            "numpy": plan.numpy,
            "platforms": [str(platform) for platform in plan.platforms],
            "packages": [
                {
                    "name": judged.wheel.name,
                    "version": judged.wheel.version,
                    "platform": str(judged.platform),
                    "wheel": None if judged.wheel.built else judged.wheel.file,
                    "verdict": judged.verdict(),
                    "problem": judged.problem,
                    "modules": [asdict(module) for module in judged.modules],
                }
                for judged in plan.judged
            ],
            "findings": [asdict(finding) for finding in plan.unread + plan.findings],
        },
        indent=2,
    )


# ------------------------------------------------------------------------------------------------ the command line


def default_cache() -> Path:
    """The folder that keeps fetched wheels between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "camdock" / "wheels"


def add_common(parser: argparse.ArgumentParser) -> None:
    """The arguments that plan and upgrade share."""
    parser.add_argument("constraints", nargs="?", default="constraints.txt", metavar="CONSTRAINTS", type=Path)
    parser.add_argument("--python", default=PYTHONS, metavar="VERSIONS", help=f"default {PYTHONS}")
    parser.add_argument(
        "--platform",
        default="x86_64,aarch64",
        metavar="MACHINES",
        help=f"of {', '.join(MACHINES)}; default the first two",
    )
    parser.add_argument(
        "--glibc", default="2.36", metavar="2.N", help="of the oldest system to run on; default Debian bookworm's 2.36"
    )
    parser.add_argument(
        "-r", "--requirements", action="append", default=[], metavar="FILE",
        help="what the pins are for: a requirements file, pyproject.toml, or 'pyproject.toml[extra,...]'",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), metavar="DIR", help="keeps the wheels; %(default)s"
    )


def platforms_of(arguments: argparse.Namespace) -> list[Platform]:
    """Every Python with every machine, as asked for. Raises ValueError."""
    release, _, minor = arguments.glibc.partition(".")
    if release != "2" or not minor.isdigit():
        raise ValueError(f"--glibc {arguments.glibc}: write it like 2.36")
    pythons = [word.strip() for word in arguments.python.split(",") if word.strip()]
    machines = [word.strip() for word in arguments.platform.split(",") if word.strip()]
    return list(dict.fromkeys(Platform(python, machine, int(minor)) for python in pythons for machine in machines))


def wanted_of(arguments: argparse.Namespace) -> Wanted | None:
    """What the -r name, together; None where there is none. Raises FileUnusable."""
    if not arguments.requirements:
        return None
    return sum((read_wanted(argument) for argument in arguments.requirements), Wanted())


def to_stderr(message: str) -> None:
    """Progress."""
    print(f"  {message}", file=sys.stderr, flush=True)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "plan",
        help="judge a constraints file for other Pythons and machines, before anything is installed",
        description="Fetches the wheels that pip would choose for each Python and machine, and judges them by the "
        "NumPy that the file pins. Exit code: 0 clean, 1 findings, 2 something could not be had or read.",
    )
    add_common(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--strict", action="store_true", help="count what is in doubt: hazard and unknown")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The command. Returns the exit code."""
    try:
        constraints = read_constraints(arguments.constraints)
        done = plan(constraints, wanted_of(arguments), platforms_of(arguments), arguments.cache, to_stderr)
    except (FileUnusable, PipMissing, ValueError, OSError) as error:
        print(f"camdock abi plan: {error}", file=sys.stderr)
        return 2
    print(as_json(done) if arguments.json else table(done, arguments.strict))
    return done.exit_code(arguments.strict)
