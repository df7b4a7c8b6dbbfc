#!/usr/bin/python
"""The module purge_restore: puts back what purge_packages removed, from its undo list."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.purge_apt import (
    Package,
    Removed,
    Trouble,
    Undo,
    act,
    automatic,
    available,
    incomplete,
    mark,
    packages,
    read_text,
    read_undo,
    remove,
    simulated,
    wait_for_lock,
    write,
)

DOCUMENTATION = r"""
module: purge_restore
short_description: Put back what purge_packages removed
description:
  - Installs every package of the undo list, in the version it had where that is still to be had, else in the current
    one, which is said. Marks it automatic or manual as it was. Takes the apt preferences file away.
  - Nothing is removed to make room. Killed anywhere on the way, the next run goes on.
options:
  undo: {description: The file that purge_packages wrote., type: path, required: true}
  preferences: {description: The apt preferences file that it wrote., type: path, required: true}
  lock_timeout_s: {description: "Seconds to wait while another program installs.", type: float, default: 120}
author: The Camdock authors
"""

RETURN = r"""
back: {description: "Packages put back (in check mode - would be), as NAME=VERSION or NAME.", type: list}
notes: {description: "What is not as it was, in sentences.", type: list}
"""

PARTS = "/etc/apt/preferences.d"


def request(missing: Collection[Removed], versions: Mapping[str, Collection[str]]) -> tuple[list[str], list[str]]:
    """What to ask apt for, exact versions first, and the names that are not to be had in any version.

    versions  what apt can get, by name
    """
    words = [f"{one.name}={one.version}" if one.version in versions[one.name] else one.name for one in missing
             if versions.get(one.name)]  # fmt: skip
    return words, [one.name for one in missing if not versions.get(one.name)]


def agreed(words: list[str], ask: Callable[[list[str]], tuple[set[str], dict[str, str]]]) -> list[str]:
    """The words that apt agrees to: as given, else without versions. Raises Trouble where it agrees to neither.

    ask  what apt would do with them: purge_apt.simulated's answer
    """
    if not words:
        return []
    try:
        ask(words)
    except Trouble:
        plain = [word.partition("=")[0] for word in words]
        if plain == words:
            raise
        ask(plain)
        return plain
    return words


def run(wanted: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Do it; returns the module's answer. Raises Trouble."""
    undo, pinned = read_undo(wanted["undo"]), read_text(wanted["preferences"])
    wait_for_lock(wanted["lock_timeout_s"])
    if not check:
        half = incomplete(packages())
        if half and half <= {one.name for one in undo.packages}:  # our own, cut off
            act(["dpkg", "--configure", "--pending"], wanted["lock_timeout_s"])
    known = packages()
    missing = [one for one in undo.packages if not _is_here(known, one.name)]
    notes: list[str] = []
    with without(wanted["preferences"]) as options:
        names = [one.name for one in missing]
        versions = available(names, options)
        if not check and any(one.version not in versions[one.name] for one in missing):
            try:  # perhaps only this host's lists are old, or absent
                act(["apt-get", "update"], wanted["lock_timeout_s"])
                versions = available(names, options)
            except Trouble as trouble:
                notes.append(f"apt's lists could not be brought up to date: {trouble}")
        words, lost = request(missing, versions)
        words = agreed(words, lambda asked: simulated(_install(asked), options))
    if not check:
        remove(wanted["preferences"])
        if words:
            act(["apt-get", *_install(words)], wanted["lock_timeout_s"])
    # While something is missing that needs the camera's stack, `apt autoremove` would take what is automatic of it.
    marked = _mark(replace(undo, kept=()) if lost else undo, check=check)
    now = packages()
    for one in missing:
        if one.name in lost:
            notes.append(f"{one.name} {one.version} is not to be had any more from this host's sources")
        elif f"{one.name}={one.version}" not in words:
            have = f" as {now[one.name].version}" if _is_here(now, one.name) else " in its current version"
            notes.append(f"{one.name} comes back{have}: {one.version} is not to be had any more, or fits nothing")
    if not check:
        left = tuple(one for one in undo.packages if one.name in lost)
        if left:
            write(wanted["undo"], replace(undo, packages=left).text())
        else:
            remove(wanted["undo"])
    return {
        "changed": bool(words or pinned or marked or (undo.packages and not lost)),
        "back": words,
        "lost": lost,
        "notes": notes,
        "diff": _diff(wanted["preferences"], pinned, words),
    }


def _install(words: list[str]) -> list[str]:
    return ["install", "--no-remove", "--no-install-recommends", *words]


def _is_here(known: Mapping[str, Package], name: str) -> bool:
    return name in known and known[name].state == "installed"


def _mark(undo: Undo, *, check: bool) -> bool:
    """Give every package of the undo list its mark again; returns whether one had another."""
    known, auto = packages(), automatic()
    wanted = {one.name: one.mark for one in undo.packages} | dict.fromkeys(undo.kept, "auto")
    changed = False
    for kind in ("auto", "manual"):
        other = {name for name, asked in wanted.items() if asked == kind and _is_here(known, name)}
        other = other - auto if kind == "auto" else other & auto
        changed = changed or bool(other)
        if not check:
            mark(kind, other)
    return changed


@contextlib.contextmanager
def without(preferences: str) -> Iterator[list[str]]:
    """Options with which apt knows all preferences but this file, so that a simulation needs no change."""
    with tempfile.TemporaryDirectory(prefix="camdock-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - apt reads it as another user
        if os.path.isdir(PARTS):
            for name in os.listdir(PARTS):
                path = os.path.join(PARTS, name)
                if os.path.isfile(path) and path != preferences and re.fullmatch(r"[\w.-]+", name):
                    shutil.copy(path, folder)
        yield ["-o", f"Dir::Etc::preferencesparts={folder}"]


def _diff(path: str, pinned: str, words: list[str]) -> list[dict[str, str]]:
    diff = []
    if words:
        header = "installed packages"
        after = "".join(f"{word}\n" for word in words)
        diff.append({"before_header": header, "after_header": header, "before": "", "after": after})
    if pinned:
        diff.append({"before_header": path, "after_header": path, "before": pinned, "after": ""})
    return diff


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            "undo": {"type": "path", "required": True},
            "preferences": {"type": "path", "required": True},
            "lock_timeout_s": {"type": "float", "default": 120.0},
        },
        supports_check_mode=True,
    )
    try:
        answer = run(module.params, check=module.check_mode)
    except Trouble as trouble:
        module.fail_json(msg=trouble.sentence)
    if answer["lost"] and not module.check_mode:
        module.fail_json(
            msg="All but these are back: " + "; ".join(answer["notes"]) + ". They stay on the undo list. Add the "
            f"source they came from and run this again, or take them off the list: {module.params['undo']}.",
            **answer,
        )
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
