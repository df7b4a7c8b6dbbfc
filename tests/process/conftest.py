"""Fixtures of the process tests: the real service, started as a user starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tools.service import Service

StartService = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartService]:
    """start(source, *arguments, **environment): a running service, stopped behind the test."""
    with ExitStack() as stack:

        def begin(source: str | None = None, *arguments: str, **environment: str) -> Service:
            given = {"CAMDOCK_SOURCE": source} if source is not None else {}
            return stack.enter_context(Service({**given, **environment}, tmp_path, arguments))

        yield begin
