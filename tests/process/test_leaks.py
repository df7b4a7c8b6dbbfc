"""Viewers come and go by the thousand, most of them badly; nothing of them stays."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.process.conftest import StartService
from tests.tools.raw import connect, open_files, read_all, read_answer, request, reset, until_nobody_looks
from tests.tools.service import until

FULL = 10_000
WARM = 2_000  # of the full run: by then every cache and every allocator has what it needs
AT_ONCE = 16
GROWTH = 6 << 20  # one forgotten object per visit is 9 MB

STREAM = request("/stream")
SNAPSHOT = request("/snapshot")
HEALTH = request("/health")


def leaves_at_once(port: int) -> None:
    connect(port, STREAM).close()


def says_nothing(port: int) -> None:
    connect(port).close()


def leaves_in_the_head(port: int) -> None:
    connect(port, STREAM[:20]).close()


def leaves_behind_the_first_picture(port: int) -> None:
    with connect(port, STREAM) as client:
        data = b""
        while data.count(b"--boundarydonotcross\r\n") < 2:
            more = client.recv(1 << 16)
            assert more, data
            data += more


def leaves_in_mid_picture(port: int) -> None:
    with connect(port, STREAM) as client:
        assert client.recv(700)


def resets_at_once(port: int) -> None:
    reset(connect(port, STREAM))


def resets_in_mid_picture(port: int) -> None:
    client = connect(port, STREAM)
    assert client.recv(700)
    reset(client)


def pipelines(port: int) -> None:
    with connect(port, STREAM + HEALTH + STREAM) as client:
        assert client.recv(700)


def pipelines_and_resets(port: int) -> None:
    reset(connect(port, STREAM + SNAPSHOT + STREAM))


def sends_garbage(port: int) -> None:
    with connect(port, STREAM + b"\0\1\2garbage\r\n\r\n") as client:
        assert client.recv(700)


def stays_to_the_end(port: int) -> None:
    with connect(port, request("/stream?frames=1")) as client:
        assert read_all(client).endswith(b"--boundarydonotcross--\r\n")


def takes_a_snapshot(port: int) -> None:
    with connect(port, SNAPSHOT) as client:
        status, _, body = read_answer(client)
        assert (status, body[-2:]) == (200, b"\xff\xd9")


def leaves_before_its_snapshot(port: int) -> None:
    reset(connect(port, SNAPSHOT))


def asks_for_health(port: int) -> None:
    with connect(port, HEALTH) as client:
        assert read_answer(client)[0] == 200


VISITORS: tuple[Callable[[int], None], ...] = (
    leaves_at_once,
    leaves_behind_the_first_picture,
    resets_at_once,
    leaves_in_mid_picture,
    pipelines,
    resets_in_mid_picture,
    pipelines_and_resets,
    stays_to_the_end,
    takes_a_snapshot,
    sends_garbage,
    leaves_before_its_snapshot,
    asks_for_health,
    leaves_in_the_head,
    says_nothing,
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("visits", [140, pytest.param(FULL, marks=pytest.mark.slow)])
def test_visits_leave_nothing(start: StartService, visits: int) -> None:
    service = start("synthetic:?size=160x120&fps=30")
    service.until_state("live")
    for visit in VISITORS:
        visit(service.port)
    process = psutil.Process(service.process.pid)
    until_nobody_looks(service, open_files(service))

    def facts() -> dict[str, object]:
        return {
            "threads": process.num_threads(),
            "children": sorted(child.pid for child in process.children(recursive=True)),
            "viewers": service.camera()["viewers"],
            "sockets": Counter(connection.status for connection in process.net_connections("tcp")),
        }

    files, before = open_files(service), facts()
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def visit(count: int) -> None:
            for _ in pool.map(
                lambda visitor: visitor(service.port), itertools.islice(itertools.cycle(VISITORS), count)
            ):
                pass
            until_nobody_looks(service, files, 20)

        visit(min(WARM, visits))
        warm = process.memory_info().rss
        visit(max(0, visits - WARM))  # the short run tells nothing of memory: its growth is the allocator's
    took = time.monotonic() - began
    grown = process.memory_info().rss - warm
    until(lambda: facts() == before, 10, lambda: f"{facts()}, before: {before}")
    assert open_files(service) <= files
    assert grown < GROWTH, f"{grown / 1e6:.1f} MB more than behind visit {WARM}"
    assert took < 60, f"{took:.0f} s"
    assert "Traceback" not in service.log, service.log[-4000:]
    with service.stream() as viewer:
        assert len(viewer.take(5)) == 5
