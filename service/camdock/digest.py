"""HTTP Digest (RFC 7616): who proves a token without sending it.

Runs in: the API process. Nothing is kept for a challenge: a nonce carries its date and a signature. What was used is
kept for a bounded number of nonces, and only of those who know a token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

REALM = "camdock"
VALID_S = 300.0
NONCES = 1024  # whose use is remembered
BEHIND = 64  # requests that may overtake each other: a browser sends several at a time
# MD5 because Home Assistant, requests and many cameras' clients know nothing else; what it protects is one request.
ALGORITHMS = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
LONGEST = 4096  # characters of a header that is looked at; a client's own has some 300, and its address twice
# Whoever knows no token chooses what this runs over: a name begins where none is, and nothing is read twice.
_FIELD = re.compile(r'(?<![A-Za-z0-9*_-])([A-Za-z0-9*_-]{1,32}+)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"?|([^\s,"]*+))')


@dataclass(slots=True)
class _Used:
    """Which counts of a nonce were used: the highest, and a bit for each of those right below it."""

    issued_ms: int
    highest: int = 0
    seen: int = 0

    def take(self, count: int) -> bool:
        """Whether this one was not used yet; from now on it is."""
        if count > self.highest:
            self.seen = (self.seen << min(BEHIND, count - self.highest) | 1) & ((1 << BEHIND) - 1)
            self.highest = count
            return True
        bit = 1 << (self.highest - count)
        if self.highest - count >= BEHIND or self.seen & bit:
            return False
        self.seen |= bit
        return True


def _boot() -> bytes:
    """The kernel's name of this boot; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return b""


def _since_boot() -> float:
    """Seconds, the same for all processes. No date: where that is put back, what was used before a restart is young."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def fields_of(text: str) -> dict[str, str]:
    """The fields of an Authorization header behind the word Digest; none where it is too long to be one."""
    if len(text) > LONGEST:
        return {}
    return {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for name, quoted, bare in _FIELD.findall(text)
    }


class Digest:
    """Challenges, and judges what comes back.

    tokens  by what each of them opens
    """

    def __init__(self, tokens: Mapping[str, bytes], clock: Callable[[], float] = _since_boot) -> None:
        self._tokens = dict(tokens)
        self._clock = clock
        # From the tokens: the processes of one service under gunicorn take each other's nonces.
        # From the boot too, with which the clock begins anew: what was issued before would be young again.
        self._key = hmac.digest(b"\0".join(self._tokens.values()), b"camdock digest nonce" + _boot(), "sha256")
        self._used: dict[str, _Used] = {}
        self._floor_ms = int(clock() * 1000)  # what was issued before that is not taken: it may have been used

    def challenges(self, *, stale: bool = False) -> list[str]:
        """Values of WWW-Authenticate, the best first. One nonce for both: requests mixes the two up."""
        nonce = self._issue()
        more = ", stale=true" if stale else ""
        return [f'Digest realm="{REALM}", qop="auth", algorithm={name}, nonce="{nonce}"{more}' for name in ALGORITHMS]

    def judge(self, text: str, method: str, target: str) -> tuple[str | None, bool]:
        """What the token opens that these fields prove, else None; and whether only the nonce is too old or used.

        text    the header behind the word Digest
        target  path and query as the client sent them
        """
        fields = fields_of(text)
        if re.sub(r"^https?://[^/]*", "", fields.get("uri", "")) != target:
            return None, False
        opens = self._proven(fields, method)
        if opens is None:
            return None, False
        return (opens, False) if self._take(fields["nonce"], int(fields["nc"], 16)) else (None, True)

    def is_guess(self, text: str, method: str) -> bool:
        """Whether what opened nothing was an attempt at a token.

        A right proof for another address is none, a proxy may have taken a prefix off; nor is a way of Digest that is
        not spoken here (auth-int, sessions, that of RFC 2069), of which nothing is compared.
        """
        fields = fields_of(text)
        if any(not fields.get(name) for name in ("nonce", "uri", "response")):
            return True
        spoken = fields.get("algorithm", "MD5").upper() in ALGORITHMS and fields.get("qop", "").lower() == "auth"
        return spoken and self._proven(fields, method) is None

    def _proven(self, fields: Mapping[str, str], method: str) -> str | None:
        """What the token opens that these fields prove, for whatever address they name."""
        try:
            algorithm = ALGORITHMS[fields.get("algorithm", "MD5").upper()]
            nonce, count, uri = fields["nonce"], fields["nc"], fields["uri"]
            if not re.fullmatch(r"[0-9a-fA-F]{8}", count) or fields["qop"].lower() != "auth":
                return None
            middle = f":{nonce}:{count}:{fields['cnonce']}:auth:"
            user, response = fields["username"], fields["response"].lower()
        except KeyError:
            return None

        def hashed(data: bytes) -> str:
            return algorithm(data, usedforsecurity=False).hexdigest()

        wanted = hashed(f"{method}:{uri}".encode("latin-1"))
        opens = None
        for what, token in self._tokens.items():
            first = hashed(f"{user}:{REALM}:".encode("latin-1") + token)
            proof = hashed((first + middle + wanted).encode("latin-1"))
            if hmac.compare_digest(proof.encode(), response.encode("latin-1")):
                opens = what
        return opens

    def _issue(self) -> str:
        stamp = f"{max(int(self._clock() * 1000), self._floor_ms):x}.{secrets.token_hex(8)}"
        return f"{stamp}.{self._signed(stamp)}"

    def _signed(self, stamp: str) -> str:
        return hmac.digest(self._key, stamp.encode("latin-1"), "sha256").hex()[:32]

    def _take(self, nonce: str, count: int) -> bool:
        """Whether the nonce is ours and young, and this count of it was not used yet."""
        stamp, _, signature = nonce.rpartition(".")
        if not hmac.compare_digest(signature.encode("latin-1"), self._signed(stamp).encode()):
            return False
        issued_ms = int(stamp.partition(".")[0], 16)
        now_ms = int(self._clock() * 1000)
        if issued_ms < now_ms - VALID_S * 1000:
            return False
        used = self._used.get(nonce)
        if used is None:
            if issued_ms < self._floor_ms or count < 1:
                return False
            used = self._used[nonce] = _Used(issued_ms)
            self._forget(now_ms)
        return used.take(count)

    def _forget(self, now_ms: int) -> None:
        """Keep what is remembered within bounds; of what is forgotten nothing as old is taken any more."""
        if len(self._used) <= NONCES:
            return
        oldest = sorted(self._used.items(), key=lambda item: item[1].issued_ms)
        for nonce, used in oldest[: len(oldest) // 4]:
            del self._used[nonce]
            self._floor_ms = max(self._floor_ms, used.issued_ms + 1)
