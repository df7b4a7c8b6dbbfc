#!/usr/bin/python
"""Reads what is in a `docker save` file, without an engine.

Runs in: the controller, as an Ansible module delegated to localhost; standard library only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: camdock_archive
short_description: Read the image in a docker save file
description:
  - Says which image an archive holds, for which architecture, and how large it will be, before it is copied anywhere.
  - Plain, gzip, bzip2, xz; zstd where the program zstd is installed.
options:
  path:
    description: The file on the controller.
    type: path
    required: true
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_archive: {path: camdock.tar.gz}
  delegate_to: localhost
"""
RETURN = r"""
image: {description: SHA-256 of the image's configuration., type: str, returned: success}
architecture: {description: As the image names it, amd64 or arm64., type: str, returned: success}
version: {description: The label org.opencontainers.image.version, or an empty text., type: str, returned: success}
sha256: {description: Of the file., type: str, returned: success}
bytes: {description: Size of the file., type: int, returned: success}
path: {description: The file, wherever the play is run from., type: str, returned: success}
unpacked: {description: Bytes of all its layers., type: int, returned: success}
problem: {description: A sentence when it cannot be used, else an empty text., type: str, returned: always}
"""

ZSTD = b"\x28\xb5\x2f\xfd"
LARGEST_JSON = 4 << 20
LARGEST_KEPT = 64  # files of the archive that may be the configuration of one of its images


class ArchiveUnusable(Exception):
    """This file holds no image that can be deployed; the message says why."""


class Summed:
    """A file that is read once, and whose checksum is known afterwards."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sums = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read, and count it in."""
        part = self._file.read(size)
        self._sums.update(part)
        return part

    def rest(self) -> str:
        """Read what is left; the checksum of all of it."""
        while self.read(1 << 20):
            pass
        return self._sums.hexdigest()


def configuration(stream: Any) -> tuple[str, dict[str, Any], int]:
    """(digest, configuration, unpacked bytes) of the one image in a tar stream; raises ArchiveUnusable."""
    small: dict[str, bytes] = {}
    total = 0
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for entry in archive:
            total += entry.size
            # The configuration is JSON of some kilobytes; layers are tar files. It may come before the manifest.
            if entry.isfile() and entry.size < LARGEST_JSON and (len(small) < LARGEST_KEPT or "manifest" in entry.name):
                read = archive.extractfile(entry)
                content = read.read() if read else b""
                if content[:1] in (b"{", b"["):
                    small[entry.name.removeprefix("./")] = content
    if "manifest.json" not in small:
        raise ArchiveUnusable("it has no manifest.json, so `docker save` did not make it")
    manifests = json.loads(small["manifest.json"])
    if not isinstance(manifests, list) or len(manifests) != 1:
        raise ArchiveUnusable("it holds more than one image: save the one that is meant")
    config = small.get(str(manifests[0]["Config"]))
    if config is None:
        raise ArchiveUnusable("the image's configuration is missing in it")
    return hashlib.sha256(config).hexdigest(), json.loads(config), total


def read(path: Path) -> dict[str, Any]:
    """What the module returns; raises ArchiveUnusable with the reason."""
    try:
        with path.open("rb") as file:
            compressed = file.read(4) == ZSTD
            file.seek(0)
            summed = Summed(file)
            if compressed:
                program = shutil.which("zstd")
                if program is None:
                    raise ArchiveUnusable("it is compressed by zstd, which is not installed here: apt install zstd")
                with subprocess.Popen([program, "-dc", str(path)], stdout=subprocess.PIPE) as unpacked:
                    image, config, total = configuration(unpacked.stdout)
                    while unpacked.stdout and unpacked.stdout.read(1 << 20):
                        pass  # or zstd would wait for a reader
            else:
                image, config, total = configuration(summed)
            sums = summed.rest()
            size = file.tell()
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else f"it is no whole tar file ({error})"
        )
        raise ArchiveUnusable(reason) from None
    except (ValueError, LookupError, TypeError) as error:
        raise ArchiveUnusable(f"what it says about its image cannot be read ({error!r})") from None
    labels = (config.get("config") or {}).get("Labels") or {}
    return {
        "image": image,
        "architecture": str(config.get("architecture", "")),
        "version": str(labels.get("org.opencontainers.image.version", "")),
        "sha256": sums,
        "bytes": size,
        "unpacked": total,
    }


def main() -> None:
    """The module."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = Path(module.params["path"])
    try:
        module.exit_json(changed=False, problem="", path=str(path.resolve()), **read(path))
    except ArchiveUnusable as error:
        module.exit_json(
            changed=False,
            problem=f"The image archive {path} cannot be used: {error}. "
            "Make one: docker save camdock | gzip > camdock.tar.gz",
        )


if __name__ == "__main__":
    main()
