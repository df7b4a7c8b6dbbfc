#!/usr/bin/python
"""Writes several small files of root's at once, each whole: one question to the host instead of one for each file.

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
short_description: Write several small files
description: Root's own; what is there already and the same is not touched. Their folders are made.
options:
  files:
    description: The files, in the order in which they are written.
    type: list
    elements: dict
    required: true
    options:
      path: {description: Where., type: path, required: true}
      content: {description: What., type: str, required: true}
      mode: {description: Octal., type: str, default: "0644"}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_files: {files: [{path: /opt/camdock/bin/camdock-release, content: "...", mode: "0755"}]}
"""
RETURN = r"""
written: {description: Paths of those that changed., type: list, returned: always}
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


def main() -> None:
    """The module."""
    one = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": one}},
        supports_check_mode=True,
    )
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
    module.exit_json(changed=bool(written), written=written, diff=shown, invocation={})


if __name__ == "__main__":
    main()
