#!/usr/bin/python
"""Write the udev rules, and bring the nodes of cameras in line with them."""

from __future__ import annotations

import glob
import grp
import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_udev
short_description: Write the udev rules, and bring the nodes of cameras in line with them
description:
  - Writes the rules, or takes them away where there is nothing to write.
  - Has udev read its rules and apply them to the nodes that are there, when the rules are new or a node is not as they
    want it (a play that was killed between the two). Where no udev runs, as in containers, it says so and does nothing.
options:
  rules: {type: path, required: true, description: Where they are.}
  content: {type: str, required: true, description: What they are; empty for none.}
  group: {type: str, required: true, description: Whom they give the nodes to.}
  mode: {type: str, required: true, description: 'With which permissions, octal.'}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: Apply the rules
  video_udev: {rules: /etc/udev/rules.d/99-video.rules, content: 'SUBSYSTEM=="media", GROUP="video", MODE="0660"',
    group: video, mode: '0660'}
"""
RETURN = r"""
has_udev: {type: bool, returned: always, description: Whether udev runs.}
words: {type: list, elements: str, returned: always, description: What a person should know.}
"""

SUBSYSTEMS = ("video4linux", "media", "dma_heap")
NODES = ("video[0-9]*", "v4l-subdev*", "media[0-9]*", "dma_heap/*")
SETTLED_WITHIN_S = 30
OWNER, MODE = (0, 0), 0o644  # of the rules


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


def is_as_wanted(path: str, content: str) -> tuple[bool, str]:
    """Whether the rules need no hand, and what they are; an empty content stands for no file."""
    try:
        told = os.lstat(path)
        with open(path, encoding="utf-8", errors="replace") as file:
            has = file.read()
    except FileNotFoundError:
        return not content, ""
    owned = (told.st_uid, told.st_gid) == OWNER and told.st_mode == stat.S_IFREG | MODE
    return bool(content) and has == content and owned, has


def write(path: str, content: str) -> None:
    """Write the rules whole, or take them away. Raises OSError."""
    if not content:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # udev reads what ends in .rules alone.
    descriptor, beside = tempfile.mkstemp(prefix=".camdock-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), MODE)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def main() -> None:
    """Write, look, ask udev, look again."""
    module = AnsibleModule(
        {
            "rules": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "mode": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path, content = module.params["rules"], module.params["content"]
    try:
        is_right, had = is_as_wanted(path, content)
        if not is_right and not module.check_mode:
            write(path, content)
    except OSError as error:
        module.fail_json(msg=f"The udev rules {path} cannot be written: {error.strerror}.")
    before, wanted = nodes(), f"{module.params['group']} {int(module.params['mode'], 8):o}"
    ruled = bool(content)
    off = {path: has for path, has in before.items() if ruled and has != wanted}
    udevadm = module.get_bin_path("udevadm")
    # The socket may be left of an udev that is gone: only its answer counts.
    has_udev = bool(udevadm) and module.run_command([udevadm, "control", "--ping", "--timeout=5"])[0] == 0
    after, words = before, []
    if not has_udev:
        words.append(
            "No udev runs here, so its rules give nothing to anybody: nodes stay as whoever makes them has them."
        )
    elif off or not is_right:
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
            f"{node} is {has} although {path} wants {wanted}: a later rule says otherwise (udevadm test {node})."
            for node, has in after.items()
            if has != wanted
        ]
    moved = [node for node in {**before, **after} if before.get(node) != after.get(node)]
    diff = [] if is_right else [{"before_header": path, "after_header": path, "before": had, "after": content}]
    if moved:
        shown = [{node: has[node] for node in moved if node in has} for has in (before, after)]
        diff.append({"before_header": "nodes", "after_header": "nodes", "before": shown[0], "after": shown[1]})
    module.exit_json(
        changed=bool(moved) or not is_right,
        diff=diff,
        has_udev=has_udev,
        words=words,
    )


if __name__ == "__main__":
    main()
