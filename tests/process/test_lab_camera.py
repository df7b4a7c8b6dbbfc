"""The lab camera: the old client's calls, one by one; stills with settings of their own; drivers that fail at them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.process.conftest import StartService
from tests.tools.frames import read_number
from tests.tools.pictures import exposure_of
from tests.tools.raw import connect, request, reset
from tests.tools.service import Service, until

NAME = re.compile(r"capture_\d{8}_\d{6}_\d{3}\.jpg")
IN_FLIGHT = 4


@pytest.fixture(scope="module", params=["lab service"])
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service as the old one's users start it, from its `.env`; its settings show four pictures late."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / ".env").write_text(
        "DEFAULT_EXPOSURE=3096.0\ndefault_gain=1.0\nIMAGE_SAVE_PATH=./captures\nIMAGE_FORMAT=JPG\nIMAGE_QUALITY=95\n"
        "ALLOWED_ORIGINS=http://localhost:3000,http://localhost:5173\n"
    )
    source = f"synthetic:?size=1280x1024&fps=30&format=YUV420&in_flight={IN_FLIGHT}&settle_frames={IN_FLIGHT}"
    with Service({"CAMDOCK_SOURCE": source}, folder, started_in=folder) as service:
        service.until_state("live")
        yield service
        assert "Traceback" not in service.log, service.log[-4000:]


ODD = {
    "late": "synthetic:?size=320x240&fps=20&in_flight=4",
    "own": "synthetic:?size=320x240&fps=20&format=JPEG&quality=31",
}


@pytest.fixture(scope="module", params=["odd service"])
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with a camera for every oddity."""
    sources = " ".join(f"{name}={source}" for name, source in ODD.items())
    with Service({"CAMDOCK_SOURCES": sources}, tmp_path_factory.mktemp("odd")) as service:
        yield service
        assert "Traceback" not in service.log, service.log[-4000:]


@pytest.fixture
def client(lab: Service) -> Iterator[httpx.Client]:
    """What calls it; the settings are as they were behind every test."""
    with httpx.Client(base_url=f"http://127.0.0.1:{lab.port}", timeout=10, verify=False) as calling:  # no TLS here
        assert calling.put("/settings", json={"exposure": 3096, "gain": 1.0}).status_code == 200
        yield calling


def types_of(answer: Any) -> Any:
    """The shape of an answer: its keys in their order, and the type of each value."""
    if isinstance(answer, dict):
        return {name: types_of(value) for name, value in answer.items()}
    return type(answer).__name__


def is_local_time(text: str) -> bool:
    """ISO 8601 without a zone, with microseconds, and now."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", text), text
    return abs((datetime.now() - datetime.fromisoformat(text)).total_seconds()) < 60


# --- the old client, call by call -------------------------------------------------------------------------------------


def test_health_is_what_it_was(client: httpx.Client) -> None:
    answer = client.get("/health").json()
    assert (answer["status"], answer["camera_connected"]) == ("healthy", True)
    assert is_local_time(answer["timestamp"])


def test_the_settings_are_what_they_were(client: httpx.Client) -> None:
    answer = client.get("/settings")
    assert answer.status_code == 200
    assert answer.text == (
        '{"exposure":3096,"gain":1.0,"resolution":{"width":1280,"height":1024},"connected":true,"streaming":false}'
    )


@pytest.mark.parametrize(
    ("change", "exposure", "gain"),
    [
        ({"exposure": 50000, "gain": 2.0}, 50000, 2.0),
        ({"exposure": 50000}, 50000, 1.0),
        ({"gain": 4}, 3096, 4.0),
        ({}, 3096, 1.0),
        ({"exposure": 20000.0}, 20000, 1.0),  # JavaScript has one kind of number
    ],
)
def test_settings_that_are_put_are_in_force(
    client: httpx.Client, change: dict[str, Any], exposure: int, gain: float
) -> None:
    answer = client.put("/settings", json=change)
    assert answer.status_code == 200
    assert types_of(answer.json()) == types_of(client.get("/settings").json())
    assert answer.json() == client.get("/settings").json()
    assert (answer.json()["exposure"], answer.json()["gain"]) == (exposure, gain)
    assert f'"exposure":{exposure},' in answer.text, "an integer column takes no 50000.0"


@pytest.mark.parametrize(
    ("change", "exposure", "gain"),
    [
        ({"exposure": 9_999_999_999, "gain": 2.0}, 3096, 2.0),
        ({"exposure": 9, "gain": 99.0}, 3096, 1.0),
        ({"exposure": 0}, 3096, 1.0),
        ({"exposure": -5}, 3096, 1.0),
        ({"exposure": 500, "gain": -1.0}, 500, 1.0),
    ],
)
def test_a_value_outside_the_camera_s_range_is_no_error_and_leaves_what_was(
    lab: Service, client: httpx.Client, change: dict[str, Any], exposure: int, gain: float
) -> None:
    warned = lab.log.count("WARNING camera: ")
    answer = client.put("/settings", json=change)
    assert answer.status_code == 200
    assert (answer.json()["exposure"], answer.json()["gain"]) == (exposure, gain)
    until(lambda: lab.log.count("WARNING camera: ") > warned, 5, "a warning is logged")
    taken = client.post("/capture", json=change).json()
    assert (taken["exposureTime"], taken["gain"]) == (exposure, gain)


@pytest.mark.parametrize("body", [{"exposure": "long"}, {"exposure": 1.5}, {"gain": "2"}, {"gain": True}, [], "x"])
@pytest.mark.parametrize(("method", "path"), [("PUT", "/settings"), ("POST", "/capture")])
def test_what_is_no_number_is_refused(client: httpx.Client, method: str, path: str, body: Any) -> None:
    before = client.get("/captures/list").json()["count"]
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert client.get("/captures/list").json()["count"] == before


@pytest.mark.parametrize("body", [{}, None, {"exposure": 10000, "gain": 1.5}])
def test_a_capture_is_what_it_was(lab: Service, client: httpx.Client, body: Any) -> None:
    began = time.time()
    response = client.post("/capture", json=body) if body is not None else client.post("/capture")
    answer = response.json()
    assert response.status_code == 200
    assert list(answer) == [
        "success", "filename", "filepath", "capturedAt", "exposureTime", "gain", "fileSize", "width", "height",
        "metadata",
    ]  # fmt: skip
    assert types_of(answer) == {
        "success": "bool", "filename": "str", "filepath": "str", "capturedAt": "str", "exposureTime": "int",
        "gain": "float", "fileSize": "int", "width": "int", "height": "int",
        "metadata": {"format": "str", "quality": "int", "cameraConnected": "bool", "simulatedMode": "bool"},
    }  # fmt: skip
    assert answer["success"] is True
    assert NAME.fullmatch(answer["filename"])
    assert is_local_time(answer["capturedAt"])
    assert datetime.fromisoformat(answer["capturedAt"]).timestamp() >= began - 0.001, "taken before it was asked for"
    assert (answer["exposureTime"], answer["gain"]) == ((10000, 1.5) if body else (3096, 1.0))
    assert (answer["width"], answer["height"]) == (1280, 1024)
    assert answer["metadata"] == {"format": "JPG", "quality": 95, "cameraConnected": True, "simulatedMode": True}
    path = Path(answer["filepath"])
    assert path == lab.folder / "captures" / answer["filename"]
    assert path.stat().st_size == answer["fileSize"]
    assert Image.open(io.BytesIO(path.read_bytes())).size == (1280, 1024)
    moment = datetime.fromisoformat(answer["capturedAt"])
    assert answer["filename"] == f"capture_{moment:%Y%m%d_%H%M%S}_{moment.microsecond // 1000:03d}.jpg"
    assert client.get("/settings").json()["exposure"] == 3096, "the settings in force came back"


def test_the_list_is_what_it_was(lab: Service, client: httpx.Client) -> None:
    taken = [client.post("/capture", json={}).json() for _ in range(2)]
    (lab.folder / "captures" / "capture_20010101_000000_000.jpg").write_bytes(b"of the old service")
    (lab.folder / "captures" / "notes.txt").write_text("somebody's")
    answer = client.get("/captures/list").json()
    assert list(answer) == ["files", "count", "path"]
    assert (answer["count"], answer["path"]) == (len(answer["files"]), str(lab.folder / "captures"))
    assert {tuple(types_of(file).items()) for file in answer["files"]} == {
        (("filename", "str"), ("size", "int"), ("modified", "str"))
    }
    names = [file["filename"] for file in answer["files"]]
    assert names[:2] == [one["filename"] for one in reversed(taken)]
    assert names[-1] == "capture_20010101_000000_000.jpg"
    assert names == sorted(names, reverse=True)
    assert all(is_local_time(file["modified"]) for file in answer["files"])


# --- other origins ----------------------------------------------------------------------------------------------------


def test_a_page_of_a_named_origin_may_call_and_another_may_not(lab: Service, client: httpx.Client) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
    allowed = client.options("/capture", headers={"Origin": "http://localhost:3000", **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
    refused = client.options("/capture", headers={"Origin": "http://evil.example", **asked})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    for origin, told in (("http://localhost:5173", "http://localhost:5173"), ("http://evil.example", None)):
        assert client.get("/settings", headers={"Origin": origin}).headers.get("access-control-allow-origin") == told
    with lab.stream(headers={"Origin": "http://localhost:3000"}) as viewer:
        assert len(viewer.take(3)) == 3
        assert viewer.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.slow
def test_a_preflight_needs_no_token_and_the_call_does(start: StartService) -> None:
    token = "hunter2-hunter2"
    service = start("synthetic:?fps=60", CAMDOCK_TOKEN=token, CAMDOCK_ALLOWED_ORIGINS="https://lab.example.org")
    origin = {"Origin": "https://lab.example.org"}
    preflight = service.ask("OPTIONS", "/capture", headers={**origin, "Access-Control-Request-Method": "POST"})
    assert preflight.status == 200
    refused = service.ask("POST", "/capture", {}, headers=origin)
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == origin["Origin"], "the page cannot read why"
    assert service.ask("POST", "/capture", {}, {**origin, "Authorization": f"Bearer {token}"}).status == 200
    assert service.ask("OPTIONS", "/capture", headers={**origin}).status == 401, "no preflight"


# --- exposures --------------------------------------------------------------------------------------------------------


def test_the_exposure_told_is_the_picture_s_own(client: httpx.Client) -> None:
    ahead = set()  # notices have a number too, and only the service knows of those
    for exposure in (10_000, None, 777, 1_000_000, None, 12_345):
        taken = client.post("/capture", json={"exposure": exposure} if exposure else {}).json()
        jpeg = client.get(f"/captures/{taken['filename']}").content
        assert taken["exposureTime"] == (exposure or 3096)
        assert exposure_of(jpeg) == taken["exposureTime"], "a picture that was on its way with other settings"
        told = client.get(f"/captures/{taken['filename']}/metadata").json()
        assert told["settings"] == {"exposure_us": taken["exposureTime"], "gain": 1.0, "auto_exposure": False}
        ahead.add(told["seq"] - read_number(jpeg))
        assert hashlib.sha256(jpeg).hexdigest() == told["sha256"]
    assert len(ahead) == 1


def test_live_pictures_go_on_behind_a_still_and_their_numbers_grow(lab: Service, client: httpx.Client) -> None:
    with lab.stream() as viewer:
        before = read_number(viewer.take(1)[0].jpeg)
        taken = client.post("/cameras/camera/captures", json={"exposure_us": 50_000})
        still = read_number(client.get(taken.headers["location"]).content)
        pictures = viewer.take(30)
        numbers = [read_number(picture.jpeg) for picture in pictures]
        assert before < still < numbers[-1]
        assert numbers == sorted(set(numbers))
        assert still not in numbers, "a still is no live picture"
        assert exposure_of(pictures[-1].jpeg) == 3096


def test_a_driver_with_pictures_in_flight_shows_why_they_are_thrown_away(odd: Service) -> None:
    """The same without `settle_frames`: what the tests above would not notice, this one does."""
    odd.until_state("live", "late")
    taken = odd.ask("POST", "/cameras/late/captures", {"exposure_us": 50_000})
    assert exposure_of(odd.get(taken.headers["location"]).body) == 10_000


def test_captures_at_once_take_turns_and_each_has_its_own_exposure(client: httpx.Client, lab: Service) -> None:
    exposures = [1000 + number for number in range(12)]

    def take(exposure: int) -> dict[str, Any]:
        taken: dict[str, Any] = lab.ask("POST", "/capture", {"exposure": exposure}, timeout_s=30).json()
        return taken

    with ThreadPoolExecutor(12) as pool:
        taken = list(pool.map(take, exposures))
    assert len({one["filename"] for one in taken}) == len(exposures)
    for exposure, one in zip(exposures, taken, strict=True):
        assert exposure_of(client.get(f"/captures/{one['filename']}").content) == exposure == one["exposureTime"]
    assert client.get("/settings").json()["exposure"] == 3096


# --- when it fails ----------------------------------------------------------------------------------------------------


def in_force(service: Service, name: str = "camera") -> tuple[int, float]:
    """Exposure and gain, as the device says."""
    applied = service.camera(name)["settings"]["applied"]
    return applied["exposure_us"], applied["gain"]


def test_a_caller_who_leaves_leaves_no_settings_behind(lab: Service, client: httpx.Client) -> None:
    count = client.get("/captures").json()["count"]
    body = json.dumps({"exposure": 40_000, "gain": 8.0}).encode()
    head = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    reset(connect(lab.port, request("/capture", *head, method="POST", body=body)))
    until(lambda: client.get("/captures").json()["count"] > count, 10, "the capture is kept all the same")
    taken = client.post("/capture", json={}).json()
    assert (taken["exposureTime"], taken["gain"]) == (3096, 1.0)
    assert exposure_of(client.get(f"/captures/{taken['filename']}").content) == 3096


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("crash_still", "worker_died"),
        pytest.param("error_still", "source_failed", marks=pytest.mark.slow),
        pytest.param("hang_still", "source_stalled", marks=pytest.mark.slow),
    ],
)
def test_a_driver_that_fails_at_a_still_comes_back_with_the_settings_in_force(
    start: StartService, tmp_path: Path, fault: str, code: str
) -> None:
    service = start(f"synthetic:?size=320x240&fps=20&in_flight=0&{fault}=1&remembers={tmp_path / 'device'}")
    service.until_state("live")
    worker = service.worker().pid
    answer = service.ask("POST", "/cameras/camera/captures", {"exposure_us": 123_456, "gain": 3.0}, timeout_s=20)
    assert (answer.status, answer.json()["code"]) == (503, code)
    assert service.get("/captures").json()["count"] == 0
    until(lambda: service.camera()["state"] == "live" and service.worker().pid != worker, 15, "it is live again")
    assert in_force(service) == (10_000, 1.0)
    assert exposure_of(service.get("/cameras/camera/snapshot?max_delay=0").body) == 10_000
    assert "Traceback" not in service.log, service.log[-4000:]


def test_an_override_that_the_camera_cannot_do_is_refused_with_its_limits(lab: Service, client: httpx.Client) -> None:
    for wrong, limit in (({"exposure_us": 3_000_000}, "2000000"), ({"gain": 17.0, "exposure_us": 500}, "16.0")):
        answer = client.post("/cameras/camera/captures", json=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "setting_out_of_range")
        assert limit in answer.json()["hint"]
    assert in_force(lab) == (3096, 1.0)


@pytest.mark.slow
def test_a_camera_that_is_gone_has_no_capture_and_says_why(start: StartService, tmp_path: Path) -> None:
    (tmp_path / "gone").touch()
    service = start(f"synthetic:?fps=60&gone={tmp_path / 'gone'}")
    service.until_state("offline")
    for path in ("/capture", "/cameras/camera/captures"):
        answer = service.ask("POST", path, {})
        assert (answer.status, answer.json()["code"]) == (503, "source_missing")
    (tmp_path / "gone").unlink()
    service.until_state("live")
    assert service.ask("POST", "/capture", {}).status == 200


def test_a_resting_camera_is_woken_for_a_capture_and_rests_again(start: StartService) -> None:
    service = start("synthetic:?fps=60", CAMDOCK_LINGER_S="0.2")
    service.until_state("idle")
    taken = service.ask("POST", "/capture", {"exposure": 20_000}).json()
    assert taken["exposureTime"] == 20_000
    service.until_state("idle")
    assert service.ask("POST", "/capture", {}).json()["exposureTime"] == 10_000


# --- formats ----------------------------------------------------------------------------------------------------------


def test_a_jpeg_of_the_camera_s_own_is_kept_byte_for_byte_and_converted_only_when_asked(odd: Service) -> None:
    tables = Image.open(io.BytesIO(odd.get("/cameras/own/snapshot").body)).quantization  # type: ignore[attr-defined]
    number = read_number(odd.get("/cameras/own/snapshot").body)
    own = odd.ask("POST", "/cameras/own/captures", {})
    kept = odd.get(own.headers["location"])
    assert Image.open(io.BytesIO(kept.body)).quantization == tables  # type: ignore[attr-defined]
    for wanted, media_type, ending in (("PNG", "image/png", "png"), ("TIFF", "image/tiff", "tiff")):
        answer = odd.ask("POST", "/cameras/own/captures", {"format": wanted})
        assert answer.status == 201
        assert answer.json()["filename"].endswith(ending)
        fetched = odd.get(answer.headers["location"])
        assert fetched.headers["content-type"] == media_type
        image = Image.open(io.BytesIO(fetched.body))
        assert (image.format, image.size) == (wanted, (320, 240))
        shown, number = number, read_number(_as_jpeg(image))
        assert number > shown
        small = odd.get(answer.headers["location"] + "/thumbnail?width=160")
        assert Image.open(io.BytesIO(small.body)).size == (160, 120)
    workers = [one.cmdline() for one in psutil.Process(odd.process.pid).children()]
    labels = {command[4] for command in workers if "camdock.pixelsworker" in command}
    assert labels >= {"thumbnails", "conversions"}, "they would hold up what viewers wait for"


def _as_jpeg(image: Image.Image) -> bytes:
    output = io.BytesIO()
    image.convert("RGB").save(output, "JPEG", quality=95)
    return output.getvalue()


# --- a device that remembers ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_service_killed_in_the_middle_of_a_still_leaves_no_settings_in_the_device(tmp_path: Path) -> None:
    device = tmp_path / "device"
    source = f"synthetic:?fps=60&in_flight=0&settle_frames=1000&remembers={device}"
    with Service({"CAMDOCK_SOURCE": source}, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        service.until_state("live")
        taking = pool.submit(service.ask, "POST", "/capture", {"exposure": 50_000})
        until(lambda: device.exists() and "50000" in device.read_text(), 10, "the still's settings are in the device")
        service.kill()
        assert taking.exception(20) is not None
    with Service({"CAMDOCK_SOURCE": source}, tmp_path) as service:
        service.until_state("live")
        assert exposure_of(service.get("/snapshot?max_delay=0").body) == 10_000
        assert service.ask("GET", "/settings").json()["exposure"] == 10_000


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_still_leaves_no_settings_in_the_device(
    start: StartService, fake_camera: Callable[..., dict[str, str]]
) -> None:
    """V4L2 controls outlive the process that set them: the next worker must bring them back."""
    service = start("v4l2:/dev/video7?settle_frames=1000", **fake_camera())
    service.until_state("live")
    settings = service.camera()["settings"]
    own = settings["limits"]["exposure_us"][0], settings["limits"]["gain"][1]
    assert settings["applied"]["auto_exposure"] is True
    assert settings["applied"]["gain"] != own[1]
    worker = service.worker()
    with ThreadPoolExecutor(1) as pool:
        seq = service.camera()["seq"]
        taking = pool.submit(service.ask, "POST", "/cameras/camera/captures", {"exposure_us": own[0], "gain": own[1]})
        # Its live pictures stand still while it throws away what is on its way: the settings are in the device by now.
        until(lambda: service.camera()["age_s"] > 0.3, 10, "the still has begun")
        assert service.camera()["seq"] >= seq
        worker.kill()
        assert taking.result(20).json()["code"] == "worker_died"
    until(lambda: service.camera()["state"] == "live" and service.worker().pid != worker.pid, 15, "it is live again")
    back = service.camera()["settings"]
    # The exposure is the camera's own affair again; this one has no light that it could follow.
    assert back["applied"]["gain"] == settings["applied"]["gain"]
    assert back["applied"]["auto_exposure"] is True
    assert back["wanted"] == settings["wanted"]
