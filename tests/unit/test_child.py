"""Child: where its numbers lie must not matter, nor what it dies of."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator

import pytest

from camdock.child import Child
from camdock.errors import WorkerDied
from camdock.guard import Guard

PAST_SELECT = 1024  # FD_SETSIZE


@pytest.fixture
def many_open() -> Iterator[None]:
    """As in a service with a thousand viewers: the next descriptor is a number that select() does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, PAST_SELECT + 64), hard))
    taken: list[int] = []
    while not taken or taken[-1] < PAST_SELECT:
        taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    yield
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_open")
def test_a_death_beside_a_thousand_viewers_is_a_death_like_any_other() -> None:
    async def watched() -> None:
        guard = Guard()
        try:
            child = Child("camdock.worker", "camera", guard, lambda _message: None, str)
            async with asyncio.timeout(30), child:
                os.kill(child.pid, 9)
                await child.watch()
        finally:
            guard.stop()

    with pytest.raises(WorkerDied, match="SIGKILL"):
        asyncio.run(watched())
