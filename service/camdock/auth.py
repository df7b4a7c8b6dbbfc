"""Who may look, who may touch: the gate in front of every request.

Runs in: the API process. A plain ASGI middleware: it covers what a route's dependency does not (404s, the API's
description, WebSockets) and never stands between a stream and its socket.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import unquote_plus

from fastapi import Request
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camdock.attempts import Attempts, refusal
from camdock.config import LOOPBACK_NAMES, Config
from camdock.credentials import Credentials, Proof, Role, tokens_in
from camdock.digest import REALM
from camdock.origins import SAFE_METHODS, is_foreign
from camdock.problems import problem_response
from camdock.proxies import Proxies, address_of, path_of, sender_of

PUBLIC = frozenset(
    {"/health", "/health/live", "/health/ready", "/favicon.ico", "/docs", "/login", "/logout"}
    | {"/api/v1/health", "/api/v1/health/"}  # the table camera's, which tells no reasons
)
PUBLIC_BELOW = ("/web/",)
MOST_SHOWN = 3  # names that are answered, to whoever asks for another
_PARAMETER = re.compile(r"([?&;])([^?=&;\s]{0,64})=[^&;\s]*")  # a name ends: nothing is read twice
# Pictures may be shown by any website, which cannot read them; whatever else is ours stays among ourselves.
_PICTURES = (b"image/", b"multipart/x-mixed-replace")
_ALWAYS = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"no-referrer"}  # an address may have a token
_NO_PAGE = b"default-src 'none'; frame-ancestors 'none'"


def _without_token(parameter: re.Match[str]) -> str:
    name = parameter[2]  # may be written in percent escapes, and is understood so
    return f"{parameter[1]}{name}=***" if unquote_plus(name).lower() == "token" else parameter[0]


class Gate:
    """Lets a request through, or says why not.

    421  a foreign Host header (DNS rebinding)       401  no token, or a wrong one
    403  another website wants to change something   403  the viewers' token wants to
    429  too many wrong tokens from that address
    """

    def __init__(self, app: ASGIApp, config: Config, attempts: Attempts | None = None) -> None:
        self._app = app
        self._hosts = config.hosts
        self._origins = config.allowed_origins
        self._credentials = Credentials(config)
        self._is_open = config.auth == "off"
        self._attempts = Attempts() if attempts is None else attempts
        self._proxies = Proxies(config.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self._proxies.settle(scope)
        answer = self._refuse(scope, headers)
        if answer is None:
            await self._app(scope, receive, _guarded(send))
        elif scope["type"] == "http":
            await answer(scope, receive, _guarded(send))
        else:
            await refuse_websocket(answer, scope, send)

    def _refuse(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Why the request is not let through; None: it is, and its scope says what it may."""
        host = headers.get(b"host", b"").decode("latin-1")
        if host and not self._is_known(host):
            return problem_response(
                421,
                "host_unknown",
                "This name is not served",
                f"the Host header says {host[:100]!r}",
                self._open_instead(scope, host),
            )
        method = scope.get("method", "GET")
        is_change = method not in SAFE_METHODS
        sender = sender_of(scope)
        wait_s = self._attempts.wait_s(sender)
        proof = self._credentials.judge(headers, scope["query_string"], method, _target(scope), cookie_alone=wait_s > 0)
        if not self._credentials.asked and not self._is_open and not _is_local(scope):
            proof = Proof()  # where to listen was the affair of another server, which knows nothing of tokens
        if proof.wrong:
            self._attempts.was_wrong(sender, proof.tried, proof.wrong)
        scope.setdefault("state", {}).update(may_look=proof.role is not None, proof=proof)
        is_public = self._is_public(scope)
        if proof.role is None and not is_public:
            if wait_s and (b"authorization" in headers or any(tokens_in(scope["query_string"]))):
                return refusal(wait_s)
            if not self._credentials.asked:
                return _none_configured()
            return self._ask_for_token(headers, scope["query_string"], stale=proof.stale)
        if (is_change or _is_websocket(scope, headers)) and not proof.explicit and is_foreign(headers, self._origins):
            return problem_response(
                403,
                "cross_site",
                "Not from another website",
                "a page of another website asks this in its visitor's name",
                "let it send the token itself (`Authorization: Bearer`), or list it in CAMDOCK_ALLOWED_ORIGINS",
            )
        if is_change and proof.role is Role.LOOK and not is_public:
            return problem_response(
                403,
                "token_read_only",
                "This token may look, not touch",
                f"{method} {scope['path'][:100]} changes something, and this is the viewers' token",
                "send the token of CAMDOCK_TOKEN",
            )
        return None

    def _ask_for_token(self, headers: dict[bytes, bytes], query: bytes, *, stale: bool) -> Response:
        answer = problem_response(
            401,
            "token_needed",
            "A token is needed",
            "the request carries no token, or a wrong one",
            "send it as `Authorization: Bearer TOKEN`, as the password of Basic or Digest, or put ?token=TOKEN behind "
            "the address; browsers log in at /login",
        )
        for challenge in self._credentials.challenges(headers, query, stale=stale):
            answer.headers.append("WWW-Authenticate", challenge)
        return answer

    def _is_known(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host.strip().lower())
        return any(
            pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self._hosts
        )

    def _open_instead(self, scope: Scope, host: str) -> str:
        """What to do: addresses that are answered, at the port that was asked; at ours, where only it can be meant."""
        asked = re.search(r":\d{1,5}$", host)
        here = scope.get("server")
        scheme = "https" if scope.get("scheme") in ("https", "wss") else "http"
        names = []
        for name in self._hosts:
            if name.startswith("*") or (":" in name and not name.startswith("[")):
                continue
            ours = f":{here[1]}" if here and here[1] and name in LOOPBACK_NAMES else ""
            names.append(f"{scheme}://{name}{asked[0] if asked else ours}")
        shown = list(dict.fromkeys(names))[:MOST_SHOWN]
        shown = shown or [f"a name like {name}" for name in self._hosts[:MOST_SHOWN]]
        return f"open {' or '.join(shown)}, or add the name to CAMDOCK_ALLOWED_HOSTS"

    @staticmethod
    def _is_public(scope: Scope) -> bool:
        # "/" is the page without any picture on it; what it shows, it asks for with a token.
        path = path_of(scope)
        if path == "/":
            return "action" not in QueryParams(scope["query_string"])
        return path in PUBLIC or path.startswith(PUBLIC_BELOW)


def _none_configured() -> Response:
    return problem_response(
        401,
        "token_needed",
        "A token is needed",
        "this address can be reached from elsewhere, and no token is configured",
        "set CAMDOCK_TOKEN, let the server listen on 127.0.0.1, or set CAMDOCK_AUTH=off if everybody who reaches this "
        "port may look and touch",
        {"WWW-Authenticate": f'Bearer realm="{REALM}"'},
    )


def _is_local(scope: Scope) -> bool:
    """Whether the request came in where only this machine can ask: on loopback, or a socket in a folder."""
    here = scope.get("server")
    if not here or here[1] is None:  # (path, None): ASGI's way to say that it is a Unix socket
        return True
    address = address_of(here[0])
    return here[0] == "localhost" if address is None else address.is_loopback


def _target(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (raw + (b"?" + query if query else b"")).decode("latin-1")


def _is_websocket(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return scope["type"] == "websocket" or headers.get(b"upgrade", b"").lower() == b"websocket"


def _guarded(send: Send) -> Send:
    """`send`, with the headers that say what a browser may do with an answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            there = {name.lower(): value for name, value in headers}
            kind = there.get(b"content-type", b"")
            more = dict(_ALWAYS)
            more[b"cross-origin-resource-policy"] = b"cross-origin" if kind.startswith(_PICTURES) else b"same-origin"
            if not kind.startswith(_PICTURES):
                more[b"content-security-policy"] = _NO_PAGE
            headers += [(name, value) for name, value in more.items() if name not in there]
            message = {**message, "headers": headers}
        await send(message)

    return sending


async def refuse_websocket(answer: Response, scope: Scope, send: Send) -> None:
    """Answer a handshake that another server made a WebSocket of; without its help the client sees a bare 403."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await send(
            {"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
        )
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1008})


def proof_of(request: Request) -> Proof:
    """What this request, let through, has proven."""
    proof: Proof = request.scope.get("state", {}).get("proof", Proof())
    return proof


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
