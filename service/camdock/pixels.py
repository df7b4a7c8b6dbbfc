"""Pixels: the API process's hands for work on pixels, in a process of their own.

Runs in: the API process. A hostile picture or a broken NumPy costs that process, which is killed and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NoReturn

from camdock import wire
from camdock.child import Child
from camdock.errors import (
    CameraError,
    DriverMissing,
    ImageUnreadable,
    PixelsUnavailable,
    SourceStalled,
    WorkerDied,
    from_code,
)
from camdock.guard import Guard
from camdock.wire import Kind, Message

log = logging.getLogger("camdock")

START_WITHIN_S = 10.0
NOTICE_WITHIN_S = 2.0
LAST_WORDS = "the log has its last words"
UNREADABLE = "another program may open it; if none does, its file is damaged"
# The libraries that each operation of pixelsworker imports, by import name. The first one is enough to start it.
LOADS: Mapping[str, tuple[str, ...]] = {
    "annotate": (),  # nothing that would be compiled for a NumPy
    "notice": ("PIL",),
    "process": ("PIL", "numpy", "simplejpeg"),
    "rendition": ("PIL", "numpy", "simplejpeg"),
    "converted": ("PIL", "numpy", "simplejpeg"),
}


class Pixels:
    """One process, one operation at a time, each within its deadline. Started when first needed.

    admit   waits until it is known whether these libraries may be loaded; raises DriverMissing when not
    label   the process's name in the log
    limits  arguments of pixelsworker's `load`: how polite it is, how much memory it may have
    """

    def __init__(
        self,
        guard: Guard,
        admit: Callable[[Collection[str]], Awaitable[None]],
        label: str = "pixels",
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._guard = guard
        self._admit = admit
        self._label = label
        self._limits = dict(limits or {})
        self._loaded = False
        self._turn = asyncio.Lock()
        self._child: Child | None = None
        self._next: asyncio.Future[tuple[Mapping[str, Any], bytes]]

    async def run(
        self, operation: str, arguments: Mapping[str, Any], picture: bytes = b"", *, within_s: float
    ) -> bytes:
        """Do one operation of pixelsworker and return its output.

        raises  ImageUnreadable, or the error that the operation names, when it refuses its input; SourceStalled,
                WorkerDied when the process hangs or dies over it (it is then started anew for the next); DriverMissing
                when its libraries would break; PixelsUnavailable when it cannot be started
        """
        await self._admit(LOADS[operation])
        async with self._turn:
            child = await self._ready(arrays="numpy" in LOADS[operation])
            try:
                order = wire.pack(Kind.RUN, {"operation": operation, "arguments": dict(arguments)}, picture)
                async with asyncio.timeout(within_s):  # a picture is larger than the pipe
                    await child.send(order)
                answer, output = await self._answer(child, within_s)
            except TimeoutError:
                error = SourceStalled(f"{operation} took longer than {within_s:g} s", "try again")
                await self._drop(error)
                raise error from None
            except BaseException as error:
                # Cancelled, too: its answer would be taken for the next one's.
                await self._drop(error)
                raise
        if problem := answer.get("error"):
            raise from_code(answer.get("code", ImageUnreadable.code), str(problem), str(answer.get("hint", UNREADABLE)))
        return output

    async def _answer(self, child: Child, within_s: float) -> tuple[Mapping[str, Any], bytes]:
        """The next message of the process. Raises TimeoutError, WorkerDied."""
        child.expect(within_s)
        self._next = asyncio.get_running_loop().create_future()
        watch: asyncio.Task[NoReturn] = asyncio.create_task(child.watch())
        try:
            await asyncio.wait((self._next, watch), return_when=asyncio.FIRST_COMPLETED)
            return self._next.result() if self._next.done() else watch.result()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    def _on_message(self, message: Message) -> None:
        if not self._next.done():
            self._next.set_result((message.meta, bytes(message.blob)))

    async def notice(self, size: tuple[int, int], title: str, texts: list[str], footer: str) -> bytes | None:
        """The picture that says why there is none; None when even that failed, which is logged."""
        arguments = {"size": size, "title": title, "texts": texts, "footer": footer}
        try:
            return await self.run("notice", arguments, within_s=NOTICE_WITHIN_S)
        except DriverMissing:  # said once, at start
            return None
        except CameraError as error:
            log.warning("the picture that says why could not be drawn: %s", error.message)
            return None

    async def stop(self) -> None:
        """End the process."""
        await self._drop(None)

    async def _ready(self, *, arrays: bool) -> Child:
        """The process, started if need be. Raises PixelsUnavailable: until it is asked, its end is nobody's fault."""
        try:
            if self._child is not None and not self._child.survives:  # killed while it rested
                await self._drop(WorkerDied(f"{self._label}: its process has ended", LAST_WORDS))
            return await self._running(arrays=arrays)
        except TimeoutError:
            error = SourceStalled(f"it was not ready within {START_WITHIN_S:g} s", "is the machine overloaded?")
            await self._drop(error)
            raise _unavailable(error) from None
        except CameraError as error:
            await self._drop(error)
            raise _unavailable(error) from error
        except BaseException as error:
            await self._drop(error)
            raise

    async def _running(self, *, arrays: bool) -> Child:
        """The process, started if need be; with `arrays` it has NumPy loaded, which takes a while on small machines."""
        if self._child is None:
            child = Child("camdock.pixelsworker", self._label, self._guard, self._on_message)
            self._child = await child.__aenter__()
            self._loaded = False
            await self._answer(child, START_WITHIN_S)  # its HELLO
        if arrays and not self._loaded:
            await self._child.send(wire.pack(Kind.RUN, {"operation": "load", "arguments": self._limits}))
            answer, _ = await self._answer(self._child, START_WITHIN_S)
            if problem := answer.get("error"):
                raise WorkerDied(f"{self._label}: {problem}", LAST_WORDS)
            self._loaded = True
        return self._child

    async def _drop(self, error: BaseException | None) -> None:
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(CameraError):
                await child.__aexit__(type(error) if error else None, error, None)


def _unavailable(error: CameraError) -> PixelsUnavailable:
    return PixelsUnavailable(
        f"the process that works on pictures does not start: {error.message}",
        error.hint or LAST_WORDS,
    )
