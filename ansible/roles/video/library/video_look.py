#!/usr/bin/python
"""What the role has to know of a host before it changes anything, and what stands in its way."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_look
short_description: What the role video has to know of a host before it changes anything
description: Reads only. Finds out what board it is, what it starts from, and what the role would fail at.
options:
  user: {type: str, required: true, description: "The service's user, and its group."}
  uid: {type: int, required: true, description: Its number.}
  gid: {type: int, required: true, description: The number of its group.}
  people: {type: list, elements: str, required: true, description: Who else may open the cameras.}
  board: {type: str, required: true, description: "C(raspberry-pi), C(other), or C(auto): by the device tree."}
  model: {type: path, required: true, description: The file with the name of the board.}
  config_txt_files: {type: list, elements: path, required: true, description: Where config.txt may be.}
  config_txt: {type: list, elements: str, required: true, description: Lines that it is to have.}
  cma_mb: {type: int, required: true, description: Contiguous memory that it is to reserve; 0 for as it is.}
  marker: {type: str, required: true, description: The first and last line of the block of those lines.}
  raspi_firmware: {type: path, required: true, description: "Debian's settings for config.txt."}
  rpi_issue: {type: path, required: true, description: The file that only Raspberry Pi OS has.}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: Look
  video_look: {user: camdock, uid: 10001, gid: 10001, people: [pi], board: auto, model: /proc/device-tree/model,
    config_txt_files: [/boot/firmware/config.txt], config_txt: [], cma_mb: 0, marker: "# {mark} ours",
    raspi_firmware: /etc/default/raspi-firmware, rpi_issue: /etc/rpi-issue}
  register: video_host
"""
RETURN = r"""
problems: {type: list, elements: str, returned: always, description: "Sentences; any of them stops the role."}
is_pi: {type: bool, returned: always, description: Whether it is a Raspberry Pi.}
model: {type: str, returned: always, description: What the board is called; empty without a device tree.}
system: {type: str, returned: always, description: C(raspberry-pi-os) or C(debian).}
config_txt_files: {type: list, elements: str, returned: always, description: Files that the block belongs into.}
boot_s: {type: int, returned: always, description: When it was started, in seconds since 1970.}
cma_mb: {type: int, returned: always, description: Contiguous memory that it has now.}
"""

# What the overlay `cma` says of itself: 256 MB want 1 GB, of which the kernel sees some 900 MB.
SMALL_CMA_MB, SMALL_BOARD_MB = 128, 800
WHY_THAT = "The role deploy and the image count on 10001; another video_uid or video_gid is for who uses neither."
VC4 = re.compile(r"^\s*dtoverlay=vc4-f?kms-v3d", re.MULTILINE)


def text(path: str) -> str:
    """A file, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return ""


def number(path: str, key: str) -> int:
    """The number behind a word at the beginning of a line of a file in /proc; 0 where there is none."""
    found = re.search(rf"^{key}\s+(\d+)", text(path), re.MULTILINE)
    return int(found.group(1)) if found else 0


def taken(user: str, uid: int, gid: int) -> list[str]:
    """Why the user and its group cannot be had with these numbers."""
    said = []
    own, other, group, other_group = (
        found(wanted) for found, wanted in ((_passwd, user), (_passwd, uid), (_group, user), (_group, gid))
    )
    if own is not None and own[1] != uid:
        said.append(
            f"The user {user} is there already, with uid {own[1]} instead of {uid}. With another number it would lose "
            f"its files: remove that user. {WHY_THAT}"
        )
    elif other is not None and other[0] != user:
        said.append(f"uid {uid} belongs to {other[0]}, and {user} needs it. Give that user another number. {WHY_THAT}")
    if group is not None and group[1] != gid:
        said.append(
            f"The group {user} is there already, with gid {group[1]} instead of {gid}. Remove that group. {WHY_THAT}"
        )
    elif other_group is not None and other_group[0] != user:
        said.append(
            f"gid {gid} belongs to the group {other_group[0]}, and {user} needs it. Give that group another number. "
            f"{WHY_THAT}"
        )
    if _group("video") is None:
        said.append(
            "There is no group video, which every Debian has from the start and to which cameras belong: "
            "groupadd --system --gid 44 video."
        )
    return said


def _passwd(who: str | int) -> tuple[str, int] | None:
    try:
        found = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except KeyError:
        return None
    return found.pw_name, found.pw_uid


def _group(which: str | int) -> tuple[str, int] | None:
    try:
        found = grp.getgrnam(which) if isinstance(which, str) else grp.getgrgid(which)
    except KeyError:
        return None
    return found.gr_name, found.gr_gid


def strangers(people: list[str], accounts: str = "/etc/passwd") -> list[str]:
    """Why people cannot be given groups."""
    said = []
    if unknown := [name for name in people if _passwd(name) is None]:
        said.append(
            f"video_users names {', '.join(unknown)}, whom this host does not know. Make that user first, or "
            "take the name out."
        )
    local = {line.partition(":")[0] for line in text(accounts).splitlines()}
    if elsewhere := [name for name in people if name not in unknown and name not in local]:
        said.append(
            f"{', '.join(elsewhere)} is not in this host's own {accounts} but in a directory (LDAP or alike), whose "
            "users usermod cannot put into a group. Leave them out: video_users: []."
        )
    return said


def config_problems(asked: dict[str, Any], is_pi: bool, config: str, memory_mb: int) -> list[str]:
    """Why config.txt cannot have the lines."""
    if not asked["config_txt"] and not asked["cma_mb"]:
        return []
    if not is_pi:
        return [
            f"video_config_txt and video_cma_mb are for a Raspberry Pi, which this host is not by {asked['model']}. "
            "Take them from this host, or set video_board: raspberry-pi."
        ]
    if not config:
        files = ", ".join(asked["config_txt_files"])
        return [f"None of {files} is there. Is /boot/firmware mounted? Otherwise set video_config_txt_files."]
    said = [
        f"{line!r} cannot be an entry of video_config_txt: each is one line, and none looks like the block's marks."
        for line in asked["config_txt"]
        if "\n" in line or not line.strip() or asked["marker"].partition("}")[2] in line
    ]
    if asked["cma_mb"] and VC4.search(text(config)):
        said.append(
            f"video_cma_mb is set, but {config} loads the overlay vc4-kms-v3d, which reserves contiguous memory itself "
            f"and would clash: write dtoverlay=vc4-kms-v3d,cma-{asked['cma_mb']} there, and video_cma_mb: 0 here."
        )
    if asked["cma_mb"] > SMALL_CMA_MB and memory_mb < SMALL_BOARD_MB:
        said.append(
            f"video_cma_mb: {asked['cma_mb']} takes a board of 1 GB, and this one has {memory_mb} MB: "
            f"{SMALL_CMA_MB} at most."
        )
    return said


def main() -> None:
    """Look, and tell."""
    kinds = {
        "str": ("user", "board", "marker"),
        "int": ("uid", "gid", "cma_mb"),
        "path": ("model", "raspi_firmware", "rpi_issue"),
    }
    options = {name: {"type": kind, "required": True} for kind, names in kinds.items() for name in names}
    options |= {name: {"type": "list", "elements": "str", "required": True} for name in ("people", "config_txt")}
    options["config_txt_files"] = {"type": "list", "elements": "path", "required": True}
    module = AnsibleModule(options, supports_check_mode=True)
    asked = module.params
    model = text(asked["model"])
    is_pi = "Raspberry Pi" in model if asked["board"] == "auto" else asked["board"] == "raspberry-pi"
    config = next(filter(os.path.isfile, asked["config_txt_files"]), "")
    files = [config] if config else []
    if os.path.isfile(asked["raspi_firmware"]):
        files.append(asked["raspi_firmware"] + "-custom")
    problems = taken(asked["user"], asked["uid"], asked["gid"])
    if os.geteuid() != 0:
        who = pwd.getpwuid(os.geteuid()).pw_name
        problems.append(
            f"Ansible works as {who}, who is not root. Set become: true (ansible-playbook --become, and "
            "--ask-become-pass where sudo wants a password)."
        )
    problems += strangers(asked["people"])
    module.exit_json(
        changed=False,
        problems=problems + config_problems(asked, is_pi, config, number("/proc/meminfo", "MemTotal:") // 1024),
        is_pi=is_pi,
        model=model,
        system="raspberry-pi-os" if os.path.exists(asked["rpi_issue"]) else "debian",
        config_txt_files=files,
        boot_s=number("/proc/stat", "btime"),
        cma_mb=number("/proc/meminfo", "CmaTotal:") // 1024,
    )


if __name__ == "__main__":
    main()
