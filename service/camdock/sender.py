"""Sender: one task that writes the newest part to every MJPEG viewer whose socket has room for it.

Runs in: the API process, on the event loop; it yields about every millisecond so that requests are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
import time
from collections import defaultdict

from camdock.broadcast import Broadcast, Subscriber
from camdock.mistakes import must_not_fail
from camdock.partfile import PartFile

YIELD_AFTER = 32  # viewers: about a millisecond. Not by the clock: uvloop writes only when the loop turns
SHARED_FROM = 16  # viewers: the file for all of them costs what a few copies cost
LOOK_AGAIN_S = 0.008  # for viewers without room: sooner than the next frame of a slow camera, later than a busy loop
# Looked up once: has_room is asked of every viewer for every frame.
_ioctl, _SIOCOUTQ, _NOTHING = fcntl.ioctl, termios.TIOCOUTQ, b"\0\0\0\0"
_TCP_INFO_BYTES = 168
_TCP_CLOSE = 7  # tcp_states.h: the first byte of tcp_info
_OFFSET_ACKED = 120
_OFFSET_SND_MSS, _OFFSET_NOTSENT, _OFFSET_MIN_RTT_US, _OFFSET_RATE = 16, 144, 148, 160  # struct tcp_info, linux/tcp.h


def acknowledged(connection: socket.socket) -> int:
    """Bytes that the far end has taken since it connected; 0 where the kernel does not count them."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:  # not TCP
        return 0
    return int(struct.unpack_from("=Q", info, _OFFSET_ACKED)[0]) if len(info) >= _OFFSET_ACKED + 8 else 0


class Viewer:
    """One connection that takes pictures as fast as it can, and no faster."""

    __slots__ = (
        "_buffered",
        "_out",
        "as_messages",
        "dead",
        "descriptor",
        "frames_left",
        "is_plain",
        "queued",
        "room_at",
        "socket",
        "subscriber",
        "transport",
    )

    def __init__(
        self, transport: asyncio.Transport, subscriber: Subscriber, frames: int | None, *, as_messages: bool = False
    ) -> None:
        self.transport = transport
        self.as_messages = as_messages
        self.is_plain = transport.get_extra_info("sslcontext") is None
        self.subscriber = subscriber
        self.frames_left = frames
        self.room_at = time.monotonic()
        self.socket: socket.socket = transport.get_extra_info("socket")
        self.descriptor = self.socket.fileno()
        self._buffered = transport.get_write_buffer_size
        self._out = bytearray(4)
        self.dead = False
        self.queued = 0

    def takes(self) -> bool:
        """Whether it took anything since this was asked last: one big picture may take a slow viewer minutes."""
        _ioctl(self.descriptor, _SIOCOUTQ, self._out)
        before = self.queued
        self.queued = self._buffered() + int.from_bytes(self._out, "little")
        return self.queued < before

    def has_room(self) -> bool:
        """Whether a frame that is written now goes out at once.

        Decided by the kernel's queue, not by ours: autotuned socket buffers hold megabytes, and seconds of old frames
        pile up there when a server writes whenever it can. Nothing unacknowledged means room. Else there is room only
        if all was sent and what is on its way fits the path: rate times shortest round trip, or one segment whose
        acknowledgement the far end may delay.
        """
        # Over TLS the kernel counts encrypted bytes, which is as good, and up to 64 KB may wait between TLS and the
        # kernel, where nothing can be asked; the kernel's queue is then full, and says so.
        if self._buffered():
            return False
        _ioctl(self.descriptor, _SIOCOUTQ, self._out)
        if self._out == _NOTHING:
            return True
        queued = int.from_bytes(self._out, "little")
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:  # not TCP
            return False
        if len(info) < _TCP_INFO_BYTES:  # a kernel before 4.9
            return False
        # Behind an end of file the event loop reads no more, so a reset is seen here or, with a queue that never
        # empties, nowhere.
        self.dead = info[0] == _TCP_CLOSE
        (segment,) = struct.unpack_from("=I", info, _OFFSET_SND_MSS)
        not_sent, shortest_rtt_us = struct.unpack_from("=II", info, _OFFSET_NOTSENT)
        (rate,) = struct.unpack_from("=Q", info, _OFFSET_RATE)
        fits: int = max(segment, rate * shortest_rtt_us // 1_000_000)
        return not_sent == 0 and queued <= fits


class Sender:
    """Serves the viewers of all cameras and renditions."""

    def __init__(self, *, send_timeout_s: float) -> None:
        self.send_timeout_s = send_timeout_s
        self._viewers: dict[Broadcast, list[Viewer]] = defaultdict(list)
        self._files: dict[Broadcast, PartFile] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.dropped_stuck = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(must_not_fail("nobody gets pictures any more"))

    async def stop(self) -> None:
        """End, and abort whoever still looks."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for viewers in self._viewers.values():
            for viewer in viewers:
                viewer.transport.abort()
        for file in self._files.values():
            file.close()

    async def serve(
        self,
        broadcast: Broadcast,
        transport: asyncio.Transport,
        left: asyncio.Future[None],
        frames: int | None = None,
        *,
        as_messages: bool = False,
    ) -> None:
        """Write parts (or a WebSocket's messages) to `transport` until `left`, or until so many `frames` were written.

        The head of the response has been written. The newest frame goes out at once.
        """
        with broadcast.subscribe() as subscriber:
            viewer = Viewer(transport, subscriber, frames, as_messages=as_messages)
            broadcast.listen(self._wake.set)
            viewers = self._viewers[broadcast]
            viewers.append(viewer)
            if len(viewers) == SHARED_FROM:
                self._files[broadcast] = PartFile()
            try:
                self._offer(broadcast, viewer, time.monotonic())
                await left
            finally:
                viewers.remove(viewer)
                if not viewers:
                    self._viewers.pop(broadcast, None)
                if len(viewers) < SHARED_FROM and (file := self._files.pop(broadcast, None)):
                    file.close()

    async def _run(self) -> None:
        behind = False
        while True:
            if behind:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._wake.wait()
            else:
                await self._wake.wait()
            self._wake.clear()
            behind = False
            now = time.monotonic()
            for broadcast, viewers in list(self._viewers.items()):
                for turn, viewer in enumerate(viewers.copy()):
                    if viewer.subscriber.seq == broadcast.newest_seq:
                        continue
                    if turn % YIELD_AFTER == YIELD_AFTER - 1:
                        await asyncio.sleep(0)
                        now = time.monotonic()
                    if not self._offer(broadcast, viewer, now):
                        behind = True

    def _offer(self, broadcast: Broadcast, viewer: Viewer, now: float) -> bool:
        """Write the newest part if there is one and room for it; False when the viewer is left behind."""
        transport = viewer.transport
        if transport.is_closing():
            # Its last part may be on the way; who does not take that is stuck as well.
            if viewer.frames_left == 0 and transport.get_write_buffer_size():
                self._drop_if_stuck(viewer, now)
            return True
        if not viewer.has_room():
            if viewer.dead:
                transport.abort()
                return True
            self._drop_if_stuck(viewer, now)
            return False
        # Nobody looks at it again before the next picture, which may come after its deadline: that look only begins it.
        viewer.room_at, viewer.queued = now, sys.maxsize
        frame = viewer.subscriber.take()
        if frame is None:
            return True
        if viewer.as_messages:
            transport.writelines(frame.message)
            return True
        if viewer.frames_left is None:
            # Past the transport, whose buffer is empty, or there would be no room.
            file = self._files.get(broadcast) if viewer.is_plain else None
            taken = file.send(viewer.descriptor, frame) if file else 0
            if taken < len(frame.part):
                transport.write(memoryview(frame.part)[taken:] if taken else frame.part)
            return True
        viewer.frames_left -= 1
        if viewer.frames_left > 0:
            transport.write(frame.part)
        else:
            transport.write(frame.last_part)
            transport.close()
        return True

    def _drop_if_stuck(self, viewer: Viewer, now: float) -> None:
        """Its deadline counts from the last time it had room for anything."""
        if viewer.takes():
            viewer.room_at = now
        elif now - viewer.room_at > self.send_timeout_s:
            self.dropped_stuck += 1
            viewer.transport.abort()
