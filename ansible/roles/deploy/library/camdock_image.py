#!/usr/bin/python
"""Brings the image of a container build to the target's engine: from an archive, or by digest from a registry.

Runs in: the target, as an Ansible module; standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import Busy, alone, complete, last_lines, without_secrets, write_whole

DOCUMENTATION = r"""
module: camdock_image
short_description: Load or pull Camdock's image
description:
  - The build is complete once the engine has the image and it is for this host's architecture.
  - An image that somebody has removed from the engine is brought again.
options:
  root: {description: Folder of builds and releases., type: path, required: true}
  build: {description: The build's id., type: str, required: true}
  archive: {description: The docker save file on this host., type: path}
  image: {description: Image by digest., type: str, default: ""}
  architecture: {description: As dpkg names the host's., type: str, required: true}
  environment: {description: Variables for docker., type: dict, default: {}}
  only_look: {description: Whether the engine has it, and nothing else., type: bool, default: false}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_image: {root: /opt/camdock, build: 0.1.0-0123456789ab, archive: /var/cache/camdock/x, architecture: amd64}
"""
RETURN = r"""
image: {description: The reference that the engine keeps it by., type: str, returned: success}
version: {description: The version that the image says it is., type: str, returned: success}
limits: {description: What the engine can limit., type: dict, returned: when it was only looked}
here: {description: Whether the engine had it already., type: bool, returned: success}
log: {description: What docker said last., type: list, returned: failure}
"""

REPOSITORY = "camdock-release"  # a name of its own keeps the image when somebody prunes what has none
WAIT_FOR_OTHERS_S = 900.0


class ImageUnusable(Exception):
    """The image cannot be had, or is not for this host.

    log  what docker said
    """

    def __init__(self, sentence: str, log: str = "") -> None:
        super().__init__(sentence)
        self.log = log


def docker(*words: str, variables: dict[str, str] | None = None) -> tuple[int, str]:
    """Run docker; status and everything it said."""
    try:
        done = subprocess.run(
            ["docker", *words], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env={**os.environ, **(variables or {})},
        )  # fmt: skip
    except OSError as error:
        return 127, f"docker: {error.strerror}"
    return done.returncode, done.stdout


def inspected(reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None where it has none of that name."""
    status, text = docker("image", "inspect", reference)
    if status != 0:
        return None
    found: dict[str, Any] = json.loads(text)[0]
    return found


def limits() -> dict[str, Any]:
    """What the engine can limit on this kernel, and by how many processors: it refuses what it cannot."""
    status, text = docker("info", "--format", "{{.CPUCfsQuota}} {{.PidsLimit}} {{.NCPU}}")
    words = text.split()
    if status != 0 or len(words) != 3:  # not there yet: a check before the first deployment
        return {"cpus": True, "pids": True, "processors": os.cpu_count() or 1}
    return {"cpus": words[0] == "true", "pids": words[1] == "true", "processors": int(words[2])}


def bring(given: dict[str, Any]) -> str:
    """Load or pull it; the name by which the engine knows it now. Raises ImageUnusable."""
    variables = {str(name): str(value) for name, value in given["environment"].items()}
    if given["archive"]:
        status, text = docker("load", "--input", given["archive"], variables=variables)
        found = re.search(r"^Loaded image(?: ID)?: (\S+)$", text, re.MULTILINE)
        name = found[1] if found else ""
        why = "The engine could not load the image archive; the log says why."
    else:
        name = str(given["image"])
        status, text = docker("pull", "--quiet", name, variables=variables)
        why = f"The engine could not pull {name}; the log says why (where it is a login: `docker login` on the host)."
    if status == 0 and name:
        return name
    if "no space left" in text:
        why = "The disk was full while the image was unpacked. Make room (`docker image prune`) and run the play again."
    raise ImageUnusable(why, text)


def judged(reference: str, architecture: str) -> dict[str, Any]:
    """The image as the engine knows it; raises ImageUnusable when it is not one for this host."""
    about = inspected(reference)
    if about is None:
        raise ImageUnusable(f"The engine took {reference} and does not have it now.")
    if about["Architecture"] != architecture:
        raise ImageUnusable(
            f"{reference} is for {about['Architecture']}, and this host is {architecture}: take the digest of the "
            f"image for linux/{architecture}."
        )
    return about


def version_of(about: dict[str, Any]) -> str:
    """What an image says its version is."""
    return str(((about.get("Config") or {}).get("Labels") or {}).get("org.opencontainers.image.version", "unknown"))


def make(given: dict[str, Any]) -> dict[str, Any]:
    """Bring the image and call the build complete; what the module returns. Raises ImageUnusable, OSError."""
    is_new = not given["archive"] and inspected(given["image"]) is None
    about = judged(bring(given), given["architecture"])
    name = f"{REPOSITORY}:{given['build']}"
    status, text = docker("tag", about["Id"], name)
    if status != 0:
        raise ImageUnusable(f"The engine could not name the image {name}; the log says why.", text)
    folder = Path(given["root"]) / "builds" / given["build"]
    folder.mkdir(parents=True, exist_ok=True)
    version = version_of(about)
    said = {
        "build": given["build"], "mode": "container", "version": version, "created": int(time.time()),
        "image": name, "id": about["Id"],
    }  # fmt: skip
    write_whole(folder / "complete", json.dumps(said) + "\n")
    if is_new:  # by its digest the engine would keep it when old releases are pruned
        docker("image", "rm", given["image"])
    return {"image": name, "version": version}


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "build": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "image": {"type": "str", "default": ""},
            "architecture": {"type": "str", "required": True},
            "environment": {"type": "dict", "default": {}},
            "only_look": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        no_log=True,  # the environment may carry a login
    )
    given = module.params
    root = Path(given["root"])
    folder = root / "builds" / given["build"]
    said = complete(folder)
    about = inspected(said["image"]) if said else None
    if said and about and about["Id"] == said["id"]:
        module.exit_json(
            changed=False, here=True, image=said["image"], version=said["version"], limits=limits(), invocation={}
        )
    if module.check_mode or given["only_look"]:
        name = f"{REPOSITORY}:{given['build']}"
        version = "unknown until it is here"
        changed = not given["only_look"]
        module.exit_json(changed=changed, here=False, image=name, version=version, limits=limits(), invocation={})
    try:
        with alone(root / "builds" / ".lock", WAIT_FOR_OTHERS_S):
            result = make(given)
    except Busy as error:
        module.fail_json(msg=f"The image was not brought: {error}. Wait for it and run the play again.", invocation={})
    except ImageUnusable as error:
        if complete(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        module.fail_json(msg=without_secrets(str(error)), log=last_lines(error.log), invocation={})
    except OSError as error:
        module.fail_json(msg=f"The build folder {folder} cannot be written: {error.strerror}.", invocation={})
    module.exit_json(changed=True, here=False, invocation={}, **result)


if __name__ == "__main__":
    main()
