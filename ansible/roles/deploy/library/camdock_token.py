#!/usr/bin/python
"""Creates the host's token once, in a file that only the service can read. The token itself is never handed back.

Runs in: the target, as an Ansible module; standard library only.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import write_whole

DOCUMENTATION = r"""
module: camdock_token
short_description: Create this host's token, once
description:
  - A file that is there keeps its token; only its owner and mode are put right.
  - Neither the token nor anything made from it is returned or logged.
options:
  path: {description: The file., type: path, required: true}
  uid: {description: Who reads it., type: int, required: true}
  gid: {description: The group of who reads it., type: int, required: true}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_token: {path: /etc/camdock/token, uid: 10001, gid: 10001}
"""
RETURN = r"""
created: {description: Whether it is new., type: bool, returned: always}
"""

BYTES = 32  # 256 bits
SHORTEST = 8  # what the service accepts
MODE = 0o400


def unusable(text: str) -> bool:
    """Whether the service would refuse this token."""
    token = text.partition("\n")[0].strip()
    return len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token


def ensure(path: Path, uid: int, gid: int, *, check: bool) -> tuple[bool, bool]:
    """(created, changed); raises OSError, ValueError where the file holds no token."""
    try:
        told = path.lstat()
    except FileNotFoundError:
        if not check:
            write_whole(path, secrets.token_urlsafe(BYTES) + "\n", 0o400)
            os.chown(path, uid, gid)
        return True, True
    if not stat.S_ISREG(told.st_mode):
        raise ValueError("it is no plain file")
    if unusable(path.read_text("utf-8", "replace")):
        raise ValueError(f"its first line is no token of {SHORTEST} or more printable characters without spaces")
    wrong = stat.S_IMODE(told.st_mode) != MODE or (told.st_uid, told.st_gid) != (uid, gid)
    if wrong and not check:
        os.chown(path, uid, gid)
        path.chmod(MODE)
    return False, wrong


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    try:
        created, changed = ensure(path, module.params["uid"], module.params["gid"], check=module.check_mode)
    except ValueError as error:
        module.fail_json(msg=f"{path} cannot be used: {error}. Remove it, and the next run makes a new one.")
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be written or read: {error.strerror}.")
    module.exit_json(changed=changed, created=created)


if __name__ == "__main__":
    main()
