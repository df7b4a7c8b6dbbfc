"""The door: uvicorn with our HTTP protocol class, through which a stream gets its transport.

Runs in: the API process. Everything here leans on uvicorn's insides (`cycle.chunked_encoding`, `pipeline`, `flow`), so
tests/process/test_door.py runs on the oldest uvicorn we allow and on the newest.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DOOR = "camdock.door"


class Door:
    """The way out of one request: whoever takes it owns the connection's transport until the viewer leaves."""

    def __init__(self, protocol: DoorProtocol, cycle: Any) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self.transport: asyncio.Transport = protocol.transport
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self) -> bool:
        """Claim the transport before the head of the response is sent through ASGI; False when the viewer has left.

        From here on what the viewer sends is ignored, requests that it pipelined are forgotten, and the body is written
        to the transport as it is: no chunks, which simple MJPEG readers take for junk.
        """
        protocol = self._protocol
        if self.transport.is_closing() or protocol.door is not None:
            return False
        protocol.door = self
        protocol.cycle = self._cycle  # a pipelined request has put its own here
        protocol.pipeline.clear()
        protocol.flow.resume_reading()
        self._cycle.chunked_encoding = False
        return True

    def lost(self) -> None:
        """The connection is gone, whoever closed it."""
        self._cycle.disconnected = True
        self._cycle.message_event.set()
        if not self.left.done():
            self.left.set_result(None)


class DoorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a Door in the scope of every request."""

    door: Door | None = None

    def on_headers_complete(self) -> None:
        """Put the door beside the request that has just been understood; its task runs later."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            extensions: dict[str, Any] = {DOOR: Door(self, self.cycle)}
            self.scope["extensions"] = extensions

    def data_received(self, data: bytes) -> None:
        """Ignore what a viewer still sends."""
        if self.door is None:
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all it wants to say still gets its answer."""
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's annotation says
        return self.door is not None or (cycle is not None and not cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream that its viewer is gone."""
        super().connection_lost(exc)
        if self.door is not None:
            self.door.lost()

    def shutdown(self) -> None:
        """The service stops: a stream never ends by itself, and a stuck viewer never takes what is left."""
        if self.door is not None:
            self.transport.abort()
        else:
            super().shutdown()
