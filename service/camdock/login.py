"""Logging in with a browser: the token once, a cookie from then on.

Runs in: the API process.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from camdock.api import PAGE_HEADERS, WEB
from camdock.attempts import Attempts, refusal
from camdock.credentials import Credentials
from camdock.problems import documented, problem_response
from camdock.proxies import sender_of

LARGEST = 4096  # bytes of what is sent to log in
_TOKEN: dict[str, Any] = {
    "type": "object",
    "properties": {"token": {"type": "string", "description": "the value of CAMDOCK_TOKEN or CAMDOCK_VIEWER_TOKEN"}},
    "required": ["token"],
    "examples": [{"token": "TOKEN"}],
}
_BODY = {
    "content": {kind: {"schema": _TOKEN} for kind in ("application/json", "application/x-www-form-urlencoded")},
    "required": True,
}
_BACK: dict[int | str, dict[str, Any]] = {303: {"description": "Back to the page, for who asks for text/html"}}


class May(BaseModel):
    """What the cookie opens."""

    may: str = Field(description="touch, look or nothing", examples=["touch"])


def router(credentials: Credentials, attempts: Attempts) -> APIRouter:
    """GET and POST /login, POST /logout; who comes from another website is stopped at the gate."""
    routes = APIRouter(tags=["logging in"])

    @routes.get("/login", include_in_schema=False)
    async def page() -> Response:
        """The form, for browsers without JavaScript too."""
        return FileResponse(WEB / "login.html", headers=PAGE_HEADERS)

    @routes.post(
        "/login", summary="Show the token once, for a cookie", response_model=May,
        openapi_extra={"requestBody": _BODY, "security": []}, responses={**_BACK, **documented(403, 408, 413)},
    )  # fmt: skip
    async def login(request: Request) -> Response:
        """`token=` as a form, or `{"token": ...}` as JSON. The answer sets the cookie."""
        for_people = b"text/html" in dict(request.scope["headers"]).get(b"accept", b"")
        if not credentials.asked:
            return _answer("touch", for_people)
        sender = sender_of(request.scope)
        token = await _token_in(request)
        # Behind the body: of requests that come together none has been judged while they wait for theirs.
        if wait_s := attempts.wait_s(sender):
            return RedirectResponse("login#wait", 303) if for_people else refusal(wait_s)
        role = credentials.role_of(token) if token else None
        if role is None:
            if token:
                attempts.was_wrong(sender, "login")
            if for_people:
                return RedirectResponse("login#wrong", 303)
            return problem_response(
                401,
                "token_needed",
                "A token is needed",
                "there is no token, or a wrong one",
                'send it as a form, token=TOKEN, or as JSON, {"token": "TOKEN"}',
                {"WWW-Authenticate": 'Bearer realm="camdock"'},
            )
        answer = _answer(role.value, for_people)
        answer.headers["Set-Cookie"] = credentials.cookie_for(role, secure=request.url.scheme == "https")
        return answer

    @routes.post(
        "/logout", summary="Give the cookie back", response_model=May,
        openapi_extra={"security": []}, responses={**_BACK, **documented(403, public=True)},
    )  # fmt: skip
    async def logout(request: Request) -> Response:
        """Takes the cookie away."""
        for_people = b"text/html" in dict(request.scope["headers"]).get(b"accept", b"")
        answer = _answer("nothing", for_people)
        answer.headers["Set-Cookie"] = credentials.no_cookie(secure=request.url.scheme == "https")
        return answer

    return routes


def _answer(may: str, for_people: bool) -> Response:
    """Relative, so that it is right below a proxy's prefix."""
    answer = RedirectResponse("./", 303) if for_people else JSONResponse({"may": may})
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def _token_in(request: Request) -> bytes:
    """What was sent as the token; empty where nothing that can be read was."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            return b""
    try:
        if request.headers.get("content-type", "").lower().startswith("application/json"):
            token = json.loads(body)["token"]
        else:
            token = parse_qs(body.decode("latin-1"))["token"][0]
        return str(token).strip().encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return b""
