"""Large answers, sent in slices: whoever does not take what is sent is left, and holds neither memory nor a file.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import fcntl
import termios
from contextlib import ExitStack

from fastapi.responses import Response
from starlette.types import Message, Receive, Scope, Send

from camdock.server import DOOR, Door

SLICE = 1 << 18  # bytes; the server holds one of them, whatever the answer has


class Slices:
    """The way out of one answer.

    within_s  how long its client may take nothing at all; a slow one may take its time
    """

    def __init__(self, scope: Scope, send: Send, within_s: float) -> None:
        self._door: Door | None = scope.get("extensions", {}).get(DOOR)
        self._send = send
        self._within_s = within_s

    async def send(self, message: Message) -> bool:
        """Send one message of an answer, and wait until the one before is gone. False: the client is left, and the
        rest is not to be sent."""
        sending = asyncio.ensure_future(self._send(message))
        try:
            await asyncio.sleep(0)  # what it writes before it waits is counted
            queued = self._queued()
            while not (await asyncio.wait((sending,), timeout=self._within_s))[0]:
                before, queued = queued, self._queued()
                if queued >= before:
                    await self._leave()
                    return False
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        sending.result()
        return True

    def _queued(self) -> int:
        """Bytes that the client has not acknowledged; 0 where the server does not say."""
        if self._door is None or self._door.transport.is_closing():
            return 0
        transport, out = self._door.transport, bytearray(4)
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, out)
        return transport.get_write_buffer_size() + int.from_bytes(out, "little")

    async def _leave(self) -> None:
        if self._door is not None:  # another server closes what ends too soon
            self._door.transport.abort()
            await self._door.left


class Held(Response):
    """An answer that keeps what it has taken, a place say, until it is sent or its client is left."""

    def __init__(self, body: bytes, media_type: str, headers: dict[str, str], held: ExitStack, within_s: float) -> None:
        super().__init__(None, 200, headers, media_type)
        self.headers["Content-Length"] = str(len(body))
        self._whole, self._held, self._within_s = body, held, within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            slices, length = Slices(scope, send, self._within_s), len(self._whole)
            await slices.send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for begin in range(0, max(1, length), SLICE):
                data, more = self._whole[begin : begin + SLICE], begin + SLICE < length
                if not await slices.send({"type": "http.response.body", "body": data, "more_body": more}):
                    return
