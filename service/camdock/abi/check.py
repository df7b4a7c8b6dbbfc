"""The verdict on every module of a target.

Runs in: any process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from camdock.abi.closure import Libraries, Reading, Readings
from camdock.abi.environment import Compiled, Environment
from camdock.abi.findings import Finding, findings_of
from camdock.abi.fixes import fix_for
from camdock.abi.numpys import PROMISES, NumPy, NumPyUnknown, numpy_release
from camdock.abi.owners import Owners
from camdock.abi.rules import WORST_FIRST, Judgement, Verdict, judge
from camdock.abi.targets import Target, TargetUnreadable, listed_paths, open_target
from camdock.abi.tree import FolderTree

__all__ = ["Finding", "Module", "Report", "check", "check_paths", "judge_target"]

Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Module:
    """One compiled module and the verdict on it.

    file      its path from the target's root, with forward slashes; in a wheel, where it will be installed
    module    the name it is imported by ("cv2.cv2"); its file's name where that is not known
    rule      a key of rules.RULES
    package   who owns it: "simplejpeg 1.7.2" (dist-info), "python3-h5py 3.7.0-8 (dpkg)"; "" where nobody does
    fix       what to type; "" when there is nothing to mend
    """

    file: str
    module: str
    verdict: Verdict
    rule: str
    evidence: str
    package: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One target, judged. `numpy`: the version judged by, None where the target has none and none was named.

    Of several environments in one target it is the first virtual one's; every module is judged by its own.

    absent  of the names that alone were asked for, those that nothing in the target is imported by
    folder  on disk, where the relative paths of the modules' files begin; "" where they are in an archive
    system  on disk, where the absolute ones begin; "" likewise
    """

    target: str
    numpy: str | None
    modules: list[Module] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    folder: str = ""
    system: str = ""


def check(
    target: str | None = None, numpy: str | None = None, only: Collection[str] = (), progress: Progress | None = None
) -> Report:
    """Judge a target (see targets.open_target; None: the running environment).

    numpy     judge by this release instead of the one the target has
    only      top-level import names ("cv2", "numpy"); empty: everything
    progress  called with the number of files read and the last one's path
    raises    targets.TargetUnreadable, numpys.NumPyUnknown
    """
    named = numpy_release(numpy) if numpy is not None else None
    with open_target(target) as opened:
        return judge_target(opened, named, only, progress)


def check_paths(paths: Sequence[str], only: Collection[str] = (), numpy: str | None = None) -> Report:
    """Judge the environment whose path has these folders, in this order; otherwise like check."""
    named = numpy_release(numpy) if numpy is not None else None
    return judge_target(listed_paths(paths), named, only)


def judge_target(
    target: Target,
    named: NumPy | None = None,
    only: Collection[str] = (),
    progress: Progress | None = None,
    readings: Readings | None = None,
) -> Report:
    """Judge an open target. `readings`: what was read of it before, to judge it again by another NumPy."""
    readings = readings or Readings(target.tree, progress)
    owners = Owners(target.tree)
    several = len(target.environments) > 1
    found: dict[str, Module] = {}
    passed_over: list[tuple[Environment, Compiled]] = []
    for environment in target.environments:
        judging = _Judging(target, environment, named, readings, owners)
        for file, module in judging.modules(only, passed_over):
            if several and module.rule not in ("no-numpy", "numpy-itself") and judging.version:
                where = f" of {environment.name}" if environment.name else ""
                module = replace(module, evidence=f"with NumPy {judging.version}{where}: {module.evidence}")
            known = found.get(file)
            if known is None or WORST_FIRST.index(module.verdict) < WORST_FIRST.index(known.verdict):
                found[file] = module
    # A file for a Python that none of the environments is: better judged by the wrong one than not at all.
    for environment, compiled in passed_over:
        if compiled.place.real not in found:
            judging = _Judging(target, environment, named, readings, owners)
            for module in judging.listed(compiled):
                found[compiled.place.real] = module
    modules = sorted(found.values(), key=lambda one: (WORST_FIRST.index(one.verdict), one.file))
    if target.file is not None and modules and modules[0].rule == "unreadable":
        raise TargetUnreadable(f"{target.name} {modules[0].evidence}")
    findings = findings_of(target, owners)
    return Report(
        target.name,
        named.version if named else _main_version(target.environments),
        modules,
        findings,
        _absent(target, only),
        target.tree.on_disk(target.root) if isinstance(target.tree, FolderTree) else "",
        target.tree.root if isinstance(target.tree, FolderTree) else "",
    )


def _absent(target: Target, only: Collection[str]) -> tuple[str, ...]:
    if target.file is not None:
        return ()
    return tuple(name for name in only if not any(one.provides(name) for one in target.environments))


def _main_version(environments: list[Environment]) -> str | None:
    ordered = sorted(environments, key=lambda one: not one.virtual)
    return next((one.numpy.version for one in ordered if one.numpy and one.numpy.version), None)


class _Judging:
    """One environment of a target, judged by one NumPy."""

    def __init__(
        self, target: Target, environment: Environment, named: NumPy | None, readings: Readings, owners: Owners
    ) -> None:
        self._target = target
        self._environment = environment
        self._readings = readings
        self._owners = owners
        self._numpy, self._why_not = named, ""
        if named is None and environment.numpy is not None and environment.numpy.version is not None:
            try:
                self._numpy = numpy_release(environment.numpy.version)
            except NumPyUnknown as error:
                self._why_not = str(error)
        self.version = self._numpy.version if self._numpy else None
        self._libraries = Libraries(environment, readings)

    def modules(
        self, only: Collection[str], passed_over: list[tuple[Environment, Compiled]]
    ) -> list[tuple[str, Module]]:
        """The modules of the environment by their real paths, and libraries that use NumPy and nobody is linked to."""
        modules: list[tuple[str, Module]] = []
        libraries: list[tuple[Compiled, Reading]] = []
        linked: set[str] = set()
        for compiled in self._wanted(only):
            if self._of_another_numpy(compiled):
                continue
            if not self._environment.loads(compiled.place.path):
                passed_over.append((self._environment, compiled))
                continue
            if self._of_numpy(compiled):
                if (module := self._of_itself(compiled)) is not None:
                    modules.append((compiled.place.real, module))
                continue
            reading = self._readings.of(compiled.place.real)
            if reading.is_library:
                if reading.facts is not None and reading.facts.numpy:
                    libraries.append((compiled, reading))
                linked.update(real for real, _ in self._libraries.of(compiled, reading))
                continue
            linked.update(real for real, _ in self._libraries.of(compiled, reading))
            if reading.is_module(compiled):
                modules.append((compiled.place.real, self._judged(compiled, reading)))
        for compiled, reading in libraries:
            if compiled.place.real not in linked:
                module = self._judged(compiled, reading)
                if module.rule != "no-numpy":
                    modules.append((compiled.place.real, module))
        return modules

    def listed(self, compiled: Compiled) -> list[Module]:
        """One file, whatever Python its name says it is for."""
        reading = self._readings.of(compiled.place.real)
        return [self._judged(compiled, reading)] if reading.is_module(compiled) and not reading.is_library else []

    def _wanted(self, only: Collection[str]) -> list[Compiled]:
        if self._target.file is None:
            return self._environment.compiled(only)
        return [one for one in self._environment.compiled() if one.place.real == self._target.file]

    def _of_numpy(self, compiled: Compiled) -> bool:
        winner = self._environment.numpy
        return winner is not None and compiled.entry == winner.entry and compiled.top in ("numpy", "numpy.libs")

    def _of_another_numpy(self, compiled: Compiled) -> bool:
        return any(
            compiled.entry == copy.entry and compiled.top in ("numpy", "numpy.libs")
            for copy in self._environment.numpys[1:]
        )

    def _of_itself(self, compiled: Compiled) -> Module | None:
        """NumPy's own modules are not judged, but must be readable like any other."""
        reading = self._readings.quick(compiled.place.real)
        if reading.is_library:
            return None
        if reading.facts is None:
            return self._judged(compiled, reading) if reading.is_module(compiled) else None
        return self._module(compiled, Judgement("ok", "numpy-itself", ""))

    def _judged(self, compiled: Compiled, reading: Reading) -> Module:
        if reading.facts is None:
            return self._module(compiled, Judgement("unknown", "unreadable", reading.problem))
        linked = [library for _, library in self._libraries.of(compiled, reading)]
        if self._numpy is not None:
            return self._module(compiled, judge(reading.facts, linked, self._numpy))
        newest = ".".join(map(str, PROMISES[-1].since))
        judgement = judge(reading.facts, linked, numpy_release(newest))
        if judgement.rule == "no-numpy":
            return self._module(compiled, judgement)
        why = self._why_not or "it uses NumPy's C-API, and there is no NumPy to judge it by: name one with --numpy"
        return self._module(compiled, Judgement("unknown", "numpy-unknown", why, judgement.needs))

    def _module(self, compiled: Compiled, judgement: Judgement) -> Module:
        owner = self._owners.of(compiled)
        fix = ""
        if judgement.verdict != "ok":
            command = fix_for(judgement.rule, owner, self.version, judgement.needs, self._environment.python)
            fix = self._target.to_type(command)
        return Module(
            self._target.shown(compiled.place.path),
            compiled.module,
            judgement.verdict,
            judgement.rule,
            judgement.evidence,
            str(owner) if owner else "",
            fix,
        )
