"""The other process: owns one device, sends its pictures as JPEG frames, and may die at any time.

Runs in: the worker, started by Camera as `python -m camdock.worker`. Orders come on stdin, frames leave on stdout.
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import sys
from collections.abc import Mapping
from typing import Any

from camdock import wire
from camdock.backends import Backend, Opened, SourceChanged, open_backend
from camdock.errors import CameraError
from camdock.frame import Picture
from camdock.parent import Orders, die_with_parent, send, take_wire
from camdock.settings import Settings
from camdock.source import Source
from camdock.wire import Kind, Message

READ_WAIT_S = 0.25  # how long an order may wait for a camera that gives no pictures
LOOK_EVERY_S = 2.0  # while resting: whether the device is still there


class Worker:
    """One backend and the pipe that its pictures leave on."""

    def __init__(self, frames: int, orders: Orders) -> None:
        self.frames = frames
        self.orders = orders
        self.first_seq = 1
        self.wanted = Settings()

    def run(self) -> None:
        """Serve until the orders end. Raises a CameraError when the source gives no more pictures."""
        start = self.orders.first()
        while not self.orders.ended.is_set():
            source = Source.parse(start.meta["source"])
            self.first_seq = start.meta["first_seq"]
            self.wanted = Settings(**start.meta["wanted"])
            backend = open_backend(source, self.first_seq)
            send(self.frames, Kind.HELLO, {})
            opened = backend.open()
            try:
                self._send_ready(backend, opened)
                self._serve(backend)
            except SourceChanged:
                start = self._next_start(source)
                continue
            finally:
                backend.close()
            if not self.orders.ended.is_set():
                start = self._rest(backend)

    def _next_start(self, source: Source) -> Message:
        meta = {"source": source.text, "first_seq": self.first_seq, "wanted": self.wanted.given()}
        return Message(Kind.START, meta)

    def _rest(self, backend: Backend) -> Message:
        """Wait for the next START. Raises the device's CameraError when it goes meanwhile."""
        send(self.frames, Kind.RESTED, {})
        while True:
            order = self.orders.within(LOOK_EVERY_S)
            if order is not None and order.kind is Kind.START:
                return order
            if order is None:
                try:
                    backend.still_there()
                except SourceChanged:
                    return self._next_start(backend.source)

    def _send_ready(self, backend: Backend, opened: Opened) -> None:
        limits = backend.limits()
        refused = ""
        try:
            applied = backend.apply(self.wanted)
        except CameraError as error:
            # Settings kept from another camera must not keep this one dark.
            refused, applied = error.message, backend.apply(Settings())
        meta = dataclasses.asdict(opened) | {
            "limits": dataclasses.asdict(limits),
            "applied": applied.given(),
            "refused": refused,
        }
        send(self.frames, Kind.READY, meta)

    def _serve(self, backend: Backend) -> None:
        """Give pictures until told to rest, or to end."""
        told = 0
        while not self.orders.ended.is_set():
            while order := self.orders.waiting():
                if order.kind is Kind.REST:
                    return
                if order.kind is Kind.APPLY:
                    self.on_apply(backend, order)
            picture = backend.read(READ_WAIT_S)
            if picture is None:
                if sum(backend.drops.values()) != told:
                    told = sum(backend.drops.values())
                    send(self.frames, Kind.DROPS, {"drops": backend.drops})
                continue
            jpeg = picture.jpeg if picture.jpeg is not None else self._encode(picture, backend.quality)
            meta: dict[str, Any] = {"captured_ns": picture.captured_ns, "size": picture.size}
            if backend.drops:
                meta["drops"] = backend.drops
            if backend.wire_fault:
                self._spoil(backend.wire_fault, meta, jpeg)
            send(self.frames, Kind.FRAME, meta, jpeg)
            self.first_seq += 1

    @staticmethod
    def _encode(picture: Picture, quality: int) -> bytes:
        from camdock.imaging import encode_jpeg  # NumPy, 20 MB, only where the device gives pixels

        return encode_jpeg(picture, quality)

    def on_apply(self, backend: Backend, order: Message) -> None:
        """Change settings while running; the answer carries what the device says afterwards, or why it refused."""
        wanted = Settings(**order.meta["wanted"])
        answer: dict[str, Any] = {"id": order.meta["id"]}
        try:
            answer["applied"] = backend.apply(wanted).given()
            self.wanted = wanted
        except CameraError as error:
            answer["error"] = describe(error)
        send(self.frames, Kind.APPLIED, answer | {"limits": dataclasses.asdict(backend.limits())})

    def _spoil(self, fault: str, meta: Mapping[str, Any], jpeg: bytes) -> None:
        """What `synthetic:` asks for: break the wire the way a crashing driver does."""
        whole = wire.pack(Kind.FRAME, meta, jpeg)
        os.write(self.frames, whole[: len(whole) // 2] if fault == "half_frame" else b"driver says hello\n" * 8)
        os._exit(0) if fault == "half_frame" else select.select([], [], [])


def describe(error: CameraError) -> dict[str, str]:
    """An error for the wire."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def main() -> int:
    """Run one worker; returns the exit status."""
    frames = take_wire()
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the API process; it tells us
    try:
        Worker(frames, Orders(0)).run()
    except CameraError as error:
        send(frames, Kind.FAILED, describe(error))
        return 3
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # not sys.exit: a driver's exit handlers may hang
