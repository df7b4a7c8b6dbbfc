"""The one task that writes to all viewers, on real sockets; with a whole service around it: test_fanout.py."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from camdock import sender as sending
from camdock.broadcast import Broadcast
from camdock.sender import SHARED_FROM, Sender, Viewer
from tests.unit.rig import frame_of

VIEWERS = SHARED_FROM + 2


Opened = asyncio.Queue[asyncio.Task[None]]


class Door(asyncio.Protocol):
    """Every connection is a viewer of `broadcast`, and told to `opened`: the task that ends when it has left."""

    def __init__(self, sender: Sender, broadcast: Broadcast, opened: Opened) -> None:
        self._sender, self._broadcast, self._opened = sender, broadcast, opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(self._sender.serve(self._broadcast, transport, self._left))
        self._opened.put_nowait(serving)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._left.done():
            self._left.set_result(None)


async def listening(sender: Sender, broadcast: Broadcast) -> tuple[asyncio.Server, Opened]:
    """A server of viewers, and what is told of each."""
    opened: Opened = asyncio.Queue()
    sender.start()
    make = functools.partial(Door, sender, broadcast, opened)
    return await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0), opened


async def shown(parts: int, size: int) -> list[list[bool]]:
    """For every part and every viewer: whether what came was that part."""
    broadcast, sender = Broadcast(), Sender(send_timeout_s=10)
    server, opened = await listening(sender, broadcast)
    port = server.sockets[0].getsockname()[1]
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(VIEWERS)]
    served = [await opened.get() for _ in streams]
    assert broadcast.viewers == VIEWERS
    seen = []
    for seq in range(1, parts + 1):
        frame = frame_of(seq, bytes([seq]) * size)
        broadcast.publish(frame)
        seen.append([await reader.readexactly(len(frame.part)) == frame.part for reader, _ in streams])
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*served)
    server.close()
    await sender.stop()
    return seen


def run(parts: int, size: int) -> list[list[bool]]:
    async def within() -> list[list[bool]]:
        async with asyncio.timeout(20):
            return await shown(parts, size)

    return asyncio.run(within())


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Have sockets take at most so many bytes at once from a file; returns the list of what each took."""

    def limited(most: int) -> list[int]:
        taken: list[int] = []
        real = os.sendfile

        def sendfile(socket: int, file: int, offset: int, count: int) -> int:
            if not most:
                raise BlockingIOError
            taken.append(real(socket, file, offset, min(count, most)))
            return taken[-1]

        monkeypatch.setattr(os, "sendfile", sendfile)
        return taken

    return limited


def test_many_viewers_are_lent_one_part_and_nothing_is_written(lent: Callable[[int], list[int]]) -> None:
    taken = lent(1 << 20)
    assert run(3, 5000) == [[True] * VIEWERS] * 3
    assert len(taken) == 3 * VIEWERS
    assert min(taken) > 5000


def test_the_rest_of_a_part_that_does_not_fit_comes_behind_it(lent: Callable[[int], list[int]]) -> None:
    taken = lent(1000)
    assert run(3, 5000) == [[True] * VIEWERS] * 3
    assert set(taken) == {1000}


def test_a_part_that_a_full_socket_refuses_is_written(lent: Callable[[int], list[int]]) -> None:
    lent(0)
    assert run(3, 5000) == [[True] * VIEWERS] * 3


def test_parts_of_more_than_64_kb_are_written(lent: Callable[[int], list[int]]) -> None:
    taken = lent(1 << 20)
    assert run(2, 70_000) == [[True] * VIEWERS] * 2
    assert taken == []


def test_a_deadline_that_passed_between_two_pictures_begins_with_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera slower than the deadline: nobody looks at its viewers in between, who may have read all the time."""
    clock = [0.0]
    monkeypatch.setattr(sending, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def dropped() -> list[int]:
        broadcast, sender, looked, takes = Broadcast(), Sender(send_timeout_s=10), asyncio.Event(), Viewer.takes
        monkeypatch.setattr(Viewer, "takes", lambda viewer: (looked.set(), takes(viewer))[1])
        server, opened = await listening(sender, broadcast)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            served = await opened.get()
            broadcast.publish(frame_of(1, bytes(8_000_000)))  # more than the kernel keeps
            await asyncio.get_running_loop().sock_recv(client, 1000)
            clock[0] += 11
            broadcast.publish(frame_of(2))
            await looked.wait()
            counts = [sender.dropped_stuck]
            clock[0] += 11
            await served  # it read nothing
            counts.append(sender.dropped_stuck)
        server.close()
        await sender.stop()
        return counts

    async def within() -> list[int]:
        async with asyncio.timeout(20):
            return await dropped()

    assert asyncio.run(within()) == [0, 1]


def test_a_mistake_that_ends_it_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: Sender) -> None:
        raise RuntimeError("a mistake")

    async def started() -> None:
        sender = Sender(send_timeout_s=10)
        monkeypatch.setattr(Sender, "_run", broken)
        sender.start()
        await asyncio.sleep(0)
        await sender.stop()

    with caplog.at_level(logging.ERROR, "camdock"):
        asyncio.run(started())
    assert "nobody gets pictures any more" in caplog.text
