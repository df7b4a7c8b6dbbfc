"""The gate at start: no process is started whose libraries would break with the installed NumPy.

What breaks here is real: wheels from PyPI that were built for NumPy 1.x, over the NumPy 2.x of this environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.process.conftest import StartService
from tests.tools.service import Service, until
from tests.tools.upstream import moving, upstream

JPEG = (Path(__file__).parents[1] / "tools" / "photographs" / "coffee.jpg").read_bytes()
# requirement -> a source whose worker loads it, and the fault that a real import shows
RECIPES = {
    "simplejpeg==1.7.2": ("synthetic:", "numpy.dtype size changed"),
    "opencv-python-headless==4.8.1.78": ("opencv:clip.mp4", "numpy.core.multiarray failed to import"),
}
if sys.version_info >= (3, 13):  # the other one is abi3: it is there for every Python
    del RECIPES["simplejpeg==1.7.2"]  # built for NumPy 1.x, it exists up to CPython 3.12


class Started:
    """Every Python process that was started with this folder first on its path, for ever: sitecustomize writes it down.

    hold  while this file is there, the check waits before it does anything
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.book, self.hold = folder, folder / "started.jsonl", folder / "hold"
        (folder / "sitecustomize.py").write_text(
            "import json, os, sys, time\n"
            f"with open({str(self.book)!r}, 'a') as book:\n"
            "    book.write(json.dumps([os.getpid(), *sys.orig_argv[1:]]) + '\\n')\n"
            f"while 'camdock.abi' in sys.orig_argv and os.path.exists({str(self.hold)!r}):\n"
            "    time.sleep(0.01)\n"
        )
        self.environment = {"PYTHONPATH": str(folder), "CAMDOCK_ABI_CACHE": str(folder / "cache" / "abi.json")}

    def all(self, module: str, label: str = "") -> list[int]:
        """The process ids of `python -m MODULE LABEL`, also of those that have ended."""
        lines = [json.loads(line) for line in self.book.read_text().splitlines()]
        starts = [(pid, [word for word in words if word != "-P"]) for pid, *words in lines]
        return [pid for pid, words in starts if words[:2] == ["-m", module] and label in ("", *words[2:3])]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """What is started in this test."""
    folder = tmp_path / "first-on-the-path"
    folder.mkdir()
    return Started(folder)


def unpack(requirement: str, into: Path) -> None:
    """Fetch a wheel, and put what is in it where pip would, as the wheel has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    wheels = into / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "-d", wheels, requirement],
        env=environment, check=True, timeout=300,
    )  # fmt: skip
    with zipfile.ZipFile(next(wheels.iterdir())) as wheel:
        wheel.extractall(into)
    shutil.rmtree(wheels)


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A camera for `relay:`, which needs no NumPy."""
    over = threading.Event()
    with upstream(moving(JPEG, 0.05, over)) as port:
        yield f"relay:http://127.0.0.1:{port}/"
        over.set()


def known(service: Service) -> str:
    """What /health says of the libraries, once that is known."""
    state: str = until(lambda: (now := service.get("/health").json()["abi"]) != "checking" and now, 30, "it is known")
    return state


@pytest.mark.slow
@pytest.mark.parametrize("requirement", RECIPES)
def test_a_broken_environment_keeps_the_api_up_and_no_worker_is_ever_started(
    start: StartService, started: Started, elsewhere: str, requirement: str
) -> None:
    source, fault = RECIPES[requirement]
    name, version = requirement.split("==")
    unpack(requirement, started.folder)
    package = name.removesuffix("-python-headless")
    service = start(CAMDOCK_SOURCES=f"front={source} nest={elsewhere}", **started.environment)
    assert known(service) == "broken"
    assert service.get("/health/live").status == 200
    ready = service.get("/health/ready")
    assert (ready.status, ready.headers["content-type"]) == (503, "application/problem+json")
    problem = ready.json()
    assert problem["code"] == "abi_broken"
    for word in (name, version, "NumPy 2"):
        assert word in problem["detail"], problem
    assert "pip install" in problem["hint"]
    assert "restart" in problem["hint"]

    nest = service.until_state("live", "nest")
    assert nest["restarts"] == {}, "a camera that does not load it goes on"
    with service.stream("/cameras/front/stream", timeout_s=20) as viewer:
        assert len(viewer.take(4)) == 4, "who looks is shown why, once a second"
    front = service.camera("front")
    assert (front["state"], front["reason"]["code"], front["reason"]["retry"]) == ("offline", "driver_missing", False)
    assert front["reason"]["hint"] == problem["hint"]
    assert front["restarts"] == {}
    assert len(started.all("camdock.worker", "nest")) == 1
    assert started.all("camdock.worker", "front") == []
    assert len(started.all("camdock.pixelsworker")) == 1, "it has drawn the reason, and did not die of it"
    assert service.get("/cameras/front/snapshot").json()["code"] == "driver_missing"
    small = service.get("/cameras/nest/snapshot?width=100")
    assert small.status == (503 if package == "simplejpeg" else 200), small

    told = [line for line in service.log.splitlines() if " ERROR " in line]
    assert len(told) == 1, service.log
    assert problem["hint"] in told[0]
    assert "Traceback" not in service.log
    assert 'camdock_abi{state="broken"} 1.0' in service.get("/metrics").body.decode()
    service.stop()

    # Without the gate it does break, so all of this was about something.
    service = start(source, CAMDOCK_ABI="off", **started.environment)
    assert service.get("/health").json()["abi"] == "off"
    assert fault in service.until_state("offline")["reason"]["message"] or fault in service.log
    service.stop()

    # Mended as pip does it: a restart is enough.
    for leftover in [*started.folder.glob(f"{package[:6]}*"), *started.folder.glob("cv2*")]:
        shutil.rmtree(leftover)
    service = start("synthetic:", **started.environment)
    assert known(service) == "ok"
    service.until_state("live")


@pytest.mark.parametrize("starts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_api_answers_while_the_check_runs_the_camera_waits_for_it_and_the_second_start_asks_nobody(
    start: StartService, started: Started, starts: int
) -> None:
    started.hold.touch()
    service = start("synthetic:", **started.environment)
    assert service.get("/health").json()["abi"] == "checking"
    until(lambda: started.all("camdock.abi"), 10, "the check is started")
    assert service.camera()["state"] == "starting"
    assert service.get("/health/ready").json()["code"] == "not_ready"
    assert started.all("camdock.worker") == []
    started.hold.unlink()
    took = []
    for workers in range(1, starts + 1):
        service.until_state("live")
        assert service.get("/health").json()["abi"] == "ok"
        assert service.get("/health/ready").status == 200
        assert len(started.all("camdock.abi")) == 1
        assert len(started.all("camdock.worker")) == workers
        took += re.findall(r"abi: ok: NumPy 2.*\((\d\.\d+) s\)", service.log)
        service.stop()
        if workers < starts:
            service = start("synthetic:", **started.environment)
    print(f"the gate took {took} s, at the first start held up by the test")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_check_that_hangs_does_not_outlive_the_service(start: StartService, started: Started, end: str) -> None:
    started.hold.touch()
    service = start("synthetic:", **started.environment)
    check = until(lambda: started.all("camdock.abi"), 10, "the check is started")[0]
    if end == "SIGTERM":
        assert service.stop() < 5
    else:
        service.kill()
    until(lambda: not psutil.pid_exists(check) or psutil.Process(check).status() == "zombie", 5, "it is gone")


@pytest.mark.slow
def test_what_lies_in_the_folder_it_is_started_in_is_neither_judged_nor_imported(tmp_path: Path) -> None:
    (tmp_path / "simplejpeg.py").write_text("raise ImportError('the wrong one')")
    environment = {"CAMDOCK_SOURCE": "synthetic:"}
    with Service(environment, tmp_path, started_in=tmp_path) as service:
        assert known(service) == "ok"
        assert service.get("/snapshot").status == 200
