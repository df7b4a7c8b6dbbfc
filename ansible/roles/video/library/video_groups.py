#!/usr/bin/python
"""Which groups the service's user needs for the nodes that are there."""

from __future__ import annotations

import grp
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_groups
short_description: Which groups the service's user needs for the nodes that are there
description:
  - The groups video and render by name, and whatever group a node really carries by its number. That number may have no
    name here, as in a container whose nodes are another system's; it then gets one, because only a group of the host's
    own list can be had. Groups that open more than cameras are never given.
options:
  nodes: {type: list, elements: dict, required: true, description: "What C(camdock devices --json) has found."}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: Choose the groups
  video_groups: {nodes: "{{ found.nodes }}"}
  register: needed
"""
RETURN = r"""
groups: {type: list, elements: str, returned: always, description: Their names.}
nameless: {type: dict, returned: always, description: "Names for numbers without one, name to number."}
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


def main() -> None:
    """Choose, and tell."""
    module = AnsibleModule({"nodes": {"type": "list", "elements": "dict", "required": True}}, supports_check_mode=True)
    groups, nameless = choose(module.params["nodes"], {one.gr_gid: one.gr_name for one in grp.getgrall()})
    module.exit_json(changed=False, groups=groups, nameless=nameless)


if __name__ == "__main__":
    main()
