"""Builds every object, once.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import camdock
from camdock import (
    annotate,
    api,
    captures_api,
    compat,
    darkroom,
    images,
    login,
    metrics,
    problems,
    stream,
    websocket,
)
from camdock.attempts import Attempts
from camdock.auth import Gate
from camdock.bodies import BodyLimit
from camdock.camera import ENCODE_WITHIN_S, Camera
from camdock.captures import Captures
from camdock.config import Config
from camdock.credentials import Credentials
from camdock.darkroom import Darkroom
from camdock.gate import AbiGate
from camdock.guard import Guard
from camdock.pixels import LOADS, Pixels
from camdock.rendition import MAKE_WITHIN_S
from camdock.sender import Sender
from camdock.settings import Settings, SettingsFile
from camdock.source import KINDS

LARGEST_CAPTURE = 100_000_000  # pixels: no more are decoded, see imaging

DESCRIPTION = """Cameras as pictures over HTTP.

Put `/stream` into an `<img>`, fetch `/snapshot` with curl, ask `/cameras` what is going on.
Paths that name no camera mean the first one. With a token: `Authorization: Bearer TOKEN`, `?token=TOKEN`, or as the
password of Basic or Digest.
`/ws` and `/cameras/{name}/ws` are WebSockets, which have no place among the addresses below: one JPEG in each binary
message, the camera's state as JSON in text messages; the parameters of `/stream`.
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
    cloud = Darkroom(Pixels(guard, abi.admit, "cloud"), "annotate", within_s=annotate.ANSWERED_WITHIN_S)
    # Apart from the renditions and notices that viewers wait for, and from each other: either may be at it for seconds.
    thumbnails = Darkroom(
        Pixels(guard, abi.admit, "thumbnails", darkroom.limits(LARGEST_CAPTURE)), "rendition", within_s=MAKE_WITHIN_S
    )
    conversions = Darkroom(Pixels(guard, abi.admit, "conversions"), "converted", within_s=max(ENCODE_WITHIN_S.values()))
    usual = Settings().changed(Settings(config.default_exposure_us, config.default_gain).given())
    cameras = {
        name: Camera(
            name,
            source,
            SettingsFile(config.settings_path(name), usual),
            pixels,
            conversions,
            guard,
            functools.partial(abi.admit, loads[source.kind]),
            open_timeout_s=config.open_timeout_s,
            linger_s=config.linger_s,
        )
        for name, source in config.cameras.items()
    }
    captures = Captures(
        config.captures_path, max_bytes=config.captures_max_bytes, max_age_days=config.captures_max_age_days
    )
    wait_s = config.send_timeout_s
    sender = Sender(send_timeout_s=wait_s)
    app = FastAPI(
        title="Camdock",
        version=camdock.__version__,
        description=DESCRIPTION,
        lifespan=_running(cameras, captures, sender, (pixels, room, cloud, thumbnails, conversions), guard, abi),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(api.router(cameras, sender, abi, camdock.__version__))
    app.include_router(stream.router(cameras, sender))
    app.include_router(websocket.router(cameras, sender))
    places = images.Places(cameras, captures, config.upload_max_bytes)
    app.include_router(images.router(places, room, most_pixels=config.upload_max_pixels, send_timeout_s=wait_s))
    app.include_router(
        annotate.router(
            places, room, cloud,
            most_pixels=config.upload_max_pixels, on=config.vision == "on", endpoint=config.vision_endpoint,
        )
    )  # fmt: skip
    kept_as = config.image_format, config.image_quality
    app.include_router(compat.router(cameras, captures, *kept_as))  # /captures/list is no capture's name: it goes first
    app.include_router(compat.table_router(cameras, sender))
    app.include_router(captures_api.router(cameras, captures, thumbnails, *kept_as, send_timeout_s=wait_s))
    app.include_router(metrics.router(cameras, sender, abi, camdock.__version__, config.settings_path("").parent))
    attempts = Attempts()
    app.include_router(login.router(Credentials(config), attempts))
    app.state.cameras = cameras  # for the one who serves it
    problems.install(app)
    app.add_middleware(BodyLimit, uploads=(images.PATH, annotate.PATH))
    app.add_middleware(Gate, config=config, attempts=attempts)  # the last one added is asked first
    if config.allowed_origins:
        # In front of the gate: a preflight carries no token, and a page must be able to read that one is needed. It
        # only adds to the head of an answer, so a stream keeps its socket.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "Range", "If-None-Match", "If-Range"),
            expose_headers=("ETag", "Content-Range", "Location", "Retry-After", "X-Seq", "X-Timestamp"),
        )
    return app


def _running(
    cameras: dict[str, Camera],
    captures: Captures,
    sender: Sender,
    hands: Iterable[Pixels | Darkroom],
    guard: Guard,
    abi: AbiGate,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        abi.start()
        sender.start()
        captures.start()
        for camera in cameras.values():
            camera.start()
        try:
            yield
        finally:
            await sender.stop()
            await captures.stop()
            await asyncio.gather(*(camera.stop() for camera in cameras.values()), *(one.stop() for one in hands))
            await abi.stop()
            guard.stop()

    return lifespan
