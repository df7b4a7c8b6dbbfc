"""Darkroom: work on the pictures that people send, where it holds up nobody who looks at a camera.

Runs in: the API process. The pixels are touched in a pixels process of its own, politer than the others, started when
first needed and ended after a rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

from camdock.errors import ImageUnreadable, PictureTookTooLong, SourceStalled, TooManyPictures, WorkerDied

PLACES = 8  # pictures held in memory: one is worked on, the others wait
IN_LINE = 64  # who wait for a place, with nothing in memory yet: a page full of thumbnails, asked for at once
WITHIN_S = 10.0  # one picture, from its first operation to its last
WAIT_WITHIN_S = 20.0  # for its turn
REST_S = 30.0
NICE = 10
# On top of Python and NumPy, which have a thread for each processor: what libraries take when first used, then four
# copies of a picture of four bytes a pixel: a rotation has two, its conversions another.
MEMORY_BYTES, MEMORY_PER_PIXEL = 512 << 20, 16


def limits(most_pixels: int) -> dict[str, int]:
    """What its pixels process is started with."""
    return {"nice": NICE, "memory_bytes": MEMORY_BYTES + MEMORY_PER_PIXEL * most_pixels}


class Hands(Protocol):
    """Who does the work: Pixels."""

    async def run(self, operation: str, arguments: Mapping[str, Any], picture: bytes, *, within_s: float) -> bytes:
        """The output of one operation. Raises a CameraError."""
        ...

    async def stop(self) -> None:
        """End the process; the next `run` starts it anew."""
        ...


class Darkroom:
    """Few places, one pair of hands.

    operation  what they do to each picture: an operation of pixelsworker
    """

    def __init__(
        self, hands: Hands, operation: str = "process", *, within_s: float = WITHIN_S, rest_s: float = REST_S
    ) -> None:
        self._hands = hands
        self._operation = operation
        self._within_s = within_s
        self._rest_s = rest_s
        self._taken = self._in_line = 0
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._rest: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Task[None] | None = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place, taken before a picture is read: so many are in memory and no more. Raises TooManyPictures."""
        if self._taken >= PLACES:
            raise TooManyPictures(f"{PLACES} pictures are being worked on or wait for it", "send it again in a moment")
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._freed.set()
            if not self._taken:
                self._rest = asyncio.get_running_loop().call_later(self._rest_s, self._begin_rest)

    @asynccontextmanager
    async def next_place(self) -> AsyncIterator[None]:
        """The same, waited for. Raises TooManyPictures where too many wait, or none came free in time."""
        if self._in_line >= IN_LINE:
            raise TooManyPictures(f"{IN_LINE} pictures wait already", "ask again in a moment")
        self._in_line += 1
        try:
            async with asyncio.timeout(WAIT_WITHIN_S):
                while self._taken >= PLACES:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise TooManyPictures(f"no place came free within {WAIT_WITHIN_S:g} s", "ask again in a moment") from None
        finally:
            self._in_line -= 1
        with self.place():
            yield

    async def process(self, picture: bytes, arguments: Mapping[str, Any]) -> bytes:
        """The output of the operation for one picture.

        raises  what the operation raises, DriverMissing, PixelsUnavailable; ImageUnreadable, PictureTookTooLong when
                the process dies or hangs over it; TooManyPictures when its turn did not come
        """
        try:
            async with asyncio.timeout(WAIT_WITHIN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise TooManyPictures(
                f"its turn did not come within {WAIT_WITHIN_S:g} s", "send it again in a moment"
            ) from None
        try:
            return await self._hands.run(self._operation, arguments, picture, within_s=self._within_s)
        except SourceStalled:
            raise PictureTookTooLong(
                f"it took longer than {self._within_s:g} s", "send a smaller picture, or ask for less"
            ) from None
        except WorkerDied as error:
            raise ImageUnreadable(
                "the process that works on pictures died over this one", "the log has its last words"
            ) from error
        finally:
            self._turn.release()

    async def stop(self) -> None:
        """End what is under way."""
        if self._rest is not None:
            self._rest.cancel()
        if self._stopping is not None:
            await asyncio.gather(self._stopping, return_exceptions=True)
        await self._hands.stop()

    def _begin_rest(self) -> None:
        self._rest = None
        self._stopping = asyncio.create_task(self._end_hands())

    async def _end_hands(self) -> None:
        async with self._turn:  # somebody may have come meanwhile
            if not self._taken:
                await self._hands.stop()
