"""POST /images/process: a picture that somebody sends, that a camera just took or that was kept, through operations.

Runs in: the API process. The bytes go to the darkroom as they came; of the picture only its first bytes are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from camdock.api import FRESH_MS, NO_STORE, fresh_frame
from camdock.bodies import Upload, read_upload
from camdock.camera import Camera
from camdock.captures import Captures
from camdock.darkroom import Darkroom
from camdock.errors import UploadTooLarge, UploadUnsupported
from camdock.problems import documented
from camdock.recipe import LONGEST_JSON, MOST_OPERATIONS, OPERATIONS, RECIPE, Operation, name_of
from camdock.slices import Held
from camdock.stream import find

PATH = "/images/process"
# How each kind begins, and Pillow's name for it.
KINDS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
)
TAKEN = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")


class Measurements(BaseModel):
    """What can be measured of a picture, behind its operations."""

    width: int = Field(examples=[640])
    height: int = Field(examples=[480])
    mean: list[float] = Field(description="of red, green and blue, or of brightness alone; 0 to 255")
    histogram: list[int] = Field(description="how many pixels have each brightness, 0 to 255")
    sharpness: float = Field(
        description="variance of the Laplacian of brightness: higher is sharper; compare pictures of one scene and size"
    )
    too_dark: float = Field(description="share of the pixels whose brightness is 0", examples=[0.002])
    too_bright: float = Field(description="share of the pixels whose brightness is 255", examples=[0.01])


class Taught(BaseModel):
    """One operation: what it does, and an example to start from."""

    op: str = Field(examples=["resize"])
    does: str = Field(examples=["Another size. With one side given the other follows."])
    example: Operation


EXAMPLES: tuple[dict[str, Any], ...] = (
    {"op": "resize", "width": 640},
    {"op": "crop", "x": 0, "y": 0, "width": 320, "height": 240},
    {"op": "rotate", "degrees": 90},
    {"op": "flip", "direction": "horizontal"},
    {"op": "grayscale"},
    {"op": "blur", "radius": 2},
    {"op": "sharpen", "radius": 2, "percent": 150},
    {"op": "threshold", "level": 128},
    {"op": "edges"},
    {"op": "equalise"},
    {"op": "normalise", "cutoff": 0.5},
    {"op": "annotate", "text": "front door", "x": 10, "y": 10},
    {"op": "encode", "format": "webp", "quality": 80},
)


def kind_of(picture: bytes) -> str:
    """Pillow's name of what these bytes say they are, whatever the request called them. Raises UploadUnsupported."""
    for begins, kind in KINDS:
        if picture.startswith(begins):
            return kind
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "WEBP"
    raise UploadUnsupported("these bytes are no picture of a kind that is taken", "JPEG, PNG, WebP, TIFF and BMP are")


def _mistake(where: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", where), "msg": message, "type": "value_error"}])


def recipe_of(text: str | None) -> list[dict[str, Any]]:
    """The operations that a JSON text asks for. Raises RequestValidationError, which names place and field."""
    if not text:
        return []
    if len(text) > LONGEST_JSON:
        raise _mistake("operations", f"longer than {LONGEST_JSON} characters")
    try:
        return [one.model_dump() for one in RECIPE.validate_json(text)]
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [{**one, "loc": ("query", "operations", *one["loc"])} for one in mistakes]
        ) from None


def _description() -> dict[str, Any]:
    """What FastAPI does not know of the request: JSON in the query, and the bodies."""
    names = {name_of(one): f"#/components/schemas/{one.__name__}" for one in OPERATIONS}
    operation = {
        "oneOf": [{"$ref": reference} for reference in names.values()],
        "discriminator": {"propertyName": "op", "mapping": names},
    }
    recipe = {"type": "array", "items": operation, "maxItems": MOST_OPERATIONS}
    shown = [EXAMPLES[0], EXAMPLES[6]]
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {
            "file": {**binary, "description": "the picture: JPEG, PNG, WebP, TIFF or BMP, whatever it is called"},
            "operations": {
                "type": "string",
                "description": "the operations, one behind the other, as JSON; here or behind the address",
                "format": "operations",
                "contentMediaType": "application/json",
                "contentSchema": recipe,
                "examples": [json.dumps(shown)],
            },
        },
        "required": ["file"],
        "additionalProperties": False,
    }
    return {
        "parameters": [
            {
                "name": "operations",
                "in": "query",
                "description": "the operations, one behind the other, as JSON; an empty list writes the picture anew",
                "content": {"application/json": {"schema": recipe, "example": shown}},
            }
        ],
        "requestBody": {
            "description": "a picture, as it is or in a form; none where `camera` or `capture` names one",
            "content": {"multipart/form-data": {"schema": form}, **{kind: {"schema": binary} for kind in TAKEN}},
        },
    }


ANSWERS: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "the picture, or with `answer=measurements` what was measured",
        "model": Measurements,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in TAKEN},
    }
}


CameraQuery = Annotated[
    str | None, Query(max_length=64, description="take this camera's newest picture; the body is then empty")
]
CaptureQuery = Annotated[str | None, Query(max_length=64, description="take this capture; likewise")]


@dataclass(frozen=True)
class Places:
    """Where a picture may come from: the request itself, a camera, a capture."""

    cameras: dict[str, Camera]
    captures: Captures
    most_bytes: int

    async def chosen(self, request: Request, camera: str | None, capture: str | None) -> Upload:
        """The picture that a request brings or names, and the operations in its form.

        Raises CameraMissing, CaptureMissing, UploadTooLarge; RequestValidationError unless it is exactly one picture.
        """
        upload = await read_upload(request, self.most_bytes)
        if [camera, capture, upload.picture].count(None) != 2:
            raise _mistake("camera", "send a picture, or name a camera or a capture: one of the three")
        if camera is not None:
            return replace(upload, picture=(await fresh_frame(find(self.cameras, camera), FRESH_MS / 1000)).jpeg)
        if capture is not None:
            return replace(upload, picture=await self._kept(capture))
        return upload

    async def _kept(self, name: str) -> bytes:
        opened = await self.captures.open(name)
        with opened.file as file:
            if opened.size_bytes > self.most_bytes:
                raise UploadTooLarge(
                    f"{name} has {opened.size_bytes:,} bytes, more than {self.most_bytes:,}",
                    "CAMDOCK_UPLOAD_MAX_BYTES sets the limit for pictures that are worked on",
                )
            return bytes(await self.captures.aside(file.read))


def router(places: Places, darkroom: Darkroom, *, most_pixels: int, send_timeout_s: float) -> APIRouter:
    """The pictures that people send."""
    routes = APIRouter(tags=["images"])

    @routes.get("/images/operations", summary="What can be done to a picture", responses=documented())
    async def operations() -> list[Taught]:
        """Every operation with what it does and an example; their limits are in this API's description."""
        return [
            Taught(op=name_of(one), does=(one.__doc__ or "").strip(), example=one.model_validate(example))
            for one, example in zip(OPERATIONS, EXAMPLES, strict=True)
        ]

    @routes.post(
        PATH, summary="A picture, processed", response_class=Response, openapi_extra=_description(),
        responses={**ANSWERS, **documented(403, 404, 408, 413, 415, 422, 503, 504)},
    )  # fmt: skip
    async def process(
        request: Request,
        camera: CameraQuery = None,
        capture: CaptureQuery = None,
        answer: Annotated[
            Literal["picture", "measurements"], Query(description="what to answer: the picture, or figures of it")
        ] = "picture",
    ) -> Response:
        """Decodes, does the operations one behind the other, answers the picture or its measurements.

        JPEG, PNG, WebP, TIFF and BMP, whatever the request calls them; of several pages the first. Pictures are put
        upright by their Exif orientation; no other metadata is in the answer. What is transparent becomes white.
        """
        with ExitStack() as held:
            held.enter_context(darkroom.place())
            upload = await places.chosen(request, camera, capture)
            asked = request.query_params.get("operations")
            if upload.operations is not None and asked is not None:
                raise _mistake("operations", "given twice: in the form, and behind the address")
            steps = recipe_of(upload.operations if asked is None else asked)
            picture = upload.picture or b""
            arguments = {"kind": kind_of(picture), "steps": steps, "answer": answer, "most_pixels": most_pixels}
            output = await darkroom.process(picture, arguments)
            written = steps[-1]["format"] if steps and steps[-1]["op"] == "encode" else "jpeg"
            media_type = "application/json" if answer == "measurements" else f"image/{written}"
            # Its place is kept: an answer that nobody takes is as much memory as a picture that is worked on.
            return Held(output, media_type, dict(NO_STORE), held.pop_all(), send_timeout_s)

    return routes
