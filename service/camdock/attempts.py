"""Attempts: how often somebody may be wrong about a token.

Runs in: the API process. Bounded: a fixed number of addresses, two numbers each.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.responses import Response

from camdock.problems import problem_response

log = logging.getLogger("camdock")

MOST = 10  # wrong tokens of one address in one window
WINDOW_S = 60.0
ADDRESSES = 1024  # that are remembered; the one that was wrong longest ago is forgotten first


class Attempts:
    """Counts wrong tokens by address; whoever was wrong too often is not listened to until its window is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address: when its window began, how many

    def wait_s(self, address: str) -> int:
        """Whole seconds until tokens of that address are looked at again; 0: they are now."""
        began, count = self._wrong.get(address, (0.0, 0))
        left = began + WINDOW_S - self._clock()
        return math.ceil(left) if count >= MOST and left > 0 else 0

    def was_wrong(self, address: str, how: str, count: int = 1) -> None:
        """Remember that; one line in the log for each address and window, with what was tried and never the token."""
        now = self._clock()
        began, before = self._wrong.pop(address, (now, 0))
        if now - began >= WINDOW_S:
            began, before = now, 0
        if not before:
            log.warning(
                "%s sent a wrong token (%s); after %d within %.0f s it has to wait", address, how, MOST, WINDOW_S
            )
        self._wrong[address] = (began, before + count)
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    @property
    def remembered(self) -> int:
        """How many addresses are."""
        return len(self._wrong)


def refusal(wait_s: int) -> Response:
    """What an address is told that was wrong too often."""
    return problem_response(
        429,
        "too_many_attempts",
        "Too many wrong tokens",
        f"this address sent {MOST} wrong tokens within a minute",
        f"wait {wait_s} s; the log names the address. Whoever is logged in by cookie is not affected",
        {"Retry-After": str(wait_s)},
    )
