"""The server: uvicorn with our HTTP protocol class, the door through which a stream gets its transport.

Runs in: the API process. Everything here leans on uvicorn's insides (`cycle.chunked_encoding`, `pipeline`, `flow`), so
tests/process/test_door.py runs on the oldest uvicorn we allow and on the newest.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from camdock.systemd import Systemd

DOOR = "camdock.door"
LARGEST_HEAD = 64 << 10  # bytes, and of whatever else is no body; the parser has no limit of its own
MOST_WAITING = 16  # requests that wait for the answer to the one before them
HEAD_WITHIN_S = 10.0  # from a head's first byte, or from the connection, to its last; uvicorn waits for ever


class Door:
    """The way out of one request: whoever takes it owns the connection's transport until the viewer leaves."""

    def __init__(self, protocol: DoorProtocol, cycle: Any) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self.transport: asyncio.Transport = protocol.transport
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.half_open = True  # whether a viewer that ended its half is taken to be there still
        self.on_data: Callable[[bytes], None] | None = None  # what the viewer says once the door is taken; else ignored
        self.on_shutdown: Callable[[], None] | None = None  # how it is told that the service stops; else it is cut off

    def take(self) -> bool:
        """Claim the transport before the head of the response is sent through ASGI; False when the viewer has left.

        From here on what the viewer sends is ignored, requests that it pipelined are forgotten, and the body is written
        to the transport as it is: no chunks, which simple MJPEG readers take for junk.
        """
        protocol = self._protocol
        if self.transport.is_closing() or protocol.door is not None:
            self.lost()
            return False
        protocol.door = self
        protocol.cycle = self._cycle  # a pipelined request has put its own here
        protocol.pipeline.clear()
        protocol.flow.resume_reading()
        self._cycle.chunked_encoding = False
        return True

    @property
    def answered(self) -> bool:
        """Whether its whole response has been written."""
        return bool(self._cycle.response_complete)

    def lost(self) -> None:
        """The connection is gone, whoever closed it."""
        self._cycle.disconnected = True
        self._cycle.message_event.set()
        if not self.left.done():
            self.left.set_result(None)


class DoorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a Door in the scope of every request."""

    door: Door | None = None
    deaf = False  # garbage came behind a request: that one is answered, nothing more is read
    head_bytes: int | None = None  # so many came of a head that is not whole
    idle_bytes = 0  # so many came since the last that were of use: trailers, what stands behind a chunk's length
    head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there, and has something to ask."""
        self.unanswered: deque[Door] = deque()
        super().connection_made(transport)
        self._expect_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.head_bytes = self.idle_bytes = 0
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what comes behind a body has passed nobody, and would stand in a head that has been judged."""
        if self.head_bytes is not None:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Bytes of a body; how many there may be is up to whoever reads it."""
        self.idle_bytes = 0
        super().on_body(body)

    def _expect_head(self) -> None:
        self._no_head_due()
        self.head_due = self.loop.call_later(HEAD_WITHIN_S, self._on_head_overdue)

    def _on_head_overdue(self) -> None:
        if not self._is_last():  # else what is being answered, a stream perhaps, is answered whole
            self.transport.close()

    def _no_head_due(self) -> None:
        if self.head_due is not None:
            self.head_due.cancel()
            self.head_due = None

    def on_headers_complete(self) -> None:
        """Put the door beside the request that has just been understood; its task runs later."""
        self.head_bytes = None
        self.idle_bytes = 0
        self._no_head_due()
        if len(self.pipeline) >= MOST_WAITING:
            raise ValueError("too many requests wait")  # to the parser: it takes the rest for garbage
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            door = Door(self, self.cycle)
            extensions: dict[str, Any] = {DOOR: door}
            self.scope["extensions"] = extensions
            while self.unanswered and self.unanswered[0].answered:
                self.unanswered.popleft()
            self.unanswered.append(door)

    def data_received(self, data: bytes) -> None:
        """Ignore what a viewer still sends, and end a head, or a body's frame, that does not end."""
        if self.door is not None or self.deaf:
            if self.door is not None and self.door.on_data is not None:
                self.door.on_data(data)
            return
        self.idle_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.head_bytes is not None:
            self.head_bytes += len(data)
            if self.head_bytes > LARGEST_HEAD:
                self.send_400_response("The head of the request is too long.")
        elif self.idle_bytes > LARGEST_HEAD:
            self.transport.abort()
        elif self.head_due is None and self.timeout_keep_alive_task is None and self._is_idle():
            # uvicorn stops waiting for the next request at its first byte; an empty line, or more of a body that
            # nobody reads, is no request, and nothing else would end this.
            self._expect_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all it wants to say still gets its answer; half a request gets none."""
        if self.transport.get_extra_info("ssl_object") is not None:
            return False  # asyncio ends both halves of TLS together
        return self.door.half_open if self.door is not None else self._is_last()

    def send_400_response(self, msg: str) -> None:
        """Garbage; behind a whole request it does not take that one's answer away."""
        if self._is_last():
            self.deaf = True
        else:
            super().send_400_response(msg)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is ours to make (websocket.py), or is none: nothing to warn of."""

    def _is_idle(self) -> bool:
        """Whether all that was asked is answered."""
        cycle: Any = self.cycle
        return cycle is not None and cycle.response_complete

    def _is_last(self) -> bool:
        """Whether a whole request waits for its answer; the connection then closes behind that."""
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's annotation says
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that its client is gone; uvicorn tells the last one only."""
        super().connection_lost(exc)
        self._no_head_due()
        for door in self.unanswered:
            door.lost()

    def shutdown(self) -> None:
        """The service stops: a stream never ends by itself, and a stuck viewer never takes what is left."""
        if self.door is not None:
            (self.door.on_shutdown or self.transport.abort)()
        else:
            super().shutdown()


class Server(uvicorn.Server):
    """uvicorn's server, which says when it serves and when it stops.

    status  one line about the cameras, for whoever started the service
    """

    def __init__(self, config: uvicorn.Config, systemd: Systemd, status: Callable[[], str]) -> None:
        super().__init__(config)
        self._systemd = systemd
        self._status = status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve from here on."""
        await super().startup(sockets)
        if self.started:
            self._systemd.ready(self._status)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is open, then the application."""
        self._systemd.stopping()
        await super().shutdown(sockets)
