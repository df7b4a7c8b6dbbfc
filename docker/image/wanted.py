"""Writes down what an image installs: `wanted.py PINS FOLDER`; prints an extra's lines: `wanted.py --extra NAME`.

Runs in: the first stage of an image's build. FOLDER gets `constraints.txt`, the exact versions of that set of pins,
NumPy first, and `requirements.txt`, what they are for: the extra `all` of pyproject.toml, and what the set itself asks
for (docker/pins/PINS.in, without its words for pip: `--no-binary` is for compile.sh). Only these two reach the later
stages, so that other lines of pyproject.toml may change without anything being installed again.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

CURRENT = "current"


def requirements(extra: str, project: dict[str, object]) -> Iterator[str]:
    """The lines of an extra, and of the extras of ours that it names; the base install's first."""
    extras: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    ours = re.compile(rf"{project['name']}\[([\w,]+)\]")
    for line in extras[extra]:
        if inner := ours.fullmatch(line):
            for name in inner[1].split(","):
                yield from requirements(name, project)
        else:
            yield line


def write(pins: str, folder: Path, root: Path, project: dict[str, object]) -> None:
    """Write both files; raises SystemExit with the sets there are when there is none of that name."""
    constraints = root / "constraints.txt" if pins == CURRENT else root / "docker" / "pins" / f"{pins}.txt"
    if not constraints.is_file():
        known = [CURRENT, *sorted(file.stem for file in (root / "docker" / "pins").glob("*.txt"))]
        sys.exit(f"There is no set of pins {pins!r}; PINS is one of {', '.join(known)}")
    lines = list(dict.fromkeys([*project["dependencies"], *requirements("all", project)]))
    if pins != CURRENT:
        asked = (root / "docker" / "pins" / f"{pins}.in").read_text().splitlines()
        lines += [line for line in asked if not line.startswith("--")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constraints.txt").write_text(constraints.read_text())
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")


def main(first: str, second: str) -> None:
    """Do what the arguments say, for the project in the current folder."""
    root = Path.cwd()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    if first == "--extra":
        print(*requirements(second, project), sep="\n")
    else:
        write(first, Path(second), root, project)


if __name__ == "__main__":
    main(*sys.argv[1:])
