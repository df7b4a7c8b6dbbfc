"""Fixtures of the process tests: the real service, started as a user starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tools import build, frames
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


@pytest.fixture
def fake_camera(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """fake_camera(...): the environment in which /dev/video7 is a camera."""

    def environment(**more: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(build.ensure("fakev4l2")),
            "FAKEV4L2": "/dev/video7",
            "FAKEV4L2_JPEGS": str(frames.camera_frames((640, 480), (1280, 720))),
            "FAKEV4L2_STATE": str(tmp_path),
            **more,
        }

    return environment
