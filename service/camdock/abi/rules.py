"""Facts and a NumPy release in, a verdict out.

Runs in: any process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from packaging.version import Version

from camdock.abi.facts import Facts
from camdock.abi.numpys import LEVELS_1, NumPy, feature_of, name

Verdict = Literal["ok", "breaks", "breaks-on-use", "hazard", "unknown"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a verdict is given. `title` fits in a table, `why` is a sentence or two for a person."""

    title: str
    why: str


# Every rule a judgement can name. The first column of a report and the ruleId of SARIF.
RULES: dict[str, Rule] = {
    "no-numpy": Rule("does not use NumPy's C-API", "Nothing in the file asks NumPy for anything."),
    "fits": Rule("built for this NumPy", "What it was compiled for, the loaded NumPy provides."),
    "numpy-itself": Rule("a module of NumPy itself", "NumPy's own modules are built with it and belong together."),
    "built-for-1": Rule(
        "built for NumPy 1.x, this is 2.x",
        "NumPy 2.0 changed the layout of its types. A module compiled with the headers of NumPy 1.x refuses to load.",
    ),
    "type-size": Rule(
        "a NumPy type is smaller than compiled for",
        "Cython compares the size of NumPy's types with the size it was compiled with, and refuses a smaller one.",
    ),
    "numpy-too-old": Rule(
        "wants a newer NumPy",
        "It was compiled to use functions that this NumPy does not have yet, and refuses to load.",
    ),
    "unchecked": Rule(
        "built for NumPy 1.x and does not check",
        "It reads NumPy's types by their 1.x layout whatever is loaded: with 2.x it gets wrong data without a message.",
    ),
    "mixed-numpy": Rule("a module of another NumPy", "NumPy's own modules must all be of the same version."),
    "undecodable": Rule("cannot be decided from the file", "The machine code for this machine is not decoded."),
    "unreadable": Rule("cannot be read", "The file is truncated or corrupted."),
    "second-numpy": Rule(
        "a second NumPy on the path",
        "The first copy of NumPy on the path wins, also for modules that were installed together with another one.",
    ),
    "torn-numpy": Rule(
        "a NumPy copied over another",
        "Its files and its metadata speak of different versions: parts of both are there.",
    ),
    "editable-hook": Rule("an editable install was passed over", "Only running its import hook would tell its files."),
    "link-outside": Rule("a link was not followed", "It leads out of the target, or nowhere."),
    "numpy-unknown": Rule("NumPy's version is not known", "There is no NumPy to judge by; name one with --numpy."),
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on one module. `evidence`: what in the file says so, for a person to check.

    needs  the oldest NumPy it loads on, as "1.23"; "" where it does not say
    """

    verdict: Verdict
    rule: str
    evidence: str
    needs: str = ""


WORST_FIRST: tuple[Verdict, ...] = ("breaks", "breaks-on-use", "hazard", "unknown", "ok")
_NO_NUMPY = Judgement("ok", "no-numpy", "")


def judge(facts: Facts, linked: Iterable[Facts], numpy: NumPy) -> Judgement:
    """The verdict on a module together with the libraries of its own package that it is linked to (`linked`)."""
    worst = _judge_one(facts, numpy)
    for library in linked:
        if not library.headers:
            continue  # what it does with NumPy, it does with the API that the module imported
        judgement = _judge_one(library, numpy)
        if WORST_FIRST.index(judgement.verdict) < WORST_FIRST.index(worst.verdict):
            worst = replace(judgement, evidence=f"linked to {library.soname}: {judgement.evidence}")
    return worst


def _judge_one(facts: Facts, numpy: NumPy) -> Judgement:
    if not facts.numpy:
        return _NO_NUMPY
    if facts.targets:
        return _judge_targets(facts, numpy)
    if facts.headers == 1:
        return _judge_headers_1(facts, numpy)
    if facts.headers == 2:
        return _provided(facts, Judgement("ok", "fits", "imports the ufunc API of NumPy 2.x"))
    if facts.cython:
        return _judge_sizes(facts, numpy) or _judge_unread_sizes(facts, numpy)
    if "old" in (facts.pybind11, facts.rust):
        maker = "pybind11 before 2.12" if facts.pybind11 else "the crate numpy before 0.22"
        if numpy.major >= 2:
            return Judgement("hazard", "unchecked", f"arrays by {maker}")
        return Judgement("ok", "fits", f"arrays by {maker}, made for NumPy 1.x")
    if facts.pybind11 or facts.rust:
        maker = "pybind11 2.12 or later" if facts.pybind11 else "the crate numpy 0.22 or later"
        return Judgement("ok", "fits", f"arrays by {maker}: looks which NumPy it meets")
    return _NO_NUMPY


def _refusal(facts: Facts) -> Verdict:
    return "breaks-on-use" if facts.on_import is False else "breaks"


def _provided(facts: Facts, ok: Judgement) -> Judgement:
    """`ok`, where numbers in the file's machine code were read; else what the texts alone allow to say."""
    if facts.decoded:
        return ok
    return replace(ok, verdict="unknown", rule="undecodable", evidence=f"{ok.evidence}; {facts.machine} is not decoded")


def _judge_targets(facts: Facts, numpy: NumPy) -> Judgement:
    """Headers of 2.x: the text in the file names the oldest NumPy."""
    needs = max(facts.targets, key=Version)
    level = feature_of(needs)
    have = numpy.promise.feature
    if level is None:
        newer = Version(needs) > Version(numpy.version)
        if not newer and numpy.newer:
            return _provided(facts, Judgement("ok", "fits", f"built for NumPy {needs} and later", needs))
        return Judgement(_refusal(facts), "numpy-too-old", f"built for NumPy {needs} and later", needs)
    evidence = f"built with headers of NumPy 2.x for {needs} and later (C-API 0x{level:x}; this NumPy has 0x{have:x})"
    if level > have:
        return Judgement(_refusal(facts), "numpy-too-old", evidence, needs)
    return _provided(facts, Judgement("ok", "fits", evidence, needs))


def _judge_headers_1(facts: Facts, numpy: NumPy) -> Judgement:
    what = "imports the ufunc API of NumPy 1.x" if facts.umath else "built with headers of NumPy 1.x"
    if numpy.major >= 2:
        return Judgement(_refusal(facts), "built-for-1", what)
    if facts.umath:
        return _provided(facts, Judgement("ok", "fits", what))
    if facts.levels:
        level, have = max(facts.levels), numpy.promise.feature
        evidence = f"{what}: compares the C-API with 0x{level:x}; this NumPy has 0x{have:x}"
        if level > have:
            return Judgement(_refusal(facts), "numpy-too-old", evidence, name(level))
        return _provided(facts, Judgement("ok", "fits", evidence, name(level)))
    if (shrunk := _judge_sizes(facts, numpy)) and shrunk.verdict != "ok":
        return shrunk
    if numpy.promise.feature >= LEVELS_1[-1]:
        return _provided(facts, Judgement("ok", "fits", f"{what}, any of them"))
    return Judgement("unknown", "undecodable", f"{what}; which of them was not found in its code")


def _judge_sizes(facts: Facts, numpy: NumPy) -> Judgement | None:
    """Cython's check of the sizes that were read; None where none was."""
    for kind, size in facts.sizes.items():
        have = numpy.promise.sizes[kind]
        if size > have:
            rule = "built-for-1" if kind == "dtype" and numpy.major >= 2 else "type-size"
            return Judgement("breaks", rule, f"numpy.{kind} has {size} bytes in its headers, {have} in this NumPy")
    if not facts.sizes:
        return None
    read = ", ".join(f"{kind} {size}" for kind, size in facts.sizes.items())
    return Judgement("ok", "fits", f"sizes compiled in are not larger than this NumPy's: {read} bytes")


def _judge_unread_sizes(facts: Facts, numpy: NumPy) -> Judgement:
    if not facts.imports_types:
        return _NO_NUMPY
    return Judgement("unknown", "undecodable", "checks the size of NumPy's types; the sizes were not found in its code")
