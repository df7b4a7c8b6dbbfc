"""The service on the real picamera2 and libcamera: two cameras at once, their settings, their stills."""

from __future__ import annotations

import io
import threading
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.device.picamera2.conftest import StartRigged
from tests.device.picamera2.rigged import Rigged
from tests.tools.service import Picture, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BOTH = "lines=picamera2:0?size=800x600 bars=picamera2:imx_virtual?size=640x480"
FRAMES = 120


def shown(jpeg: bytes) -> Image.Image:
    """A picture, decoded."""
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def brightness(container: Rigged, name: str) -> float:
    """Of a picture taken from now on, 0 to 255."""
    return float(np.asarray(shown(container.get(f"/cameras/{name}/snapshot?max_delay_ms=0").body)).mean())


def watch(container: Rigged, name: str, count: int) -> list[Picture]:
    """So many pictures of one camera, as a viewer gets them."""
    with container.stream(f"/cameras/{name}/stream") as viewer:
        return viewer.take(count)


def test_two_cameras_at_once_give_moving_pictures_thirty_times_a_second(start: StartRigged) -> None:
    container = start(BOTH)
    taken: dict[str, list[Picture]] = {}
    names = {"lines": (800, 600), "bars": (640, 480)}
    for name in names:
        container.until_state("live", name)
    viewers = [
        threading.Thread(target=lambda name=name: taken.update({name: watch(container, name, FRAMES)}))
        for name in names
    ]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    for name, size in names.items():
        pictures = taken[name]
        assert len(pictures) == FRAMES
        assert {shown(picture.jpeg).size for picture in pictures[::20]} == {size}
        assert all(one.jpeg != next_one.jpeg for one, next_one in pairwise(pictures)), "the pattern moves"
        first, last = (float(pictures[place].headers["x-timestamp"]) for place in (0, -1))
        rate = (FRAMES - 1) / (last - first)
        print(f"{name}: {rate:.2f} pictures per second")
        assert 28.5 < rate < 31.5
        camera = container.camera(name)
        assert camera["restarts"] == {}
        assert camera["fps_promised"] == 30.0
        assert camera["sensor"]["exposure_us"] == 20_000
        assert camera["sensor"]["colour_temperature_k"] == 4700
    assert "driven with picamera2 0.3." in container.log
    assert "libcamera 0." in container.log


def test_colours_and_padded_lines_are_right(start: StartRigged) -> None:
    container = start(BOTH)
    bars = np.asarray(shown(container.get("/cameras/bars/snapshot").body)).reshape(480, 640, 3)
    # Eight bars, wherever they have moved to by now, with red and blue where they belong.
    seen = {tuple(bool(level > 128) for level in pixel) for pixel in bars[240, 20::8]}
    assert {(True, False, False), (False, False, True), (False, True, False)} <= seen
    lines = np.asarray(shown(container.get("/cameras/lines/snapshot").body)).astype(int)
    # 800 is no multiple of 128: its lines are padded, and one that was read at the wrong place would lean another way.
    assert abs(lines[100, 100:700].mean() - lines[101, 99:699].mean()) < 3
    assert (np.abs(lines[100, 100:700] - lines[110, 90:690]) < 48).mean() > 0.95
    assert (lines[..., 0] > 200).mean() > 0.3
    assert (lines[..., 0] < 50).mean() > 0.3


@pytest.mark.parametrize("form", ["YUV420", "RGB888"])
def test_settings_take_effect_and_come_back_behind_a_still(start: StartRigged, form: str) -> None:
    container = start(f"bars=picamera2:imx_virtual?size=640x480&format={form}")
    container.until_state("live", "bars")
    limits = container.camera("bars")["settings"]["limits"]
    assert limits == {"exposure_us": [29, 1_000_000], "gain": [1.0, 16.0], "auto_exposure": True}
    automatic = brightness(container, "bars")
    put = container.ask("PUT", "/cameras/bars/settings", {"exposure_us": 5_000, "gain": 2.0})
    assert put.json()["applied"] == {"exposure_us": 5_000, "gain": 2.0, "auto_exposure": False}
    until(lambda: container.camera("bars")["sensor"]["exposure_us"] == 5_000, 5, "the sensor says so")
    darker = brightness(container, "bars")
    assert darker < automatic * 0.75, "half the light; what colour adds stays"

    taken = container.ask("POST", "/cameras/bars/captures", {"exposure_us": 60_000, "gain": 1.0}).json()
    assert taken["size"] == {"width": 1920, "height": 1080}, "the whole sensor"
    assert taken["settings"] == {"exposure_us": 60_000, "gain": 1.0, "auto_exposure": False}
    # Longer than a live picture lasts: the frames were made longer for it.
    assert (taken["sensor"]["exposure_us"], taken["sensor"]["gain"]) == (60_000, 1.0)
    assert taken["sensor"]["timestamp_ns"] > 0
    assert container.get(f"/captures/{taken['filename']}/metadata").json()["sensor"] == taken["sensor"]
    still = shown(container.get(f"/captures/{taken['filename']}").body)
    assert still.size == (1920, 1080)
    assert np.asarray(still).mean() > darker * 1.3
    until(lambda: container.camera("bars")["sensor"]["exposure_us"] == 5_000, 5, "the settings in force again")
    assert brightness(container, "bars") == pytest.approx(darker, rel=0.1)

    assert container.ask("PUT", "/cameras/bars/settings", {"auto_exposure": True}).status == 200
    until(lambda: container.camera("bars")["sensor"]["exposure_us"] == 20_000, 5, "automatic exposure again")
    refused = container.ask("PUT", "/cameras/bars/settings", {"exposure_us": 2_000_000})
    assert (refused.status, refused.json()["code"]) == (422, "setting_out_of_range")
    assert container.camera("bars")["restarts"] == {}


def test_a_still_costs_live_pictures_for_the_switch_alone(start: StartRigged) -> None:
    container = start("bars=picamera2:imx_virtual?size=640x480")
    container.until_state("live", "bars")
    pictures: list[Picture] = []
    viewer = threading.Thread(target=lambda: pictures.extend(watch(container, "bars", 90)))
    viewer.start()
    until(lambda: container.camera("bars")["viewers"] == 1, 5, "somebody looks")
    taken = [container.ask("POST", "/cameras/bars/captures") for _ in range(3)]
    viewer.join()
    assert {one.status for one in taken} == {201}
    assert {one.json()["size"]["width"] for one in taken} == {1920}
    times = [float(picture.headers["x-timestamp"]) for picture in pictures]
    gaps = sorted(after - before for before, after in pairwise(times))
    print(f"longest gaps around three stills: {gaps[-3:]}")
    # Stop, configure, start, one picture, and the same again: the rig's conversion of two megapixels is part of it.
    assert gaps[-1] < 1.0
    assert {shown(picture.jpeg).size for picture in pictures[::10]} == {(640, 480)}
    assert container.camera("bars")["restarts"] == {}


def test_nobody_sees_the_settings_that_a_still_has_for_itself(start: StartRigged) -> None:
    container = start("bars=picamera2:imx_virtual?size=640x480&exposure_us=5000")
    container.until_state("live", "bars")
    usual = brightness(container, "bars")
    pictures: list[Picture] = []
    viewer = threading.Thread(target=lambda: pictures.extend(watch(container, "bars", 60)))
    viewer.start()
    until(lambda: container.camera("bars")["viewers"] == 1, 5, "somebody looks")
    taken = container.ask("POST", "/cameras/bars/captures", {"exposure_us": 60_000})
    viewer.join()
    assert taken.json()["sensor"]["exposure_us"] == 60_000
    seen = [float(np.asarray(shown(picture.jpeg)).mean()) for picture in pictures]
    assert max(seen) < usual * 1.2, "live pictures begin again with the settings that come back"


def test_a_camera_that_nobody_looks_at_is_given_back_and_taken_again_by_the_same_process(start: StartRigged) -> None:
    container = start("bars=picamera2:imx_virtual?size=640x480", CAMDOCK_LINGER_S="1")
    for _ in range(3):
        assert container.get("/cameras/bars/snapshot").status == 200
        (before,) = container.workers()
        container.until_state("idle", "bars")
        assert container.workers() == [before]
    assert container.camera("bars")["restarts"] == {}


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("7", "source_missing", "there is 0 is second (Virtual1), 1 is imx_virtual (Virtual0)"),
        ("imx708", "source_missing", "finds no camera imx708"),
        ("0?encoder=hardware", "source_failed", "no JPEG encoder"),
    ],
)
def test_what_is_not_there_is_named(start: StartRigged, target: str, code: str, words: str) -> None:
    container = start(f"pi=picamera2:{target}")
    reason = container.until_state("offline", "pi")["reason"]
    assert reason["code"] == code
    assert words in reason["message"]
    assert reason["hint"]
