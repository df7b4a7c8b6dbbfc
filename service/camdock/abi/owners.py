"""Who owns a file: the package that pip, dpkg or conda wrote it for. Reads their records, asks no package manager.

Runs in: any process.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from dataclasses import dataclass
from typing import Literal

from packaging.version import InvalidVersion, Version

from camdock.abi.environment import Compiled
from camdock.abi.facts import Unreadable
from camdock.abi.tree import COMPILED, Tree
from camdock.abi.wheel import DATA

Kind = Literal["pip", "dpkg", "conda"]
_NAME = re.compile(r"^Name:[ \t]*(\S{1,200})", re.MULTILINE)
_VERSION = re.compile(r"^Version:[ \t]*(\S{1,80})", re.MULTILINE)
_FOLDER = re.compile(r"^(.+?)-([^-]+)(?:-py[\d.]+)?(?:-[\w.]+)?\.(?:dist|egg)-info$")
_STANZA = re.compile(rb"^(Package|Version):[ \t]*(\S{1,200})", re.MULTILINE)
_STATUS_LIMIT = 64 << 20  # bytes; a desktop's has 5 MB
_CONDA_LIMIT = 4 << 20  # bytes of JSON, which takes twenty times as many once read
_MOST_RECORDED = 300_000  # compiled files in all records; what is beyond them has no owner
_DPKG = "var/lib/dpkg"
# The names that each accepts; pip's is PEP 508's.
_NAMES: dict[Kind, re.Pattern[str]] = {
    "pip": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?"),
    "dpkg": re.compile(r"[a-z0-9][a-z0-9+.-]{0,198}(?::[a-z0-9-]{1,20})?"),
    "conda": re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,198}"),
}


@dataclass(frozen=True, slots=True)
class Owner:
    """A package: "simplejpeg", "1.7.2", by whom it was installed ("dpkg": without the architecture)."""

    name: str
    version: str
    kind: Kind

    @property
    def is_named(self) -> bool:
        """Whether its name is one, and its version too: metadata may say anything, an option or an address as well."""
        if _NAMES[self.kind].fullmatch(self.name) is None:
            return False
        if self.kind != "pip" or not self.version:
            return True
        try:
            Version(self.version)
        except InvalidVersion:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.name} {self.version}" + ("" if self.kind == "pip" else f" ({self.kind})")


class Owners:
    """The owners of a tree's compiled files. Every record is read once, when it is first needed."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._pip: dict[str, dict[str, str]] = {}  # by entry: file -> its dist-info
        self._conda: dict[str, dict[str, Owner]] = {}  # by prefix
        self._dpkg: dict[str, str] | None = None
        self._recorded = 0
        self._versions: dict[str, str] = {}
        self._named: dict[str, Owner | None] = {}

    def of(self, file: Compiled) -> Owner | None:
        """Who owns it; None where no record names it."""
        path = file.place.path
        # Debian's packages carry a dist-info of the project too: dpkg's word comes before pip's in its folders.
        system = self.of_system(file.place.real, path) if _merged(path).startswith("usr/lib") else None
        return system or self._by_conda(file) or self._by_pip(file.entry, path)

    def of_folder(self, entry: str, metadata: str) -> Owner | None:
        """The package whose metadata folder (dist-info, egg-info) lies in an entry."""
        return self._described(f"{entry}/{metadata}" if entry else metadata)

    def of_system(self, *paths: str) -> Owner | None:
        """The Debian package that one of the paths is from."""
        if self._dpkg is None:
            self._dpkg = self._read_dpkg()
        for path in paths:
            name = self._dpkg.get(_merged(path))
            if name is not None:
                return Owner(name, self._versions.get(name, "?"), "dpkg")
        return None

    def _by_pip(self, entry: str, path: str) -> Owner | None:
        if entry not in self._pip:
            self._pip[entry] = self._read_records(entry)
        metadata = self._pip[entry].get(path)
        return None if metadata is None else self._described(metadata)

    def _described(self, folder: str) -> Owner | None:
        if folder not in self._named:
            inner = "METADATA" if folder.endswith(".dist-info") else "PKG-INFO"
            text = self._tree.text(f"{folder}/{inner}", 1 << 16) or self._tree.text(folder, 1 << 16) or ""
            head = text.partition("\n\n")[0]
            name, version = _NAME.search(head), _VERSION.search(head)
            said = _FOLDER.match(posixpath.basename(folder))
            self._named[folder] = (
                Owner(name[1] if name else said[1], version[1] if version else said[2], "pip")
                if said
                else Owner(name[1], version[1], "pip")
                if name and version
                else None
            )
        return self._named[folder]

    def _read_records(self, entry: str) -> dict[str, str]:
        files: dict[str, str] = {}
        for name in self._tree.names(entry):
            folder = f"{entry}/{name}" if entry else name
            if name.endswith(".dist-info"):
                base, record = entry, f"{folder}/RECORD"
            elif name.endswith(".egg-info"):
                base, record = folder, f"{folder}/installed-files.txt"
            else:
                continue
            for line in self._tree.lines_with(record, b".so"):
                parts = line.rsplit(",", 2)  # path, hash, size; the last two may be absent, and hold no comma
                path = (parts[0] if len(parts) == 3 else line).strip().strip('"')
                if COMPILED.search(path):
                    if not self._room():
                        return files
                    whole = path.lstrip("/") if path.startswith("/") else posixpath.join(base, DATA.sub("", path))
                    files[posixpath.normpath(whole)] = folder
        return files

    def _room(self) -> bool:
        self._recorded += 1
        return self._recorded <= _MOST_RECORDED

    def _by_conda(self, file: Compiled) -> Owner | None:
        prefix = re.sub(r"/?lib/python3\.\d+/site-packages$", "", file.entry)
        if prefix not in self._conda:
            self._conda[prefix] = self._read_conda(prefix)
        return self._conda[prefix].get(file.place.path)

    def _read_conda(self, prefix: str) -> dict[str, Owner]:
        files: dict[str, Owner] = {}
        folder = posixpath.join(prefix, "conda-meta")
        for name in self._tree.names(folder):
            if not name.endswith(".json"):
                continue
            try:
                said = json.loads(self._tree.text(f"{folder}/{name}", _CONDA_LIMIT) or "")
                owner = Owner(str(said["name"]), str(said["version"]), "conda")
                for path in said["files"]:
                    if COMPILED.search(path) and self._room():
                        files[posixpath.join(prefix, path)] = owner
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a record that cannot be understood says nothing
        return files

    def _read_dpkg(self) -> dict[str, str]:
        files: dict[str, str] = {}
        for name in self._tree.names(f"{_DPKG}/info"):
            if not name.endswith(".list"):
                continue
            package = name.removesuffix(".list").partition(":")[0]
            for line in self._tree.lines_with(f"{_DPKG}/info/{name}", b".so"):
                if COMPILED.search(line):
                    if not self._room():
                        break
                    files[_merged(line.strip("/"))] = package
        if files:
            self._read_versions(set(files.values()))
        return files

    def _read_versions(self, packages: set[str]) -> None:
        status = self._tree.real(f"{_DPKG}/status")
        if status is None:
            return
        package = ""
        with contextlib.suppress(Unreadable), self._tree.load(status) as data:
            if len(data) > _STATUS_LIMIT:
                return
            for found in _STANZA.finditer(data):
                said = found[2].decode("utf-8", "replace")
                if found[1] == b"Package":
                    package = said
                elif package in packages:
                    self._versions.setdefault(package, said)


def _merged(path: str) -> str:
    """Since /lib is a link to /usr/lib, packages name one and the files are found by the other."""
    return f"usr/{path}" if path.startswith(("lib/", "lib64/", "bin/")) else path
