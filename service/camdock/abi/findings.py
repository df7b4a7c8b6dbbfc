"""What is wrong with a target as a whole: a second NumPy, one copied over another; and what was passed over.

Runs in: any process.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import islice

from camdock.abi.environment import SITES, Environment, NumPyCopy
from camdock.abi.owners import Owner, Owners
from camdock.abi.targets import Target
from camdock.abi.tree import COMPILED, FolderTree
from camdock.abi.wheel import WheelTree

_MOST_RECORDED = 100_000  # compiled files of a NumPy; it has 25
NOTES = frozenset({"editable-hook", "link-outside"})  # said, but nothing is wrong


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the target as a whole: a second NumPy, a module that could not be read. Same words as Module."""

    rule: str
    message: str
    fix: str = ""

    @property
    def is_note(self) -> bool:
        return self.rule in NOTES


def findings_of(target: Target, owners: Owners) -> list[Finding]:
    found: dict[str, Finding] = {}
    for environment in target.environments:
        where = f"{environment.name}: " if environment.name else ""
        for finding in _about_numpy(target, environment, owners, where):
            found.setdefault(finding.message.removeprefix(where), finding)
        for hook in environment.hooks:
            finding = Finding("editable-hook", f"{where}{hook}: its folder was not looked into; name it as a target")
            found.setdefault(finding.message, finding)
    outside = sorted(target.tree.outside)
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        found["outside"] = Finding(
            "link-outside", f"the link {target.shown(outside[0])}{more} leads out of {target.name}"
        )
    return list(found.values())


def _about_numpy(target: Target, environment: Environment, owners: Owners, where: str) -> list[Finding]:
    found: list[Finding] = []
    winner = environment.numpy
    if winner is None:
        return found
    for copy in environment.numpys:
        if copy.torn:
            found.append(_torn(target, environment, copy, where))
        elif stale := _not_recorded(environment, copy):
            found.append(
                Finding(
                    "mixed-numpy",
                    f"{where}NumPy {copy.version} in {target.shown(copy.folder)} has compiled files that it was not "
                    f"installed with: {', '.join(stale[:3])}"
                    + (f" and {len(stale) - 3} more" if len(stale) > 3 else ""),
                    _again(target, environment, copy),
                )
            )
    for copy in environment.numpys[1:]:
        owner = _owner(environment, copy, owners)
        found.append(
            Finding(
                "second-numpy",
                f"{where}NumPy {copy.version or 'of unknown version'} in {target.shown(copy.folder)}"
                + (f" ({owner})" if owner else "")
                + f" is hidden by NumPy {winner.version or 'of unknown version'} in {target.shown(winner.folder)}: "
                "what was compiled for the one runs with the other",
                _without(target, environment, copy, owner),
            )
        )
    return found


def _torn(target: Target, environment: Environment, copy: NumPyCopy, where: str) -> Finding:
    return Finding(
        "torn-numpy",
        f"{where}the NumPy in {target.shown(copy.folder)} says {copy.version}, the metadata beside it "
        f"{' and '.join(copy.recorded)}: one was copied over the other",
        _again(target, environment, copy),
    )


def _again(target: Target, environment: Environment, copy: NumPyCopy) -> str:
    if copy != environment.numpy:  # pip would put it where the one is that hides it
        return ""
    return target.to_type(
        f"{shlex.quote(environment.python)} -m pip install --force-reinstall --no-deps "
        f"{shlex.quote(f'numpy=={copy.version}')}"
    )


def _without(target: Target, environment: Environment, copy: NumPyCopy, owner: Owner | None) -> str:
    """How to be rid of a hidden copy. One that another Python uses is left alone, and so is a distribution's: removing
    that would take its dependants along."""
    if environment.virtual and _is_another_pythons(target, environment, copy):
        return "make the virtual environment again without --system-site-packages, if nothing of the system is needed"
    if owner is not None and owner.kind != "pip":
        return ""
    if any(other.numpy is not None and other.numpy.entry == copy.entry for other in target.environments):
        return ""
    tree = environment.tree
    entry = tree.real(copy.entry)
    if entry is None or isinstance(tree, WheelTree):
        return ""
    names = ["numpy"]
    if copy.recorded:
        names += [name for name in tree.names(entry) if re.fullmatch(r"numpy-.+\.(?:dist|egg)-info", name)]
    paths = [f"/{entry}/{name}" if entry else f"/{name}" for name in names]
    if isinstance(tree, FolderTree) and not target.inside:
        paths = [tree.on_disk(path) for path in paths]
    return target.to_type(f"rm -r {' '.join(map(shlex.quote, paths))}")


def _is_another_pythons(target: Target, environment: Environment, copy: NumPyCopy) -> bool:
    """Does a copy belong to the Python that a virtual environment was made from?"""
    own = environment.name or target.root
    return copy.entry.rpartition("/")[2] in SITES and not f"{copy.entry}/".startswith(f"{own}/")


def _owner(environment: Environment, copy: NumPyCopy, owners: Owners) -> Owner | None:
    for compiled in environment.compiled(("numpy",)):
        if compiled.entry == copy.entry:
            return owners.of(compiled)
    return None


def _not_recorded(environment: Environment, copy: NumPyCopy) -> list[str]:
    """Compiled files in a NumPy's folder that its RECORD does not name: left behind by another version."""
    tree = environment.tree
    recorded: set[str] = set()
    for name in tree.names(copy.entry):
        if name.lower().startswith("numpy-") and name.endswith(".dist-info"):
            lines = tree.lines_with(f"{copy.entry}/{name}/RECORD" if copy.entry else f"{name}/RECORD", b".so")
            recorded = {line.partition(",")[0].strip('"') for line in islice(lines, _MOST_RECORDED)}
    skip = len(copy.entry) + 1 if copy.entry else 0
    here = {place.path[skip:] for place in tree.walk(copy.folder) if COMPILED.search(place.path)}
    return sorted(here - recorded) if recorded else []
