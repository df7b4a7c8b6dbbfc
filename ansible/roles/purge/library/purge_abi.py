#!/usr/bin/python
"""The module purge_abi: asks `camdock abi check` about the system's Python and about virtual environments of a host."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: purge_abi
short_description: Which compiled modules on this host break with the NumPy that they meet
description:
  - Runs `camdock abi check`, which an action plugin of the same name has brought along, with the host's own Python.
    Nothing that it judges is loaded, and nothing is changed or installed.
  - The two libraries that read ELF files and machine code come from the host's own package source; they are unpacked
    below /var/cache/camdock (in check mode into a temporary folder), not installed.
  - Where it cannot be asked, the answer says why. That is never a failure.
options:
  environments: {description: Paths of virtual environments., type: list, elements: str, default: []}
  below: {description: Folders to look for more of them in., type: list, elements: str, default: []}
  tool: {description: Set by the action plugin., type: path, required: true}
author: The Camdock authors
"""

RETURN = r"""
why_not: {description: Why it could not be asked; empty where it was., type: str}
targets: {description: "What was judged - target, numpy, error, and broken with an entry per package.", type: list}
"""

CACHE = "/var/cache/camdock/abi"
SYSTEM = "the system's Python"
# Debian's binding to the disassembler asks for it and uses nothing of it; Python 3.11 on Debian has only half of it.
STAND_INS = {"distutils/__init__.py": "", "distutils/sysconfig.py": ""}
PACKAGES = ("python3-pyelftools", "python3-capstone")
BAD = ("breaks", "breaks-on-use", "hazard")


class Unable(Exception):
    """The tool cannot be had on this host; the message says why."""


def libraries(folder: str) -> None:
    """Fetch what the tool needs into a folder: libraries.zip, and libcapstone beside it. Raises Unable.

    A zip, because folders on Python's path would be judged together with the environment.
    """
    with tempfile.TemporaryDirectory(prefix="camdock-apt-") as scratch:
        try:
            _fetch(scratch, [])
        except Unable:
            # The host's lists may be old or absent; they are not this module's to renew.
            os.makedirs(f"{scratch}/lists/partial")
            own = ["-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}"]
            _run(["apt-get", *own, "--quiet", "update"], scratch)
            _fetch(scratch, own)
        for name in glob.glob(f"{scratch}/*.deb"):
            _run(["dpkg-deb", "--extract", name, f"{scratch}/root"], scratch)
        os.makedirs(folder, exist_ok=True)
        for name in glob.glob(f"{scratch}/root/usr/lib/*/libcapstone.so.*"):
            shutil.copy(name, folder)
        python = f"{scratch}/root/usr/lib/python3/dist-packages"
        with zipfile.ZipFile(f"{folder}/libraries.zip", "w") as archive:
            for path, text in STAND_INS.items():
                archive.writestr(path, text)
            for above, _, names in os.walk(python):
                for name in names:
                    if name.endswith(".py"):
                        archive.write(f"{above}/{name}", os.path.relpath(f"{above}/{name}", python))


def _fetch(scratch: str, options: Sequence[str]) -> None:
    """Download the packages, and the library that the disassembler's binding is linked to: its name has a version."""
    text = _run(["apt-cache", *options, "depends", PACKAGES[1]], scratch)
    linked = re.findall(r"Depends: (libcapstone\w+)", text)
    _run(["apt-get", *options, "--quiet", "download", *PACKAGES, *linked[:1]], scratch)


def _run(words: Sequence[str], folder: str) -> str:
    done = subprocess.run(
        words, cwd=folder, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode != 0:
        complaints = [line[3:] for line in done.stdout.splitlines() if line.startswith("E: ")]
        raise Unable(f"`{words[0]}` cannot fetch {' and '.join(PACKAGES)}: {' / '.join(complaints) or done.stdout}")
    return done.stdout


def cached(*, keep: bool, scratch: str) -> str:
    """The folder with the tool's libraries: the one kept on this host, else a new one, kept if that is wanted."""
    if os.path.isfile(f"{CACHE}/libraries.zip"):
        return CACHE
    if not keep:
        libraries(scratch)
        return scratch
    os.makedirs(os.path.dirname(CACHE), 0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(CACHE)) as fresh:
        libraries(f"{fresh}/abi")
        shutil.rmtree(CACHE, ignore_errors=True)
        os.rename(f"{fresh}/abi", CACHE)
    return CACHE


def asked(tool: str, folder: str, targets: Sequence[str]) -> list[dict[str, Any]]:
    """What `camdock abi check` says about the targets; none: about the system's Python. Raises Unable."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": f"{tool}:{folder}/libraries.zip",
        "PYTHONNOUSERSITE": "1",  # what root has in its own home is none of the service's
        "LD_LIBRARY_PATH": folder,
    }
    done = subprocess.run(
        ["/usr/bin/python3", "-W", "ignore", "-m", "camdock.abi", "check", "--json", *targets],
        cwd="/", env=environment, check=False, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    try:
        said = json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip().splitlines()[-1]}
    except (ValueError, IndexError) as error:
        raise Unable(f"camdock abi check ended with {done.returncode}: {done.stderr.strip()[-500:]}") from error
    if "targets" in said:
        return list(said["targets"])
    return [{"target": targets[0] if targets else SYSTEM, **said}]


def summary(said: dict[str, Any]) -> dict[str, Any]:
    """A target's report in short: what is broken, one line for each package and fix."""
    broken: dict[tuple[str, str], list[dict[str, str]]] = {}
    for one in said.get("modules", []):
        if one["verdict"] in BAD:
            broken.setdefault((one["package"] or one["module"], one["fix"]), []).append(one)
    lines = [
        {
            "package": package,
            "what": _shown([one["module"] for one in modules]) + " " + _said(modules[0]["verdict"]),
            "because": modules[0]["evidence"],
            "fix": fix,
        }
        for (package, fix), modules in broken.items()
    ]
    lines += [
        {"package": "", "what": one["message"], "because": "", "fix": one["fix"]}
        for one in said.get("findings", [])
        if one["rule"] not in ("editable-hook", "link-outside")
    ]
    return {
        "target": said["target"],
        "numpy": said.get("numpy") or "",
        "error": said.get("error", ""),
        "broken": lines,
    }


def _shown(modules: list[str]) -> str:
    more = f" and {len(modules) - 2} more" if len(modules) > 2 else ""
    return ", ".join(modules[:2]) + more


def _said(verdict: str) -> str:
    return {"breaks": "cannot be imported", "breaks-on-use": "breaks when used"}.get(verdict, "gives wrong data")


def environments(named: Iterable[str], below: Iterable[str]) -> list[str]:
    """The environments to judge: those named, then those found, each once."""
    found = [
        os.path.dirname(path)
        for folder in below
        for depth in ("*", "*/*", "*/*/*")
        for path in sorted(glob.glob(f"{folder}/{depth}/pyvenv.cfg"))
    ]
    known: dict[str, str] = {}
    for path in [*named, *found]:
        known.setdefault(os.path.realpath(path), path)
    return list(known.values())


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            "environments": {"type": "list", "elements": "str", "default": []},
            "below": {"type": "list", "elements": "str", "default": []},
            "tool": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    targets: list[dict[str, Any]] = []
    why_not = ""
    try:
        with tempfile.TemporaryDirectory(prefix="camdock-abi-") as scratch:
            folder = cached(keep=not module.check_mode, scratch=scratch)
            targets += asked(module.params["tool"], folder, [])
            targets[0]["target"] = SYSTEM
            if named := environments(module.params["environments"], module.params["below"]):
                targets += asked(module.params["tool"], folder, named)
    except (Unable, OSError) as error:
        why_not = str(error)
    module.exit_json(changed=False, why_not=why_not, targets=[summary(one) for one in targets])


if __name__ == "__main__":
    main()
