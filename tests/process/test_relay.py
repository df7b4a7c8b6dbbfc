"""Video files and other people's streams as sources."""

from __future__ import annotations

import base64
import hashlib
import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.process.conftest import StartService
from tests.tools import frames
from tests.tools.packages import needed
from tests.tools.pictures import RATE_WITHIN, numbers, watch
from tests.tools.service import free_port, until


@pytest.mark.slow
def test_a_video_of_photographs_plays_at_its_own_rate_and_loops(start: StartService, tmp_path: Path) -> None:
    video = tmp_path / "photographs.avi"
    frames.video_file(video, (640, 480), 20.0, 50, "MJPG")
    service = start(f"opencv:{video}")
    pictures = watch(service, 70, 20)
    shown = numbers(pictures)
    steps = [(after - before) % 50 for before, after in pairwise(shown)]
    assert set(steps) == {1}, "every picture, in order, the first behind the last"
    assert service.camera()["fps"] == pytest.approx(20, rel=RATE_WITHIN)


@contextmanager
def ustreamer(environment: dict[str, str]) -> Iterator[int]:
    """Debian's ustreamer on the fake camera; yields its port."""
    port = free_port()
    command = [
        "ustreamer",
        "--device",
        "/dev/video7",
        "--format",
        "MJPEG",
        "--encoder",
        "HW",
        "--resolution",
        "640x480",
    ]
    process = subprocess.Popen(
        [*command, "--desired-fps", "30", "--port", str(port)],
        env={"PATH": "/usr/bin:/bin", **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, 10, "ustreamer listens")
        yield port
    finally:
        process.kill()
        process.wait()


@needed("ustreamer")
def test_ustreamer_is_relayed_byte_for_byte_and_waited_for(
    start: StartService, fake_camera: Callable[..., dict[str, str]]
) -> None:
    environment = fake_camera()
    with ustreamer(environment) as port:
        service = start(f"relay:http://127.0.0.1:{port}/stream")
        pictures = watch(service, fps=30)
        sequence = [int.from_bytes(picture.jpeg[10:18], "little") for picture in pictures]
        assert sequence == sorted(set(sequence))
        folder = Path(environment["FAKEV4L2_JPEGS"]) / "640x480"
        originals = {file.read_bytes()[2:] for file in folder.glob("*.jpg")}
        assert all(picture.jpeg[26:] in originals for picture in pictures)
    assert service.until_state("offline")["reason"]["code"] == "source_missing"


@pytest.mark.slow  # quick: a relay at rest, logins, credentials never told
def test_another_camdock_is_relayed_with_its_token(start: StartService) -> None:
    first = start("synthetic:", CAMDOCK_TOKEN="for-the-relay-only")
    url = f"http://127.0.0.1:{first.port}/stream"
    sources = (
        f"camera=relay:{url}#token=for-the-relay-only&fps=10 wrong=relay:{url}#token=not-the-right-one "
        f"opencv=opencv:{url}?token=for-the-relay-only#fps=5"
    )
    second = start(CAMDOCK_SOURCES=sources)
    pictures = watch(second, 40, 10)
    shown = numbers(pictures)
    assert shown == sorted(set(shown))
    shown = numbers(watch(second, 15, 5, "opencv"))
    assert shown == sorted(set(shown))
    assert second.until_state("offline", "wrong")["reason"]["code"] == "source_denied"
    told = second.log + second.get("/cameras").body.decode() + second.get("/health").body.decode()
    assert "for-the-relay-only" not in told
    assert "not-the-right-one" not in told


def test_a_camdock_without_pictures_is_no_camera_and_its_reason_is_passed_on(
    start: StartService, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.touch()
    first = start(f"synthetic:?size=320x240&gone={gone}")
    # Until the time to open is over, the far end may be opening its camera because somebody looks here.
    second = start(f"relay:http://127.0.0.1:{first.port}/stream", CAMDOCK_OPEN_TIMEOUT_S="0.5")

    def its_words() -> None:
        """What viewers of the second one get are the notices of the first one, byte for byte."""
        reason = second.until_state("offline")["reason"]
        assert (reason["code"], "has no picture itself" in reason["message"]) == ("source_missing", True)
        with first.stream() as there, second.stream() as here:
            sent = {picture.jpeg for picture in there.take(4)}
            passed = here.take(4)
        assert {picture.headers.get("x-notice") for picture in passed} == {"1"}
        assert len({picture.jpeg for picture in passed} & sent) >= 2, "our own words instead"
        assert second.get("/snapshot").status == 503
        assert second.get("/health").json()["camera_connected"] is False
        assert second.ask("POST", "/cameras/camera/captures").status == 503

    with second.stream() as viewer:
        assert "x-notice" in viewer.take(1)[0].headers
    assert second.camera()["state"] == "starting"
    its_words()
    seen = second.camera()
    worker = second.worker().pid
    gone.unlink()
    second.until_state("live")
    assert second.worker().pid == worker, "nothing of its own was restarted"
    assert all("x-notice" not in picture.headers for picture in watch(second, 10))
    with second.stream() as viewer:
        gone.touch()
        second.until_state("offline")
        until(lambda: "x-notice" in viewer.take(1)[0].headers, 5, "a viewer that stayed is told")
    its_words()
    after = second.camera()
    assert after["restarts"] == seen["restarts"]
    assert after["seq"] > seen["seq"]
    assert second.log.count("has no picture itself") == 2, "said once each time"


class _Guarded(http.server.BaseHTTPRequestHandler):
    """An MJPEG server that asks for a login, chunked or not, as cameras on a network do."""

    protocol_version = "HTTP/1.1"
    scheme = "basic"
    jpegs: tuple[bytes, ...] = ()

    def do_GET(self) -> None:
        if not self._knows_the_password():
            self.send_response(401)
            wanted = {
                "basic": 'Basic realm="cam"',
                "digest": 'Digest realm="cam", nonce="abc123", qop="auth", algorithm=MD5',
            }
            self.send_header("WWW-Authenticate", wanted[self.scheme])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", 'multipart/x-mixed-replace; boundary="--camera"')
        self.end_headers()
        for index in range(200):
            jpeg = self.jpegs[index % len(self.jpegs)]
            try:
                self.wfile.write(b"--camera\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n")
            except OSError:
                break
            time.sleep(0.05)  # the rate of this make-believe camera
        self.close_connection = True

    def _knows_the_password(self) -> bool:
        sent = self.headers.get("Authorization", "")
        if self.scheme == "basic":
            return sent == "Basic " + base64.b64encode(b"viewer:s3cret!pw").decode()
        fields = {
            name.strip(): value.strip().strip('"')
            for name, _, value in (part.partition("=") for part in sent.removeprefix("Digest ").split(","))
        }
        if fields.get("username") != "viewer":
            return False

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        secret, request = md5("viewer:cam:s3cret!pw"), md5(f"GET:{self.path}")
        expected = md5(f"{secret}:abc123:{fields['nc']}:{fields['cnonce']}:auth:{request}")
        return fields["response"] == expected

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.mark.slow  # four cameras; credentials never told: test_entry.py
def test_a_camera_with_a_login_is_relayed_and_the_password_stays_secret(start: StartService) -> None:
    folder = frames.camera_frames((640, 480)) / "640x480"
    jpegs = tuple(file.read_bytes() for file in sorted(folder.glob("*.jpg"))[:20])
    sources = []
    with ExitStack() as servers:
        for scheme in ("basic", "digest"):
            handler = type("Handler", (_Guarded,), {"scheme": scheme, "jpegs": jpegs})
            server = servers.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.shutdown)
            at = f"127.0.0.1:{server.server_port}/?action=stream"
            sources += [
                f"{scheme}=relay:http://viewer:s3cret%21pw@{at}",
                f"wrong-{scheme}=relay:http://viewer:wr0ngpass@{at}",
            ]
        service = start(CAMDOCK_SOURCES=" ".join(sources))
        for scheme in ("basic", "digest"):
            with service.stream(f"/cameras/{scheme}/stream") as viewer:
                pictures = [picture for picture in viewer.take(12) if picture.jpeg in jpegs]
            assert len(pictures) >= 10, "at most a picture or two that says it is still opening"
            assert service.until_state("offline", f"wrong-{scheme}")["reason"]["code"] == "source_denied"
    told = service.log + service.get("/cameras").body.decode()
    for secret in ("s3cret", "wr0ngpass", "s3cret%21pw"):
        assert secret not in told
