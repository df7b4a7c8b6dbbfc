"""Pictures over a WebSocket, as a client sees them that is not ours."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from camdock.frame import jpeg_size
from tests.tools import raw
from tests.tools.raw import open_files, read_all, read_answer, until_nobody_looks
from tests.tools.service import Service, until

SOURCES = "camera=synthetic:?size=320x240&fps=25 big=synthetic:?size=1920x1080&fps=10&quality=95"


@pytest.fixture(scope="module", params=["websocket service"])
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two cameras, a quick small one and a big one."""
    environment = {"CAMDOCK_SOURCES": SOURCES, "CAMDOCK_SEND_TIMEOUT_S": "1"}
    with Service(environment, tmp_path_factory.mktemp("websocket")) as service:
        service.until_state("live")
        service.until_state("live", "big")
        service.get("/snapshot?width=64")  # the pixels process stays
        yield service


@pytest.fixture
def service(watched: Service) -> Iterator[Service]:
    """That service; whatever the test does, nothing stays open behind it and no traceback is logged."""
    files = open_files(watched)
    yield watched
    until_nobody_looks(watched, files)
    until(lambda: watched.camera("big")["viewers"] == 0, 5, "nobody looks at the big one")
    assert "Traceback" not in watched.log, watched.log[-4000:]


def watch(service: Service, path: str = "/ws", **more: Any) -> ClientConnection:
    """A WebSocket as a browser opens it."""
    return connect(f"ws://127.0.0.1:{service.port}{path}", max_size=None, **more)


def picture(viewer: ClientConnection) -> bytes:
    """The next binary message."""
    while isinstance(message := viewer.recv(timeout=10), str):
        pass
    return message


def read_to_the_end(viewer: ClientConnection) -> None:
    """Everything that still comes, until it raises."""
    while True:
        viewer.recv(timeout=5)


def handshake(path: str, *more: str, **changed: str) -> bytes:
    fields = {
        "Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }  # fmt: skip
    fields |= {name.replace("_", "-"): value for name, value in changed.items()}
    return raw.request(path, *(f"{name}: {value}" for name, value in fields.items() if value), *more)


def test_the_state_comes_first_and_then_one_jpeg_in_each_message(service: Service) -> None:
    with watch(service) as viewer:
        state = json.loads(viewer.recv(timeout=10))
        assert (state["camera"], state["state"], state["reason"]) == ("camera", "live", None)
        assert state["size"] == {"width": 320, "height": 240}
        pictures = [picture(viewer) for _ in range(5)]
        assert service.camera()["viewers"] == 1
    assert len(set(pictures)) == 5
    for jpeg in pictures:
        assert (jpeg[:2], jpeg[-2:], jpeg_size(jpeg)) == (b"\xff\xd8", b"\xff\xd9", (320, 240))


def test_a_camera_is_named_and_a_rendition_asked_for_as_of_a_stream(service: Service) -> None:
    with watch(service, "/cameras/big/ws?width=160&fps=5") as viewer:
        assert json.loads(viewer.recv(timeout=10))["camera"] == "big"
        assert jpeg_size(picture(viewer)) == (160, 90)
        began = time.monotonic()
        for _ in range(3):
            picture(viewer)
        assert time.monotonic() - began > 0.4
    with watch(service, "/cameras/big/ws") as viewer:
        assert len(picture(viewer)) > 1 << 16  # the longest form of a message's head


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/cameras/none/ws", 404, "camera_missing"),
        ("/ws?width=5", 422, "request_invalid"),
        ("/ws/more", 404, "not_found"),
    ],
)
def test_what_is_not_there_is_said_in_the_handshake(service: Service, path: str, status: int, code: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        watch(service, path)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["code"] == code


def test_a_page_of_another_website_may_not_listen(service: Service) -> None:
    with pytest.raises(InvalidStatus) as refused:
        watch(service, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with watch(service, origin=f"http://127.0.0.1:{service.port}") as viewer:
        assert picture(viewer)


@pytest.mark.parametrize(
    "changed",
    [{"Upgrade": ""}, {"Connection": "keep-alive"}, {"Sec_WebSocket_Version": "8"}, {"Sec_WebSocket_Key": "x"}],
)
def test_what_is_no_handshake_is_told_what_would_be(service: Service, changed: dict[str, str]) -> None:
    with raw.connect(service.port, handshake("/ws", **changed)) as client:
        status, headers, body = read_answer(client)
    assert (status, headers["sec-websocket-version"], json.loads(body)["code"]) == (426, "13", "websocket_needed")


def test_a_head_request_is_answered_without_pictures(service: Service) -> None:
    assert service.ask("HEAD", "/ws").status == 426


def test_the_service_answers_pings_and_closes_as_it_is_asked(service: Service) -> None:
    with watch(service) as viewer:
        picture(viewer)
        assert viewer.ping().wait(5)
        viewer.send("whatever a client says")
        viewer.send(b"\0" * 200_000)
        assert picture(viewer)
    assert (viewer.protocol.close_code, viewer.protocol.close_rcvd_then_sent) == (1000, False)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff\xff", id="nothing that there is"),
        pytest.param(b"\x81\x05hello", id="not masked"),
        pytest.param(b"\x83\x80\0\0\0\0", id="a kind that there is not"),
        pytest.param(b"\x89\xfe\x00\xff\0\0\0\0", id="a ping that is too long"),
    ],
)
def test_garbage_ends_the_connection_and_is_told_so(service: Service, data: bytes) -> None:
    with raw.connect(service.port, handshake("/ws")) as client:
        received = b""
        while raw.HEAD_END not in received:
            received += client.recv(1 << 16)
        client.sendall(data)
        assert b"\x03\xea" in (received + read_all(client))[-200:]  # 1002, a protocol error


def test_who_leaves_without_a_word_is_gone(service: Service) -> None:
    for leave in (raw.reset, lambda one: one.close()):
        client = raw.connect(service.port, handshake("/ws"))
        client.recv(1000)
        leave(client)
    until(lambda: service.camera()["viewers"] == 0, 5, "they are not counted any more")


def test_a_slow_viewer_skips_pictures_and_what_it_sees_is_fresh(service: Service) -> None:
    with watch(service, "/cameras/big/ws", max_queue=1) as viewer:
        picture(viewer)
        before = service.camera("big")["seq"]
        time.sleep(0.8)  # it reads nothing meanwhile: at most what its own buffers hold is old
        taken = 0
        while service.camera("big")["seq"] < before + 20:
            picture(viewer)
            taken += 1
        assert taken < 45


def test_a_viewer_that_takes_nothing_is_dropped(service: Service) -> None:
    stuck = raw.connect(service.port, handshake("/cameras/big/ws"), receive_buffer=4096)
    until(lambda: service.camera("big")["viewers"] == 1, 5, "it is a viewer")
    until(lambda: service.camera("big")["viewers"] == 0, 8, "it was dropped")
    stuck.close()


def test_a_change_of_state_is_told_and_viewers_stay(service: Service) -> None:
    with watch(service) as viewer:
        assert json.loads(viewer.recv(timeout=10))["state"] == "live"
        service.worker().kill()
        told = []
        while not told or told[-1]["state"] != "live":
            if isinstance(message := viewer.recv(timeout=15), str):
                told.append(json.loads(message))
    assert (told[0]["state"], told[0]["reason"]["code"]) == ("offline", "worker_died")


def test_the_end_of_the_service_is_told_and_takes_no_time(tmp_path: Path) -> None:
    with Service({"CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=25"}, tmp_path) as service:
        with watch(service) as viewer:
            picture(viewer)
            stuck = raw.connect(service.port, handshake("/ws"), receive_buffer=4096)
            assert service.stop() < 3
            with pytest.raises(ConnectionClosed) as closed:
                read_to_the_end(viewer)
            stuck.close()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
