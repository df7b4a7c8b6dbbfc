"""Child: one process below the API process, its pipes, its end. Camera and Pixels each own theirs.

Runs in: the API process. Needs Linux (pidfd, pipe sizes); any asyncio loop with add_reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from camdock import wire
from camdock.errors import SourceStalled, WorkerDied
from camdock.guard import Guard
from camdock.wire import Message

log = logging.getLogger("camdock")

LEAVE_WITHIN_S = 0.8  # between "please go" and SIGKILL
DIE_WITHIN_S = 2.0  # after SIGKILL; longer means that the kernel holds it
LOG_LINES_PER_S = 20
# A frame is larger than what glibc keeps: without these two the memory of each goes back to the kernel, and comes anew
# page by page (254 KB: 0.15 ms a frame). Other C libraries ignore them.
KEEP_BELOW, KEEP_FREE = 4 << 20, 16 << 20
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(KEEP_BELOW), "MALLOC_TRIM_THRESHOLD_": str(KEEP_FREE)}
# OpenBLAS starts a thread for each processor when NumPy is imported, a quarter of what that costs on two; nothing here
# multiplies matrices. Whoever sets it has it as set.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
LAST_WORDS = 5


def _readable(descriptor: int) -> bool:
    """Whether something, or its end, can be read now. Not by select(): it ends at 1023, and viewers count, too."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class Child:
    """One running child process. Leaving the context kills its whole process group.

    on_message  called from the event loop with every message; its blob is good until it returns. What it raises ends
                `watch`.
    scrub       takes credentials out of what the child writes to its log
    """

    def __init__(
        self,
        module: str,
        label: str,
        guard: Guard,
        on_message: Callable[[Message], None],
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._guard = guard
        self._module = module
        self._label = label
        self._on_message = on_message
        self._scrub = scrub
        self._unpacker = wire.Unpacker()
        self._due = self._watched_until = math.inf
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._room = asyncio.Event()
        self._ended = False  # nothing more will come
        self._why_ended = ""
        self._raised: Exception | None = None
        self._gone = asyncio.Event()  # set while there is no process
        self._gone.set()
        self._log_line = b""
        self._log_budget = float(LOG_LINES_PER_S)
        self._log_at = time.monotonic()
        self._log_dropped = 0
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)

    async def __aenter__(self) -> Self:
        try:
            self._start()
        except OSError as error:  # no descriptors, no memory, no processes left
            raise WorkerDied(
                f"{self._label}: its process cannot be started: {error}", "`ulimit -a` and `free` say what ran out"
            ) from error
        return self

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as its_ends:
            frames_in, frames_out = os.pipe()
            undo.callback(os.close, frames_in)
            its_ends.callback(os.close, frames_out)
            log_in, log_out = os.pipe()
            undo.callback(os.close, log_in)
            its_ends.callback(os.close, log_out)
            with contextlib.suppress(OSError):  # above the user's quota of pipe pages: the default size works too
                fcntl.fcntl(frames_out, fcntl.F_SETPIPE_SZ, wire.PIPE_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, self._label, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=frames_out,
                stderr=log_out,
                bufsize=0,
                start_new_session=True,
                env={**KEEP_MEMORY, **ONE_THREAD, **os.environ},
            )
            assert self._process.stdin is not None
            undo.callback(self._process.wait)
            undo.callback(self._kill)
            undo.callback(self._process.stdin.close)
            self._pidfd = os.pidfd_open(self._process.pid)
            undo.callback(os.close, self._pidfd)
            self._guard.hold(self._process.pid)
            undo.pop_all()
        self._orders = self._process.stdin.fileno()
        self._frames, self._log = frames_in, log_in
        for descriptor in (self._orders, self._frames, self._log):
            os.set_blocking(descriptor, False)
        self._gone.clear()
        self._loop.add_reader(self._frames, self._on_frames)
        self._loop.add_reader(self._log, self._on_log)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._end(politely=not isinstance(error, SourceStalled | WorkerDied))
        finally:
            self._loop.remove_reader(self._frames)
            self._loop.remove_reader(self._log)
            self._drain_log()
            os.close(self._frames)
            os.close(self._log)
            self._close_orders()
            if self._gone.is_set():
                self._release()

    async def _end(self, *, politely: bool) -> None:
        try:
            if politely and not self._gone.is_set():
                # It may be writing a frame that nobody wants: we read on, or it never sees the end of its orders.
                self._close_orders()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_WITHIN_S):
                        await self._gone.wait()
        finally:
            self._kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DIE_WITHIN_S):
                await self._gone.wait()

    def _close_orders(self) -> None:
        if self._orders >= 0:
            self._loop.remove_writer(self._orders)
            self._orders = -1
            self._room.set()
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _kill(self) -> None:
        # The leader is not reaped before this, so the number still means this group: its children go too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def survives(self) -> bool:
        """True when SIGKILL did not end it: the kernel holds it in an uninterruptible sleep."""
        return not self._gone.is_set()

    async def gone(self) -> None:
        """Wait, for ever if need be, until a survivor is gone."""
        await self._gone.wait()
        self._release()

    def _release(self) -> None:
        self._kill()
        self._process.wait()
        self._guard.let_go(self._process.pid)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def abandon(self) -> None:
        """Give a survivor up because the service ends: init will reap it."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._process.returncode = -signal.SIGKILL  # or Popen warns of a process still running

    def waits_in(self) -> str:
        """Where in the kernel a survivor sleeps, as far as the kernel tells us."""
        with contextlib.suppress(OSError):
            if (place := Path(f"/proc/{self.pid}/wchan").read_text().strip()) not in ("", "0"):
                return place
        return "an unknown place"

    # --- from the child -------------------------------------------------------------------------------------------

    def expect(self, within_s: float) -> None:
        """It owes its next message, or step, within so many seconds from now; math.inf: it owes nothing."""
        self._due = time.monotonic() + within_s
        if self._due < self._watched_until:
            self._wake.set()

    async def watch(self) -> NoReturn:
        """Deliver messages for as long as the child keeps to what `expect` says.

        raises  TimeoutError when it owes something, WorkerDied when it ended, or what on_message raised

        The pipe is read once more before the deadline is called missed: a busy API must not kill a healthy worker.
        """
        while not self._ended:
            self._watched_until = self._due
            left = self._due - time.monotonic()
            if left <= 0 and not self._is_readable():
                raise TimeoutError
            if left <= 0:
                self._on_frames()
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left if left < math.inf else None):
                    await self._wake.wait()
        if self._raised is not None:
            raise self._raised
        raise await self._death()

    def _is_readable(self) -> bool:
        return _readable(self._frames)

    def _on_frames(self) -> None:
        try:
            more = self._unpacker.fill(self._frames)
        except BlockingIOError:
            return
        self._deliver(one=more)
        if not more and not self._ended:
            self._end_reading("half a message" if self._unpacker.pending else "")

    def _deliver(self, *, one: bool = True) -> None:
        """Hand on one message, and the next in a turn of its own: viewers get both pictures of a burst; or all."""
        if self._ended:
            return
        try:
            for message in self._unpacker.messages():
                self._on_message(message)
                if one:
                    if self._unpacker.pending:
                        self._loop.call_soon(self._deliver)
                    return
        except wire.WireBroken as error:
            self._end_reading(f"it broke the wire: {error}")
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:  # fields that are not as agreed
            self._end_reading(f"it broke the wire: {error!r}")
        except Exception as error:  # noqa: BLE001 - not ours to judge: it ends the watch, and is raised there
            self._raised = error
            self._end_reading("")

    def _end_reading(self, why: str) -> None:
        self._loop.remove_reader(self._frames)
        self._why_ended = why
        self._ended = True
        self._wake.set()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._gone.set()
        self._drain_frames()

    def _drain_frames(self) -> None:
        """What it wrote before it ended; a child of it may hold the pipe open, so no end of file is waited for."""
        while not self._ended and self._is_readable():
            self._on_frames()
        self._deliver(one=False)
        if not self._ended:
            self._end_reading("")

    async def _death(self) -> WorkerDied:
        """How it ended, in words."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await self._gone.wait()
        self._drain_log()
        what = self._why_ended
        if self._gone.is_set():
            self._kill()
            status = self._process.wait()
            ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            what = f"it {ended}" + (f" after {what}" if what else "")
        words = next((line for line in reversed(self._last_words) if line.strip()), "")
        return WorkerDied(
            f"{self._label}: the process that owns the driver died: {what or 'it closed its pipe'}"
            + (f"; its last words: {words[:200]}" if words else ""),
            "it is started again by itself; if this repeats, the driver is at fault: see the log",
        )

    # --- to the child ---------------------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """Write one message, waiting while the pipe is full. A child that is gone is found by whoever reads."""
        async with self._sending:
            rest = memoryview(message)
            while rest and (orders := self._orders) >= 0:
                try:
                    rest = rest[os.write(orders, rest) :]
                except BlockingIOError:
                    self._room.clear()
                    self._loop.add_writer(orders, self._room.set)
                    try:
                        await self._room.wait()
                    finally:
                        if self._orders == orders:
                            self._loop.remove_writer(orders)
                except BrokenPipeError:
                    return

    # --- its log --------------------------------------------------------------------------------------------------

    def _on_log(self) -> None:
        try:
            data = os.read(self._log, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._log)
            return
        *lines, self._log_line = (self._log_line + data).split(b"\n")
        self._log_line = self._log_line[-4096:]
        for line in lines:
            self._log_one(line)

    def _drain_log(self) -> None:
        for _ in range(16):
            if not _readable(self._log):
                break
            self._on_log()
        if self._log_line:
            self._log_one(self._log_line)
            self._log_line = b""

    def _log_one(self, raw: bytes) -> None:
        """One line of the driver's chatter, at most 20 a second: a driver that floods its log costs nobody else."""
        line = "".join(c if c.isprintable() else "?" for c in self._scrub(raw[:1000].decode("utf-8", "replace")))
        self._last_words.append(line)
        now = time.monotonic()
        self._log_budget = min(LOG_LINES_PER_S, self._log_budget + (now - self._log_at) * LOG_LINES_PER_S)
        self._log_at = now
        if self._log_budget < 1:
            self._log_dropped += 1
            return
        self._log_budget -= 1
        if self._log_dropped:
            log.warning("%s: %d more lines left out", self._label, self._log_dropped)
            self._log_dropped = 0
        log.info("%s | %s", self._label, line)
