#!/usr/bin/python
"""Puts a release beside the others on the target, whole or not at all, and has the host itself switch to it.

Runs in: the target, as an Ansible module; standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import (
    Busy,
    alone,
    complete,
    last_lines,
    sync_folder,
    without_secrets,
    write_whole,
)

DOCUMENTATION = r"""
module: camdock_release
short_description: Make a release of a build and a configuration, and switch to it
description:
  - Compares with the release that serves, and does nothing when it is the same. Check mode shows what would change.
  - The switch runs as a unit of the host's own systemd. It confirms itself or takes itself back when the play is gone.
  - Fails when the release gives no pictures; the one before serves again then.
options:
  root: {description: Folder of builds and releases., type: path, required: true}
  build: {description: The build's id., type: str, required: true}
  mode: {description: How the build runs., type: str, required: true, choices: [native, container]}
  version: {description: The build's version., type: str, required: true}
  port: {description: Port on this host., type: int, required: true}
  address: {description: Where the service is asked on this host., type: str, required: true}
  cameras: {description: Names of the cameras., type: list, elements: str, required: true}
  gate: {description: What the release must give., type: str, required: true, choices: [pictures, live, "off"]}
  files: {description: Content by name., type: dict, required: true}
  appear_s: {description: Seconds within which pictures appear., type: float, default: 8}
  watch_s: {description: Seconds for which they are watched., type: float, default: 30}
  keep: {description: How many releases stay., type: int, default: 3}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_release:
    {root: /opt/camdock, build: 0.1.0-0123456789ab, mode: native, version: 0.1.0, port: 8000, address: 127.0.0.1,
     cameras: [camera], gate: pictures, files: {camdock.env: "", camdock.service: "..."}}
"""
RETURN = r"""
release: {description: The release's id., type: str, returned: always}
previous: {description: The release before it., type: str, returned: changed}
without_pictures_s: {description: How long viewers saw nothing., type: float, returned: changed}
log: {description: The last lines of the service's log., type: list, returned: failure}
serves: {description: The release that serves now., type: str, returned: failure}
"""

UNIT = "camdock.service"
SWITCH = "camdock-switch"
MODES = {"camdock.env": 0o600, "compose.yaml": 0o600}  # sources may carry a camera's password
WAIT_FOR_OTHERS_S = 900.0
WRITTEN = ("release.json", "camdock.env", UNIT, "compose.yaml")


def documents(given: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The release's id, and its files as text; release.json without the moment it is made."""
    told = {
        "build": given["build"], "mode": given["mode"], "version": given["version"], "port": given["port"],
        "address": given["address"], "cameras": given["cameras"], "gate": given["gate"],
    }  # fmt: skip
    sums = hashlib.sha256(json.dumps([told, given["files"]], sort_keys=True).encode()).hexdigest()
    version, _, digest = given["build"].rpartition("-")
    name = f"{version}-{digest[:7]}-{sums[:8]}"
    return name, {"release.json": json.dumps({"id": name, **told}, indent=1) + "\n", **given["files"]}


def without_moment(name: str, text: str) -> str:
    """A file as it is compared: release.json without when it was made, and without its name, which follows from it."""
    if name != "release.json":
        return text
    try:
        told = json.loads(text)
    except ValueError:
        return text
    return json.dumps({key: value for key, value in told.items() if key not in ("created", "id")}, indent=1) + "\n"


def found_in(folder: Path) -> dict[str, str]:
    """The files of a release that is there; empty when none is."""
    found = {}
    for name in WRITTEN:
        try:
            found[name] = (folder / name).read_text()
        except OSError:
            continue
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[dict[str, str]]:
    """What Ansible prints for --diff: every file that differs, without credentials."""
    shown = []
    for name in WRITTEN:
        old, new = (without_moment(name, side.get(name, "")) for side in (before, after))
        if old != new:
            shown.append(
                {
                    "before_header": f"{name} (serves now)", "after_header": f"{name} (this release)",
                    "before": without_secrets(old), "after": without_secrets(new),
                }
            )  # fmt: skip
    return shown


def same(before: dict[str, str], after: dict[str, str]) -> bool:
    """Whether both are the same release."""
    return {name: without_moment(name, text) for name, text in before.items()} == {
        name: without_moment(name, text) for name, text in after.items()
    }


def write(root: Path, name: str, build: str, files: dict[str, str]) -> None:
    """Make the release's folder, whole or not at all. One that somebody has changed by hand is put right.

    raises  OSError
    """
    folder = root / "releases" / name
    dated = {
        **files,
        "release.json": json.dumps({**json.loads(files["release.json"]), "created": int(time.time())}) + "\n",
    }
    if folder.is_dir():
        there = found_in(folder)
        for one, text in dated.items():
            if without_moment(one, there.get(one, "")) != without_moment(one, text):
                write_whole(folder / one, text, MODES.get(one, 0o644))
        for one in set(there) - set(dated):
            (folder / one).unlink()
        return
    beside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        for one, text in dated.items():
            write_whole(beside / one, text, MODES.get(one, 0o644))
        (beside / "build").symlink_to(f"../../builds/{build}")
        beside.chmod(0o755)
        sync_folder(beside)
        beside.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command; its status and what it said."""
    return subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )


def switch(root: Path, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Have the host switch, and wait; the release tool's JSON answer, or an outcome `refused` with the reason."""
    tool = str(root / "bin" / "camdock-release")
    descriptor, answer = tempfile.mkstemp(prefix="camdock-switch.", dir="/run")
    os.close(descriptor)
    try:
        # Not a pipe to us: whoever reads it may be gone before the switch is over. Killed, it is put back at once.
        done = call(
            "systemd-run", f"--unit={SWITCH}", "--collect", "--wait", "--quiet",
            "--description=Camdock: switch to another release",
            f"--property=StandardOutput=append:{answer}", "--property=StandardError=journal",
            f"--property=ExecStopPost={tool} recover --quiet",
            tool, "switch", name, "--json", f"--appear={given['appear_s']:g}", f"--watch={given['watch_s']:g}",
        )  # fmt: skip
        try:
            told = json.loads(Path(answer).read_text())
        except ValueError:
            told = None
    finally:
        Path(answer).unlink(missing_ok=True)
    if isinstance(told, dict) and "outcome" in told:
        return told
    if "already" in done.stderr:
        reason = f"another switch is at work (`systemctl status {SWITCH}`): run the play again when it is over"
    else:
        reason = done.stderr.strip() or f"the switch ended with status {done.returncode} and said nothing"
    return {"outcome": "refused", "reason": reason, "log": []}


def sentence(told: dict[str, Any], name: str) -> str:
    """How a switch that did not succeed ended, for a person."""
    reason = str(told.get("reason", "")).rstrip(".")
    dark = f"{float(told.get('without_pictures_s') or 0):.1f} s without pictures"
    return without_secrets(
        {
            "put_back": f"Release {name} was taken back: {reason}. {told.get('previous')} serves again, after {dark}.",
            "stopped": f"Release {name} was stopped: {reason}. There is no release before it, so nothing serves now.",
            "down": f"NOTHING SERVES: release {name} was taken back ({reason}), and the one before serves neither.",
        }.get(str(told["outcome"]), f"Release {name} was not confirmed: {reason}.")
    )


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "build": {"type": "str", "required": True},
            "mode": {"type": "str", "required": True, "choices": ["native", "container"]},
            "version": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "address": {"type": "str", "required": True},
            "cameras": {"type": "list", "elements": "str", "required": True},
            "gate": {"type": "str", "required": True, "choices": ["pictures", "live", "off"]},
            "files": {"type": "dict", "required": True},
            "appear_s": {"type": "float", "default": 8},
            "watch_s": {"type": "float", "default": 30},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
        no_log=True,  # sources may carry a camera's password
    )
    given = module.params
    root = Path(given["root"])
    name, files = documents(given)
    try:
        current: str = Path(os.readlink(root / "current")).name
    except OSError:
        current = ""
    before = found_in(root / "releases" / current) if current else {}
    is_same = same(before, files) and complete(root / "builds" / given["build"]) is not None
    runs = call("systemctl", "is-active", "--quiet", UNIT).returncode == 0
    if is_same and runs:
        module.exit_json(changed=False, release=current, invocation={})
    told: dict[str, Any] = {"release": name, "previous": current, "diff": differences(before, files), "invocation": {}}
    if module.check_mode:
        module.exit_json(changed=True, **told)
    try:
        with alone(root / "builds" / ".lock", WAIT_FOR_OTHERS_S):
            write(root, name, given["build"], files)
            if current == name and runs and not is_same:  # changed by hand, and put right
                call("systemctl", "daemon-reload")
                call("systemctl", "restart", UNIT)
            answer = switch(root, name, given)
            if answer["outcome"] not in ("confirmed", "unchanged"):
                try:
                    serves = Path(os.readlink(root / "current")).name
                except OSError:
                    serves = "nothing"
                log = last_lines("\n".join(map(str, answer.get("log") or [])))
                module.fail_json(msg=sentence(answer, name), log=log, serves=serves, **told)
            pruned = call(str(root / "bin" / "camdock-release"), "prune", f"--keep={given['keep']}")
    except Busy as error:
        module.fail_json(msg=f"Nothing was switched: {error}. Run the play again.", **told)
    except OSError as error:
        module.fail_json(
            msg=f"Nothing was switched: {error.filename or root} cannot be written: {error.strerror}.", **told
        )
    if pruned.returncode != 0:
        module.warn(f"Old releases could not be removed: {pruned.stderr.strip()}")
    module.exit_json(
        changed=True,
        without_pictures_s=answer.get("without_pictures_s", 0),
        switch_warnings=answer.get("warnings", []),
        **told,
    )


if __name__ == "__main__":
    main()
