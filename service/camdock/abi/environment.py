"""What one Python would find: the folders on its path, in order, and every copy of NumPy in them. Imports nothing.

Runs in: any process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from camdock.abi.tree import COMPILED, Place, Tree

_VERSION = re.compile(r"^(?:full_)?version\s*(?::\s*\w+\s*)?=\s*['\"]([^'\"\n]{1,80})['\"]", re.MULTILINE)
_VERSIONEER = re.compile(r"['\"]version['\"]\s*:\s*['\"]([^'\"\n]{1,80})['\"]")
_METADATA = re.compile(r"^Version:[ \t]*(\S{1,80})", re.MULTILINE)
_RECORDED = re.compile(r"numpy-([^-]+)(?:-py[\d.]+)?(?:-[\w.]+)?\.(?:dist-info|egg-info)$", re.IGNORECASE)
_MODULE = re.compile(r"^([^.]+)\.(?:[^/]*\.)?so$")
_TAG = re.compile(r"\.cpython-(\d)(\d+)[a-z]*-[^/]*\.so$")
SITES = ("site-packages", "dist-packages")
_HOOK = re.compile(r"__editable__[\w.-]*|_editable_impl_\w+")
_PTH_LINES = 10_000  # of all .pth files of an environment


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled file on a path.

    entry   the folder of the path that it is found through
    module  the name it would be imported by ("cv2.cv2"); for a plain library its file's name
    """

    place: Place
    entry: str
    module: str

    @property
    def top(self) -> str:
        """The first part of the name, or of its folder below the entry: "numpy", "numpy.libs"."""
        below = self.place.path[len(self.entry) :].lstrip("/")
        return below.partition("/")[0] if "/" in below else self.module.partition(".")[0]


@dataclass(frozen=True, slots=True)
class NumPyCopy:
    """One copy of NumPy on a path.

    entry     the folder of the path that holds it
    version   what its own source says, or else its metadata; None where nothing does
    recorded  the versions of the metadata beside it: one, unless something went wrong
    """

    entry: str
    version: str | None
    recorded: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return f"{self.entry}/numpy" if self.entry else "numpy"

    @property
    def torn(self) -> bool:
        """Does the metadata speak of another version than the source: has one NumPy been copied over another?"""
        return bool(self.recorded) and any(not _same(version, self.version) for version in self.recorded)


@dataclass(slots=True)
class Environment:
    """A Python, as far as compiled modules are concerned.

    name     where it is, from the target's root; "" where there is only one
    paths    folders in the order in which an import searches them
    python   the command that reaches it
    version  of the language, (3, 11); None where not known
    numpys   every copy on the path; the first one wins
    hooks    import hooks of editable installs, which are not followed
    virtual  is it a virtual environment?
    apart    folders below that are environments of their own
    """

    tree: Tree
    paths: tuple[str, ...]
    name: str = ""
    python: str = "python3"
    version: tuple[int, int] | None = None
    virtual: bool = False
    hooks: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    numpys: list[NumPyCopy] = field(default_factory=list)
    _all: list[Compiled] | None = None

    def __post_init__(self) -> None:
        unique: dict[str, str] = {}
        for path in self.paths:
            real = self.tree.real(path)
            if real is not None:
                unique.setdefault(real, path)
        self.paths = tuple(unique.values())
        self.numpys = [copy for path in self.paths if (copy := _copy(self.tree, path))]

    @property
    def numpy(self) -> NumPyCopy | None:
        return self.numpys[0] if self.numpys else None

    def compiled(self, only: Iterable[str] = ()) -> list[Compiled]:
        """The compiled files on the path, each once. `only`: those of these top-level names."""
        if only:
            return list(self._compiled(frozenset(only)))
        if self._all is None:
            self._all = list(self._compiled(frozenset()))
        return self._all

    def provides(self, name: str) -> bool:
        """Is anything on the path imported by that top-level name, compiled or not?"""
        return any(name == found.partition(".")[0] for path in self.paths for found in self.tree.names(path))

    def _compiled(self, wanted: frozenset[str]) -> Iterator[Compiled]:
        reals = {real for path in self.paths if (real := self.tree.real(path)) is not None}
        reals |= {real for path in self.apart if (real := self.tree.real(path)) is not None}
        given: set[str] = set()
        hidden: set[str] = set()  # what folders searched before provide: imports end there
        for entry in self.paths:
            stops = reals | self._other_environments(entry)
            for start in self._starts(entry, wanted):
                places = self.tree.walk(start, stops) if self.tree.is_folder(start) else self._single(start)
                for place in places:
                    compiled = Compiled(place, entry, module_name(place.path, entry))
                    if place.real not in given and compiled.top.partition(".")[0] not in hidden:
                        given.add(place.real)
                        yield compiled
            if entry != self.paths[-1]:
                hidden |= self._provided(entry)

    def _provided(self, entry: str) -> set[str]:
        """The modules and packages of a folder, but for NumPy, whose hidden copies are spoken of.

        A folder without __init__ provides nothing: the import goes on and takes a package that has one.
        """
        return {
            name.partition(".")[0]
            for name in self.tree.names(entry)
            if COMPILED.search(name)
            or name.endswith(".py")
            or ("." not in name and self.tree.is_file(f"{_join(entry, name)}/__init__.py"))
        } - {"numpy"}

    def _starts(self, entry: str, wanted: frozenset[str]) -> list[str]:
        if not wanted:
            return [entry]
        return [
            _join(entry, name)
            for name in self.tree.names(entry)
            if name.partition(".")[0] in wanted and (COMPILED.search(name) or name in wanted)
        ]

    def _single(self, path: str) -> Iterator[Place]:
        found = self.tree.resolve(path)
        if found is not None and found[1] == "file":
            yield Place(path, found[0])

    def _other_environments(self, entry: str) -> set[str]:
        """Folders just below an entry that are environments of their own: ".venv" of a project on the path."""
        if entry.rpartition("/")[2] in SITES:
            return set()
        found = set()
        for name in self.tree.names(entry):
            below = _join(entry, name)
            if self.tree.is_file(f"{below}/pyvenv.cfg") and (real := self.tree.real(below)):
                found.add(real)
        return found

    def loads(self, file: str) -> bool:
        """Would this Python load a file of that name? Its name may say that it is for another one."""
        tag = _TAG.search(file)
        return tag is None or self.version is None or (int(tag[1]), int(tag[2])) == self.version


def module_name(path: str, entry: str) -> str:
    """The name that a file below an entry is imported by."""
    below = path[len(entry) :].lstrip("/")
    folder, _, name = below.rpartition("/")
    match = _MODULE.match(name)
    if match is None or ".libs/" in below:
        return name
    return ".".join([*(folder.split("/") if folder else ()), match[1]])


def with_pth(tree: Tree, sites: Iterable[str]) -> tuple[list[str], list[str]]:
    """The folders and those that their .pth files add, in Python's order; and the import hooks named there."""
    paths: list[str] = []
    hooks: list[str] = []
    left = _PTH_LINES
    for site in sites:
        if site in paths:
            continue
        paths.append(site)
        for name in tree.names(site):
            if not name.endswith(".pth") or name.startswith("."):
                continue
            for line in (tree.text(_join(site, name), limit=1 << 20) or "").splitlines()[:left]:
                left -= 1
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                if line.startswith(("import ", "import\t")):
                    if hook := _HOOK.search(name + " " + line):
                        hooks.append(hook[0])
                    continue
                added = line.strip("/") if line.startswith("/") else _join(site, line.rstrip("/"))
                if ".." in added.split("/") or "." in added.split("/"):
                    added = tree.real(added) or added
                if tree.is_folder(added) and added not in paths:
                    paths.append(added)
    return paths, hooks


def _copy(tree: Tree, entry: str) -> NumPyCopy | None:
    folder = _join(entry, "numpy")
    if not tree.is_file(f"{folder}/__init__.py"):
        return None
    recorded: dict[str, None] = {}
    for name in tree.names(entry):
        match = _RECORDED.match(name)
        if match is None:
            continue
        below = _join(entry, name)
        inner = "METADATA" if name.endswith(".dist-info") else "PKG-INFO"
        text = tree.text(f"{below}/{inner}", 1 << 16) or tree.text(below, 1 << 16) or ""
        said = _METADATA.search(text)
        recorded[said[1] if said else match[1]] = None
    source = _VERSION.search(tree.text(f"{folder}/version.py", 1 << 16) or "")
    if source is None:  # NumPy 1.20 to 1.25 keep it in the file that versioneer writes
        source = _VERSIONEER.search(tree.text(f"{folder}/_version.py", 1 << 16) or "")
    version = source[1] if source else next(iter(recorded), None)
    return NumPyCopy(entry, version, tuple(recorded))


def _same(one: str, other: str | None) -> bool:
    if other is None:
        return False
    try:
        return Version(one).public == Version(other).public
    except InvalidVersion:
        return one == other


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
