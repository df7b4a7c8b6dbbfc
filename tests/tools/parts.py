"""How long the parts of a slow test take, printed while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

Part = Callable[[str], AbstractContextManager[None]]


def timed_parts(config: pytest.Config) -> Part:
    """part(name), for the terminal of this run: says how long what is done within it took."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"-- {name}: {time.monotonic() - began:.1f} s")

    return part
