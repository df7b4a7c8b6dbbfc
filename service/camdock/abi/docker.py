"""Where images come from: archives that `docker save` made, OCI layouts, and the `docker` command. Runs no container.

Runs in: any process; runs `docker save` for an image that is given by name.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import subprocess
import tarfile
import zlib
from typing import IO

from camdock.abi.image import Ending, Header, ImageReader, ImageTree, Joined
from camdock.abi.tree import TargetUnreadable, clean

_NAME = re.compile(r"[A-Za-z0-9][\w.:/@-]*")


def read_archive(path: str, scratch: str) -> ImageTree:
    """The image in an archive (.tar, .tar.gz) or in the folder of an OCI layout. Raises TargetUnreadable."""
    reader = ImageReader(path, scratch)
    if os.path.isdir(path):
        for folder, _, names in os.walk(path):
            for name in names:
                full = os.path.join(folder, name)
                if os.path.isfile(full) and not os.path.islink(full):
                    with open(full, "rb") as content:
                        reader.member(os.path.relpath(full, path), content, os.path.getsize(full))
        return reader.tree()
    try:
        with open(path, "rb") as file:
            return _read_stream(reader, file)
    except OSError as error:
        raise TargetUnreadable(f"{path} cannot be read: {error.strerror or error}") from error


def _read_stream(reader: ImageReader, stream: IO[bytes]) -> ImageTree:
    head = stream.read(2)
    whole: IO[bytes] | Joined | gzip.GzipFile = Joined(head, stream)
    if head == b"\x1f\x8b":  # tarfile's own guess would also unpack bzip2 and xz, which may take any memory
        whole = gzip.GzipFile(fileobj=whole)
    try:
        with tarfile.open(fileobj=Ending(whole), mode="r|", tarinfo=Header) as archive:
            for count, member in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]
                reader.count(member.size)
                if count > 100_000:
                    raise TargetUnreadable(f"{reader.name} is no image: more than 100,000 files")
                name = clean(member.name)
                if not name:
                    continue
                if member.issym() or member.islnk():  # an older `docker save` links a layer that it has saved already
                    above = name.rpartition("/")[0] if member.issym() else ""
                    reader.links[name] = os.path.normpath(os.path.join(above, member.linkname))
                elif member.isreg():
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file has content
                    reader.member(name, content, member.size)
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise TargetUnreadable(
            f"{reader.name} is no archive that can be read ({error}): truncated or damaged; save it again"
        ) from error
    return reader.tree()


def read_named(name: str, scratch: str) -> ImageTree:
    """The image that the `docker` command knows by this name, without a container. Raises TargetUnreadable."""
    if not _NAME.fullmatch(name):
        raise TargetUnreadable(f"{name} is no file or folder here, and no name of an image either")
    docker = shutil.which("docker")
    if docker is None:
        raise TargetUnreadable(
            f"{name} is no file or folder here; for the name of an image the `docker` command is missing"
        )
    tail = name.rpartition("/")[2]
    full = name if ":" in tail or "@" in tail else f"{name}:latest"  # without a tag docker would save them all
    with subprocess.Popen(
        [docker, "save", full], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None  # both are pipes
        assert process.stderr is not None
        try:
            tree = _read_stream(ImageReader(name, scratch), process.stdout)
            process.stdout.close()
            unreadable = None
        except TargetUnreadable as error:
            tree, unreadable = None, error
        except BaseException:  # interrupted, terminated: leaving would wait for docker to end by itself
            process.kill()
            raise
        if unreadable is not None and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it may be about to say why there was nothing
                process.wait(timeout=1)
            process.kill()
        words = process.stderr.read(4096).decode(errors="replace").strip()
        if process.wait() > 0 and words:
            raise TargetUnreadable(f"{name} is no file or folder here, and `docker save {full}` says: {words}")
        if tree is None:
            assert unreadable is not None
            raise unreadable
    return tree
