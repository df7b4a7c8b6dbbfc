#!/usr/bin/python
"""Whether a running service has the groups that its user has by now."""

from __future__ import annotations

import grp
import os
import pwd
import re

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: video_running
short_description: Whether a running service has the groups that its user has by now
description:
  - A process keeps the groups that its user had when it was started. C(changed) means that the service lacks one of
    today's and has to be restarted. A service that does not run, or whose process is another user's, as
    C(docker compose) is root's, lacks nothing.
options:
  service: {type: str, required: true, description: The systemd unit.}
  user: {type: str, required: true, description: Its user.}
  groups: {type: list, elements: str, required: true, description: What it is to have.}
author: The Camdock authors (@camdock)
"""
EXAMPLES = r"""
- name: See whether it has them
  video_running: {service: camdock.service, user: camdock, groups: [video]}
  notify: Restart
"""
RETURN = r"""
pid: {type: int, returned: always, description: Its main process; 0 when it does not run.}
lacks: {type: list, elements: int, returned: always, description: Groups that it lacks, by number.}
"""


def ids(status: str, key: str) -> list[int]:
    """The numbers behind a key of /proc/PID/status."""
    found = re.search(rf"^{key}:(.*)$", status, re.MULTILINE)
    return [int(word) for word in found.group(1).split()] if found else []


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(
        {
            "service": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "groups": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    pid, lacks = 0, []
    systemctl = module.get_bin_path("systemctl")
    if systemctl:
        said = module.run_command([systemctl, "show", "--property=MainPID", "--value", module.params["service"]])[1]
        pid = int(said.strip() or 0)
    try:
        user = pwd.getpwnam(module.params["user"])
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            status = file.read()
    except (KeyError, OSError):
        pass  # no such user yet, or no such process
    else:
        if ids(status, "Uid")[:1] == [user.pw_uid]:
            has = {*ids(status, "Gid"), *ids(status, "Groups")}
            wanted = {group.gr_gid for group in grp.getgrall() if group.gr_name in module.params["groups"]}
            lacks = sorted((wanted | set(os.getgrouplist(user.pw_name, user.pw_gid))) - has)
    module.exit_json(changed=bool(lacks), pid=pid, lacks=lacks)


if __name__ == "__main__":
    main()
