"""Pictures over a WebSocket: one JPEG in each binary message, what the camera does in text messages.

Runs in: the API process. The handshake is answered as any other request, so that the gate, the parameters and the
errors are those of /stream on every version of every server; then the pictures go the way of a stream's parts: through
the door to the sender, the newest to whoever has room for it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from camdock.auth import refuse_websocket
from camdock.camera import Camera
from camdock.errors import CameraError
from camdock.problems import answer_to, problem_response
from camdock.rendition import Wanted
from camdock.sender import Sender, acknowledged
from camdock.server import DOOR, Door
from camdock.stream import CameraName, RenditionQuery, find

PING_EVERY_S = 15.0  # routers forget a connection on which nothing passes after a minute or less
# What a viewer may say within that time. Nobody asks it anything, and each frame, empty or not, is read on the loop.
MOST_FRAMES, MOST_BYTES = 64, 1 << 20
PONG_AGAIN_S = 0.02  # a Pong waits until what is on its way is gone, or a stuck viewer's pile up in memory
NORMAL, GOING_AWAY, PROTOCOL_ERROR, POLICY_VIOLATION = 1000, 1001, 1002, 1008  # RFC 6455, section 7.4.1


class Watch:
    """One viewer's WebSocket, once its handshake is done."""

    def __init__(self, door: Door, send_timeout_s: float) -> None:
        self._door = door
        self._send_timeout_s = send_timeout_s
        self._frames = Connection(ConnectionType.SERVER)
        self._heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._counted_from = self._loop.time()
        self._said_frames = self._said_bytes = 0
        self._unanswered: Ping | None = None
        door.on_data, door.on_shutdown = self._on_data, self._go_away

    def say(self, event: Event) -> None:
        """Send one frame; nothing once the end has begun."""
        transport = self._door.transport
        try:
            data = self._frames.send(event)
        except LocalProtocolError:  # closed by either side
            return
        if not transport.is_closing():
            transport.write(data)

    def end(self, code: int = NORMAL) -> None:
        """Close in good order; what has no room is cut off."""
        self.say(CloseConnection(code=code))
        if self._door.transport.get_write_buffer_size():
            self._door.transport.abort()
        else:
            self._door.transport.close()

    def report(self, camera: Camera) -> asyncio.Event:
        """Say what the camera does; the event is its next change."""
        changed = camera.turned
        self.say(TextMessage(data=json.dumps(_state_of(camera))))
        return changed

    async def tell(self, camera: Camera, changed: asyncio.Event) -> None:
        """Say what the camera does whenever that changes."""
        while True:
            await changed.wait()
            changed = self.report(camera)

    async def ping(self) -> None:
        """Ask now and then whether the viewer is there; who neither answers nor takes anything in time is gone.

        A Ping stands behind the picture that is on its way, which may take a slow viewer minutes.
        """
        connection = self._door.transport.get_extra_info("socket")
        while True:
            await asyncio.sleep(PING_EVERY_S)
            self._heard.clear()
            taken = acknowledged(connection)
            self.say(Ping())
            while not self._heard.is_set():
                try:
                    async with asyncio.timeout(self._send_timeout_s):
                        await self._heard.wait()
                except TimeoutError:
                    before, taken = taken, acknowledged(connection)
                    if taken == before:
                        self._door.transport.abort()
                        return

    def _on_data(self, data: bytes) -> None:
        """What the viewer says is not asked for, except that it is there, and that it leaves."""
        self._heard.set()
        if (now := self._loop.time()) - self._counted_from > PING_EVERY_S:
            self._counted_from, self._said_frames, self._said_bytes = now, 0, 0
        self._said_bytes += len(data)
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():  # one at a time: the rest is not read before
                self._said_frames += not isinstance(event, Message) or event.frame_finished
                if self._said_frames > MOST_FRAMES or self._said_bytes > MOST_BYTES:
                    self.end(POLICY_VIOLATION)
                    return
                if isinstance(event, Ping):
                    if self._unanswered is None:
                        self._loop.call_soon(self._answer_ping)
                    self._unanswered = event
                elif isinstance(event, CloseConnection):
                    self.say(event.response())
                    self._door.transport.close()
                    return
        except (RemoteProtocolError, LocalProtocolError):
            self.end(PROTOCOL_ERROR)

    def _answer_ping(self) -> None:
        """Answer the newest Ping, which answers those before it (RFC 6455, section 5.5.3)."""
        transport, event = self._door.transport, self._unanswered
        if event is None or transport.is_closing():
            return
        if transport.get_write_buffer_size():
            self._loop.call_later(PONG_AGAIN_S, self._answer_ping)
            return
        self._unanswered = None
        self.say(event.response())

    def _go_away(self) -> None:
        self.end(GOING_AWAY)


class WebSocketResponse(Response):
    """A handshake, and then pictures until the viewer leaves."""

    def __init__(self, camera: Camera, wanted: Wanted, sender: Sender, key: bytes) -> None:
        super().__init__(status_code=101)
        self._camera = camera
        self._wanted = wanted
        self._sender = sender
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer. Raises TooManyRenditions before anything is sent."""
        door: Door = scope["extensions"][DOOR]
        with self._camera.renditions.stream(self._wanted) as broadcast:
            if not door.take():
                return  # the viewer has left
            door.half_open = False
            watch = Watch(door, self._sender.send_timeout_s)
            headers = [
                (b"upgrade", b"websocket"),
                (b"connection", b"Upgrade"),
                (b"sec-websocket-accept", generate_accept_token(self._key)),
            ]
            await send({"type": "http.response.start", "status": 101, "headers": headers})
            changed = watch.report(self._camera)  # before the first picture
            tasks = [asyncio.create_task(work) for work in (watch.tell(self._camera, changed), watch.ping())]
            try:
                await self._sender.serve(broadcast, door.transport, door.left, as_messages=True)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def _state_of(camera: Camera) -> dict[str, Any]:
    status = camera.status()
    error = status.error
    return {
        "camera": status.name,
        "state": status.state,
        "since": status.since,
        "reason": {"code": error.code, "message": error.message, "hint": error.hint, "retry": error.retry}
        if error
        else None,
        "device": status.device,
        "format": status.format,
        "size": {"width": status.size[0], "height": status.size[1]} if status.size else None,
        "fps_promised": status.fps_promised,
    }


def _key_of(request: Request) -> bytes | None:
    """The key of a handshake (RFC 6455, section 4.2.1); None when this is none."""
    headers = request.headers
    try:
        key = headers.get("sec-websocket-key", "").encode()
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return None
    upgrades = "upgrade" in [word.strip() for word in headers.get("connection", "").lower().split(",")]
    asked = headers.get("upgrade", "").lower() == "websocket" and headers.get("sec-websocket-version") == "13"
    return key if is_key and upgrades and asked and request.method == "GET" else None


def _answer(request: Request, camera: Camera, wanted: Wanted, sender: Sender) -> Response:
    key = _key_of(request)
    if key is not None and DOOR in request.scope.get("extensions", {}):
        return WebSocketResponse(camera, wanted, sender, key)
    return problem_response(
        426,
        "websocket_needed",
        "This address is a WebSocket",
        "the request is no handshake of a WebSocket",
        'open it with `new WebSocket("ws://...")`; /stream gives the same pictures over HTTP',
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    )


async def _elsewhere(
    websocket: WebSocket, cameras: dict[str, Camera], name: str, wanted: Wanted, sender: Sender
) -> None:
    """The same under another server, which gives no transport: it may hold pictures back for a slow viewer."""
    try:
        camera = find(cameras, name)
        with camera.renditions.stream(wanted) as broadcast, broadcast.subscribe() as subscriber:
            await websocket.accept()

            async def tell() -> None:
                while True:
                    changed = camera.turned
                    await websocket.send_json(_state_of(camera))
                    await changed.wait()

            async def show() -> None:
                while True:
                    frame = await subscriber.next()
                    async with asyncio.timeout(sender.send_timeout_s):
                        await websocket.send_bytes(frame.jpeg)

            async def leave() -> None:
                while (await websocket.receive())["type"] != "websocket.disconnect":
                    pass

            tasks = [asyncio.create_task(work) for work in (tell(), show(), leave())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    except CameraError as error:
        await refuse_websocket(answer_to(error), websocket.scope, websocket._send)
    except (WebSocketDisconnect, TimeoutError):
        pass


def router(cameras: dict[str, Camera], sender: Sender) -> APIRouter:
    """The two addresses, each for our server and for others."""
    routes = APIRouter(include_in_schema=False)
    first = next(iter(cameras))

    @routes.api_route("/ws", methods=["GET", "HEAD"])
    async def watch(request: Request, wanted: RenditionQuery) -> Response:
        """The first camera."""
        return _answer(request, cameras[first], wanted, sender)

    @routes.api_route("/cameras/{name}/ws", methods=["GET", "HEAD"])
    async def watch_one(request: Request, name: CameraName, wanted: RenditionQuery) -> Response:
        """The camera of that name."""
        return _answer(request, find(cameras, name), wanted, sender)

    @routes.websocket("/ws")
    async def watch_elsewhere(websocket: WebSocket, wanted: RenditionQuery) -> None:
        """The first camera, under another server."""
        await _elsewhere(websocket, cameras, first, wanted, sender)

    @routes.websocket("/cameras/{name}/ws")
    async def watch_one_elsewhere(websocket: WebSocket, name: CameraName, wanted: RenditionQuery) -> None:
        """The camera of that name, under another server."""
        await _elsewhere(websocket, cameras, name, wanted, sender)

    return routes
