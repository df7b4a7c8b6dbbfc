"""The Pi camera's recovery, replayed: a driver that fails again and again, and what its viewers see meanwhile.

That a machine without a camera shows a test card stands in test_v4l2.py.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

import camdock
from tests.process.conftest import StartService
from tests.tools.service import Service, until

PATIENCE, LONG_PAUSE_S = 5, 5.0


@pytest.fixture(scope="module", params=["recovering service"])
def recovering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A camera that is well and can be unplugged, and one whose driver answers every opening with an error."""
    folder = tmp_path_factory.mktemp("recovering")
    sources = f"camera=synthetic:?size=320x240&fps=30&gone={folder / 'gone'} failing=synthetic:?busy=1"
    with Service({"CAMDOCK_SOURCES": sources}, folder) as service:
        yield service
        assert "Traceback" not in service.log, service.log[-4000:]


def message(viewer: ClientConnection, kind: type) -> Any:
    """The next text (as JSON) or binary message, whatever comes between."""
    while not isinstance(said := viewer.recv(timeout=15), kind):
        pass
    return json.loads(said) if isinstance(said, str) else said


def is_notice(jpeg: bytes) -> bool:
    """Whether it is the picture that says why: an amber edge at the top, where the test card is grey."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    red, _, blue = picture.getpixel((picture.width // 2, 2))  # type: ignore[misc]
    return bool(red - blue >= 100)


def test_the_log_says_at_start_which_versions_drive_the_camera(recovering: Service) -> None:
    recovering.until_state("live")
    log = recovering.log
    assert f"camdock {camdock.__version__} on http" in log
    driven = re.search(r"camera: driven with (.*)", log)
    assert driven, log
    assert re.search(r"\bnumpy \d+\.\d+\.\d+", driven[1])
    assert log.index("camera: driven with") < log.index("camera: open:")


@pytest.mark.slow
def test_pictures_and_what_happens_go_over_a_websocket(recovering: Service) -> None:
    gone = recovering.folder / "gone"
    recovering.until_state("live")
    with connect(f"ws://127.0.0.1:{recovering.port}/ws", max_size=None) as viewer:
        assert message(viewer, str)["state"] == "live"
        pictures = {message(viewer, bytes) for _ in range(10)}
        assert len(pictures) == 10
        assert not any(map(is_notice, pictures))
        gone.touch()
        until(lambda: is_notice(message(viewer, bytes)), 15, "a picture that says why", 0)
        recovering.until_state("offline")
        gone.unlink()
        until(lambda: not is_notice(message(viewer, bytes)), 15, "pictures again", 0)
    with connect(f"ws://127.0.0.1:{recovering.port}/cameras/failing/ws", max_size=None) as viewer:
        told = message(viewer, str)
        while told["state"] == "starting":
            told = message(viewer, str)
        assert told["state"] == "offline"
        assert told["reason"]["message"]
        assert told["reason"]["hint"]
        assert is_notice(message(viewer, bytes))


@pytest.mark.slow
def test_failures_are_counted_and_from_the_fifth_on_the_pause_is_long(recovering: Service) -> None:
    """Each worker is one try: they come 0.2 s, 0.4 s, 0.8 s, 1.6 s apart, then every 5 s."""
    times = {recovering.camera("failing")["failures"]: 0.0}  # since when it is so many: not known of the first

    def look() -> bool:
        times.setdefault(recovering.camera("failing")["failures"], time.monotonic())
        return sum(number >= PATIENCE and began > 0 for number, began in times.items()) == 2

    until(look, 40, lambda: f"{times}\n{recovering.log[-2000:]}", 0.02)
    before, last = sorted(times)[-2:]
    assert last == before + 1
    assert times[last] - times[before] > LONG_PAUSE_S * 0.98
    shown = recovering.get("/metrics").body.decode()
    assert re.search(r'camdock_consecutive_failures\{camera="failing"\} [6-9]', shown)
    assert recovering.camera("failing")["restarts"]["source_busy"] > PATIENCE
    assert len(re.findall("failing: source_busy", recovering.log)) == 1, "said once, not with every try"
    assert recovering.camera()["failures"] == 0


@pytest.mark.slow
def test_during_the_long_pause_no_process_runs_and_viewers_are_told_why(recovering: Service) -> None:
    until(lambda: recovering.camera("failing")["failures"] > PATIENCE, 40, "it gave up hammering")

    def workers() -> list[psutil.Process]:
        children = psutil.Process(recovering.process.pid).children()
        return [child for child in children if "failing" in child.cmdline()]

    until(lambda: not workers(), 5, "nothing runs")
    with recovering.stream("/cameras/failing/stream") as viewer:
        began = time.monotonic()
        pictures = viewer.take(3)
        assert time.monotonic() - began > 1, "once a second"
    assert {picture.headers.get("x-notice") for picture in pictures} == {"1"}
    assert all(is_notice(picture.jpeg) for picture in pictures)
    answer = recovering.get("/cameras/failing/snapshot")
    assert (answer.status, answer.json()["code"]) == (503, "source_busy")


@pytest.mark.slow
def test_an_error_of_the_driver_restarts_it_and_a_picture_ends_the_count(start: StartService) -> None:
    """As the allocator's error did: the driver answers with an error in the middle; the next worker is well."""
    service = start("synthetic:?size=320x240&fps=60&error_after=30")
    until(lambda: service.camera()["restarts"].get("source_failed", 0) >= 2, 20, lambda: service.log)
    assert service.camera()["failures"] <= 1
