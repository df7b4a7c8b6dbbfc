#!/usr/bin/env python3
"""Writes the README.md of every role from its meta/argument_specs.yml, where each variable is described once.

    python ansible/describe.py            writes them (`make fmt` does)
    python ansible/describe.py --check    only says which are out of date; exit status 1 then

Needs PyYAML, which Ansible brings along.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent / "roles"


def text_of(given: str | Sequence[str]) -> list[str]:
    """A description, which may be one paragraph or several."""
    return [" ".join(one.split()) for one in ([given] if isinstance(given, str) else given)]


def shown(value: Any) -> str:
    """A default as one writes it in YAML, in code."""
    if value is None:
        return ""
    if value == "":
        return '`""`'
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...").strip()
    return f"`{text}`" if len(text) <= 80 else "see `defaults/main.yml`"


def kind(option: dict[str, Any]) -> str:
    """Its type, and what it may be."""
    name = str(option.get("type", "str"))
    if elements := option.get("elements"):
        name += f" of {elements}"
    if choices := option.get("choices"):
        name += ": " + ", ".join(shown(one) for one in choices)
    return name


def cell(text: str) -> str:
    """Text that stays in one cell of a table."""
    return text.replace("|", "\\|")


def rows(options: dict[str, Any], before: str = "") -> Iterator[str]:
    """A line for each variable, the keys of a dictionary below it."""
    for name, option in options.items():
        default = "**required**" if option.get("required") else shown(option.get("default"))
        words = "<br>".join(text_of(option["description"]))
        yield f"| `{before}{name}` | {cell(kind(option))} | {cell(default)} | {cell(words)} |"
        yield from rows(option.get("options", {}), f"{before}{name}.")


def readme(role: Path) -> str:
    """What a role's README.md says."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))["argument_specs"]
    main = specs["main"]
    lines = [
        f"# {role.name}", "",
        "<!-- Written by ansible/describe.py from meta/argument_specs.yml: change that file, then `make fmt`. -->", "",
        f"{text_of(main['short_description'])[0].rstrip('.')}.", "",
    ]  # fmt: skip
    for paragraph in text_of(main.get("description", [])):
        lines += [paragraph, ""]
    lines += ["| variable | type | default | what it says |", "| --- | --- | --- | --- |", *rows(main["options"]), ""]
    others = {name: spec for name, spec in specs.items() if name != "main"}
    if others:
        lines += ["Also, with `ansible.builtin.include_role` and `tasks_from`:", ""]
        lines += [f"- `{name}`: {text_of(spec['short_description'])[0]}" for name, spec in others.items()]
        lines += [""]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write every role's README.md from its argument specification.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where one is out of date")
    given = parser.parse_args(arguments)
    stale = 0
    for role in sorted(path for path in ROLES.iterdir() if path.is_dir()):
        file, text = role / "README.md", readme(role)
        if file.exists() and file.read_text("utf-8") == text:
            continue
        stale += 1
        if given.check:
            print(f"{file} is out of date: make fmt", file=sys.stderr)
            continue
        new = file.with_name(".README.md.new")
        new.write_text(text, "utf-8")
        os.replace(new, file)
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
