#!/usr/bin/python
"""Builds Camdock natively on the target: a virtual environment, whole and judged, or nothing.

Runs in: the target, as an Ansible module; standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import Busy, alone, complete, last_lines, without_secrets, write_whole

DOCUMENTATION = r"""
module: camdock_build
short_description: Build a virtual environment with Camdock in it
description:
  - NumPy first and from wheels only, under the pins that the source archive brings; then Camdock with its extras.
  - Every compiled module is judged before the build is called complete. One that would break with NumPy ends it.
  - What an interrupted run has left is removed first; two runs at once wait for each other.
options:
  root: {description: Folder of builds and releases., type: path, required: true}
  build: {description: The build's id., type: str, required: true}
  version: {description: Version of the source., type: str, required: true}
  archive: {description: The source archive on this host., type: path, required: true}
  extras: {description: Extras to install., type: list, elements: str, required: true}
  cache: {description: Folder of pip's cache., type: path, required: true}
  environment: {description: Variables for pip., type: dict, default: {}}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_build:
    {root: /opt/camdock, build: 0.1.0-0123456789ab, version: 0.1.0, archive: /var/cache/camdock/camdock.tar.gz,
     extras: [v4l2], cache: /var/cache/camdock/pip}
"""
RETURN = r"""
seconds: {description: How long it took., type: float, returned: changed}
log: {description: The last lines of the step that failed., type: list, returned: failure}
"""

PYTHON = "/usr/bin/python3"
WAIT_FOR_OTHERS_S = 900.0  # a first build on a Raspberry Pi 3 takes some minutes
_PR_SET_PDEATHSIG = 1
# A Pi's own cameras: a set of pins of its own, and of apt's packages the one that is on no index. By a link: an
# environment that saw all of apt's would see apt's NumPy.
PICAMERA2 = "picamera2"
BINDING = "/usr/lib/python3/dist-packages/libcamera"
_LEND = (
    "import os, sysconfig; os.listdir('{binding}'); "
    "os.symlink('{binding}', os.path.join(sysconfig.get_path('purelib'), 'libcamera'))"
)


class StepFailed(Exception):
    """One step of the build did not succeed.

    step  which, as a person calls it
    log   what it said last
    """

    def __init__(self, step: str, log: str) -> None:
        super().__init__(step)
        self.step, self.log = step, log


def environment(given: dict[str, Any], constraints: Path, cache: Path) -> dict[str, str]:
    """The variables of pip's process. The person's own win, but for what makes a build a build of these pins."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {
        **kept,
        "PIP_CACHE_DIR": str(cache),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        **{str(name): str(value) for name, value in given.items()},
        "PIP_CONSTRAINT": str(constraints),  # of the tools that make our wheel, too
        "LC_ALL": "C.UTF-8",
    }


def dies_with_us() -> None:
    """In a child, before it becomes another program: when this module is killed, so is what it runs."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def pins(source: Path, extras: list[str]) -> Path:
    """The exact versions that belong to these extras."""
    return source / (f"docker/pins/{PICAMERA2}.txt" if PICAMERA2 in extras else "constraints.txt")


def without_wheel(source: Path, extras: list[str]) -> list[str]:
    """What is compiled here: Camdock's own, and what the set of pins names with its reason."""
    if PICAMERA2 not in extras:
        return ["camdock"]
    text = pins(source, extras).with_suffix(".in").read_text("utf-8")
    return ["camdock", *re.findall(r"^--no-binary (\S+)", text, re.MULTILINE)]


def steps(folder: Path, source: Path, extras: list[str]) -> list[tuple[str, list[str]]]:
    """(what a person calls it, command) of every step, in order."""
    python = str(folder / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", str(pins(source, extras))]
    wheels = "--only-binary=:all:"
    compiled = f"--no-binary={','.join(without_wheel(source, extras))}"
    lend = ("lend it apt's libcamera", [python, "-c", _LEND.format(binding=BINDING)])
    return [
        ("make the virtual environment", [PYTHON, "-m", "venv", str(folder / "venv")]),
        *([lend] if PICAMERA2 in extras else []),
        ("install NumPy", [*pip, wheels, "numpy"]),
        ("install Camdock", [*pip, wheels, compiled, f"camdock[{','.join(sorted(extras))}] @ {source.as_uri()}"]),
        # Judges every compiled file as `camdock abi check --strict` does, and keeps the answer for every start.
        ("judge the compiled modules", [python, "-P", "-m", "camdock", "seal", "--all"]),
    ]


def explained(failed: StepFailed) -> str:
    """The sentence for a person: what happened, and what to do."""
    text = failed.log
    if "No space left on device" in text or "Errno 28" in text:
        return (
            f"The disk was full when it came to {failed.step}. The half-made build is removed; make room "
            "(`df -h`, `apt clean`) and run the play again."
        )
    if failed.step == "judge the compiled modules":
        return (
            "These pins do not belong together: a compiled module would break with the installed NumPy. Nothing was "
            "switched. The log says which, and which command mends it; change constraints.txt accordingly."
        )
    if BINDING in text:
        return (
            f"{BINDING} is not there, which picamera2 imports and no index has: `apt install python3-libcamera`, or "
            "let role video install it (video_pi_packages)."
        )
    if "No matching distribution" in text or "ResolutionImpossible" in text:
        return (
            f"pip could not {failed.step}: a pinned version is not to be had for this host, or pins contradict each "
            "other. The log names it."
        )
    return f"It failed to {failed.step}; the log says why. The half-made build is removed."


def run(command: list[str], variables: dict[str, str], lock: int) -> tuple[int, str]:
    """Run one command; its status and everything it said."""
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=variables, cwd="/", pass_fds=(lock,), preexec_fn=dies_with_us,
    )  # fmt: skip
    return done.returncode, done.stdout


def unpack(archive: Path, into: Path) -> Path:
    """Unpack the source archive; the one folder in it. Raises OSError, tarfile.TarError."""
    with tarfile.open(archive) as packed:
        # Not as an argument: the 3.11.2 of Debian 12 has none. It is our own archive, in a folder of root's.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(into)  # noqa: S202 - see above
    return next(one for one in into.iterdir() if one.is_dir())


def build(
    given: dict[str, Any], lock: int, runs: Callable[[list[str], dict[str, str], int], tuple[int, str]] = run
) -> None:
    """Build it; raises StepFailed, and leaves nothing behind then.

    runs  runs one command; another one in tests
    """
    folder = Path(given["root"]) / "builds" / given["build"]
    began = time.time()
    source = folder / "source"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        source.mkdir(parents=True)
        unpacked = unpack(Path(given["archive"]), source)
        pinned = pins(unpacked, given["extras"])
        variables = environment(given["environment"], pinned, Path(given["cache"]))
        for step, command in steps(folder, unpacked, given["extras"]):
            status, text = runs(command, variables, lock)
            if status != 0:
                raise StepFailed(step, text)
        shutil.copy2(pinned, folder / "constraints.txt")
        shutil.rmtree(source)
        said = {"build": given["build"], "mode": "native", "version": given["version"], "created": int(began)}
        os.sync()  # all of it is on the disk before it is called complete
        write_whole(folder / "complete", json.dumps(said) + "\n")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | tarfile.TarError):
            raise StepFailed("unpack the source", str(error)) from None
        raise


def remove_half_made(root: Path) -> list[str]:
    """Remove every build that was never completed; their names. Only whoever holds the lock may."""
    halves = [one for one in (root / "builds").iterdir() if one.is_dir() and complete(one) is None]
    for one in halves:
        shutil.rmtree(one, ignore_errors=True)
    return sorted(one.name for one in halves)


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "build": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "archive": {"type": "path", "required": True},
            "extras": {"type": "list", "elements": "str", "required": True},
            "cache": {"type": "path", "required": True},
            "environment": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
        no_log=True,  # the environment may carry a login
    )
    given = module.params
    root = Path(given["root"])
    folder = root / "builds" / given["build"]
    if complete(folder) is not None or module.check_mode:
        module.exit_json(changed=complete(folder) is None, invocation={})
    began = time.monotonic()
    try:
        with alone(root / "builds" / ".lock", WAIT_FOR_OTHERS_S) as lock:
            if complete(folder) is not None:  # whoever held the lock has made it
                module.exit_json(changed=True, invocation={})
            removed = remove_half_made(root)
            build(given, lock)
    except Busy as error:
        module.fail_json(
            msg=f"Not built: {error}. Wait for it, or end it (`fuser {root}/builds/.lock`).", invocation={}
        )
    except StepFailed as failed:
        module.fail_json(msg=without_secrets(explained(failed)), log=last_lines(failed.log), invocation={})
    module.exit_json(changed=True, seconds=round(time.monotonic() - began, 1), half_made_removed=removed, invocation={})


if __name__ == "__main__":
    main()
