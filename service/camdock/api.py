"""Every HTTP endpoint of ours: its path, its model, one call to an owner.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from camdock.auth import may_look, proof_of
from camdock.camera import Camera, Status
from camdock.errors import CameraError, RequestInvalid, SourceStalled
from camdock.frame import SENSOR, Frame
from camdock.gate import Abi, AbiGate
from camdock.notices import NOTICE_EVERY_S
from camdock.problems import Problem, documented, problem_response
from camdock.recipe import WholeOrNone
from camdock.rendition import AS_IT_IS, Wanted
from camdock.sender import Sender
from camdock.stream import CameraName, PixelsQuery, find, mjpeg_of

WEB = Path(__file__).parent / "web"
SNAPSHOT_WITHIN_S = 3.0
FRESH_MS = 300  # a picture younger than this is served at once; camera-streamer's default too
# The page loads nothing from elsewhere, nobody may frame it, and a proxy or browser asks again after an upgrade.
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TOLD_TO_WHO_MAY_LOOK = "ask with a token: it is told which, why, and what to do"
NO_STORE = {"Cache-Control": "no-store, no-cache, must-revalidate, max-age=0"}


class Reason(BaseModel):
    """Why a camera gives no pictures."""

    code: str = Field(description="stable, for programs", examples=["source_missing"])
    message: str = Field(examples=["/dev/video0 does not exist"])
    hint: str = Field(description="what to do about it", examples=["plug the camera in; it is looked for every second"])
    retry: bool = Field(description="whether trying again can help by itself")


class Size(BaseModel):
    """A picture's size in pixels."""

    width: int = Field(examples=[1280])
    height: int = Field(examples=[720])


class SettingsModel(BaseModel):
    """Settings of a camera; null where it has none or it is not known."""

    exposure_us: int | None = Field(None, description="exposure time in microseconds", examples=[10000])
    gain: float | None = Field(None, description="linear factor, 1.0 = none", examples=[1.0])
    auto_exposure: bool | None = Field(None, description="true when the camera chooses the exposure")


class LimitsModel(BaseModel):
    """What a camera could do; null where it has no such setting."""

    exposure_us: tuple[int, int] | None = Field(None, description="lowest and highest", examples=[[10, 2000000]])
    gain: tuple[float, float] | None = Field(None, description="lowest and highest", examples=[[1.0, 16.0]])
    auto_exposure: bool = Field(False, description="whether it can be switched")


class SensorModel(BaseModel):
    """What a camera's sensor says of one picture; null where it does not."""

    exposure_us: int | None = Field(None, description="exposure time in microseconds", examples=[9987])
    gain: float | None = Field(None, description="linear factor, 1.0 = none", examples=[1.12])
    colour_temperature_k: int | None = Field(
        None, description="of the light, as the white balance found it, in kelvin", examples=[4500]
    )
    timestamp_ns: int | None = Field(None, description="the sensor's own clock, nanoseconds")


class SettingsReport(BaseModel):
    """What was asked, what the device does, what it could do."""

    wanted: SettingsModel
    applied: SettingsModel
    limits: LimitsModel


class SettingsChange(BaseModel):
    """Settings to change; what is absent stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"exposure_us": 20000, "gain": 2.0}]})

    exposure_us: WholeOrNone = Field(
        None, ge=1, le=3_600_000_000, strict=True, description="microseconds; auto exposure goes off"
    )
    gain: float | None = Field(
        None, ge=0, le=10_000, strict=True, allow_inf_nan=False, description="linear factor, 1.0 = none"
    )
    auto_exposure: bool | None = Field(None, strict=True, description="let the camera choose")


class CameraModel(BaseModel):
    """One camera, now."""

    name: str = Field(examples=["front"])
    source: str = Field(description="as configured, without credentials", examples=["v4l2:/dev/video0"])
    state: str = Field(
        description="starting, live, idle (able, and nobody is looking), stalled or offline", examples=["live"]
    )
    since: float = Field(description="Unix seconds at which it came into this state")
    reason: Reason | None = Field(description="why there are no pictures; null while there are")
    device: str = Field(examples=["HD Webcam (/dev/video0)"])
    format: str = Field(description="what the device delivers", examples=["MJPG"])
    size: Size | None
    fps: float = Field(description="measured", examples=[29.97])
    fps_promised: float = Field(description="what the device says; 0 when it does not", examples=[30.0])
    seq: int = Field(description="number of the newest frame; only grows")
    age_s: float | None = Field(description="age of the newest picture in seconds", examples=[0.012])
    viewers: int = Field(description="of the picture as it is and of every rendition")
    renditions: dict[str, int] = Field(
        description="the other sizes, rates and qualities that are looked at, with their viewers",
        examples=[{"640x360, 10 fps": 3}],
    )
    frames: int = Field(description="pictures so far")
    drops: dict[str, int] = Field(description="pictures thrown away, by reason", examples=[{"broken": 2}])
    restarts: dict[str, int] = Field(
        description="restarts of the driver process, by reason", examples=[{"source_stalled": 1}]
    )
    sensor: SensorModel = Field(description="of the newest picture")
    failures: int = Field(description="failures in a row since the last picture; from the fifth on the pause is long")
    settings: SettingsReport


class Health(BaseModel):
    """Whether the service answers and the first camera gives pictures. The cameras only for who may look."""

    status: str = Field(description="healthy: the service answers", examples=["healthy"])
    camera_connected: bool = Field(
        description="whether the first camera gives pictures; false for the test card in its place"
    )
    abi: Abi = Field(
        description="whether the libraries of the cameras fit the installed NumPy; broken: those that do not are not "
        "started, /health/ready says why; unknown: not all could be judged; checking: not known yet; off: CAMDOCK_ABI",
        examples=["ok"],
    )
    timestamp: str = Field(
        description="local time, ISO 8601 with microseconds", examples=["2026-10-17T01:00:00.000000"]
    )
    may: str = Field("nothing", description="what you may do here: touch, look or nothing", examples=["look"])
    by: str = Field("", description="what you showed for it", examples=["cookie"])
    version: str | None = Field(None, description="only for who may look")
    cameras: list[CameraModel] | None = Field(None, description="only for who may look")


class Alive(BaseModel):
    """The answer of the two small health checks."""

    status: str = Field(examples=["alive"])


def _settings(status: Status) -> SettingsReport:
    def model(settings: Any) -> SettingsModel:
        return SettingsModel(**{name: getattr(settings, name) for name in SettingsModel.model_fields})

    limits = LimitsModel(
        exposure_us=status.limits.exposure_us, gain=status.limits.gain, auto_exposure=status.limits.auto_exposure
    )
    return SettingsReport(wanted=model(status.wanted), applied=model(status.applied), limits=limits)


def _camera(camera: Camera) -> CameraModel:
    status = camera.status()
    error = status.error
    return CameraModel(
        name=status.name,
        source=status.source,
        state=status.state,
        since=status.since,
        reason=Reason(code=error.code, message=error.message, hint=error.hint, retry=error.retry) if error else None,
        device=status.device,
        format=status.format,
        size=Size(width=status.size[0], height=status.size[1]) if status.size else None,
        fps=round(status.fps, 2),
        fps_promised=status.fps_promised,
        seq=status.seq,
        age_s=None if status.age_s is None else round(status.age_s, 4),
        viewers=status.viewers,
        renditions=dict(status.renditions),
        frames=status.frames,
        drops=dict(status.drops),
        restarts=dict(status.restarts),
        failures=status.failures,
        sensor=SensorModel(**{name: value for name, value in status.sensor.items() if name in SENSOR}),
        settings=_settings(status),
    )


async def fresh_frame(camera: Camera, max_age_s: float) -> Frame:
    """The newest picture if it is no older than max_age_s, else the next one. Wakes an idle camera and waits for it.

    raises  the camera's error, or SourceStalled when none came within 3 s (the time to open on top while it is not
            live)
    """
    since_ns = time.monotonic_ns() - max_age_s * 1e9
    within_s = SNAPSHOT_WITHIN_S + (camera.opens_within_s if camera.is_coming else 0.0)
    with camera.broadcast.subscribe() as looking:
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if (error := camera.unavailable()) and not camera.is_coming:
                        raise error
                    frame = looking.take()
                    if frame is not None and not frame.notice and frame.captured_ns >= since_ns:
                        return frame
                    await camera.broadcast.published()
        except TimeoutError:
            raise SourceStalled(f"{camera.name}: no new picture within {within_s:.0f} s", "try again") from None


async def _kept_notice(camera: Camera, notice: Frame) -> Frame:
    """The picture that says why there is none: this one, or where nobody has looked meanwhile one with today's time."""
    within_s = 2 * NOTICE_EVERY_S
    if time.monotonic_ns() - notice.captured_ns > within_s * 1e9:
        with camera.broadcast.subscribe(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await camera.broadcast.published()
    return camera.broadcast.newest or notice


async def snapshot_of(camera: Camera, wanted: Wanted, *, allow_offline: bool, max_delay_ms: int = FRESH_MS) -> Response:
    """One JPEG, never cached."""
    newest = camera.broadcast.newest
    if allow_offline and newest is not None and newest.notice:
        frame = await _kept_notice(camera, newest)
    else:
        try:
            frame = await fresh_frame(camera, max_delay_ms / 1000)
        except CameraError:
            newest = camera.broadcast.newest
            if not allow_offline or newest is None or not newest.notice:
                raise
            frame = newest
    frame = await camera.renditions.still(frame, wanted)
    headers = {**NO_STORE, "X-Timestamp": f"{frame.captured_at:.6f}", "X-Seq": str(frame.seq)}
    return Response(frame.jpeg, media_type="image/jpeg", headers=headers)


def ustreamer_state(camera: Camera) -> dict[str, Any]:
    """What ustreamer answers to GET /state."""
    status = camera.status()
    width, height = status.size or (0, 0)
    clients = {
        f"{id(viewer):x}": {
            "fps": round(viewer.fps),
            "extra_headers": False,
            "advance_headers": False,
            "dual_final_frames": False,
        }
        for viewer in camera.viewers
    }
    return {
        "ok": True,
        "result": {
            "instance_id": status.name,
            "encoder": {"type": "HW" if status.format in ("MJPG", "JPEG") else "CPU", "quality": 0},
            "source": {
                "resolution": {"width": width, "height": height},
                "online": camera.unavailable() is None,
                "desired_fps": round(status.fps_promised),
                "captured_fps": round(status.fps),
            },
            "stream": {"queued_fps": round(status.fps), "clients": len(clients), "clients_stat": clients},
        },
    }


JPEG_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "one JPEG", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}
OfflineQuery = Annotated[
    bool, Query(description="answer the picture that says why, instead of 503, while the camera is offline")
]


DelayQuery = Annotated[
    int, Query(ge=0, le=60_000, description="milliseconds that the picture may be old; 0: one taken after the request")
]


def router(cameras: dict[str, Camera], sender: Sender, abi: AbiGate, version: str) -> APIRouter:
    """Everything that ends."""
    routes = APIRouter()
    first = next(iter(cameras.values()))

    # --- health ---------------------------------------------------------------------------------------------------

    @routes.get(
        "/health", tags=["health"], summary="Is the service well?", response_model_exclude_none=False,
        responses=documented(public=True),
    )  # fmt: skip
    async def health(request: Request) -> Health:
        """Open to all. Reasons and devices are there only for who may look."""
        told, proof = may_look(request), proof_of(request)
        return Health(
            status="healthy",
            camera_connected=first.is_connected,
            abi=abi.state,
            timestamp=datetime.now().isoformat(timespec="microseconds"),
            may=proof.role or "nothing",
            by=proof.by,
            version=version if told else None,
            cameras=[_camera(camera) for camera in cameras.values()] if told else None,
        )

    @routes.get("/health/live", tags=["health"], summary="Does the service answer?", responses=documented(public=True))
    async def live() -> Alive:
        """200 as long as the API answers; an unplugged camera does not change it. For a container's health check."""
        return Alive(status="alive")

    @routes.get(
        "/health/ready", tags=["health"], summary="Do all cameras give pictures?", response_model=Alive,
        responses={
            **documented(public=True),
            503: {"model": Problem, "description": "A camera gives no pictures, or a library breaks"},
        },
    )  # fmt: skip
    async def ready(request: Request) -> Any:
        """200 when every camera is live or idle, else 503 with the ones that are not. For a deployment's gate.

        503 `abi_broken`, with what to install, when a library that somebody here needs breaks with the installed NumPy.
        """
        if broken := abi.broken():
            detail, hint = "a library does not fit the installed NumPy", TOLD_TO_WHO_MAY_LOOK
            if may_look(request):
                detail, hint = broken.message, broken.hint
            return problem_response(503, "abi_broken", "Libraries break with this NumPy", detail, hint)
        reasons = [f"{name}: {error.message}" for name, camera in cameras.items() if (error := camera.unavailable())]
        if not reasons:
            return Alive(status="ready")
        detail, hint = f"{len(reasons)} of {len(cameras)} cameras give no pictures", TOLD_TO_WHO_MAY_LOOK
        if may_look(request):
            detail, hint = "; ".join(reasons), "GET /cameras says of each of them what to do"
        return problem_response(503, "not_ready", "Not every camera gives pictures", detail, hint)

    # --- cameras --------------------------------------------------------------------------------------------------

    @routes.get("/cameras", tags=["cameras"], summary="All cameras", responses=documented())
    async def list_cameras() -> list[CameraModel]:
        """Every camera with its state, rate, size, age of the picture, viewers, reason and hint when offline."""
        return [_camera(camera) for camera in cameras.values()]

    @routes.get("/cameras/{name}", tags=["cameras"], summary="One camera", responses=documented(404, 422))
    async def one_camera(name: CameraName) -> CameraModel:
        """The camera of that name."""
        return _camera(find(cameras, name))

    @routes.get("/cameras/{name}/settings", tags=["cameras"], summary="Its settings", responses=documented(404, 422))
    async def settings(name: CameraName) -> SettingsReport:
        """Wanted (what was asked), applied (what the device says it does), limits (what it could do)."""
        return _settings(find(cameras, name).status())

    @routes.put(
        "/cameras/{name}/settings", tags=["cameras"], summary="Change its settings",
        responses=documented(400, 403, 404, 408, 413, 422, 503, 507),
    )  # fmt: skip
    async def change_settings(name: CameraName, change: SettingsChange) -> SettingsReport:
        """Takes effect at once, is kept, and is applied again whenever the camera comes back. Null: not asked for."""
        camera = find(cameras, name)
        await camera.apply({name: getattr(change, name) for name in change.model_fields_set})
        return _settings(camera.status())

    # --- pictures -------------------------------------------------------------------------------------------------

    @routes.get(
        "/snapshot", tags=["pictures"], summary="One picture of the first camera", response_class=Response,
        responses={**JPEG_RESPONSES, **documented(422, 429, 503)},
    )  # fmt: skip
    async def snapshot(
        wanted: PixelsQuery, allow_offline: OfflineQuery = False, max_delay: DelayQuery = FRESH_MS
    ) -> Response:
        """The newest picture if it is young enough, else the next one. Wakes a camera that nobody looked at."""
        return await snapshot_of(first, wanted, allow_offline=allow_offline, max_delay_ms=max_delay)

    @routes.get(
        "/cameras/{name}/snapshot", tags=["pictures"], summary="One picture of one camera", response_class=Response,
        responses={**JPEG_RESPONSES, **documented(404, 422, 429, 503)},
    )  # fmt: skip
    async def snapshot_by_name(
        name: CameraName, wanted: PixelsQuery, allow_offline: OfflineQuery = False, max_delay: DelayQuery = FRESH_MS
    ) -> Response:
        """Like /snapshot, for the camera of that name."""
        return await snapshot_of(find(cameras, name), wanted, allow_offline=allow_offline, max_delay_ms=max_delay)

    @routes.get(
        "/state", tags=["cameras"], summary="The first camera as ustreamer describes it", responses=documented()
    )
    async def state() -> dict[str, Any]:
        """For clients of ustreamer."""
        return ustreamer_state(first)

    @routes.get(
        "/cameras/{name}/state", tags=["cameras"], summary="One camera as ustreamer describes it",
        responses=documented(404, 422),
    )  # fmt: skip
    async def state_of(name: CameraName) -> dict[str, Any]:
        """For clients of ustreamer."""
        return ustreamer_state(find(cameras, name))

    # --- the page -------------------------------------------------------------------------------------------------

    @routes.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """The page; with ?action=stream or ?action=snapshot what mjpg-streamer answers there."""
        match request.query_params.get("action"):
            case None:
                return FileResponse(WEB / "index.html", headers=PAGE_HEADERS)
            case "stream":
                return mjpeg_of(request, first, sender)
            case "snapshot":
                return await snapshot_of(first, AS_IT_IS, allow_offline=False)
            case other:
                raise RequestInvalid(f"action={other[:40]} is not known", "actions are stream and snapshot")

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """The API's description for people: no outside resource, so it works where there is no internet."""
        return FileResponse(WEB / "docs.html", headers=PAGE_HEADERS)

    @routes.get("/web/{file}", include_in_schema=False)
    async def part_of_page(file: str) -> Response:
        """The page's scripts and style: the files of one folder, nothing below it and nothing beside it."""
        if file not in {one.name for one in WEB.iterdir()}:
            raise HTTPException(404)
        return FileResponse(WEB / file, headers=PAGE_HEADERS)

    @routes.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> Response:
        """The page's icon."""
        return FileResponse(WEB / "icon.svg", media_type="image/svg+xml")

    return routes
