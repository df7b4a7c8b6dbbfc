"""The stream where the server gives no transport: through plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from camdock.backends.relay import Parts
from camdock.broadcast import Broadcast
from camdock.errors import CameraMissing
from camdock.frame import BOUNDARY, DELIMITER
from camdock.rendition import AS_IT_IS, Renditions
from camdock.sender import Sender
from camdock.stream import MjpegResponse, find
from tests.unit.rig import Painter, app_of, ask, frame_of, live_camera

Event = dict[str, Any]


class Viewer:
    """One request as a server would serve it: what was sent, and how it leaves."""

    def __init__(self, broadcast: Broadcast, frames: int | None = None) -> None:
        self.broadcast = broadcast
        self.frames = frames
        self.sent: list[Event] = []
        self.left = asyncio.Event()
        self.on_send: Callable[[Event], Awaitable[None]] | None = None

    async def look(self) -> None:
        asked = False

        async def receive() -> Event:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(event: Event) -> None:
            self.sent.append(event)
            if self.on_send is not None:
                await self.on_send(event)

        scope = {"type": "http", "extensions": {}}
        async with asyncio.timeout(10):
            renditions = Renditions("front", self.broadcast, Painter())
            await MjpegResponse(renditions, AS_IT_IS, Sender(send_timeout_s=10), self.frames)(scope, receive, send)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


async def turns(count: int = 8) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let it go round until something is true; everything here happens on this loop, so not many times."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it did not happen")


def test_the_head_tells_browsers_and_proxies_what_it_is() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        broadcast.publish(frame_of(1))
        viewer = Viewer(broadcast, frames=1)
        await viewer.look()
        start = viewer.sent[0]
        assert (start["type"], start["status"]) == ("http.response.start", 200)
        headers = dict(start["headers"])
        assert headers[b"content-type"] == b"multipart/x-mixed-replace;boundary=" + BOUNDARY
        assert b"no-store" in headers[b"cache-control"]
        assert headers[b"connection"] == b"close"
        assert headers[b"x-accel-buffering"] == b"no"

    asyncio.run(looking())


def test_so_many_frames_are_exactly_so_many_and_then_the_closing_delimiter() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        viewer = Viewer(broadcast, frames=3)
        task = asyncio.create_task(viewer.look())
        frames = [frame_of(seq, b"picture %d" % seq) for seq in (1, 2, 3, 4)]
        for frame in frames[:3]:
            await turns()
            assert not task.done()
            broadcast.publish(frame)
        await task
        assert viewer.body == DELIMITER + frames[0].part + frames[1].part + frames[2].last_part
        assert viewer.body.endswith(b"\r\n--" + BOUNDARY + b"--\r\n")
        assert [event["more_body"] for event in viewer.sent[1:]] == [True, True, True, False]
        assert list(Parts(BOUNDARY).feed(viewer.body)) == [b"picture 1", b"picture 2", b"picture 3"]
        assert broadcast.viewers == 0

    asyncio.run(looking())


def test_one_frame_is_the_newest_and_the_last() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        broadcast.publish(frame_of(41))
        newest = frame_of(42)
        broadcast.publish(newest)
        viewer = Viewer(broadcast, frames=1)
        await viewer.look()
        assert viewer.body == DELIMITER + newest.last_part

    asyncio.run(looking())


def test_the_first_delimiter_comes_before_any_frame() -> None:
    async def looking() -> None:
        viewer = Viewer(Broadcast())
        task = asyncio.create_task(viewer.look())
        await until(lambda: bool(viewer.body))
        assert viewer.body == DELIMITER
        viewer.left.set()
        await task

    asyncio.run(looking())


def test_a_viewer_that_leaves_between_frames_is_unsubscribed() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        broadcast.publish(frame_of(1))
        viewer = Viewer(broadcast)
        task = asyncio.create_task(viewer.look())
        await until(lambda: broadcast.viewers == 1 and len(viewer.sent) == 3)
        viewer.left.set()
        await task
        assert broadcast.viewers == 0
        assert not broadcast._waiting
        broadcast.publish(frame_of(2))
        await turns()
        assert len(viewer.sent) == 3

    asyncio.run(looking())


def test_a_viewer_that_leaves_while_its_socket_is_full_is_unsubscribed() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        broadcast.publish(frame_of(1))
        viewer = Viewer(broadcast)
        stuck = asyncio.Event()

        async def full(event: Event) -> None:
            if frame_of(1).part[:20] in event.get("body", b""):
                stuck.set()
                await asyncio.Event().wait()

        viewer.on_send = full
        task = asyncio.create_task(viewer.look())
        await stuck.wait()
        assert broadcast.viewers == 1
        viewer.left.set()
        await task
        assert broadcast.viewers == 0

    asyncio.run(looking())


def test_a_stuck_viewer_does_not_slow_the_others_and_skips_to_the_newest() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        slow, quick = Viewer(broadcast, frames=2), Viewer(broadcast, frames=5)
        room = asyncio.Event()

        async def full(event: Event) -> None:
            if b"picture" in event.get("body", b""):
                await room.wait()

        slow.on_send = full
        tasks = [asyncio.create_task(viewer.look()) for viewer in (slow, quick)]
        for seq in range(1, 6):
            await turns()
            broadcast.publish(frame_of(seq, b"picture %d" % seq))
        await tasks[1]
        room.set()
        await tasks[0]
        assert list(Parts(BOUNDARY).feed(quick.body)) == [b"picture %d" % seq for seq in range(1, 6)]
        assert list(Parts(BOUNDARY).feed(slow.body)) == [b"picture 1", b"picture 5"]

    asyncio.run(looking())


def test_an_error_of_the_server_is_not_swallowed() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        broadcast.publish(frame_of(1))
        viewer = Viewer(broadcast)

        async def broken(event: Event) -> None:
            if frame_of(1).part[:20] in event.get("body", b""):
                raise OSError("the server lost its socket")

        viewer.on_send = broken
        with pytest.raises(OSError, match="lost its socket"):
            await viewer.look()
        assert broadcast.viewers == 0

    asyncio.run(looking())


def test_a_request_that_is_cancelled_is_unsubscribed() -> None:
    async def looking() -> None:
        broadcast = Broadcast()
        task = asyncio.create_task(Viewer(broadcast).look())
        await until(lambda: broadcast.viewers == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert broadcast.viewers == 0

    asyncio.run(looking())


# --- the routes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/stream?frames=1",
        "/cameras/front/stream?frames=1",
        "/?action=stream&frames=1&x=9",
        "/cameras/back/stream?frames=1",
    ],
)
def test_every_address_of_a_stream_gives_the_pictures_of_its_camera(tmp_path: Path, path: str) -> None:
    front, _ = live_camera(tmp_path, name="front")
    back, _ = live_camera(tmp_path, "synthetic:?size=32x32&fps=1000", name="back")
    answer = ask(app_of(front, back), path)
    assert answer.status_code == 200
    shown = (back if "back" in path else front).broadcast.newest
    assert shown is not None
    assert answer.content == DELIMITER + shown.last_part
    assert front.broadcast.viewers == back.broadcast.viewers == 0


@pytest.mark.parametrize("frames", ["", "0", "many", "²", "-1"])
def test_mjpg_streamers_address_minds_no_odd_number(tmp_path: Path, frames: str) -> None:
    # It never ends, so it is left once the first picture is there.
    async def looking() -> None:
        camera, _ = live_camera(tmp_path)
        sent: list[Event] = []
        left = asyncio.Event()

        async def send(event: Event) -> None:
            sent.append(event)
            if len(sent) == 3:
                left.set()

        async def receive() -> Event:
            await left.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http", "method": "GET", "path": "/", "headers": [], "app": None, "http_version": "1.1",
            "query_string": f"action=stream&frames={frames}".encode(),
        }  # fmt: skip
        async with asyncio.timeout(10):
            await app_of(camera)(scope, receive, send)
        assert sent[0]["status"] == 200
        assert all(event["more_body"] for event in sent[1:])
        assert camera.broadcast.viewers == 0

    asyncio.run(looking())


def test_a_camera_is_found_by_its_name_or_the_names_are_told(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    assert find({"front": camera}, "front") is camera
    with pytest.raises(CameraMissing) as caught:
        find({"front": camera, "nest": camera}, "x" * 500)
    assert caught.value.hint == "there are: front, nest"
    assert len(caught.value.message) < 120
