"""What is asked for and what is pinned: requirement files, pyproject.toml, and the constraints file that is rewritten.

Runs in: any process.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


class FileUnusable(Exception):
    """A requirements or constraints file that cannot be read, or says what it must not. The message names the line."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be installed.

    requirements  each with the file that says so
    from_source   packages that are built where they are installed, as `--no-binary NAME  # reason` says; by
                  canonical name, with the reason
    """

    requirements: tuple[tuple[Requirement, str], ...] = ()
    from_source: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Wanted) -> Wanted:
        return Wanted(self.requirements + other.requirements, {**self.from_source, **other.from_source})


def read_wanted(argument: str) -> Wanted:
    """A requirements file, or pyproject.toml: its dependencies and every extra of it; `pyproject.toml[a,b]`: these two.

    Raises FileUnusable.
    """
    return _read_wanted(argument, ())


def _read_wanted(argument: str, within: tuple[str, ...]) -> Wanted:
    """`within`: the real paths of the files whose -r led here."""
    found = re.fullmatch(r"(.*\.toml)\[([^\[\]]*)\]", argument)
    path = Path(found[1] if found else argument)
    text = _text(path)
    if path.suffix != ".toml":
        return _requirements_file(path, text, within)
    try:
        project = tomllib.loads(text).get("project")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileUnusable(f"{path} is no TOML: {error}") from error
    if not isinstance(project, dict):
        raise FileUnusable(f"{path} has no [project] table, so it says nothing about what is needed")
    extras = [extra.strip() for extra in found[2].split(",") if extra.strip()] if found else None
    return _project(path, project, extras)


def _project(path: Path, project: Mapping[str, Any], extras: list[str] | None) -> Wanted:
    own = canonicalize_name(str(project.get("name", "")))
    extras_table = project.get("optional-dependencies", {})
    if not isinstance(extras_table, dict):
        raise FileUnusable(f"{path}: [project.optional-dependencies] must be a table: NAME = [REQUIREMENT, ...]")
    available = {
        canonicalize_name(extra): _texts(path, f"optional-dependencies.{extra}", lines)
        for extra, lines in extras_table.items()
    }
    lines = _texts(path, "dependencies", project.get("dependencies", []))
    seen: set[str] = set()
    queue = list(available) if extras is None else [canonicalize_name(extra) for extra in extras]
    wanted: list[tuple[Requirement, str]] = []
    while lines or queue:
        if not lines:
            extra = queue.pop(0)
            if extra in seen:
                continue
            seen.add(extra)
            if extra not in available:
                raise FileUnusable(f"{path} has no extra {extra!r}; it has " + (", ".join(sorted(available)) or "none"))
            lines = list(available[extra])
            continue
        requirement = _requirement(lines.pop(0), path.name)
        if canonicalize_name(requirement.name) == own:
            queue += [canonicalize_name(extra) for extra in requirement.extras]
        else:
            wanted.append((requirement, path.name))
    return Wanted(tuple(wanted))


def _texts(path: Path, key: str, lines: Any) -> list[str]:
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise FileUnusable(f"{path}: {key} in [project] must be a list of requirements, each a string")
    return list(lines)


def _requirements_file(path: Path, text: str, within: tuple[str, ...]) -> Wanted:
    wanted = Wanted()
    within = (*within, os.path.realpath(path))
    for number, line in _lines(text):
        line, _, comment = (part.strip() for part in _split_comment(line))
        if not line:
            continue
        where = f"{path.name} line {number}"
        option, _, value = (part.strip() for part in line.replace("=", " ", 1).partition(" "))
        if option in ("-r", "--requirement"):
            if os.path.realpath(path.parent / value) in within:
                raise FileUnusable(f"{where}: {line} leads back to a file that is being read; remove that line")
            wanted += _read_wanted(str(path.parent / value), within)
        elif option == "--no-binary":
            if not comment:
                raise FileUnusable(
                    f"{where}: {line} exempts a package from being judged; say why, in a comment on that line"
                )
            names = [canonicalize_name(name.strip()) for name in value.split(",")]
            wanted += Wanted((), dict.fromkeys(names, comment))
        elif line.startswith("-"):
            raise FileUnusable(f"{where}: {line} is not understood here; requirements, -r and --no-binary NAME are")
        else:
            wanted += Wanted(((_requirement(line, where), path.name),))
    return wanted


def _requirement(line: str, where: str) -> Requirement:
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        raise FileUnusable(f"{where}: {line!r} is no requirement: {str(error).partition(chr(10))[0]}") from error
    if requirement.url:
        raise FileUnusable(
            f"{where}: {line!r} names an address: pip may run the code it finds there, and no index says what it is; "
            f"write {requirement.name}==VERSION"
        )
    return requirement


# ------------------------------------------------------------------------------------------------ a constraints file


@dataclass(frozen=True, slots=True)
class Pin:
    """One line NAME==VERSION. `index`: which line of the file, from 0; `written`: the name as the file spells it."""

    name: str
    written: str
    version: str
    marker: Marker | None
    index: int


@dataclass(frozen=True, slots=True)
class Constraints:
    """A constraints file that pins every line. `pins` by canonical name, in the file's order."""

    path: Path
    text: str
    pins: Mapping[str, Pin]

    @property
    def versions(self) -> dict[str, str]:
        return {name: pin.version for name, pin in self.pins.items()}


def read_constraints(path: Path) -> Constraints:
    """Raises FileUnusable."""
    text = _text(path)
    pins: dict[str, Pin] = {}
    for number, line in _lines(text):
        content = _split_comment(line)[0].strip()
        if not content:
            continue
        where = f"{path.name} line {number}"
        if content.startswith("-"):
            raise FileUnusable(f"{where}: {content} is not understood here: only pins NAME==VERSION are")
        requirement = _requirement(content, where)
        specifiers = list(requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith(".*"):
            raise FileUnusable(f"{where}: {content!r} does not pin one version; write {requirement.name}==VERSION")
        name = canonicalize_name(requirement.name)
        if name in pins:
            raise FileUnusable(f"{where}: {name} is pinned a second time; line {pins[name].index + 1} was the first")
        pins[name] = Pin(name, requirement.name, specifiers[0].version, requirement.marker, number - 1)
    if not pins:
        raise FileUnusable(f"{path} pins nothing")
    return Constraints(path, text, pins)


def rewritten(constraints: Constraints, versions: Mapping[str, str], wanted_by: Mapping[str, Iterable[str]]) -> str:
    """The file's text with those versions (by canonical name; a pin without one is dropped, a new one is added).

    Comments, order and the column of the comments stay. A new pin goes to the end of the section (lines up to the next
    empty one) of the first package that wants it, with that package's name as its comment; else to the end of the file.
    """
    lines = constraints.text.splitlines(keepends=True)
    last_of_section = {}
    for name, pin in constraints.pins.items():
        index = pin.index
        while index + 1 < len(lines) and lines[index + 1].strip():
            index += 1
        last_of_section[name] = index
    added: dict[int, list[str]] = {}
    for name in sorted(versions.keys() - constraints.pins.keys()):
        requirers = sorted(wanted_by.get(name, ()))
        index = next(
            (last_of_section[requirer] for requirer in requirers if requirer in last_of_section), len(lines) - 1
        )
        comment = f"  # {', '.join(requirers)}" if requirers else ""
        added.setdefault(index, []).append(f"{name}=={versions[name]}{comment}\n")
    for pin in constraints.pins.values():
        if pin.name not in versions:
            lines[pin.index] = ""
        elif versions[pin.name] != pin.version:
            lines[pin.index] = _moved(lines[pin.index], pin.version, versions[pin.name])
    for index, new in added.items():
        if lines[index] and not lines[index].endswith("\n"):
            lines[index] += "\n"
        lines[index] += "".join(new)
    return "".join(lines)


def _moved(line: str, old: str, new: str) -> str:
    content, hash_mark, comment = _split_comment(line)
    head, _, tail = content.partition("==")
    column = len(content)
    content = f"{head}=={tail.replace(old, new, 1)}"
    if not hash_mark:
        return content
    return content.rstrip().ljust(column - 2) + "  " + hash_mark + comment


def replace_file(path: Path, text: str) -> None:
    """Writes all of it or nothing: beside it, synced, renamed. The file's permissions stay."""
    path = path.resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(name, path.stat().st_mode & 0o7777)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise FileUnusable(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FileUnusable(f"{path} is no text: {error}") from error


def _lines(text: str) -> Iterable[tuple[int, str]]:
    return enumerate(text.splitlines(), start=1)


def _split_comment(line: str) -> tuple[str, str, str]:
    """Before the comment, `#`, and the comment: a `#` begins one at the line's start or after a space, as in pip."""
    found = re.search(r"(?:^|(?<=\s))#", line)
    return (line[: found.start()], "#", line[found.end() :]) if found else (line, "", "")
