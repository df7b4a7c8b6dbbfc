"""The ways of proving a token, the cookie, and what a client is asked for."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from camdock.config import Config
from camdock.credentials import Credentials, Role

TOKEN, VIEWERS = "hunter2:hunter/2+", "for-viewers"


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def credentials(clock: Clock | None = None, **changed: Any) -> Credentials:
    given = {"token": SecretStr(TOKEN), "viewer_token": SecretStr(VIEWERS), "auth": "on", "login_days": 30.0}
    more = {"token_file": None, "viewer_token_file": None}
    return Credentials(Config.model_construct(**{**given, **more, **changed}), clock or Clock())


def basic(password: str, user: str = "anybody", encoding: str = "utf-8") -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode(encoding))


def judged(authorization: bytes = b"", query: bytes = b"", cookie: str = "", **more: Any) -> Any:
    headers = {b"authorization": authorization, b"cookie": cookie.encode("latin-1")}
    return credentials(**more).judge({k: v for k, v in headers.items() if v}, query, "GET", "/stream")


@pytest.mark.parametrize(
    ("authorization", "query", "role", "explicit"),
    [
        (f"Bearer {TOKEN}".encode(), b"", Role.TOUCH, True),
        (f"Bearer {VIEWERS}".encode(), b"", Role.LOOK, True),
        (b"", b"token=hunter2:hunter/2%2B", Role.TOUCH, True),
        (b"", b"token=for-viewers", Role.LOOK, True),
        (basic(TOKEN), b"", Role.TOUCH, False),  # a colon belongs to the password
        (basic(VIEWERS, user=""), b"", Role.LOOK, False),
        (b"basic " + basic(TOKEN)[6:], b"", Role.TOUCH, False),
        (basic("wrong-token"), b"token=for-viewers", Role.LOOK, True),
        (b"", b"token=&token=for-viewers&token=for-viewers", Role.LOOK, True),  # a client that says it twice
    ],
)
def test_each_way_opens_what_its_token_opens(authorization: bytes, query: bytes, role: Role, explicit: bool) -> None:
    proof = judged(authorization, query)
    assert (proof.role, proof.explicit, proof.wrong) == (role, explicit, 0)


@pytest.mark.parametrize(
    ("authorization", "query", "wrong"),
    [
        (b"", b"", 0),
        (b"", b"token=", 0),  # nobody guessed
        (b"Bearer ", b"", 0),
        (b"Bearer wrong-token", b"", 1),
        (basic("wrong-token"), b"", 1),
        (b"Basic \xff\xfe", b"", 1),
        (b"Basic " + base64.b64encode(TOKEN.encode()), b"", 1),  # a password of "hunter/2+" alone
        (b"Digest username=x", b"", 1),
        (b'Digest username=x, nonce=n, uri="/stream", response=r, qop=auth, nc=00000001, cnonce=c', b"", 1),
        (b'Digest username=x, nonce=n, uri="/stream", response=r', b"", 0),  # RFC 2069: nothing was compared
        (b"Bearer one-guess", b"token=another&token=third", 3),
        (b"", b"token=another&token=hunter2:hunter/2%2B", 2),  # a list: none of it is looked at
        (b"", b"token=hunter2:hunter/2%2B&token=another", 2),
        (f"Bearer {TOKEN}".encode(), b"token=another&token=third", 3),
        (b"", b"&".join(b"token=%d" % number for number in range(3000)), 3000),
        (b"NTLM xyz", b"", 0),
    ],
)
def test_wrong_tokens_open_nothing_and_are_counted(authorization: bytes, query: bytes, wrong: int) -> None:
    proof = judged(authorization, query)
    assert (proof.role, proof.wrong) == (None, wrong)


def test_where_nothing_is_asked_for_everybody_may_touch() -> None:
    for changed in ({"auth": "off"}, {"token": None, "viewer_token": None}):
        assert judged(**changed).role is Role.TOUCH


@given(st.binary(max_size=60), st.binary(max_size=60), st.text(max_size=60))
def test_nothing_raises_or_opens(authorization: bytes, query: bytes, cookie: str) -> None:
    for kind in (b"", b"Basic ", b"Bearer ", b"Digest "):
        headers = {b"authorization": kind + authorization, b"cookie": b"camdock=touch." + cookie.encode()}
        assert credentials().judge(headers, b"token=" + query, "GET", "/stream").role is None


# --- the cookie -------------------------------------------------------------------------------------------------------


def cookie_of(role: Role = Role.TOUCH, clock: Clock | None = None, **changed: Any) -> str:
    return credentials(clock, **changed).cookie_for(role, secure=False).partition(";")[0]


def test_a_cookie_opens_what_the_token_opened_and_is_not_explicit() -> None:
    for role in Role:
        proof = judged(cookie=f"other=1; {cookie_of(role)}; more=2")
        assert (proof.role, proof.by, proof.explicit) == (role, "cookie", False)


def test_no_script_reads_the_cookie_and_no_other_website_sends_it_along() -> None:
    plain = credentials().cookie_for(Role.TOUCH, secure=False)
    assert re.fullmatch(
        r"camdock=touch\.1702592000\.[0-9a-f]{64}; Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax", plain
    )
    assert credentials().cookie_for(Role.TOUCH, secure=True).endswith("; SameSite=Lax; Secure")
    assert "camdock=; Max-Age=0;" in credentials().no_cookie(secure=True)
    assert TOKEN not in plain


def test_a_cookie_ends() -> None:
    clock = Clock()
    cookie = cookie_of(login_days=1.0)
    clock.now += 86399
    assert judged(cookie=cookie, clock=clock).role is Role.TOUCH
    clock.now += 2
    assert judged(cookie=cookie, clock=clock).role is None


def test_another_token_ends_its_cookies_and_only_those() -> None:
    touch, look = cookie_of(Role.TOUCH), cookie_of(Role.LOOK)
    changed = {"token": SecretStr("another-token")}
    assert (judged(cookie=touch, **changed).role, judged(cookie=look, **changed).role) == (None, Role.LOOK)
    assert judged(cookie=look, viewer_token=None).role is None


def test_a_cookie_that_was_changed_opens_nothing_and_is_no_guess() -> None:
    value = cookie_of(Role.LOOK)
    until = value.split(".")[1]
    for forged in (
        value.replace("look", "touch"), value.replace(until, str(int(until) + 1)), value[:-1], value + "0",
        "camdock=", "camdock=touch", "camdock=..", "camdock=touch.x.y", value.replace("camdock", "xcamdock"),
        value + "0" * 500,
    ):  # fmt: skip
        proof = judged(cookie=forged)
        assert (proof.role, proof.wrong) == (None, 0), forged


def test_while_an_address_has_to_wait_its_cookie_alone_is_looked_at() -> None:
    headers = {b"authorization": f"Bearer {TOKEN}".encode()}
    judge = credentials().judge
    assert judge(headers, b"", "GET", "/", cookie_alone=True).role is None
    headers[b"cookie"] = cookie_of(Role.LOOK).encode()
    assert judge(headers, b"", "GET", "/", cookie_alone=True).role is Role.LOOK


def test_a_cookie_does_not_hide_wrong_guesses() -> None:
    proof = judged(b"Bearer wrong-token", cookie=cookie_of(Role.LOOK))
    assert (proof.role, proof.wrong) == (Role.LOOK, 1)


# --- what is asked for ------------------------------------------------------------------------------------------------

DIALOG = ["Digest", "Digest", "Basic", "Bearer"]


@pytest.mark.parametrize(
    ("headers", "query", "asked"),
    [
        ({}, b"", DIALOG),  # curl, Home Assistant, OctoPrint
        ({b"accept": b"*/*"}, b"", DIALOG),
        ({b"accept": b"image/avif,image/webp,*/*"}, b"", DIALOG),  # an <img> elsewhere
        ({b"accept": b"text/html", b"sec-fetch-mode": b"navigate", b"sec-fetch-dest": b"document"}, b"", DIALOG),
        ({b"accept": b"text/html", b"cookie": b"camdock=old"}, b"", DIALOG),  # an address that somebody typed
        ({b"sec-fetch-dest": b"image", b"sec-fetch-site": b"cross-site"}, b"", DIALOG),
        ({b"sec-fetch-dest": b"image", b"sec-fetch-site": b"same-origin"}, b"", ["Bearer"]),
        ({b"sec-fetch-dest": b"empty", b"sec-fetch-site": b"same-origin"}, b"", ["Bearer"]),
        ({b"sec-fetch-dest": b"websocket"}, b"", ["Bearer"]),
        ({b"x-requested-with": b"camdock"}, b"", ["Bearer"]),
        ({b"accept": b"application/json, text/plain, */*"}, b"", ["Bearer"]),  # axios
        ({b"accept": b"image/*", b"cookie": b"a=1; camdock=old"}, b"", ["Bearer"]),
        ({b"accept": b"image/*"}, b"token=old", ["Bearer"]),
        ({b"accept": b"image/*"}, b"token=\xff%ff", ["Bearer"]),
    ],
)
def test_a_browser_opens_its_dialog_where_an_address_was_typed_and_never_over_our_page(
    headers: dict[bytes, bytes], query: bytes, asked: list[str]
) -> None:
    challenges = credentials().challenges(headers, query, stale=False)
    assert [one.partition(" ")[0] for one in challenges] == asked


def test_the_password_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAMDOCK_TOKEN", "CAMDOCK_AUTH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TOKEN", "VIEWER_TOKEN"):
        (tmp_path / name).write_text(f"in-a-file-{name}\n")
        monkeypatch.setenv(f"CAMDOCK_{name}_FILE", str(tmp_path / name))
    found = Credentials(Config())
    assert found.role_of(b"in-a-file-TOKEN") is Role.TOUCH
    assert found.role_of(b"in-a-file-VIEWER_TOKEN") is Role.LOOK
