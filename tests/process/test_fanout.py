"""Many viewers, slow ones, stuck ones, and the end of the service while they look."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import selectors
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from camdock.sender import SHARED_FROM
from tests.process.conftest import StartService
from tests.tools.raw import connect, open_files, request, reset, until_nobody_looks
from tests.tools.service import Picture, Service, Viewer, until
from tests.tools.upstream import moving, swollen, upstream

STREAM = request("/stream")
PIXELS_PROCESS = 4  # descriptors of the API process that it takes: orders, frames, log, the process itself
TIMEOUT_S = 1  # CAMDOCK_SEND_TIMEOUT_S


class Watching:
    """A viewer in a thread of its own; `pace_s` is how long it looks at every picture."""

    def __init__(self, viewer: Viewer, pace_s: float = 0) -> None:
        self.pictures: list[Picture] = []
        self.ages: list[float] = []
        self.failed: list[BaseException] = []
        self.over = threading.Event()
        self._viewer = viewer
        self._pace_s = pace_s
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for picture in self._viewer:
                self.ages.append(time.time() - float(picture.headers["x-timestamp"]))
                self.pictures.append(picture)
                if self.over.wait(self._pace_s):
                    return
        except (AssertionError, OSError) as error:
            self.failed.append(error)

    @property
    def stamps(self) -> list[float]:
        """When its pictures were taken."""
        return [float(picture.headers["x-timestamp"]) for picture in self.pictures]

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join(10)
        self._viewer.close()


@contextlib.contextmanager
def stuck(service: Service, path: str = "/stream") -> Iterator[socket.socket]:
    """A viewer that never reads, with little room."""
    with connect(service.port, request(path), receive_buffer=4096) as client:
        yield client


def memory_files(service: Service) -> int:
    """How many parts the service keeps as files in memory."""
    names = [os.readlink(link) for link in Path(f"/proc/{service.process.pid}/fd").iterdir() if link.is_symlink()]
    return sum("memfd:part" in name for name in names)


def stuck_viewers(service: Service) -> int:
    """How many the service dropped, as its metrics say."""
    lines = service.get("/metrics").body.decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith("camdock_stuck_viewers_total "))


@pytest.fixture(scope="module", params=["impatient service"])
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that waits for `TIMEOUT_S` for a viewer."""
    environment = {"CAMDOCK_SOURCE": "synthetic:?size=640x480&fps=30", "CAMDOCK_SEND_TIMEOUT_S": str(TIMEOUT_S)}
    with Service(environment, tmp_path_factory.mktemp("impatient")) as service:
        service.until_state("live")
        yield service
        assert "Traceback" not in service.log, service.log[-4000:]


@pytest.fixture(scope="module", params=["patient service"])
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with large pictures that waits for a viewer for a minute."""
    environment = {"CAMDOCK_SOURCE": "synthetic:?size=1280x720&fps=15", "CAMDOCK_SEND_TIMEOUT_S": "60"}
    with Service(environment, tmp_path_factory.mktemp("patient")) as service:
        service.until_state("live")
        yield service
        assert "Traceback" not in service.log, service.log[-4000:]


def test_a_stuck_viewer_does_not_slow_the_others_and_is_dropped(impatient: Service) -> None:
    service = impatient
    dropped = stuck_viewers(service)
    reader = connect(service.port, STREAM, receive_buffer=8192)
    with Watching(service.stream()) as good, Watching(Viewer.on(reader), pace_s=TIMEOUT_S * 0.4) as slow:
        until(lambda: len(good.pictures) > 10, 10, "pictures")
        with stuck(service):
            began = time.monotonic()
            seq = service.camera()["seq"]
            seen = len(good.pictures)
            until(lambda: stuck_viewers(service) > dropped, TIMEOUT_S + 4, "the stuck viewer is dropped")
            assert time.monotonic() - began > TIMEOUT_S * 0.8, "dropped before its time"
            made = service.camera()["seq"] - seq
            assert len(good.pictures) - seen > made * 0.8, "the good viewer lost pictures"
        # The slow one takes its time over every picture, but it does read.
        until(lambda: len(slow.pictures) >= 6, 20, "the slow viewer is kept")
        assert stuck_viewers(service) == dropped + 1
        assert service.camera()["viewers"] == 2
        assert good.failed == slow.failed == []
        gaps = [later - earlier for earlier, later in zip(good.stamps, good.stamps[1:], strict=False)]
        assert min(gaps) > 0, "out of order, or twice"
        assert max(gaps) < 1, "it stood still"


def test_the_time_out_counts_from_the_last_time_there_was_room(impatient: Service) -> None:
    service = impatient
    dropped = stuck_viewers(service)
    with connect(service.port, STREAM, receive_buffer=4096) as client, Viewer.on(client) as viewing:
        began = time.monotonic()
        while time.monotonic() - began < TIMEOUT_S * 2:  # longer than the time-out
            assert viewing.take(1)
        stopped = time.monotonic()
        assert stuck_viewers(service) == dropped, "counted from when it came"
        until(lambda: stuck_viewers(service) > dropped, TIMEOUT_S + 4, "the stuck viewer is dropped")
        assert time.monotonic() - stopped > TIMEOUT_S * 0.7, "counted from when it came"


@pytest.fixture
def large() -> Iterator[str]:
    """A source of pictures that no kernel buffer holds: 8 MB each, one a second."""
    over = threading.Event()
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(picture, "JPEG")
    with upstream(moving(swollen(picture.getvalue(), 8 << 20), 1, over)) as port:
        yield f"relay:http://127.0.0.1:{port}/"
        over.set()


@pytest.mark.slow
def test_a_viewer_stuck_in_its_last_picture_is_dropped_too(start: StartService, large: str) -> None:
    service = start(large, CAMDOCK_SEND_TIMEOUT_S=str(TIMEOUT_S))
    service.until_state("live")
    files = open_files(service)
    with stuck(service, "/stream?frames=1"):
        until(lambda: service.camera()["viewers"] == 1, 5, "it looks")
        until(lambda: stuck_viewers(service), TIMEOUT_S + 6, "it is dropped")
        until_nobody_looks(service, files)


@pytest.mark.slow  # its reader must be let read all the while
def test_a_viewer_that_takes_long_over_one_picture_is_kept(start: StartService, large: str) -> None:
    service = start(large, CAMDOCK_SEND_TIMEOUT_S=str(TIMEOUT_S))
    service.until_state("live")
    with connect(service.port, request("/stream?frames=1"), receive_buffer=1 << 16) as client:
        taken = 0
        began = time.monotonic()
        # 8 MB at 2 MB a second at most.
        while more := client.recv(1 << 16):
            taken += len(more)
            pace = began + taken / (2 << 20) - time.monotonic()
            if pace > 0:
                time.sleep(pace)
        assert time.monotonic() - began > TIMEOUT_S * 3
    assert taken > 8 << 20, "dropped in mid-picture though it was reading"
    assert stuck_viewers(service) == 0


def test_a_slow_viewer_gets_the_newest_pictures_in_order(patient: Service) -> None:
    service = patient
    seq = service.camera()["seq"]
    with Watching(service.stream(), pace_s=0.2) as slow:
        until(lambda: len(slow.pictures) >= 25, 20, "25 pictures at 5 a second")
    made = service.camera()["seq"] - seq
    assert slow.failed == []
    assert slow.stamps == sorted(set(slow.stamps)), "out of order, or twice"
    assert len(slow.pictures) < made * 0.6, "nothing was skipped"
    # Two or three pictures fit what its own kernel takes. Megabytes fit ours, seconds of them: has_room() sees to that.
    late = slow.ages[len(slow.ages) // 2 :]
    assert statistics.median(late) < 2, f"old pictures: {[round(age, 2) for age in slow.ages]}"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_fifty_streams_do_not_hold_up_the_end(start: StartService, number: signal.Signals) -> None:
    service = start("synthetic:?size=1920x1080&fps=15")
    service.until_state("live")
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(service.stream()) for _ in range(48)]
        for viewing in viewers:
            assert viewing.take(1)
        stack.enter_context(stuck(service))
        half = stack.enter_context(connect(service.port, STREAM))
        half.shutdown(socket.SHUT_WR)
        idle = stack.enter_context(connect(service.port))
        until(lambda: service.camera()["viewers"] == 50, 5, "all look")
        worker = service.worker()
        began = time.monotonic()
        service.signal(number)
        status = service.process.wait(10)
        took = time.monotonic() - began
        for viewing in viewers:
            with contextlib.suppress(ConnectionResetError):
                while viewing.file.read(1 << 16):
                    pass
        idle.recv(1)
    assert took < 3, f"{took:.1f} s; log:\n{service.log}"
    assert status == 0
    assert "Traceback" not in service.log, service.log
    assert "ERROR" not in service.log, service.log
    assert not worker.is_running()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for a few thousand sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_hundreds_of_viewers_all_get_pictures(start: StartService, count: int) -> None:
    service = start("synthetic:?size=160x120&fps=10")
    service.until_state("live")
    files = open_files(service)
    delimiter = b"\r\n--boundarydonotcross\r\n"
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        got: dict[int, int] = {}
        tails: dict[int, bytes] = {}
        for _ in range(count):
            client = stack.enter_context(connect(service.port, STREAM))
            client.setblocking(False)
            got[client.fileno()] = 0
            tails[client.fileno()] = b""
            selector.register(client, selectors.EVENT_READ)
        due = time.monotonic() + 30
        while min(got.values()) < 4:
            assert time.monotonic() < due, f"{sum(seen < 4 for seen in got.values())} viewers without 4 pictures"
            for key, _ in selector.select(1):
                more = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                assert more, "a viewer was dropped"
                data = tails[key.fd] + more
                got[key.fd] += data.count(delimiter)
                tails[key.fd] = data[-len(delimiter) + 1 :]
        assert service.camera()["viewers"] == count
        assert service.get("/health/live", timeout_s=5).status == 200
        assert service.get("/snapshot?width=64", timeout_s=10).status == 200
        api = psutil.Process(service.process.pid)
        mapped = {Path(one.path).name for one in api.memory_maps()}
        assert not [name for name in mapped if re.match(r"(_multiarray|cv2|libopenblas|_simplejpeg|_imaging)", name)]
        assert api.memory_info().rss < 100e6, f"{api.memory_info().rss / 1e6:.0f} MB with {count} viewers"
    until_nobody_looks(service, files + PIXELS_PROCESS, 20)
    assert stuck_viewers(service) == 0
    assert "Traceback" not in service.log, service.log[-4000:]
    assert os.path.isdir(f"/proc/{service.process.pid}")


def test_many_viewers_get_the_same_bytes(impatient: Service) -> None:
    """So many that they share one file in memory."""
    service = impatient
    files = open_files(service)
    parts: dict[str, set[bytes]] = {}
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(Viewer.on(connect(service.port, STREAM))) for _ in range(SHARED_FROM + 2)]
        until(lambda: service.camera()["viewers"] == len(viewers), 5, "all look")
        until(lambda: memory_files(service) == 1, 5, "they share a file")
        for _ in range(3):
            for viewing in viewers:
                for picture in viewing.take(3):
                    Image.open(io.BytesIO(picture.jpeg)).load()
                    parts.setdefault(picture.headers["x-seq"], set()).add(picture.jpeg)
    assert [seq for seq, different in parts.items() if len(different) > 1] == []
    until_nobody_looks(service, files)
    assert memory_files(service) == 0


def test_a_viewer_that_ended_its_half_and_then_vanished_is_not_kept_until_the_time_out(patient: Service) -> None:
    service = patient
    until(lambda: service.camera()["viewers"] == 0, 5, "nobody else looks")
    client = connect(service.port, request("/stream"))
    client.shutdown(socket.SHUT_WR)
    until(lambda: service.camera()["viewers"] == 1, 5, "it looks")
    seq = service.camera()["seq"]
    until(lambda: service.camera()["seq"] > seq + 20, 10, "pictures fill its buffers, for it reads none")
    reset(client)
    until(lambda: service.camera()["viewers"] == 0, 5, "it is gone")
