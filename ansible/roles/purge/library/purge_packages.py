#!/usr/bin/python
"""The module purge_packages: removes what is on a list and installed, and nothing else; writes down how to undo it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.purge_apt import (
    Plan,
    Trouble,
    Undo,
    act,
    automatic,
    incomplete,
    listed_here,
    mark,
    packages,
    planned,
    read_text,
    read_undo,
    wait_for_lock,
    would_go,
    write,
)

DOCUMENTATION = r"""
module: purge_packages
short_description: Remove the packages of a list, and nothing that is not on it
description:
  - Has apt simulate the removal first. Where apt would take anything along that is neither listed nor allowed, nothing
    is changed, and the message names each such package and what it depends on.
  - Otherwise it writes the undo list, marks what must stay as manual, removes, and writes apt preferences that keep
    the listed packages from coming back. Killed anywhere on the way, the next run goes on.
  - Packages are removed, not purged, so that their settings are there when they are put back. Nothing is autoremoved.
options:
  packages: {description: What is to go., type: list, elements: dict, required: true, suboptions: {
    name: {description: A package's name., type: str, required: true},
    reason: {description: Why it must go; written into the preferences., type: str, required: true}}}
  keep: {description: Patterns of names that never go., type: list, elements: str, default: []}
  also_allow: {description: Further packages that apt may take along., type: list, elements: str, default: []}
  undo: {description: The file that tells how to put everything back., type: path, required: true}
  preferences: {description: The apt preferences file to write., type: path, required: true}
  lock_timeout_s: {description: "Seconds to wait while another program installs.", type: float, default: 120}
author: The Camdock authors
"""

RETURN = r"""
pending: {description: "Whether there was anything to do, a removal that was cut off included.", type: bool}
gone: {description: "Names, versions and marks of what was removed (in check mode - would be).", type: list}
kept: {description: Names of what was marked manual., type: list}
taken: {description: Those of `gone` that are not on the list but allowed., type: list}
"""

HEADER = """\
# Written by Camdock (role purge). These packages shadow or break the libraries that Camdock brings along, so apt does
# not install them on this host any more. ansible/restore.yml takes this file away and puts back what was removed.
"""


def preferences(listed: list[dict[str, str]]) -> str:
    """The text of the preferences file: all of the list, also what is not installed and could come as a dependency."""
    entries = [
        f"\nExplanation: {one['reason']}\nPackage: {one['name']}\nPin: version *\nPin-Priority: -1\n" for one in listed
    ]
    return HEADER + "".join(entries)


def plan(wanted: dict[str, Any], undo: Undo) -> Plan:
    """What is to be removed on this host now. Raises Trouble where that is refused, or where dpkg was interrupted."""
    known = packages()
    names = {one["name"] for one in wanted["packages"]}
    if others := incomplete(known) - {one.name for one in undo.packages}:
        raise Trouble(
            f"dpkg was interrupted: {', '.join(sorted(others))} is half-way between two states. Nothing was changed. "
            "On the host, type `dpkg --configure -a` (and `apt-get --fix-broken install` if that asks for it), "
            "then run this again"
        )
    here = listed_here(known, names)
    if not here:
        return Plan()
    going, coming = would_go(here)
    return planned(known, automatic(), going, coming, names, wanted["keep"], wanted["also_allow"])


def run(wanted: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Do it; returns the module's answer. Raises Trouble."""
    text, before = preferences(wanted["packages"]), read_text(wanted["preferences"])
    undo = read_undo(wanted["undo"])
    wait_for_lock(wanted["lock_timeout_s"])  # in check mode, too: meanwhile packages are half-way, and none is broken
    if not check:
        # A removal of ours that was cut off; whatever else is half-way is refused by plan().
        half = incomplete(packages())
        if half and half <= {one.name for one in undo.packages}:
            act(["dpkg", "--configure", "--pending"], wanted["lock_timeout_s"])
    todo = plan(wanted, undo)
    if not check:
        if todo.going:
            write(wanted["undo"], undo.with_more(todo.going, todo.keep).text())
            mark("manual", todo.keep)
            act(["apt-get", "remove", *(one.name for one in todo.going)], wanted["lock_timeout_s"])
        if text != before:
            write(wanted["preferences"], text)
    return {
        "changed": bool(todo.going) or text != before,
        "gone": [asdict(one) for one in todo.going],
        "kept": list(todo.keep),
        "taken": list(todo.taken),
        "pending": bool(todo.going) or text != before or bool(incomplete(packages())),
        "diff": _diff(wanted["preferences"], todo, before, text),
    }


def _diff(path: str, todo: Plan, before: str, after: str) -> list[dict[str, str]]:
    diff = []
    if todo.going:
        was = "".join(f"{one.name} {one.version} ({one.mark})\n" for one in todo.going)
        auto = "".join(f"{name} (auto)\n" for name in todo.keep)
        manual = "".join(f"{name} (manual)\n" for name in todo.keep)
        header = "installed packages"
        diff.append({"before_header": header, "after_header": header, "before": was + auto, "after": manual})
    if before != after:
        diff.append({"before_header": path, "after_header": path, "before": before, "after": after})
    return diff


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"name": {"type": "str", "required": True}, "reason": {"type": "str", "required": True}},
            },
            "keep": {"type": "list", "elements": "str", "default": []},
            "also_allow": {"type": "list", "elements": "str", "default": []},
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
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
