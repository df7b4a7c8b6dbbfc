#!/usr/bin/python
"""Makes folders and writes small files of root's, each whole: one question to the host instead of one for each of them.

Runs in: the target, as an Ansible module; standard library only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import write_whole

DOCUMENTATION = r"""
module: camdock_files
short_description: Make folders and write small files
description: What is there already and the same is not touched. Files are root's own; the folders of theirs are made.
options:
  folders:
    description: Made before the files, in this order.
    type: list
    elements: dict
    default: []
    options:
      path: {description: Where., type: path, required: true}
      owner: {description: The number of its user and of its group., type: int, default: 0}
      mode: {description: Octal., type: str, default: "0755"}
  files:
    description: The files, in the order in which they are written.
    type: list
    elements: dict
    required: true
    options:
      path: {description: Where., type: path, required: true}
      content: {description: What., type: str, required: true}
      mode: {description: Octal., type: str, default: "0644"}
  look_for: {description: Paths that may be there or not., type: list, elements: path, default: []}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_files: {files: [{path: /opt/camdock/bin/camdock-release, content: "...", mode: "0755"}]}
"""
RETURN = r"""
made: {description: Paths of the folders that changed., type: list, returned: always}
written: {description: Paths of the files that changed., type: list, returned: always}
there: {description: "Those of C(look_for) that are there, links to nothing too.", type: list, returned: always}
"""


def differs(path: Path, content: str, mode: int) -> tuple[bool, str]:
    """Whether this file must be written, and what it holds now."""
    try:
        told = path.lstat()
        before = path.read_text("utf-8", "replace") if stat.S_ISREG(told.st_mode) else ""
    except OSError:
        return True, ""
    right = stat.S_ISREG(told.st_mode) and stat.S_IMODE(told.st_mode) == mode and (told.st_uid, told.st_gid) == (0, 0)
    return not right or before != content, before


def is_as_asked(path: Path, owner: int, mode: int) -> bool:
    """Whether this folder is there, and whose it shall be. Raises NotADirectoryError where something else is there."""
    try:
        # Root's may be a link to another disk. Where the service may write, a link is no folder: root would follow it.
        told = path.lstat() if owner else path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(told.st_mode):
        raise NotADirectoryError(0, "it is no folder", str(path))
    return (told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)) == (owner, owner, mode)


def have_folder(path: Path, owner: int, mode: int) -> None:
    """Make it so. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, owner, owner)
    path.chmod(mode)


def main() -> None:
    """The module."""
    folder = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "int", "default": 0},
        "mode": {"type": "str", "default": "0755"},
    }
    one = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "default": [], "options": folder},
            "files": {"type": "list", "elements": "dict", "required": True, "options": one},
            "look_for": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    made: list[str] = []
    for place in module.params["folders"]:
        path, owner, mode = Path(place["path"]), place["owner"], int(place["mode"], 8)
        try:
            if not is_as_asked(path, owner, mode):
                made.append(str(path))
                if not module.check_mode:
                    have_folder(path, owner, mode)
        except OSError as error:
            module.fail_json(msg=f"The folder {path} cannot be made: {error.strerror}.", invocation={})
    written: list[str] = []
    shown: list[dict[str, Any]] = []
    for file in module.params["files"]:
        path, mode = Path(file["path"]), int(file["mode"], 8)
        must, before = differs(path, file["content"], mode)
        if not must:
            continue
        written.append(str(path))
        if before != file["content"]:
            headers = {"before_header": str(path), "after_header": str(path)}
            shown.append({**headers, "before": before, "after": file["content"]})
        if module.check_mode:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, file["content"], mode)
            os.chown(path, 0, 0)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be written: {error.strerror}.", invocation={})
    if made:
        shown.insert(0, {"prepared": "".join(f"folder {path}\n" for path in made)})
    there = [path for path in module.params["look_for"] if os.path.lexists(path)]
    module.exit_json(changed=bool(made or written), made=made, written=written, there=there, diff=shown, invocation={})


if __name__ == "__main__":
    main()
