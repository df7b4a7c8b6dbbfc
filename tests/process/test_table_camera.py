"""The table camera: its web stream, its health and status, before, while and after the camera opens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from camdock.client import Camera
from camdock.frame import jpeg_size
from tests.process.conftest import StartService
from tests.tools.pictures import RATE_WITHIN, rate
from tests.tools.service import RESPONSIVE_MS, Pulse, Service, until

VIDEO, STATUS = "/api/v1/stream/video", "/api/v1/stream/video/status"


@pytest.fixture(scope="module", params=["table service"])
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A camera of more than 640x480 that is given back soon after nobody looks; it can be unplugged."""
    folder = tmp_path_factory.mktemp("table")
    environment = {
        "CAMDOCK_SOURCE": f"synthetic:?size=1280x720&fps=30&gone={folder / 'gone'}",
        "CAMDOCK_LINGER_S": "1",
    }
    with Service(environment, folder) as service:
        yield service
        assert "Traceback" not in service.log, service.log[-4000:]


def status_of(service: Service) -> dict[str, Any]:
    answer = service.get(STATUS)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def test_health_is_what_it_was(table: Service) -> None:
    for path in ("/api/v1/health/", "/api/v1/health"):
        answer = table.get(path).json()
        assert list(answer) == ["status", "timestamp"]
        assert answer["status"] == "healthy"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", answer["timestamp"])
        assert abs((datetime.now() - datetime.fromisoformat(answer["timestamp"])).total_seconds()) < 60


def test_the_web_stream_is_640_wide_at_15_a_second_while_others_see_all_of_it(table: Service) -> None:
    with table.stream(VIDEO) as web, table.stream() as whole:
        until(lambda: status_of(table)["camera"] == {"status": "active", "connected": True}, 10, "it opens")
        web.take(5)  # the first ones come at once, whatever the rate
        pictures = [picture for picture in web.take(30) if "x-notice" not in picture.headers]
        assert set(table.camera()["renditions"]) == {"640x480, 15 fps"}
        assert rate(pictures) < 15 * (1 + RATE_WITHIN), "a busy machine leaves pictures out; it does not give more"
        assert {jpeg_size(picture.jpeg) for picture in pictures} == {(640, 360)}  # its shape is kept
        # While it opens, which takes its time on a busy machine, a viewer is told so: in a picture of another size.
        first = next(picture for picture in whole if "x-notice" not in picture.headers)
        assert jpeg_size(first.jpeg) == (1280, 720)
        told = status_of(table)
        assert table.get(STATUS + "/").json()["camera"] == told["camera"]
        assert told["stream"]["clients"] == 2
        assert told["stream"]["resolution"] == {"width": 1280, "height": 720}
        assert told["reason"] is None


def test_another_size_or_rate_may_be_asked_for(table: Service) -> None:
    with table.stream(f"{VIDEO}/?width=160&fps=5") as web:
        pictures = web.take(6)
    sizes = [jpeg_size(picture.jpeg) for picture in pictures]
    assert sizes[-1] == (160, 90)
    assert rate(pictures[1:]) == pytest.approx(5, rel=0.2)
    assert table.get(f"{VIDEO}?width=5").status == 422


@pytest.mark.slow  # the rate of both, to 5 %: two cores with nothing else to do
def test_two_programs_take_pictures_at_their_own_rates(table: Service) -> None:
    """The one processes the newest full-size frames, the other shows 640x480 at 15 to the web."""
    url = f"http://127.0.0.1:{table.port}"
    with Camera(url) as processing, Camera(url + VIDEO) as web:
        processing.latest(within_s=15)
        web.latest(within_s=15)
        for _ in range(3):
            first, first_web = processing.next(5), web.next(5)
            frames = [processing.next(5) for _ in range(60)]
            shapes = {frame.image.shape for frame in frames}
            seconds = frames[-1].captured_at - first.captured_at
            last_web = web.latest()
            web_rate = (last_web.seq - first_web.seq) / 2 / (last_web.captured_at - first_web.captured_at)
            if len(frames) / seconds == pytest.approx(30, rel=RATE_WITHIN):
                break
        assert len(frames) / seconds == pytest.approx(30, rel=RATE_WITHIN)
        assert web_rate == pytest.approx(15, rel=RATE_WITHIN)
        assert shapes == {(720, 1280, 3)}
        assert last_web.image.shape == (360, 640, 3)


def test_a_camera_that_rests_is_opened_by_the_next_request(table: Service) -> None:
    until(lambda: status_of(table)["camera"] == {"status": "idle", "connected": True}, 10, "nobody looks")
    with table.stream(VIDEO) as web:
        assert jpeg_size(web.take(2)[1].jpeg) == (640, 360)


def test_an_unplugged_camera_is_an_error_with_its_reason_until_it_is_back(table: Service) -> None:
    gone = table.folder / "gone"
    with table.stream(VIDEO) as web:
        web.take(2)
        gone.touch()
        until(lambda: status_of(table)["camera"] == {"status": "error", "connected": False}, 10, "it is gone")
        assert status_of(table)["reason"]["code"] == "source_missing"
        assert table.get("/api/v1/health/").json()["status"] == "healthy"
        gone.unlink()
        until(lambda: status_of(table)["camera"] == {"status": "active", "connected": True}, 10, "it is back")
        assert web.take(2)


def test_while_opening_hangs_everything_answers_and_says_what_is_stuck(start: StartService, tmp_path: Path) -> None:
    service = start("synthetic:?hang_open=1", CAMDOCK_OPEN_TIMEOUT_S="1")
    assert status_of(service)["camera"] == {"status": "not_initialized", "connected": False}
    with Pulse(service.port, "/api/v1/health/") as pulse, service.stream(VIDEO) as web:
        until(lambda: status_of(service)["camera"]["status"] == "error", 15, "it is known to be stuck")
        reason = status_of(service)["reason"]
        assert reason["code"] == "source_stalled"
        assert "to open" in reason["message"]
        assert web.take(1)[0].headers["x-notice"] == "1"
    assert not pulse.failures
    assert pulse.percentile_ms(99) < RESPONSIVE_MS
