"""Credentials: the ways in which a request proves a token, and what that opens.

Runs in: the API process. Stateless, but for the nonces of Digest: a cookie is signed with the token that it stands for.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl

from camdock.config import Config
from camdock.digest import REALM, Digest

COOKIE = "camdock"
LONGEST_COOKIE = 200
DAY_S = 86400.0


class Role(StrEnum):
    """What somebody may do."""

    LOOK = "look"
    TOUCH = "touch"  # and look


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request proves.

    role      None: nothing
    by        how, for people: "Bearer", "?token=", "Basic", "Digest", "cookie"; "" where nothing is asked for
    explicit  whether its sender meant it: a browser sends the others along with whatever another website starts
    wrong     how many wrong tokens it carries, `tried` in which way
    stale     the token is proven, but with a nonce of Digest that is too old or was used
    """

    role: Role | None = None
    by: str = ""
    explicit: bool = False
    wrong: int = 0
    tried: str = ""
    stale: bool = False


EVERYBODY = Proof(Role.TOUCH)


class Credentials:
    """Knows the tokens. `asked` is False where everybody may look and touch."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[Role, bytes] = {}
        if config.auth == "on" and config.secret is not None:
            self._tokens[Role.TOUCH] = config.secret.get_secret_value().encode()
            if config.viewer_secret is not None:
                self._tokens[Role.LOOK] = config.viewer_secret.get_secret_value().encode()
        self.asked = bool(self._tokens)
        self._cookie_s = config.login_days * DAY_S
        self._digest = Digest({role.value: token for role, token in self._tokens.items()})

    def role_of(self, token: bytes) -> Role | None:
        """What this token opens."""
        found = None
        for role, known in self._tokens.items():
            if hmac.compare_digest(token, known):
                found = role
        return found

    def judge(
        self, headers: Mapping[bytes, bytes], query: bytes, method: str, target: str, *, cookie_alone: bool = False
    ) -> Proof:
        """What a request proves; the first right token counts, those that were meant come first.

        target        path and query as they were sent
        cookie_alone  look at no token: whoever guesses is not told that he guessed right
        """
        if not self.asked:
            return EVERYBODY
        cookie = self._by_cookie(headers.get(b"cookie", b""))
        if cookie_alone:
            return Proof(cookie, "cookie") if cookie else Proof()
        kind, _, sent = headers.get(b"authorization", b"").partition(b" ")
        kind, sent = kind.lower(), sent.strip()
        wrong, tried = 0, ""
        guesses = [("Bearer", sent)] if kind == b"bearer" and sent else []
        asked = dict.fromkeys(filter(None, tokens_in(query)))
        guesses += [("?token=", token) for token in asked]
        if len(asked) > 1:  # somebody tries a list: none is looked at, or one request would be thousands of attempts
            return Proof(cookie, "cookie" if cookie else "", wrong=len(guesses), tried="?token=")
        guesses += [("Basic", sent)] if kind == b"basic" else []
        for by, guess in guesses:
            token = _password_in(guess) if by == "Basic" else guess
            if role := self.role_of(token):
                return Proof(role, by, explicit=by != "Basic")
            if token:
                wrong, tried = wrong + 1, by
        if kind == b"digest":
            fields = sent.decode("latin-1")
            opens, stale = self._digest.judge(fields, method, target)
            if opens or stale:
                return Proof(Role(opens) if opens else cookie, "Digest" if opens else "cookie", stale=stale)
            if self._digest.is_guess(fields, method):
                wrong, tried = wrong + 1, "Digest"
        return Proof(cookie, "cookie" if cookie else "", wrong=wrong, tried=tried)

    # --- the cookie -----------------------------------------------------------------------------------------------

    def cookie_for(self, role: Role, *, secure: bool) -> str:
        """The Set-Cookie header of somebody who has just shown that token."""
        stamp = f"{role.value}.{int(self._clock() + self._cookie_s)}"
        return self._set_cookie(f"{stamp}.{self._signed(role, stamp)}", int(self._cookie_s), secure=secure)

    @classmethod
    def no_cookie(cls, *, secure: bool) -> str:
        """The Set-Cookie header that takes it away."""
        return cls._set_cookie("", 0, secure=secure)

    @staticmethod
    def _set_cookie(value: str, max_age: int, *, secure: bool) -> str:
        # Lax: a link from elsewhere finds its reader logged in. That nothing is changed from there is up to origins.
        more = "; Secure" if secure else ""
        return f"{COOKIE}={value}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{more}"

    def _signed(self, role: Role, stamp: str) -> str:
        return hmac.digest(self._tokens[role], b"camdock cookie " + stamp.encode("latin-1"), "sha256").hex()

    def _by_cookie(self, header: bytes) -> Role | None:
        for pair in header.decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name != COOKIE or len(value) > LONGEST_COOKIE:
                continue
            stamp, _, signature = value.rpartition(".")
            text, _, until = stamp.partition(".")
            role = next((one for one in self._tokens if one.value == text), None)
            if role is None or not hmac.compare_digest(signature.encode("latin-1"), self._signed(role, stamp).encode()):
                continue
            if int(until) > self._clock():  # signed, so it is a number
                return role
        return None

    # --- what is asked for ----------------------------------------------------------------------------------------

    def challenges(self, headers: Mapping[bytes, bytes], query: bytes, *, stale: bool) -> list[str]:
        """Values of WWW-Authenticate. To our page Bearer alone: at the others a browser opens its dialog over it."""
        bearer = [f'Bearer realm="{REALM}"']
        if not stale and _is_our_page(headers, query):
            return bearer
        return [*self._digest.challenges(stale=stale), f'Basic realm="{REALM}", charset="UTF-8"', *bearer]


def tokens_in(query: bytes) -> list[bytes]:
    """Every ?token= of an address, the empty ones too."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    # A token has no spaces, so one that arrives was a plus sign that nobody wrote as %2B.
    return [value.replace(" ", "+").encode() for name, value in pairs if name == "token"]


def _password_in(sent: bytes) -> bytes:
    try:
        return base64.b64decode(sent, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b"\0"  # no token has that: it counts as wrong


def _is_our_page(headers: Mapping[bytes, bytes], query: bytes) -> bool:
    """Whether a script or a picture of the page asks, or something that speaks of tokens already."""
    accept = headers.get(b"accept", b"")
    if headers.get(b"sec-fetch-mode") == b"navigate" or b"text/html" in accept:
        return False  # an address that somebody typed
    if b"x-requested-with" in headers or b"application/json" in accept:
        return True
    if headers.get(b"sec-fetch-dest") in (b"empty", b"websocket") or headers.get(b"sec-fetch-site") == b"same-origin":
        return True
    # Over plain http browsers say none of that. Whoever has a cookie, an old one say, logged in on our page.
    cookies = headers.get(b"cookie", b"").split(b";")
    if any(pair.strip().startswith(COOKIE.encode() + b"=") for pair in cookies):
        return True
    return bool(tokens_in(query))
