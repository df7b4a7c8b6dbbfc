"""What the service manager is told, over real datagram sockets, and what a broken one costs: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camdock import systemd
from camdock.camera import State
from camdock.errors import SourceMissing
from camdock.systemd import Systemd, summary

OURS, ANOTHER = str(os.getpid()), str(os.getpid() + 1)  # not in a test's id: each of pytest's workers has its own
FAST_US = "40000"  # a ping every 20 ms


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The manager's end, and NOTIFY_SOCKET for it."""
    name = str(tmp_path / "notify")
    bound, told = (name, name) if request.param == "path" else ("\0" + name, "@" + name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(bound)
        listener.settimeout(10)
        yield listener, told


def heard(listener: socket.socket) -> str:
    return listener.recv(4096).decode()


def everything_heard(listener: socket.socket) -> list[str]:
    found = []
    listener.settimeout(0)
    try:
        while True:
            found.append(heard(listener))
    except BlockingIOError:
        return found
    finally:
        listener.settimeout(10)


class Loop:
    """An event loop in a thread of its own, as long as the context lasts."""

    def __enter__(self) -> asyncio.AbstractEventLoop:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self.loop

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def called(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> Any:
    """What `function` returns, on the loop."""

    async def call() -> Any:
        return function()

    return asyncio.run_coroutine_threadsafe(call(), loop).result(10)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_ready_is_told_with_the_cameras_and_stopping_behind_it(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    told = Systemd.take({"NOTIFY_SOCKET": address})
    with Loop() as loop:
        called(loop, lambda: told.ready(lambda: "cameras live: 1 of 1"))
        assert heard(listener) == "READY=1\nSTATUS=cameras live: 1 of 1"
        called(loop, told.stopping)
        assert heard(listener) == "STOPPING=1\nSTATUS=stopping"
        assert everything_heard(listener) == [], "nobody asked for pings"


def test_the_status_is_told_when_it_changes(
    manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, address = manager
    monkeypatch.setattr(systemd, "STATUS_EVERY_S", 0.01)
    asked, line = threading.Semaphore(0), ["cameras live: 1 of 1"]

    def status() -> str:
        asked.release()
        return line[0]

    told = Systemd.take({"NOTIFY_SOCKET": address})
    with Loop() as loop:
        called(loop, lambda: told.ready(status))
        assert heard(listener).startswith("READY=1\n")
        for _ in range(5):
            assert asked.acquire(timeout=10)
        assert everything_heard(listener) == [], "told again what was told"
        line[0] = "cameras live: 0 of 1"
        assert heard(listener) == "STATUS=cameras live: 0 of 1"
        called(loop, told.stopping)
        assert everything_heard(listener) == ["STOPPING=1\nSTATUS=stopping"]


def test_ready_is_told_again_until_it_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "STATUS_EVERY_S", 0.01)
    asked = threading.Semaphore(0)
    told = Systemd.take({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    with Loop() as loop:
        called(loop, lambda: told.ready(lambda: asked.release() or "well"))
        for _ in range(3):
            assert asked.acquire(timeout=10)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as late:
            late.settimeout(10)
            late.bind(str(tmp_path / "notify"))
            assert heard(late) == "READY=1\nSTATUS=well"


def camera(name: str, state: State, error: object = None) -> Any:
    return SimpleNamespace(status=lambda: SimpleNamespace(name=name, state=state, error=error))


def test_the_summary_counts_the_cameras_and_names_the_dark_ones() -> None:
    live, idle = camera("front", State.LIVE), camera("door", State.IDLE)
    gone = camera("nest", State.OFFLINE, SourceMissing("/dev/video0 is\nnot there", "plug it in"))
    assert summary([live]) == "cameras live: 1 of 1"
    assert summary([live, idle, gone]) == "cameras live: 1 of 3; door idle; nest offline (source_missing)"


# --- the watchdog -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", ["", OURS], ids=["nobody's", "ours"])
def test_a_blocked_event_loop_is_not_pinged_for(manager: tuple[socket.socket, str], pid: str) -> None:
    listener, address = manager
    told = Systemd.take({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": FAST_US, "WATCHDOG_PID": pid})
    with Loop() as loop:
        called(loop, lambda: told.ready(lambda: "well"))
        assert {heard(listener) for _ in range(6)} == {"READY=1\nSTATUS=well", "WATCHDOG=1"}
        blocked, free = threading.Event(), threading.Event()
        loop.call_soon_threadsafe(lambda: (blocked.set(), free.wait(20)))
        assert blocked.wait(10)
        everything_heard(listener)
        listener.settimeout(0.4)
        with pytest.raises(TimeoutError):
            listener.recv(4096)
        listener.settimeout(10)
        free.set()
        assert heard(listener) == "WATCHDOG=1"
        called(loop, told.stopping)
        everything_heard(listener)
        assert heard(listener) == "WATCHDOG=1", "a long end is no reason to be killed"


@pytest.mark.parametrize(
    ("microseconds", "pid", "every_s"),
    [
        pytest.param("30000000", "", 15.0, id="nobody's"),
        pytest.param("30000000", OURS, 15.0, id="ours"),
        pytest.param("30000000", ANOTHER, 0, id="another's"),
        pytest.param("30000000", "x", 0, id="no number"),
        *(pytest.param(text, "", 0, id=f"time {text}") for text in ("", "0", "-5", "soon", "²")),
    ],
)
def test_pings_go_out_twice_in_the_time_that_was_given(microseconds: str, pid: str, every_s: float) -> None:
    told = Systemd.take({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid})
    assert told._ping_every_s == every_s


# --- what must not hurt -----------------------------------------------------------------------------------------------


def test_nothing_is_left_for_a_child_to_say() -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Systemd.take(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1234", "/no/such/socket", "/" + "x" * 200, "/dev/null", "@nobody-is-here", "@"]
)
def test_a_missing_or_broken_socket_costs_nothing(address: str) -> None:
    asked = threading.Semaphore(0)

    async def serve() -> None:
        told = Systemd.take({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": FAST_US})
        told.ready(lambda: asked.release() or "well")
        await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        told.stopping()
        await asyncio.sleep(0)
        assert not [task for task in tasks if task.done() and not task.cancelled()]

    asyncio.run(serve())
    assert asked.acquire(blocking=False) is (address[:1] in ("/", "@"))


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as chatter, contextlib.suppress(BlockingIOError):
            chatter.setblocking(False)
            while True:  # until the queue is full
                chatter.sendto(b"STATUS=chatter", address)
        taken: list[bool] = []
        sending = threading.Thread(target=lambda: taken.append(Systemd(address)._send("WATCHDOG=1")), daemon=True)
        sending.start()
        sending.join(10)
        assert taken == [False]
