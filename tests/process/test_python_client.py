"""camdock.client against the real service: fresh pictures, whatever the consumer's pace, and through its restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from camdock.client import Camera, NoPicture, Refused
from tests.tools.frames import read_number
from tests.tools.service import Service, free_port, until

TOKEN = "for-programs-only"


@pytest.fixture(scope="module", params=["pictured service"])
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A quick camera behind a token, and one that may never be opened."""
    environment = {"CAMDOCK_SOURCES": "camera=synthetic:?fps=25 dark=synthetic:?denied=1", "CAMDOCK_TOKEN": TOKEN}
    with Service(environment, tmp_path_factory.mktemp("pictured")) as running:
        yield running
        assert "Traceback" not in running.log, running.log[-4000:]


def camera_of(service: Service, **more: object) -> Camera:
    return Camera(f"http://127.0.0.1:{service.port}", **{"token": TOKEN, **more})  # type: ignore[arg-type]


def test_pictures_are_arrays_with_their_number_and_time(service: Service) -> None:
    with camera_of(service) as camera:
        frames = [frame for frame, _ in zip(camera, range(20), strict=False)]
    for frame in frames:
        assert (frame.image.shape, frame.image.dtype) == ((480, 640, 3), np.uint8)
        assert abs(time.time() - frame.captured_at) < 10
    ahead = {frame.seq - read_number(frame.image) for frame in frames}
    assert len(ahead) == 1, "the number is the picture's own, up to the notices before it"
    assert all(before.seq < after.seq for before, after in pairwise(frames))
    assert camera.problem == ""


def test_blue_comes_first_as_opencv_has_it(service: Service) -> None:
    """The test card against another decoder's opinion."""
    with camera_of(service) as camera:
        frame = camera.latest(within_s=10)
    other = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(frame.image.astype(int) - other).mean() < 2
    assert np.abs(other[..., 0].astype(int) - other[..., 2]).mean() > 10, "blue and red differ in this picture"


def test_a_slow_consumer_skips_and_what_it_gets_is_fresh(service: Service) -> None:
    with camera_of(service) as camera:
        camera.next(10)
        ages, numbers = [], []
        for _ in range(4):
            time.sleep(0.3)  # it works on the picture before
            frame = camera.next(5)
            ages.append(time.time() - frame.captured_at)
            numbers.append(frame.seq)
    assert max(ages) < 0.25, ages
    assert all(after - before > 4 for before, after in pairwise(numbers)), numbers


def test_a_size_and_rate_of_its_own_are_made_by_the_service(service: Service) -> None:
    with camera_of(service, width=160, height=100, fps=10) as camera:
        camera.latest(within_s=10)
        first = camera.next(5)
        frames = [camera.next(5) for _ in range(10)]
    assert frames[-1].image.shape == (100, 133, 3)
    assert len(frames) / (frames[-1].captured_at - first.captured_at) == pytest.approx(10, rel=0.15)


def test_a_wrong_token_or_name_is_said_at_once(service: Service) -> None:
    with camera_of(service, token="wrong") as camera, pytest.raises(Refused, match="token") as refused:
        camera.next(5)
    assert (refused.value.status, refused.value.code) == (401, "token_needed")
    assert "wrong token" in str(refused.value) or "a wrong one" in str(refused.value)
    with camera_of(service, name="none") as camera, pytest.raises(Refused, match="no camera called 'none'") as refused:
        camera.next(5)
    assert refused.value.code == "camera_missing"


def test_a_camera_that_is_away_gives_no_pictures_and_says_so(service: Service) -> None:
    with camera_of(service, name="dark") as camera, pytest.raises(NoPicture, match="GET /cameras says why"):
        camera.next(2)


def test_it_comes_back_by_itself_when_the_service_does(tmp_path: Path) -> None:
    port = free_port()
    environment = {"CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=30"}
    with Camera(f"http://127.0.0.1:{port}") as camera:
        with pytest.raises(NoPicture, match="refused"):
            camera.next(0.3)
        with Service(environment, tmp_path, port=port):
            assert camera.next(15).image.shape == (240, 320, 3)
        until(lambda: camera.problem, 5, "it notices")
        with Service(environment, tmp_path, port=port):
            again = camera.next(15)
            while time.time() - again.captured_at > 1:  # one that was not taken before the end
                again = camera.next(15)
            assert len({camera.next(5).jpeg for _ in range(5)}) == 5
            assert camera.problem == ""


def test_leaving_is_noticed_by_the_service(service: Service) -> None:
    asked = {"Authorization": f"Bearer {TOKEN}"}
    camera = camera_of(service)
    camera.next(10)
    assert service.get("/cameras/camera", asked).json()["viewers"] == 1
    camera.close()
    until(lambda: service.get("/cameras/camera", asked).json()["viewers"] == 0, 5, "it has left")
