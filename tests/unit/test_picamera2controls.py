"""What the options of a Raspberry Pi's camera ask of it, and how a camera that cannot is named.

libcamera's own numbers are compared in its image (tests/image/test_libcamera.py); here stands a copy of their names.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from camdock.errors import SourceFailed
from camdock.picamera2controls import controls_of
from camdock.source import Source

NUMBERS = SimpleNamespace(
    AwbModeEnum=SimpleNamespace(
        Auto=0, Incandescent=1, Tungsten=2, Fluorescent=3, Indoor=4, Daylight=5, Cloudy=6, Custom=7
    ),
    AfModeEnum=SimpleNamespace(Manual=0, Auto=1, Continuous=2),
    AfTriggerEnum=SimpleNamespace(Start=0, Cancel=1),
    HdrModeEnum=SimpleNamespace(Off=0, MultiExposureUnmerged=1, MultiExposure=2, SingleExposure=3, Night=4),
)
ABLE = {"AwbEnable": (False, True, True), "AwbMode": (0, 7, 0), "AfMode": (0, 2, 0), "LensPosition": (0.0, 15.0, 1.0),
        "HdrMode": (0, 4, 0)}  # fmt: skip


def asked(options: str, able: dict[str, Any] = ABLE) -> dict[str, Any]:
    return controls_of(Source.parse(f"picamera2:0?{options}").options, able, NUMBERS, "imx708")


@pytest.mark.parametrize(
    ("options", "controls"),
    [
        ("", {}),
        ("awb=Daylight", {"AwbEnable": True, "AwbMode": 5}),
        ("focus=continuous", {"AfMode": 2}),
        ("focus=once", {"AfMode": 1, "AfTrigger": 0}),
        ("focus=0", {"AfMode": 0, "LensPosition": 0.0}),
        ("focus=2.5&hdr=night", {"AfMode": 0, "LensPosition": 2.5, "HdrMode": 4}),
        ("hdr=off", {"HdrMode": 0}),
    ],
)
def test_an_option_becomes_the_camera_s_controls(options: str, controls: dict[str, Any]) -> None:
    assert asked(options) == controls


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("awb=cloudy", "imx708 has no white balance to set"),
        ("focus=once", "imx708 has no focus to set"),
        ("hdr=single", "imx708 has no HDR modes to set"),
    ],
)
def test_what_a_camera_has_not_is_named_and_not_left_out_in_silence(options: str, sentence: str) -> None:
    with pytest.raises(SourceFailed) as refused:
        asked(options, {"ExposureTime": (1, 2, 1)})
    assert refused.value.message == sentence
    assert f"`{options.partition('=')[0]}=`" in refused.value.hint


def test_a_lens_is_not_sent_farther_than_it_goes() -> None:
    with pytest.raises(SourceFailed, match="its lens goes to 15"):
        asked("focus=16")


@pytest.mark.parametrize("options", ["focus=near", "focus=-1", "focus=nan", "awb=custom", "hdr=1"])
def test_options_that_mean_nothing_are_refused_at_once(options: str) -> None:
    with pytest.raises(ValueError, match=options.partition("=")[0]):
        Source.parse(f"picamera2:0?{options}")
