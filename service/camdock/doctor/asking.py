"""Asking: have an errand done in a child process, and be back in time whatever becomes of it.

Runs in: the doctor's process.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from camdock import wire
from camdock.child import Child
from camdock.doctor.answer import Answer
from camdock.errors import SourceStalled, WorkerDied
from camdock.guard import Guard
from camdock.wire import Kind, Message


class _Over(Exception):
    """It has said everything."""


def survivor(child: Child) -> str:
    """Words about a child that SIGKILL did not end, which is left to itself; "" when it is gone."""
    if not child.survives:
        return ""
    words = f"process {child.pid} cannot be killed: the kernel holds it in {child.waits_in()}"
    child.abandon()
    return words


async def ask(
    errand: str, arguments: Mapping[str, Any], guard: Guard, until: float, each_s: float = math.inf
) -> Answer:
    """Have one errand done. Never raises, and returns at most 2 s after `until` (monotonic).

    each_s  seconds for each answer after the first, which comes when its process has started and loaded what it needs
    """
    answer = Answer()
    said_at = time.monotonic()

    def on_message(message: Message) -> None:
        nonlocal said_at
        if not message.meta["more"]:
            raise _Over
        answer.given.append(json.loads(bytes(message.blob)))
        said_at = time.monotonic()
        child.expect(min(each_s, until - said_at))

    if until <= time.monotonic():
        return Answer(trouble="no time was left for it", hung=True)
    child = Child("camdock.doctor.errand", errand, guard, on_message)
    try:
        async with child:
            child.expect(until - said_at)
            await child.send(wire.pack(Kind.RUN, {"operation": errand, "arguments": dict(arguments)}))
            try:
                await child.watch()
            except TimeoutError as error:  # as a stall: its process is killed at once, without a word
                answer.waited_s = time.monotonic() - said_at
                raise SourceStalled(f"no answer within {answer.waited_s:.1f} s") from error
    except _Over:
        pass
    except SourceStalled as error:
        answer.hung, answer.trouble = True, error.message
    except WorkerDied as error:
        answer.trouble = error.message
    answer.stuck = survivor(child)
    return answer
