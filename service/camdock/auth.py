"""Who may look, who may touch: the gate in front of every request.

Runs in: the API process. A plain ASGI middleware: it covers what a route's dependency does not (404s, the API's
description, WebSockets) and never stands between a stream and its socket.
"""

from __future__ import annotations

import hmac
import logging
import re
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from camdock.config import Config
from camdock.problems import problem_response

PUBLIC = frozenset({"/health", "/health/live", "/health/ready", "/favicon.ico", "/docs"})
PUBLIC_BELOW = ("/web/",)
_PARAMETER = re.compile(r"([?&;])([^=&;\s]*)=[^&;\s]*")


def _without_token(parameter: re.Match[str]) -> str:
    name = parameter[2]  # may be written in percent escapes, and is understood so
    return f"{parameter[1]}{name}=***" if unquote_plus(name).lower() == "token" else parameter[0]


class Gate:
    """Answers 421 to a foreign Host header (DNS rebinding) and 401 where the token is missing or wrong."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._hosts = config.hosts
        self._token = config.secret.get_secret_value().encode() if config.secret and config.auth == "on" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host and not self._is_known(host):
            refusal = problem_response(
                421,
                "host_unknown",
                "This name is not served",
                f"the Host header says {host[:100]!r}",
                "open http://localhost or http://127.0.0.1, or list the name in CAMDOCK_ALLOWED_HOSTS",
            )
            await refusal(scope, receive, send)
            return
        may_look = self._token is None or self._has_token(headers, scope["query_string"])
        scope.setdefault("state", {})["may_look"] = may_look
        if may_look or self._is_public(scope):
            await self._app(scope, receive, send)
            return
        refusal = problem_response(
            401,
            "token_needed",
            "A token is needed",
            "the request carries no token, or a wrong one",
            "send it as `Authorization: Bearer TOKEN`, or put ?token=TOKEN behind the address",
            {"WWW-Authenticate": 'Bearer realm="camdock"'},
        )
        await refusal(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host.strip().lower())
        return any(
            pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self._hosts
        )

    def _has_token(self, headers: dict[bytes, bytes], query: bytes) -> bool:
        assert self._token is not None
        kind, _, sent = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(sent.strip(), self._token):
            return True
        pairs = parse_qsl(query.decode("latin-1"), encoding="utf-8", errors="replace")
        # A token has no spaces, so one that arrives was a plus sign that nobody wrote as %2B.
        sent_here = (value.replace(" ", "+").encode() for name, value in pairs if name == "token")
        return any(hmac.compare_digest(value, self._token) for value in sent_here)

    @staticmethod
    def _is_public(scope: Scope) -> bool:
        # "/" is the page without any picture on it; what it shows, it asks for with a token.
        path = scope["path"]
        if path == "/":
            return "action" not in QueryParams(scope["query_string"])
        return path in PUBLIC or path.startswith(PUBLIC_BELOW)


def may_look(request: Request) -> bool:
    """Whether this request, let through, may also see reasons and devices: for the few paths open to all."""
    return bool(request.scope.get("state", {}).get("may_look", False))


class WithoutToken(logging.Filter):
    """Takes the token out of the access log's lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; never drops one."""

        def clean(value: Any) -> Any:
            return _PARAMETER.sub(_without_token, value) if isinstance(value, str) else value

        if isinstance(record.args, tuple):
            record.args = tuple(map(clean, record.args))
        record.msg = clean(record.msg)
        return True
