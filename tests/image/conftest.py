"""Fixtures of the image tests: every image that `make image` has built, and a container of each to look into.

CAMDOCK_TEST_IMAGES     which; default "current optimized numpy1 picamera2"
CAMDOCK_TEST_REPOSITORY what stands before the colon; default "camdock"
CAMDOCK_TEST_REVISION   what they were built from; default the commit that is checked out
CAMDOCK_TEST_ALL=1      what takes minutes more as well: every image built twice, aarch64 under emulation
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from tests.tools.cannot import cannot
from tests.tools.containers import ROOT, Built, Container, docker, inspect, remove_all


@dataclass(frozen=True)
class Image:
    """One of our images.

    pins  the build argument PINS
    """

    name: str
    dockerfile: str
    pins: str

    @property
    def tag(self) -> str:
        """Its name for the engine."""
        return f"{REPOSITORY}:{self.name}"

    @property
    def has_libcamera(self) -> bool:
        """Whether it carries what a Raspberry Pi's own cameras need."""
        return self.pins.startswith("picamera2")

    @property
    def constraints(self) -> Path:
        """The pins it is made from."""
        return ROOT / ("constraints.txt" if self.pins == "current" else f"docker/pins/{self.pins}.txt")

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the engine knows about it."""
        return inspect(self.tag)

    def built(self, folder: Path, **more: Any) -> Built:
        """Build it from another folder, under a name of its own."""
        return Built(folder, dockerfile=self.dockerfile, PINS=self.pins, **more)


IMAGES = {
    one.name: one
    for one in (
        Image("current", "Dockerfile", "current"),
        Image("optimized", "Dockerfile.optimized", "current"),
        Image("numpy1", "Dockerfile", "numpy1"),
        Image("picamera2", "Dockerfile", "picamera2"),
    )
}
collect_ignore = [] if os.environ.get("CAMDOCK_TEST_ALL") == "1" else ["test_aarch64.py"]
REPOSITORY = os.environ.get("CAMDOCK_TEST_REPOSITORY", "camdock")
WANTED = os.environ.get("CAMDOCK_TEST_IMAGES", " ".join(IMAGES)).split()


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """A Docker engine; afterwards nothing of these tests is left on it."""
    if shutil.which("docker") is None:
        cannot("the docker command is missing: make image says how to get it")
    if docker("version", check=False).returncode != 0:
        cannot(f"no Docker engine answers: {docker('version', check=False).stderr.strip()}")
    remove_all()
    yield
    remove_all()


def image_named(name: str) -> Image:
    """One of the images that were asked for; skips where it is not among them or not built."""
    if name not in WANTED:
        pytest.skip(f"{name} is not among the images that were asked for")
    image = IMAGES[name]
    if docker("image", "inspect", image.tag, check=False).returncode != 0:
        cannot(f"{image.tag} is not built: make image")
    return image


@pytest.fixture(scope="session", params=WANTED)
def image(request: pytest.FixtureRequest, engine: None) -> Image:
    """Every image in turn."""
    return image_named(request.param)


@pytest.fixture(scope="session")
def service(image: Image) -> Iterator[Container]:
    """The service in a container of that image, as started by everybody: to look at, not to change."""
    with Container(image.tag, CAMDOCK_AUTH="off", CAMDOCK_SOURCE="synthetic:", CAMDOCK_LINGER_S="0") as container:
        yield container


@pytest.fixture(scope="session")
def host(service: Container) -> Host:
    """The same container, to testinfra."""
    return testinfra.get_host(f"docker://{service.name}")


@pytest.fixture(scope="session")
def revision() -> str:
    """What the images were built from."""
    if told := os.environ.get("CAMDOCK_TEST_REVISION"):
        return told
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, what its containers have logged belongs to the report."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {one.image}, {one.name}", one.log) for one in Container.alive]
    return report
