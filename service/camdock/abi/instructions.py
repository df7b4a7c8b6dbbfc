"""What machine code compares NumPy with: the feature level and the type sizes compiled into a module.

Only the few places that matter are disassembled: those that hold 0x1000009, the ABI of NumPy 1.x, and those that
refer to the name of a NumPy type. x86-64 and AArch64.

Runs in: any process.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

import capstone

from camdock.abi.elf import Elf, Unreadable

Instruction = tuple[int, int, str, str]  # address, size, mnemonic, operands, as capstone's disasm_lite gives them

# PyArray_GetNDArrayCFeatureVersion is slot 211 of PyArray_API, 8 bytes each
_SLOT = re.compile(r"[ #]0x698\]?$")
_NEAR = 160  # instructions from the ABI's comparison to the feature level's
_BEYOND = frozenset({"jbe", "ja", "b.ls", "b.hi"})
_CONDITIONAL = _BEYOND | {
    *("jb", "jae", "je", "jne", "jl", "jle", "jg", "jge"),
    *("b.lo", "b.hs", "b.eq", "b.ne", "cbz", "cbnz"),
}
# Real files have 3 comparisons, 17 texts and 7 places that refer to them; more than this is there to take time.
_MOST_COMPARISONS = 64
_MOST_PLACES = 4096
_MOST_REFERENCES = 1024
_FAR = 1024  # instructions from an adrp to its add
_MOST_CANDIDATES = 20_000_000  # instructions that take some address: OpenCV has a million; a second each 3 million
_NUMBER = re.compile(r"#?(0x[0-9a-f]+|\d+)$")


@cache
def _disassembler(machine: str) -> capstone.Cs:
    if machine == "x86_64":
        return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)


def disassemble(elf: Elf, address: int, size: int) -> Iterator[Instruction]:
    """The instructions in `size` bytes from an address, until one cannot be decoded."""
    instructions: Iterator[Instruction] = _disassembler(elf.machine).disasm_lite(elf.read(address, size), address)
    return instructions


def number(operands: str) -> int | None:
    """The number that ends an instruction's operands: of "eax, 0x10" 16; None when it ends otherwise."""
    found = _NUMBER.search(operands)
    return int(found[1], 0) if found else None


def is_call(mnemonic: str) -> bool:
    return mnemonic in ("call", "bl", "blr")


# --------------------------------------------------------------------------------------------- the feature level


def feature_levels(elf: Elf, possible: range, message: bytes) -> set[int]:
    """The feature levels, of those possible, that the file compares NumPy's with: its 1.x headers compiled them in.

    message  the beginning of what it says where it refuses; the level is then one of the numbers handed over with it
    """
    starts = _bounded(_abi_comparisons(elf), _MOST_COMPARISONS, "comparisons with NumPy's ABI")
    compared = {_level_after(elf, start, possible) for start in starts} - {None}
    if not compared:
        places = dict.fromkeys(strings(elf, message, whole=False), "")
        compared = {value for at, _ in references(elf, places) for value in _numbers_around(elf, at)}
    return {level for level in compared if level is not None and level in possible}


def _abi_comparisons(elf: Elf) -> Iterator[int]:
    """Addresses of the instructions that load or compare 0x1000009."""
    for segment in elf.code:
        if elf.machine == "x86_64":
            # cmp eax, imm32 is 3d; cmp r32, imm32 is 81 /7; mov r32, imm32 is b8+r
            for found in re.finditer(rb"\x09\x00\x00\x01", _bytes(elf, segment.offset, segment.size)):
                before = _bytes(elf, segment.offset + found.start() - 2, 2) if found.start() >= 2 else b"\0\0"
                at = segment.address + found.start()
                if before[1] == 0x3D or 0xB8 <= before[1] <= 0xBF:
                    yield at - 1
                elif before[0] == 0x81 and 0xF8 <= before[1] <= 0xFF:
                    yield at - 2
        else:
            # movk wN, #0x100, lsl #16: the upper half
            for found in re.finditer(rb"[\x00-\x1f]\x20\xa0\x72", _bytes(elf, segment.offset, segment.size)):
                if found.start() % 4 == 0:
                    yield segment.address + found.start()


def _level_after(elf: Elf, start: int, possible: range) -> int | None:
    """Straight on from the ABI's comparison; where the compiler moved the rest away, along the branch to it."""
    level, branches = _level_straight(elf, start, possible)
    if level is not None:
        return level
    for target in branches[:4]:
        level, _ = _level_straight(elf, target, possible)
        if level is not None:
            return level
    return None


def _level_straight(elf: Elf, start: int, possible: range) -> tuple[int | None, list[int]]:
    """The level that is compared with what slot 211 answers, and the branches seen on the way."""
    branches: list[int] = []
    loaded = asked = False
    level: int | None = None
    for index, (_, _, mnemonic, operands) in enumerate(disassemble(elf, start, _NEAR * 8)):
        if index == _NEAR:
            break
        if mnemonic in _CONDITIONAL:
            if level is not None:
                level += mnemonic in _BEYOND  # have <= level - 1, or have < level
                if level in possible:
                    return level, branches
                level = None
            target = number(operands)
            if target is not None:
                branches.append(target)
        elif _SLOT.search(operands):
            loaded, asked = True, mnemonic == "call"
        elif is_call(mnemonic):
            loaded, asked = False, loaded and not asked
        elif asked and mnemonic == "cmp" and level is None:
            level = number(operands)
    return None, branches


# -------------------------------------------------------------------------------------------- the sizes of types


def type_sizes(elf: Elf, plausible: dict[str, set[int]]) -> dict[str, int]:
    """Bytes that Cython's check expects of each NumPy type, by its name, as far as they can be read.

    plausible  the types to look for, and the sizes that some release of NumPy ever gave them
    """
    names: dict[int, str] = {}
    for kind in plausible:
        names |= dict.fromkeys(strings(elf, kind.encode()), kind)
    if not names:
        return {}
    seen: dict[str, Counter[int]] = {}
    for address, kind in references(elf, names):
        for value in _numbers_around(elf, address):
            if value in plausible[kind]:
                seen.setdefault(kind, Counter())[value] += 1
    return {kind: max(sizes, key=lambda size: (sizes[size], size)) for kind, sizes in seen.items()}


def strings(elf: Elf, text: bytes, whole: bool = True) -> Iterator[int]:
    """Addresses where that text stands and (`whole`) ends, also as the end of a longer one: linkers merge such."""
    for at in places(elf, text + b"\0" if whole else text):
        address = elf.address(at)
        if address is not None:
            yield address


def places(elf: Elf, text: bytes) -> Iterator[int]:
    """Offsets in the file where that text stands."""

    def found() -> Iterator[int]:
        at = elf.find(text)
        while at >= 0:
            yield at
            at = elf.find(text, at + 1)

    return _bounded(found(), _MOST_PLACES, f"times the text {text.decode()!r}")


def references(elf: Elf, targets: dict[int, str]) -> Iterator[tuple[int, str]]:
    """Where code takes one of these addresses: the instruction's own address, and what it refers to."""
    if targets:
        found = _references_x86(elf, targets) if elf.machine == "x86_64" else _references_arm(elf, targets)
        yield from _bounded(found, _MOST_REFERENCES, "places that refer to NumPy's names")


Thing = TypeVar("Thing")


def _bounded(things: Iterable[Thing], most: int, what: str) -> Iterator[Thing]:
    for count, thing in enumerate(things):
        if count == most:
            raise Unreadable(f"more than {most:,} {what}: made to take long")
        yield thing


def _references_x86(elf: Elf, targets: dict[int, str]) -> Iterator[tuple[int, str]]:
    """lea reg, [rip + distance] to one of the targets: its address, and what it refers to."""
    low, high = min(targets), max(targets)
    candidates = 0
    for segment in elf.code:
        code = _bytes(elf, segment.offset, segment.size)
        for found in re.finditer(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", code):
            at = found.start()
            if at + 7 > len(code):
                break
            candidates += 1
            if candidates > _MOST_CANDIDATES:
                raise Unreadable("code of nothing but addresses: made to take long")
            target = segment.address + at + 7 + struct.unpack_from("<i", code, at + 3)[0]
            if low <= target <= high and target in targets:
                yield segment.address + at, targets[target]


def _references_arm(elf: Elf, targets: dict[int, str]) -> Iterator[tuple[int, str]]:
    """adrp reg, page and later add reg, reg, #rest: the address of the add, and what the pair refers to."""
    pages = {target & ~0xFFF for target in targets}
    candidates = 0
    for segment in elf.code:
        code = _bytes(elf, segment.offset, segment.size - segment.size % 4)
        for found in re.finditer(rb"[\x90\xb0\xd0\xf0]", code):  # the last byte of an adrp
            at = found.start() - 3
            candidates += 1
            if candidates > _MOST_CANDIDATES:
                raise Unreadable("code of nothing but addresses: made to take long")
            if at % 4:
                continue
            (word,) = struct.unpack_from("<I", code, at)
            page = page_of(segment.address + at, word)
            if page in pages:
                for place, rest in _adds(code, at, word & 31):
                    if page + rest in targets:
                        yield segment.address + place, targets[page + rest]


def _adds(code: bytes, start: int, register: int) -> Iterator[tuple[int, int]]:
    """What is added to a register after an adrp there, until another one: offset of the add, number."""
    for place in range(start + 4, min(start + 4 * _FAR, len(code) - 3), 4):
        (word,) = struct.unpack_from("<I", code, place)
        if word & 0x9F00001F == 0x90000000 | register:
            return
        if word & 0xFFC00000 == 0x91000000 and word >> 5 & 31 == register:
            yield place, word >> 10 & 0xFFF


def page_of(place: int, word: int) -> int:
    """What an adrp instruction at that address puts into its register."""
    distance = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
    return (place & ~0xFFF) + ((distance - ((distance & 0x100000) << 1)) << 12)


def _numbers_around(elf: Elf, address: int) -> Iterator[int]:
    """Numbers that go into registers between the call before this instruction and the call after it."""
    around = _before(elf, address)
    for _, _, mnemonic, operands in disassemble(elf, address, 96):
        if is_call(mnemonic):
            break
        around.append((mnemonic, operands))
    for mnemonic, operands in around:
        if mnemonic in ("mov", "movz", "movabs"):
            value = number(operands)
            if value is not None:
                yield value


def _before(elf: Elf, address: int) -> list[tuple[str, str]]:
    """The instructions since the last call before an address."""
    # x86-64's have no fixed length: begin where the decoding arrives exactly here, as far back as that goes.
    for start in (address - distance for distance in ([64] if elf.machine == "aarch64" else range(64, 0, -1))):
        found: list[tuple[str, str]] = []
        end = start
        for at, size, mnemonic, operands in disassemble(elf, start, address - start):
            end = at + size
            found = [] if is_call(mnemonic) else [*found, (mnemonic, operands)]
        if end == address:
            return found
    return []


def _bytes(elf: Elf, offset: int, size: int) -> bytes:
    return bytes(elf.data[offset : offset + size])
