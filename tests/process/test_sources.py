"""Real input: video files of photographs, V4L2 cameras, other people's streams."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from tests.process.conftest import StartService
from tests.tools import build, frames
from tests.tools.packages import needed
from tests.tools.service import Picture, Service, free_port, until

RATE_WITHIN = 0.05


@pytest.fixture
def fake_camera(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """fake_camera(...): the environment in which /dev/video7 is a camera."""

    def environment(**more: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(build.ensure("fakev4l2")),
            "FAKEV4L2": "/dev/video7",
            "FAKEV4L2_JPEGS": str(frames.camera_frames((640, 480), (1280, 720))),
            "FAKEV4L2_STATE": str(tmp_path),
            **more,
        }

    return environment


def rate(pictures: list[Picture]) -> float:
    """Pictures per second by their times of capture."""
    stamps = [float(picture.headers["x-timestamp"]) for picture in pictures]
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


def numbers(pictures: list[Picture]) -> list[int]:
    """The numbers drawn into the pictures; decodes every one, strictly."""
    found = []
    for picture in pictures:
        Image.open(io.BytesIO(picture.jpeg)).load()
        found.append(frames.read_number(picture.jpeg))
    return found


def watch(service: Service, count: int = 90) -> list[Picture]:
    """So many pictures of a camera that is live."""
    service.until_state("live")
    with service.stream() as viewer:
        return viewer.take(count)


def test_a_video_of_photographs_plays_at_its_own_rate_and_loops(start: StartService, tmp_path: Path) -> None:
    video = tmp_path / "photographs.avi"
    frames.video_file(video, (640, 480), 20.0, 50, "MJPG")
    service = start(f"opencv:{video}")
    pictures = watch(service, 120)
    shown = numbers(pictures)
    assert rate(pictures) == pytest.approx(20, rel=RATE_WITHIN)
    steps = [(after - before) % 50 for before, after in pairwise(shown)]
    assert set(steps) == {1}, "every picture, in order, the first behind the last"
    assert service.camera()["fps"] == pytest.approx(20, rel=RATE_WITHIN)


def test_mjpg_is_passed_through_byte_for_byte(start: StartService, fake_camera: Callable[..., dict[str, str]]) -> None:
    environment = fake_camera()
    service = start("v4l2:/dev/video7?size=640x480&fps=30&format=MJPG", **environment)
    pictures = watch(service)
    folder = Path(environment["FAKEV4L2_JPEGS"]) / "640x480"
    originals = {hashlib.sha256(file.read_bytes()[2:]).digest() for file in folder.glob("*.jpg")}
    sequence = []
    for picture in pictures:
        assert picture.jpeg[:10] == b"\xff\xd8\xff\xfe\x00\x16FV4L"
        sequence.append(int.from_bytes(picture.jpeg[10:18], "little"))
        assert hashlib.sha256(picture.jpeg[26:]).digest() in originals
    assert [after - before for before, after in pairwise(sequence)] == [1] * (len(sequence) - 1)
    assert rate(pictures) == pytest.approx(30, rel=RATE_WITHIN)
    numbers(pictures[:10])


@pytest.mark.parametrize("pixel_format", ["YUYV", "NV12", "YU12", "GREY", "RGB3", "BGR3"])
def test_raw_formats_are_encoded_and_show_the_same_scene(
    start: StartService, fake_camera: Callable[..., dict[str, str]], pixel_format: str
) -> None:
    environment = fake_camera(FAKEV4L2_FORMATS=pixel_format)
    service = start(f"v4l2:/dev/video7?size=640x480&fps=30&format={pixel_format}", **environment)
    pictures = watch(service, 60)
    shown = numbers(pictures)
    assert len(set(shown)) == len(shown)
    assert shown == sorted(shown)
    assert rate(pictures) == pytest.approx(30, rel=RATE_WITHIN)
    # The colours of the photograph that the camera shows, not swapped and not shifted.
    originals = sorted((Path(environment["FAKEV4L2_JPEGS"]) / "640x480").glob("*.ppm"))
    original = originals[shown[0] % len(originals)]
    mode = "L" if pixel_format == "GREY" else "RGB"
    ours, theirs = (
        Image.open(io.BytesIO(data))
        .convert(mode)
        .crop((0, 64, 640, 480))
        .resize((20, 13), Image.Resampling.BOX)
        .tobytes()
        for data in (pictures[0].jpeg, original.read_bytes())
    )
    assert statistics.mean(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 6


def test_a_camera_without_huffman_tables_is_mended(
    start: StartService, fake_camera: Callable[..., dict[str, str]]
) -> None:
    service = start("v4l2:/dev/video7?size=640x480&format=MJPG", **fake_camera(FAKEV4L2_NODHT="1"))
    pictures = watch(service, 30)
    numbers(pictures)
    assert all(b"\xff\xc4" in picture.jpeg[:1000] for picture in pictures)


@pytest.mark.parametrize("fault", ["FAKEV4L2_BROKEN", "FAKEV4L2_ERRFLAG"])
def test_broken_frames_are_dropped_and_counted(
    start: StartService, fake_camera: Callable[..., dict[str, str]], tmp_path: Path, fault: str
) -> None:
    switch = tmp_path / "switch"
    service = start("v4l2:/dev/video7?size=640x480&format=MJPG", **fake_camera(**{fault: str(switch)}))
    service.until_state("live")
    switch.touch()
    until(lambda: service.camera()["state"] == "stalled", 5, "nothing but broken frames is a stall")
    switch.unlink()
    service.until_state("live")
    assert service.camera()["drops"]["broken"] >= 10
    assert f'camdock_dropped_frames_total{{camera="camera",reason="broken"}} {service.camera()["drops"]["broken"]}' in (
        service.get("/metrics").body.decode()
    )


def test_exposure_and_gain_reach_the_camera(start: StartService, fake_camera: Callable[..., dict[str, str]]) -> None:
    service = start("v4l2:/dev/video7?size=640x480&exposure_us=5000&gain=2", **fake_camera())
    settings = service.until_state("live")["settings"]
    assert settings["applied"] == {"exposure_us": 5000, "gain": 2.0, "auto_exposure": False}
    answer = service.ask("PUT", "/cameras/camera/settings", {"exposure_us": 12_340})
    assert answer.json()["applied"]["exposure_us"] == 12_300, "the camera counts in 100 us"
    automatic = service.ask("PUT", "/cameras/camera/settings", {"auto_exposure": True}).json()["applied"]
    assert automatic["auto_exposure"] is True
    low, high = settings["limits"]["exposure_us"]
    refused = service.ask("PUT", "/cameras/camera/settings", {"exposure_us": high + 1})
    assert refused.status == 422
    assert refused.json()["code"] == "setting_out_of_range"
    assert str(low) in refused.json()["hint"]


def test_a_format_that_the_camera_lacks_is_named_with_those_it_has(
    start: StartService, fake_camera: Callable[..., dict[str, str]]
) -> None:
    reason = start("v4l2:/dev/video7?format=NV12", **fake_camera()).until_state("offline")["reason"]
    assert "NV12" in reason["message"]
    assert "MJPG, YUYV" in reason["hint"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("FAKEV4L2_DENIED", "source_denied"),
        ("FAKEV4L2_BUSY", "source_busy"),
        ("FAKEV4L2_GONE", "source_missing"),
    ],
)
def test_a_camera_that_cannot_be_opened_says_why(
    start: StartService, fake_camera: Callable[..., dict[str, str]], tmp_path: Path, fault: str, code: str
) -> None:
    switch = tmp_path / "switch"
    switch.touch()
    reason = start("v4l2:/dev/video7", **fake_camera(**{fault: str(switch)})).until_state("offline")["reason"]
    assert reason["code"] == code
    assert "/dev/video7" in reason["message"]
    assert reason["hint"]


def test_auto_takes_the_camera_waits_for_it_and_never_replaces_it(
    start: StartService, fake_camera: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.touch()
    service = start(**fake_camera(FAKEV4L2_GONE=str(gone)))
    camera = service.until_state("live")
    assert camera["source"].startswith("synthetic:")
    assert "no camera found" in camera["source"]
    gone.unlink()
    until(lambda: service.camera()["source"] == "v4l2:/dev/video7", 10, "the camera that appeared is taken")
    service.until_state("live")
    gone.touch()
    assert service.until_state("offline")["reason"]["code"] == "source_missing"
    assert service.camera()["source"] == "v4l2:/dev/video7", "an unplugged camera is waited for"
    gone.unlink()
    service.until_state("live")


# --- relay ------------------------------------------------------------------------------------------------------------


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
        pictures = watch(service)
        sequence = [int.from_bytes(picture.jpeg[10:18], "little") for picture in pictures]
        assert sequence == sorted(set(sequence))
        assert rate(pictures) == pytest.approx(30, rel=RATE_WITHIN)
        folder = Path(environment["FAKEV4L2_JPEGS"]) / "640x480"
        originals = {file.read_bytes()[2:] for file in folder.glob("*.jpg")}
        assert all(picture.jpeg[26:] in originals for picture in pictures)
    assert service.until_state("offline")["reason"]["code"] == "source_missing"


def test_another_camdock_is_relayed_with_its_token(start: StartService) -> None:
    first = start("synthetic:", CAMDOCK_TOKEN="for-the-relay-only")
    url = f"http://127.0.0.1:{first.port}/stream"
    second = start(f"relay:{url}#token=for-the-relay-only&fps=10")
    pictures = watch(second, 40)
    assert rate(pictures) == pytest.approx(10, rel=0.1)
    shown = numbers(pictures)
    assert shown == sorted(set(shown))
    third = start(f"relay:{url}#token=not-the-right-one")
    reason = third.until_state("offline")["reason"]
    assert reason["code"] == "source_denied"
    for service in (second, third):
        told = service.log + service.get("/cameras").body.decode() + service.get("/health").body.decode()
        assert "for-the-relay-only" not in told
        assert "not-the-right-one" not in told


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


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_a_camera_with_a_login_is_relayed_and_the_password_stays_secret(start: StartService, scheme: str) -> None:
    folder = frames.camera_frames((640, 480)) / "640x480"
    jpegs = tuple(file.read_bytes() for file in sorted(folder.glob("*.jpg"))[:20])
    handler = type("Handler", (_Guarded,), {"scheme": scheme, "jpegs": jpegs})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        service = start(f"relay:http://viewer:s3cret%21pw@127.0.0.1:{server.server_port}/?action=stream")
        pictures = watch(service, 10)
        assert all(picture.jpeg in jpegs for picture in pictures)
        wrong = start(f"relay:http://viewer:wr0ngpass@127.0.0.1:{server.server_port}/?action=stream")
        assert wrong.until_state("offline")["reason"]["code"] == "source_denied"
        server.shutdown()
    told = "".join(s.log + s.get("/cameras").body.decode() for s in (service, wrong))
    for secret in ("s3cret", "wr0ngpass", "s3cret%21pw"):
        assert secret not in told
