"""The endless responses: which camera, which headers, and who writes the pictures.

Runs in: the API process. Answers the request and hands the transport to the sender; where the server gives no
transport (another server, a test client) the frames go through ASGI.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from camdock.broadcast import Broadcast
from camdock.camera import Camera
from camdock.errors import CameraMissing
from camdock.frame import BOUNDARY, DELIMITER
from camdock.problems import documented
from camdock.rendition import AS_IT_IS, Renditions, Wanted
from camdock.sender import Sender
from camdock.server import DOOR, Door

SLOW_FPS = 1.0  # below it, whether a viewer that ended its half has left would be noticed too late: at the next picture
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
WidthQuery = Annotated[
    int | None, Query(ge=16, le=8192, description="pixels; the picture is made smaller to fit, never larger")
]
HeightQuery = Annotated[int | None, Query(ge=16, le=8192, description="pixels; with a width: both are kept to")]
FpsQuery = Annotated[float | None, Query(ge=0.01, le=1000, description="pictures per second at most")]
QualityQuery = Annotated[int | None, Query(ge=1, le=100, description="JPEG quality of a picture that is made anew")]


# Coroutines, or FastAPI calls them in threads.
async def _pixels(width: WidthQuery = None, height: HeightQuery = None, quality: QualityQuery = None) -> Wanted:
    return Wanted(width=width, height=height, quality=quality)


async def _rendition(
    width: WidthQuery = None, height: HeightQuery = None, fps: FpsQuery = None, quality: QualityQuery = None
) -> Wanted:
    return Wanted(width, height, fps, quality)


PixelsQuery = Annotated[Wanted, Depends(_pixels)]
RenditionQuery = Annotated[Wanted, Depends(_rendition)]
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

    def __init__(self, renditions: Renditions, wanted: Wanted, sender: Sender, frames: int | None) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        self._renditions = renditions
        self._wanted = wanted
        self._sender = sender
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer. Raises TooManyRenditions before anything is sent."""
        with self._renditions.stream(self._wanted) as broadcast:
            await self._serve(broadcast, scope, receive, send)

    async def _serve(self, broadcast: Broadcast, scope: Scope, receive: Receive, send: Send) -> None:
        door: Door | None = scope.get("extensions", {}).get(DOOR)
        if door is not None and not door.take():
            return  # the viewer has left
        if door is not None and self._wanted.fps and self._wanted.fps < SLOW_FPS:
            door.half_open = False
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if door is not None:
            door.transport.write(DELIMITER)
            await self._sender.serve(broadcast, door.transport, door.left, self._frames)
        else:
            await self._serve_asgi(broadcast, receive, send)

    async def _serve_asgi(self, broadcast: Broadcast, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": DELIMITER, "more_body": True})
        writing = asyncio.create_task(self._write_asgi(broadcast, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
        if writing.done() and not writing.cancelled() and (error := writing.exception()) is not None:
            raise error

    async def _write_asgi(self, broadcast: Broadcast, send: Send) -> None:
        with broadcast.subscribe() as subscriber:
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
        responses={**STREAM_RESPONSES, **documented(422, 429)},
    )  # fmt: skip
    async def stream(wanted: RenditionQuery, frames: FramesQuery = None) -> MjpegResponse:
        """Put this address into an `<img>`, a player, OctoPrint, Home Assistant. Works like mjpg-streamer's.

        A size, rate or quality is made once for all who ask for the same; four different ones at a time.
        """
        return MjpegResponse(first.renditions, wanted, sender, frames)

    @routes.get(
        "/cameras/{name}/stream", summary="Moving pictures of one camera (MJPEG)", response_class=Response,
        responses={**STREAM_RESPONSES, **documented(404, 422, 429)},
    )  # fmt: skip
    async def stream_of(name: CameraName, wanted: RenditionQuery, frames: FramesQuery = None) -> MjpegResponse:
        """Like /stream, for the camera of that name."""
        return MjpegResponse(find(cameras, name).renditions, wanted, sender, frames)

    return routes


def mjpeg_of(request: Request, camera: Camera, sender: Sender) -> MjpegResponse:
    """The stream for mjpg-streamer's `/?action=stream`, whose other parameters nobody checks."""
    asked = request.query_params.get("frames", "")
    frames = int(asked[:9]) if asked.isascii() and asked.isdigit() else 0
    return MjpegResponse(camera.renditions, AS_IT_IS, sender, frames or None)
