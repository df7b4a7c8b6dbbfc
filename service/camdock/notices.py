"""Notices: the picture that says why there is none, published while a camera gives none.

Runs in: the API process. Drawn by the painter, which is Pixels, in its own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from camdock.broadcast import Broadcast

NOTICE_EVERY_S = 1.0
LONGEST_PAUSE_S = 30.0
NOTICE_SIZE = (640, 480)
LARGEST_NOTICE_SIDE = 1280
SMALLEST_NOTICE = (160, 120)


class Painter(Protocol):
    """Who draws: Pixels."""

    async def notice(self, size: tuple[int, int], title: str, texts: list[str], footer: str) -> bytes | None:
        """A JPEG; None when it could not be drawn."""
        ...


@dataclass(frozen=True, slots=True)
class Why:
    """What there is to say: Unix seconds since when, the camera's own size, whether to wait a moment with it."""

    title: str
    texts: list[str]
    since: float
    size: tuple[int, int] | None
    early: bool


class Notices:
    """Says why at once when that changes, then once a second while somebody looks.

    why      what to say now; None while there is nothing to say
    publish  takes the JPEG and its size
    """

    def __init__(
        self,
        broadcast: Broadcast,
        painter: Painter,
        why: Callable[[], Why | None],
        publish: Callable[[bytes, tuple[int, int]], None],
    ) -> None:
        self._broadcast = broadcast
        self._painter = painter
        self._why = why
        self._publish = publish
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """There is something else to say, or nothing any more."""
        self._changed.set()

    async def run(self) -> None:
        """For as long as the camera is there."""
        pause = NOTICE_EVERY_S
        while True:
            self._changed.clear()
            why = self._why()
            newest = self._broadcast.newest
            said = why and newest is not None and newest.notice and newest.captured_at > why.since
            if why and not why.early and (self._broadcast.alone_s is None or not said):
                if await self.draw(why):
                    pause = NOTICE_EVERY_S
                else:
                    # Its process was killed over it. On a machine that is too slow for it just now, starting the next
                    # one at once would take the time that the camera's own process needs.
                    pause = min(pause * 2, LONGEST_PAUSE_S)
                    await asyncio.sleep(pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_EVERY_S if self._why() else None):
                    await self._changed.wait()

    async def draw(self, why: Why) -> bool:
        """Draw one and publish it, unless pictures came back meanwhile. False: it could not be drawn."""
        seconds = time.time() - why.since
        footer = time.strftime("%H:%M:%S", time.localtime()) + f"   for {seconds:.0f} s"
        width, height = why.size if why.size and all(why.size) else NOTICE_SIZE
        scale = min(1.0, LARGEST_NOTICE_SIDE / max(width, height))
        size = (max(SMALLEST_NOTICE[0], int(width * scale)), max(SMALLEST_NOTICE[1], int(height * scale)))
        jpeg = await self._painter.notice(size, why.title, [text for text in why.texts if text], footer)
        if jpeg is not None and self._why():
            self._publish(jpeg, size)
        return jpeg is not None
