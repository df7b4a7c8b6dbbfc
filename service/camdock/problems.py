"""Errors as RFC 9457 problem documents: the one place that turns any failure into an answer.

Runs in: the API process.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from camdock.errors import CameraError, RequestInvalid

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What the framework refuses by itself: code and hint.
BY_FRAMEWORK = {
    400: ("bad_request", "send JSON as UTF-8, and not nested so deeply; GET /docs shows what is asked for"),
    404: ("not_found", "GET /docs lists every address"),
    405: ("method_not_allowed", "GET /docs lists every address and method"),
}


class Refused(HTTPException):
    """An error of the tree, raised where the framework makes a 400 of whatever is no HTTPException."""

    def __init__(self, error: CameraError, headers: dict[str, str] | None = None) -> None:
        super().__init__(error.http_status, error.message, headers)
        self.error = error


class Problem(BaseModel):
    """A problem document (RFC 9457). `code` never changes; `hint` says what to do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:camdock:problem:source_missing",
                    "title": "Source not found",
                    "status": 503,
                    "detail": "/dev/video0 does not exist",
                    "code": "source_missing",
                    "hint": "plug the camera in; it is looked for every second",
                }
            ]
        }
    )

    type: str = Field(description="a name for this kind of problem, as a URN")
    title: str = Field(description="what kind of problem it is; always the same for a code")
    status: int = Field(description="the HTTP status again")
    detail: str = Field(description="what went wrong, naming the thing")
    code: str = Field(description="stable, for programs")
    hint: str = Field("", description="what to do about it")


def problem_response(
    status: int, code: str, title: str, detail: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """One problem document."""
    problem = Problem(
        type=f"urn:camdock:problem:{code}", title=title, status=status, detail=detail, code=code, hint=hint
    )
    return JSONResponse(
        problem.model_dump(), status, {"Cache-Control": "no-store", **(headers or {})}, media_type=MEDIA_TYPE
    )


def documented(*statuses: int, public: bool = False) -> dict[int | str, dict[str, Any]]:
    """`responses=` for a route: the problem documents it may answer, and what the gate answers before it.

    public  the gate asks for no token there
    """
    meanings = {
        400: "The body cannot be read",
        401: "The token is missing or wrong",
        403: "The viewers' token may not change anything, and no page of another website may",
        404: "There is nothing of that name",
        408: "The body did not arrive in time",
        412: "It is another one than If-Match means",
        413: "The body is larger than it may be",
        415: "The body is of no kind that is taken",
        416: "Nothing of that range is there",
        421: "The Host header names a host that is not served",
        422: "A parameter is not what it should be",
        429: "Too many wrong tokens from this address, or too many different pictures at a time: `detail` says which",
        503: "There is no picture now; `detail` says why",
        504: "Work on the picture was given up",
        507: "The disk is full",
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": meanings[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*statuses, 421} | (set() if public else {401, 429}))
    }


def answer_to(error: CameraError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem document of an error of the tree."""
    more = {"Retry-After": "1"} if error.http_status in (429, 503) and error.retry else {}
    return problem_response(
        error.http_status, error.code, error.summary, error.message, error.hint, {**more, **(headers or {})}
    )


async def _on_camera_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CameraError)
    return answer_to(error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return answer_to(error.error, error.headers)
    status, headers = error.status_code, dict(error.headers or {})
    phrase = HTTPStatus(status).phrase
    detail = error.detail if error.detail != phrase else f"{request.method} {request.url.path}: {phrase.lower()}"
    code, hint = BY_FRAMEWORK.get(status, (phrase.lower().replace(" ", "_").replace("-", "_"), ""))
    if status == 405:
        headers["Allow"] = ", ".join(_methods(request))
        hint = f"allowed are {headers['Allow']}; {hint}"
    return problem_response(status, code, phrase, detail, hint, headers)


def _methods(request: Request) -> list[str]:
    """The methods of an address: the framework names those of the first route alone."""
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _keys(request: Request) -> str:
    """The names that the JSON body of this route may have; empty where it takes none."""
    body = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(body, "field_info", None), "annotation", None)
    return ", ".join(one.alias or name for name, one in getattr(model, "model_fields", {}).items())


def _mistake(mistake: Mapping[str, Any]) -> str:
    """One of pydantic's, in words: with which thing, and what is wrong with it."""
    if mistake["type"] == "json_invalid" and isinstance(mistake["loc"][-1], int):  # the whole body
        return f"body: no JSON, at character {mistake['loc'][-1]}: {mistake['ctx']['error']}"
    return f"{'.'.join(str(step) for step in mistake['loc'][1:]) or mistake['loc'][0]}: {mistake['msg']}"


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    mistakes = error.errors()
    kinds = {mistake["type"] for mistake in mistakes}
    hints = []
    if "json" not in request.headers.get("content-type", "") and any(one["loc"] == ("body",) for one in mistakes):
        hints.append("send JSON as Content-Type: application/json")
    if "extra_forbidden" in kinds and (keys := _keys(request)):
        hints.append(f"there are: {keys}")
    hints.append("GET /docs shows what is asked for")
    return answer_to(RequestInvalid("; ".join(map(_mistake, mistakes))[:1000], "; ".join(hints)))


def install(app: FastAPI) -> None:
    """Make every failure of `app` a problem document."""
    app.add_exception_handler(CameraError, _on_camera_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
