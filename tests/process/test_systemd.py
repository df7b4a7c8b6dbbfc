"""The service as systemd starts it: notified over a real socket, watched, with its token in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from tests.tools.service import Service, until

TOKEN = "t0ken-from-a-file"
PING_EVERY_S = 0.05


@dataclass
class Notified(Service):
    """A service that counts as started when it said so itself."""

    listener: socket.socket = field(kw_only=True)
    said: list[str] = field(default_factory=list, kw_only=True)

    def hear(self) -> list[str]:
        """All that it has said since the start, as lines."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said += self.listener.recv(4096).decode().split("\n")
        return self.said

    def _answers(self) -> bool:
        if self.process.poll() is None and "READY=1" not in self.hear():
            return False
        assert super()._answers(), "it says that it serves, and does not"
        return True


@pytest.fixture(scope="module", params=["notified service"])
def notified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notified]:
    folder = tmp_path_factory.mktemp("notified")
    (folder / "token").write_text(f" {TOKEN} \nnot this line\n")
    (folder / "gone").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        listener.setblocking(False)
        environment = {
            "CAMDOCK_SOURCES": f"front=synthetic: nest=synthetic:?gone={folder / 'gone'}",
            "CAMDOCK_HOST": "0.0.0.0",
            "CAMDOCK_TOKEN_FILE": str(folder / "token"),
            "CAMDOCK_LOG_LEVEL": "debug",
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(2e6 * PING_EVERY_S)),
        }
        with Notified(environment, folder, listener=listener) as service:
            yield service
            service.signal(signal.SIGTERM)
            assert service.process.wait(10) == 0
            assert [line for line in service.hear() if line != "WATCHDOG=1"][-2:] == ["STOPPING=1", "STATUS=stopping"]
            assert TOKEN not in service.log


def test_the_manager_is_told_how_the_cameras_are(notified: Notified) -> None:
    line = "STATUS=cameras live: 1 of 2; nest offline (source_missing)"
    until(lambda: line in notified.hear(), 15, lambda: f"{line}: {notified.said}")


def test_no_child_can_speak_for_the_service(notified: Notified) -> None:
    notified.worker("front")
    children = psutil.Process(notified.process.pid).children(recursive=True)
    assert len(children) > 1
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(child.environ()), child


def test_a_service_that_stands_still_is_not_pinged_for(notified: Notified) -> None:
    def pings() -> int:
        return notified.hear().count("WATCHDOG=1")

    before = pings()
    until(lambda: pings() > before + 2, 10, "it is pinged for")
    notified.signal(signal.SIGSTOP)
    until(lambda: psutil.Process(notified.process.pid).status() == psutil.STATUS_STOPPED, 10, "it stands")
    stood = pings()
    with pytest.raises(AssertionError, match="not within"):
        until(lambda: pings() > stood, 10 * PING_EVERY_S, "it stands, and pings")
    notified.signal(signal.SIGCONT)
    until(lambda: pings() > stood, 10, "it is pinged for again")


def test_the_token_in_the_file_opens_and_nothing_else_does(notified: Notified) -> None:
    assert notified.get("/cameras").status == 401
    assert notified.get("/cameras", {"Authorization": "Bearer not this line"}).status == 401
    assert notified.get("/cameras", {"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert notified.get(f"/cameras?token={TOKEN}").status == 200


@pytest.mark.slow  # quick: the children of the service itself, above
def test_under_another_server_no_child_can_speak_either() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import os, camdock.asgi; print(os.environ.get('NOTIFY_SOCKET'))"],
        env={**os.environ, "NOTIFY_SOCKET": "/run/notify", "CAMDOCK_SOURCE": "synthetic:"},
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert said.stdout == "None\n"
