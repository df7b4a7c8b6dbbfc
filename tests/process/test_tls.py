"""https without a proxy: real certificates, real clients."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from camdock.sender import SHARED_FROM
from tests.tools import certificate, raw
from tests.tools.service import Service, Viewer, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=["https service"])
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that speaks https alone."""
    made = certificate.shared()
    environment = {
        "CAMDOCK_SOURCE": "synthetic:?size=1280x720&fps=10",
        "CAMDOCK_TLS_CERT": str(made.cert),
        "CAMDOCK_TLS_KEY": str(made.key),
        "CAMDOCK_SEND_TIMEOUT_S": "1",
    }
    with Service(environment, tmp_path_factory.mktemp("https"), tls=made.client()) as running:
        running.until_state("live")
        yield running
        assert "Traceback" not in running.log, running.log[-4000:]
        assert "WARNING" not in running.log, running.log[-4000:]


def secured(service: Service, data: bytes = b"", receive_buffer: int | None = None) -> ssl.SSLSocket:
    plain = raw.connect(service.port, receive_buffer=receive_buffer)
    client = certificate.shared().client().wrap_socket(plain, server_hostname="localhost")
    client.sendall(data)
    return client


def test_a_stream_is_whole_and_ends_in_good_order(service: Service) -> None:
    with Viewer.on(secured(service, raw.request("/stream?frames=10"))) as viewer:
        assert len(viewer.take(20)) == 10
        assert viewer.ended
        assert viewer.socket.recv(10) == b""


def test_many_viewers_get_whole_pictures(service: Service) -> None:
    """As many as share one file without TLS; what goes to a socket past TLS would break the connection."""
    with contextlib.ExitStack() as stack:
        request = raw.request("/stream?width=320")
        viewers = [stack.enter_context(Viewer.on(secured(service, request))) for _ in range(SHARED_FROM + 2)]
        until(lambda: service.camera()["viewers"] == len(viewers), 5, "all look")
        for viewing in viewers:
            assert len(viewing.take(5)) == 5
        for viewing in viewers:
            assert len(viewing.take(5)) == 5


def test_a_slow_viewer_sees_fresh_pictures(service: Service) -> None:
    with secured(service, raw.request("/stream"), receive_buffer=8192) as client:
        ages, data, due = [], b"", time.monotonic() + 3
        while time.monotonic() < due:
            data += client.recv(16384)
            time.sleep(0.02)
            _, found, rest = data.rpartition(b"X-Timestamp: ")
            if found and b"\r\n" in rest:
                ages.append(time.time() - float(rest.partition(b"\r\n")[0]))
                data = b""
    assert len(ages) > 5
    assert sorted(ages)[len(ages) // 2] < 0.5


def test_a_viewer_that_takes_nothing_is_dropped(service: Service) -> None:
    with secured(service, raw.request("/stream"), receive_buffer=4096):
        until(lambda: service.camera()["viewers"] == 1, 5, "it is a viewer")
        until(lambda: service.camera()["viewers"] == 0, 8, "it was dropped")


def test_a_websocket_and_the_login_are_secure_too(service: Service) -> None:
    with connect(f"wss://localhost:{service.port}/ws", ssl=service.tls, max_size=None) as viewer:
        assert '"live"' in str(viewer.recv(timeout=10))
        assert bytes(viewer.recv(timeout=10))[:2] == b"\xff\xd8"  # type: ignore[arg-type]


def test_plain_http_and_nonsense_get_no_answer_and_do_no_harm(service: Service) -> None:
    for data in (raw.request("/health"), b"\x16\x03\x01" + b"\xff" * 300, b""):
        with socket.create_connection(("127.0.0.1", service.port), 10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert b"200" not in raw.read_all(client)
    assert service.get("/health/live").status == 200
    assert f"https://127.0.0.1:{service.port}" in service.log


def test_the_images_health_check_asks_over_https(service: Service) -> None:
    environment = {**os.environ, **service.environment, "CAMDOCK_PORT": str(service.port)}
    command = [sys.executable, str(ROOT / "docker" / "image" / "health.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "healthy; camera connected\n")


def test_a_certificate_that_cannot_be_used_is_said_and_nothing_is_started(tmp_path: Path) -> None:
    other = certificate.make(tmp_path)
    made = certificate.shared()
    environment = {**os.environ, "CAMDOCK_TLS_CERT": str(made.cert), "CAMDOCK_TLS_KEY": str(other.key)}
    command = [sys.executable, "-m", "camdock", "synthetic:"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert f"camdock: CAMDOCK_TLS_KEY={other.key} is not the key of" in done.stderr
