"""Who calls whom in a compiled file, as far as its direct calls tell.

Runs in: any process.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator

from camdock.abi.elf import Elf
from camdock.abi.instructions import page_of

_MOST_STEPS = 500_000  # beyond it the answer is "not known"; of real modules the longest way takes 60,000
_LONGEST_FUNCTION = 1 << 22
_SLOTS_IN_DEF = 72  # PyModuleDef.m_slots: PyModuleDef_Base 40, m_name, m_doc, m_size, m_methods 8 each
_MOST_SLOTS = 64
_RUN_ON_IMPORT = (1, 2)  # Py_mod_create, Py_mod_exec

# call rel32, jmp rel32, jcc rel32; call, jmp and mov r64 through [rip + x]; lea r64, [rip + x]
_X86 = re.compile(
    rb"(?P<near>[\xe8\xe9]|\x0f[\x80-\x8f])"
    rb"|(?P<through>\xff[\x15\x25]|[\x48\x4c]\x8b[\x05\x0d\x15\x1d\x25\x2d\x35\x3d])"
    rb"|(?P<lea>[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d])"
)


class TakesLong(Exception):
    """More steps were taken than any real module needs."""


class Calls:
    """Who calls whom in one file. A function is the address where it begins."""

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._steps = 0
        self._begins = elf.functions
        self._known = set(self._begins)
        # An init function that ends in PyModuleDef_Init hands over the functions to run; Boost.Python's init_module
        # takes the one that it runs.
        self._hands_over = any(
            elf.find(name) >= 0 for name in (b"PyModuleDef_Init\0", b"boost6python6detail11init_module")
        )

    def function_at(self, address: int) -> int | None:
        """The function that an address lies in."""
        index = bisect_right(self._begins, address) - 1
        return self._begins[index] if index >= 0 and self._elf.executable(address) else None

    def _step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > _MOST_STEPS:
            raise TakesLong

    def end_of(self, function: int) -> int:
        """Where the next function begins. Raises TakesLong where that is beyond reason."""
        index = bisect_right(self._begins, function)
        end = self._begins[index] if index < len(self._begins) else function + _LONGEST_FUNCTION
        if end - function > _LONGEST_FUNCTION:
            raise TakesLong
        return end

    def leaving(self, function: int) -> Iterator[tuple[str, int]]:
        """What a function calls or jumps to ("calls"), and what it takes the address of ("refers")."""
        code = self._elf.read(function, self.end_of(function) - function)
        leaving = self._leaving_x86 if self._elf.machine == "x86_64" else self._leaving_arm
        return leaving(function, code)

    def _leaving_x86(self, function: int, code: bytes) -> Iterator[tuple[str, int]]:
        # Every position, not every instruction: a stray match would have to hit the very beginning of a function.
        at = 0
        while found := _X86.search(code, at):
            self._step()
            at = found.start() + 1
            end = found.end()
            if end + 4 > len(code):
                continue
            target = function + end + 4 + struct.unpack_from("<i", code, end)[0]
            if found["near"]:
                if (called := self.called(target, found["near"] != b"\xe8")) is not None:
                    yield "calls", called
            elif found["through"]:  # "known" again: what is loaded this way may as well be data
                if (pointed := self._elf.pointers.get(target)) in self._known:
                    yield "calls", pointed
            else:
                yield "refers", target

    def called(self, target: int, is_jump: bool) -> int | None:
        """Where a call or jump to that address ends up, if in this file. Jumps also go into the middle of functions."""
        if target in self._known:
            return target
        slot = self._stub(target)
        if slot is not None:
            return self._elf.pointers.get(slot)
        return target if is_jump and self._elf.executable(target) else None

    def outside(self, target: int) -> str:
        """The name of the other file's function that a call to that address reaches; "" where it is none."""
        slot = self._stub(target)
        return self._elf.imports.get(slot, "") if slot is not None else ""

    def _stub(self, address: int) -> int | None:
        """Where the address lies to which a stub of the procedure linkage table jumps; None where there is no stub."""
        code = self._elf.read(address, 16)
        if self._elf.machine == "x86_64":
            at = code.find(b"\xff\x25")  # jmp [rip + x], maybe behind endbr64 and a bnd prefix
            if at < 0 or at > 5 or len(code) < at + 6:
                return None
            distance: int = struct.unpack_from("<i", code, at + 2)[0]
            return address + at + 6 + distance
        words: tuple[int, ...] = struct.unpack_from("<3I", code) if len(code) >= 12 else (0, 0, 0)
        for at in (0, 1):  # adrp, ldr, maybe behind a bti
            if words[at] & 0x9F000000 == 0x90000000 and words[at + 1] & 0xFFC003E0 == 0xF9400200:
                return page_of(address + at * 4, words[at]) + (words[at + 1] >> 10 & 0xFFF) * 8
        return None

    def _leaving_arm(self, function: int, code: bytes) -> Iterator[tuple[str, int]]:
        self._step(len(code) // 32)
        held: dict[int, int] = {}
        for index, (word,) in enumerate(struct.iter_unpack("<I", code[: len(code) // 4 * 4])):
            place = function + index * 4
            if word & 0x7C000000 == 0x14000000:  # b, bl
                distance = word & 0x3FFFFFF
                target = place + ((distance - ((distance & 0x2000000) << 1)) << 2)
                self._step()
                if (called := self.called(target, not word & 0x80000000)) is not None:
                    yield "calls", called
            elif word & 0xFF000010 == 0x54000000 or word & 0x7E000000 == 0x34000000:  # b.cond, cbz, cbnz
                distance = word >> 5 & 0x7FFFF
                target = place + ((distance - ((distance & 0x40000) << 1)) << 2)
                if not function <= target < function + len(code) and self._elf.executable(target):
                    yield "calls", target
            elif word & 0x9F000000 == 0x90000000:  # adrp
                held[word & 31] = page_of(place, word)
            elif word & 0xFFC00000 == 0x91000000 and (word >> 5 & 31) in held:  # add
                yield "refers", held[word >> 5 & 31] + (word >> 10 & 0xFFF)
            elif word & 0xFFC00000 == 0xF9400000 and (word >> 5 & 31) in held:  # ldr, from the global offset table
                pointed = self._elf.pointers.get(held[word >> 5 & 31] + (word >> 10 & 0xFFF) * 8)
                if pointed is not None:
                    yield "calls" if pointed in self._known else "refers", pointed

    def handed_over(self, address: int) -> list[int]:
        """Functions that are run on import because the init function handed them over, by themselves or in a table."""
        if not self._hands_over:
            return []
        if address in self._known:
            return [address]
        slots = self._elf.pointers.get(address + _SLOTS_IN_DEF)
        if slots is None:
            return []
        functions = []
        for slot in range(slots, slots + 16 * _MOST_SLOTS, 16):
            self._step()
            kind = self._elf.word(slot)
            if not kind:
                break
            if kind in _RUN_ON_IMPORT and (function := self._elf.pointers.get(slot + 8)) is not None:
                functions.append(function)
        return functions
