"""How the service starts: drivers load while the web framework is imported, and nothing stays when that fails."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from camdock import app
from camdock.config import Config, read_config
from camdock.owners import Owners
from camdock.server import Server
from camdock.systemd import Systemd
from tests.tools.service import ABI_CACHE, until


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    monkeypatch.setenv("CAMDOCK_SOURCE", "synthetic:")
    monkeypatch.setenv("CAMDOCK_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("CAMDOCK_ABI_CACHE", str(ABI_CACHE))
    return read_config()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


class EndsWhenReady(Systemd):
    """Has the server stop as soon as it serves."""

    server: Server
    was_ready = False

    def ready(self, _status: Callable[[], str]) -> None:
        self.was_ready = True
        asyncio.get_running_loop().call_soon(setattr, self.server, "should_exit", True)


def ours() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_a_camera_is_live_before_there_is_an_application(config: Config, listener: socket.socket) -> None:
    owners, told, before = Owners(config), EndsWhenReady(), ours()

    def build() -> Any:
        until(lambda: owners.cameras["camera"].unavailable() is None, 20, "the camera is live")
        return app.build(config, owners)

    told.server = Server(owners, build, told)
    told.server.run(sockets=[listener])
    assert told.was_ready
    assert ours() <= before, "children stayed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_application_is_built_ends_it(
    config: Config, listener: socket.socket, number: signal.Signals
) -> None:
    owners, told, before = Owners(config), EndsWhenReady(), ours()
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]

    def build() -> Any:
        until(lambda: len(ours() - before) > 1, 20, "the guard and a worker run")
        signal.raise_signal(number)
        return app.build(config, owners)

    told.server = Server(owners, build, told)
    told.server.run(sockets=[listener])
    assert not told.was_ready
    assert ours() <= before, "children stayed"
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_an_application_that_cannot_be_built_leaves_no_driver(config: Config, listener: socket.socket) -> None:
    owners, told, before = Owners(config), EndsWhenReady(), ours()

    def build() -> Any:
        until(lambda: len(ours() - before) > 1, 20, "the guard and a worker run")
        raise ModuleNotFoundError("no framework")

    told.server = Server(owners, build, told)
    with pytest.raises(ModuleNotFoundError, match="no framework"):
        told.server.run(sockets=[listener])
    assert not told.was_ready
    assert ours() <= before, "children stayed"
