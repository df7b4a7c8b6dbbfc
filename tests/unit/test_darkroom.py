"""Places, turns, rest, and whose fault it is when a picture comes to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from camdock import darkroom, pixels
from camdock.darkroom import PLACES, Darkroom, limits
from camdock.errors import (
    CameraError,
    DriverMissing,
    ImageUnreadable,
    PictureTookTooLong,
    PixelsUnavailable,
    SourceStalled,
    TooManyPictures,
    WorkerDied,
)
from camdock.guard import Guard
from camdock.pixels import Pixels

NOTICE = {"size": [64, 48], "title": "a title", "texts": ["a text"], "footer": ""}


class Hands:
    """Do as they are told; count who is at work and how often they were sent home."""

    def __init__(self, error: CameraError | None = None) -> None:
        self.error = error
        self.at_work = self.most_at_work = 0
        self.stopped = asyncio.Event()
        self.may = asyncio.Event()
        self.may.set()

    async def run(self, operation: str, arguments: Mapping[str, Any], picture: bytes, *, within_s: float) -> bytes:
        assert (operation, within_s) == ("process", darkroom.WITHIN_S)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await self.may.wait()
            await asyncio.sleep(0)
        finally:
            self.at_work -= 1
        if self.error:
            raise self.error
        return picture[::-1]

    async def stop(self) -> None:
        self.stopped.set()


def with_hands(test: Callable[[Darkroom, Hands], Awaitable[None]], error: CameraError | None = None) -> None:
    """Run a test with a darkroom whose process rests as soon as nobody is there."""

    async def run() -> None:
        hands = Hands(error)
        async with asyncio.timeout(5):
            await test(Darkroom(hands, rest_s=0.01), hands)

    asyncio.run(run())


async def developed(room: Darkroom) -> bytes:
    with room.place():
        return await room.process(b"abc", {})


def test_pictures_are_worked_on_one_after_the_other() -> None:
    async def test(room: Darkroom, hands: Hands) -> None:
        assert await asyncio.gather(*(developed(room) for _ in range(PLACES))) == [b"cba"] * PLACES
        assert hands.most_at_work == 1

    with_hands(test)


def test_who_finds_no_place_is_refused_and_a_place_left_is_free() -> None:
    async def test(room: Darkroom, _hands: Hands) -> None:
        with ExitStack() as stack:
            for _ in range(PLACES):
                stack.enter_context(room.place())
            with pytest.raises(TooManyPictures), room.place():
                pass
        assert await developed(room) == b"cba"

    with_hands(test)


def test_who_waits_for_a_place_gets_the_next_one_or_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def waits(room: Darkroom) -> bytes:
        async with room.next_place():
            return await room.process(b"abc", {})

    async def test(room: Darkroom, _hands: Hands) -> None:
        with ExitStack() as stack:
            for _ in range(PLACES):
                stack.enter_context(room.place())
            waiting = [asyncio.create_task(waits(room)) for _ in range(3)]
            await asyncio.sleep(0.01)
            assert not any(one.done() for one in waiting)
        assert await asyncio.gather(*waiting) == [b"cba"] * 3
        monkeypatch.setattr(darkroom, "WAIT_WITHIN_S", 0.02)
        with ExitStack() as stack:
            for _ in range(PLACES):
                stack.enter_context(room.place())
            with pytest.raises(TooManyPictures, match="no place"):
                await waits(room)
        assert await waits(room) == b"cba"

    with_hands(test)


def test_a_turn_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(darkroom, "WAIT_WITHIN_S", 0.02)

    async def test(room: Darkroom, hands: Hands) -> None:
        hands.may.clear()
        first = asyncio.create_task(developed(room))
        await asyncio.sleep(0)
        with pytest.raises(TooManyPictures, match="turn"):
            await developed(room)
        hands.may.set()
        assert await first == b"cba"
        assert await developed(room) == b"cba"

    with_hands(test)


def test_the_process_rests_when_nobody_is_there_and_not_before() -> None:
    async def test(room: Darkroom, hands: Hands) -> None:
        with room.place():
            await developed(room)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(hands.stopped.wait(), 0.05)
        await hands.stopped.wait()
        hands.stopped.clear()
        assert await developed(room) == b"cba", "and is there again"
        await hands.stopped.wait()
        await room.stop()

    with_hands(test)


@pytest.mark.parametrize(
    ("error", "told", "status"),
    [
        (SourceStalled("x"), PictureTookTooLong, 504),
        (WorkerDied("x"), ImageUnreadable, 422),
        (ImageUnreadable("x"), ImageUnreadable, 422),
        (DriverMissing("x"), DriverMissing, 503),
        (PixelsUnavailable("x"), PixelsUnavailable, 503),
    ],
)
def test_what_a_picture_does_to_the_process_is_told_to_its_sender(
    error: CameraError, told: type[CameraError], status: int
) -> None:
    async def test(room: Darkroom, hands: Hands) -> None:
        with pytest.raises(told) as caught:
            await developed(room)
        assert (type(caught.value), caught.value.http_status) == (told, status)
        hands.error = None
        assert await developed(room) == b"cba", "the next one is not touched by it"

    with_hands(test, error)


async def everything_is_admitted(_names: Collection[str]) -> None:
    """No check of the ABI."""


def fault(monkeypatch: pytest.MonkeyPatch, what: str) -> Mapping[str, int]:
    """What the process is started with, and what is wrong with the machine."""
    if what == "cannot be started":
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    if what == "slow to start":
        monkeypatch.setattr(pixels, "START_WITHIN_S", 0.001)
    return {**limits(1000), "nice": "no number"} if what == "dies getting ready" else limits(1000)  # type: ignore[dict-item]


@pytest.mark.parametrize("what", ["cannot be started", "slow to start", "dies getting ready"])
def test_a_process_that_does_not_start_is_no_pictures_fault(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        guard = Guard()
        with monkeypatch.context() as broken:
            hands = Pixels(guard, everything_is_admitted, "uploads", fault(broken, what))
            room = Darkroom(hands)
            with pytest.raises(PixelsUnavailable, match="does not start") as caught:
                await developed(room)
            assert caught.value.http_status == 503
        await room.stop()
        guard.stop()

    asyncio.run(test())


def test_a_process_that_was_killed_while_it_rested_is_started_anew() -> None:
    async def test() -> None:
        guard = Guard()
        hands = Pixels(guard, everything_is_admitted, "uploads")
        picture = await hands.run("notice", NOTICE, within_s=10)
        child = hands._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        await child.gone()
        assert await hands.run("notice", NOTICE, within_s=10) == picture
        await hands.stop()
        guard.stop()

    asyncio.run(test())
