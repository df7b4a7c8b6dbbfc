"""The gate's question, put to a service that answers as each test wants it."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.roles.release import STARTED, Noting, errors, gate, looking, make_release, store, unit
from tests.tools import certificate

TOKEN = "a-token-of-the-host"
WHY = {"code": "source_missing", "message": "/dev/video0 does not exist", "hint": "plug it in", "retry": True}


class Service:
    """What answers: cameras as given, each with a stream whose pictures are numbered or always the same."""

    def __init__(self) -> None:
        self.cameras: dict[str, dict[str, Any]] = {}
        self.flows, self.repeats, self.status = True, False, 200
        self.counts = True
        self.heads: list[bytes] = []
        self.began = time.monotonic()
        self.over = threading.Event()
        self.add("front")
        service = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def speak_tls(self) -> None:
        """From now on https alone, with a certificate for another name than its address."""
        one = certificate.shared()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(one.cert, one.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def add(self, name: str, **told: Any) -> None:
        self.cameras[name] = {"name": name, "state": "live", "reason": None, "restarts": {}, **told}

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.heads.append(f"{request.requestline}\n{request.headers}".encode())
        if self.status != 200:
            self.send(request, self.status, b"{}")
        elif request.path == "/cameras":
            # Fifty pictures a second, as long as they are counted.
            frames = int((time.monotonic() - self.began) * 50) if self.counts else 7
            self.send(request, 200, json.dumps([{"frames": frames, **one} for one in self.cameras.values()]).encode())
        elif request.path == "/health/live":
            self.send(request, 200, b'{"status": "alive"}')
        else:
            self.stream(request)

    @staticmethod
    def send(request: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        request.send_response(status)
        request.end_headers()
        request.wfile.write(body)

    def stream(self, request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        number = 0
        try:
            request.wfile.write(b"--b\r\n")
            while not self.over.wait(0.02):
                if self.flows:
                    number += 1
                    jpeg = b"the same" if self.repeats else b"picture %d --b\r\nContent-Length: 9\r\n" % number
                    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                    request.wfile.write(head + jpeg + b"\r\n--b\r\n")
        except OSError:
            pass  # the viewer has left

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Noting:
    return Noting(tmp_path)


@pytest.fixture
def look(service: Service, systemd: Noting, tmp_path: Path) -> Any:
    (tmp_path / "token").write_text(TOKEN + "\n")

    def make(kind: str = "pictures", appear_s: float = 0.6, watch_s: float = 0.5, **told: Any) -> tuple[gate.Gate, Any]:
        make_release(tmp_path, "r", port=service.port, **told)
        one = gate.Gate(store.Store(tmp_path).release("r"), systemd, tmp_path / "token", kind)
        darkness = gate.Darkness()
        one.pass_within(appear_s, watch_s, darkness)
        return one, darkness

    return make


def soon(seconds: float, do: Any) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()


# --- passes ---------------------------------------------------------------------------------------------------------


def test_pictures_that_move_pass_and_end_the_darkness(look: Any, service: Service) -> None:
    began = time.monotonic()
    one, darkness = look(appear_s=10)
    assert one.warnings == []
    assert darkness.since is None
    assert 0 < darkness.total <= time.monotonic() - began - 0.5
    assert any(b"GET /cameras/front/stream HTTP/1.0" in head for head in service.heads)
    assert all(b"authorization: bearer " + TOKEN.encode() in head.lower() for head in service.heads)
    assert all(b"\nhost:" not in head.lower() for head in service.heads), "whatever CAMDOCK_ALLOWED_HOSTS lists"


def test_a_service_that_speaks_https_alone_is_asked_so(look: Any, service: Service) -> None:
    service.speak_tls()
    look(tls=True, appear_s=10)
    assert any(b"GET /cameras/front/stream HTTP/1.0" in head for head in service.heads)
    with pytest.raises(errors.Failed, match=r"does not answer on 127\.0\.0\.1"):
        look(tls=False)


def test_it_waits_for_a_service_that_comes_later(look: Any, service: Service) -> None:
    service.cameras["front"].update(state="starting")
    soon(0.5, lambda: service.cameras["front"].update(state="live"))
    look(appear_s=10)


def test_every_camera_is_looked_at(look: Any, service: Service) -> None:
    with pytest.raises(errors.Failed, match="nest: the service knows no camera of this name"):
        look(cameras=["front", "nest"])
    service.add("nest")
    look(cameras=["front", "nest"], appear_s=10)
    assert any(b"/cameras/nest/stream" in head for head in service.heads)


def test_pictures_that_are_all_the_same_pass_with_a_warning(look: Any, service: Service) -> None:
    service.repeats = True
    one, _ = look(appear_s=10)
    assert len(one.warnings) == 1
    assert "dark room" in one.warnings[0]


def test_live_asks_only_whether_the_service_answers(look: Any, service: Service) -> None:
    service.cameras["front"].update(state="offline", reason=WHY)
    look("live", appear_s=10)
    service.status = 500
    with pytest.raises(errors.Failed, match="/health/live answers 500"):
        look("live")


def test_off_asks_only_whether_it_runs(look: Any, service: Service, systemd: Noting) -> None:
    service.status = 500
    look("off", appear_s=10)
    systemd.told = unit.UnitState("loaded", "activating", "start", "success", 0, "i1", "0")
    with pytest.raises(errors.Failed, match=r"the service is activating \(start"):
        look("off")


# --- does not pass --------------------------------------------------------------------------------------------------


def test_a_camera_that_is_offline_is_named_with_its_reason(look: Any, service: Service) -> None:
    # Its stream flows: it shows the picture that says why there is none.
    service.cameras["front"].update(state="offline", reason=WHY)
    with pytest.raises(errors.Failed, match=r"after 0\.6 s: front: it is offline: /dev/video0 does not exist -- plug"):
        look()


def test_a_live_camera_must_count_on_and_show_it_too(look: Any, service: Service) -> None:
    service.counts = False
    with pytest.raises(errors.Failed, match="front: it is live, and no new picture comes"):
        look()
    service.counts, service.flows = True, False
    with pytest.raises(errors.Failed, match="front: it is live, and no new picture comes"):
        look()


def test_a_missing_driver_is_not_waited_for(look: Any, service: Service) -> None:
    service.cameras["front"].update(state="offline", reason=WHY | {"code": "driver_missing", "message": "no linuxpy"})
    began = time.monotonic()
    with pytest.raises(errors.Failed, match="front: no linuxpy -- plug it in"):
        look(appear_s=60)
    assert time.monotonic() - began < 30


def test_a_token_that_is_not_taken_is_said(look: Any, service: Service) -> None:
    service.status = 401
    with pytest.raises(errors.Failed, match="answers 401 to /cameras: it does not take this host's token"):
        look()


@pytest.mark.parametrize("answer", [[7], {"error": "x"}, [{"name": "front"}], [{"name": "front", "state": "live"}]])
def test_an_answer_that_no_camdock_gives_is_said(look: Any, service: Service, answer: Any) -> None:
    service.answer = lambda request: service.send(request, 200, json.dumps(answer).encode())  # type: ignore[method-assign]
    with pytest.raises(errors.Failed, match=r"does not tell of its cameras as a Camdock does"):
        look()


def test_nobody_there_is_said_with_the_address(look: Any, service: Service) -> None:
    service.close()
    with pytest.raises(errors.Failed, match=rf"does not answer on 127\.0\.0\.1:{service.port} \("):
        look()


@pytest.mark.parametrize(
    "state",
    [
        unit.UnitState("loaded", "activating", "auto-restart", "exit-code", 0, "i1", "203"),
        unit.UnitState("loaded", "active", "running", "success", 1, "i2", "0"),
        unit.UnitState("loaded", "failed", "failed", "exit-code", 0, "i1", "1"),
        unit.UnitState("bad-setting", "inactive", "dead", "success", 0, "", "0"),
    ],
)
def test_a_unit_that_ends_is_not_waited_for(look: Any, systemd: Noting, state: unit.UnitState) -> None:
    systemd.told = state
    with pytest.raises(errors.Failed, match=r"the service has ended|systemd cannot use"):
        look(appear_s=60)


def test_an_old_failure_of_a_unit_that_was_not_begun_with_yet_does_not_count(look: Any, systemd: Noting) -> None:
    systemd.told = unit.UnitState("loaded", "inactive", "dead", "exit-code", 0, "i0", "1")
    soon(0.3, lambda: setattr(systemd, "told", STARTED))
    look(appear_s=10)


# --- while it is watched --------------------------------------------------------------------------------------------


def test_a_gap_is_seen_and_counts_as_darkness(look: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LONGEST_GAP_S", 0.5)
    soon(0.5, lambda: setattr(service, "flows", False))
    with pytest.raises(errors.Failed, match=r"front: no new picture for [01]\.\d s: it is live, and no new"):
        look(appear_s=10, watch_s=30)


def test_a_driver_that_is_started_again_does_not_pass(look: Any, service: Service) -> None:
    service.cameras["front"].update(restarts={"source_busy": 2})  # before it gave pictures: that is no matter
    soon(1, lambda: service.cameras["front"].update(restarts={"source_busy": 2, "worker_died": 1}))
    with pytest.raises(errors.Failed, match="front: its driver process ended while it was watched: worker_died"):
        look(appear_s=10, watch_s=30)


def test_a_service_that_is_started_again_does_not_pass(look: Any, service: Service, systemd: Noting) -> None:
    soon(1, lambda: setattr(systemd, "told", unit.UnitState("loaded", "active", "running", "success", 0, "i2", "0")))
    with pytest.raises(errors.Failed, match="the service was restarted"):
        look(appear_s=10, watch_s=30)


def test_a_container_that_is_started_again_does_not_pass(look: Any, service: Service) -> None:
    def again() -> None:  # its unit is Compose, which goes on
        service.began = time.monotonic()

    soon(1, again)
    with pytest.raises(errors.Failed, match="the service was restarted meanwhile"):
        look(appear_s=10, watch_s=30)


def test_a_stream_that_ends_is_opened_again(look: Any, service: Service) -> None:
    def end() -> None:
        service.over.set()
        service.over = threading.Event()

    soon(0.5, end)
    look(appear_s=10, watch_s=1.5)


def test_what_is_no_stream_does_not_count(service: Service, tmp_path: Path) -> None:
    make_release(tmp_path, "r", port=service.port)
    asker = looking.Asker(store.Store(tmp_path).release("r"), tmp_path / "no-token")
    service.cameras = {}
    viewer = looking.Viewer(asker, "front")
    service.send = lambda request, status, body: None  # type: ignore[method-assign]
    service.stream = lambda request: request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n--b\r\nContent-Length: x\r\n\r\n")  # type: ignore[method-assign,return-value]
    viewer.start()
    while len(service.heads) < 3:
        time.sleep(0.01)
    viewer.leave()
    viewer.join(10)
    assert viewer.pictures == 0
