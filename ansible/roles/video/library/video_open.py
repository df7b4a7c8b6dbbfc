#!/usr/bin/python
"""Open the cameras as the service's user does, and say in words what came of it."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import select
import signal
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_open
short_description: Open the cameras as the service's user does
description:
  - In a process of that user, with its groups, through the kernel. Fails with the reason of each node that does not
    open, and with what to do about it. In check mode it only tells.
options:
  user: {type: str, required: true, description: The user.}
  groups: {type: list, elements: str, required: true, description: What it was given; in check mode it would have been.}
  nodes: {type: list, elements: dict, required: true, description: "What C(camdock devices --json) has found."}
  is_pi: {type: bool, required: true, description: Whether libcamera needs media and dma_heap nodes as well.}
  require_camera: {type: bool, required: true, description: Whether it is a failure that there is no camera.}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: Open them
  video_open: {user: camdock, groups: [video], nodes: "{{ found.nodes }}", is_pi: false, require_camera: true}
"""
RETURN = r"""
words: {type: list, elements: str, returned: always, description: What was found.}
opened: {type: list, elements: str, returned: always, description: The nodes that opened.}
"""

# A driver may hold whoever opens its device for ever, and no signal ends that.
WITHIN_S = 20.0
RIBBON = ("unicam", "rp1-cfe")  # receivers that only libcamera makes pictures of
OPENS, DEAD = (0, errno.EBUSY), (errno.ENOENT, errno.ENXIO, errno.ENODEV)


def chosen(nodes: list[dict[str, Any]], is_pi: bool) -> list[dict[str, Any]]:
    """Those that the service opens: what gives pictures or could not be asked, and what libcamera takes on a Pi."""
    return [
        node
        for node in nodes
        if (node["kind"] == "video" and node["captures"] is not False and (is_pi or node["driver"] not in RIBBON))
        or (is_pi and node["kind"] in ("media", "dma_heap"))
    ]


def errors(user: pwd.struct_passwd, groups: list[int], paths: list[str]) -> dict[str, int | None]:
    """What the kernel says to this user: 0 or an errno for each path; None where it did not say anything in time."""
    if not paths:
        return {}
    answers, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            for path in paths:
                os.write(tell, (json.dumps([path, attempt(path)]) + "\n").encode())
        finally:
            os._exit(0)
    os.close(tell)
    said = b""
    while select.select([answers], [], [], WITHIN_S)[0] and (more := os.read(answers, 65536)):
        said += more
    os.close(answers)
    os.kill(child, signal.SIGKILL)  # not waited for: where a driver holds it, that would be for ever
    return {**dict.fromkeys(paths), **dict(json.loads(line) for line in said.splitlines())}


def attempt(path: str) -> int:
    """Open and close it; 0, or the errno."""
    try:
        # O_NONBLOCK: only whether it opens is of interest, not whether somebody else reads from it.
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def reason(node: dict[str, Any], error: int | None, user: str, groups: list[int]) -> str:
    """Why it does not open, and what to do."""
    path, owner, mode = node["path"], node["owner"], int(node["mode"], 8)
    shown = f"{path} (group {node['group']}, gid {owner}, mode {node['mode']})"
    if error is None:
        return f"{shown} has not answered for {WITHIN_S:g} s: its driver hangs. Unplug it, or reboot; dmesg says more."
    if error == errno.EPERM:
        return (
            f"{shown}: permissions would allow it, but the kernel's device list refuses. The host is a container: "
            "give it the device from outside (c 81:* rw)."
        )
    if error != errno.EACCES:
        return (
            f"{shown}: the driver answers {errno.errorcode.get(error, error)}, {os.strerror(error)}. dmesg says more."
        )
    if mode & stat.S_IRGRP == 0 or mode & stat.S_IWGRP == 0:
        return f"{shown} is closed to its own group: chgrp video {path} && chmod 660 {path}; for good with a udev rule."
    if owner == 0:
        return (
            f"{shown} belongs to root's group, which {user} is not given, because it opens more than cameras: "
            f"chgrp video {path}; for good with a udev rule."
        )
    if owner not in groups:
        return (
            f"{shown}: {user} is not in that group and is not put into it, because it opens more than cameras: "
            f"chgrp video {path}; for good with a udev rule."
        )
    return f"{shown}: {user} is in that group, and yet the kernel refuses: an access list (getfacl {path}) or AppArmor."


def main() -> None:
    """Try, and tell."""
    module = AnsibleModule(
        {
            "user": {"type": "str", "required": True},
            "groups": {"type": "list", "elements": "str", "required": True},
            "nodes": {"type": "list", "elements": "dict", "required": True},
            "is_pi": {"type": "bool", "required": True},
            "require_camera": {"type": "bool", "required": True},
        },
        supports_check_mode=True,
    )
    name = module.params["user"]
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        # Only in check mode: otherwise the role has made it.
        module.exit_json(
            changed=False, opened=[], words=[f"{name} is still to be made, and cannot try to open a camera."]
        )
    groups = os.getgrouplist(name, user.pw_gid)
    if module.check_mode:  # as if it had been given them
        groups += [group.gr_gid for group in grp.getgrall() if group.gr_name in module.params["groups"]]
    wanted = {node["path"]: node for node in chosen(module.params["nodes"], module.params["is_pi"])}
    found = errors(user, groups, list(wanted))
    opened = [path for path, error in found.items() if error in OPENS]
    cameras = [path for path in opened if wanted[path]["kind"] == "video"]
    problems = [
        reason(wanted[path], error, name, groups)
        for path, error in found.items()
        if error not in OPENS and error not in DEAD
    ]
    words = [f"{name} opens {path}{described(wanted[path])}." for path in opened]
    words += [f"{path} is a node that no driver answers behind." for path, error in found.items() if error in DEAD]
    if not cameras and not problems:
        nothing = "No camera is there: nothing in /dev/video* gives pictures."
        if module.params["require_camera"]:
            problems.append(
                f"{nothing} video_require_camera wants one: plug it in; dmesg and lsusb say what the kernel saw."
            )
        else:
            words.append(f"{nothing} One that is plugged in later may be opened at once.")
    told = {"changed": False, "opened": opened, "words": words + problems}
    if problems and not module.check_mode:
        module.fail_json(msg=" ".join(problems), **told)
    module.exit_json(**told)


def described(node: dict[str, Any]) -> str:
    """What it calls itself, on one line: devices choose their names."""
    name = "".join(char if char.isprintable() else " " for char in node["name"])
    return f" ({name})" if name else ""


if __name__ == "__main__":
    main()
