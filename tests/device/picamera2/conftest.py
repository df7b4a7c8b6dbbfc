"""Fixtures: the Pi image with the rig mounted into it, and what its containers have logged where a test fails.

CAMDOCK_TEST_PICAMERA2  the image; default camdock:picamera2
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.device.picamera2.rigged import IMAGE, Rigged
from tests.tools.cannot import cannot
from tests.tools.containers import Container, docker, remove_all

StartRigged = Callable[..., Rigged]


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The Pi image; afterwards nothing of these tests is left on the engine."""
    if docker("image", "inspect", IMAGE, check=False).returncode != 0:
        cannot(f"there is no image {IMAGE}: make image IMAGES=picamera2")
    remove_all()
    yield IMAGE
    remove_all()


@pytest.fixture
def start(image: str, tmp_path: Path) -> Iterator[StartRigged]:
    """start(SOURCES, **environment): the service in a container of that image, on the rig."""
    started: list[Rigged] = []

    def one(sources: str, **environment: str) -> Rigged:
        faults = tmp_path / f"faults-{len(started)}"
        faults.mkdir()
        started.append(Rigged(image, faults, CAMDOCK_SOURCES=sources, **environment))
        started[-1].__enter__()
        return started[-1]

    yield one
    for container in started:
        container.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, what its containers have logged belongs to the report."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {one.image}, {one.name}", one.log[-20_000:]) for one in Container.alive]
    return report


assert os.environ.get("PYTHONPATH", "").find("picamera2/rig") < 0, "the rig belongs into containers, not into the tests"
