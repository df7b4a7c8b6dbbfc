"""A traceback or a log in; the failure, the module at fault, the reason and the command that mends it out.

Runs in: any process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TextIO

from camdock.abi import fixes, messages
from camdock.abi.check import Module, Report, check
from camdock.abi.logs import Found, read_failures
from camdock.abi.messages import FAILURES
from camdock.abi.numpys import NumPy, NumPyUnknown, numpy_release
from camdock.abi.owners import Owner
from camdock.abi.report import printable
from camdock.abi.targets import TargetUnreadable
from camdock.abi.tracebacks import Culprit

LONGEST_LINE = 1 << 20  # characters; what is longer is read in pieces
MOST_NAMED = 10  # modules of an environment, where the text names none

# What a file's own rule may be where a message leaves open, or tells only in part, why its module failed.
_RULES = {
    "did-not-load": frozenset({"built-for-1", "numpy-too-old"}),
    "crash": frozenset({"built-for-1", "unchecked"}),
    "type-size": frozenset({"type-size", "numpy-too-old"}),
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One failure found in a text.

    failure      a key of messages.FAILURES; `rule`: the key of rules.RULES that says the same of a file, or ""
    message, line  what was found, and in which line it stands first; `times`: how often the failure is in the text
    culprit      the compiled module or package at fault; "" where neither the text nor the environment names it
    package      who owns it, "simplejpeg 1.7.2"; "" where that is not known
    evidence     what in the culprit's file says so; "" where its file was not read
    fix          what to type; "" where nothing has to be done, or no command would help
    alternative  another way, in words
    """

    failure: str
    rule: str
    title: str
    message: str
    line: int
    times: int
    culprit: str
    package: str
    why: str
    fix: str
    alternative: str
    evidence: str = ""
    harmless: bool = False


def explain(text: str | Iterable[str], environment: Report | None = None) -> list[Explanation]:
    """What failed in a text, in the order it stands there; empty where nothing known did.

    text         a traceback, a log: one string or its lines
    environment  the environment that it comes from, checked: it names what the text does not, and knows the packages
    """
    found = read_failures(text.splitlines() if isinstance(text, str) else text)
    return _explained(found, environment)


def _explained(found: list[Found], environment: Report | None) -> list[Explanation]:
    return [explanation for one in found for explanation in _explain(one, environment)]


def _explain(found: Found, environment: Report | None) -> Iterator[Explanation]:
    modules = _modules(found, environment) if environment else []
    contradiction = _contradiction(found, environment) if environment else ""
    if contradiction:  # only what the text names and the file confirms: then both environments have it
        modules = [module for module in modules if found.culprit.names and module.rule in _rules(found)]
    if environment is not None and modules and modules[0].verdict not in ("ok", "unknown"):
        named = modules[:MOST_NAMED]
        yield from (_from_environment(found, module, environment, contradiction) for module in named)
    elif found.failure != "crash":  # a crash that no module of the environment accounts for is not ours to explain
        yield _from_text(found, None if contradiction else environment, modules[0] if modules else None, contradiction)


def _rules(found: Found) -> frozenset[str]:
    """The rules of files whose modules fail with such a message."""
    return _RULES.get(found.failure, frozenset({FAILURES[found.failure].rule}))


def _contradiction(found: Found, environment: Report) -> str:
    """Where the text is about another NumPy than the environment has, and fails otherwise with it: that, in words."""
    here = _release(environment.numpy)
    rule = FAILURES[found.failure].rule
    if here is None or rule == "type-size":  # many releases share a size
        return ""
    there = _release(found.numpy)
    if there is None and found.failure == "built-for-1":
        differs = here.major == 1
    elif there is None:
        return ""
    else:
        differs = there.major != here.major if rule == "built-for-1" else there.promise is not here.promise
    if not differs:
        return ""
    said = found.numpy or "2"
    return (
        f"The text is about NumPy {said}, and {environment.target} has {here.version}: it comes from another "
        "environment, or from before NumPy was changed."
    )


def _release(version: str | None) -> NumPy | None:
    try:
        return numpy_release(version) if version else None
    except NumPyUnknown:
        return None


def _modules(found: Found, environment: Report) -> list[Module]:
    """The modules of the environment that a failure is about, one for each package; the worst of those it may be."""
    breaking = [module for module in environment.modules if module.verdict not in ("ok", "unknown")]
    for name in found.culprit.names:
        exact = [module for module in environment.modules if module.module == name]
        inside = [module for module in breaking if module.module.startswith(name + ".")]
        if exact or inside:
            return [module for module in exact if module in breaking][:1] or inside[:1] or exact[:1]
    if found.culprit.names:
        top = found.culprit.names[0].split(".")[0]
        return [module for module in breaking if module.module.split(".")[0] == top][:1]
    if FAILURES[found.failure].rule in ("", "mixed-numpy"):
        return []
    rules = _rules(found)
    each: dict[str, Module] = {}
    for module in breaking:
        if module.rule in rules:
            each.setdefault(module.package or module.module.split(".")[0], module)
    return list(each.values())


def _from_environment(found: Found, module: Module, environment: Report, remark: str) -> Explanation:
    failure = FAILURES[found.failure]
    meant = FAILURES.get(module.rule, failure) if failure.symptom else failure
    return Explanation(
        failure=found.failure,
        rule=module.rule,
        title=meant.title,
        message=found.message,
        line=found.line,
        times=found.times,
        culprit=module.module,
        package=module.package,
        why=_why(found, meant, remark),
        fix=module.fix,
        alternative=fixes.alternative_for(module.rule, environment.numpy, _python(found), module.fix),
        evidence=module.evidence,
        harmless=meant.harmless,
    )


def _from_text(found: Found, environment: Report | None, module: Module | None, remark: str) -> Explanation:
    """`module`: the culprit as the environment has it, where it is all right."""
    failure = FAILURES[found.failure]
    numpy = found.numpy or (environment.numpy if environment else None) or None
    if module is not None and environment is not None:
        remark = f"In {environment.target} it is all right now: the text is older, or from another environment."
    owner = _owner(found.culprit)
    return Explanation(
        failure=found.failure,
        rule=failure.rule,
        title=failure.title,
        message=found.message,
        line=found.line,
        times=found.times,
        culprit=module.module if module else found.culprit.name,
        package=module.package if module else "",
        why=_why(found, failure, remark),
        fix=_fix(found, owner, numpy),
        alternative=fixes.alternative_for(failure.rule, numpy, _python(found)) if owner else "",
        harmless=failure.harmless,
    )


def _why(found: Found, failure: messages.Failure, remark: str) -> str:
    crashed = "Then the process crashed." if found.crashed and found.failure != "crash" else ""
    return " ".join(part for part in (failure.why, found.detail, crashed, remark) if part)


def _fix(found: Found, owner: Owner | None, numpy: str | None) -> str:
    """The command, from the text alone."""
    rule, python = FAILURES[found.failure].rule, _python(found)
    if found.library in messages.LIBRARY_PACKAGES:
        return f"apt-get install {messages.LIBRARY_PACKAGES[found.library]}"
    if rule == "mixed-numpy":
        return fixes.fix_for(rule, None, numpy, "", python)
    if found.failure == "numpy-moved":
        return fixes.fix_for("numpy-too-old", None, numpy or "1.26", "1.26.1", python)
    if found.needs:
        return fixes.fix_for("numpy-too-old", owner, numpy, found.needs, python)
    if owner is None or owner.name == "numpy" or found.failure in ("type-grew", "camera", "wrapped"):
        return ""
    return fixes.fix_for(rule, owner, numpy, "", python) if rule else fixes.newer(owner, python)


def _owner(culprit: Culprit) -> Owner | None:
    """The package that a name belongs to, as far as the name tells. Its version is not in the text."""
    if not culprit.names:
        return None
    top = culprit.name.split(".")[0]
    name = fixes.IMPORT_TO_PIP.get(top, fixes.canonical(top))
    return Owner(f"python3-{name}" if culprit.debian else name, "", "dpkg" if culprit.debian else "pip")


def _python(found: Found) -> str:
    """The interpreter that the text is about."""
    if found.python.startswith("/"):
        return found.python
    prefix = found.culprit.prefix
    return f"{prefix}/bin/python" if prefix.startswith("/") and prefix != "/usr" else "python"


# ------------------------------------------------------------------------------------------------- the command


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`camdock abi explain`. Its `run` takes the namespace; 0: explained, 1: nothing known in it, 2: unreadable."""
    parser = subparsers.add_parser(
        "explain",
        help="say what a traceback or a log means: the failure, the module at fault, the reason, the fix",
        description="Say what a traceback or a log means: which module and NumPy do not fit, why, and what to type. "
        "Exit status: 0 explained, 1 nothing known in it, 2 it or the environment cannot be read.",
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="the text; - or nothing: standard input")
    parser.add_argument(
        "--env",
        metavar="TARGET",
        help="where the text comes from: anything that `camdock abi check` takes "
        "(default: the virtual environment that the text names, else this one)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        found = _read(arguments.file)
    except OSError as error:
        print(f"camdock abi explain: {printable(arguments.file)}: {error.strerror or error}", file=sys.stderr)
        return 2
    try:
        environment = _environment(found, arguments.env) if found else None
    except (OSError, NumPyUnknown, TargetUnreadable) as error:
        if arguments.env is not None:
            print(f"camdock abi explain: {printable(str(error))}", file=sys.stderr)
            return 2
        environment = None  # nobody asked for it: the text alone
    explanations = _explained(found, environment)
    if arguments.json:
        target = environment.target if environment else None
        json.dump({"environment": target, "explanations": [asdict(one) for one in explanations]}, sys.stdout, indent=2)
        print()
    elif explanations:
        print("\n\n".join(_block(list(group)) for _, group in groupby(explanations, _head)))
    else:
        print(printable(_nothing(found, environment)), file=sys.stderr)
    return 0 if explanations else 1


def _read(name: str) -> list[Found]:
    if name == "-":
        if sys.stdin.isatty():
            print("Paste the traceback or the log, then Ctrl-D:", file=sys.stderr)
        with open(sys.stdin.fileno(), encoding="utf-8", errors="replace", newline="\n", closefd=False) as text:
            return read_failures(_pieces(text))
    with open(name, encoding="utf-8", errors="replace", newline="\n") as text:
        return read_failures(_pieces(text))


def _pieces(text: TextIO) -> Iterator[str]:
    """Lines, however long the longest is."""
    while piece := text.readline(LONGEST_LINE):
        yield piece


def _environment(found: list[Found], wanted: str | None) -> Report | None:
    """The environment of the text, checked: what was asked for; else the virtual one it names; else the running one."""
    named = sorted({one.culprit.prefix for one in found if one.culprit.prefix})
    if wanted is None:
        wanted = next((prefix for prefix in named if os.path.isfile(os.path.join(prefix, "pyvenv.cfg"))), None)
        if wanted is None and named and sys.prefix not in named:
            return None  # of another machine or image: this one's modules have nothing to do with it
    tops = {one.culprit.name.split(".")[0] for one in found}
    return check(wanted, only=() if "" in tops else {*tops, "numpy"})


def _head(explanation: Explanation) -> tuple[object, ...]:
    """What explanations share that are one message, for which several modules of the environment may be the reason."""
    return (explanation.line, explanation.message, explanation.title, explanation.why)


def _block(group: list[Explanation]) -> str:
    first = group[0]
    times = f", {first.times} times" if first.times > 1 else ""
    rows = [("message", f"{first.message}  (line {first.line}{times})")]
    if len(group) == 1:
        why = f"{first.why} In its file: {first.evidence}" if first.evidence else first.why
        rows += [("culprit", _culprit(first)), ("why", why), ("fix", first.fix or _no_command(first))]
    else:
        rows += [("why", f"{first.why} These fail so:")]
        for one in group:
            rows += [("culprit", _culprit(one)), ("fix", one.fix or _no_command(one))]
    rows += [("or", text) for text in dict.fromkeys(one.alternative for one in group)]
    return "\n".join([printable(first.title), *(f"  {name:8} {printable(text)}" for name, text in rows if text)])


def _culprit(explanation: Explanation) -> str:
    name = explanation.culprit or "not named in what you pasted"
    return f"{name}, of {explanation.package}" if explanation.package else name


def _no_command(explanation: Explanation) -> str:
    if explanation.harmless:
        return "nothing to do"
    if not explanation.culprit and explanation.rule:
        return "depends on the module: name the environment that the text comes from with --env"
    return "no command mends it"


def _nothing(found: list[Found], environment: Report | None) -> str:
    if found:  # crashes only
        where = (
            f"no module of {environment.target} breaks with its NumPy" if environment else "its environment is not here"
        )
        return (
            f"A process crashed (line {found[0].line}), and nothing says that NumPy is why: {where}. "
            "Name the environment that it ran in with --env."
        )
    return (
        "Nothing known in this text. Looked for: what NumPy, Cython, OpenCV and others print when a compiled module "
        "and NumPy do not fit ('_ARRAY_API not found', 'size changed, may indicate binary incompatibility', 'module "
        "compiled against', 'failed to import', crashes). Paste the whole traceback, with what is printed above it."
    )
