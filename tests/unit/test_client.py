"""camdock.client against services that a test makes up: addresses, refusals, outages, nonsense."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import pytest

from camdock import client
from camdock.client import Camera, Closed, NoPicture, Refused
from tests.tools.upstream import Answer, moving, upstream
from tests.unit.rig import jpeg_of

JPEG = jpeg_of()


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Ends what `moving` answers."""
    event = threading.Event()
    yield event
    event.set()


def asked_of(url: str, **more: object) -> tuple[str, dict[str, str]]:
    """The target and the headers of the first request."""
    seen: list[tuple[str, dict[str, str]]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        handler.send_error(404)

    with (
        upstream(answer) as port,
        Camera(url.replace("PORT", str(port)), **more) as camera,  # type: ignore[arg-type]
        pytest.raises(Refused),
    ):
        camera.next(5)
    return seen[0]


@pytest.mark.parametrize(
    ("url", "more", "target"),
    [
        ("http://127.0.0.1:PORT", {}, "/stream"),
        ("http://127.0.0.1:PORT/", {"name": "bird house"}, "/cameras/bird%20house/stream"),
        ("http://127.0.0.1:PORT/below/", {"width": 640, "fps": 7.5}, "/below/stream?width=640&fps=7.5"),
        ("http://127.0.0.1:PORT/?token=a%2Bb", {"height": 48}, "/stream?token=a%2Bb&height=48"),
        ("http://127.0.0.1:PORT/?action=stream", {}, "/?action=stream"),
        ("http://127.0.0.1:PORT/api/v1/stream/video", {"quality": 50}, "/api/v1/stream/video?quality=50"),
    ],
)
def test_what_is_asked_for_stands_in_the_request(url: str, more: dict[str, object], target: str) -> None:
    assert asked_of(url, **more)[0] == target


def test_a_token_goes_into_a_header_and_a_login_too() -> None:
    assert asked_of("http://127.0.0.1:PORT", token="a+b/=")[1]["authorization"] == "Bearer a+b/="
    assert asked_of("http://me:p%40ss@127.0.0.1:PORT")[1]["authorization"] == "Basic bWU6cEBzcw=="
    assert "authorization" not in asked_of("http://127.0.0.1:PORT")[1]


@pytest.mark.parametrize("url", ["camera.local", "rtsp://camera.local/", "http://", "http:///stream"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        Camera(url)


def test_a_name_and_a_whole_address_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="not both"):
        Camera("http://h/cameras/a/stream", name="b")


def test_errors_name_the_address_and_neither_token_nor_password() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(401)

    with upstream(answer) as port:
        camera = Camera(f"http://me:hunter2@127.0.0.1:{port}/?token=hunter3", token="hunter4")
        with pytest.raises(Refused) as refused:
            camera.next(5)
        camera.close()
    told = f"{refused.value} {camera.url} {camera.problem}"
    assert f"http://127.0.0.1:{port}/stream: 401" in told
    assert "hunter" not in told
    assert refused.value.status == 401


def test_a_page_instead_of_a_stream_is_refused_for_good() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()

    with upstream(answer) as port, Camera(f"http://127.0.0.1:{port}") as camera:
        for _ in range(2):
            with pytest.raises(Refused, match="text/html"):
                next(iter(camera))


def sends(data: bytes) -> Answer:
    """A stream of these bytes, and its end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace;boundary=part")
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def part(jpeg: bytes, *more: bytes) -> bytes:
    """One part as Camdock writes it."""
    lines = (b"--part", b"Content-Type: image/jpeg", b"Content-Length: %d" % len(jpeg), *more, b"", b"")
    return b"\r\n".join(lines) + jpeg + b"\r\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "ended", id="nothing"),
        pytest.param(part(JPEG)[:-200], "ended", id="half a picture"),
        pytest.param(b"--part\r\nContent-Length: x\r\n\r\n", "invalid literal", id="no number"),
        pytest.param(b"--part\r\nContent-Length: 99999999999\r\n\r\n", "99999999999 bytes", id="too large"),
        pytest.param(b"--part\r\nContent-Type: image/jpeg\r\n\r\n" + JPEG, "0 bytes", id="no length"),
        pytest.param(b"\n".join(b"a%d: b" % n for n in range(500)), "no multipart", id="headers without end"),
        pytest.param(b"x" * 100_000, "ended", id="no line"),
    ],
)
def test_nonsense_is_no_picture_and_is_told(data: bytes, why: str) -> None:
    with (
        upstream(sends(data)) as port,
        Camera(f"http://127.0.0.1:{port}") as camera,
        pytest.raises(NoPicture, match=why),
    ):
        camera.next(0.4)


def test_number_and_time_are_the_service_s_and_a_notice_is_no_picture() -> None:
    data = part(b"why", b"X-Seq: 8", b"X-Notice: 1") + part(JPEG, b"X-Seq: 9", b"X-Timestamp: 1700000000.25")
    with upstream(sends(data)) as port, Camera(f"http://127.0.0.1:{port}") as camera:
        frame = camera.next(5)
    assert (frame.seq, frame.captured_at, frame.jpeg) == (9, 1700000000.25, JPEG)


def test_a_stream_of_notices_says_so(over: threading.Event) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        sends(part(b"why", b"X-Notice: 1"))(handler)
        over.wait()

    with upstream(answer) as port, Camera(f"http://127.0.0.1:{port}") as camera:
        with pytest.raises(NoPicture, match="GET /cameras says why"):
            camera.next(0.5)
        over.set()


def test_a_service_that_is_away_is_asked_again_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.05)
    times: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        times.append(time.monotonic())
        if len(times) < 5:
            handler.send_error(503)
        else:
            sends(part(JPEG))(handler)

    with upstream(answer) as port, Camera(f"http://127.0.0.1:{port}") as camera:
        with pytest.raises(NoPicture, match="503"):
            camera.next(0.2)
        assert camera.next(5).jpeg == JPEG
    pauses = [after - before for before, after in pairwise(times[:5])]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 0.35


def test_who_waits_is_told_when_it_is_closed(over: threading.Event) -> None:
    ended: list[type[Exception]] = []

    def wait(camera: Camera) -> None:
        try:
            camera.next()
        except Closed as error:
            ended.append(type(error))

    with upstream(lambda _handler: over.wait() and None) as port:
        camera = Camera(f"http://127.0.0.1:{port}")
        waiting = threading.Thread(target=wait, args=(camera,))
        waiting.start()
        while camera._socket is None:
            time.sleep(0.01)
        began = time.monotonic()
        camera.close()
        waiting.join(5)
        over.set()
    assert ended == [Closed]
    assert time.monotonic() - began < 2
    assert list(camera) == []
    assert camera._thread is not None
    assert not camera._thread.is_alive()


def test_an_old_picture_is_not_the_latest(over: threading.Event) -> None:
    with upstream(moving(JPEG, 0.3, over)) as port, Camera(f"http://127.0.0.1:{port}") as camera:
        first = camera.latest(within_s=5)
        assert camera.latest() is first
        assert camera.next(5).seq == first.seq + 1, "what latest() gave was taken"
        first = camera.latest()
        assert camera.latest(max_age_s=0).seq == first.seq + 1
        over.set()


def test_a_silent_connection_is_given_up(over: threading.Event) -> None:
    with upstream(lambda _handler: over.wait() and None) as port:
        with Camera(f"http://127.0.0.1:{port}", timeout_s=0.2) as camera, pytest.raises(NoPicture, match="timed out"):
            camera.next(0.6)
        over.set()


def test_it_imports_nothing_else_of_the_service() -> None:
    code = "import sys, camdock.client; print(*sorted(n for n in sys.modules if n.startswith('camdock')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == ["camdock", "camdock.client"]


def test_without_its_libraries_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['simplejpeg'] = None; import camdock.client"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert "pip install 'camdock[client]'" in told


def test_the_example_stays_short() -> None:
    example = Path(__file__).resolve().parents[2] / "docs" / "examples" / "motion.py"
    text = example.read_text("utf-8")
    assert len(text.splitlines()) < 60
    assert ast.get_docstring(ast.parse(text))
