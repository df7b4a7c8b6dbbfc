"""Owners: every object that holds a state of the service, made once, started and stopped together.

Runs in: the API process. Without the web framework, so that drivers are loading while that is imported.
"""

from __future__ import annotations

import asyncio
import functools

from camdock.camera import Camera
from camdock.config import Config
from camdock.gate import AbiGate
from camdock.guard import Guard
from camdock.pixels import LOADS, Pixels
from camdock.sender import Sender
from camdock.settings import SettingsFile
from camdock.source import KINDS


class Owners:
    """The owners, for whoever builds on them. Nothing runs before `start`."""

    def __init__(self, config: Config) -> None:
        guard = Guard()
        loads = {source.kind: KINDS[source.kind].loads for source in config.cameras.values()}
        names = {name for one in (*loads.values(), *LOADS.values()) for name in one}
        self.abi = AbiGate(names, guard, config.abi_cache_path, enabled=config.abi == "check")
        pixels = Pixels(guard, self.abi.admit)
        self.cameras = {
            name: Camera(
                name,
                source,
                SettingsFile(config.settings_path(name)),
                pixels,
                guard,
                functools.partial(self.abi.admit, loads[source.kind]),
                open_timeout_s=config.open_timeout_s,
                linger_s=config.linger_s,
            )
            for name, source in config.cameras.items()
        }
        self.sender = Sender(send_timeout_s=config.send_timeout_s)
        self._guard = guard
        self._pixels = pixels
        self._started = False

    def start(self) -> None:
        """Begin, on the running event loop; nothing where that was done already."""
        if self._started:
            return
        self._started = True
        self.abi.start()
        self.sender.start()
        for camera in self.cameras.values():
            camera.start()

    async def stop(self) -> None:
        """End all of it, within about 3 s."""
        await self.sender.stop()
        await asyncio.gather(*(camera.stop() for camera in self.cameras.values()), self._pixels.stop())
        await self.abi.stop()
        self._guard.stop()
