"""What a viewer may say on its WebSocket, on real sockets. The rest: tests/process/test_websocket.py."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from camdock import websocket
from camdock.server import Door
from camdock.websocket import MOST_BYTES, MOST_FRAMES, Watch

EMPTY = b"\x81\x80\0\0\0\0"  # a text message
PICTURE = bytes(5_000_000)
Test = Callable[[Watch, asyncio.Transport, socket.socket], Awaitable[None]]


def ping(word: bytes) -> bytes:
    """As a client sends it: masked, here with zeros."""
    return bytes([0x89, 0x80 | len(word)]) + bytes(4) + word


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def watched(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Runs a test with a viewer's Watch, its transport, and the viewer's end of the connection."""

    async def run(test: Test) -> None:
        ours, theirs = connected()
        theirs.setblocking(False)

        class Protocol(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                door.on_data(data)

        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(Protocol, ours)
        door = SimpleNamespace(transport=transport, on_data=None, on_shutdown=None)
        watch = Watch(cast(Door, door), 5)
        try:
            async with asyncio.timeout(20):
                await test(watch, cast(asyncio.Transport, transport), theirs)
        finally:
            transport.abort()
            theirs.close()

    def runs(test: Test) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(run(test))

    return runs


def connected() -> tuple[socket.socket, socket.socket]:
    """Our end and the viewer's, which keeps little that was not read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        theirs.connect(server.getsockname())
        return server.accept()[0], theirs


async def read(theirs: socket.socket, length: int | None = None) -> bytes:
    """So many bytes, or all until the end."""
    data, loop = b"", asyncio.get_running_loop()
    parts: list[bytes] = []
    left = length if length is not None else 1 << 62
    while left and (data := await loop.sock_recv(theirs, min(left, 1 << 16))):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


@pytest.mark.parametrize(
    "too_much",
    [
        pytest.param(EMPTY * (MOST_FRAMES + 1), id="empty messages"),
        pytest.param(b"\x8a\x80\0\0\0\0" * (MOST_FRAMES + 1), id="pongs"),
        pytest.param(EMPTY * 40_000, id="so many that reading them takes a while"),
        pytest.param(b"\x82\xff" + (MOST_BYTES * 2).to_bytes(8, "big") + bytes(4 + MOST_BYTES), id="one long message"),
    ],
)
def test_a_viewer_that_talks_too_much_is_told_so_and_left(watched: Callable[[Test], None], too_much: bytes) -> None:
    async def test(_watch: Watch, _transport: Any, theirs: socket.socket) -> None:
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(theirs, too_much))
        began = time.process_time()
        assert await read(theirs, 4) == b"\x88\x02\x03\xf0"  # 1008, a policy is violated
        assert time.process_time() - began < 0.5
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    watched(test)


def test_what_a_viewer_may_say_it_may_say_again_later(
    watched: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_EVERY_S", 0.05)

    async def test(_watch: Watch, _transport: Any, theirs: socket.socket) -> None:
        for word in (b"a", b"b", b"c"):
            theirs.sendall(EMPTY * (MOST_FRAMES - 1) + ping(word))
            assert await read(theirs, 3) == b"\x8a\x01" + word
            await asyncio.sleep(0.06)

    watched(test)


def test_pings_get_one_answer_once_there_is_room(watched: Callable[[Test], None]) -> None:
    async def test(watch: Watch, transport: asyncio.Transport, theirs: socket.socket) -> None:
        transport.write(PICTURE)
        theirs.sendall(b"".join(ping(bytes([65 + number])) for number in range(20)))
        await watch._heard.wait()
        assert transport.get_write_buffer_size() <= len(PICTURE)
        assert await read(theirs, len(PICTURE) + 3) == PICTURE + b"\x8a\x01" + bytes([65 + 19])
        watch.end()
        assert await read(theirs) == b"\x88\x02\x03\xe8"  # no other was on its way

    watched(test)


def test_a_viewer_that_takes_a_picture_for_longer_than_its_deadline_stays(
    watched: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_EVERY_S", 0.01)

    async def test(watch: Watch, transport: asyncio.Transport, theirs: socket.socket) -> None:
        watch._send_timeout_s = 0.1
        transport.write(PICTURE)
        pinging = asyncio.create_task(watch.ping())
        began, left = time.monotonic(), len(PICTURE)
        while left:  # slowly: the Ping comes last
            left -= len(await read(theirs, min(left, 200_000)))
            await asyncio.sleep(0.02)
        assert time.monotonic() - began > 4 * watch._send_timeout_s
        assert await read(theirs, 2) == b"\x89\x00"
        assert not pinging.done()
        theirs.sendall(b"\x8a\x80\0\0\0\0")
        assert await read(theirs, 2) == b"\x89\x00"  # the next one
        pinging.cancel()

    watched(test)


def test_a_viewer_that_takes_nothing_and_does_not_answer_is_left(
    watched: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_EVERY_S", 0.01)

    async def test(watch: Watch, transport: asyncio.Transport, _theirs: socket.socket) -> None:
        watch._send_timeout_s = 0.1
        transport.write(PICTURE)
        await watch.ping()
        assert transport.is_closing()

    watched(test)
