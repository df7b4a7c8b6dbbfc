"""Builds every object, once.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

import camdock
from camdock import api, darkroom, images, login, metrics, problems, stream, websocket
from camdock.attempts import Attempts
from camdock.auth import Gate
from camdock.bodies import BodyLimit
from camdock.camera import Camera
from camdock.config import Config
from camdock.credentials import Credentials
from camdock.darkroom import Darkroom
from camdock.gate import AbiGate
from camdock.guard import Guard
from camdock.pixels import LOADS, Pixels
from camdock.sender import Sender
from camdock.settings import SettingsFile
from camdock.source import KINDS

DESCRIPTION = """Cameras as pictures over HTTP.

Put `/stream` into an `<img>`, fetch `/snapshot` with curl, ask `/cameras` what is going on.
Paths that name no camera mean the first one. With a token: `Authorization: Bearer TOKEN`, `?token=TOKEN`, or as the
password of Basic or Digest.
Errors are problem documents (RFC 9457) with a stable `code` and a `hint`.
"""


def build(config: Config) -> FastAPI:
    """The whole service, not yet running: cameras start with the application's lifespan."""
    guard = Guard()
    loads = {source.kind: KINDS[source.kind].loads for source in config.cameras.values()}
    names = {name for one in (*loads.values(), *LOADS.values()) for name in one}
    abi = AbiGate(names, guard, config.abi_cache_path, enabled=config.abi == "check")
    pixels = Pixels(guard, abi.admit)
    room = Darkroom(Pixels(guard, abi.admit, "uploads", darkroom.limits(config.upload_max_pixels)))
    cameras = {
        name: Camera(
            name,
            source,
            SettingsFile(config.settings_path(name)),
            pixels,
            guard,
            functools.partial(abi.admit, loads[source.kind]),
            open_timeout_s=config.open_timeout_s,
            linger_s=config.linger_s,
        )
        for name, source in config.cameras.items()
    }
    sender = Sender(send_timeout_s=config.send_timeout_s)
    app = FastAPI(
        title="Camdock",
        version=camdock.__version__,
        description=DESCRIPTION,
        lifespan=_running(cameras, sender, pixels, room, guard, abi),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(api.router(cameras, sender, abi, camdock.__version__))
    app.include_router(stream.router(cameras, sender))
    app.include_router(websocket.router(cameras, sender))
    app.include_router(
        images.router(cameras, room, most_bytes=config.upload_max_bytes, most_pixels=config.upload_max_pixels)
    )
    app.include_router(metrics.router(cameras, sender, abi, camdock.__version__, config.settings_path("").parent))
    attempts = Attempts()
    app.include_router(login.router(Credentials(config), attempts))
    app.state.cameras = cameras  # for the one who serves it
    problems.install(app)
    app.add_middleware(BodyLimit, uploads=(images.PATH,))
    app.add_middleware(Gate, config=config, attempts=attempts)  # the last one added is asked first
    return app


def _running(
    cameras: dict[str, Camera], sender: Sender, pixels: Pixels, room: Darkroom, guard: Guard, abi: AbiGate
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        abi.start()
        sender.start()
        for camera in cameras.values():
            camera.start()
        try:
            yield
        finally:
            await sender.stop()
            await asyncio.gather(*(camera.stop() for camera in cameras.values()), pixels.stop(), room.stop())
            await abi.stop()
            guard.stop()

    return lifespan
