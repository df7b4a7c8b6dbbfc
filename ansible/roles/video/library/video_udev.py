#!/usr/bin/python
"""Bring the nodes of cameras in line with the udev rules."""

from __future__ import annotations

import glob
import grp
import os
import stat

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_udev
short_description: Bring the nodes of cameras in line with the udev rules
description:
  - Has udev read its rules and apply them to the nodes that are there, when the rules are new or a node is not as they
    want it (a play that was killed between the two). Where no udev runs, as in containers, it says so and does nothing.
options:
  rules_changed: {type: bool, required: true, description: Whether the rules were written or removed just now.}
  rules: {type: path, required: true, description: Where they are.}
  group: {type: str, required: true, description: Whom they give the nodes to.}
  mode: {type: str, required: true, description: 'With which permissions, octal.'}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: Apply the rules
  video_udev: {rules_changed: true, rules: /etc/udev/rules.d/99-video.rules, group: video, mode: '0660'}
"""
RETURN = r"""
has_udev: {type: bool, returned: always, description: Whether udev runs.}
words: {type: list, elements: str, returned: always, description: What a person should know.}
"""

SUBSYSTEMS = ("video4linux", "media", "dma_heap")
NODES = ("video[0-9]*", "v4l-subdev*", "media[0-9]*", "dma_heap/*")
SETTLED_WITHIN_S = 30


def nodes() -> dict[str, str]:
    """Each node as `group mode`."""
    found = {}
    for path in sorted(node for pattern in NODES for node in glob.glob(f"/dev/{pattern}")):
        try:
            status = os.stat(path)
        except OSError:
            continue  # unplugged meanwhile
        if stat.S_ISCHR(status.st_mode):
            found[path] = f"{group_name(status.st_gid)} {stat.S_IMODE(status.st_mode):o}"
    return found


def group_name(gid: int) -> str:
    """Its name, or the number again."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def main() -> None:
    """Look, ask udev, look again."""
    module = AnsibleModule(
        {
            "rules_changed": {"type": "bool", "required": True},
            "rules": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "mode": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    before, wanted = nodes(), f"{module.params['group']} {int(module.params['mode'], 8):o}"
    ruled = os.path.exists(module.params["rules"]) or module.check_mode
    off = {path: has for path, has in before.items() if ruled and has != wanted}
    udevadm = module.get_bin_path("udevadm")
    # The socket may be left of an udev that is gone: only its answer counts.
    has_udev = bool(udevadm) and module.run_command([udevadm, "control", "--ping", "--timeout=5"])[0] == 0
    after, words = before, []
    if not has_udev:
        words.append(
            "No udev runs here, so its rules give nothing to anybody: nodes stay as whoever makes them has them."
        )
    elif off or module.params["rules_changed"]:
        if module.check_mode:
            after = {**before, **dict.fromkeys(off, wanted)}
        else:
            matches = [f"--subsystem-match={subsystem}" for subsystem in SUBSYSTEMS]
            for words_of in (["control", "--reload"], ["trigger", "--action=change", *matches]):
                module.run_command([udevadm, *words_of], check_rc=True)
            module.run_command([udevadm, "settle", f"--timeout={SETTLED_WITHIN_S}"], check_rc=True)
            after = nodes()
    if has_udev and ruled:
        words += [
            f"{path} is {has} although {module.params['rules']} wants {wanted}: a later rule says otherwise "
            f"(udevadm test {path})."
            for path, has in after.items()
            if has != wanted
        ]
    moved = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    shown = [{path: has[path] for path in moved if path in has} for has in (before, after)]
    module.exit_json(
        changed=bool(moved),
        diff={"before_header": "nodes", "after_header": "nodes", "before": shown[0], "after": shown[1]},
        has_udev=has_udev,
        words=words,
    )


if __name__ == "__main__":
    main()
