"""The gate in front of every request, as the server calls it; and the log that must not repeat the token."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from camdock.auth import Gate, WithoutToken
from camdock.config import Config

TOKEN = "hunter2+hunter/2="


def config_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Config:
    for name in ("CAMDOCK_TOKEN", "CAMDOCK_AUTH", "CAMDOCK_ALLOWED_HOSTS", "CAMDOCK_HOST", "HOST", "CAMDOCK_SOURCES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Config()


@dataclass
class Answer:
    """What came of a request: `let_through` is whether the application saw it, `may_look` what it was told."""

    let_through: bool = False
    may_look: bool | None = None
    status: int | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


def knock(
    config: Config,
    path: str = "/stream",
    query: bytes = b"",
    host: str | None = "localhost",
    authorization: bytes | None = None,
    kind: str = "http",
    server: tuple[str, int | None] | None = ("127.0.0.1", 8000),
) -> Answer:
    answer = Answer()

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        answer.let_through = True
        answer.may_look = scope.get("state", {}).get("may_look")

    async def send(event: Any) -> None:
        answer.status = event.get("status", answer.status)
        answer.headers |= dict(event.get("headers", ()))
        answer.body += event.get("body", b"")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    headers += [] if authorization is None else [(b"authorization", authorization)]
    extensions = {"websocket.http.response": {}}
    scope = {"type": kind, "path": path, "query_string": query, "headers": headers, "extensions": extensions}
    scope["server"] = server
    asyncio.run(Gate(app, config)(scope, receive, send))
    return answer


# --- the Host header --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost:8000",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8000",
        "cam.localhost:8000",
        "localhost:",
        None,
    ],
)
def test_loopback_is_answered_under_its_own_names(monkeypatch: pytest.MonkeyPatch, host: str | None) -> None:
    assert knock(config_of(monkeypatch), host=host).let_through


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evillocalhost",
        "192.168.1.5:8000",
        "[::2]:8000",
        "[::1].evil.example",
        "localhost:8000.evil.example",
        "localhost:80:80",
        "localhost@evil.example",
        "evil.example/localhost",
        "\xfflocalhost",
        "*",
        "*.localhost.",
    ],
)
def test_a_rebound_name_is_misdirected_wherever_it_asks(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for path in ("/stream", "/", "/health", "/web/app.js"):
        answer = knock(config_of(monkeypatch), path=path, host=host)
        assert (answer.let_through, answer.status) == (False, 421), path
    problem = json.loads(answer.body)
    assert problem["code"] == "host_unknown"
    assert "CAMDOCK_ALLOWED_HOSTS" in problem["hint"]


@pytest.mark.parametrize(
    ("allowed", "host", "says"),
    [
        ("", "evil.example", "open http://localhost:8000 or http://127.0.0.1:8000 or http://[::1]:8000, or add"),
        ("", "evil.example:9000", "open http://localhost:9000 or http://127.0.0.1:9000 or "),
        ("cam.lan", "127.0.0.1:8000", "open http://cam.lan:8000, or add the name to CAMDOCK_ALLOWED_HOSTS"),
        ("cam.lan", "127.0.0.1", "open http://cam.lan, or add"),
        ("*.cam.lan", "127.0.0.1:8000", "open a name like *.cam.lan, or add"),
        ("a.lan,b.lan,c.lan,d.lan", "e.lan", "open http://a.lan or http://b.lan or http://c.lan, or add"),
    ],
)
def test_who_asks_for_another_name_is_told_those_that_are_answered(
    monkeypatch: pytest.MonkeyPatch, allowed: str, host: str, says: str
) -> None:
    config = config_of(monkeypatch, CAMDOCK_ALLOWED_HOSTS=allowed)
    hint = json.loads(knock(config, host=host).body)["hint"]
    assert hint.startswith(says)
    for name in re.findall(r"http://(\S+?),?(?= or |, or )", hint):
        assert knock(config, host=name).let_through, name


def test_a_rebound_name_is_misdirected_even_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN)
    assert knock(config, host="evil.example", authorization=f"Bearer {TOKEN}".encode()).status == 421


@pytest.mark.parametrize(
    ("allowed", "host", "known"),
    [
        ("cam.lan", "cam.lan:8000", True),
        ("cam.lan", "CAM.LAN", True),
        ("Cam.LAN", "cam.lan", True),
        ("cam.lan", "localhost", False),
        ("cam.lan", "xcam.lan", False),
        ("cam.lan", "a.cam.lan", False),
        ("*.cam.lan", "a.cam.lan", True),
        ("*.cam.lan", "a.b.cam.lan:1", True),
        ("*.cam.lan", "cam.lan", False),
        ("*.cam.lan", "evilcam.lan", False),
        ("cam.lan, localhost", "localhost", True),
        ("[fd00::5]", "[fd00::5]:8000", True),
        ("192.168.1.5", "192.168.1.5:8000", True),
        ("*", "anything.at.all", True),
    ],
)
def test_allowed_hosts_are_the_ones_answered(
    monkeypatch: pytest.MonkeyPatch, allowed: str, host: str, known: bool
) -> None:
    assert knock(config_of(monkeypatch, CAMDOCK_ALLOWED_HOSTS=allowed), host=host).let_through is known


def test_on_the_network_any_name_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(monkeypatch, CAMDOCK_HOST="0.0.0.0", CAMDOCK_AUTH="off")
    assert knock(config, host="whatever.example:8000").let_through


def test_the_address_it_listens_on_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knock(config_of(monkeypatch, CAMDOCK_HOST="127.0.0.2"), host="127.0.0.2:8000").let_through


# --- the token --------------------------------------------------------------------------------------------------------


def test_without_a_token_configured_everybody_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knock(config_of(monkeypatch)).may_look is True
    assert knock(config_of(monkeypatch), authorization=b"Bearer whatever").may_look is True


@pytest.mark.parametrize(
    "server",
    [("127.0.0.1", 8000), ("::1", 8000), ("::ffff:127.0.0.1", 8000), ("localhost", 80), ("/run/x", None), None],
)
def test_without_a_token_configured_this_machine_may_look(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, int | None] | None
) -> None:
    assert knock(config_of(monkeypatch), server=server).may_look is True


@pytest.mark.parametrize("server", [("192.0.2.2", 8000), ("::ffff:192.0.2.2", 8000), ("2001:db8::1", 1), ("cam", 80)])
def test_without_a_token_configured_nobody_else_may_wherever_the_server_listens(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, int | None]
) -> None:
    answer = knock(config_of(monkeypatch), server=server)
    assert (answer.let_through, answer.status) == (False, 401)
    assert "CAMDOCK_TOKEN" in json.loads(answer.body)["hint"]
    assert knock(config_of(monkeypatch), "/health", server=server).may_look is False
    assert knock(config_of(monkeypatch, CAMDOCK_AUTH="off"), server=server).may_look is True
    assert knock(
        config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN), authorization=f"Bearer {TOKEN}".encode(), server=server
    ).may_look


def test_auth_off_makes_the_token_meaningless(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knock(config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN, CAMDOCK_AUTH="off")).may_look is True


@pytest.mark.parametrize(
    ("query", "authorization"),
    [
        (b"", f"Bearer {TOKEN}".encode()),
        (b"", f"bearer {TOKEN}".encode()),
        (b"", f"BEARER  {TOKEN} ".encode()),
        (b"token=hunter2%2Bhunter%2F2%3D", None),
        (b"frames=1&token=hunter2%2Bhunter/2=", None),
        (b"token=hunter2+hunter/2=", None),  # as it stands in the configuration, nothing encoded
        (b"token=hunter2%2Bhunter/2=", b"Basic dXNlcjpwYXNz"),
        (b"token=wrong-token", f"Bearer {TOKEN}".encode()),
    ],
)
def test_the_token_opens(monkeypatch: pytest.MonkeyPatch, query: bytes, authorization: bytes | None) -> None:
    answer = knock(config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN), query=query, authorization=authorization)
    assert (answer.let_through, answer.may_look) == (True, True)


@pytest.mark.parametrize(
    ("query", "authorization"),
    [
        (b"", None),
        (b"", b""),
        (b"", b"Bearer"),
        (b"", b"Bearer "),
        (b"", b"Bearer wrong-token"),
        (b"", f"Bearer {TOKEN}x".encode()),
        (b"", f"Bearer {TOKEN[:-1]}".encode()),
        (b"", f"Bearer {TOKEN.upper()}".encode()),
        (b"", f"Basic {TOKEN}".encode()),
        (b"", TOKEN.encode()),
        (b"", "Bearer schlüssel".encode()),
        (b"", b"Bearer \xff\xfe"),
        (b"token=", None),
        (b"token", None),
        (b"token=%", None),
        (b"token=%ff%fe", None),
        (b"token=\xc3\xbc", None),
        (b"token=%ED%A0%80", None),
        (b"TOKEN=hunter2%2Bhunter/2=", None),
        (b"action=hunter2%2Bhunter/2=", None),
        (b"token=***", None),
        (b"token=wrong&token=hunter2%2Bhunter/2=", None),
    ],
)
def test_anything_else_does_not_open(
    monkeypatch: pytest.MonkeyPatch, query: bytes, authorization: bytes | None
) -> None:
    config = config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN)
    answer = knock(config, query=query, authorization=authorization)
    assert (answer.let_through, answer.status) == (False, 401)
    assert answer.headers[b"www-authenticate"] == b'Bearer realm="camdock"'
    assert answer.headers[b"content-type"] == b"application/problem+json"
    problem = json.loads(answer.body)
    assert problem["code"] == "token_needed"
    assert TOKEN not in answer.body.decode()


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_bytes_in_query_or_header_raise_or_open(query: bytes, authorization: bytes) -> None:
    config = Config.model_construct(token=SecretStr(TOKEN), auth="on", allowed_hosts=("*",), host="127.0.0.1")
    assert knock(config, query=b"token=" + query, authorization=authorization).status == 401


# --- what is open to all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/", b""),
        ("/", b"token=wrong-token"),
        ("/", b"lang=de"),
        ("/health", b""),
        ("/health/live", b""),
        ("/health/ready", b""),
        ("/favicon.ico", b""),
        ("/docs", b""),
        ("/web/app.js", b""),
    ],
)
def test_the_page_and_the_health_are_open_but_told_nothing(
    monkeypatch: pytest.MonkeyPatch, path: str, query: bytes
) -> None:
    config = config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN)
    answer = knock(config, path=path, query=query)
    assert (answer.let_through, answer.may_look) == (True, False)
    assert knock(config, path=path, authorization=f"Bearer {TOKEN}".encode()).may_look is True


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/", b"action=stream"),
        ("/", b"action=snapshot"),
        ("/", b"%61ction=snapshot"),
        ("/", b"x=1&%61%63%74%69%6f%6e=stream"),
        ("/", b"action"),
        ("/stream", b""),
        ("/snapshot", b""),
        ("/cameras", b""),
        ("/metrics", b""),
        ("/state", b""),
        ("/docs/", b""),
        ("/openapi.json", b""),
        ("/nothing/here", b""),
        ("/health/", b""),
        ("/healthy", b""),
        ("/web", b""),
        ("/website", b""),
        ("//", b""),
        ("", b""),
    ],
)
def test_everything_with_a_picture_or_a_name_needs_the_token(
    monkeypatch: pytest.MonkeyPatch, path: str, query: bytes
) -> None:
    answer = knock(config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN), path=path, query=query)
    assert (answer.let_through, answer.status) == (False, 401)


def test_a_websocket_needs_the_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN)
    assert not knock(config, kind="websocket").let_through
    assert knock(config, kind="websocket").status == 401
    assert knock(config, kind="websocket", host="evil.example").status == 421
    assert knock(config, kind="websocket", authorization=f"Bearer {TOKEN}".encode()).let_through


def test_the_lifespan_is_nobodys_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knock(config_of(monkeypatch, CAMDOCK_TOKEN=TOKEN), kind="lifespan", host=None).let_through


# --- the log ----------------------------------------------------------------------------------------------------------


def logged(message: object, *arguments: Any) -> str:
    record = logging.LogRecord("uvicorn.access", logging.INFO, __file__, 1, message, arguments, None)
    assert WithoutToken().filter(record) is True
    return record.getMessage()


def test_the_access_log_keeps_everything_but_the_token() -> None:
    line = '%s - "%s %s HTTP/%s" %d'
    shown = logged(line, "127.0.0.1:5", "GET", "/stream?frames=1&token=hunter2&x=2", "1.1", 200)
    assert shown == '127.0.0.1:5 - "GET /stream?frames=1&token=***&x=2 HTTP/1.1" 200'


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("GET /?token=hunter2", "GET /?token=***"),
        ("GET /?token=hunter2%2F HTTP/1.1", "GET /?token=*** HTTP/1.1"),
        ("GET /?Token=hunter2;a=1", "GET /?Token=***;a=1"),
        ("GET /?a=1&token=hunter2&token=hunter2", "GET /?a=1&token=***&token=***"),
        ("GET /?token=", "GET /?token=***"),
        ("a token=1 in a sentence", "a token=1 in a sentence"),
        ("GET /?nottoken=1", "GET /?nottoken=1"),
    ],
)
def test_a_token_is_hidden_in_message_and_arguments(line: str, shown: str) -> None:
    assert logged(line) == shown
    assert logged("%s", line) == shown


def test_records_that_are_not_text_pass_unharmed() -> None:
    assert logged(42) == "42"
    assert logged("%d %s", 7, None) == "7 None"
    assert logged("%(a)s", {"a": 1}) == "1"


def test_a_long_line_is_logged_in_a_moment() -> None:
    began = time.thread_time()
    for piece in ("?", "&x", "?x"):
        logged("GET /" + piece * 20_000)
    assert logged("GET /" + "?" * 100 + "token=secret") == "GET /" + "?" * 100 + "token=***"
    assert time.thread_time() - began < 0.5
