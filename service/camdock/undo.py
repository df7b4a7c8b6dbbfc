"""Undo: what brings a device back that was left with a still's own settings.

Runs in: the API process. Kept on the disk while the still is taken, for V4L2 devices remember their settings when
nobody is left who does: a service that was killed over a still undoes it when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from camdock.errors import StorageFailed
from camdock.settings import Settings, SettingsFile

log = logging.getLogger("camdock")


class Undo:
    """At most one still's, of one camera. `settings` is None while there is nothing to undo."""

    def __init__(self, camera: str, path: Path) -> None:
        self._camera = camera
        self._file = SettingsFile(path)
        self._order = 0
        self.settings: Settings | None = None
        with contextlib.suppress(ValueError):
            left = self._file.load()
            self.settings = left if left != Settings() else None

    async def keep(self, settings: Settings, order: int) -> None:
        """Put it on the disk, before the worker is given that order; a disk that refuses costs no still."""
        try:
            await asyncio.to_thread(self._file.save, settings)
        except StorageFailed as error:
            log.warning(
                "%s: killed now, the service would leave this still's settings: %s", self._camera, error.message
            )
        self.settings, self._order = settings, order

    def taken(self, order: int) -> None:
        """The worker has answered: behind its own still it has put the settings back, behind another's not."""
        if order == self._order:
            self.settings = None

    async def settle(self) -> None:
        """The still is over, however it ended: what was undone leaves the disk, the rest waits for the next worker."""
        if self.settings is None:
            await asyncio.to_thread(self._file.delete)

    def done(self) -> None:
        """A worker has opened the device with these settings, or nothing was changed after all."""
        if self.settings is not None:
            self.settings = None
            self._file.delete()
