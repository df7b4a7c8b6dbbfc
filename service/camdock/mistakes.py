"""What the log says when a task fails that must not.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger("camdock")


def must_not_fail(what: str = "") -> Callable[[asyncio.Task[None]], None]:
    """A task's done callback, which logs the exception that ended it; `what` says whose or what for."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%sa mistake in Camdock, please report it", what and f"{what}: ", exc_info=error)

    return ended
