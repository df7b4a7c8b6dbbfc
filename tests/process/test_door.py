"""The door: what a client may do with its connection, on uvloop and on asyncio's own loop."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.tools.raw import (
    connect,
    loop_of,
    open_files,
    read_all,
    read_answer,
    request,
    reset,
    until_nobody_looks,
    viewer,
)
from tests.tools.service import Service, Viewer, until

STREAM = request("/stream")
HEALTH = request("/health/live")
GARBAGE = b"\0\1\2 no HTTP at all \xff\xfe\r\n\r\n" * 20


def running(folder: Path, loop: str, sources: str) -> Service:
    """A service on one of the two loops; asyncio's own where uvloop does not load."""
    environment = {"CAMDOCK_SOURCES": sources, "CAMDOCK_LOG_LEVEL": "debug"}
    if loop == "asyncio":
        stub = folder / "stub" / "uvloop"
        stub.mkdir(parents=True)
        (stub / "__init__.py").write_text("raise ImportError('hidden by the test')\n")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(stub.parent), os.environ.get("PYTHONPATH"))))
    return Service(environment, folder)


@pytest.fixture(scope="module", params=["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def loop(request: pytest.FixtureRequest) -> str:
    """Which event loop."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture(scope="module", params=["door service"])
def quick(loop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service: `camera` has 25 pictures a second, `slow` one every two seconds."""
    sources = "camera=synthetic:?size=320x240&fps=25 slow=synthetic:?size=320x240&fps=0.5"
    with running(tmp_path_factory.mktemp("quick"), loop, sources) as service:
        service.until_state("live")
        service.until_state("live", "slow")
        yield service


@pytest.fixture
def service(quick: Service) -> Iterator[Service]:
    """That service; whatever the test does, nothing stays open behind it and no traceback is logged."""
    files = open_files(quick)
    yield quick
    until_nobody_looks(quick, files)
    assert "Traceback" not in quick.log, quick.log[-4000:]


def test_the_loop_is_the_one_we_mean_to_test(quick: Service, loop: str) -> None:
    assert loop_of(quick) == loop


def test_a_stream_is_bare_parts_without_chunks(service: Service) -> None:
    with connect(service.port, STREAM) as client:
        data = b""
        while data.count(b"--boundarydonotcross\r\n") < 3:
            data += client.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"content-length" not in head.lower()
    assert b"\r\nconnection: close" in head.lower()
    assert b"boundary=boundarydonotcross" in head
    assert body.startswith(b"--boundarydonotcross\r\nContent-Type: image/jpeg\r\nContent-Length: ")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request("/stream", "Connection: keep-alive"), id="keep-alive"),
        pytest.param(request("/stream", version="1.0"), id="HTTP/1.0"),
        pytest.param(request("/stream", "Connection: keep-alive", version="1.0"), id="HTTP/1.0 keep-alive"),
        pytest.param(request("/stream", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), id="upgrade to h2c"),
        pytest.param(request("/stream", "Connection: Upgrade", "Upgrade: websocket"), id="upgrade to WebSocket"),
        pytest.param(request("/stream", "Content-Length: 5", body=b"hello"), id="with a body"),
        pytest.param(request("/stream", "Content-Length: 500000", body=b"hello"), id="with a body that never comes"),
        pytest.param(
            request("/stream", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), id="with chunks"
        ),
        pytest.param(b"\r\n\r\n" + STREAM, id="behind empty lines"),
        pytest.param(HEALTH + STREAM, id="behind another request"),
    ],
)
def test_however_it_is_asked_for_a_stream_is_a_stream(service: Service, data: bytes) -> None:
    with connect(service.port, data) as client:
        if data.startswith(HEALTH):
            status, _, _ = read_answer_exactly(client)
            assert status == 200
        with Viewer.on(client) as viewing:
            assert viewing.headers["connection"] == "close"
            assert len(viewing.take(5)) == 5


def read_answer_exactly(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """read_answer, but nothing of what stands behind the answer is taken."""
    until(lambda: b"\r\n\r\n" in client.recv(1 << 16, socket.MSG_PEEK), 5, "a whole head came")
    seen = client.recv(1 << 16, socket.MSG_PEEK)
    head, _, _ = seen.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    whole = b""
    while len(whole) < len(head) + 4 + length:
        whole += client.recv(len(head) + 4 + length - len(whole))
    return int(head.split()[1]), {}, whole[len(head) + 4 :]


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(HEALTH, id="one"),
        pytest.param(STREAM, id="another stream"),
        pytest.param(HEALTH * 3000, id="many"),
        pytest.param(request("/cameras/camera/settings", "Content-Length: 9", method="PUT"), id="half"),
        pytest.param(GARBAGE, id="garbage"),
        pytest.param(HEALTH + GARBAGE, id="a request and garbage"),
    ],
)
@pytest.mark.parametrize("when", ["in the same segment", "later"])
def test_what_stands_behind_a_stream_s_request_is_harmless(service: Service, behind: bytes, when: str) -> None:
    with viewer(service.port, STREAM + behind if when == "in the same segment" else STREAM) as viewing:
        if when == "later":
            assert len(viewing.take(2)) == 2
            viewing.socket.sendall(behind)
            assert len(viewing.take(2)) == 2
            viewing.socket.sendall(behind)
        # What has been answered to the rest would stand between two pictures, and the strict viewer would fail.
        assert len(viewing.take(10)) == 10


def test_garbage_behind_a_request_does_not_cost_its_answer(service: Service) -> None:
    with connect(service.port, request("/health/live") + GARBAGE) as client:
        assert read_answer(client)[0] == 200
        assert read_all(client) == b""


def test_garbage_alone_is_refused(service: Service) -> None:
    with connect(service.port, GARBAGE) as client:
        assert read_all(client).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_resets_behind_pipelined_requests_leaves_nothing(service: Service) -> None:
    for _ in range(20):
        reset(connect(service.port, STREAM + STREAM + HEALTH))
        reset(connect(service.port, request("/snapshot") + request("/snapshot") + STREAM))


def test_a_client_that_ends_its_half_gets_its_answer(service: Service) -> None:
    with connect(service.port, request("/health")) as client:
        client.shutdown(socket.SHUT_WR)
        status, _, body = read_answer(client)
        assert status == 200
        assert b'"healthy"' in body
        began = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - began < 4, "closed by the keep-alive time-out, not by us"


def test_a_client_that_ends_its_half_gets_an_answer_that_takes_long(service: Service) -> None:
    # A snapshot waits for the next picture when the newest is older than 0.3 s.
    until(lambda: 0.4 < service.camera("slow")["age_s"] < 1.5, 8, "a picture that is not fresh")
    with connect(service.port, request("/cameras/slow/snapshot")) as client:
        client.shutdown(socket.SHUT_WR)
        status, _, body = read_answer(client)
        assert (status, body[:2]) == (200, b"\xff\xd8")
        began = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - began < 4


def test_a_viewer_that_ends_its_half_gets_pictures(service: Service) -> None:
    with connect(service.port, STREAM) as client:
        client.shutdown(socket.SHUT_WR)
        with Viewer.on(client) as viewing:
            assert len(viewing.take(10)) == 10
            assert service.camera()["viewers"] == 1


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(b"GET /hea", id="head"),
        pytest.param(request("/cameras/camera/settings", "Content-Length: 99", method="PUT", body=b'{"ga'), id="body"),
    ],
)
def test_half_a_request_is_not_waited_for_when_its_client_ended(service: Service, half: bytes) -> None:
    with connect(service.port, half) as client:
        client.shutdown(socket.SHUT_WR)
        read_all(client)  # times out where the service waits for the rest


def test_a_head_may_come_byte_by_byte(service: Service) -> None:
    with connect(service.port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in STREAM:
            client.sendall(bytes([byte]))
        with Viewer.on(client) as viewing:
            assert len(viewing.take(3)) == 3


def test_a_head_that_does_not_end_is_refused(service: Service) -> None:
    with connect(service.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ") as client:
        try:
            for _ in range(64):
                client.sendall(b"x" * (1 << 16))
        except OSError:
            return  # closed while we sent: refused
        assert read_all(client)[:12] in (b"", b"HTTP/1.1 400")


def send_all(client: socket.socket, data: bytes) -> None:
    """Send it, or give up when the connection ends."""
    with contextlib.suppress(OSError):
        client.sendall(data)


@pytest.mark.parametrize("head", [STREAM, STREAM + HEALTH], ids=["a request", "two requests"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(bytes(1 << 20), id="zeros"),
        pytest.param(HEALTH * ((1 << 20) // len(HEALTH)), id="requests", marks=pytest.mark.slow),
    ],
)
def test_a_viewer_that_sends_megabytes_gets_its_pictures_and_costs_no_memory(
    service: Service, head: bytes, sent: bytes
) -> None:
    process = psutil.Process(service.process.pid)
    with viewer(service.port, head) as viewing:
        viewing.take(2)
        before = process.memory_info().rss
        sending = threading.Thread(target=send_all, args=(viewing.socket, sent * 32))
        sending.start()
        pictures = viewing.take(20)
        sending.join(8)
        stuck = sending.is_alive()
        if stuck:
            viewing.socket.shutdown(socket.SHUT_RDWR)
            sending.join()
        assert not stuck, "what the viewer sends is not read"
        assert len(pictures) == 20
        assert len(viewing.take(5)) == 5
        assert process.memory_info().rss - before < 12 << 20


def test_head_of_a_stream_ends_at_once_and_says_what_is_allowed(service: Service) -> None:
    # 405, as for every address: a stream has no length to tell, and what asks before it looks takes GET.
    with connect(service.port, request("/stream", method="HEAD") + HEALTH) as client:
        data = b""
        while b"alive" not in data:
            more = client.recv(1 << 16)
            assert more, data
            data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: GET" in head
    assert rest.startswith(b"HTTP/1.1 200 "), "the answer to HEAD has no body"


def test_viewers_that_leave_abruptly_leave_nothing(service: Service) -> None:
    clients = [connect(service.port, STREAM) for _ in range(20)]
    for client in clients:
        client.recv(1000)
    assert service.camera()["viewers"] == 20
    for client in clients:
        reset(client)


def test_the_first_picture_comes_at_once(service: Service) -> None:
    for _ in range(3):
        began = time.monotonic()
        with service.stream("/cameras/slow/stream") as viewing:
            assert len(viewing.take(1)) == 1
        assert time.monotonic() - began < 1, "waited for the next one, which comes every 2 s"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_stream_of_so_many_frames_ends_with_the_closing_delimiter(service: Service, count: int) -> None:
    with service.stream(f"/stream?frames={count}") as viewing:
        assert len(viewing.take(100)) == count
        assert viewing.ended
        assert viewing.file.read() == b""


@pytest.mark.parametrize("query", ["action=stream", "action=stream&timestamp=1765", "dummy=1&action=stream"])
def test_mjpg_streamers_stream(service: Service, query: str) -> None:
    with service.stream(f"/?{query}") as viewing:
        assert len(viewing.take(3)) == 3


def test_mjpg_streamers_stream_with_frames(service: Service) -> None:
    with service.stream("/?action=stream&frames=2") as viewing:
        assert len(viewing.take(100)) == 2


@pytest.mark.parametrize("query", ["action=snapshot", "action=snapshot&timestamp=1765", "action=snapshot&n=1&_=2"])
def test_mjpg_streamers_snapshot(service: Service, query: str) -> None:
    answer = service.get(f"/?{query}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.body.startswith(b"\xff\xd8")
    assert answer.body.endswith(b"\xff\xd9")


@pytest.mark.parametrize("query", ["action=command", "action=", "action=STREAM", "action=%00%ff"])
def test_an_unknown_action_is_a_problem(service: Service, query: str) -> None:
    answer = service.get(f"/?{query}")
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "stream and snapshot" in answer.json()["hint"]
