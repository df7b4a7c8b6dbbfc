"""Digest against the RFC's own example, and against everything that must not be taken."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camdock import digest as module
from camdock.digest import BEHIND, LONGEST, NONCES, VALID_S, Digest, fields_of

TOKEN = "hunter2+hunter/2="


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock | None = None) -> tuple[Digest, Clock]:
    clock = clock or Clock()
    return Digest({"touch": TOKEN.encode(), "look": b"for-viewers"}, clock), clock


def nonce_of(digest: Digest) -> str:
    return fields_of(digest.challenges()[0].partition(" ")[2])["nonce"]


def answer(
    nonce: str, count: int = 1, *, token: str = TOKEN, algorithm: str = "MD5", method: str = "GET",
    uri: str = "/stream", **changed: str,
) -> str:  # fmt: skip
    """What a client sends, by the letter of RFC 7616, section 3.4.1."""

    def hashed(text: str) -> str:
        return hashlib.new(algorithm.replace("-", "").lower(), text.encode()).hexdigest()

    nc = f"{count:08x}"
    first, second = hashed(f"anybody:camdock:{token}"), hashed(f"{method}:{uri}")
    fields = {
        "username": "anybody", "realm": "camdock", "nonce": nonce, "uri": uri, "algorithm": algorithm, "qop": "auth",
        "nc": nc, "cnonce": "0a4f113b", "response": hashed(f"{first}:{nonce}:{nc}:0a4f113b:auth:{second}"),
    }  # fmt: skip
    bare = ("algorithm", "qop", "nc")
    return ", ".join(
        f"{name}={value}" if name in bare else f'{name}="{value}"'
        for name, value in (fields | changed).items()
        if value
    )


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_who_knows_a_token_is_let_in_with_what_that_opens(algorithm: str) -> None:
    digest, _ = made()
    assert digest.judge(answer(nonce_of(digest), algorithm=algorithm), "GET", "/stream") == ("touch", False)
    viewer = answer(nonce_of(digest), token="for-viewers", algorithm=algorithm)
    assert digest.judge(viewer, "GET", "/stream") == ("look", False)


def test_the_challenges_are_the_strong_one_first_and_share_a_nonce() -> None:
    digest, _ = made()
    first, second = digest.challenges()
    assert ("SHA-256" in first, "MD5" in second) == (True, True)
    assert fields_of(first[7:])["nonce"] == fields_of(second[7:])["nonce"]
    assert "stale" not in first
    assert all("stale=true" in one for one in digest.challenges(stale=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"token": "hunter2"}, {"uri": "/snapshot"}, {"response": "0" * 32}, {"response": ""}, {"qop": ""},
        {"qop": "auth-int"}, {"nc": ""}, {"nc": "1"}, {"nc": "0000000g"}, {"cnonce": ""}, {"username": "somebody"},
        {"algorithm": "SHA-256", "response": "x"}, {"nonce": ""}, {"uri": "http://evil.example/snapshot"},
    ],
)  # fmt: skip
def test_anything_else_opens_nothing(changed: dict[str, str]) -> None:
    digest, _ = made()
    method = changed.pop("method", "GET")
    nonce = changed.pop("nonce", nonce_of(digest))
    assert digest.judge(answer(nonce, **changed), method, "/stream")[0] is None


def test_an_answer_is_for_its_method_and_address_alone() -> None:
    digest, _ = made()
    assert digest.judge(answer(nonce_of(digest)), "PUT", "/stream") == (None, False)
    assert digest.judge(answer(nonce_of(digest)), "GET", "/stream?x=1") == (None, False)
    absolute = answer(nonce_of(digest), uri="http://cam.lan:8000/stream")
    assert digest.judge(absolute, "GET", "/stream") == ("touch", False)


def test_a_right_proof_for_an_address_that_a_proxy_has_changed_opens_nothing_and_is_no_guess() -> None:
    digest, _ = made()
    elsewhere = answer(nonce_of(digest), uri="/camera/stream")
    assert digest.judge(elsewhere, "GET", "/stream") == (None, False)
    assert not digest.is_guess(elsewhere, "GET")
    assert digest.is_guess(answer(nonce_of(digest), uri="/camera/stream", token="hunter2"), "GET")
    assert digest.is_guess(elsewhere, "PUT")
    assert digest.is_guess(answer(nonce_of(digest), token="hunter2"), "GET")


@pytest.mark.parametrize(
    "changed", [{"qop": ""}, {"nc": "", "qop": ""}, {"algorithm": "MD5-sess"}, {"qop": "auth-int"}]
)
def test_a_way_of_digest_that_is_not_spoken_here_opens_nothing_and_is_no_guess(changed: dict[str, str]) -> None:
    digest, _ = made()
    algorithm = changed.pop("algorithm", None)
    said = answer(nonce_of(digest), **changed)
    said = said if algorithm is None else said.replace("algorithm=MD5", f"algorithm={algorithm}")
    assert digest.judge(said, "GET", "/stream") == (None, False)
    assert not digest.is_guess(said, "GET")


def test_an_answer_is_taken_once() -> None:
    digest, _ = made()
    nonce = nonce_of(digest)
    assert digest.judge(answer(nonce, 1), "GET", "/stream") == ("touch", False)
    assert digest.judge(answer(nonce, 1), "GET", "/stream") == (None, True)
    assert digest.judge(answer(nonce, 2), "GET", "/stream") == ("touch", False)


def test_requests_may_overtake_each_other_within_bounds() -> None:
    digest, _ = made()
    nonce = nonce_of(digest)
    taken = [digest.judge(answer(nonce, count), "GET", "/stream")[0] for count in (5, 3, 4, 5, 3, 500, 499, 436, 437)]
    assert taken == ["touch", "touch", "touch", None, None, "touch", "touch", None, "touch"]
    assert 500 - BEHIND == 436


def test_a_nonce_gets_old_and_its_owner_is_told_to_take_a_new_one() -> None:
    digest, clock = made()
    nonce = nonce_of(digest)
    clock.now += VALID_S - 1
    assert digest.judge(answer(nonce, 1), "GET", "/stream") == ("touch", False)
    clock.now += 2
    assert digest.judge(answer(nonce, 2), "GET", "/stream") == (None, True)
    assert digest.judge(answer(nonce, 3, token="wrong-token"), "GET", "/stream") == (None, False)


def test_a_nonce_of_ones_own_making_is_not_taken() -> None:
    digest, _ = made()
    nonce = nonce_of(digest)
    for forged in ("x", "", "ü", nonce[:-1] + ("0" if nonce[-1] != "0" else "1"), "fffffffffff" + nonce[11:]):
        assert digest.judge(answer(forged), "GET", "/stream")[0] is None


def test_a_restart_takes_no_nonce_of_before_and_another_process_does() -> None:
    first, clock = made()
    nonce = nonce_of(first)
    beside = Digest({"touch": TOKEN.encode(), "look": b"for-viewers"}, clock)
    assert beside.judge(answer(nonce), "GET", "/stream") == ("touch", False)
    clock.now += 1
    later = Digest({"touch": TOKEN.encode(), "look": b"for-viewers"}, clock)
    assert later.judge(answer(nonce, 2), "GET", "/stream") == (None, True)
    changed = Digest({"touch": b"another-token"}, clock)
    assert changed.judge(answer(nonce, 3), "GET", "/stream") == (None, False)


def test_a_restart_with_the_date_put_back_takes_no_nonce_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Digest({"touch": TOKEN.encode()})
    captured = answer(nonce_of(first))
    assert first.judge(captured, "GET", "/stream") == ("touch", False)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    until = time.monotonic() + 0.005
    while time.monotonic() < until:  # a nonce knows milliseconds
        pass
    later = Digest({"touch": TOKEN.encode()})
    assert later.judge(captured, "GET", "/stream") == (None, True)
    assert later.judge(answer(nonce_of(later)), "GET", "/stream") == ("touch", False)


def test_another_boot_takes_no_nonce_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, clock = made()
    nonce = nonce_of(first)
    monkeypatch.setattr(module, "_boot", lambda: b"another")
    later, _ = made(clock)
    assert later.judge(answer(nonce), "GET", "/stream") == (None, True)


def test_what_is_remembered_is_bounded_and_what_is_forgotten_is_never_taken_again() -> None:
    digest, clock = made()
    nonces = []
    for _ in range(NONCES + 1):
        nonces.append(nonce_of(digest))
        assert digest.judge(answer(nonces[-1]), "GET", "/stream") == ("touch", False)
        clock.now += 0.01
    assert len(digest._used) <= NONCES
    assert [digest.judge(answer(nonce), "GET", "/stream") for nonce in (nonces[0], nonces[-1])] == [(None, True)] * 2
    assert digest.judge(answer(nonce_of(digest)), "GET", "/stream") == ("touch", False)


def test_strangers_make_it_remember_nothing() -> None:
    digest, _ = made()
    for _ in range(20):
        digest.judge(answer(nonce_of(digest), token="wrong-token"), "GET", "/stream")
    assert not digest._used


def test_the_example_of_the_rfc() -> None:
    text = (
        'username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=MD5, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
        'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="8ca523f5e9506fed4657c9700eebdbec"'
    )
    fields = fields_of(text)
    first = hashlib.md5(b"Mufasa:http-auth@example.org:Circle of Life").hexdigest()
    second = hashlib.md5(b"GET:/dir/index.html").hexdigest()
    middle = f"{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}"
    assert hashlib.md5(f"{first}:{middle}:{second}".encode()).hexdigest() == fields["response"]


@given(st.binary(max_size=200))
def test_no_bytes_raise_or_open(data: bytes) -> None:
    digest, _ = made()
    assert digest.judge(data.decode("latin-1"), "GET", "/stream") == (None, False)


@pytest.mark.parametrize("piece", ["a", "a=", 'a="', 'a="\\"', "a ", "a = ", ' ="', "a,", "a" * 31 + " "])
def test_what_a_stranger_sends_is_read_in_a_moment(piece: str) -> None:
    digest, _ = made()
    for text in ((piece * 16_000)[:16_000], (piece * LONGEST)[:LONGEST]):
        began = time.thread_time()
        assert digest.judge(text, "GET", "/stream") == (None, False)
        assert time.thread_time() - began < 0.05


def test_a_header_is_as_long_as_a_client_with_a_long_address_needs() -> None:
    digest, _ = made()
    uri = "/images/process?operations=" + "x" * 3000
    assert digest.judge(answer(nonce_of(digest), uri=uri), "GET", uri) == ("touch", False)
    uri += "x" * 1500
    assert digest.judge(answer(nonce_of(digest), uri=uri), "GET", uri) == (None, False)
