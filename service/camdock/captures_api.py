"""The captures' endpoints: their paths, their models, ranges; each a call to Camera, Captures or Darkroom.

Runs in: the API process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import Receive, Scope, Send

from camdock.api import PAGE_HEADERS, SensorModel, SettingsModel, Size
from camdock.camera import Camera
from camdock.captures import Captures, Opened
from camdock.darkroom import Darkroom
from camdock.errors import CaptureMissing, ImageUnreadable
from camdock.frame import FORMATS
from camdock.problems import documented, problem_response
from camdock.recipe import WholeOrNone
from camdock.rendition import DEFAULT_QUALITY
from camdock.settings import Settings
from camdock.slices import SLICE, Slices
from camdock.stream import CameraName, HeightQuery, WidthQuery, find
from camdock.wire import LARGEST_BLOB

PAGE = 100  # captures, where nothing is said
THUMBNAIL = 320  # pixels, where nothing is said
# A capture never changes, and is for its owner: browsers keep it, proxies do not, and ask whether it is still there.
KEPT = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": PAGE_HEADERS["X-Content-Type-Options"]}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {media_type: _BINARY for _, media_type in FORMATS.values()}


class CaptureRequest(BaseModel):
    """What this capture alone is to have; what is absent is as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"exposure_us": 20000, "format": "PNG"}]})

    exposure_us: WholeOrNone = Field(
        None, ge=1, le=3_600_000_000, strict=True, description="microseconds; auto exposure is off for this picture"
    )
    gain: float | None = Field(
        None, ge=0, le=10_000, strict=True, allow_inf_nan=False, description="linear factor, 1.0 = none"
    )
    format: Literal["JPG", "PNG", "TIFF"] | None = Field(None, description="without it CAMDOCK_IMAGE_FORMAT")


class Metadata(BaseModel):
    """What is known of a capture: the content of the JSON file beside it."""

    filename: str = Field(examples=["capture_20261017_010203_004.jpg"])
    camera: str = Field(examples=["front"])
    source: str = Field(description="without credentials", examples=["v4l2:/dev/video0"])
    device: str = Field(examples=["HD Webcam (/dev/video0)"])
    seq: int = Field(description="its number among the camera's pictures")
    captured_at: float = Field(description="Unix seconds")
    format: str = Field(examples=["JPG"])
    size: Size
    size_bytes: int = Field(examples=[412345])
    sha256: str = Field(description="of the file; its ETag too")
    settings: SettingsModel = Field(description="in force when it was taken; null where the camera does not say")
    sensor: SensorModel = Field(
        default_factory=SensorModel, description="what the sensor said of it; null where it does not say"
    )


class Listed(BaseModel):
    """One capture in the list."""

    filename: str = Field(examples=["capture_20261017_010203_004.jpg"])
    size_bytes: int = Field(examples=[412345])
    modified: float = Field(description="Unix seconds of its file")


class CaptureList(BaseModel):
    """Some captures, the newest first."""

    captures: list[Listed]
    count: int = Field(description="of the whole folder")
    next: str | None = Field(description="ask again with ?before= this for the next ones; null: there are none")


class FileSlice(Response):
    """A file or a part of it, read in threads, a slice at a time; closes it whatever happens."""

    def __init__(
        self,
        captures: Captures,
        opened: Opened,
        begin: int,
        length: int,
        status: int,
        headers: Mapping[str, str],
        send_timeout_s: float,
    ) -> None:
        super().__init__(None, status, dict(headers), opened.media_type)
        self.headers["Content-Length"] = str(length)
        self._captures = captures
        self._opened, self._begin, self._length = opened, begin, length
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        file, left = self._opened.file, self._length if scope["method"] == "GET" else 0
        try:
            slices = Slices(scope, send, self._send_timeout_s)
            await slices.send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            file.seek(self._begin)
            while left:
                data = await self._captures.aside(file.read, min(SLICE, left))
                if not data:  # made shorter by somebody: what was promised cannot be kept
                    raise OSError(f"{file.name} became shorter while it was read")
                left -= len(data)
                if not await slices.send({"type": "http.response.body", "body": data, "more_body": bool(left)}):
                    return
            if not self._length or scope["method"] == "HEAD":
                await slices.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._captures.aside(file.close)


def _asked(wanted: str, size: int) -> tuple[int, int] | None:
    """(begin, length) of a Range header. None: it is to be ignored. Raises ValueError when nothing of it is there.

    source  RFC 9110 section 14; more than one range, or another unit, may be ignored
    """
    match = _RANGE.fullmatch(wanted.strip())
    if not match or not (match[1] or match[2]) or (match[1] and match[2] and int(match[2]) < int(match[1])):
        return None
    begin = int(match[1]) if match[1] else max(0, size - int(match[2]))
    end = min(size, int(match[2]) + 1) if match[1] and match[2] else size
    if begin >= end:
        raise ValueError
    return begin, end - begin


def has_etag(request: Request, etag: str) -> bool:
    """Whether the one who asks has this already (If-None-Match)."""
    sent = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in sent or sent == ["*"]


def _is_another(request: Request, etag: str) -> bool:
    """Whether the one who asks means another than this (If-Match; RFC 9110 section 13.1.1)."""
    sent = [tag.strip() for tag in request.headers.get("if-match", "*").split(",")]
    return etag not in sent and sent != ["*"]


def _not_that(etag: str) -> Response:
    return problem_response(
        412, "another_capture", "It is another one", "its ETag is none of If-Match",
        "GET it anew: the ETag of this answer is the one that it has now", {"ETag": etag},
    )  # fmt: skip


def _answer(request: Request, captures: Captures, opened: Opened, send_timeout_s: float) -> Response:
    try:
        answer = _answer_open(request, captures, opened, send_timeout_s)
    except BaseException:
        opened.file.close()
        raise
    if not isinstance(answer, FileSlice):
        opened.file.close()
    return answer


def _answer_open(request: Request, captures: Captures, opened: Opened, send_timeout_s: float) -> Response:
    if _is_another(request, opened.etag):
        return _not_that(opened.etag)
    headers = {**KEPT, "ETag": opened.etag, "Accept-Ranges": "bytes"}
    if has_etag(request, opened.etag):
        return Response(status_code=304, headers=headers)
    asked = None
    if request.headers.get("if-range", opened.etag) == opened.etag:
        try:
            asked = _asked(request.headers.get("range", ""), opened.size_bytes)
        except ValueError:
            return problem_response(
                416, "range_not_there", "Nothing of that range is there", f"the capture has {opened.size_bytes} bytes",
                "they are counted from 0; without Range all of them come",
                {**headers, "Content-Range": f"bytes */{opened.size_bytes}"},
            )  # fmt: skip
    if asked is None:
        return FileSlice(captures, opened, 0, opened.size_bytes, 200, headers, send_timeout_s)
    begin, length = asked
    headers["Content-Range"] = f"bytes {begin}-{begin + length - 1}/{opened.size_bytes}"
    return FileSlice(captures, opened, begin, length, 206, headers, send_timeout_s)


CaptureName = Annotated[
    str, Path(description="as in GET /captures", examples=["capture_20261017_010203_004.jpg"], max_length=64)
]
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": _FILES},
    206: {"description": "The part of it that Range asks for", "content": _FILES},
    304: {"description": "The one who asks has it already"},
}


def router(
    cameras: dict[str, Camera],
    captures: Captures,
    thumbnails: Darkroom,
    image_format: str,
    image_quality: int,
    *,
    send_timeout_s: float,
) -> APIRouter:
    """Everything about captures that is ours."""
    routes = APIRouter(tags=["captures"])

    @routes.post(
        "/cameras/{name}/captures", summary="Take a picture and keep it", status_code=201,
        responses=documented(400, 403, 404, 408, 413, 422, 503, 504, 507),
    )  # fmt: skip
    async def capture(
        name: CameraName, response: Response, wanted: Annotated[CaptureRequest | None, Body()] = None
    ) -> Metadata:
        """A still at full quality, taken after the request. Its own exposure and gain are for this picture alone.

        The answer comes when the picture and its metadata are on the disk.
        """
        wanted = wanted or CaptureRequest()
        still = await find(cameras, name).still(
            Settings(exposure_us=wanted.exposure_us, gain=wanted.gain),
            still_format=wanted.format or image_format,
            quality=image_quality,
        )
        added, metadata = await captures.add(still)
        response.headers["Location"] = f"/captures/{added.filename}"
        return Metadata(filename=added.filename, **metadata)

    @routes.get("/captures", summary="The captures, the newest first", responses=documented(422, 507))
    async def list_captures(
        limit: Annotated[int, Query(ge=1, le=1000, description="captures at most")] = PAGE,
        before: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
    ) -> CaptureList:
        """Ask again with `before` for the ones before these. A capture that comes meanwhile moves nothing."""
        page = await captures.page(limit, before)
        listed = [
            Listed(filename=one.filename, size_bytes=one.size_bytes, modified=one.modified) for one in page.captures
        ]
        return CaptureList(captures=listed, count=page.count, next=page.before)

    @routes.head("/captures/{filename}", include_in_schema=False)
    @routes.get(
        "/captures/{filename}", summary="One capture", response_class=Response,
        responses={**FILE_RESPONSES, **documented(404, 412, 416, 422, 507)},
    )  # fmt: skip
    async def one_capture(request: Request, filename: CaptureName) -> Response:
        """The file as it was saved. Knows Range, If-Range, If-Match and If-None-Match; its ETag is its SHA-256."""
        return _answer(request, captures, await captures.open(filename), send_timeout_s)

    @routes.get(
        "/captures/{filename}/thumbnail", summary="A small picture of it", response_class=Response,
        responses={
            200: {"description": "a JPEG", "content": {"image/jpeg": _BINARY}},
            304: {"description": "The one who asks has it already"},
            **documented(404, 422, 503, 504, 507),
        },
    )  # fmt: skip
    async def thumbnail(
        request: Request, filename: CaptureName, width: WidthQuery = None, height: HeightQuery = None
    ) -> Response:
        """A JPEG fitted into the box, never enlarged; 320x320 where no side is given. Made anew each time."""
        if width is None and height is None:
            width = height = THUMBNAIL
        opened = await captures.open(filename)
        etag = f'"{opened.etag.strip(chr(34))}-{width or ""}x{height or ""}"'
        headers = {**KEPT, "ETag": etag}
        try:
            if has_etag(request, etag):
                return Response(status_code=304, headers=headers)
            if opened.size_bytes > LARGEST_BLOB:
                raise ImageUnreadable(
                    f"{filename} is too large for a thumbnail", f"GET /captures/{filename} is the whole file"
                )
            async with thumbnails.next_place():
                data = await captures.aside(opened.file.read)
                arguments = {"width": width, "height": height, "quality": DEFAULT_QUALITY}
                small = await thumbnails.process(data, arguments)
        finally:
            opened.file.close()
        return Response(small, media_type="image/jpeg", headers=headers)

    @routes.get("/captures/{filename}/metadata", summary="What is known of it", responses=documented(404, 422, 507))
    async def metadata(filename: CaptureName) -> Metadata:
        """Settings in force, camera, time, checksum. 404 for what another program put into the folder."""
        found = await captures.metadata(filename)
        try:
            return Metadata(**{**found, "filename": filename})
        except ValidationError:
            raise CaptureMissing(
                f"the metadata of {filename} is not as it was written",
                "its file was changed; the picture is still there",
            ) from None

    @routes.delete(
        "/captures/{filename}", summary="Delete it", status_code=204, response_class=Response,
        responses=documented(403, 404, 412, 422, 507),
    )  # fmt: skip
    async def delete(request: Request, filename: CaptureName) -> Response:
        """The picture and its metadata, for good; with If-Match only where its ETag is one of these."""
        if "if-match" in request.headers:
            opened = await captures.open(filename)
            opened.file.close()
            if _is_another(request, opened.etag):
                return _not_that(opened.etag)
        await captures.delete(filename)
        return Response(status_code=204)

    return routes
