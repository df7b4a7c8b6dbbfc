"""Systemd: tells the service manager that started us that we serve, how the cameras are, and that we are not stuck.

Runs in: the API process. The protocol is sd_notify(3)'s: lines of text in datagrams to the socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, MutableMapping

from camdock.camera import Camera, State

STATUS_EVERY_S = 2.0


class Systemd:
    """Who asked to be notified; nobody, where nothing else started us.

    address       the socket's path, or an abstract one with a leading @; "" when nobody asked
    watchdog_us   microseconds without a ping after which we are taken for stuck; 0: no ping is wanted

    Nothing here raises: a socket that is gone costs the notice, never the service.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._ping_every_s = watchdog_us / 2e6
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Systemd:
        """What the environment says, taken out of it: a child must not speak for the service."""
        address, microseconds, pid = (
            environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        meant = pid in ("", str(os.getpid())) and microseconds.isascii() and microseconds.isdecimal()
        return cls(address, int(microseconds[:18]) if meant else 0)

    def ready(self, status: Callable[[], str]) -> None:
        """From now on we serve. `status` is asked every two seconds for one line about the cameras."""
        if not self._address.startswith(("/", "\0")):
            return
        self._tasks.append(asyncio.create_task(self._tell(status)))
        if self._ping_every_s:
            # On the event loop, where everything else happens: when it is blocked, no ping goes out.
            self._tasks.append(asyncio.create_task(self._ping()))

    def stopping(self) -> None:
        """We are about to end, on purpose; pings go on until we do."""
        if not self._tasks:
            return
        self._tasks[0].cancel()
        self._send("STOPPING=1\nSTATUS=stopping")

    async def _tell(self, status: Callable[[], str]) -> None:
        first, told = "READY=1\n", ""
        while True:
            line = status()
            if line != told and self._send(f"{first}STATUS={line}"):
                first, told = "", line
            await asyncio.sleep(STATUS_EVERY_S)

    async def _ping(self) -> None:
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._ping_every_s)

    def _send(self, text: str) -> bool:
        """Whether it was taken; never waits."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._address)
        except OSError:
            return False
        return True


def summary(cameras: Iterable[Camera]) -> str:
    """The cameras in one line, such as `cameras live: 1 of 2; nest offline (source_missing)`."""
    found = [camera.status() for camera in cameras]
    others = [
        f"{one.name} {one.state}" + (f" ({one.error.code})" if one.error else "")
        for one in found
        if one.state is not State.LIVE
    ]
    return "; ".join([f"cameras live: {len(found) - len(others)} of {len(found)}", *others])
