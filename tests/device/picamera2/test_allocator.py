"""'Picamera2' object has no attribute 'allocator': its causes on the library alone, and what the service makes of them.

A  the same camera opened twice in one process (picamera2 before 0.3.37): no picture comes any more
B  no /dev/dma_heap: the constructor fails
C  picamera2 0.3.12 beside libcamera 0.7.1: configure() fails, which would have made the attribute
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.device.picamera2.conftest import StartRigged
from tests.device.picamera2.rigged import UNPRIVILEGED, Rigged, program
from tests.tools.containers import Container
from tests.tools.service import Pulse, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SYMPTOM = "'Picamera2' object has no attribute 'allocator'"
OLD = "0.3.12"
SOURCE = "camera=picamera2:imx_virtual?size=640x480"

HEADLESS = """
import importlib.metadata, sys
import camdock.picamera2lib
sys.path.append(str(camdock.picamera2lib.HEADLESS))
import libcamera
print("picamera2", importlib.metadata.version("picamera2"), "libcamera", libcamera.CameraManager.version, flush=True)
"""

TWICE = """
from picamera2 import Picamera2
camera = Picamera2(1)
camera.configure(camera.create_video_configuration(main={"size": (640, 480), "format": "YUV420"}, raw=None))
camera.start()
camera.capture_request(wait=5).release()
print("pictures", flush=True)
try:
    Picamera2(1)
except RuntimeError as error:
    print("refused:", error, flush=True)
got = 0
try:
    for got in range(20):
        camera.capture_request(wait=2).release()
except TimeoutError:
    print("no picture any more after", got, flush=True)
import os
os._exit(0)  # closing it would hang
"""

NO_HEAP = """
from picamera2 import Picamera2
try:
    Picamera2(1)
except RuntimeError as error:
    print("refused:", error, flush=True)
"""

# The virtual pipeline has no raw role, which the constructor asks for; nothing else stands in for anything here.
TOO_OLD = """
real = libcamera.Camera.generate_configuration
def generate_configuration(self, roles):
    video, raw = libcamera.StreamRole.VideoRecording, libcamera.StreamRole.Raw
    return real(self, [video if role == raw else role for role in roles])
libcamera.Camera.generate_configuration = generate_configuration
from picamera2 import Picamera2
camera = Picamera2(1)
print("has it:", hasattr(camera, "allocator"), flush=True)
try:
    camera.configure(camera.create_video_configuration(main={"size": (640, 480), "format": "YUV420"}, raw=None))
except AttributeError as error:
    print("configure:", error, flush=True)
try:
    camera._make_requests.__func__(camera) if camera.streams else camera.allocator
except AttributeError as error:
    print("then:", error, flush=True)
import os
os._exit(0)
"""


def doctor(container: Rigged) -> tuple[int, dict[str, Any]]:
    """What `camdock doctor` says inside: its status, and its checks by name."""
    done = container.run("camdock", "doctor", "--json", "--deadline", "40", check=False)
    assert done.stdout, done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["checks"]}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed picamera2 0.3.12, as on a machine that was never updated."""
    kept = Path(os.environ.get("CAMDOCK_TEST_CACHE", Path.home() / ".cache" / "camdock")) / "picamera2"
    wheel = kept / f"picamera2-{OLD}-py3-none-any.whl"
    if not wheel.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version",
             "3.13", "--dest", kept, f"picamera2=={OLD}"],
            check=True, timeout=120, env={**os.environ, "PIP_CONSTRAINT": ""},
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    folder.chmod(0o755)
    return folder


def test_a_opened_twice_it_gives_no_picture_any_more(image: str) -> None:
    done = program(image, HEADLESS + TWICE)
    print(done.stdout)
    assert "picamera2 0.3.27 libcamera v0.7.1" in done.stdout
    assert "pictures\nrefused: Camera __init__ sequence did not complete." in done.stdout
    assert "no picture any more" in done.stdout
    assert SYMPTOM in done.stderr


def test_a_costs_the_service_one_worker(start: StartRigged) -> None:
    container = start(SOURCE)
    container.until_state("live")
    with Pulse(container.port) as pulse:
        (container.faults / "double").touch()
        until(lambda: container.camera()["restarts"].get("source_stalled"), 10, "it is noticed")
        (container.faults / "double").unlink()
        container.until_state("live")
    assert SYMPTOM in container.log
    assert not pulse.failures
    status, checks = doctor(container)
    assert SYMPTOM in checks["picamera2.allocator"]["what"], "there is none here, so that is what it names"
    assert checks["picamera2.library"]["what"] == "picamera2 0.3.27, libcamera 0.7.1 load together"
    assert checks["picamera2.copies"]["status"] == "ok"
    assert status == 1


def test_b_without_a_heap_the_constructor_fails_and_the_message_comes_at_the_end(image: str, tmp_path: Path) -> None:
    faults = tmp_path / "faults"  # the folder of pytest's own is for its user alone
    faults.mkdir()
    (faults / "no_heap").touch()
    done = program(image, HEADLESS + NO_HEAP, faults=faults)
    assert "picamera2 0.3.27 libcamera v0.7.1" in done.stdout
    assert "refused: Could not open any dmaHeap device" in done.stdout
    assert SYMPTOM in done.stderr


def test_b_is_told_by_the_service_and_by_the_doctor(start: StartRigged) -> None:
    container = start(SOURCE)
    container.until_state("live")
    (container.faults / "no_heap").touch()
    container.kill_worker()
    reason = container.until_state("offline")["reason"]
    until(lambda: container.camera()["restarts"].get("source_denied"), 10, "it was tried again")
    reason = container.camera()["reason"]
    assert reason["code"] == "source_denied"
    assert "there is no /dev/dma_heap" in reason["message"]
    assert "compose.pi.yaml" in reason["hint"]
    assert container.get("/health/live").status == 200
    status, checks = doctor(container)
    assert (status, checks["picamera2.allocator"]["status"]) == (1, "bad")
    assert checks["picamera2.allocator"]["what"].startswith(f"{SYMPTOM}: there is no /dev/dma_heap")
    assert "compose.pi.yaml" in checks["picamera2.allocator"]["hint"]
    (container.faults / "no_heap").unlink()
    container.until_state("live", within_s=45)  # where only a person can help it is tried every half minute


def test_c_an_old_picamera2_fails_in_configure_and_then_has_no_allocator(image: str, old: Path) -> None:
    words = ("--volume", f"{old}:/old:ro", "--env", "PYTHONPATH=/old")
    done = program(image, HEADLESS + TOO_OLD, *words, rigged=False)
    print(done.stdout)
    assert f"picamera2 {OLD} libcamera v0.7.1" in done.stdout
    assert "has it: False" in done.stdout
    assert "configure:" in done.stdout
    assert "transform" in done.stdout
    assert f"then: {SYMPTOM}" in done.stdout


def test_c_is_refused_by_the_service_which_names_the_pairing_and_so_does_the_doctor(
    image: str, old: Path, tmp_path: Path
) -> None:
    container = Rigged(image, tmp_path, CAMDOCK_SOURCES=SOURCE, PYTHONPATH="/old")
    container._words[:0] = ["--volume", f"{old}:/old:ro"]
    with container:
        reason = container.until_state("offline")["reason"]
        assert reason["code"] == "driver_missing"
        assert reason["message"] == f"picamera2 {OLD} does not work with libcamera 0.7.1"
        assert "picamera2>=0.3.17" in reason["hint"]
        assert container.get("/health/live").status == 200
        status, checks = doctor(container)
        assert status == 1
        assert checks["picamera2.allocator"]["what"].startswith(SYMPTOM)
        assert "picamera2>=0.3.17" in checks["picamera2.allocator"]["hint"]
        assert checks["picamera2.library"]["what"] == f"picamera2 {OLD} does not work with libcamera 0.7.1"
        copies = checks["picamera2.copies"]
        assert copies["status"] == "warning"
        assert copies["what"].startswith(f"picamera2 is installed 2 times: {OLD} from pip (/old/picamera2) is used")


def test_without_any_camera_the_service_says_so(image: str) -> None:
    with Container(image, *UNPRIVILEGED, CAMDOCK_AUTH="off", CAMDOCK_SOURCE="picamera2:0") as container:
        reason = container.until_state("offline")["reason"]
        assert (reason["code"], reason["message"]) == ("source_missing", "libcamera finds no camera")
        assert "ribbon cable" in reason["hint"]
        assert "driven with picamera2 0.3.27, libcamera 0.7.1" in container.log
