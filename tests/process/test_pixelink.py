"""PixeLINK cameras: pixelinkWrapper's own Python, unchanged, on a library that behaves like theirs (fakepixelink.c)."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.tools import build
from tests.tools.cannot import cannot
from tests.tools.frames import read_number
from tests.tools.pictures import awake, exposure_of, watch
from tests.tools.service import Service, until

OWN_US, TIMEOUT = 3096, "9000000C"
SOURCES = {
    "camera": "pixelink:",
    "second": "pixelink:1002?size=330x250&fps=50",
    "absent": "pixelink:1003?size=320x256",
}


class Bench(NamedTuple):
    """The service, and the folder that its cameras lie in."""

    service: Service
    folder: Path

    def told(self) -> list[str]:
        """Every call that opened, closed, started, stopped or set."""
        return (self.folder / "calls").read_text().splitlines()


def install_sdk(folder: Path) -> None:
    """Put the library into a folder as the vendor does, with its version behind its name."""
    whole = folder / "libPxLApi.so.4.2.6.29"
    shutil.copy(build.ensure("fakepixelink"), whole)
    (folder / "libPxLApi.so").symlink_to(whole.name)


def environment_of(folder: Path, sdk: Path) -> dict[str, str]:
    """That of a machine whose SDK and cameras lie in those folders; PIXELINK_SDK_LIB is not set, as on most."""
    sdk.mkdir()
    return {"LD_LIBRARY_PATH": str(sdk), "FAKEPIXELINK": str(folder)}


@pytest.fixture(scope="module", params=["pixelink service"])
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A running service with `SOURCES`; 1001 and 1002 are plugged in."""
    folder = tmp_path_factory.mktemp("pixelink")
    environment = environment_of(folder, folder / "sdk")
    install_sdk(folder / "sdk")
    for serial in ("1001", "1002"):
        (folder / serial).touch()
    sources = " ".join(f"{name}={source}" for name, source in SOURCES.items())
    with Service({"CAMDOCK_SOURCES": sources, "CAMDOCK_LINGER_S": "0.5", **environment}, folder) as service:
        for name in ("camera", "second", "absent"):
            service.until_state("idle", name)
        yield Bench(service, folder)
        assert "Traceback" not in service.log, service.log[-4000:]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_capture_is_the_camera_s_own_picture_in_its_true_colours(bench: Bench) -> None:
    taken = bench.service.ask("POST", "/capture", {}).json()
    assert (taken["width"], taken["height"]) == (640, 512), "the region of interest that was found"
    assert (taken["exposureTime"], taken["gain"]) == (OWN_US, 1.0)
    assert taken["metadata"] == {"format": "JPG", "quality": 95, "cameraConnected": True, "simulatedMode": False}
    jpeg = Path(taken["filepath"]).read_bytes()
    assert len(jpeg) == taken["fileSize"]
    picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    for pixel, expected in ((picture[256, 160], (200, 20, 20)), (picture[256, 480], (20, 20, 200))):
        assert abs(pixel - expected).max() < 12
    assert bench.service.camera()["device"] == "PixeLINK PL-FAKE (1001)"
    assert bench.service.camera()["format"] == "BAYER8_GRBG"


def test_the_stream_is_started_for_a_picture_and_stopped_when_nobody_looks(bench: Bench) -> None:
    bench.service.until_state("idle")
    (bench.folder / "calls").write_text("")
    assert bench.service.ask("POST", "/capture", {}).status == 200
    bench.service.until_state("idle")
    steps = [line for line in bench.told() if line.split()[0] in ("open", "stream", "close")]
    assert steps == ["open 1001", "stream 2", "stream 0", "stream 2", "close 1001"]


def test_live_pictures_come_in_order_at_the_rate_and_size_asked_for(bench: Bench) -> None:
    pictures = watch(bench.service, 30, 50, "second")
    shown = [read_number(picture.jpeg) for picture in pictures]
    assert shown == sorted(set(shown))
    camera = bench.service.camera("second")
    assert camera["device"] == "PixeLINK PL-FAKE (1002)", "the serial number asked for"
    assert camera["size"] == {"width": 320, "height": 240}, "the sensor has steps of 16"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_limits_are_the_camera_s_own_in_our_units(bench: Bench) -> None:
    assert bench.service.camera()["settings"]["limits"] == {
        "exposure_us": [10, 2_000_000],
        "gain": [1.0, 31.6228],  # 30 dB
        "auto_exposure": True,
    }


@pytest.mark.parametrize("wanted", [{"exposure": 10, "gain": 31.6228}, {"exposure": 50_000, "gain": 2.0}])
def test_what_is_put_is_in_force_to_the_ends_of_the_range(bench: Bench, wanted: dict[str, float]) -> None:
    service = bench.service
    with awake(service):
        answer = service.ask("PUT", "/settings", wanted).json()
        try:
            assert (answer["exposure"], answer["gain"]) == (wanted["exposure"], wanted["gain"])
            told = dict(line.split() for line in bench.told())
            assert float(told["exposure"]) == pytest.approx(wanted["exposure"] / 1e6)
            assert float(told["gain"]) == pytest.approx(20 * np.log10(wanted["gain"]), abs=0.001)
            beyond = service.ask("PUT", "/settings", {"exposure": 2_000_001, "gain": 31.7}).json()
            assert beyond == answer, "what is outside of the range leaves what was"
        finally:
            assert service.ask("PUT", "/settings", {"exposure": OWN_US, "gain": 1.0}).status == 200


def test_a_capture_s_own_exposure_is_in_its_picture_and_the_other_comes_back(bench: Bench) -> None:
    for exposure in (20_000, None, 777):
        asked = {"exposure": exposure, "gain": 1.5} if exposure else {}
        taken = bench.service.ask("POST", "/capture", asked).json()
        assert taken["exposureTime"] == exposure_of(Path(taken["filepath"]).read_bytes()) == (exposure or OWN_US)
        assert type(taken["exposureTime"]) is int
    answer = bench.service.get("/settings").json()
    assert (answer["exposure"], answer["gain"]) == (OWN_US, 1.0)


def test_automatic_exposure_is_switched_and_an_exposure_turns_it_off(bench: Bench) -> None:
    service, path = bench.service, "/cameras/second/settings"
    with awake(service, "second"):
        assert service.ask("PUT", path, {"auto_exposure": True}).json()["applied"]["auto_exposure"] is True
        applied = service.ask("PUT", path, {"exposure_us": 4000}).json()["applied"]
        assert (applied["auto_exposure"], applied["exposure_us"]) == (False, 4000)


def test_a_grey_camera_without_automatic_exposure_says_so_and_shows_grey(bench: Bench) -> None:
    service = bench.service
    service.until_state("idle", "second")
    (bench.folder / "mono").touch()
    with awake(service, "second") as viewer:
        assert service.camera("second")["format"] == "MONO8"
        assert service.camera("second")["settings"]["limits"]["auto_exposure"] is False
        refused = service.ask("PUT", "/cameras/second/settings", {"auto_exposure": True})
        assert refused.json()["code"] == "setting_unsupported"
        picture = Image.open(io.BytesIO(viewer.take(1)[0].jpeg)).convert("RGB")
        assert all(abs(level - 128) < 4 for level in picture.getpixel((160, 120)))
        changed = service.ask("PUT", "/cameras/second/settings", {"gain": 2.0})
        assert changed.json()["applied"]["gain"] == 2.0, "its pictures stop for it"
        assert len(viewer.take(10)) == 10
    (bench.folder / "mono").unlink()
    service.until_state("idle", "second")


# --- when it fails ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_few_pictures_that_fail_are_asked_for_again(bench: Bench) -> None:
    service = bench.service
    with awake(service) as viewer:
        worker, fault = service.worker().pid, bench.folder / "1001.fault"
        for _ in range(2):  # what failed before does not count
            before = service.camera()
            fault.write_text(f"{TIMEOUT} 4")
            until(lambda: fault.read_text() == f"{TIMEOUT.lower()} 0", 5, "they failed")
            seq = service.camera()["seq"]
            until(lambda seq=seq: service.camera()["seq"] > seq + 3, 5, "pictures go on")
            after = service.camera()
            assert after["drops"]["failed"] - before["drops"].get("failed", 0) == 4
        assert len(viewer.take(3)) == 3
        assert service.worker().pid == worker
    assert after["state"] == "live"


@pytest.mark.parametrize(
    ("code", "state", "says"),
    [
        (TIMEOUT, "stalled", "source_stalled"),
        pytest.param("8000000B", "offline", "source_failed", marks=pytest.mark.slow),
        pytest.param("80000007", "offline", "source_busy", marks=pytest.mark.slow),
        pytest.param("80000008", "offline", "source_missing", marks=pytest.mark.slow),
        pytest.param("9000001C", "offline", "source_denied", marks=pytest.mark.slow),
    ],
)
def test_a_camera_that_goes_on_failing_is_named_and_comes_back(bench: Bench, code: str, state: str, says: str) -> None:
    service, fault = bench.service, bench.folder / "1001.fault"
    with awake(service):
        fault.write_text(f"{code} -1")
        reason = service.until_state(state)["reason"]
        assert reason["code"] == says
        assert "the PixeLINK camera 1001" in reason["message"]
        assert reason["hint"]
        if says == "source_failed":
            assert "ApiOutOfBandwidthError: told to fail" in reason["message"], "the SDK's own words"
        assert service.ask("POST", "/capture", {}).json()["code"] == says
        fault.unlink()
        service.until_state("live")


def test_an_unplugged_camera_is_missed_and_waited_for_without_a_test_card(bench: Bench) -> None:
    service, plug = bench.service, bench.folder / "1001"
    second = bench.folder / "1002"
    with awake(service) as viewer:
        plug.unlink()
        second.unlink()  # or the first camera found would be that one
        reason = service.until_state("offline")["reason"]
        assert reason["code"] == "source_missing"
        assert "PixeLINK camera" in reason["message"]
        assert reason["hint"]
        refused = service.ask("POST", "/capture", {})
        assert (refused.status, refused.json()["code"]) == (503, "source_missing")
        assert service.get("/health").json()["camera_connected"] is False
        plug.touch()
        second.touch()
        service.until_state("live")
        assert len(viewer.take(3)) == 3, "the viewer stayed"
    taken = service.ask("POST", "/capture", {}).json()
    assert taken["metadata"]["simulatedMode"] is False
    assert "camera: no camera found" not in service.log


@pytest.mark.slow
def test_a_resting_camera_that_is_unplugged_is_missed_too(bench: Bench) -> None:
    bench.service.until_state("idle", "second")
    (bench.folder / "1002").unlink()
    reason = bench.service.until_state("offline", "second")["reason"]
    assert (reason["code"], reason["message"]) == ("source_missing", "no PixeLINK camera 1002 found; there is 1001")
    (bench.folder / "1002").touch()
    bench.service.until_state("idle", "second")


def test_a_camera_belongs_to_one_process(bench: Bench) -> None:
    service = bench.service
    service.until_state("idle")
    service.until_state("idle", "second")
    with (bench.folder / "1002.lock").open("w") as held:
        until(lambda: not fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB), 5, "it is given back at rest")
        refused = service.ask("POST", "/cameras/second/captures", {})
        assert refused.json()["code"] == "source_busy"
        assert "the PixeLINK camera 1002 is held by another process" in refused.json()["detail"]
    service.until_state("idle", "second")


@pytest.mark.slow
def test_the_first_camera_that_nobody_holds_is_the_first_found(bench: Bench) -> None:
    service = bench.service
    service.until_state("idle")
    with (bench.folder / "1001.lock").open("w") as held:
        until(lambda: not fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB), 5, "it is given back at rest")
        assert service.ask("POST", "/capture", {}).status == 200
        assert service.camera()["device"] == "PixeLINK PL-FAKE (1002)"
        service.until_state("idle")
    assert service.ask("POST", "/capture", {}).status == 200
    assert service.camera()["device"] == "PixeLINK PL-FAKE (1001)"


# --- without a camera -------------------------------------------------------------------------------------------------


@pytest.mark.slow  # a worker every second
def test_without_simulation_an_absent_camera_is_an_error(bench: Bench, tmp_path: Path) -> None:
    environment = {**bench.service.environment, "CAMDOCK_SOURCES": "strict=pixelink:1004?simulate=0"}
    with Service(environment, tmp_path) as service:
        reason = service.until_state("offline", "strict")["reason"]
    assert (reason["code"], reason["message"].split(";")[0]) == ("source_missing", "no PixeLINK camera 1004 found")


def test_an_absent_camera_is_simulated_and_said_once_and_taken_when_it_is_plugged_in(bench: Bench) -> None:
    service = bench.service
    with awake(service, "absent"):
        camera = service.camera("absent")
        assert camera["source"].startswith("synthetic:")
        assert camera["device"].startswith("simulated: no PixeLINK camera 1003 found")
        assert camera["size"] == {"width": 320, "height": 256}
        (bench.folder / "1003").touch()
        until(lambda: service.camera("absent")["device"] == "PixeLINK PL-FAKE (1003)", 15, "the camera is taken")
        service.until_state("live", "absent")
    assert service.camera("absent")["source"] == "pixelink:1003?size=320x256&simulate=0"
    warnings = [line for line in service.log.splitlines() if "absent: no camera found, so this is a test card" in line]
    assert len(warnings) == 1
    assert "WARNING" in warnings[0]
    (bench.folder / "1003").unlink()
    assert service.until_state("offline", "absent")["reason"]["code"] == "source_missing", "no card in its place"


@pytest.mark.slow
def test_the_old_service_s_environment_without_an_sdk_is_simulated_until_there_is_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CAMERA_SERIAL_NUMBER=1002\nDEFAULT_EXPOSURE=50000.0\nDEFAULT_GAIN=20.0\n")
    environment = environment_of(tmp_path, tmp_path / "sdk")
    for serial in ("1001", "1002"):
        (tmp_path / serial).touch()
    with Service({"CAMDOCK_LINGER_S": "0.5", **environment}, tmp_path, started_in=tmp_path) as service:
        for _ in range(2):
            service.until_state("idle")  # a second opening says nothing
            taken = service.ask("POST", "/capture", {}).json()
            assert taken["metadata"] == {
                "format": "JPG",
                "quality": 95,
                "cameraConnected": False,
                "simulatedMode": True,
            }
            assert (taken["width"], taken["height"]) == (1280, 1024)
        assert service.get("/health").json()["camera_connected"] is False
        assert service.get("/settings").json()["connected"] is False
        assert "libPxLApi.so" in service.camera()["device"]
        assert service.log.count("no camera found, so this is a test card") == 1
        with awake(service):
            install_sdk(tmp_path / "sdk")
            until(lambda: service.camera()["device"] == "PixeLINK PL-FAKE (1002)", 15, "the SDK is found", every_s=0.2)
            # The test card refused the gain, which the camera has.
            until(lambda: service.get("/settings").json()["gain"] == 20.0, 5, "the wanted settings are in force")
            taken = service.ask("POST", "/capture", {}).json()
        assert taken["metadata"] == {"format": "JPG", "quality": 95, "cameraConnected": True, "simulatedMode": False}
        assert (taken["exposureTime"], taken["gain"]) == (50_000, 20.0)
        assert service.get("/health").json()["camera_connected"] is True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"LD_LIBRARY_PATH": "/nowhere"}, "the PixeLINK SDK does not load: libPxLApi.so: cannot open"),
        ({"PIXELINK_SDK_LIB": "/nowhere"}, "pixelinkWrapper does not fit this PixeLINK SDK: Command"),
        ({"PIXELINK_SDK_LIB": "/proc/self/task"}, "pixelinkWrapper does not fit this PixeLINK SDK: invalid literal"),
    ],
)
def test_an_sdk_that_lacks_something_is_an_error_with_what_to_do(
    tmp_path: Path, given: dict[str, str], says: str
) -> None:
    environment = os.environ | environment_of(tmp_path, tmp_path / "sdk") | given
    install_sdk(tmp_path / "sdk")
    program = (
        "from camdock import pixelinksdk; from camdock.errors import DriverMissing\n"
        "try: pixelinksdk.load()\nexcept DriverMissing as error: print(error.message, error.hint, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30)
    message, hint = done.stdout.splitlines()
    assert message.startswith(says)
    assert "SDK" in hint


# --- the wrapper's own import -----------------------------------------------------------------------------------------

# What Windows 11 24H2 is to pixelinkWrapper 1.4.1: `REG` is there, `wmic` is not.
ON_WINDOWS = """
import ctypes, ctypes.util, os, subprocess, sys
from camdock import pixelinksdk
before = dict(vars(subprocess))
library = ctypes.CDLL("libPxLApi.so")
ctypes.WinDLL, ctypes.WINFUNCTYPE = (lambda name: library), ctypes.CFUNCTYPE
ctypes.util.find_library = lambda name: "C:\\\\Windows\\\\System32\\\\PxLAPI40.dll"
os.name = "nt"
try:
    api = pixelinksdk.import_wrapper() if sys.argv[1] == "ours" else __import__("pixelinkWrapper").PxLApi
finally:
    os.name = "posix"
    print("same" if dict(vars(subprocess)) == before else "patched")
import pixelinkWrapper
print(pixelinkWrapper.__version__, api._curApiVersion, api.getNumberCameras()[0])
"""


@pytest.fixture(scope="module")
def old_wrapper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pixelinkWrapper 1.4.1, unpacked; fetched once and kept."""
    kept = Path(os.environ.get("CAMDOCK_TEST_CACHE") or Path.home() / ".cache" / "camdock") / "wheels"
    wheel = kept / "pixelinkwrapper-1.4.1-py3-none-any.whl"
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(kept)]
        environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
        subprocess.run([*command, "pixelinkWrapper==1.4.1"], env=environment, check=False, capture_output=True)
    if not wheel.exists():
        cannot("the package index does not give pixelinkWrapper 1.4.1")
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def on_windows(old_wrapper: Path, folder: Path, whose: str) -> subprocess.CompletedProcess[str]:
    """Import 1.4.1 as if on a Windows without `wmic`; our way or the plain way."""
    environment = environment_of(folder, folder / "sdk")
    install_sdk(folder / "sdk")
    (folder / "bin").mkdir()
    (folder / "bin" / "REG").symlink_to("/bin/true")
    environment |= {"PYTHONPATH": str(old_wrapper), "PATH": str(folder / "bin")}
    return subprocess.run(
        [sys.executable, "-c", ON_WINDOWS, whose], env=environment, capture_output=True, text=True, timeout=30
    )


def test_wrapper_1_4_1_on_a_faked_windows_without_wmic_is_imported_and_leaves_subprocess_as_it_was(
    old_wrapper: Path, tmp_path: Path
) -> None:
    done = on_windows(old_wrapper, tmp_path, "ours")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["same", "1.4.1 99.99.99.99 0"], "and no warning of an old library"


def test_wrapper_1_4_1_on_a_faked_windows_fails_where_nobody_helps(old_wrapper: Path, tmp_path: Path) -> None:
    done = on_windows(old_wrapper, tmp_path, "plain")
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'wmic'" in done.stderr
