"""`camdock doctor` on machines with something wrong: named, with what mends it, and within ten seconds."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.process.conftest import StartService
from tests.process.test_abi_gate import RECIPES, unpack
from tests.tools import certificate
from tests.tools.cannot import cannot
from tests.tools.fuse import StuckFile
from tests.tools.service import ABI_CACHE, free_port, until

TOKEN = "0123456789abcdef"
WITHIN_S = 10.0
USUAL_START_S = 1.0  # what is more is the machine's, which has other things to do just now
PATIENT = ("--deadline", "30")  # where the time is no question: all is answered, on a busy machine too


@dataclass
class Said:
    """What it answered with --json."""

    status: int
    document: dict[str, Any]
    log: str

    def one(self, name: str) -> dict[str, Any]:
        """The check of that name; the worst where there are several."""
        order = ("bad", "warning", "unknown", "ok")
        found = [check for check in self.document["checks"] if check["name"] == name]
        assert found, f"no {name} in {self.document}"
        worst: dict[str, Any] = min(found, key=lambda check: order.index(check["status"]))
        return worst

    def bad(self) -> set[str]:
        """The names of all that is wrong."""
        return {check["name"] for check in self.document["checks"] if check["status"] == "bad"}


def environment(folder: Path, **given: str) -> dict[str, str]:
    """This process's, without what is configured for it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CAMDOCK_") and k not in ("HOST", "PORT")}
    mine = {"CAMDOCK_ABI_CACHE": str(ABI_CACHE), "CAMDOCK_STATE_DIR": str(folder), "CAMDOCK_PORT": str(free_port())}
    return {**inherited, **mine, **given}


def doctor(folder: Path, *arguments: str, before: Callable[[], None] | None = None, **given: str) -> Said:
    """Run it to its end: nothing but the report is on stdout, and it is there in the time that is promised.

    That is ten seconds where no other deadline is given, from before its interpreter starts until it has ended.
    """
    command = [sys.executable, "-m", "camdock", "doctor", "--json", *arguments]
    late = max(0.0, start_s() - USUAL_START_S) if "--deadline" not in arguments else 0.0
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder, **given), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=before,
    )  # fmt: skip
    output, log = process.communicate(timeout=40)
    assert output, log
    took_s = time.monotonic() - began
    if "--deadline" not in arguments:
        assert took_s < WITHIN_S + late, output
    document = json.loads(output)
    assert document["took_s"] < took_s
    assert "Traceback" not in log
    return Said(process.returncode, document, log)


def start_s() -> float:
    """How long an interpreter with the package in it takes to start on this machine, just now."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "camdock", "--version"], check=True, capture_output=True)
    return time.monotonic() - began


def needs_root(what: str) -> None:
    if os.geteuid() != 0:
        cannot(f"{what} needs root")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A device node that nobody but root may open, with a driver behind it that knows nothing of video."""
    needs_root("making a device node")
    path = tmp_path / "video9"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return path


# --- fast ones --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_that_is_wrong_is_named_at_once_and_the_configuration_that_can_be_used_is_used(tmp_path: Path) -> None:
    state = tmp_path / "a file"
    state.touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = doctor(
            tmp_path, *PATIENT,
            CAMDOCK_SOURCES="fine=synthetic:?size=64x64 busy=synthetic:?busy=1 gone=v4l2:/dev/video77",
            CAMDOCK_TOKEN_FILE=str(tmp_path / "no token"), CAMDOCK_PORT=str(port), CAMDOCK_STATE_DIR=str(state),
            CAMDOCK_SOURC="v4l2:0", CAMDOCK_LINGER_S="soon",
        )  # fmt: skip
    assert said.status == 1
    broken = {"token", "configuration", "camera.busy", "camera.gone", "disk.settings", "disk.captures", "port"}
    assert said.bad() == broken
    assert "no such file" in said.one("token")["what"]
    assert "openssl rand" in said.one("token")["hint"]
    assert "CAMDOCK_LINGER_S=soon" in said.one("configuration")["what"]
    assert next(c for c in said.document["checks"] if "CAMDOCK_SOURC is set" in c["what"])["status"] == "warning"
    assert said.one("camera.fine")["status"] == "ok"
    assert "64x64 JPEG" in said.one("camera.fine")["what"]
    assert said.one("camera.busy")["details"]["code"] == "source_busy"
    assert "/dev/video77 does not exist" in said.one("camera.gone")["what"]
    assert "is no folder" in said.one("disk.settings")["what"]
    assert f"127.0.0.1:{port} is held by pid {os.getpid()} (" in said.one("port")["what"]
    assert f"CAMDOCK_PORT={port + 1}" in said.one("port")["hint"]


def test_where_nothing_is_wrong_the_exit_status_is_0_and_the_keys_are_the_agreed_ones(tmp_path: Path) -> None:
    said = doctor(tmp_path, "--source", "synthetic:?size=64x64", *PATIENT)
    assert said.status == 0
    assert set(said.document) == {"camdock", "status", "took_s", "checks"}
    for check in said.document["checks"]:
        assert list(check) == ["name", "status", "what", "hint", "details"]
        assert check["status"] in ("ok", "warning", "unknown")
        assert check["what"]
    assert said.one("camera.camera")["details"]["opened"]["size"] == [64, 64]
    names = {check["name"] for check in said.document["checks"]}
    assert not names & {"configuration", "port", "disk.settings"}, "it was asked about the source alone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [("hang_open=1", "opening it did not come back"), ("stall_after=1", "")],
    ids=lambda one: one[:5],
)
def test_a_camera_that_hangs_is_given_up_in_time_and_one_that_gave_a_picture_is_well(
    tmp_path: Path, fault: str, words: str
) -> None:
    mark = f"synthetic:?{fault}&label={tmp_path.name}"
    said = doctor(tmp_path, "--source", mark, "--deadline", "5")
    camera = said.one("camera.camera")
    assert said.status == (1 if words else 0)
    assert camera["status"] == ("bad" if words else "ok")
    assert words in camera["what"]
    assert not [one for one in psutil.process_iter() if environ_of(one).get("CAMDOCK_STATE_DIR") == str(tmp_path)]


def environ_of(process: psutil.Process) -> dict[str, str]:
    """The environment of a process; of one that is gone, or is not ours, none."""
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--source", "synthetik:"], "did you mean synthetic:?"),
     pytest.param(["--deadline", "0"], "--deadline", marks=pytest.mark.slow),
     pytest.param(["now"], "now", marks=pytest.mark.slow)],
    ids=["source", "deadline", "word"],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_named_and_the_exit_status_is_2(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "camdock", "doctor", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "usage: camdock doctor" in done.stderr


# --- slow ones --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_in_words_for_people_with_the_command_at_the_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "camdock", "doctor"], env=environment(tmp_path, CAMDOCK_SOURCE="synthetic:?denied=1"),
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "", "no progress where nobody looks"
    assert re.search(r"(?m)^BAD      camera\.camera +synthetic:", done.stdout), done.stdout
    _, _, end = done.stdout.partition("\nWrong:\n1. ")
    assert end.startswith("synthetic:?denied=1"), done.stdout
    assert "\n   -> " in end
    assert "Nothing is wrong" not in done.stdout


@pytest.mark.slow
def test_a_camera_of_the_running_service_is_not_opened_and_the_service_notices_nothing(
    start: StartService, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    given = {"CAMDOCK_SOURCE": "synthetic:?fps=10", "CAMDOCK_TOKEN_FILE": str(token)}
    service = start(**given)
    head = {"Authorization": f"Bearer {TOKEN}"}
    seen = [service.ask("GET", "/snapshot", headers=head).status for _ in range(3)]
    assert seen[-1] == 200
    token.chmod(0o644)
    said = doctor(tmp_path, *PATIENT, CAMDOCK_PORT=str(service.port), **given)
    assert said.status == 0
    assert "Camdock answers" in said.one("port")["what"]
    camera = said.one("camera.camera")
    assert "was not opened" in camera["what"]
    assert camera["details"]["state"] == "live"
    assert TOKEN not in json.dumps(said.document), "the token is no part of a report"
    assert service.ask("GET", "/cameras/camera", headers=head).json()["restarts"] == {}


@pytest.mark.slow
def test_behind_https_the_service_is_known_and_under_auto_its_camera_is_left_alone(
    start: StartService, tmp_path: Path
) -> None:
    one = certificate.shared()
    given = {"CAMDOCK_SOURCE": "auto:?size=64x64", "CAMDOCK_TOKEN": TOKEN}
    service = start(**given)
    head = {"Authorization": f"Bearer {TOKEN}"}
    with service.stream("/stream", headers=head) as viewer:
        viewer.take(2)
        said = doctor(tmp_path, *PATIENT, CAMDOCK_PORT=str(service.port), **given)
    camera = said.one("camera.camera")
    assert (camera["status"], camera["details"]["state"]) == ("ok", "live"), camera
    assert "the Camdock on this port has it" in camera["what"]
    port, tls = free_port(), {"CAMDOCK_TLS_CERT": str(one.cert), "CAMDOCK_TLS_KEY": str(one.key)}
    command = [sys.executable, "-m", "camdock", "synthetic:?size=64x64"]
    with subprocess.Popen(
        command, env=environment(tmp_path, CAMDOCK_PORT=str(port), CAMDOCK_TOKEN=TOKEN, **tls)
    ) as other:
        try:
            until(lambda: listens(port), 20, "no service")
            said = doctor(tmp_path, *PATIENT, CAMDOCK_PORT=str(port), CAMDOCK_TOKEN=TOKEN, **tls)
        finally:
            other.terminate()
    assert "Camdock answers" in said.one("port")["what"]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "name", "says"),
    [({"CAMDOCK_SOURCE": "v4l2:/dev/video77"}, "camera.camera", "/dev/video77 does not exist"),
     ({"CAMDOCK_TOKEN_FILE": "/no/such/token"}, "token", "there is no such file"),
     ({"CAMDOCK_SOURCE": "synthetic:?hang_open=1"}, "camera.camera", "opening it did not come back")],
    ids=["no device", "no token", "hangs"],
)  # fmt: skip
def test_what_is_wrong_is_named_within_ten_seconds(tmp_path: Path, given: dict[str, str], name: str, says: str) -> None:
    said = doctor(tmp_path, **{"CAMDOCK_SOURCE": "synthetic:?size=64x64", **given})
    assert said.bad() == {name}
    assert says in said.one(name)["what"]


@pytest.mark.slow
def test_who_holds_a_device_is_named_with_its_process_id(tmp_path: Path, node: Path) -> None:
    script = f"import time; file = open({str(node)!r}, 'rb'); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = doctor(tmp_path, CAMDOCK_SOURCE=f"v4l2:{node}")
        holder.kill()
    name = Path(sys.executable).resolve().name[:15]
    by = re.compile(rf"pid {holder.pid} \(({re.escape(name)}|python[\d.]*)\)")
    assert said.status == 1
    camera = said.one("camera.camera")
    assert by.search(camera["what"]), camera
    held = [check["details"].get("holders", {}) for check in said.document["checks"] if check["name"] == "devices"]
    assert [[pid for pid, _, _ in by_path[str(node)]] for by_path in held if by_path] == [[holder.pid]]


@pytest.mark.slow
def test_without_permission_the_node_is_named_with_what_gives_it(tmp_path: Path, node: Path) -> None:
    os.chown(node, 65534, 44)
    libc = ctypes.CDLL(None, use_errno=True)

    def as_anybody() -> None:
        """Root, but for the right to pass over permissions, which no process below gets back."""
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP

    said = doctor(tmp_path, CAMDOCK_SOURCE=f"v4l2:{node}", before=as_anybody)
    assert said.status == 1
    camera = said.one("camera.camera")
    assert camera["details"]["code"] == "source_denied"
    assert f"{node} may not be opened by this user" in camera["what"]
    assert f"chmod 660 {node}" in camera["hint"]
    device = [one for one in said.document["checks"] if one["name"] == "devices" and "may not be opened" in one["what"]]
    assert f"chmod 660 {node}" in device[0]["hint"]


@pytest.mark.slow
def test_a_camera_is_shown_with_its_formats_and_one_whose_driver_hangs_is_named_and_left_alone(
    tmp_path: Path, fake_camera: Callable[..., dict[str, str]]
) -> None:
    hang = tmp_path / "hang"
    given = fake_camera(FAKEV4L2_HANG=str(hang), CAMDOCK_SOURCE="v4l2:/dev/video7?size=640x480")
    said = doctor(tmp_path, *PATIENT, **given)
    assert said.one("camera.camera")["status"] == "ok", said.document
    formats = said.one("devices")["details"]["formats"]["/dev/video7"]
    assert "640x480" in formats["MJPG"]
    hang.touch()
    said = doctor(tmp_path, **given)
    assert said.status == 1
    assert "/dev/video7 does not answer" in said.one("devices")["what"]
    assert "was not opened" in said.one("camera.camera")["what"]


@pytest.mark.slow
def test_a_process_that_cannot_be_killed_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    needs_root("mounting a file system of our own")
    with StuckFile(tmp_path / "mount") as stuck:
        said = doctor(tmp_path, CAMDOCK_SOURCES=f"stuck=synthetic:?block_on={stuck.path}&block_after=0 fine=synthetic:")
        assert said.status == 1
        camera = said.one("camera.stuck")
        found = re.search(r"process (\d+) cannot be killed", camera["what"])
        assert found, camera
        assert psutil.Process(int(found[1])).status() == psutil.STATUS_DISK_SLEEP
        assert said.one("camera.fine")["status"] == "ok"
        # A token's file that does not answer costs the token, not the report.
        # Half of the time goes to it, and what is left of seven seconds may be too little on a busy machine.
        said = doctor(
            tmp_path, "--deadline", "14", CAMDOCK_SOURCE="synthetic:?size=64x64", CAMDOCK_TOKEN_FILE=str(stuck.path)
        )
        assert said.status == 1
        assert "the configuration cannot be read" in said.one("configuration")["what"]
        assert said.one("camera.camera")["status"] == "ok"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is full."""
    needs_root("mounting a file system")
    folder = tmp_path / "full"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"full", os.fsencode(folder), b"tmpfs", 0, b"size=1m") == 0, os.strerror(ctypes.get_errno())
    try:
        with (folder / "all of it").open("wb", buffering=0) as file:
            file.write(bytes(2 << 20))
            assert file.tell() == 1 << 20, "no more went in"
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)


@pytest.mark.slow
def test_a_full_disk_is_named_with_its_folder(tmp_path: Path, full: Path) -> None:
    before = set(full.iterdir())
    said = doctor(tmp_path, CAMDOCK_SOURCE="synthetic:?size=64x64", CAMDOCK_STATE_DIR=str(full))
    assert said.status == 1
    assert said.bad() == {"disk.settings", "disk.captures"}
    assert f"{full} is full" in said.one("disk.settings")["what"]
    assert "df -h" in said.one("disk.settings")["hint"]
    assert set(full.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("requirement", RECIPES)
def test_a_broken_abi_is_named_with_the_command_that_mends_it(tmp_path: Path, requirement: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    unpack(requirement, broken)
    source, fault = RECIPES[requirement]
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    said = doctor(tmp_path, CAMDOCK_SOURCE=source, PYTHONPATH=str(broken), CAMDOCK_ABI_CACHE=str(broken / "abi.json"))
    assert said.status == 1
    name, version = requirement.split("==")
    abi = said.one("abi")
    assert abi["status"] == "bad"
    assert name in abi["what"]
    assert version in abi["what"]
    assert "pip install" in abi["hint"]
    assert said.one("camera.camera")["status"] == "bad", "the driver really breaks: so it was about something"
    assert fault.partition(" ")[0] in json.dumps(said.document) or "_ARRAY_API" in json.dumps(said.document)


@pytest.mark.slow
def test_it_runs_where_numpy_opencv_and_pydantic_cannot_be_imported(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for name in ("numpy", "cv2", "simplejpeg", "pydantic", "pydantic_core", "fastapi"):
        (broken / name).mkdir(parents=True)
        (broken / name / "__init__.py").write_text(
            "import os; os.abort()" if name == "cv2" else "raise ImportError('x')"
        )
    said = doctor(tmp_path, *PATIENT, CAMDOCK_SOURCE="synthetic:?format=RGB", PYTHONPATH=str(broken))
    assert said.status == 1
    assert {"configuration", "camera.camera"} <= said.bad()
    assert said.one("backend.opencv")["status"] == "warning"
    assert "SIGABRT" in said.one("backend.opencv")["what"]


@pytest.mark.slow
def test_opencv_is_tried_with_each_of_its_video_back_ends(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    for shade in range(10):
        writer.write(np.full((64, 64, 3), shade * 20, np.uint8))
    writer.release()
    said = doctor(tmp_path, *PATIENT, CAMDOCK_SOURCE=f"opencv:{clip}?backend=v4l2")
    assert said.one("camera.camera")["status"] == "bad", "a file is no camera"
    tried = said.one("camera.camera.backends")
    assert tried["details"]["able"] == ["ffmpeg"]
    assert "backend=ffmpeg" in tried["hint"]
    assert said.one("opencv.ffmpeg")["details"]["able"] is True


@pytest.mark.slow
def test_one_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    source = f"synthetic:?hang_open=1&label={tmp_path.name}"
    process = subprocess.Popen(
        [sys.executable, "-m", "camdock", "doctor", "--source", source], stdout=subprocess.DEVNULL,
        env=environment(tmp_path),
    )  # fmt: skip
    mine = psutil.Process(process.pid)
    due = time.monotonic() + 20
    while not (found := [one for one in mine.children(True) if "camdock.worker" in one.cmdline()]):
        assert time.monotonic() < due, "no worker"
    children = mine.children(True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, left = psutil.wait_procs(children, 5)
    assert found
    assert not left
