"""What a picamera2 source's options mean as libcamera's controls: white balance, focus, high dynamic range.

Runs in: the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camdock.errors import SourceFailed

HDR = {"off": "Off", "single": "SingleExposure", "multi": "MultiExposure", "night": "Night"}
# option -> the control without which a camera cannot do it, and what a person calls that
NEEDED = {"awb": ("AwbMode", "white balance"), "focus": ("AfMode", "focus"), "hdr": ("HdrMode", "HDR modes")}


def controls_of(options: Mapping[str, Any], able: Mapping[str, Any], known: Any, name: str) -> dict[str, Any]:
    """The controls that these options ask for.

    able    the camera's own controls by name, each with its limits
    known   libcamera.controls, for its names of values
    raises  SourceFailed with what the camera lacks, or the distance that its lens cannot be set to
    """
    found: dict[str, Any] = {}
    for option, (control, words) in NEEDED.items():
        if option in options and control not in able:
            raise SourceFailed(f"{name} has no {words} to set", f"leave `{option}=` out of its source")
    if balance := options.get("awb"):
        found |= {"AwbEnable": True} if "AwbEnable" in able else {}
        found["AwbMode"] = int(getattr(known.AwbModeEnum, balance.capitalize()))
    focus = options.get("focus")
    if focus == "continuous":
        found["AfMode"] = int(known.AfModeEnum.Continuous)
    elif focus == "once":
        found |= {"AfMode": int(known.AfModeEnum.Auto), "AfTrigger": int(known.AfTriggerEnum.Start)}
    elif focus is not None:
        nearest = float(able["LensPosition"][1]) if "LensPosition" in able else 0.0
        if focus > nearest:
            raise SourceFailed(
                f"{name} cannot be focused on {focus:g} dioptres: its lens goes to {nearest:g}",
                "dioptres are one by metres: `focus=0` is infinity, `focus=2` half a metre",
            )
        found |= {"AfMode": int(known.AfModeEnum.Manual), "LensPosition": focus}
    if mode := options.get("hdr"):
        found["HdrMode"] = int(getattr(known.HdrModeEnum, HDR[mode]))
    return found
