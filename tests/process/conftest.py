"""Fixtures of the process tests: the real service, started as a user starts it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tools import build, frames
from tests.tools.nursery import Nursery
from tests.tools.service import Service, until

StartService = Callable[..., Service]
COSTLY = ("test_schemathesis.py",)  # to load, and slow tests all of them


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing is read that `make test` runs nothing of."""
    return True if collection_path.name in COSTLY and config.option.markexpr == "not slow" else None


@pytest.fixture(scope="session", autouse=True)
def nursery(pytestconfig: pytest.Config) -> Iterator[None]:
    """`make test` forks its services from a process with the imports; `make verify` and a plain pytest start each."""
    if pytestconfig.option.markexpr != "not slow":
        yield
        return
    with Nursery() as Service.nursery:
        yield
    Service.nursery = None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartService]:
    """start(source, *arguments, **environment): a running service, stopped behind the test."""
    with ExitStack() as stack:

        def begin(source: str | None = None, *arguments: str, **environment: str) -> Service:
            given = {"CAMDOCK_SOURCE": source} if source is not None else {}
            return stack.enter_context(Service({**given, **environment}, tmp_path, arguments))

        yield begin


# Starting a service is a second of a core: tests that need nothing of their own share one. Its name in the parameter
# becomes part of their ids, and keeps them in one worker (tests/tools/together.py).


@pytest.fixture(scope="session", params=["plain service"])
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """The service behind `plain`, while there is one."""
    services: list[Service] = []
    yield services
    for service in services:
        service.stop()


@pytest.fixture
def plain(running: list[Service], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running `synthetic:`, live and with nobody looking; its counters and settings are what others left."""
    if not running:
        running.append(Service({"CAMDOCK_SOURCE": "synthetic:"}, tmp_path_factory.mktemp("plain")).__enter__())
    service = running[0]
    service.until_state("live")
    yield service
    until(lambda: service.camera()["viewers"] == 0, 5, "nobody looks behind the test")
    assert "Traceback" not in service.log, service.log[-4000:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Function, nextitem: pytest.Item | None) -> Iterator[None]:
    """Stop the plain service where the next test does not want it: its camera would run to the end of all tests."""
    running: list[Service] = item.funcargs.get("running", [])
    yield
    if running and "running" not in getattr(nextitem, "fixturenames", ()):
        running.pop().stop()


def fake_cameras(state: Path, **more: str) -> dict[str, str]:
    """The environment in which /dev/video7 is a camera that remembers its controls in a folder."""
    return {
        "LD_PRELOAD": str(build.ensure("fakev4l2")),
        "FAKEV4L2": "/dev/video7",
        "FAKEV4L2_JPEGS": str(frames.camera_frames((640, 480), (1280, 720))),
        "FAKEV4L2_STATE": str(state),
        **more,
    }


@pytest.fixture
def fake_camera(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """fake_camera(...): the environment in which /dev/video7 is a camera."""
    return functools.partial(fake_cameras, tmp_path)
