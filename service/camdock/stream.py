"""The endless responses: which camera, which headers, and who writes the pictures.

Runs in: the API process. Answers the request and hands the transport to the sender; where the server gives no
transport (another server, a test client) the frames go through ASGI.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from camdock.broadcast import Broadcast
from camdock.camera import Camera
from camdock.errors import CameraMissing
from camdock.frame import BOUNDARY, DELIMITER
from camdock.problems import documented
from camdock.sender import Sender
from camdock.server import DOOR, Door

MEDIA_TYPE = f"multipart/x-mixed-replace;boundary={BOUNDARY.decode()}"
HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store, no-cache, must-revalidate, max-age=0"),
    (b"connection", b"close"),
    (b"x-accel-buffering", b"no"),  # nginx would hold frames back until its buffer is full
]

FramesQuery = Annotated[
    int | None, Query(ge=1, le=10**9, description="end after so many pictures; without it the stream never ends")
]
CameraName = Annotated[
    str, Path(description="the camera's name, as in GET /cameras", examples=["camera"], max_length=64)
]
STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JPEG pictures for as long as the viewer stays; one a second that says why while there are none",
        "content": {"multipart/x-mixed-replace": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def find(cameras: dict[str, Camera], name: str) -> Camera:
    """The camera of that name; raises CameraMissing."""
    if name not in cameras:
        raise CameraMissing(f"there is no camera called {name[:64]!r}", "there are: " + ", ".join(cameras))
    return cameras[name]


class MjpegResponse(Response):
    """A multipart/x-mixed-replace response that lasts until the viewer leaves, or for so many frames."""

    def __init__(self, broadcast: Broadcast, sender: Sender, frames: int | None) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        self._broadcast = broadcast
        self._sender = sender
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer."""
        door: Door | None = scope.get("extensions", {}).get(DOOR)
        if door is not None and not door.take():
            return  # the viewer has left
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if door is not None:
            door.transport.write(DELIMITER)
            await self._sender.serve(self._broadcast, door.transport, door.left, self._frames)
        else:
            await self._serve_asgi(receive, send)

    async def _serve_asgi(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": DELIMITER, "more_body": True})
        writing = asyncio.create_task(self._write_asgi(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
        if writing.done() and not writing.cancelled() and (error := writing.exception()) is not None:
            raise error

    async def _write_asgi(self, send: Send) -> None:
        with self._broadcast.subscribe() as subscriber:
            while self._frames is None or subscriber.taken < self._frames - 1:
                frame = await subscriber.next()
                await send({"type": "http.response.body", "body": frame.part, "more_body": True})
            frame = await subscriber.next()
            await send({"type": "http.response.body", "body": frame.last_part, "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def router(cameras: dict[str, Camera], sender: Sender) -> APIRouter:
    """The streams."""
    routes = APIRouter(tags=["pictures"])
    first = next(iter(cameras.values()))

    @routes.get(
        "/stream", summary="Moving pictures of the first camera (MJPEG)", response_class=Response,
        responses={**STREAM_RESPONSES, **documented(422)},
    )  # fmt: skip
    async def stream(frames: FramesQuery = None) -> MjpegResponse:
        """Put this address into an `<img>`, a player, OctoPrint, Home Assistant. Works like mjpg-streamer's."""
        return MjpegResponse(first.broadcast, sender, frames)

    @routes.get(
        "/cameras/{name}/stream", summary="Moving pictures of one camera (MJPEG)", response_class=Response,
        responses={**STREAM_RESPONSES, **documented(404, 422)},
    )  # fmt: skip
    async def stream_of(name: CameraName, frames: FramesQuery = None) -> MjpegResponse:
        """Like /stream, for the camera of that name."""
        return MjpegResponse(find(cameras, name).broadcast, sender, frames)

    return routes


def mjpeg_of(request: Request, camera: Camera, sender: Sender) -> MjpegResponse:
    """The stream for mjpg-streamer's `/?action=stream`, whose other parameters nobody checks."""
    asked = request.query_params.get("frames", "")
    frames = int(asked[:9]) if asked.isascii() and asked.isdigit() else 0
    return MjpegResponse(camera.broadcast, sender, frames or None)
