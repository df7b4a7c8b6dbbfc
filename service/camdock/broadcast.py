"""Broadcast: the newest frame of one camera or rendition, and everyone waiting for a newer one.

Runs in: the API process. No queue: a subscriber is a cursor that asks for anything newer, so a slow one skips frames.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from camdock.frame import Frame


class Subscriber:
    """One viewer's cursor: the last seq it saw, since when it looks (monotonic), how many frames it took."""

    __slots__ = ("_broadcast", "seq", "since", "taken")

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self.seq = self.taken = 0
        self.since = time.monotonic()

    @property
    def fps(self) -> float:
        """Frames taken per second, since it began to look."""
        return self.taken / max(0.001, time.monotonic() - self.since)

    def take(self) -> Frame | None:
        """The newest frame if it is newer than the last one taken, else None."""
        frame = self._broadcast.newest
        if frame is None or frame.seq <= self.seq:
            return None
        self.seq = frame.seq
        self.taken += 1
        return frame

    async def next(self) -> Frame:
        """The newest frame, once it is newer than the last one taken."""
        while (frame := self.take()) is None:
            await self._broadcast.published()
        return frame


class Broadcast:
    """Where Camera publishes and everybody else subscribes."""

    def __init__(self) -> None:
        self.newest: Frame | None = None
        self.newest_seq = 0
        self._subscribers: set[Subscriber] = set()
        self._feeds: set[Subscriber] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._listeners: set[Callable[[], None]] = set()
        self._on_demand: Callable[[], None] | None = None
        self._alone_since = time.monotonic()

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._subscribers)

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Who looks, for those who count them."""
        return tuple(self._subscribers)

    @property
    def alone_s(self) -> float | None:
        """Seconds since the last one left; None while somebody is there, a rendition too."""
        return None if self._subscribers or self._feeds else time.monotonic() - self._alone_since

    def on_demand(self, called: Callable[[], None]) -> None:
        """Call back when the first one comes and when the last one has left."""
        self._on_demand = called

    def publish(self, frame: Frame) -> None:
        """Make `frame` the newest and wake whoever waits. Only its owner calls this."""
        self.newest, self.newest_seq = frame, frame.seq
        for listener in self._listeners:
            listener()
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def forget(self) -> None:
        """What was the newest is too old to be shown to whoever comes next."""
        self.newest = None

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` at every publish: for the one sender, which then serves all its viewers."""
        self._listeners.add(listener)

    async def published(self) -> None:
        """Wait for the next publish."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    @contextmanager
    def subscribe(self, *, feed: bool = False) -> Iterator[Subscriber]:
        """A cursor that counts as a viewer while the context lasts; a `feed` wants pictures, but is nobody."""
        subscriber = Subscriber(self)
        kind = self._feeds if feed else self._subscribers
        first = self.alone_s is not None
        kind.add(subscriber)
        if first and self._on_demand:
            self._on_demand()
        try:
            yield subscriber
        finally:
            kind.discard(subscriber)
            if not (self._subscribers or self._feeds):
                self._alone_since = time.monotonic()
                if self._on_demand:
                    self._on_demand()
