"""Requests that no description covers: bytes that are hardly HTTP, and good ones with a few bytes changed."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

import pytest

from tests.tools.raw import connect, read_all, request, reset, unharmed
from tests.tools.service import Service

ANSWERED_WITHIN_S = 5


@pytest.fixture(scope="module", params=["spoiled service"])
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that is alive, idle and without a traceback in its log behind everything."""
    with Service({"CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=20"}, tmp_path_factory.mktemp("spoiled")) as running:
        running.until_state("live")
        running.get("/web/app.js")  # its thread stays
        with unharmed(running):
            yield running


SETTINGS = "/cameras/camera/settings"
JSON = "Content-Type: application/json"


def body(data: bytes, *headers: str) -> bytes:
    """PUT settings with these bytes."""
    return request(SETTINGS, f"Content-Length: {len(data)}", *(headers or (JSON,)), method="PUT", body=data)


def chunks(data: bytes) -> bytes:
    """PUT settings in chunks, written by hand."""
    return request(SETTINGS, "Transfer-Encoding: chunked", JSON, method="PUT", body=data)


MALFORMED = {
    "bad JSON": body(b'{"gain": '),
    "no JSON at all": body(b"gain=2"),
    "JSON of another shape": body(b"[1, 2, 3]"),
    "a bare number": body(b"7"),
    "an empty body": body(b""),
    "deep JSON": body(b"[" * 60_000),
    "deep JSON in a setting": body(b'{"gain": ' + b"[" * 60_000),
    "a number of many digits": body(b'{"exposure_us": ' + b"9" * 10_000 + b"}"),
    "not a number": body(b'{"gain": NaN}'),
    "infinity": body(b'{"gain": Infinity}'),
    "an exponent": body(b'{"exposure_us": 1e999}'),
    "half a surrogate": body(b'{"\\ud800": 1}'),
    "half a surrogate as a value": body(b'{"gain": "\\ud800"}'),
    "NUL in JSON": body(b'{"gain": 1\0}'),
    "bytes that are no UTF-8": body(b'{"gain": "\xff\xfe"}'),
    "another content type": body(b'{"gain": 2}', "Content-Type: text/plain"),
    "a content type without sense": body(b'{"gain": 2}', "Content-Type: \u00ff/;;=,;charset=nonsense"),
    "XML": body(b"<gain>2</gain>", "Content-Type: application/xml"),
    "negative length": request(SETTINGS, "Content-Length: -5", JSON, method="PUT", body=b"{}"),
    "length that is no number": request(SETTINGS, "Content-Length: five", JSON, method="PUT", body=b"{}"),
    "length too large for any number": request(SETTINGS, "Content-Length: " + "9" * 40, method="PUT", body=b"{}"),
    "two lengths": request(SETTINGS, "Content-Length: 2", "Content-Length: 3", JSON, method="PUT", body=b"{}"),
    "a length and chunks": request(
        SETTINGS, "Content-Length: 2", "Transfer-Encoding: chunked", method="PUT", body=b"0\r\n\r\n"
    ),
    "half a body": request(SETTINGS, "Content-Length: 500", JSON, method="PUT", body=b'{"gain"'),
    "chunks that are none": chunks(b"zz\r\nhello\r\n"),
    "a chunk longer than it says": chunks(b"2\r\nhello\r\n0\r\n\r\n"),
    "an endless chunk": chunks(b"ffffffffffffffffffff\r\nhello"),
    "a negative chunk": chunks(b"-1\r\n\r\n"),
    "chunks without an end": chunks(b"2\r\n{}\r\n"),
    "an unknown encoding": request(SETTINGS, "Transfer-Encoding: gzip", method="PUT", body=b"{}"),
    "a huge header": request("/health/live", "X-Long: " + "x" * (2 << 20)),
    "many headers": request("/health/live", *(f"X-{number}: y" for number in range(100_000))),
    "a huge address": request("/" + "x" * (2 << 20)),
    "a header without a name": request("/health/live", ": nothing"),
    "a header without a colon": request("/health/live", "nothing"),
    "NUL in a header": b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "NUL in the address": b"GET /heal\0th HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL for a start": b"\0GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a bare line feed in a header": b"GET /no HTTP/1.1\r\nHost: localhost\r\nX: a\nb\r\n\r\n",
    "a space before the colon": b"GET /no HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "bad percent escapes": request("/%zz%"),
    "bad percent escapes in a name": request("/cameras/%e0%a4%a/snapshot"),
    "an escaped NUL": request("/cameras/%00"),
    "an escaped line end": request("/cameras/a%0d%0aSet-Cookie:%20x=1"),
    "an escaped half surrogate": request("/cameras/%ed%a0%80"),
    "a path that is no UTF-8": b"GET /cameras/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a query that is no UTF-8": b"GET /stream?frames=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a query that is no number": request("/stream?frames=%ff%00"),
    "a number of many digits in a query": request("/stream?frames=" + "9" * 5000),
    "no frames": request("/stream?frames=0"),
    "a name that is too long": request("/cameras/" + "x" * 500),
    "a way out of the folder": request("/web/../../../../../../etc/passwd"),
    "an escaped way out of the folder": request("/web/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
    "a doubly escaped way out": request("/web/%252e%252e/app.py"),
    "NUL in a file's name": request("/web/app.js%00.css"),
    "a file's name without an end": request("/web/" + "x" * 5000),
    "a folder": request("/web/"),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/9": request("/health/live", version="9.9"),
    "an unknown method": request("/health/live", method="BREW"),
    "a method that is none": request("/health/live", method="get"),
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TRACE": request("/health/live", method="TRACE"),
    "DELETE": request("/cameras/camera", method="DELETE"),
    "an asterisk": request("*", method="OPTIONS"),
    "a proxy's request for another host": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an address without a slash": request("health/live"),
    "a host that is none": b"GET /no HTTP/1.1\r\nHost: [.localhost\r\n\r\n",
    "a host that is no ASCII": b"GET /no HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    "two hosts": b"GET /no HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
}


def answer_to(service: Service, data: bytes) -> bytes:
    """What the service says to these bytes until it closes, which it does because nothing more will come."""
    client = connect(service.port, timeout_s=ANSWERED_WITHIN_S + 2)  # beyond the keep-alive time-out of 5 s
    try:
        client.sendall(data)
        with contextlib.suppress(OSError):  # it has refused and closed already
            client.shutdown(socket.SHUT_WR)
        return read_all(client)
    except (BrokenPipeError, ConnectionResetError):
        return b""  # closed while we sent
    finally:
        reset(client) if client.fileno() >= 0 else None


def is_alive(service: Service) -> bool:
    """Whether it answers everybody else."""
    return service.get("/health/live", timeout_s=ANSWERED_WITHIN_S).status == 200


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_refused(service: Service, what: str) -> None:
    answer = answer_to(service, MALFORMED[what])
    assert answer[:10] in (b"", b"HTTP/1.1 4"), answer[:300]
    assert b"root:" not in answer
    assert b"Set-Cookie" not in answer.partition(b"\r\n\r\n")[0]
    assert is_alive(service)


def spoiled(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with a few of them changed, doubled, lost or moved."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(result))
        match chance.randrange(5):
            case 0:
                result[at] = chance.randrange(256)
            case 1:
                result[at:at] = chance.choice([b"\0", b"\r", b"\n", b"\r\n", b" ", b":", b"%", b"\xff", b"9" * 30])
            case 2:
                del result[at : at + chance.randint(1, 5)]
            case 3:
                result[at:at] = result[at : at + 20]
            case _:
                result[at : at + 1] = chance.randbytes(chance.randint(1, 8))
        if not result:
            return b"\0"
    return bytes(result)


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_spoiled_requests_never_make_the_service_fail(service: Service, count: int) -> None:
    chance = random.Random(20_261_121)
    seeds = [
        request("/health/live", "Accept: */*"),
        request("/cameras/camera/snapshot?allow_offline=1", "Connection: keep-alive"),
        request("/cameras/camera", "Authorization: Bearer x", version="1.0"),
        body(b'{"gain": 2.5, "exposure_us": 20000}'),
        chunks(b'a\r\n{"gain": 2\r\n1\r\n}\r\n0\r\n\r\n'),
    ]
    seen = set()
    for _ in range(count):
        data = spoiled(chance.choice(seeds), chance)
        answer = answer_to(service, data)
        assert answer[:7] in (b"", b"HTTP/1."), (data, answer[:200])
        assert answer[9:10] != b"5", (data, answer[:300])
        seen.add(answer[9:12])
    assert is_alive(service)
    assert {b"200", b"400", b"404"} <= seen
