"""gunicorn with uvicorn's worker class: several processes without a device, one with it, and a reload of that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from camdock.frame import jpeg_size
from tests.tools.service import ABI_CACHE, Asked, free_port, until

pytestmark = pytest.mark.slow  # each is two services and more

BOOT_ERROR = 3


class Gunicorn(Asked):
    """`gunicorn camdock.asgi:app` on a free port."""

    def __init__(self, folder: Path, source: str, *arguments: str, bind: str = "127.0.0.1", **environment: str) -> None:
        self.port = free_port()
        self.log_path = folder / f"gunicorn-{self.port}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CAMDOCK_") and k != "WEB_CONCURRENCY"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn",
                 "--bind", f"{bind}:{self.port}",
                 "--worker-class", "uvicorn.workers.UvicornWorker", "--graceful-timeout", "2", *arguments,
                 "camdock.asgi:app"],
                env={**inherited, "CAMDOCK_SOURCE": source, "CAMDOCK_STATE_DIR": str(folder / "state"),
                     "CAMDOCK_ABI_CACHE": str(ABI_CACHE), **environment},
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def workers(self) -> set[int]:
        """The server processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            return {one.pid for one in children if "gunicorn" in " ".join(one.cmdline())}
        return set()

    def until_logged(self, text: str, count: int = 1) -> None:
        """Wait until it said so, so often."""
        until(lambda: self.log.count(text) >= count, 30, lambda: f"{text!r} in its log:\n{self.log}")


@contextmanager
def gunicorn(
    folder: Path, source: str, *arguments: str, bind: str = "127.0.0.1", **environment: str
) -> Iterator[Gunicorn]:
    """A running one, ended behind the test."""
    server = Gunicorn(folder, source, *arguments, bind=bind, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
        server.process.wait(15)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("--workers", "2"), {}), ((), {"WEB_CONCURRENCY": "2"}), (("--workers", "2", "--preload"), {})],
    ids=["--workers", "WEB_CONCURRENCY", "--preload"],
)
def test_a_second_process_for_a_device_is_refused_with_the_reason_and_the_server_ends(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    with gunicorn(tmp_path, "v4l2:/dev/video9", *arguments, **environment) as server:
        assert server.process.wait(30) == BOOT_ERROR, server.log
    assert "more than one process, and v4l2:/dev/video9 can be held by one only" in server.log
    assert "--workers 1" in server.log
    assert "Traceback" not in server.log


def test_without_a_device_there_may_be_several(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "synthetic:", "--workers", "2") as server:
        server.until_logged("camera: live", 2)
        assert server.get("/health/ready").status == 200
        assert server.ask("POST", "/images/process?camera=camera").body[:2] == b"\xff\xd8"


def test_a_websocket_is_served_as_any_other_server_does_it(tmp_path: Path) -> None:
    """uvicorn's own protocol class has no door: the pictures go through ASGI."""
    with gunicorn(tmp_path, "synthetic:?size=320x240&fps=20", CAMDOCK_TOKEN="hunter2hunter2") as server:
        server.until_logged("camera: live")
        may = {"Authorization": "Bearer hunter2hunter2"}
        address = f"ws://127.0.0.1:{server.port}/ws"
        with pytest.raises(InvalidStatus) as refused:
            connect(address)
        assert refused.value.response.status_code in (401, 403)  # the bare 403 where a server has no words for it
        with connect(address, additional_headers=may) as viewer:
            said = [viewer.recv(timeout=10) for _ in range(6)]
        states = [json.loads(one)["state"] for one in said if isinstance(one, str)]
        pictures = {one for one in said if isinstance(one, bytes)}
        assert states == ["live"]
        assert len(pictures) == 5
        assert {jpeg_size(one) for one in pictures} == {(320, 240)}
        until(lambda: server.get("/cameras/camera", may).json()["viewers"] == 0, 10, "nobody looks any more")


def test_a_reload_hands_the_device_on(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "v4l2:/dev/video9", "--workers", "1") as server:
        server.until_logged("camera: source v4l2:/dev/video9")
        before = server.workers()
        assert len(before) == 1
        server.process.send_signal(signal.SIGHUP)
        server.until_logged("camera: source v4l2:/dev/video9", 2)
        until(lambda: len(server.workers()) == 1 and server.workers() != before, 15, lambda: server.log)
        assert server.get("/health/live").status == 200
        assert server.process.poll() is None


def test_without_a_token_it_is_open_to_this_machine_alone_wherever_it_listens(tmp_path: Path) -> None:
    addresses = [one.address for each in psutil.net_if_addrs().values() for one in each if one.family == socket.AF_INET]
    elsewhere = next(one for one in addresses if not one.startswith("127."))
    with gunicorn(tmp_path, "synthetic:", bind="0.0.0.0") as server:
        server.until_logged("camera: live")
        assert server.get("/snapshot").status == 200
        url = f"http://{elsewhere}:{server.port}"
        for path, status in (("/snapshot", 401), ("/health", 200)):
            # No Host of its own: with that one it would be misdirected, which whoever means harm avoids.
            assert httpx.get(url + path, headers={"Host": "localhost"}).status_code == status, path
