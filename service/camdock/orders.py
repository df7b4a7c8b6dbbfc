"""Orders: what a camera's worker was asked and has not answered yet.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from camdock import wire
from camdock.child import Child
from camdock.errors import CameraError, SourceStalled, from_code
from camdock.wire import Kind, Message


class Orders:
    """Of one camera. An order's number is never used again, so a late answer finds nobody."""

    def __init__(self, camera: str, scrub: Callable[[str], str]) -> None:
        self._camera = camera
        self._scrub = scrub
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Message]] = {}

    def number(self) -> int:
        """The next order's."""
        return next(self._numbers)

    def only(self, order: int) -> bool:
        """Whether no other one is open."""
        return self._open.keys() <= {order}

    async def ask(
        self, worker: Child, kind: Kind, meta: Mapping[str, Any], within_s: float | None = None, order: int = 0
    ) -> Message:
        """An order and its answer. Raises what the answer says, what its worker ended of, SourceStalled."""
        order = order or self.number()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[order] = future
        try:
            async with asyncio.timeout(within_s):
                await worker.send(wire.pack(kind, {"id": order, **meta}))
                answer = await asyncio.shield(future)
        except TimeoutError:
            raise SourceStalled(
                f"{self._camera}: the driver did not answer within {within_s:.0f} s",
                "try again in a moment; GET /cameras says whether it hangs",
            ) from None
        except asyncio.CancelledError:
            if future.cancelled():
                raise SourceStalled(f"{self._camera}: the driver process ended meanwhile", "try again") from None
            raise
        finally:
            self._open.pop(order, None)
        if error := answer.meta.get("error"):
            raise from_code(error["code"], self._scrub(error["message"]), error["hint"])
        return answer

    def answered(self, message: Message) -> bool:
        """The worker has answered one of them. False when nobody waits for it: who asked may have left."""
        if (future := self._open.pop(message.meta["id"], None)) and not future.done():
            future.set_result(message)
            return True
        return False

    def fail(self, error: CameraError) -> None:
        """The worker has ended of this: whoever waits gets it."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(error)

    def cancel(self) -> None:
        """The worker has ended."""
        for future in self._open.values():
            future.cancel()
