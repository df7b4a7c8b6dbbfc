"""POST /images/annotate: what Google Cloud Vision sees in a picture, where the operator has said that it may be asked.

Runs in: the API process. The picture is decoded, shrunk and written anew in the darkroom; what leaves the machine is
that JPEG, without metadata, from a process of its own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from camdock.api import NO_STORE
from camdock.darkroom import Darkroom
from camdock.errors import VisionOff
from camdock.images import TAKEN, CameraQuery, CaptureQuery, Places, kind_of
from camdock.problems import documented
from camdock.recipe import RECIPE

PATH = "/images/annotate"
LARGEST = 1600  # pixels of a side: beyond what Google's own guide asks for any of these features
ANSWERED_WITHIN_S = 25.0
SMALLER = [
    one.model_dump()
    for one in RECIPE.validate_python(
        [{"op": "resize", "width": LARGEST, "height": LARGEST}, {"op": "encode", "format": "jpeg", "quality": 90}]
    )
]
Feature = Literal["labels", "text", "objects", "faces"]


class Label(BaseModel):
    """What the picture shows."""

    name: str = Field(examples=["bird"])
    score: float = Field(description="0 to 1", examples=[0.97])


class Face(BaseModel):
    """Where a face is."""

    score: float = Field(description="0 to 1")
    box: list[float] = Field(description="left, top, right, bottom, as shares of the picture")


class Thing(Face):
    """Where a thing is."""

    name: str


class Annotations(BaseModel):
    """What was asked for; the rest is absent."""

    labels: list[Label] | None = None
    text: str | None = Field(None, description="all that can be read")
    objects: list[Thing] | None = None
    faces: list[Face] | None = None


def router(
    places: Places, darkroom: Darkroom, cloud: Darkroom, *, most_pixels: int, on: bool, endpoint: str
) -> APIRouter:
    """What others see in pictures.

    cloud  a darkroom whose hands ask Google
    """
    routes = APIRouter(tags=["images"])
    binary = {"schema": {"type": "string", "format": "binary"}}

    @routes.post(
        PATH, summary="What Google Cloud Vision sees in a picture", response_model_exclude_none=True,
        openapi_extra={
            "requestBody": {
                "description": "a picture; none where `camera` or `capture` names one",
                "content": dict.fromkeys(TAKEN, binary),
            }
        },
        responses=documented(403, 404, 408, 413, 415, 422, 503, 504),
    )  # fmt: skip
    async def annotate(
        request: Request,
        response: Response,
        camera: CameraQuery = None,
        capture: CaptureQuery = None,
        feature: Annotated[list[Feature], Query(max_length=4, description="what to look for; may be repeated")] = [  # noqa: B006
            "labels"
        ],
        most: Annotated[int, Query(ge=1, le=50, description="answers of each kind, at most")] = 10,
    ) -> Annotations:
        """Off unless `CAMDOCK_VISION=on`: the picture leaves this machine, and Google may charge for it."""
        if not on:
            raise VisionOff("pictures may not be sent to Google", "CAMDOCK_VISION=on allows it")
        with darkroom.place(), cloud.place():
            upload = await places.chosen(request, camera, capture)
            picture = upload.picture or b""
            given = {"kind": kind_of(picture), "steps": SMALLER, "answer": "picture", "most_pixels": most_pixels}
            smaller = await darkroom.process(picture, given)
            wanted = {"features": sorted(set(feature)), "most": most, "endpoint": endpoint}
            seen = await cloud.process(smaller, wanted)
        response.headers.update(NO_STORE)
        return Annotations.model_validate_json(seen)

    return routes
