"""The head of a request that does not come, on a real socket. The rest of the door: tests/process/test_door.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from camdock import server

WITHIN_S = 0.1
READ_WITHIN_S = 5.0
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Answers after the time in which a head must have come; a stream takes its door, and writes by itself."""
    door = scope["extensions"][server.DOOR]
    is_stream = scope["path"] == "/stream" and door.take()
    await asyncio.sleep(2 * WITHIN_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    if is_stream:
        door.transport.write(b"ok")
    await send({"type": "http.response.body", "body": b"" if is_stream else b"ok"})


def served(monkeypatch: pytest.MonkeyPatch, data: bytes) -> bytes:
    """All that the server says to these bytes until it closes."""
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
            writer.write(data)
            async with asyncio.timeout(READ_WITHIN_S):
                said = await reader.read()
            writer.close()
            return said

    return asyncio.run(talk())


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "half a head"])
def test_a_connection_whose_head_does_not_come_is_closed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    assert served(monkeypatch, data) == b""


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_what_is_being_answered_is_answered_whole_whatever_half_comes_behind_it(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    said = served(monkeypatch, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT".encode())
    assert said.startswith(b"HTTP/1.1 200")
    assert b"ok" in said
