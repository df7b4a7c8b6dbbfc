"""Other systems' URLs and JSON, each a translation onto an owner. So far: the lab camera service.

Runs in: the API process. Shapes and names here are those systems' own: `exposure` is whole microseconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from camdock.api import Size
from camdock.camera import Camera
from camdock.captures import Captures
from camdock.errors import SettingOutOfRange, SettingUnsupported
from camdock.frame import Still
from camdock.problems import documented
from camdock.recipe import WholeOrNone
from camdock.settings import Settings

log = logging.getLogger("camdock")

LONGEST_EXPOSURE_US = 3_600_000_000


class LabRequest(BaseModel):
    """Exposure and gain; either may be absent. Values that the camera cannot do are no errors here."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"exposure": 50000, "gain": 2.0}]})

    exposure: WholeOrNone = Field(None, strict=True, description="microseconds")
    gain: float | None = Field(None, strict=True, allow_inf_nan=False, description="linear factor, 1.0 = none")

    @property
    def changes(self) -> dict[str, Any]:
        """What is asked for, in our words."""
        asked = {"exposure_us": self.exposure, "gain": self.gain}
        return {name: value for name, value in asked.items() if value is not None}


class LabSettings(BaseModel):
    """The settings in force."""

    exposure: int = Field(description="microseconds; 0 where the camera does not say", examples=[3096])
    gain: float = Field(description="linear factor; 1.0 where the camera does not say", examples=[1.0])
    resolution: Size
    connected: bool
    streaming: bool = Field(description="whether somebody looks")


class LabMetadata(BaseModel):
    """About the picture and the camera."""

    format: str = Field(examples=["JPG"])
    quality: int = Field(examples=[95])
    cameraConnected: bool
    simulatedMode: bool = Field(description="true: no camera, a test card")


class LabCapture(BaseModel):
    """One capture."""

    success: bool
    filename: str = Field(examples=["capture_20261017_010203_004.jpg"])
    filepath: str = Field(examples=["/var/lib/camdock/captures/capture_20261017_010203_004.jpg"])
    capturedAt: str = Field(
        description="local time, ISO 8601 with microseconds", examples=["2026-10-17T01:02:03.004005"]
    )
    exposureTime: int = Field(description="whole microseconds; 0 where the camera does not say", examples=[10000])
    gain: float = Field(examples=[1.5])
    fileSize: int = Field(description="bytes", examples=[412345])
    width: int = Field(examples=[1280])
    height: int = Field(examples=[1024])
    metadata: LabMetadata


class LabFile(BaseModel):
    """One file."""

    filename: str
    size: int = Field(description="bytes")
    modified: str = Field(description="local time, ISO 8601 with microseconds")


class LabFiles(BaseModel):
    """Every capture, the newest first."""

    files: list[LabFile]
    count: int
    path: str


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(timespec="microseconds")


def _possible(camera: Camera, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the camera can do; for each of the others a warning, and what is in force stays."""
    able = {}
    limits = camera.status().limits
    for name, value in changes.items():
        try:
            sane = 0 < value <= LONGEST_EXPOSURE_US if name == "exposure_us" else value >= 0 and math.isfinite(value)
            if not sane:
                raise SettingOutOfRange(f"{name}={value:.15g} is nothing that a camera can do")
            if limits != type(limits)():  # nothing is known of a camera that was never opened
                limits.check({name: value}, camera.name)
        except (SettingOutOfRange, SettingUnsupported) as error:
            log.warning("%s: %s; what is in force stays", camera.name, error.message)
        else:
            able[name] = value
    return able


def _lab_settings(camera: Camera) -> LabSettings:
    status = camera.status()
    width, height = status.size or (0, 0)
    exposure_us, gain = (
        next((value for value in (getattr(status.applied, name), getattr(status.wanted, name)) if value is not None), 0)
        for name in ("exposure_us", "gain")
    )
    return LabSettings(
        exposure=exposure_us,
        gain=gain or 1.0,
        resolution=Size(width=width, height=height),
        connected=camera.is_connected,
        streaming=status.viewers > 0,
    )


async def _still(camera: Camera, changes: Mapping[str, Any], image_format: str, image_quality: int) -> Still:
    for _ in range(2):
        overrides = Settings(**_possible(camera, changes))
        try:
            return await camera.still(overrides, still_format=image_format, quality=image_quality)
        except (SettingOutOfRange, SettingUnsupported):
            pass  # its limits were not known before it was opened
    return await camera.still(still_format=image_format, quality=image_quality)


def router(cameras: dict[str, Camera], captures: Captures, image_format: str, image_quality: int) -> APIRouter:
    """What clients of the lab camera service call, beside GET /health."""
    routes = APIRouter(tags=["lab camera"])
    first = next(iter(cameras.values()))

    @routes.get("/settings", summary="The settings in force", responses=documented())
    async def settings() -> LabSettings:
        """Of the first camera, as the lab camera service answers it."""
        return _lab_settings(first)

    @routes.put("/settings", summary="Change them", responses=documented(400, 422, 503, 507))
    async def change_settings(change: LabRequest) -> LabSettings:
        """A value that the camera cannot do is no error here: it is logged, and the answer shows what is in force."""
        for name, value in _possible(first, change.changes).items():
            try:
                await first.apply({name: value})
            except (SettingOutOfRange, SettingUnsupported) as error:
                log.warning("%s: %s; what is in force stays", first.name, error.message)
        return _lab_settings(first)

    @routes.post("/capture", summary="Take a picture and keep it", responses=documented(400, 422, 503, 507))
    async def capture(wanted: LabRequest | None = None) -> LabCapture:
        """Exposure and gain for this picture alone; those in force come back. What the camera cannot do is left out."""
        still = await _still(first, wanted.changes if wanted else {}, image_format, image_quality)
        added, _ = await captures.add(still)
        return LabCapture(
            success=True,
            filename=added.filename,
            filepath=str(added.path),
            capturedAt=_local(still.captured_at),
            exposureTime=still.settings.exposure_us or 0,
            gain=1.0 if still.settings.gain is None else still.settings.gain,
            fileSize=added.size_bytes,
            width=still.size[0],
            height=still.size[1],
            metadata=LabMetadata(
                format=still.format,
                quality=image_quality,
                cameraConnected=first.is_connected,
                simulatedMode=still.source.startswith("synthetic"),
            ),
        )

    @routes.get("/captures/list", summary="Every capture", responses=documented(507))
    async def list_captures() -> LabFiles:
        """All of them, however many; GET /captures answers in pages."""
        page = await captures.page()
        files = [
            LabFile(filename=one.filename, size=one.size_bytes, modified=_local(one.modified)) for one in page.captures
        ]
        return LabFiles(files=files, count=len(files), path=str(captures.folder))

    return routes
