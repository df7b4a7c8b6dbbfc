"""The newest frame and its subscribers: cursors, not queues."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from camdock.broadcast import Broadcast
from tests.unit.rig import frame_of

T = TypeVar("T")


def run(what: Coroutine[Any, Any, T]) -> T:
    async def within() -> T:
        async with asyncio.timeout(10):
            return await what

    return asyncio.run(within())


def test_a_new_subscriber_gets_the_newest_frame_at_once() -> None:
    broadcast = Broadcast()
    broadcast.publish(frame_of(7))
    with broadcast.subscribe() as subscriber:
        assert subscriber.seq < broadcast.newest_seq
        assert run(subscriber.next()) is broadcast.newest
        assert (subscriber.seq, subscriber.taken) == (7, 1)


def test_a_frame_is_taken_once() -> None:
    broadcast = Broadcast()
    with broadcast.subscribe() as subscriber:
        assert subscriber.take() is None
        assert subscriber.take() is None
        broadcast.publish(frame_of(1))
        assert subscriber.take() is broadcast.newest
        assert subscriber.take() is None
        assert subscriber.take() is None
        assert subscriber.taken == 1


def test_a_slow_subscriber_skips_to_the_newest_and_the_other_misses_none() -> None:
    broadcast = Broadcast()
    with broadcast.subscribe() as slow, broadcast.subscribe() as quick:
        seen = []
        for seq in range(1, 6):
            broadcast.publish(frame_of(seq))
            frame = quick.take()
            assert frame is not None
            seen.append(frame.seq)
        assert seen == [1, 2, 3, 4, 5]
        frame = slow.take()
        assert frame is not None
        assert (frame.seq, slow.taken) == (5, 1)


def test_waiting_does_not_halve_the_rate() -> None:
    # Whoever asks again after a frame was published in the meantime gets that one, not the one behind it.
    async def looking() -> list[int]:
        broadcast = Broadcast()
        seen = []
        with broadcast.subscribe() as subscriber:
            for seq in (1, 2, 3):
                broadcast.publish(frame_of(seq))
                seen.append((await subscriber.next()).seq)
        return seen

    assert run(looking()) == [1, 2, 3]


def test_everyone_who_waits_is_woken_by_one_publish() -> None:
    async def looking() -> list[int]:
        broadcast = Broadcast()
        with broadcast.subscribe() as one, broadcast.subscribe() as other:
            waiting = [asyncio.create_task(viewer.next()) for viewer in (one, other)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            broadcast.publish(frame_of(1))
            return [(await task).seq for task in waiting]

    assert run(looking()) == [1, 1]


def test_a_publish_without_anything_newer_leaves_them_waiting() -> None:
    async def looking() -> int:
        broadcast = Broadcast()
        broadcast.publish(frame_of(3))
        with broadcast.subscribe() as subscriber:
            await subscriber.next()
            task = asyncio.create_task(subscriber.next())
            await asyncio.sleep(0)
            broadcast.publish(frame_of(3))
            await asyncio.sleep(0)
            assert not task.done()
            broadcast.publish(frame_of(4))
            return (await task).seq

    assert run(looking()) == 4


def test_who_stops_waiting_leaves_nothing_behind() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        tasks = [asyncio.create_task(broadcast.published()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(broadcast._waiting) == 3
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        assert len(broadcast._waiting) == 2
        broadcast.publish(frame_of(1))
        tasks[1].cancel()  # woken and cancelled in the same turn
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not broadcast._waiting

    run(looking())


def test_who_leaves_just_before_a_publish_does_not_spoil_it_for_the_others() -> None:
    async def looking() -> int:
        broadcast = Broadcast()
        with broadcast.subscribe() as leaver, broadcast.subscribe() as stayer:
            tasks = [asyncio.create_task(viewer.next()) for viewer in (leaver, stayer)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            broadcast.publish(frame_of(1))
            return (await tasks[1]).seq

    assert run(looking()) == 1


def test_the_viewers_are_those_who_are_inside() -> None:
    broadcast = Broadcast()
    assert broadcast.viewers == 0
    with broadcast.subscribe() as one:
        with broadcast.subscribe() as other:
            assert broadcast.viewers == 2
            assert set(broadcast.subscribers) == {one, other}
        assert broadcast.subscribers == (one,)
    assert broadcast.viewers == 0


def test_a_viewer_that_ends_by_an_error_is_no_viewer_any_more() -> None:
    broadcast = Broadcast()
    with pytest.raises(ConnectionResetError), broadcast.subscribe():
        raise ConnectionResetError
    assert broadcast.viewers == 0


def test_a_listener_hears_every_publish_and_finds_the_new_frame() -> None:
    broadcast = Broadcast()
    heard: list[int] = []

    def listener() -> None:
        assert broadcast.newest is not None
        heard.append(broadcast.newest.seq)

    broadcast.listen(listener)
    for seq in (1, 2, 3):
        broadcast.publish(frame_of(seq))
    assert heard == [1, 2, 3]


def test_the_rate_of_a_subscriber_is_what_it_took_over_its_time() -> None:
    broadcast = Broadcast()
    with broadcast.subscribe() as subscriber:
        assert subscriber.fps == 0.0
        for seq in range(1, 31):
            broadcast.publish(frame_of(seq))
            subscriber.take()
        subscriber.since -= 10
        assert 2.9 < subscriber.fps <= 3.0


def test_demand_begins_with_the_first_and_ends_with_the_last() -> None:
    broadcast = Broadcast()
    told: list[bool] = []
    broadcast.on_demand(lambda: told.append(broadcast.alone_s is None))
    assert broadcast.alone_s is not None
    with broadcast.subscribe(feed=True):
        assert broadcast.viewers == 0, "a feed is nobody"
        with broadcast.subscribe(), broadcast.subscribe():
            assert broadcast.viewers == 2
            assert told == [True]
        assert broadcast.alone_s is None
    assert told == [True, False]
    assert broadcast.alone_s < 5


def test_what_is_forgotten_is_shown_to_nobody() -> None:
    broadcast = Broadcast()
    broadcast.publish(frame_of(1))
    broadcast.forget()
    with broadcast.subscribe() as late:
        assert late.take() is None
        broadcast.publish(frame_of(2))
        assert late.take() is not None
