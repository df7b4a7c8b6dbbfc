"""Whether code passes NumPy's refusal on to whoever called it, or lets it fall.

A helper function asks NumPy, its caller does not look at the answer and goes on registering functions: the import
succeeds, since Boost.Python and pybind11 clear the error on their way. The first use of an array then crashes.

Runs in: any process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from camdock.abi.calls import Calls
from camdock.abi.elf import Elf
from camdock.abi.instructions import Instruction, disassemble, is_call, number

_GOES_ON = 12  # calls after the refusal was let fall; a function that only gives back what it has makes fewer
_SMALL = 60  # calls in a function that is taken as a whole
_SOON = 24  # instructions within which an answer is looked at, or a branch has led to a throw
_THROW = "__cxa_throw"
_ANSWER = {"x86_64": re.compile(r"\b(rax|eax|ax|al)\b"), "aarch64": re.compile(r"\b[xw]0\b")}
_WRITES = {
    "x86_64": frozenset({"mov", "movabs", "lea", "movzx", "movsx", "movsxd", "pop"}),
    "aarch64": frozenset({"mov", "movz", "movn", "adrp", "adr", "ldr", "ldp", "ldrb", "add", "sub", "and", "orr"}),
}
_JUMPS = ("j", "b.", "cb", "tb")
_THROUGH = re.compile(r"\[rip ([+-]) (0x[0-9a-f]+|\d+)\]")


class Refusals:
    """How the functions of one file treat the answers of those they call."""

    def __init__(self, elf: Elf, calls: Calls) -> None:
        self._elf = elf
        self._calls = calls
        self._read: dict[int, list[Instruction]] = {}

    def lost(self, way: list[int]) -> tuple[int, int] | None:
        """Where a refusal gets lost on the way from an init function (first) to the code that asks NumPy (last): the
        calling function and the called; None where everybody passes it on, or throws it."""
        for place, (caller, called) in enumerate(pairwise(way), 1):
            if self._ignores(caller, called):
                below = zip(way[place:], [*way[place + 1 :], None], strict=True)
                return None if any(self._throws(function, then) for function, then in below) else (caller, called)
        return None

    def _ignores(self, caller: int, called: int) -> bool:
        """Whether every call drops the answer and is followed by many others."""
        instructions = self._instructions(caller)
        places = [place for place, one in enumerate(instructions) if self._leads_to(one, called)]
        return bool(places) and all(
            is_call(instructions[place][2])
            and sum(is_call(one[2]) for one in instructions[place + 1 :]) >= _GOES_ON
            and self._drops_answer(instructions[place + 1 : place + 1 + _SOON])
            for place in places
        )

    def _drops_answer(self, following: list[Instruction]) -> bool:
        """Whether the register of the answer is written before it is read."""
        answer, writes = _ANSWER[self._elf.machine], _WRITES[self._elf.machine]
        for _, _, mnemonic, operands in following:
            if is_call(mnemonic):
                return not answer.search(operands) and self._elf.machine == "x86_64"
            if mnemonic in ("ret", "jmp", "b"):
                return False
            first, _, others = operands.partition(", ")
            if mnemonic == "xor" and first == others and answer.fullmatch(first):
                return True
            if answer.search(operands):
                return mnemonic in writes and answer.fullmatch(first) is not None and not answer.search(others)
        return False

    def _throws(self, function: int, then: int | None) -> bool:
        """Whether a refusal, by NumPy itself or by the function called `then`, makes this function throw."""
        instructions = self._instructions(function)
        calls = [one for one in instructions if is_call(one[2])]
        if len(calls) <= _SMALL or then is None:
            return any(self._outside(one) == _THROW for one in [*calls, *self._set_aside(function)])
        for place, one in enumerate(instructions):
            if self._leads_to(one, then):
                branches = [
                    number(operands)
                    for _, _, mnemonic, operands in instructions[place + 1 : place + 1 + _SOON]
                    if mnemonic.startswith(_JUMPS)
                ]
                ways = [instructions[place + 1 : place + 1 + _SOON]]
                ways += [list(disassemble(self._elf, at, 8 * _SOON))[:_SOON] for at in branches[:2] if at is not None]
                if any(is_call(one[2]) and self._outside(one) == _THROW for way in ways for one in way):
                    return True
        return False

    def _set_aside(self, function: int) -> Iterator[Instruction]:
        """Calls in the parts of a function that the compiler put elsewhere, since they are hardly ever run."""
        end = self._calls.end_of(function)
        for _, _, mnemonic, operands in self._instructions(function):
            if mnemonic.startswith(_JUMPS) and (target := number(operands)) is not None:
                part = None if function <= target < end else self._calls.function_at(target)
                if part is not None:
                    yield from (one for one in self._instructions(part) if is_call(one[2]))

    def _leads_to(self, instruction: Instruction, function: int) -> bool:
        _, _, mnemonic, operands = instruction
        if not is_call(mnemonic) and mnemonic not in ("jmp", "b"):
            return False
        slot = self._slot(instruction)
        if slot is not None:
            return self._elf.pointers.get(slot) == function
        target = number(operands)
        if target is None:
            return False
        called = self._calls.called(target, not is_call(mnemonic))
        return called is not None and self._calls.function_at(called) == function

    def _outside(self, instruction: Instruction) -> str:
        slot = self._slot(instruction)
        if slot is not None:
            return self._elf.imports.get(slot, "")
        target = number(instruction[3])
        return self._calls.outside(target) if target is not None else ""

    def _slot(self, instruction: Instruction) -> int | None:
        """Where the address lies that a call through [rip + x] reads."""
        found = _THROUGH.search(instruction[3])
        if found is None:
            return None
        distance = int(found[2], 0)
        return instruction[0] + instruction[1] + (distance if found[1] == "+" else -distance)

    def _instructions(self, function: int) -> list[Instruction]:
        if function not in self._read:
            size = self._calls.end_of(function) - function
            self._read[function] = list(disassemble(self._elf, function, size))
        return self._read[function]
