"""`camdock abi upgrade`: moves every pin to the newest that fits on all platforms, and rewrites the file only if the
whole set is clean.

Runs in: any process; check() in processes of its own, pip as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from camdock.abi.check import Module
from camdock.abi.numpys import PROMISES
from camdock.abi.plan import (
    Judge,
    Judged,
    add_common,
    built_from_source,
    judge_set,
    platforms_of,
    to_stderr,
    wanted_of,
)
from camdock.abi.requirements import (
    Constraints,
    FileUnusable,
    Wanted,
    read_constraints,
    read_wanted,
    replace_file,
    rewritten,
)
from camdock.abi.wheels import AT_ONCE, PipFailed, PipMissing, Platform, Wheel, resolve

_UNFIT = ("breaks", "breaks-on-use", "hazard")  # wrong data without a message is no smaller harm than a refusal
_ROUNDS = 20  # each one holds at least one package more; a set that needs more of them is one for a person

Say = Callable[[str], None]
Sets = Mapping[Platform, Mapping[str, Wheel]]


class NothingClean(Exception):
    """No set of newer pins is clean. The message says what stands in the way."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A package that may not go where it would. `limit`: in pip's words; `why`: in a person's."""

    name: str
    limit: str
    why: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """A module of a candidate set that does not fit the set's NumPy."""

    judged: Judged
    module: Module

    def __str__(self) -> str:
        wheel = self.judged.wheel
        return f"{self.module.file} of {wheel.name} {wheel.version}: {self.module.verdict}, {self.module.evidence}"


@dataclass(slots=True)
class Outcome:
    """A clean set: what changes, and what does not and why. Versions by canonical name; `moved`: (old, new)."""

    versions: dict[str, str]
    wanted_by: dict[str, set[str]]
    moved: dict[str, tuple[str, str]] = field(default_factory=dict)
    held: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: (newest there is, why not)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Upgrade:
    """One search for the newest clean set. Every method may raise PipMissing and OSError."""

    def __init__(
        self, constraints: Constraints, wanted: Wanted, platforms: Sequence[Platform], cache: Path, say: Say
    ) -> None:
        self._constraints = constraints
        self._pins = constraints.versions
        self._wanted = wanted
        self._requirements = [str(requirement) for requirement, _ in wanted.requirements]
        self._built = built_from_source(self._pins, wanted)
        self._platforms = platforms
        self._judge = Judge(cache, say)
        self._say = say
        self._holds: list[Hold] = []

    def find(self, only: Iterable[str] = (), hold: Iterable[str] = ()) -> Outcome:
        """The newest clean set.

        only    pins that may move, and no others; empty: all
        hold    pins that may not
        raises  NothingClean, FileUnusable
        """
        only, hold = {canonicalize_name(name) for name in only}, {canonicalize_name(name) for name in hold}
        if unknown := sorted((only | hold) - self._pins.keys()):
            raise FileUnusable(f"{self._constraints.path} does not pin {', '.join(unknown)}")
        still = (self._pins.keys() - only if only else set()) | hold
        asked = "asked for with --hold"
        self._holds = [
            Hold(name, f"=={self._pins[name]}", asked if name in hold else "not named with --only")
            for name in sorted(still - self._built.keys())
        ]
        try:
            sets = self._newest_clean()
        except (NothingClean, PipFailed) as error:
            self._say(f"not all at once: {str(error).splitlines()[0]}")
            sets = self._bit_by_bit(sorted(self._pins.keys() - still - self._built.keys()), error)
        return self._outcome(sets)

    # ---- searching

    def _newest_clean(self) -> Sets:
        for _ in range(_ROUNDS):
            sets = self._solve([f"{hold.name}{hold.limit}" for hold in self._holds])
            numpy = _one(sets, "numpy")
            unfit = self._unfit(sets)
            if not unfit:
                return sets
            for new in {hold.name: hold for hold in (self._hold_for(each, numpy) for each in unfit)}.values():
                self._say(f"holding {new.name}{new.limit}: {new.why}")
                self._holds.append(new)
        raise NothingClean(f"no clean set after {_ROUNDS} rounds of holding packages back")

    def _bit_by_bit(self, names: list[str], because: Exception) -> Sets:
        """What can move when not everything can: halves of the pins, then halves of those."""
        asked = [hold for hold in self._holds if hold.limit.startswith("==")]
        try:
            best = self._clean({})
        except (NothingClean, PipFailed) as error:
            raise NothingClean(f"{because}\nThe pins as they are: {error}") from error
        self._holds = asked
        free: set[str] = set()
        groups = [names[: len(names) // 2], names[len(names) // 2 :]]
        while groups:
            group = groups.pop(0)
            try:
                best = self._clean(free | set(group))
                free |= set(group)
            except (NothingClean, PipFailed) as error:
                if len(group) > 1:
                    groups = [group[: len(group) // 2], group[len(group) // 2 :], *groups]
                elif group:
                    self._holds.append(Hold(group[0], f"=={self._pins[group[0]]}", str(error).replace("\n", "; ")))
        return best

    def _clean(self, free: Iterable[str]) -> Sets:
        """The newest set in which only those pins may move. Raises NothingClean, PipFailed."""
        names = self._pins.keys() - set(free) - self._built.keys()
        sets = self._solve([f"{name}=={self._pins[name]}" for name in sorted(names)])
        if unfit := self._unfit(sets):
            raise NothingClean(f"with NumPy {_one(sets, 'numpy')}, {unfit[0]}")
        return sets

    def _solve(self, limits: list[str]) -> Sets:
        """One version of every package for all platforms, the newest that pip finds. Raises PipFailed."""
        sets: dict[Platform, Mapping[str, Wheel]] = {}
        limits = list(limits)
        for _ in range(_ROUNDS):
            todo = [platform for platform in self._platforms if not _within(sets.get(platform), limits)]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                sets |= zip(todo, pool.map(lambda platform: self._resolve(platform, limits), todo), strict=True)
            several = {name: versions for name, versions in _versions(sets).items() if len(versions) > 1}
            if not several:
                return sets
            # NumPy first and alone: much of the rest differs only because NumPy does.
            for name in ["numpy"] if "numpy" in several else sorted(several):
                lowest = min(several[name], key=Version)
                limits.append(f"{name}<={lowest}")
                self._say(f"{name}: {', '.join(sorted(several[name], key=Version))} differ by platform, so {lowest}")
        raise PipFailed(f"after {_ROUNDS} rounds the platforms still want different versions: {', '.join(several)}")

    def _resolve(self, platform: Platform, limits: list[str]) -> Mapping[str, Wheel]:
        self._say(f"{platform}: resolving")
        try:
            return resolve(platform, self._requirements, limits, self._built)
        except PipFailed as error:
            raise PipFailed(f"{platform}: {error}", error.missing) from error

    def _unfit(self, sets: Sets) -> list[Unfit]:
        """A module of each package that does not fit the set's NumPy. Raises NothingClean where one is not judged."""
        chosen = {platform: wheels.values() for platform, wheels in sets.items()}
        judged = judge_set(chosen, _one(sets, "numpy"), self._judge, self._say)
        if problems := [f"{each.wheel.file}: {each.problem}" for each in judged if each.problem]:
            raise NothingClean("could not be judged: " + "; ".join(problems[:3]))
        first: dict[str, Unfit] = {}
        for each in judged:
            for module in each.modules:
                if module.verdict in _UNFIT:
                    first.setdefault(each.wheel.name, Unfit(each, module))
        return list(first.values())

    def _hold_for(self, unfit: Unfit, numpy: str) -> Hold:
        """What must stay for this module to fit: NumPy, where it moved and the module runs with the pinned one; else
        its own package. Raises NothingClean where neither moved."""
        wheel, why, pinned = unfit.judged.wheel, f"with NumPy {numpy}, {unfit}", self._pins.get("numpy", numpy)
        if numpy != pinned and wheel.name != "numpy" and self._fits(wheel, pinned):
            # Not one release after the other: the first line of the table that the module does not fit.
            limit = next((since for since in _lines_between(pinned, numpy) if not self._fits(wheel, since)), numpy)
            return Hold("numpy", f"<{limit}", why)
        if wheel.name in self._pins and Version(wheel.version) <= Version(self._pins[wheel.name]):
            raise NothingClean(why)
        return Hold(wheel.name, f"<{wheel.version}", why)

    def _fits(self, wheel: Wheel, numpy: str) -> bool:
        report = self._judge([(wheel.file, numpy)])[wheel.file, numpy]
        return not isinstance(report, str) and all(module.verdict not in _UNFIT for module in report.modules)

    # ---- telling

    def _outcome(self, sets: Sets) -> Outcome:
        versions = {name: _one(sets, name) for name in _versions(sets)}
        outcome = Outcome(versions, _wanted_by(sets))
        outcome.added = sorted(versions.keys() - self._pins.keys())
        outcome.removed = [name for name in self._pins if name not in versions]
        for name, pinned in self._pins.items():
            if name in versions and versions[name] != pinned:
                outcome.moved[name] = (pinned, versions[name])
        self._say("asking for the newest of each, to say what is held back")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            newest = dict(zip(sets, pool.map(self._newest_alone, sets.items()), strict=True))
        for name in versions:
            there = {platform: found[name] for platform, found in newest.items() if name in found}
            best = max((wheel.version for wheel in there.values()), key=Version, default=versions[name])
            if Version(best) > Version(versions[name]):
                outcome.held[name] = (best, self._why_not(name, best, sets, there))
        return outcome

    def _newest_alone(self, item: tuple[Platform, Mapping[str, Wheel]]) -> dict[str, Wheel]:
        """The newest wheel of each package for a platform, whatever the others want."""
        platform, wheels = item
        try:
            names = sorted(wheels.keys() - self._built.keys())
            return resolve(platform, names, dependencies=False)
        except PipFailed:
            return {}

    def _why_not(self, name: str, best: str, sets: Sets, there: Mapping[Platform, Wheel]) -> str:
        if holds := [hold for hold in self._holds if hold.name == name]:
            return holds[0].why
        words = []
        for platform, wheels in sets.items():
            asked = [(requirement, f"{origin} asks for") for requirement, origin in self._wanted.requirements]
            for wheel in wheels.values():
                asked += [(requirement, f"{wheel.name} {wheel.version} requires") for requirement in _requires(wheel)]
            words += [
                f"{who} {name}{requirement.specifier}"
                for requirement, who in asked
                if canonicalize_name(requirement.name) == name
                and _counts(requirement, platform)
                and not requirement.specifier.contains(best, True)
            ]
            if platform in there and there[platform].version == best:
                words += [
                    f"{best} requires {requirement.name}{requirement.specifier}"
                    for requirement in _requires(there[platform])
                    if (other := wheels.get(canonicalize_name(requirement.name)))
                    and _counts(requirement, platform)
                    and not requirement.specifier.contains(other.version, True)
                ]
        if lacking := [str(platform) for platform, wheel in there.items() if wheel.version != best]:
            words.append(f"there is no wheel of {best} for {', '.join(lacking)}")
        return "; ".join(dict.fromkeys(words)) or "pip finds no set with it"


def _lines_between(old: str, new: str) -> list[str]:
    """The releases that begin a line of the table, after `old` and up to `new`."""
    lines = ["{}.{}".format(*promise.since) for promise in PROMISES]
    return [line for line in lines if Version(old) < Version(line) <= Version(new)]


def _versions(sets: Sets) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for wheels in sets.values():
        for wheel in wheels.values():
            found.setdefault(wheel.name, set()).add(wheel.version)
    return found


def _one(sets: Sets, name: str) -> str:
    """The version of a package in a set that has one for all platforms. Raises NothingClean where it is in none."""
    for wheels in sets.values():
        if name in wheels:
            return wheels[name].version
    raise NothingClean(f"nothing asks for {name}: there is nothing to judge by")


def _within(wheels: Mapping[str, Wheel] | None, limits: Iterable[str]) -> bool:
    """Whether what was resolved before still keeps every limit."""
    if wheels is None:
        return False
    for limit in map(Requirement, limits):
        wheel = wheels.get(canonicalize_name(limit.name))
        if wheel is not None and not limit.specifier.contains(wheel.version, True):
            return False
    return True


def _requires(wheel: Wheel) -> list[Requirement]:
    requirements = []
    for line in wheel.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # old metadata; pip knows what to make of it
            continue
        requirements.append(requirement)
    return requirements


def _counts(requirement: Requirement, platform: Platform) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**platform.markers, "extra": ""})


def _wanted_by(sets: Sets) -> dict[str, set[str]]:
    """By package: the names of those that require it."""
    found: dict[str, set[str]] = {}
    for platform, wheels in sets.items():
        for wheel in wheels.values():
            for requirement in _requires(wheel):
                name = canonicalize_name(requirement.name)
                if name in wheels and _counts(requirement, platform):
                    found.setdefault(name, set()).add(wheel.name)
    return found


# ------------------------------------------------------------------------------------------------ the command line


def table(outcome: Outcome, constraints: Constraints) -> str:
    """For a person: what moved, what did not and why, what came and what went."""

    def wanters(name: str) -> str:
        return ", ".join(sorted(outcome.wanted_by.get(name, {"the requirements"})))

    sections: list[tuple[str, list[tuple[str, str]]]] = [
        ("Moved", [(name, f"{old} -> {new}{_down(old, new)}") for name, (old, new) in outcome.moved.items()]),
        (
            "Held back",
            [(name, f"{outcome.versions[name]}, newest {best}: {why}") for name, (best, why) in outcome.held.items()],
        ),
        ("New", [(name, f"{outcome.versions[name]}, wanted by {wanters(name)}") for name in outcome.added]),
        ("Removed, nothing needs it any more", [(name, constraints.pins[name].version) for name in outcome.removed]),
    ]
    width = max((len(name) for _, rows in sections for name, _ in rows), default=0)
    lines = []
    for title, rows in sections:
        if rows:
            lines += [title, *(f"  {name:{width}}  {text}" for name, text in rows)]
    texts = constraints.text.splitlines()
    if stories := [name for name in outcome.moved if "#" in texts[constraints.pins[name].index]]:
        lines.append(f"Their lines tell a story, read whether it still holds: {', '.join(stories)}")
    return "\n".join(lines)


def _down(old: str, new: str) -> str:
    return "  (down)" if Version(new) < Version(old) else ""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "upgrade",
        help="move every pin to the newest that fits everywhere, and only if the whole set is clean",
        description="Finds the newest versions that resolve on every Python and machine, judges their wheels, and "
        "rewrites the constraints file only if all are clean. Exit code: 0 clean (moved, or nothing to move), "
        "1 nothing clean and nothing changed, 2 something could not be had or read.",
    )
    add_common(parser)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="move these pins and no others")
    parser.add_argument("--hold", nargs="+", default=[], metavar="NAME", help="do not move these pins")
    parser.add_argument("--dry-run", action="store_true", help="say what would move, change nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The command. Returns the exit code."""
    try:
        return _upgrade(arguments)
    except NothingClean as error:
        print(f"Nothing is clean, {arguments.constraints} is untouched: {error}", file=sys.stderr)
        return 1
    except (FileUnusable, PipMissing, ValueError, OSError) as error:
        print(f"camdock abi upgrade: {error}", file=sys.stderr)
        return 2


def _upgrade(arguments: argparse.Namespace) -> int:
    constraints = read_constraints(arguments.constraints)
    project = arguments.constraints.parent / "pyproject.toml"
    wanted = wanted_of(arguments) or (read_wanted(str(project)) if project.exists() else None)
    if wanted is None:
        raise FileUnusable(
            f"say what the pins of {constraints.path} are for: -r pyproject.toml, or a requirements file"
        )
    if "numpy" not in constraints.pins:
        raise FileUnusable(f"{constraints.path} pins no numpy: nothing to judge by")
    search = Upgrade(constraints, wanted, platforms_of(arguments), arguments.cache, to_stderr)
    outcome = search.find(arguments.only, arguments.hold)
    if said := table(outcome, constraints):
        print(said)
    text = rewritten(constraints, outcome.versions, outcome.wanted_by)
    if text == constraints.text:
        print(f"{constraints.path}: nothing to move, and all of it is clean")
    elif arguments.dry_run:
        print(f"{constraints.path} is untouched (--dry-run)")
    elif read_constraints(constraints.path).text != constraints.text:
        raise FileUnusable(f"{constraints.path} was changed meanwhile: it is untouched, run this again")
    else:
        replace_file(constraints.path, text)
        print(f"{constraints.path} is rewritten. Undo: git checkout {constraints.path}")
    return 0
