#!/usr/bin/python
"""Packs the service's source as one archive whose bytes depend on nothing but its files, and judges camera sources.

Runs in: the controller, as an Ansible module delegated to localhost; standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import sys
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import write_whole

DOCUMENTATION = r"""
module: camdock_source
short_description: Pack the service's source into a deterministic archive
description:
  - The same files give the same bytes, from a git clone and from an unpacked release alike.
  - Looks at the configured camera sources with the service's own rules before any host is touched.
options:
  root:
    description: Folder of the project, the one with pyproject.toml.
    type: path
    required: true
  dest:
    description: Folder on the controller that keeps the archive; without it nothing is written.
    type: path
  source:
    description: The one camera's source, to be judged.
    type: str
    default: auto
  sources:
    description: Several cameras instead, as NAME=SOURCE with spaces between.
    type: str
    default: ""
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_source: {root: "{{ playbook_dir }}/..", source: "v4l2:/dev/video0"}
  delegate_to: localhost
"""
RETURN = r"""
version: {description: What camdock says its version is., type: str, returned: always}
digest: {description: SHA-256 over names, modes and contents., type: str, returned: always}
path: {description: The archive., type: str, returned: with dest}
cameras: {description: Names of the cameras, the default one first., type: list, returned: always}
kinds: {description: Kinds of their sources, such as v4l2., type: list, returned: always}
problems: {description: Sentences about sources that cannot work., type: list, returned: always}
"""

PAPERS = (
    "pyproject.toml", "constraints.txt", "README.md", "LICENSE",
    "docker/pins/picamera2.in", "docker/pins/picamera2.txt",
)  # fmt: skip
CODE = "service/camdock"
LEFT_OUT = re.compile(r"(^|/)(__pycache__|\.[^/]*|[^/]*~|[^/]*\.(pyc|pyo|egg-info|orig|rej))(/|$)")
MADE = 946684800  # every file's date: 2000-01-01, as in the images
KEPT = 3  # archives on the controller
ONE_CAMERA = "camera"  # as the service calls it where only one is configured


class SourceMissing(Exception):
    """A file that the archive needs is not there; the message names it."""


def files(root: Path) -> list[tuple[str, int, bytes]]:
    """(name, mode, content) of everything that goes in, sorted by name; raises SourceMissing."""
    found: list[tuple[str, int, bytes]] = []
    for name in PAPERS:
        if not (root / name).is_file():
            raise SourceMissing(f"{root} is not the folder of the project: {name} is not there")
        found.append((name, 0o644, (root / name).read_bytes()))
    code = root / CODE
    if not (code / "__init__.py").is_file():
        raise SourceMissing(f"{root} is not the folder of the project: {CODE}/__init__.py is not there")
    for folder, below, names in os.walk(code):
        below.sort()
        for one in names:
            path = Path(folder, one)
            name = str(path.relative_to(root))
            if path.is_file() and not LEFT_OUT.search(name):
                found.append((name, 0o755 if os.access(path, os.X_OK) else 0o644, path.read_bytes()))
    return sorted(found)


def digest(found: list[tuple[str, int, bytes]]) -> str:
    """SHA-256 over the files themselves: gzip's bytes differ between versions of zlib."""
    sums = hashlib.sha256()
    for name, mode, content in found:
        sums.update(f"{name}\0{mode:o}\0{len(content)}\0".encode() + content)
    return sums.hexdigest()


def pack(found: list[tuple[str, int, bytes]], version: str) -> bytes:
    """The archive, with one folder in it as pip wants it."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=MADE, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, mode, content in found:
            entry = tarfile.TarInfo(f"camdock-{version}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), mode, MADE
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def version_of(found: list[tuple[str, int, bytes]]) -> str:
    """camdock.__version__, read and not imported; raises SourceMissing."""
    text = next(content for name, _, content in found if name == f"{CODE}/__init__.py").decode()
    said = re.search(r'^__version__\s*=\s*["\']([0-9A-Za-z.+!_-]+)["\']', text, re.MULTILINE)
    if said is None:
        raise SourceMissing(f"{CODE}/__init__.py has no line __version__ = ...")
    return said[1]


def write(folder: Path, name: str, content: bytes) -> Path:
    """Keep an archive whole or not at all; older ones go. Returns its path; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    write_whole(path, content, 0o600)
    kept = sorted(folder.glob("camdock-*.tar.gz"), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in kept[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def judge(root: Path, source: str, sources: str) -> tuple[dict[str, str], list[str]]:
    """(kind of source by name of the camera, what is wrong with their sources), by the service's own rules."""
    sys.path.insert(0, str(root / "service"))
    try:
        from camdock.source import Source, SourceInvalid, parse_sources
    finally:
        sys.path.pop(0)
    try:
        if sources.strip():
            return {name: one.kind for name, one in parse_sources(sources).items()}, []
        return {ONE_CAMERA: Source.parse(source).kind}, []
    except SourceInvalid as error:
        words = str(error).replace("CAMDOCK_SOURCES", "deploy_sources").rstrip(".")
        return {}, [f"{'deploy_sources' if sources.strip() else 'deploy_source'} cannot work: {words}."]


def main() -> None:
    """The module."""
    # Sources may carry a camera's password: nothing of them is logged or handed back.
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "dest": {"type": "path"},
            "source": {"type": "str", "default": "auto"},
            "sources": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
        no_log=True,
    )
    root = Path(module.params["root"]).resolve()
    sys.dont_write_bytecode = True  # nothing of ours is left in a clone
    try:
        found = files(root)
        version, sums = version_of(found), digest(found)
        cameras, problems = judge(root, module.params["source"], module.params["sources"])
        result = {
            "version": version, "digest": sums, "cameras": list(cameras), "kinds": sorted(set(cameras.values())),
            "problems": problems,
        }  # fmt: skip
        if module.params["dest"] and not module.check_mode:
            folder = Path(module.params["dest"])
            path = folder / f"camdock-{version}-{sums[:12]}.tar.gz"
            result["path"] = str(path if path.exists() else write(folder, path.name, pack(found, version)))
    except SourceMissing as error:
        module.fail_json(
            msg=f"{error}. Run the play from a clone or an unpacked release of the project.", invocation={}
        )
    except OSError as error:
        module.fail_json(msg=f"The source cannot be packed: {error}.", invocation={})
    module.exit_json(changed=False, invocation={}, **result)


if __name__ == "__main__":
    main()
