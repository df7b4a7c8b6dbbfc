"""The other process: owns one device, sends its pictures as JPEG frames, and may die at any time.

Runs in: the worker, started by Camera as `python -m camdock.worker`. Orders come on stdin, frames leave on stdout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from camdock import wire
from camdock.backends import Backend, Opened, SourceChanged, open_backend
from camdock.errors import CameraError, SourceFailed
from camdock.frame import Picture
from camdock.parent import Orders, die_with_parent, send, take_wire
from camdock.settings import Settings
from camdock.source import KINDS, Source
from camdock.wire import Kind, Message

READ_WAIT_S = 0.25  # how long an order may wait for a camera that gives no pictures
LOOK_EVERY_S = 2.0  # while resting: whether the device is still there


class _Refused(Exception):
    """The device does not take the settings of a still."""

    def __init__(self, error: CameraError) -> None:
        super().__init__(error.message)
        self.error = error


def _versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """The version of each of these that is loaded, by import name."""
    found = {}
    for name in libraries:
        if name in sys.modules:
            version = getattr(sys.modules[name], "__version__", None)
            if version is None:
                import importlib.metadata  # a third of what this file imports, for libraries that are silent about it

                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    version = importlib.metadata.version(name)
            found[name] = str(version or "of unknown version")
    return found


class Worker:
    """One backend and the pipe that its pictures leave on.

    wanted     the settings to keep
    asked      those that the device was told last; others than `wanted` while a still has its own
    applied    what the device said then
    unsettled  so many of the next pictures may have been taken with other settings
    """

    def __init__(self, frames: int, orders: Orders) -> None:
        self.frames = frames
        self.orders = orders
        self.first_seq = 1
        self.wanted = self.asked = self.applied = Settings()
        self.unsettled = 0

    def run(self) -> None:
        """Serve until the orders end. Raises a CameraError when the source gives no more pictures."""
        start = self.orders.first()
        while not self.orders.ended.is_set():
            source = Source.parse(start.meta["source"])
            self.first_seq = start.meta["first_seq"]
            self.wanted = Settings(**start.meta["wanted"])
            backend = open_backend(source, self.first_seq)
            send(self.frames, Kind.HELLO, {"versions": _versions(KINDS[source.kind].loads) | backend.versions})
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
            self._apply(backend, self.wanted)
        except CameraError as error:
            # Settings kept from another camera must not keep this one dark.
            refused, self.wanted = error.message, Settings()
            self._apply(backend, self.wanted)
        meta = dataclasses.asdict(opened) | {
            "limits": dataclasses.asdict(limits),
            "applied": self.applied.given(),
            "refused": refused,
            "settle_frames": backend.settle_frames,
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
                if order.kind is Kind.STILL:
                    self.on_still(backend, order)
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
            if picture.sensor:
                meta["sensor"] = picture.sensor
            if picture.notice:
                meta["notice"] = True
            if backend.wire_fault:
                self._spoil(backend.wire_fault, meta, jpeg)
            send(self.frames, Kind.FRAME, meta, jpeg)
            self._count()

    def _count(self) -> None:
        """A picture came."""
        self.first_seq += 1
        self.unsettled = max(0, self.unsettled - 1)

    def _apply(self, backend: Backend, settings: Settings) -> None:
        self.asked, self.unsettled = settings, backend.settle_frames
        self.applied = backend.apply(settings)

    @staticmethod
    def _encode(picture: Picture, quality: int) -> bytes:
        from camdock.imaging import encode_jpeg  # NumPy, 20 MB, only where the device gives pixels

        return encode_jpeg(picture, quality)

    def on_apply(self, backend: Backend, order: Message) -> None:
        """Change settings while running; the answer carries what the device says afterwards, or why it refused."""
        wanted = Settings(**order.meta["wanted"])
        answer: dict[str, Any] = {"id": order.meta["id"]}
        try:
            self._apply(backend, wanted)
            answer["applied"] = self.applied.given()
            self.wanted = wanted
        except CameraError as error:
            answer["error"] = describe(error)
        send(self.frames, Kind.APPLIED, answer | {"limits": dataclasses.asdict(backend.limits())})

    def on_still(self, backend: Backend, order: Message) -> None:
        """One picture at full quality, with its own settings if it has any; those in force come back whatever happens.

        What the device refuses is the answer. What ends the pictures altogether is raised, as from `read`.
        """
        overrides = Settings(**order.meta["overrides"])
        seq = self.first_seq
        if not backend.has_stamps:  # what waits in a queue would pass for one that was taken from now on
            self.unsettled = max(self.unsettled, backend.settle_frames)
        answer: dict[str, Any] = {"id": order.meta["id"]}
        blob = b""
        try:
            with self._overridden(backend, overrides):
                picture = self._settled(backend)
                in_force = self._in_force(backend)
        except SourceChanged:
            answer["error"] = describe(SourceFailed("another camera was found meanwhile", "try again"))
            send(self.frames, Kind.TAKEN, answer | {"pictures": self.first_seq - seq, "applied": self.applied.given()})
            raise
        except _Refused as refused:
            answer["error"] = describe(refused.error)
        else:
            if picture is None:
                return  # nobody waits for it any more
            blob, made = self._encode_still(picture, order.meta["format"], order.meta["quality"])
            answer |= made
            answer |= {"captured_ns": picture.captured_ns, "size": picture.size, "settings": in_force.given()}
            answer["sensor"] = picture.sensor
            if len(blob) > wire.LARGEST_BLOB:
                blob, answer["error"] = b"", describe(SourceFailed("the still is too large", "ask for a JPG"))
        answer |= {"pictures": self.first_seq - seq, "applied": self.applied.given()}
        send(self.frames, Kind.TAKEN, answer, blob)

    @contextlib.contextmanager
    def _overridden(self, backend: Backend, overrides: Settings) -> Iterator[None]:
        """Other settings for a while. Raises _Refused, with those in force back, when the device does not take them."""
        if overrides == Settings():
            yield
            return
        asked = self.asked
        back = asked.changed(self._in_force(backend).undoing(overrides).given())
        try:
            try:
                self._apply(backend, asked.changed(overrides.given()))
            except CameraError as error:
                raise _Refused(error) from error
            yield
        except BaseException as error:
            if isinstance(error, CameraError):  # it is going anyway, and may not take this any more
                with contextlib.suppress(CameraError):
                    self._apply(backend, back)
            else:
                self._apply(backend, back)
            raise
        self._apply(backend, back)
        self.asked = asked

    def _in_force(self, backend: Backend) -> Settings:
        if self.applied.auto_exposure:  # what it has chosen by now
            self.applied = backend.apply(self.asked)
        return self.applied

    def _settled(self, backend: Backend) -> Picture | None:
        """A picture taken from now on, all of it with the settings in force; None when the orders end first."""
        since_ns = time.monotonic_ns()
        while not self.orders.ended.is_set():
            picture = backend.still(READ_WAIT_S)
            if picture is not None:
                is_own = not self.unsettled and picture.captured_ns >= since_ns
                self._count()
                if is_own:
                    return picture
        return None

    @staticmethod
    def _encode_still(picture: Picture, still_format: str, quality: int) -> tuple[bytes, dict[str, Any]]:
        """The bytes and what they are: a camera's own JPEG stays one, of its own quality, whatever is asked for."""
        if picture.jpeg is not None:
            return picture.jpeg, {"format": "JPG"}
        from camdock.imaging import encode_still

        made = {"format": still_format} | ({"quality": quality} if still_format == "JPG" else {})
        return encode_still(picture, still_format, quality), made

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
