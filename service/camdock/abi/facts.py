"""What one compiled file says about the NumPy it was compiled for. Reads bytes; imports and runs nothing of them.

The traces are texts and numbers that NumPy's headers, Cython and pybind11 compile into every module that uses them;
they survive `strip`.

Runs in: any process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from camdock.abi import instructions
from camdock.abi.elf import DECODED, Bytes, Elf, Unreadable
from camdock.abi.numpys import LEVELS_1, SIZES_SEEN
from camdock.abi.reach import asking_functions, fails_on_import

__all__ = ["Bytes", "Facts", "Unreadable", "read_facts", "read_plain", "read_undefined"]

# What `import_array` prints where it refuses: headers of 2.x, of 1.x, of both.
_TARGET = b"module was compiled against NumPy C-API version 0x%x (NumPy "
_RELEASE = re.compile(rb"(\d{1,3}\.\d{1,3})\) ")
_LEVEL = b"module compiled against API version 0x%x but this version of numpy is 0x%x"
_ABI = b"module compiled against ABI version 0x%x but this version of numpy is 0x%x"
_CYTHON = b"size changed, may indicate binary incompatibility. Expected"
_PYBIND11 = b"pybind11 numpy support requires numpy >= 1.7"
_RUST = (b"NumPy array API", b"Failed to access NumPy", b"rust_panic")

Age = Literal["", "old", "new"]


@dataclass(frozen=True, slots=True)
class Facts:
    """One ELF file.

    machine    "x86_64", "aarch64", "arm", "i386", or "machine N" of the ELF header
    bits       32 or 64
    decoded    whether machine code of this kind can be read: numbers in it, not only texts
    soname     the name it gives itself; "" for most modules
    needed     the libraries it is linked to, by their names
    inits      names of the modules it can be imported as (PyInit_NAME); empty for a plain library
    numpy      whether the word occurs at all; nothing below is set where it does not
    headers    major version of the NumPy headers whose import_array it contains; 0: it contains none
    targets    releases that headers of 2.x say they compile for: "1.23"; the newest counts
    levels     feature levels that code from headers of 1.x compares with
    umath      it imports the ufunc API alone, which checks no version but knows one line of NumPy
    cython     it compares the sizes of types before anything else (Cython)
    sizes      bytes it expects of each NumPy type, where it was read
    imports_types  it certainly compares the sizes of NumPy's types, read or not
    pybind11   "old": before 2.12, reads NumPy's types as 1.x lays them out, unchecked; "new"; "" without its arrays
    rust       the same for the crate numpy, "old" being before 0.22
    on_import  whether importing it fails where NumPy refuses it (False: its first use does); None: not known
    asking     of a library: its functions that ask NumPy when others call them; None: not known, or a module
    """

    machine: str
    bits: int
    decoded: bool
    soname: str
    needed: tuple[str, ...]
    inits: tuple[str, ...]
    numpy: bool = False
    headers: Literal[0, 1, 2] = 0
    targets: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    umath: bool = False
    cython: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    imports_types: bool = False
    pybind11: Age = ""
    rust: Age = ""
    on_import: bool | None = None
    asking: frozenset[str] | None = None


def read_facts(data: Bytes) -> Facts | None:
    """The facts of a file's bytes; None when it is not an ELF file. Raises Unreadable."""
    if data[:4] != b"\x7fELF":
        return None
    elf = Elf(data)
    plain = _plain(elf)
    return _read_numpy(elf, plain) if elf.find(b"numpy") >= 0 else plain


def read_plain(data: Bytes) -> Facts | None:
    """Like read_facts, without looking for NumPy: what the file is and what it is linked to."""
    return _plain(Elf(data)) if data[:4] == b"\x7fELF" else None


def _plain(elf: Elf) -> Facts:
    return Facts(
        elf.machine,
        elf.bits,
        elf.machine in DECODED and elf.bits == 64 and elf.little,
        elf.soname,
        elf.needed,
        tuple(elf.inits),
    )


def _read_numpy(elf: Elf, plain: Facts) -> Facts:
    def has(text: bytes) -> bool:
        return elf.find(text) >= 0

    array_api, ufunc_api, new_path = has(b"_ARRAY_API"), has(b"_UFUNC_API"), has(b"numpy._core")
    targets = tuple(sorted(_targets(elf)))
    headers: Literal[0, 1, 2] = 2 if targets else 1 if has(_LEVEL) or has(_ABI) else 0
    umath = not headers and ufunc_api and not array_api and (new_path or has(b"numpy.core._multiarray_umath\0"))
    if umath:
        headers = 2 if new_path else 1
    age: Age = "new" if new_path else "old"
    cython = has(_CYTHON)
    levels: tuple[int, ...] = ()
    sizes: dict[str, int] = {}
    on_import: bool | None = None
    asking: frozenset[str] | None = None
    if plain.decoded:
        if headers == 1 and not umath:
            levels = tuple(sorted(instructions.feature_levels(elf, LEVELS_1, _LEVEL)))
        if cython and not targets and not levels and has(b"numpy\0"):
            sizes = instructions.type_sizes(elf, SIZES_SEEN)
        if headers and not plain.inits:
            asking = asking_functions(elf, set(_marks(elf)))
        elif headers and not cython:
            on_import = _fails_on_import(elf)
    return Facts(
        plain.machine,
        plain.bits,
        plain.decoded,
        plain.soname,
        plain.needed,
        plain.inits,
        numpy=True,
        headers=headers,
        targets=targets,
        levels=levels,
        umath=umath,
        cython=cython,
        sizes=sizes,
        imports_types=cython and has(b"flatiter\0"),  # Cython's own declaration of NumPy names it, nobody else does
        pybind11=age if has(_PYBIND11) or (array_api and has(b"pybind11")) else "",
        rust=age if array_api and not headers and any(map(has, _RUST)) else "",
        on_import=on_import,
        asking=asking,
    )


def _targets(elf: Elf) -> set[str]:
    """Found with find, not with a pattern over the whole file: a mapped file's find keeps little of it in memory."""
    releases: set[str] = set()
    for at in instructions.places(elf, _TARGET):
        at += len(_TARGET)
        if found := _RELEASE.match(bytes(elf.data[at : at + 16])):
            releases.add(found[1].decode())
    return releases


def _marks(elf: Elf) -> dict[int, str]:
    apis = (b"_ARRAY_API", b"_UFUNC_API")
    return {address: "" for api in apis for address in instructions.strings(elf, api)}


def _fails_on_import(elf: Elf) -> bool | None:
    marks = _marks(elf)
    fails = fails_on_import(elf, set(marks))
    if fails is False and not any(True for _ in instructions.references(elf, marks)):
        return None  # the code that asks was not recognized at all
    return fails


def read_undefined(data: Bytes) -> frozenset[str]:
    """Names of what an ELF file wants from those it is linked to. Raises Unreadable."""
    return Elf(data).undefined
