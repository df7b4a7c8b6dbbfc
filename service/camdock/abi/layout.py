"""Where a Python keeps its packages: virtual environments, prefixes, and whole root file systems.

Runs in: any process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from camdock.abi.environment import Environment, with_pth
from camdock.abi.tree import FolderTree, Tree

_LIBRARY = re.compile(r"python3\.(\d+)t?$")
_CONFIG = re.compile(r"(?:^|/)pyvenv\.cfg$")
_NUMPY = re.compile(r"^(?:__init__\.py|pyvenv\.cfg)$")
# Of a whole system: what is no file at all, or would take long to walk and holds no Python.
_NOT_WALKED = ("proc", "sys", "dev", "run", "tmp", "usr/share", "usr/include", "boot", "var/lib/docker", "lost+found")


def is_root(tree: Tree) -> bool:
    """Does it look like the root of a system?"""
    marks = ("etc/debian_version", "etc/os-release", "var/lib/dpkg/status", "usr/lib/os-release")
    if any(tree.is_file(mark) for mark in marks) and (tree.is_folder("usr") or tree.is_folder("lib")):
        return True
    return any(versions(tree, prefix) or tree.is_folder(f"{prefix}/lib/python3") for prefix in ("usr", "usr/local"))


def versions(tree: Tree, prefix: str) -> list[tuple[int, int]]:
    """The Pythons that keep something below a prefix, newest first."""
    found = {
        (3, int(match[1]))
        for lib in ("lib", "lib64")
        for name in tree.names(_join(prefix, lib))
        if (match := _LIBRARY.fullmatch(name))
    }
    return sorted(found, reverse=True)


def sites(tree: Tree, prefix: str, version: tuple[int, int] | None) -> list[str]:
    """Where the Python of a prefix keeps packages, in the order of its sys.path; only what exists.

    Debian's own Python has three folders, its users' in usr/local first; every other one has site-packages.
    """
    seen = [version] if version else versions(tree, prefix)
    names = [f"python{major}.{minor}" for major, minor in seen]
    folders: list[str] = []
    if prefix == "usr":
        folders += [f"usr/local/lib/{name}/dist-packages" for name in names]
        folders += ["usr/lib/python3/dist-packages"]
        folders += [f"usr/lib/{name}/dist-packages" for name in names]
        folders += [f"usr/local/{lib}/{name}/site-packages" for lib in ("lib", "lib64") for name in names]
    folders += [_join(prefix, f"{lib}/{name}/site-packages") for lib in ("lib", "lib64") for name in names]
    return [folder for folder in folders if tree.is_folder(folder)]


def virtual_environment(tree: Tree, folder: str, python: str, name: str = "") -> Environment | None:
    """The environment whose pyvenv.cfg is in a folder; None where there is none."""
    text = tree.text(_join(folder, "pyvenv.cfg"), 1 << 16)
    if text is None:
        return None
    settings = {
        key.strip().lower(): value.strip()
        for line in text.splitlines()
        if "=" in line
        for key, _, value in [line.partition("=")]
    }
    own = versions(tree, folder)
    version = own[0] if own else None
    if version is None and (
        said := re.match(r"(\d+)\.(\d+)", settings.get("version", settings.get("version_info", "")))
    ):
        version = (int(said[1]), int(said[2]))
    found = sites(tree, folder, version)
    if settings.get("include-system-site-packages", "").lower() == "true" and settings.get("home"):
        found += _base(tree, settings["home"], version)
    paths, hooks = with_pth(tree, found)
    return Environment(tree, tuple(paths), name, python, version, virtual=True, hooks=tuple(hooks))


def _base(tree: Tree, home: str, version: tuple[int, int] | None) -> list[str]:
    """The folders of the Python that a virtual environment was made from. `home`: where its executable is."""
    folder = tree.real(home.strip("/"))
    prefix = (folder if folder is not None else home.strip("/")).rpartition("/")[0]
    if prefix == "" and home.strip("/") in ("bin", "sbin"):  # a system where /bin is a folder still
        prefix = "usr"
    return sites(tree, prefix, version)


def prefix_environment(tree: Tree, prefix: str, python: str, version: tuple[int, int], name: str = "") -> Environment:
    """The Python installed in a prefix: usr, usr/local, a conda environment."""
    paths, hooks = with_pth(tree, sites(tree, prefix, version))
    return Environment(tree, tuple(paths), name, python, version, hooks=tuple(hooks))


def plain_folder(tree: Tree, start: str = "", name: str = "", python: str = "python3") -> list[Environment]:
    """A folder that is no environment: what lies in it, by the NumPy in it; and environments below it.

    Several NumPys are as many separate trees, which no one path need ever hold: each judges what lies below the folder
    that holds it, down to the next one. What lies below none of them then has no NumPy.
    """
    roots, inner = _inside(tree, start, ())
    environments = tuple(one.name for one in inner)
    if len(roots) < 2:
        return [Environment(tree, (*roots, start), name, python, apart=environments), *inner]
    apart = (*environments, *roots)
    separate = [
        Environment(tree, (entry,), entry or name, python, apart=apart)
        for entry in sorted(roots, key=lambda entry: (entry.count("/"), entry))
    ]
    rest = [] if start in roots else [Environment(tree, (start,), name, python, apart=apart)]
    return [*separate, *rest, *inner]


def root_system(tree: Tree, pythonpath: str = "") -> list[Environment]:
    """Every Python of a root file system: its own ones, those in usr/local, and virtual environments.

    pythonpath  folders that come before all others, as in the variable PYTHONPATH
    """
    first = [folder.strip("/") for folder in pythonpath.split(":") if folder.startswith("/")]
    environments: list[Environment] = []
    for prefix in ("usr", "usr/local"):
        installed = [
            version
            for version in versions(tree, prefix)
            if any(tree.is_file(f"{prefix}/{lib}/python{version[0]}.{version[1]}/os.py") for lib in ("lib", "lib64"))
        ]
        if prefix == "usr" and not installed:  # packages unpacked without their Python
            installed = _debian(tree) or versions(tree, "usr") or versions(tree, "usr/local")[:1]
            if not installed and tree.is_folder("usr/lib/python3/dist-packages"):
                environments.append(_with_first(tree, first, sites(tree, "usr", None), "usr", "python3", None))
        for version in installed:
            command = f"/{prefix}/bin/python{version[0]}.{version[1]}"
            own = sites(tree, prefix, version)
            if own or first:
                environments.append(_with_first(tree, first, own, prefix, command, version))
            for user in _users(tree, version):
                environments.append(_with_first(tree, first, [user, *own], user, command, version))
    known = {real for one in environments for path in one.paths if (real := tree.real(path)) is not None}
    roots, inner = _inside(tree, "", _NOT_WALKED)
    environments += inner
    known |= {real for one in inner for path in one.paths if (real := tree.real(path)) is not None}
    for entry in sorted(roots):  # a NumPy that nobody's path holds: somebody names its folder when he starts Python
        if tree.real(entry) not in known:
            paths, hooks = with_pth(tree, [entry])
            environments.append(Environment(tree, tuple(paths), entry, hooks=tuple(hooks)))
    return [one for one in environments if one.paths]


def _with_first(
    tree: Tree, first: list[str], own: list[str], name: str, command: str, version: tuple[int, int] | None
) -> Environment:
    paths, hooks = with_pth(tree, own)
    return Environment(tree, (*first, *paths), name, command, version, hooks=tuple(hooks))


def _debian(tree: Tree) -> list[tuple[int, int]]:
    """The Python that Debian's compiled packages were built for, as their files' names say."""
    found: dict[tuple[int, int], int] = {}
    for place in tree.walk("usr/lib/python3/dist-packages"):
        if match := re.search(r"\.cpython-3(\d+)-", place.path):
            version = (3, int(match[1]))
            found[version] = found.get(version, 0) + 1
    return sorted(found, key=lambda version: -found[version])[:2]


def _users(tree: Tree, version: tuple[int, int]) -> Iterator[str]:
    for home in ("root", *(f"home/{name}" for name in tree.names("home"))):
        folder = f"{home}/.local/lib/python{version[0]}.{version[1]}/site-packages"
        if tree.is_folder(folder):
            yield folder


def _inside(tree: Tree, start: str, leave: tuple[str, ...]) -> tuple[list[str], list[Environment]]:
    """Below a folder: the folders that hold a NumPy, and the environments."""
    homes: list[str] = []
    copies: list[str] = []
    for place in tree.walk(start, leave, _NUMPY):
        folder, _, name = place.path.rpartition("/")
        if name == "pyvenv.cfg":
            if place.path != _join(start, name):
                homes.append(folder)
        elif (folder == "numpy" or folder.endswith("/numpy")) and tree.is_file(f"{folder}/version.py"):
            copies.append(folder.rpartition("/")[0])
    inner = []
    for folder in sorted(homes):
        command = f"/{folder}/bin/python"
        if isinstance(tree, FolderTree) and not is_root(tree):
            command = tree.on_disk(command)
        if (found := virtual_environment(tree, folder, command, folder)) is not None:
            inner.append(found)
    below = tuple(f"{folder}/" for folder in homes)
    return [entry for entry in copies if not f"{entry}/".startswith(below or "\0")], inner


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
