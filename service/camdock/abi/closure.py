"""What each compiled file of a tree says, read once, and the libraries beside a module that it is linked to.

Runs in: any process.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from camdock.abi.environment import Compiled, Environment
from camdock.abi.facts import Facts, Unreadable, read_facts, read_plain, read_undefined
from camdock.abi.tree import Tree

_FOR_PYTHON = re.compile(r"\.(?:cpython-\d+[a-z]*-[^/]*|abi3(?:-[^/]*)?)\.so$")
_CLOSURE_LIMIT = 1000  # libraries one module is linked to; torch's are linked to some 30
# Where a system keeps libraries. Only those of them that speak of NumPy are looked for: libboost_numpy311.so.1.74.0
_SYSTEM = re.compile(r"numpy", re.IGNORECASE)
# Linked to by nearly every module; whoever ships a copy of one ships it as it is.
_WITHOUT_NUMPY = re.compile(r"lib(?:c|m|dl|rt|pthread|util|gcc_s|stdc\+\+|python3[.\d]*)\.so|ld-linux")
_SYSTEM_FOLDERS = ("usr/local/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")


@dataclass(frozen=True, slots=True)
class Reading:
    """A file's facts, or why there are none. `init`: whether its bytes speak of a module's start, damaged or not."""

    facts: Facts | None
    problem: str = ""
    init: bool = False

    @property
    def is_library(self) -> bool:
        return self.facts is not None and not self.facts.inits

    def is_module(self, compiled: Compiled) -> bool:
        """Is it a module, or was it one before it was damaged?"""
        if self.facts is not None:
            return bool(self.facts.inits)
        return self.init or _FOR_PYTHON.search(compiled.place.path) is not None


class Readings:
    """The facts of a tree's files, each read once, by real path."""

    def __init__(self, tree: Tree, progress: Callable[[int, str], None] | None = None) -> None:
        self._tree = tree
        self._progress = progress
        self._readings: dict[str, Reading] = {}
        self._undefined: dict[str, frozenset[str]] = {}
        self._begun = 0

    def of(self, real: str) -> Reading:
        if real not in self._readings:
            self._readings[real] = self._read(real)
        return self._readings[real]

    def quick(self, real: str) -> Reading:
        """Like `of`, without what a file says about NumPy."""
        return self._readings.get(real) or self._read(real, quick=True)

    def undefined(self, real: str) -> frozenset[str]:
        """Names of what a file wants from those it is linked to."""
        if real not in self._undefined:
            try:
                with self._tree.load(real) as data:
                    self._undefined[real] = read_undefined(data)
            except Unreadable:
                self._undefined[real] = frozenset()
        return self._undefined[real]

    def _read(self, real: str, *, quick: bool = False) -> Reading:
        if self._progress is not None:
            self._progress(self._begun, real)
        self._begun += 1
        init = False
        try:
            with self._tree.load(real) as data:
                init = data[:4] != b"\x7fELF" and data.find(b"PyInit_") >= 0
                facts = read_plain(data) if quick else read_facts(data)
        except Unreadable as error:
            # What is not even opened may be a module or not: it is listed, and says why.
            return Reading(None, str(error), init=True)
        if facts is None:
            return Reading(None, "is no ELF file: made for another system, or damaged", init)
        return Reading(facts)


class Libraries:
    """The libraries of an environment that its modules are linked to, found by name as their packages ship them."""

    def __init__(self, environment: Environment, readings: Readings) -> None:
        self._environment = environment
        self._readings = readings
        self._by_name: dict[str | tuple[str, str] | tuple[str, str, str], str] | None = None
        self._known: dict[str, list[tuple[str, Facts]]] = {}

    def of(self, compiled: Compiled, reading: Reading) -> list[tuple[str, Facts]]:
        """Real path and facts of every library that a file is linked to, directly or through others."""
        real = compiled.place.real
        if real not in self._known:
            self._known[real] = self._closure(compiled, reading)
        return self._known[real]

    def _closure(self, compiled: Compiled, reading: Reading) -> list[tuple[str, Facts]]:
        found: dict[str, Facts] = {}
        todo = [(compiled.place.path, reading.facts)]
        while todo and len(found) < _CLOSURE_LIMIT:
            path, facts = todo.pop()
            for name in facts.needed if facts is not None else ():
                place = self._find(name, path, compiled)
                if place is None or place in found or place == compiled.place.real:
                    continue
                library = self._readings.of(place).facts
                if library is not None:
                    found[place] = library
                    todo.append((place, library))
        return [(place, library) for place, library in found.items() if self._asked(compiled, place, library, found)]

    def _asked(self, compiled: Compiled, place: str, library: Facts, found: dict[str, Facts]) -> bool:
        """Whether a library that asks NumPy is called to do so; Boost's is linked to by many that never call it."""
        if not library.headers or library.asking is None:
            return True
        others = [compiled.place.real, *(other for other in found if other != place)]
        return any(library.asking & self._readings.undefined(other) for other in others)

    def _find(self, name: str, beside: str, compiled: Compiled) -> str | None:
        """The file that a name means: in the same folder, else of the same package, else the only one there is."""
        name = posixpath.basename(name)
        if _WITHOUT_NUMPY.match(name):
            return None
        if self._by_name is None:
            self._by_name = {}
            for library in self._environment.compiled():
                folder, _, own = library.place.path.rpartition("/")
                package = library.top.removesuffix(".libs")
                for key in ((folder, own), (library.entry, package, own), own):
                    self._by_name.setdefault(key, library.place.real)
        package = compiled.top.removesuffix(".libs")
        for key in ((posixpath.dirname(beside), name), (compiled.entry, package, name), name):
            if (found := self._by_name.get(key)) is not None:
                return found
        return self._system(name) if _SYSTEM.search(name) else None

    def _system(self, name: str) -> str | None:
        tree = self._environment.tree
        for folder in _SYSTEM_FOLDERS:
            found = tree.resolve(f"{folder}/{name}")
            if found is not None and found[1] == "file":
                return found[0]
        return None
