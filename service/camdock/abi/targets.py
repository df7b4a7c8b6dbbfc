"""What can be judged: environments, folders, root file systems, wheels, shared objects, images. Opens them for reading.

Runs in: any process. Nothing of a target is imported or run; what must be unpacked goes to a temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from camdock.abi.docker import read_archive, read_named
from camdock.abi.environment import Environment, with_pth
from camdock.abi.image import ImageTree
from camdock.abi.layout import is_root, plain_folder, prefix_environment, root_system, versions, virtual_environment
from camdock.abi.tree import COMPILED, FolderTree, TargetUnreadable, Tree
from camdock.abi.wheel import WheelTree

__all__ = ["Target", "TargetUnreadable", "listed_paths", "open_target"]

_KINDS = (
    "a virtual environment, a folder, an unpacked root file system, a wheel, a shared object, "
    "or a Docker image (its name, or the archive that `docker save` makes)"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Something to judge.

    name          what people call it
    environments  each judged by its own NumPy; files may belong to several
    root          the folder of the tree that `file` in a report is relative to; "/": none, paths are absolute
    file          the one shared object that was asked for; None: all
    inside        the other system that it is, or is part of, in words; "": it is this machine's, or a plain folder
    """

    name: str
    tree: Tree
    environments: list[Environment]
    root: str = ""
    file: str | None = None
    inside: str = ""

    def to_type(self, command: str) -> str:
        """A command that is meant for the target, never to be taken for one about this machine's own files."""
        return f"inside {self.inside}: {command}" if command and self.inside else command

    def shown(self, path: str) -> str:
        """A path of the tree as a report names it."""
        if not self.root:
            return path
        return path[len(self.root) + 1 :] if path.startswith(self.root + "/") else f"/{path}"


@contextlib.contextmanager
def open_target(word: str | None) -> Iterator[Target]:
    """The target that a word names; None: the environment that this runs in. Raises TargetUnreadable."""
    if word is None:
        yield _running()
    elif os.path.isdir(word) and not os.path.isfile(os.path.join(word, "oci-layout")):
        yield _folder(word)
    elif os.path.exists(word):
        with _scratch() as scratch, contextlib.ExitStack() as closing:
            if os.path.isdir(word):
                yield _image(read_archive(word, scratch), word)
                return
            kind = _kind_of_file(word)
            if kind == "wheel":
                tree = WheelTree(word, scratch)
                closing.callback(tree.close)
                yield Target(word, tree, plain_folder(tree))
            elif kind == "object":
                yield _shared_object(word)
            else:
                yield _image(read_archive(word, scratch), word)
    elif word.startswith((".", "/", "~")) or word.endswith((".whl", ".tar", ".gz", ".so")):
        raise TargetUnreadable(f"{word} is not there. A target is {_KINDS}")
    else:
        with _scratch() as scratch:
            yield _image(read_named(word, scratch), word)


def listed_paths(paths: Sequence[str], python: str = sys.executable) -> Target:
    """An environment given by the folders of its path, in order; none of them need exist."""
    tree = FolderTree("/", "the path")
    absolute = [os.path.abspath(path).lstrip("/") for path in paths]
    return Target("the given path", tree, [Environment(tree, tuple(absolute), "", python)], root="/")


def _running() -> Target:
    paths = list(sys.path)
    # `python -m` puts the current folder first, a script its own: neither belongs to the environment.
    script = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and sys.argv[0] else ""
    first = paths[0] if paths else ""
    if not sys.flags.safe_path and os.path.abspath(first) in (os.getcwd(), script) and first not in paths[1:]:
        paths = paths[1:]
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    standard |= {os.path.join(folder, "lib-dynload") for folder in standard}
    tree = FolderTree("/", "this environment")
    given = [os.path.abspath(path) for path in paths if path and path not in standard and os.path.isdir(path)]
    packages = [*site.getsitepackages(), site.getusersitepackages()]
    _, hooks = with_pth(tree, [path.lstrip("/") for path in given if path in packages])
    environment = Environment(
        tree,
        tuple(path.lstrip("/") for path in given),
        "",
        sys.executable or "python3",
        sys.version_info[:2],
        virtual=sys.prefix != sys.base_prefix,
        hooks=tuple(hooks),
    )
    return Target(f"the running environment ({sys.prefix})", tree, [environment], root=sys.prefix.strip("/"))


def _folder(word: str) -> Target:
    folder = os.path.abspath(word)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise TargetUnreadable(f"{word} may not be read by this user")
    if os.path.isfile(os.path.join(folder, "pyvenv.cfg")):
        return _virtual(word, os.path.realpath(folder))
    tree = FolderTree(folder, word)
    if is_root(tree):
        return Target(word, tree, root_system(tree), inside=_other_system(tree))
    if found := [version for version in versions(tree, "") if tree.is_folder("bin") or tree.is_folder("conda-meta")]:
        return Target(word, tree, [prefix_environment(tree, "", f"{folder}/bin/python3", found[0])])
    return Target(word, tree, plain_folder(tree))


def _virtual(word: str, folder: str) -> Target:
    root = _enclosing_root(folder)
    tree = FolderTree(root, word)
    below = os.path.relpath(folder, root)
    environment = virtual_environment(tree, below, f"/{below}/bin/python")
    if environment is None:
        raise TargetUnreadable(f"{word}: its pyvenv.cfg cannot be read")
    return Target(word, tree, [environment], root=below, inside=_other_system(tree))


def _other_system(tree: FolderTree) -> str:
    return "" if tree.root == "/" else shlex.quote(tree.root)


def _enclosing_root(folder: str) -> str:
    """The unpacked root file system that a folder is inside of; "/" where there is none."""
    above = os.path.dirname(folder)
    while above != "/":
        if os.path.isdir(os.path.join(above, "usr")) and is_root(FolderTree(above)):
            return above
        above = os.path.dirname(above)
    return "/"


def _image(tree: ImageTree, word: str) -> Target:
    return Target(word, tree, root_system(tree, tree.variables.get("PYTHONPATH", "")), inside="the image")


def _shared_object(word: str) -> Target:
    """One file, with the environment around it: its NumPy, and the libraries beside it."""
    file = os.path.realpath(word)
    folder = os.path.dirname(file)
    above = folder
    while above != "/" and os.path.basename(above) not in ("site-packages", "dist-packages"):
        above = os.path.dirname(above)
    if above == "/":
        tree = FolderTree(folder, word)
        return Target(word, tree, [Environment(tree, ("",))], file=os.path.basename(file))
    prefix = os.path.dirname(os.path.dirname(os.path.dirname(above)))
    if os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        around = _virtual(prefix, prefix)
    else:
        tree = FolderTree("/", word)
        around = Target(word, tree, [Environment(tree, (above.lstrip("/"),))])
    inner = os.path.relpath(file, around.tree.root) if isinstance(around.tree, FolderTree) else file
    return Target(word, around.tree, around.environments, os.path.dirname(inner), inner, around.inside)


def _kind_of_file(word: str) -> str:
    try:
        descriptor = os.open(word, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not os.path.isfile(word):
                raise TargetUnreadable(f"{word} is a device, a pipe or a socket. A target is {_KINDS}")
            head = file.read(512)
    except OSError as error:
        raise TargetUnreadable(f"{word} cannot be opened: {error.strerror}") from error
    if word.endswith(".whl") or head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "wheel"
    if head[:4] == b"\x7fELF" or COMPILED.search(word):
        return "object"
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar" or word.endswith(".tar"):
        return "image"
    if head[:4] == b"\x28\xb5\x2f\xfd":
        raise TargetUnreadable(f"{word} is packed with zstd: unpack it first (`zstd -d {word}`)")
    raise TargetUnreadable(f"{word} is nothing that can be judged. A target is {_KINDS}")


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="camdock-abi-")
    except OSError as error:
        raise TargetUnreadable(f"no temporary folder can be made ({error}): set TMPDIR to one") from error
    with folder as scratch:
        yield scratch
