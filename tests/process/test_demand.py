"""A camera that nobody looks at is given back; the next one who looks gets a picture at once. And renditions."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from camdock.frame import jpeg_size
from tests.process.conftest import StartService
from tests.tools.service import Service, until

LINGER_S = 1.0
# The figure of a quiet machine; beside other tests everything takes longer.
AWAKE_WITHIN_S = 3.0 if os.environ.get("PYTEST_XDIST_WORKER") else 0.5


def until_idle(service: Service, within_s: float = 10) -> None:
    service.until_state("idle", within_s=within_s)


def quiet(service: Service) -> None:
    """Wait until a fifth of a second costs nothing: what was allocated has been given back."""

    def nothing() -> bool:
        before = cpu_s(service)
        time.sleep(0.2)  # the window that is measured
        return cpu_s(service) == before

    until(nothing, 10, "it is quiet", 0)


def cpu_s(service: Service) -> float:
    """Processor seconds of the service and every process below it."""
    api = psutil.Process(service.process.pid)
    return sum(sum(process.cpu_times()[:2]) for process in (api, *api.children(recursive=True)))


CARD, CAM = "card=synthetic:", "cam=v4l2:/dev/video7?size=640x480&format=MJPG"


@pytest.mark.parametrize("sources", [(CARD,), pytest.param((CARD, CAM), marks=pytest.mark.slow)], ids=["card", "both"])
def test_nobody_looks_and_nothing_is_done_until_somebody_does(
    start: StartService, fake_camera: Callable[..., dict[str, str]], sources: tuple[str, ...]
) -> None:
    names = [source.partition("=")[0] for source in sources]
    camera_of_ours = fake_camera() if CAM in sources else {}
    service = start(CAMDOCK_SOURCES=" ".join(sources), CAMDOCK_LINGER_S=str(LINGER_S), **camera_of_ours)
    for name in names:
        with service.stream(f"/cameras/{name}/stream") as viewer:
            before = float(viewer.take(5)[-1].headers["x-timestamp"])
            enough = before + LINGER_S + 0.5  # longer than the linger: who looks keeps it running
            while before < enough:
                before = float(viewer.take(1)[0].headers["x-timestamp"])
            assert service.camera(name)["state"] == "live"
        seq = service.camera(name)["seq"]
        pid = service.worker(name).pid
        service.until_state("idle", name)
        camera = service.camera(name)
        assert camera["reason"] is None
        assert camera["age_s"] is None
        assert camera["fps"] == 0
        assert camera["restarts"] == {}
        assert service.get("/health").json()["camera_connected"] is True
        began = time.monotonic()
        with service.stream(f"/cameras/{name}/stream") as viewer:
            first = viewer.take(1)[0]
            took = time.monotonic() - began
            print(f"{name}: first picture after {took * 1000:.0f} ms")
            assert took < AWAKE_WITHIN_S
            assert float(first.headers["x-timestamp"]) > before + LINGER_S, "not the old one"
            assert len(viewer.take(10)) == 10
        assert service.camera(name)["seq"] > seq
        assert service.worker(name).pid == pid, "the process stays, the device does not"
        service.until_state("idle", name)
        began = time.monotonic()
        assert service.get(f"/cameras/{name}/snapshot").status == 200
        print(f"{name}: snapshot after {(time.monotonic() - began) * 1000:.0f} ms")
    for name in names:
        service.until_state("idle", name)
    assert service.get("/health/ready").status == 200
    if CAM in sources:
        files = [os.readlink(f) for f in Path(f"/proc/{service.worker('cam').pid}/fd").iterdir()]
        assert not [file for file in files if "video7" in file], files


@pytest.mark.slow
def test_an_idle_service_costs_under_one_percent_of_a_core(
    start: StartService, fake_camera: Callable[..., dict[str, str]]
) -> None:
    service = start("v4l2:/dev/video7?size=640x480&format=MJPG", CAMDOCK_LINGER_S="1", **fake_camera())
    with service.stream() as viewer:
        viewer.take(30)
    until_idle(service)
    quiet(service)
    began, before = time.monotonic(), cpu_s(service)
    time.sleep(10)  # the window that is measured
    share = (cpu_s(service) - before) / (time.monotonic() - began)
    print(f"idle: {share * 100:.2f} % of a core")
    assert share < 0.01


@pytest.mark.slow
def test_an_idle_camera_that_is_unplugged_is_told_and_comes_back(
    start: StartService, fake_camera: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    service = start("v4l2:/dev/video7?format=MJPG", CAMDOCK_LINGER_S="0.5", **fake_camera(FAKEV4L2_GONE=str(gone)))
    until_idle(service)
    gone.touch()
    reason = service.until_state("offline")["reason"]
    assert reason["code"] == "source_missing"
    assert service.get("/health/ready").status == 503
    gone.unlink()
    until_idle(service)
    assert service.get("/snapshot").status == 200


@pytest.fixture(scope="module", params=["resting service"])
def resting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service whose camera rests half a second after the last viewer."""
    environment = {"CAMDOCK_SOURCE": "synthetic:", "CAMDOCK_LINGER_S": "0.5", "CAMDOCK_OPEN_TIMEOUT_S": "1"}
    with Service(environment, tmp_path_factory.mktemp("resting")) as service:
        yield service


def test_a_device_that_does_not_come_back_from_its_rest_is_a_stall(resting: Service) -> None:
    service = resting
    until_idle(service)
    service.worker().suspend()
    answer = service.get("/snapshot")
    assert answer.status == 503
    assert answer.json()["code"] == "source_stalled"
    until(lambda: service.get("/snapshot").status == 200, 10, lambda: service.log)


def test_zero_never_stops_and_a_wait_of_none_gets_the_next_picture(plain: Service) -> None:
    frames = plain.camera()["frames"]
    until(lambda: plain.camera()["frames"] > frames + 10, 10, "it runs for nobody")
    for _ in range(3):
        asked = time.time()
        answer = plain.get("/snapshot?max_delay=0")
        assert float(answer.headers["x-timestamp"]) >= asked - 0.01
    older = [(time.time(), float(plain.get("/snapshot?max_delay=60000").headers["x-timestamp"])) for _ in range(5)]
    assert any(taken < asked for asked, taken in older), "an old one will do"
    assert plain.get("/snapshot?max_delay=-1").status == 422


def test_a_relay_at_rest_holds_no_connection(start: StartService, plain: Service) -> None:
    near = start(f"relay:http://127.0.0.1:{plain.port}/stream", CAMDOCK_LINGER_S="0.5")
    until(lambda: near.camera()["frames"] > 0, 10, "it looked")  # half a second, which a busy machine may not see
    near.until_state("idle")
    until(lambda: plain.camera()["viewers"] == 0, 3, "it looks no more")
    assert near.get("/snapshot").status == 200
    near.stop()


# --- renditions -------------------------------------------------------------------------------------------------------


def made(service: Service) -> float:
    """How many pictures were made for renditions."""
    figures = service.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in figures if "rendition_frames_total{" in line)


def test_renditions_are_smaller_slower_and_shared(plain: Service) -> None:
    service = plain
    until(lambda: not service.camera()["renditions"], 5, "nobody looks")
    before, frames = made(service), service.camera()["frames"]
    with ExitStack() as stack:
        viewers = [stack.enter_context(service.stream("/stream?width=320&height=320&quality=60")) for _ in range(5)]
        slow = stack.enter_context(service.stream("/stream?fps=5"))
        sizes = {jpeg_size(picture.jpeg) for viewer in viewers for picture in viewer.take(10)}
        assert sizes == {(320, 240)}
        slow.take(2)
        times = [float(picture.headers["x-timestamp"]) for picture in slow.take(6)]
        # A busy machine leaves pictures out; it does not give more of them.
        assert all(after - before > 0.15 for before, after in pairwise(times)), times
        assert times[-1] - times[0] < 5, times
        assert 10 <= made(service) - before <= service.camera()["frames"] - frames, (
            "one for all five, none for the rate"
        )
        camera = service.camera()
        assert camera["renditions"] == {"320x320, quality 60": 5, "5 fps": 1}
        assert camera["viewers"] == 6
        stack.enter_context(service.stream("/stream?width=100"))
        stack.enter_context(service.stream("/stream?width=200"))
        refused = service.get("/stream?width=300")
        assert refused.status == 429
        assert refused.json()["code"] == "too_many_renditions"
        assert "320x320, quality 60" in refused.json()["detail"]
        assert service.get("/snapshot?width=300").status == 429
        assert service.get("/snapshot?width=100").status == 200
    until(lambda: not service.camera()["renditions"], 5, "nobody looks, nothing is made")
    assert jpeg_size(service.get("/snapshot?width=300").body) == (300, 225)
    for bad in ("width=0", "height=99999", "fps=0", "fps=nan", "quality=101", "width=many"):
        assert service.get(f"/stream?{bad}").status == 422, bad


def test_a_viewer_of_a_slow_rendition_that_leaves_gives_its_place_back(plain: Service) -> None:
    service = plain
    until(lambda: not service.camera()["renditions"], 5, "nobody looks")
    for number in range(6):
        with service.stream(f"/stream?fps=0.01&quality={number + 1}") as viewer:
            assert len(viewer.take(1)) == 1
        until(lambda: not service.camera()["renditions"], 3, "its place is free")


@pytest.fixture(scope="module", params=["pixels service"])
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A running service with a large camera, and one that is unplugged while the file exists."""
    folder = tmp_path_factory.mktemp("pixels")
    gone = folder / "gone"
    sources = f"front=synthetic:?size=1280x720&fps=5 back=synthetic:?gone={gone}"
    with Service({"CAMDOCK_SOURCES": sources}, folder) as service:
        yield service, gone


@pytest.mark.slow
def test_a_rendition_shows_why_too_and_survives_the_end_of_the_pixels_process(two: tuple[Service, Path]) -> None:
    service, gone = two
    service.until_state("live", "back")
    with service.stream("/cameras/back/stream?width=160") as viewer:
        viewer.take(5)
        api = psutil.Process(service.process.pid)
        pixels = next(child for child in api.children() if "camdock.pixelsworker" in child.cmdline())
        pixels.kill()
        assert len(viewer.take(20)) == 20
        gone.touch()
        service.until_state("offline", "back")
        seen = {jpeg_size(picture.jpeg) for picture in viewer.take(4)}
        assert {width for width, _ in filter(None, seen)} == {160}
        gone.unlink()
        service.until_state("live", "back")
        assert len(viewer.take(10)) == 10


@pytest.mark.slow  # it waits for a deadline
def test_a_pixels_process_that_hangs_costs_one_answer(two: tuple[Service, Path]) -> None:
    service, gone = two
    service.until_state("live", "front")
    # A viewer of the test before may be there still: the picture made for him would be the one that pays.
    until(lambda: not service.camera("back")["renditions"], 5, "nothing is made for others")
    assert service.get("/snapshot?quality=99").status == 200
    api = psutil.Process(service.process.pid)
    pixels = next(child for child in api.children() if "camdock.pixelsworker" in child.cmdline())
    pixels.suspend()
    answer = service.get("/snapshot?quality=98", timeout_s=15)
    assert answer.status == 503
    assert answer.json()["code"] == "source_stalled"
    assert service.get("/snapshot?quality=98", timeout_s=15).status == 200
    gone.touch()
    service.until_state("offline", "back")
    until(lambda: service.get("/cameras/back/snapshot?allow_offline=1").status == 200, 5, "and notices are drawn")
    gone.unlink()


def test_a_viewer_without_a_stream_does_not_wake_a_camera(resting: Service) -> None:
    service = resting
    until_idle(service)
    for path in ("/cameras", "/health", "/metrics", "/state", "/cameras/camera/settings", "/"):
        assert service.get(path).status == 200
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
    connection.request("GET", "/stream?width=none")
    assert connection.getresponse().status == 422
    connection.close()
    assert service.camera()["state"] == "idle"
    assert service.ask("PUT", "/cameras/camera/settings", {"gain": 2.0}).status == 200
    assert service.get("/snapshot").status == 200
    assert service.camera()["settings"]["applied"]["gain"] == 2.0, "what was asked while it rested"
