"""Clients that people have, in what they really ask: moving pictures, and moving pictures again behind a restart.

Home Assistant, OctoPrint, Mainsail and Fluidd by their sequences of requests, through the libraries that they use;
ffmpeg, GStreamer and OpenCV themselves. Chromium's `<img>` is in tests/page.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import httpx
import pytest
import requests
from PIL import Image
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from tests.tools.frames import video_file
from tests.tools.packages import needed
from tests.tools.service import Service, free_port, until

TOKEN, USER = "t0ken+for/all=", "homeassistant"
PAGE = "http://printer.local"
ONCE = ssl.create_default_context()  # httpx would read every authority's certificate for each client
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "motion.py"


class Restarted:
    """A service at one port, which can be stopped and started again there."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.environment = environment
        self.start()

    def start(self) -> None:
        """As it was."""
        self.service = Service(self.environment, self.folder, port=self.port).__enter__()

    def restart(self) -> None:
        """As `systemctl restart` does it."""
        self.service.stop()
        self.start()

    def url(self, path: str) -> str:
        """An address of it."""
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module", params=["restarted service"])
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    """One with a token, that pages of the printer's website may call."""
    service = Restarted(
        tmp_path_factory.mktemp("clients"),
        CAMDOCK_SOURCE="synthetic:?size=320x240&fps=30",
        CAMDOCK_TOKEN=TOKEN,
        CAMDOCK_ALLOWED_ORIGINS=PAGE,
    )
    yield service
    service.service.stop()
    assert "Traceback" not in service.service.log, service.service.log[-4000:]


def whole(jpeg: bytes) -> bytes:
    """The same; fails when it does not decode to its end."""
    Image.open(io.BytesIO(jpeg)).load()
    assert jpeg[-2:] == b"\xff\xd9"
    return jpeg


# --- Home Assistant ---------------------------------------------------------------------------------------------------


def validated(url: str, auth: AuthBase) -> int:
    """What its set-up form does with an address: opens it, looks at the status and goes away."""
    with closing(requests.get(url, auth=auth, stream=True, timeout=10)) as answer:
        return answer.status_code


async def cut_out(stream: AsyncIterator[bytes]) -> bytes:
    """The first JPEG of a stream, as its integration looks for it: by the first end, then the first start."""
    data = b""
    async for chunk in stream:
        data += chunk
        end, start = data.find(b"\xff\xd9"), data.find(b"\xff\xd8")
        if end != -1 and start != -1:
            return data[start : end + 2]
    raise AssertionError("the stream ended")


def home_assistant(url: str, auth: httpx.Auth | tuple[str, str]) -> bytes:
    """A still cut out of the stream, and the stream itself passed on for a moment; returns the still."""

    async def look() -> bytes:
        async with httpx.AsyncClient(timeout=10, verify=ONCE) as client:
            async with client.stream("get", url, auth=auth) as answer:
                assert answer.status_code == 200
                still = await cut_out(answer.aiter_bytes(102400))
            async with client.stream("get", url, auth=auth) as answer:
                assert answer.headers["content-type"].startswith("multipart/x-mixed-replace;boundary=")
                passed_on = b""
                async for chunk in answer.aiter_bytes(102400):
                    passed_on += chunk
                    if passed_on.count(b"Content-Length: ") > 10:
                        break
        assert len(set(re.findall(rb"X-Seq: (\d+)", passed_on))) > 9
        return still

    return whole(asyncio.run(look()))


@pytest.mark.parametrize("path", ["/stream", "/?action=stream", "/cameras/camera/stream"])
def test_home_assistant_s_form_takes_basic_and_its_digest(restarted: Restarted, path: str) -> None:
    url = restarted.url(path)
    assert validated(url, HTTPBasicAuth(USER, TOKEN)) == 200
    assert validated(url, HTTPDigestAuth(USER, TOKEN)) == 200
    assert validated(url, HTTPBasicAuth(USER, "wrong")) == 401, "so that it asks again, with Digest"
    assert validated(url, HTTPDigestAuth(USER, "wrong")) == 401, "so that it says the login is wrong"


def octoprint(restarted: Restarted) -> None:
    """Its time lapse: snapshots in pieces, by the address that people have in its settings, until three differ."""
    url = restarted.url(f"/?action=snapshot&token={TOKEN.replace('+', '%2B')}")
    taken = set()

    def three() -> bool:
        with closing(requests.get(url, stream=True, timeout=10)) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/jpeg"
            assert "no-store" in answer.headers["cache-control"]
            taken.add(whole(b"".join(answer.iter_content(chunk_size=1024))))
        return len(taken) == 3

    until(three, 5, "three different ones")


def mainsail_adaptive(restarted: Restarted) -> None:
    """Snapshots one behind the other as fast as they come, each with an address that no cache has seen; they move."""
    shown: list[bytes] = []
    with httpx.Client(params={"token": TOKEN}, headers={"Referer": f"{PAGE}/"}, verify=ONCE) as page:

        def moves() -> bool:
            answer = page.get(restarted.url(f"/snapshot?bypassCache={len(shown)}"))
            assert answer.status_code == 200
            shown.append(whole(answer.content))
            return len(set(shown)) > 1 and len(shown) >= 20

        until(moves, 5, "another picture", every_s=0)


def mainsail_reconnecting(restarted: Restarted) -> list[float]:
    """Its MJPEG streamer from another origin: the length of each part is read, and it connects anew now and then."""
    first_after = []
    for number in range(4):
        began = time.monotonic()
        headers = {"Origin": PAGE, "Authorization": f"Bearer {TOKEN}"}
        with restarted.service.stream(f"/stream?cacheBust={number}", headers=headers) as viewer:
            assert viewer.headers["access-control-allow-origin"] == PAGE
            pictures = viewer.take(3)
            first_after.append(pictures[0].arrived - began)
            assert [whole(picture.jpeg) for picture in pictures]
    return first_after


@pytest.mark.parametrize("restarts", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_they_ask_is_answered_before_and_behind_a_restart(restarted: Restarted, restarts: int) -> None:
    """The same objects throughout: Digest's keep the nonce of the service that was, and sign with it first."""
    url = restarted.url("/stream")
    logins: dict[str, httpx.Auth | tuple[str, str]] = {"basic": (USER, TOKEN), "digest": httpx.DigestAuth(USER, TOKEN)}
    stills = []
    for left in range(restarts, -1, -1):
        restarted.service.get(f"/snapshot?token={TOKEN.replace('+', '%2B')}")
        stills += [home_assistant(url, auth) for auth in logins.values()]
        for auth in logins.values():
            assert whole(httpx.get(restarted.url("/snapshot"), auth=auth, verify=ONCE).content)
        octoprint(restarted)
        mainsail_adaptive(restarted)
        assert max(mainsail_reconnecting(restarted)) < (3.0 if os.environ.get("PYTEST_XDIST_WORKER") else 1.0)
        state = restarted.service.get("/state", {"Authorization": f"Bearer {TOKEN}"}).json()
        assert state["result"]["source"]["online"] is True
        if left:
            restarted.restart()
    assert len(set(stills)) == len(stills)


def test_who_connects_anew_every_few_seconds_leaves_nobody_behind(restarted: Restarted) -> None:
    mainsail_reconnecting(restarted)
    asked = {"Authorization": f"Bearer {TOKEN}"}
    until(lambda: restarted.service.get("/cameras/camera", asked).json()["viewers"] == 0, 5, "all have left")


# --- programs ---------------------------------------------------------------------------------------------------------


def run(*command: str | Path, timeout_s: float = 40) -> bytes:
    """What a program prints; fails with its complaint."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout


def by_ffmpeg(url: str, _folder: Path) -> int:
    """Frigate's way in: so many different pictures of 25."""
    told = run("ffmpeg", "-nostdin", "-v", "error", "-i", url, "-frames:v", "25", "-f", "framemd5", "-").decode()
    sums = [line.rpartition(",")[2] for line in told.splitlines() if line and not line.startswith("#")]
    assert len(sums) == 25
    return len(set(sums))


def by_gstreamer(url: str, folder: Path) -> int:
    """So many different pictures of 25."""
    out = folder / "gstreamer.raw"
    pipeline = (
        f"souphttpsrc location={url}&frames=25 ! multipartdemux ! jpegdec ! videoconvert ! video/x-raw,format=GRAY8 "
        f"! filesink location={out}"
    )
    run("gst-launch-1.0", "-q", *pipeline.split())
    data, size = out.read_bytes(), 320 * 240
    assert len(data) == 25 * size
    return len({data[at : at + size] for at in range(0, len(data), size)})


def by_opencv(url: str, _folder: Path) -> int:
    """So many different pictures of 25."""
    stream = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    try:
        assert stream.isOpened()
        pictures = set()
        for _ in range(25):
            there, picture = stream.read()
            assert there
            assert picture.shape == (240, 320, 3)
            pictures.add(picture.tobytes())
        return len(pictures)
    finally:
        stream.release()


@pytest.mark.slow
@pytest.mark.parametrize(
    "client",
    [
        pytest.param(by_ffmpeg, marks=needed("ffmpeg")),
        pytest.param(by_gstreamer, marks=needed("gst-launch-1.0")),
        by_opencv,
    ],
)
def test_programs_see_moving_pictures_before_and_behind_a_restart(
    restarted: Restarted, client: Callable[[str, Path], int], tmp_path: Path
) -> None:
    token = TOKEN.replace("+", "%2B")
    for path in ("/stream?", "/?action=stream&"):
        assert client(restarted.url(f"{path}token={token}"), tmp_path) > 20
    restarted.restart()
    assert client(restarted.url(f"/stream?token={token}"), tmp_path) > 20


@pytest.mark.slow
@needed("ffmpeg")
def test_a_recording_ffmpeg_ends_with_the_service_and_does_not_hang(restarted: Restarted, tmp_path: Path) -> None:
    """Frigate starts one that has ended again; one that hangs it would have to find out about."""
    url = restarted.url(f"/stream?token={TOKEN.replace('+', '%2B')}")
    out = tmp_path / "recorded.mkv"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", url, "-c", "copy", out]
    recording = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: out.exists() and out.stat().st_size > 100_000, 20, "it records")
        restarted.restart()
        recording.wait(10)
    finally:
        recording.kill()
        recording.wait()
    stream = cv2.VideoCapture(str(out))
    frames = 0
    while stream.read()[0]:
        frames += 1
    stream.release()
    assert frames > 5


# --- Python programs --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_finds_motion_where_something_moves_and_nowhere_else(tmp_path: Path) -> None:
    sources = f"moving=synthetic:?size=320x240&fps=10 still=opencv:{video_file(tmp_path / 'still.avi', count=1)}?fps=10"
    with Service({"CAMDOCK_SOURCES": sources}, tmp_path) as service:
        service.until_state("live", "moving")
        service.until_state("live", "still")
        ended = {}
        for name in ("moving", "still"):
            command = [sys.executable, EXAMPLE, f"http://127.0.0.1:{service.port}", "--name", name, "--seconds", "2"]
            ended[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        told = {name: looking.communicate(timeout=30)[0] for name, looking in ended.items()}
    assert (ended["still"].returncode, told["still"]) == (1, "")
    assert ended["moving"].returncode == 0, told
    assert re.match(r"\d\d:\d\d:\d\d motion in \d+\.\d% of picture \d+\n", told["moving"])
