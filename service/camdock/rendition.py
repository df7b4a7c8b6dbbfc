"""Renditions: the same pictures smaller, slower or coarser, made once for all who ask for the same.

Runs in: the API process. The pixels are touched in the pixels process; a rate alone touches none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from camdock.broadcast import Broadcast, Subscriber
from camdock.errors import CameraError, DriverMissing, ImageUnreadable, TooManyRenditions
from camdock.frame import Frame, jpeg_size
from camdock.mistakes import must_not_fail

log = logging.getLogger("camdock")

MOST = 4  # of one camera at a time: each takes its share of one processor
MAKE_WITHIN_S = 5.0
PAUSE_S = 1.0  # behind the end of the pixels process: a picture that kills it does not keep a processor busy
DEFAULT_QUALITY = 80


class Maker(Protocol):
    """Who makes one: Pixels."""

    async def run(self, operation: str, arguments: dict[str, Any], picture: bytes, *, within_s: float) -> bytes:
        """The JPEG. Raises a CameraError."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a rendition; None: as the camera gives it.

    width, height  a box in pixels that the picture is fitted into, its shape kept, never enlarged
    fps            pictures per second at most
    quality        JPEG quality, 1 to 100; 80 where only the size is given
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    quality: int | None = None

    @property
    def pixels(self) -> Wanted:
        """What of it needs decoding; the same for every rate."""
        return replace(self, fps=None)

    def __str__(self) -> str:
        size = f"{self.width or 'any'}x{self.height or 'any'}" if self.width or self.height else ""
        rate = f"{self.fps:g} fps" if self.fps else ""
        quality = f"quality {self.quality}" if self.quality else ""
        return ", ".join(filter(None, (size, rate, quality)))


AS_IT_IS = Wanted()


class Pace:
    """Lets so many frames per second through, evenly, whatever the rate they come at."""

    def __init__(self, fps: float) -> None:
        self._every_ns = 1e9 / fps
        self._due_ns = 0.0

    def start_anew(self) -> None:
        """The next frame is one of them, whenever it comes."""
        self._due_ns = 0.0

    def lets(self, captured_ns: int) -> bool:
        """Whether this frame is one of them. Half a millisecond early counts: cameras are not exact either."""
        if captured_ns < self._due_ns - 500_000:
            return False
        # From what was due, not from what came: 20 of 30 pictures a second, not 15. Behind a gap, from what came.
        late = captured_ns - self._due_ns > self._every_ns
        self._due_ns = (captured_ns if late else self._due_ns) + self._every_ns
        return True


@dataclass(slots=True)
class Rendition:
    """One that somebody looks at or waits for."""

    wanted: Wanted
    broadcast: Broadcast = field(default_factory=Broadcast)
    users: int = 0
    task: asyncio.Task[None] | None = None


class Renditions:
    """The renditions of one camera.

    made  pictures decoded and encoded so far
    """

    def __init__(self, name: str, broadcast: Broadcast, maker: Maker) -> None:
        self._name = name
        self._broadcast = broadcast
        self._maker = maker
        self._running: dict[Wanted, Rendition] = {}
        self._newest: dict[Wanted, tuple[int, asyncio.Future[Frame]]] = {}
        self.made = 0

    def __iter__(self) -> Iterator[Rendition]:
        """Those that are looked at now."""
        return iter(tuple(self._running.values()))

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Who looks at one of them."""
        return tuple(subscriber for one in self for subscriber in one.broadcast.subscribers)

    @contextmanager
    def _use(self, wanted: Wanted) -> Iterator[Rendition]:
        """Hold one of the few places. Raises TooManyRenditions."""
        if wanted not in self._running and len(self._running) >= MOST:
            raise TooManyRenditions(
                f"{self._name} is already shown in {MOST} renditions: " + "; ".join(str(w) for w in self._running),
                "ask for one of these, or for the picture as it is; a place is free as soon as nobody looks at one",
            )
        one = self._running.setdefault(wanted, Rendition(wanted))
        one.users += 1
        try:
            yield one
        finally:
            one.users -= 1
            if not one.users:
                del self._running[wanted]
                if one.task is not None:
                    one.task.cancel()
                if not any(other.pixels == wanted.pixels for other in self._running):
                    self._newest.pop(wanted.pixels, None)

    @contextmanager
    def stream(self, wanted: Wanted) -> Iterator[Broadcast]:
        """The broadcast to look at while the context lasts: the camera's own where nothing is to be changed."""
        if wanted == AS_IT_IS:
            yield self._broadcast
            return
        with self._use(wanted) as one:
            if one.task is None:
                one.task = asyncio.create_task(self._follow(one))
                one.task.add_done_callback(must_not_fail())
            yield one.broadcast

    async def still(self, frame: Frame, wanted: Wanted) -> Frame:
        """One frame as wanted. Raises TooManyRenditions, ImageUnreadable, or what the pixels process died of."""
        if wanted.pixels == AS_IT_IS:
            return frame
        with self._use(wanted.pixels):
            return await self._made(frame, wanted.pixels)

    async def _follow(self, one: Rendition) -> None:
        """Publish every frame of the camera that is due, the newest first of all; those between are left out."""
        pace = Pace(one.wanted.fps) if one.wanted.fps else None
        said = ""
        with self._broadcast.subscribe(feed=True) as source:
            while True:
                frame = await source.next()
                if pace and frame.notice:
                    pace.start_anew()
                elif pace and not pace.lets(frame.captured_ns):
                    continue
                try:
                    one.broadcast.publish(await self._made(frame, one.wanted.pixels))
                    said = ""
                except CameraError as error:
                    if frame.notice and isinstance(error, DriverMissing):
                        one.broadcast.publish(frame)  # of another size, but it says why there is none of this one
                        continue
                    if error.message != said:
                        log.warning("%s: picture %d as %s: %s", self._name, frame.seq, one.wanted, error.message)
                    said = error.message
                    if not isinstance(error, ImageUnreadable):
                        await asyncio.sleep(PAUSE_S)

    async def _made(self, frame: Frame, pixels: Wanted) -> Frame:
        """The frame with these pixels, made by whoever asks first and waited for by the others."""
        if pixels == AS_IT_IS:
            return frame
        while True:
            seq, making = self._newest.get(pixels, (0, None))
            if making is not None and not making.cancelled() and seq >= frame.seq:
                return await asyncio.shield(making)
            if making is None or making.done():
                break
            await asyncio.wait({making})  # one at a time, however many ask
        newest = self._broadcast.newest
        if newest is not None and newest.seq > frame.seq and newest.notice == frame.notice:
            frame = newest
        making = asyncio.ensure_future(self._make(frame, pixels))
        making.add_done_callback(_retrieved)
        self._newest[pixels] = (frame.seq, making)
        return await asyncio.shield(making)

    async def _make(self, frame: Frame, pixels: Wanted) -> Frame:
        arguments = {
            "width": pixels.width,
            "height": pixels.height,
            "quality": pixels.quality or DEFAULT_QUALITY,
        }
        jpeg = await self._maker.run("rendition", arguments, frame.jpeg, within_s=MAKE_WITHIN_S)
        self.made += 1
        return Frame.of(
            jpeg,
            seq=frame.seq,
            captured_ns=frame.captured_ns,
            captured_at=frame.captured_at,
            size=jpeg_size(jpeg) or frame.size,
            notice=frame.notice,
        )


def _retrieved(making: asyncio.Future[Frame]) -> None:
    """Its error is for those who wait; with nobody left there is nobody to tell."""
    if not making.cancelled():
        making.exception()
