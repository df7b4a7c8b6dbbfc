"""The service's own objects put together without a second process, a socket or a device, and a way to ask them.

The worker is the one thing that is missing: `WorkerHere` does its part in this process, with the real synthetic camera.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

import camdock
from camdock import api, captures_api, compat, images, lettering, metrics, pixelsworker, problems, stream, wire
from camdock.backends import open_backend
from camdock.camera import Camera, _Session
from camdock.captures import Captures
from camdock.darkroom import Darkroom
from camdock.errors import CameraError
from camdock.frame import Frame, Picture
from camdock.gate import AbiGate
from camdock.guard import Guard
from camdock.imaging import encode_jpeg
from camdock.parent import Orders
from camdock.sender import Sender
from camdock.settings import Settings, SettingsFile
from camdock.source import Source
from camdock.wire import Kind, Message
from camdock.worker import Worker


def jpeg_of(width: int = 64, height: int = 48, *, seed: int = 1) -> bytes:
    """A JPEG with something in it."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return encode_jpeg(Picture((width, height), 0, rgb=noise), 80)


def frame_of(seq: int, jpeg: bytes = b"\xff\xd8picture\xff\xd9") -> Frame:
    """A frame with that number."""
    return Frame.of(jpeg, seq=seq, captured_ns=time.monotonic_ns(), captured_at=1700000000.25, size=(64, 48))


class Painter:
    """Works on pixels in this process, as pixelsworker does in its own."""

    async def notice(self, size: tuple[int, int], title: str, texts: list[str], footer: str) -> bytes | None:
        return lettering.notice(size, title, texts, footer)

    async def run(
        self, operation: str, arguments: Mapping[str, Any], picture: bytes = b"", *, within_s: float
    ) -> bytes:
        return pixelsworker.OPERATIONS[operation](dict(arguments), picture)

    async def stop(self) -> None:
        """There is no process to end."""


class WorkerHere:
    """What Camera knows of its Child, with the backend in this process."""

    pid = 4242
    within_s = 0.0

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.backend = open_backend(camera.source)
        self.unpacker = wire.Unpacker()
        self.orders_out, self.orders_in = os.pipe()

    def expect(self, within_s: float) -> None:
        """Camera's deadline for what comes next; kept for the tests to see."""
        self.within_s = within_s

    def begin(self, **report: Any) -> None:
        """Open the source, as Camera sees it."""
        self.camera._session = _Session(self)  # type: ignore[arg-type]
        self.camera._dispatch(Message(Kind.HELLO))
        opened = dataclasses.asdict(self.backend.open())
        limits, applied = dataclasses.asdict(self.backend.limits()), self.backend.apply(Settings()).given()
        known = {"limits": limits, "applied": applied, "refused": "", "settle_frames": 0}
        self.camera._dispatch(Message(Kind.READY, opened | known | report))

    def give(self, captured_ns: int | None = None, **meta: Any) -> None:
        """One frame; taken now, unless it is said when."""
        picture = self.backend.read(10.0)
        assert picture is not None
        shown = {"captured_ns": captured_ns or time.monotonic_ns(), "size": list(picture.size)}
        self.camera._dispatch(Message(Kind.FRAME, shown | meta, picture.jpeg or b""))

    async def send(self, message: bytes) -> None:
        """An order from Camera, done at once, as Worker does it."""
        os.write(self.orders_in, message)
        self.unpacker.fill(self.orders_out)
        for order in self.unpacker.messages():
            if order.kind is Kind.REST:
                continue  # the test says when it has given its device back
            if order.kind is Kind.STILL:
                self.still(order)
                continue
            assert order.kind is Kind.APPLY
            answer: dict[str, Any] = {"id": order.meta["id"], "limits": dataclasses.asdict(self.backend.limits())}
            try:
                answer["applied"] = self.backend.apply(Settings(**order.meta["wanted"])).given()
            except CameraError as error:
                answer["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
            self.camera._dispatch(Message(Kind.APPLIED, answer))

    def still(self, order: Message) -> None:
        """The real Worker's own doing, on this backend."""
        answers_out, answers_in = os.pipe()
        fcntl.fcntl(answers_in, fcntl.F_SETPIPE_SZ, wire.PIPE_BYTES)  # nobody reads before the answer is whole
        worker = Worker(answers_in, Orders(-1))
        worker.applied = self.backend.apply(Settings())
        try:
            worker.on_still(self.backend, order)
            unpacker = wire.Unpacker()
            unpacker.fill(answers_out)
            for answer in unpacker.messages():
                self.camera._dispatch(answer)
        finally:
            os.close(answers_in)
            os.close(answers_out)

    def __del__(self) -> None:
        os.close(self.orders_in)
        os.close(self.orders_out)


async def draw_notice(camera: Camera) -> None:
    """The picture that says why there is none, now."""
    why = camera._why()
    assert why is not None
    await camera._notices.draw(why)


def no_gate() -> AbiGate:
    """A gate that lets everybody through."""
    return AbiGate((), Guard(), enabled=False)


async def _admitted() -> None:
    """What a camera asks before it starts its worker."""


def camera_of(folder: Path, source: str = "synthetic:?fps=1000", name: str = "front") -> Camera:
    """A camera that was never started."""
    settings, conversions = SettingsFile(folder / f"{name}.json"), Darkroom(Painter(), "converted")
    return Camera(name, Source.parse(source), settings, Painter(), conversions, Guard(), _admitted)


def live_camera(
    folder: Path, source: str = "synthetic:?size=64x48&fps=1000", name: str = "front"
) -> tuple[Camera, WorkerHere]:
    """A camera that gives pictures, one so far, and its worker."""
    camera = camera_of(folder, source, name)
    worker = WorkerHere(camera)
    worker.begin()
    worker.give()
    return camera, worker


def app_of(*cameras: Camera, abi: AbiGate | None = None, captures: Captures | None = None) -> FastAPI:
    """Every router over these cameras; nobody at the door, nothing started."""
    abi = abi or no_gate()
    by_name = {camera.name: camera for camera in cameras}
    sender = Sender(send_timeout_s=10)
    app = FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(api.router(by_name, sender, abi, camdock.__version__))
    app.include_router(stream.router(by_name, sender))
    kept = captures or Captures(Path("/nowhere"))
    app.include_router(
        images.router(
            images.Places(by_name, kept, 100_000), Darkroom(Painter()), most_pixels=1_000_000, send_timeout_s=10
        )
    )
    if captures is not None:
        app.include_router(compat.router(by_name, captures, "JPG", 95))
        app.include_router(
            captures_api.router(by_name, captures, Darkroom(Painter(), "rendition"), "JPG", 95, send_timeout_s=10)
        )
    app.include_router(metrics.router(by_name, sender, abi, camdock.__version__))
    problems.install(app)
    return app


def ask(app: Any, path: str, method: str = "GET", host: str = "localhost", **more: Any) -> httpx.Response:
    """One request through ASGI, answered whole."""

    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client, asyncio.timeout(10):
            return await client.request(method, path, **more)

    return asyncio.run(asking())
