"""Whether importing a module fails where NumPy refuses it, or whether only its first use does.

Follows direct calls from the module's init function to the code that asks NumPy for its C-API. A function that is only
put into a table or handed to a registering function (a method, a callback) is not called on import; and a refusal that
is let fall on the way does not make the import fail.

Runs in: any process.
"""

from __future__ import annotations

from collections import defaultdict, deque

from camdock.abi.calls import Calls, TakesLong
from camdock.abi.elf import DECODED, Elf
from camdock.abi.refusals import Refusals

_MOST_FUNCTIONS = 60_000  # beyond it the answer is "not known"
_MOST_WAYS = 16


def fails_on_import(elf: Elf, marks: set[int]) -> bool | None:
    """Whether importing the file asks NumPy and passes its refusal on; None where that cannot be told.

    marks  addresses of texts that only the asking code uses, such as "_ARRAY_API"
    """
    if not elf.functions or not elf.inits or elf.machine not in DECODED:
        return None
    calls = Calls(elf)
    refusals = Refusals(elf, calls)
    lost: set[tuple[int, int]] = set()
    try:
        for _ in range(_MOST_WAYS):
            way = _way(calls, elf, marks, lost)
            if not way:
                return False if way is not None else None
            where = refusals.lost(way)
            if where is None:
                return True
            lost.add(where)  # and is there another way, on which it is not?
    except TakesLong:
        return None
    return None


def asking_functions(elf: Elf, marks: set[int]) -> frozenset[str] | None:
    """The functions of a library, by the names others call them, whose call asks NumPy; None where that cannot be told.

    marks  as above
    """
    if not elf.functions or elf.machine not in DECODED:
        return None
    calls = Calls(elf)
    callers: dict[int, list[int]] = defaultdict(list)
    asking: set[int] = set()
    try:
        for function in elf.functions:
            for kind, target in calls.leaving(function):
                if kind == "refers":
                    asking |= {function} if target in marks else set()
                elif (called := calls.function_at(target)) is not None:
                    callers[called].append(function)
    except TakesLong:
        return None
    if not asking:
        return None  # the code that asks was not recognized
    queue = deque(asking)
    while queue:
        new = set(callers[queue.popleft()]) - asking
        asking |= new
        queue.extend(new)
    return frozenset(name for _, name, address in elf.symbols() if calls.function_at(address) in asking)


def _way(calls: Calls, elf: Elf, marks: set[int], without: set[tuple[int, int]]) -> list[int] | None:
    """The functions from an init function to one that refers to a mark, by the fewest calls; empty where no way leads
    there `without` those calls, None where that cannot be told."""
    queue = deque(calls.function_at(address) for address in elf.inits.values())
    came: dict[int, int | None] = {function: None for function in queue if function is not None}
    first = set(came)
    while queue:
        function = queue.popleft()
        if function is None or len(came) > _MOST_FUNCTIONS:
            return None
        for kind, target in calls.leaving(function):
            if kind == "refers" and target in marks:
                return _back(came, function)
            if kind == "refers" and function not in first:
                continue
            found = [target] if kind == "calls" else calls.handed_over(target)
            for address in found:
                called = calls.function_at(address)
                if called is not None and called not in came and (function, called) not in without:
                    came[called] = function
                    queue.append(called)
    return []


def _back(came: dict[int, int | None], function: int) -> list[int]:
    way = [function]
    while (before := came[way[-1]]) is not None:
        way.append(before)
    return way[::-1]
