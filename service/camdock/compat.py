"""Other systems' URLs and JSON, each a translation onto an owner: the lab camera service, the table camera.

Runs in: the API process. Shapes and names here are those systems' own: `exposure` is whole microseconds.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from camdock.api import Reason, Size
from camdock.camera import Camera, State
from camdock.captures import Captures, Page
from camdock.errors import SettingOutOfRange, SettingUnsupported
from camdock.frame import Still
from camdock.problems import documented
from camdock.recipe import WholeOrNone
from camdock.sender import Sender
from camdock.settings import Settings
from camdock.stream import STREAM_RESPONSES, FramesQuery, MjpegResponse, RenditionQuery

log = logging.getLogger("camdock")

LONGEST_EXPOSURE_US = 3_600_000_000
TABLE_WIDTH, TABLE_HEIGHT, TABLE_FPS = 640, 480, 15.0  # what the table camera showed to browsers


# --- the lab camera service -------------------------------------------------------------------------------------------


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
    quality: int | None = Field(
        description="of a JPG that the service has encoded; null where the camera did, or nothing was lost",
        examples=[95],
    )
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
                text = str(value)  # of any length: JSON's integers have no end
                shown = text if len(text) <= 30 else text[:30] + "..."
                raise SettingOutOfRange(f"{name}={shown} is nothing that a camera can do", "it was left out")
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
    # What a camera that rests was told meanwhile is in force as soon as it gives a picture.
    told = (status.applied, status.wanted) if status.state is State.LIVE else (status.wanted, status.applied)
    exposure_us, gain = (
        next((value for value in (getattr(one, name) for one in told) if value is not None), 0)
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

    @routes.put("/settings", summary="Change them", responses=documented(400, 403, 408, 413, 422, 503, 507))
    async def change_settings(change: LabRequest) -> LabSettings:
        """A value that the camera cannot do is no error here: it is logged, and the answer shows what is in force."""
        for name, value in _possible(first, change.changes).items():
            try:
                await first.apply({name: value})
            except (SettingOutOfRange, SettingUnsupported) as error:
                log.warning("%s: %s; what is in force stays", first.name, error.message)
        return _lab_settings(first)

    @routes.post(
        "/capture", summary="Take a picture and keep it",
        responses=documented(400, 403, 408, 413, 422, 503, 504, 507),
    )  # fmt: skip
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
                quality=still.quality,
                cameraConnected=first.is_connected,
                simulatedMode=still.source.startswith("synthetic"),
            ),
        )

    def in_words(page: Page) -> bytes:
        # LabFiles, which for ten thousand would hold up everybody for half a second.
        files = [
            {"filename": one.filename, "size": one.size_bytes, "modified": _local(one.modified)}
            for one in page.captures
        ]
        found = {"files": files, "count": len(files), "path": str(captures.folder)}
        return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()

    @routes.get("/captures/list", summary="Every capture", response_model=LabFiles, responses=documented(507))
    async def list_captures() -> Response:
        """All of them, however many; GET /captures answers in pages."""
        return Response(await captures.listed(in_words), media_type="application/json")

    return routes


# --- the table camera -------------------------------------------------------------------------------------------------


class TableHealth(BaseModel):
    """The service answers."""

    status: str = Field(examples=["healthy"])
    timestamp: str = Field(
        description="local time, ISO 8601 with microseconds", examples=["2026-10-17T01:00:00.000000"]
    )


class TableCamera(BaseModel):
    """In the words of the old service."""

    status: str = Field(
        description="not_initialized: it has not been open yet; initializing; active: it gives pictures; idle: nobody "
        "looks, the next request for pictures opens it; error: see `reason`",
        examples=["not_initialized"],
    )
    connected: bool = Field(description="whether pictures come, or will as soon as somebody looks")


class TableStream(BaseModel):
    """What is being looked at."""

    clients: int
    fps: float = Field(description="of the camera, measured", examples=[29.97])
    resolution: Size | None = Field(description="of the camera; null before it was ever open")


class TableStatus(BaseModel):
    """The camera and its streams."""

    camera: TableCamera
    stream: TableStream
    reason: Reason | None = Field(description="why there are no pictures, and what to do")
    timestamp: str = Field(description="local time, ISO 8601 with microseconds")


def _table_status(camera: Camera) -> TableStatus:
    status, error = camera.status(), camera.status().error
    match status.state:
        case State.LIVE:
            word = "active"
        case State.IDLE:
            word = "idle"
        case State.STARTING:
            word = "initializing" if status.size else "not_initialized"
        case State.STALLED | State.OFFLINE:
            word = "error"
    return TableStatus(
        camera=TableCamera(status=word, connected=camera.unavailable() is None),
        stream=TableStream(
            clients=status.viewers,
            fps=round(status.fps, 2),
            resolution=Size(width=status.size[0], height=status.size[1]) if status.size else None,
        ),
        reason=Reason(code=error.code, message=error.message, hint=error.hint, retry=error.retry) if error else None,
        timestamp=datetime.now().isoformat(timespec="microseconds"),
    )


def table_router(cameras: dict[str, Camera], sender: Sender) -> APIRouter:
    """What clients of the table camera call: each with and without a slash at the end."""
    routes = APIRouter(prefix="/api/v1", tags=["table camera"])
    first = next(iter(cameras.values()))

    @routes.get("/health", include_in_schema=False)
    @routes.get("/health/", summary="Does the service answer?", responses=documented(public=True))
    async def health() -> TableHealth:
        """Whatever the camera does. Open to all."""
        return TableHealth(status="healthy", timestamp=datetime.now().isoformat(timespec="microseconds"))

    @routes.get("/stream/video/", include_in_schema=False)
    @routes.get(
        "/stream/video", summary="Moving pictures of the first camera (MJPEG)", response_class=Response,
        responses={**STREAM_RESPONSES, **documented(422, 429)},
    )  # fmt: skip
    async def video(wanted: RenditionQuery, frames: FramesQuery = None) -> MjpegResponse:
        """Fitted into 640x480, 15 a second, unless another size or rate is asked for. Opens a camera that rests."""
        if wanted.width is None and wanted.height is None:
            wanted = replace(wanted, width=TABLE_WIDTH, height=TABLE_HEIGHT)
        return MjpegResponse(first.renditions, replace(wanted, fps=wanted.fps or TABLE_FPS), sender, frames)

    @routes.get("/stream/video/status/", include_in_schema=False)
    @routes.get("/stream/video/status", summary="What the camera does", responses=documented())
    async def status() -> TableStatus:
        """Answers before, while and after the camera opens, and while its driver hangs."""
        return _table_status(first)

    return routes
