"""The image that stays on NumPy 1.x under gunicorn with uvicorn's workers, as the image service was run."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from PIL import Image as Picture

from tests.image.conftest import image_named
from tests.tools.containers import Container
from tests.tools.service import until

COMMAND = (
    "gunicorn", "--bind", "0.0.0.0:8000", "--workers", "2", "--worker-class", "uvicorn.workers.UvicornWorker",
    "--worker-tmp-dir", "/dev/shm", "--graceful-timeout", "2", "camdock.asgi:app",
)  # fmt: skip


@pytest.fixture(scope="module")
def gunicorn(engine: None) -> Iterator[Container]:
    """Two server processes, with the container's root read-only."""
    with Container(
        image_named("numpy1").tag, "--read-only", "--cap-drop", "ALL", command=COMMAND,
        CAMDOCK_AUTH="off", CAMDOCK_SOURCE="synthetic:",
    ) as container:  # fmt: skip
        until(lambda: container.log.count("camera: source synthetic:") == 2, 30, "both processes run the service")
        yield container


def test_it_boots_and_is_well(gunicorn: Container) -> None:
    health = gunicorn.get("/health")
    assert (health.status, health.json()["status"]) == (200, "healthy")
    status, words = gunicorn.health()
    assert status == 0, words
    assert len(re.findall(r"Booting worker with pid", gunicorn.log)) == 2


def test_pictures_move_without_our_own_door(gunicorn: Container) -> None:
    parts = gunicorn.get("/stream?frames=3", timeout_s=20).body.split(b"\xff\xd8")[1:]
    assert len(set(parts)) == 3
    picture = Picture.open(io.BytesIO(gunicorn.get("/snapshot?width=160", timeout_s=20).body))
    picture.load()
    assert picture.width == 160, "also the process that touches pixels"


def test_its_log_is_clean(gunicorn: Container) -> None:
    gunicorn.get("/health")
    for word in ("ERROR", "Traceback", "Warning:", "_ARRAY_API", "dtype size changed"):
        assert word not in gunicorn.log


def test_a_configuration_that_cannot_be_used_is_refused_in_words(engine: None) -> None:
    container = Container(image_named("numpy1").tag, command=COMMAND, CAMDOCK_SOURCE="synthetic:")
    container.start()
    try:
        assert container.wait() == 3, "it does not try again for ever"
        assert "CAMDOCK_TOKEN" in container.log, "it listens on all addresses, and nobody said who may look"
        assert "Traceback" not in container.log
    finally:
        container.remove()
