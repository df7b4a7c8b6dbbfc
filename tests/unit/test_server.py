"""What a stranger may do to the server's protocol, on a real socket. The rest: tests/process/test_door.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from camdock import server

WITHIN_S = 0.1
READ_WITHIN_S = 3.0
Loop = Callable[[], asyncio.AbstractEventLoop]
CHUNKS = b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
TRAILERS = b"Host: evil.example\r\nX-Forwarded-For: 10.0.0.1\r\nAuthorization: Bearer x\r\n"
LAST = b"GET /quick HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
QUICK = b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNREAD = b"POST /quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Makes a loop of one of the two kinds."""
    made: Loop = request.param
    return made


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers after the time in which a head must have come; a stream takes its door, and writes by itself.

    /quick answers at once, /body behind its body with the names of the headers.
    """
    if scope["path"] in ("/quick", "/body"):
        while scope["path"] == "/body" and (await receive()).get("more_body"):
            pass
        said = b",".join(name for name, _ in scope["headers"])
        head = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": said})
        return
    door = scope["extensions"][server.DOOR]
    is_stream = scope["path"] == "/stream" and door.take()
    await asyncio.sleep(2 * WITHIN_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    if is_stream:
        door.transport.write(b"ok")
    await send({"type": "http.response.body", "body": b"" if is_stream else b"ok"})


def served(monkeypatch: pytest.MonkeyPatch, loop: Loop, *data: bytes) -> bytes:
    """All that the server says until it closes; each piece is sent behind an answer to the one before."""
    monkeypatch.setattr(server, "HEAD_WITHIN_S", WITHIN_S)

    async def talk() -> bytes:
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=60)
        config.load()
        state = ServerState()
        listening = await asyncio.get_running_loop().create_server(
            lambda: server.DoorProtocol(config, state, {}), "127.0.0.1", 0
        )
        async with listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            said = b""
            try:
                async with asyncio.timeout(READ_WITHIN_S):
                    for piece in data[:-1]:
                        writer.write(piece)
                        said += await reader.read(1 << 16)
                    writer.write(data[-1])
                    said += await reader.read()
            except ConnectionError:
                pass  # cut off
            finally:
                writer.transport.abort()
            return said

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(talk())


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "half a head"])
def test_a_connection_whose_head_does_not_come_is_closed(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, data: bytes
) -> None:
    assert served(monkeypatch, loop, data) == b""


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_what_is_being_answered_is_answered_whole_whatever_half_comes_behind_it(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, path: str
) -> None:
    said = served(monkeypatch, loop, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT".encode())
    assert said.startswith(b"HTTP/1.1 200")
    assert b"ok" in said


@pytest.mark.parametrize(
    ("asked", "behind"), [(QUICK, b"\r\n"), (UNREAD, b"x")], ids=["an empty line", "a byte of a body nobody reads"]
)
def test_a_connection_that_only_seems_to_go_on_is_closed(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, asked: bytes, behind: bytes
) -> None:
    said = served(monkeypatch, loop, asked, behind)
    assert said.count(b"HTTP/1.1 ") == 1
    assert said.startswith(b"HTTP/1.1 200 ")


def test_what_comes_behind_a_body_is_no_header_of_the_request(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    said = served(monkeypatch, loop, CHUNKS + TRAILERS + b"\r\n", LAST)
    assert b"\r\n\r\nhost,transfer-encodingHTTP/1.1 200 " in said


@pytest.mark.parametrize("line", [b"X-More: x\r\n", b"x"], ids=["many", "one that is endless"])
def test_what_comes_behind_a_body_ends_or_is_cut_off(monkeypatch: pytest.MonkeyPatch, loop: Loop, line: bytes) -> None:
    behind = line * (4 * server.LARGEST_HEAD // len(line))
    before = CHUNKS + (b"" if line.endswith(b"\n") else b"X-More: ")
    assert served(monkeypatch, loop, before + behind * 4) == b""


def test_a_body_may_be_larger_than_a_head(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    size = 16 * server.LARGEST_HEAD
    head = b"POST /body HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    assert served(monkeypatch, loop, head + bytes(size)).startswith(b"HTTP/1.1 200 ")


def test_few_requests_may_wait_for_the_one_before_them(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    assert served(monkeypatch, loop, QUICK * server.MOST_WAITING + LAST).count(b" 200 OK") == server.MOST_WAITING + 1
    said = served(monkeypatch, loop, QUICK * 3000)
    assert said.count(b"HTTP/1.1 ") == said.count(b" 200 OK") == server.MOST_WAITING + 1
