#!/usr/bin/python
"""Which cameras are there, which groups the service's user needs for them, and whether it has them already."""

from __future__ import annotations

import grp
import json
import pwd
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_groups
short_description: Which groups the service's user needs for the nodes that are there
description:
  - Reads only.
  - The groups video and render by name, and whatever group a node really carries by its number. That number may have no
    name here, as in a container whose nodes are another system's; it then gets one, because only a group of the host's
    own list can be had. Groups that open more than cameras are never given.
options:
  devices: {type: str, required: true, description: "C(camdock devices), a program that needs nothing but Python."}
  user: {type: str, required: true, description: "The service's user, and its group."}
  uid: {type: int, required: true, description: Its number.}
  gid: {type: int, required: true, description: The number of its group.}
  account: {type: dict, required: true, description: "Its comment, home and shell."}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: Choose the groups
  video_groups: {devices: "{{ lookup('file', 'devices.py') }}", user: camdock, uid: 10001, gid: 10001,
    account: {comment: Camera service, home: /nonexistent, shell: /usr/sbin/nologin}}
  register: needed
"""
RETURN = r"""
devices: {type: dict, returned: always, description: "What C(camdock devices --json) says."}
groups: {type: list, elements: str, returned: always, description: Their names.}
nameless: {type: dict, returned: always, description: "Names for numbers without one, name to number."}
is_member: {type: bool, returned: always, description: "Whether the user is there as asked for, with all of them."}
user: {type: str, returned: always, description: As given.}
uid: {type: int, returned: always, description: As given.}
gid: {type: int, returned: always, description: As given.}
"""

ALWAYS = ("video", "render")
# Each of them opens disks, memory, passwords or the whole machine.
NEVER = ("root", "disk", "kmem", "shadow", "tty", "adm", "sudo", "wheel", "staff", "docker", "lxd", "incus-admin")


def choose(nodes: list[dict[str, Any]], named: dict[int, str]) -> tuple[list[str], dict[str, int]]:
    """(names, names to be made with their numbers)."""
    groups = [name for name in ALWAYS if name in named.values()]
    nameless = {}
    for node in nodes:
        gid = node["owner"]
        if gid == 0 or not node["group_may"]:
            continue  # root's group would be a gift; a group that may not open the node is of no use
        name = named.get(gid)
        if name is None:
            name = f"camdock-gid-{gid}"
            nameless[name] = gid
        if name not in NEVER and name not in groups:
            groups.append(name)
    return groups, nameless


def is_member(user: str, numbers: tuple[int, int], account: dict[str, str], groups: list[str]) -> bool:
    """Whether this user is there, as asked for in everything, and is in all of these groups."""
    try:
        told = pwd.getpwnam(user)
        own, others = grp.getgrnam(user), [grp.getgrnam(name) for name in groups]
    except KeyError:
        return False
    asked = (*numbers, account["comment"], account["home"], account["shell"])
    has = (told.pw_uid, told.pw_gid, told.pw_gecos, told.pw_dir, told.pw_shell)
    return has == asked and own.gr_gid == told.pw_gid and all(user in one.gr_mem for one in others)


def main() -> None:
    """Look, choose, and tell."""
    kinds = {"devices": "str", "user": "str", "uid": "int", "gid": "int", "account": "dict"}
    module = AnsibleModule(
        {name: {"type": kind, "required": True} for name, kind in kinds.items()}, supports_check_mode=True
    )
    asked = module.params
    said = module.run_command([sys.executable, "-", "--json"], data=asked["devices"], check_rc=True)[1]
    devices = json.loads(said)
    groups, nameless = choose(devices["nodes"], {one.gr_gid: one.gr_name for one in grp.getgrall()})
    module.exit_json(
        changed=False,
        invocation={},  # a whole program is in there
        devices=devices,
        groups=groups,
        nameless=nameless,
        is_member=is_member(asked["user"], (asked["uid"], asked["gid"]), asked["account"], groups),
        **{name: asked[name] for name in ("user", "uid", "gid")},
    )


if __name__ == "__main__":
    main()
