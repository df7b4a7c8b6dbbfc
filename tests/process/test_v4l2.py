"""V4L2 cameras: what they send arrives whole, in order, in its true colours; what they cannot do is said."""

from __future__ import annotations

import hashlib
import io
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.process.conftest import StartService, fake_cameras
from tests.tools.pictures import awake, numbers, watch
from tests.tools.service import Picture, Service, until

# Cameras of one service, which the tests look at one after the other.
CAMERAS = {
    "mjpg": "v4l2:/dev/video7?size=640x480&fps=30&format=MJPG",
    "yuyv": "v4l2:/dev/video8?size=640x480&fps=30&format=YUYV",
    "nv12": "v4l2:/dev/video9?size=640x480&fps=30&format=NV12",
    "controls": "v4l2:/dev/video10?size=640x480&exposure_us=5000&gain=2",
    "lacking": "v4l2:/dev/video11?format=RGB3",
}


class Several(NamedTuple):
    """The service, its environment, and what spoils its pictures while it is there."""

    service: Service
    environment: dict[str, str]
    broken: Path
    flagged: Path


@pytest.fixture(scope="module", params=["several service"])
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """A running service with `CAMERAS`; those that nobody looks at rest."""
    folder = tmp_path_factory.mktemp("several")
    broken, flagged = folder / "broken", folder / "flagged"
    environment = fake_cameras(
        folder,
        FAKEV4L2=",".join(f"/dev/video{number}" for number in range(7, 12)),
        FAKEV4L2_FORMATS="MJPG,YUYV,NV12",
        FAKEV4L2_BROKEN=str(broken),
        FAKEV4L2_ERRFLAG=str(flagged),
    )
    sources = " ".join(f"{name}={source}" for name, source in CAMERAS.items())
    with Service({"CAMDOCK_SOURCES": sources, "CAMDOCK_LINGER_S": "0.5", **environment}, folder) as service:
        for name in ("mjpg", "yuyv", "nv12", "controls"):
            service.until_state("idle", name)  # five processes that start take pictures away from each other
        yield Several(service, environment, broken, flagged)
        assert "Traceback" not in service.log


def test_mjpg_is_passed_through_byte_for_byte(several: Several) -> None:
    folder = Path(several.environment["FAKEV4L2_JPEGS"]) / "640x480"
    originals = {hashlib.sha256(file.read_bytes()[2:]).digest() for file in folder.glob("*.jpg")}
    for _ in range(3):  # a machine that does something else loses a picture; a service that loses them always does
        pictures = watch(several.service, 45, 30, name="mjpg")
        sequence = []
        for picture in pictures:
            assert picture.jpeg[:10] == b"\xff\xd8\xff\xfe\x00\x16FV4L"
            sequence.append(int.from_bytes(picture.jpeg[10:18], "little"))
            assert hashlib.sha256(picture.jpeg[26:]).digest() in originals
        numbers(pictures[:10])
        steps = [after - before for before, after in pairwise(sequence)]
        assert min(steps) >= 1, "in order, none twice"
        if max(steps) == 1:
            return
    raise AssertionError(f"pictures are missing: {steps}")


@pytest.mark.parametrize("name", ["yuyv", "nv12"])
def test_raw_formats_are_encoded_and_show_the_same_scene(several: Several, name: str) -> None:
    same_scene(watch(several.service, 20, 30, name), several.environment, "RGB")


@pytest.mark.slow
@pytest.mark.parametrize("pixel_format", ["YU12", "GREY", "RGB3", "BGR3"])
def test_rarer_raw_formats_too(
    start: StartService, fake_camera: Callable[..., dict[str, str]], pixel_format: str
) -> None:
    environment = fake_camera(FAKEV4L2_FORMATS=pixel_format)
    service = start(f"v4l2:/dev/video7?size=640x480&fps=30&format={pixel_format}", **environment)
    same_scene(watch(service, 60, 30), environment, "L" if pixel_format == "GREY" else "RGB")


def same_scene(pictures: list[Picture], environment: dict[str, str], mode: str) -> None:
    """They are distinct, in order, and show what the camera shows, in its colours."""
    shown = numbers(pictures)
    assert len(set(shown)) == len(shown)
    assert shown == sorted(shown)
    # The colours of the photograph that the camera shows, not swapped and not shifted.
    originals = sorted((Path(environment["FAKEV4L2_JPEGS"]) / "640x480").glob("*.ppm"))
    original = originals[shown[0] % len(originals)]
    ours, theirs = (
        Image.open(io.BytesIO(data))
        .convert(mode)
        .crop((0, 64, 640, 480))
        .resize((20, 13), Image.Resampling.BOX)
        .tobytes()
        for data in (pictures[0].jpeg, original.read_bytes())
    )
    assert statistics.mean(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 6


@pytest.mark.slow
def test_a_camera_without_huffman_tables_is_mended(
    start: StartService, fake_camera: Callable[..., dict[str, str]]
) -> None:
    # Such cameras are old ones, and old drivers know no rate either.
    environment = fake_camera(FAKEV4L2_NODHT="1", FAKEV4L2_NORATE="1")
    service = start("v4l2:/dev/video7?size=640x480&format=MJPG", **environment)
    pictures = watch(service, 30)
    numbers(pictures)
    assert all(b"\xff\xc4" in picture.jpeg[:1000] for picture in pictures)


@pytest.mark.slow  # two stalls
def test_broken_frames_are_dropped_and_counted(several: Several) -> None:
    service = several.service

    def dropped() -> int:
        count: int = service.camera("mjpg")["drops"].get("broken", 0)
        return count

    with awake(service, "mjpg"):
        for switch in (several.broken, several.flagged):
            service.until_state("live", "mjpg")
            before = dropped()
            switch.touch()
            until(lambda: service.camera("mjpg")["state"] == "stalled", 5, "nothing but broken frames is a stall")
            switch.unlink()
            service.until_state("live", "mjpg")
            assert dropped() >= before + 10
        figures = service.get("/metrics").body.decode()
        assert f'camdock_dropped_frames_total{{camera="mjpg",reason="broken"}} {dropped()}' in figures


def test_exposure_and_gain_reach_the_camera(several: Several) -> None:
    service, path = several.service, "/cameras/controls/settings"
    with awake(service, "controls"):
        settings = service.get(path).json()
        assert settings["applied"] == {"exposure_us": 5000, "gain": 2.0, "auto_exposure": False}
        answer = service.ask("PUT", path, {"exposure_us": 12_340})
        assert answer.json()["applied"]["exposure_us"] == 12_300, "the camera counts in 100 us"
        automatic = service.ask("PUT", path, {"auto_exposure": True}).json()["applied"]
        assert automatic["auto_exposure"] is True
        low, high = settings["limits"]["exposure_us"]
        refused = service.ask("PUT", path, {"exposure_us": high + 1})
        assert refused.status == 422
        assert refused.json()["code"] == "setting_out_of_range"
        assert str(low) in refused.json()["hint"]


def test_a_format_that_the_camera_lacks_is_named_with_those_it_has(several: Several) -> None:
    reason = several.service.until_state("offline", "lacking")["reason"]
    assert "RGB3" in reason["message"]
    assert "MJPG, YUYV, NV12" in reason["hint"]


@pytest.mark.slow
def test_a_camera_that_cannot_be_opened_says_why(
    start: StartService, fake_camera: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    switches = {name: tmp_path / name for name in ("GONE", "BUSY", "DENIED")}
    switches["GONE"].touch()
    service = start("v4l2:/dev/video7", **fake_camera(**{f"FAKEV4L2_{k}": str(v) for k, v in switches.items()}))
    told = {}
    for fault, follows in (("GONE", "BUSY"), ("BUSY", "DENIED"), ("DENIED", "")):
        wanted = {"GONE": "source_missing", "BUSY": "source_busy", "DENIED": "source_denied"}[fault]
        until(lambda wanted=wanted: (service.camera()["reason"] or {}).get("code") == wanted, 8, lambda: service.log)
        told[fault] = service.camera()["reason"]
        if follows:
            switches[follows].touch()
        switches[fault].unlink()
    for reason in told.values():
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
