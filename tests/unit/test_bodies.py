"""What a request may bring, and how a picture is taken out of it, through ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel

from camdock import bodies, problems
from camdock.bodies import BodyLimit, read_upload
from tests.unit.rig import ask

MOST = 1000
PICTURE = bytes(range(256)) * 2


class Small(BaseModel):
    """Some JSON."""

    text: str = ""


def app() -> FastAPI:
    """One path that takes uploads, one that takes JSON."""
    made = FastAPI()

    @made.post("/upload")
    async def upload(request: Request) -> dict[str, Any]:
        came = await read_upload(request, MOST)
        return {"picture": None if came.picture is None else came.picture.hex(), "operations": came.operations}

    @made.put("/json")
    async def small(small: Small) -> int:
        return len(small.text)

    made.add_middleware(BodyLimit, uploads=("/upload",))
    problems.install(made)
    return made


def sent(path: str = "/upload", method: str = "POST", **more: Any) -> tuple[int, Any]:
    """Status and JSON of the answer."""
    answer: httpx.Response = ask(app(), path, method, **more)
    return answer.status_code, answer.json()


def refused(status: int, code: str, **more: Any) -> str:
    """The detail of a refusal."""
    got, said = sent(**more)
    assert (got, said["code"]) == (status, code), said
    assert said["hint"]
    return str(said["detail"])


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    """The same bytes without a Content-Length."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


IMAGE = {"Content-Type": "image/jpeg"}


@pytest.mark.parametrize("size", [None, 1, 100])
def test_a_raw_picture_is_taken_whole_however_it_comes(size: int | None) -> None:
    content = pieces(PICTURE, size) if size else PICTURE
    assert sent(content=content, headers=IMAGE) == (200, {"picture": PICTURE.hex(), "operations": None})


def test_a_form_is_taken_apart() -> None:
    files = {"file": ("a.jpg", PICTURE, "image/jpeg")}
    assert sent(files=files, data={"operations": "[µ]"}) == (200, {"picture": PICTURE.hex(), "operations": "[µ]"})
    assert sent(files=files) == (200, {"picture": PICTURE.hex(), "operations": None})


def test_no_body_is_no_picture() -> None:
    assert sent() == (200, {"picture": None, "operations": None})


def test_a_picture_may_be_as_large_as_it_may_be_and_no_larger() -> None:
    whole, more = bytes(MOST), bytes(MOST + 1)
    for status, data in ((200, whole), (413, more)):
        assert sent(content=data, headers=IMAGE)[0] == status
        assert sent(content=pieces(data, 300), headers=IMAGE)[0] == status
        assert sent(files={"file": ("x", data)})[0] == status
    assert "1,000 bytes" in refused(413, "upload_too_large", content=more, headers=IMAGE)
    assert sent(files={"file": ("x", bytes(bodies.AROUND_BYTES + MOST))})[0] == 413


def test_an_endless_body_is_refused_while_it_comes() -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 100
            yield bytes(100)

    assert sent(content=endless(), headers=IMAGE)[0] == 413
    assert given < 3 * MOST


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", "", "\xff;;="])
def test_another_kind_of_body_is_refused(kind: str) -> None:
    refused(415, "upload_unsupported", content=PICTURE, headers={"Content-Type": kind.encode("latin-1")})


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no form at all", "cannot be read"),
        (b"--b\r\nContent-Disp", "cannot be read"),
        (PART % b"file", "cannot be read"),
        (PART % b"password" + b"--b--", "'password'"),
        (PART % b"file" * 2 + b"--b--", "'file'"),
        (b"--b\r\nX: y\r\n\r\nx\r\n--b--", "cannot be read"),
    ],
)
def test_a_form_that_is_none_is_refused(content: bytes, says: str) -> None:
    assert says in refused(422, "request_invalid", content=content, headers=FORM)


def test_a_form_without_a_boundary_is_refused() -> None:
    refused(422, "request_invalid", content=b"x", headers={"Content-Type": "multipart/form-data"})
    long = {"Content-Type": "multipart/form-data; boundary=" + "b" * 300}
    assert sent(content=b"x", headers=long)[0] == 422


def test_a_picture_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "ARRIVED_WITHIN_S", 0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"\xff\xd8"
        await asyncio.sleep(5)

    refused(408, "upload_too_slow", content=stuck(), headers=IMAGE)


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_any_other_body_that_does_not_arrive_is_not_waited_for_either(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(bodies, "SMALL_WITHIN_S", 0.05)

    async def trickling() -> AsyncIterator[bytes]:
        for _ in range(500):
            yield b" "
            await asyncio.sleep(0.01)

    headers = {"Content-Type": kind}
    said = refused(408, "upload_too_slow", path="/json", method="PUT", content=trickling(), headers=headers)
    assert "did not arrive within 0.05 s" in said


def test_any_other_body_is_small() -> None:
    longest = bodies.MOST_BYTES - len('{"text":""}')
    assert sent("/json", "PUT", json={"text": "x" * longest}) == (200, longest)
    assert "65,536 bytes" in refused(413, "upload_too_large", path="/json", method="PUT", json={"text": "x" * 70_000})
    refused(413, "upload_too_large", path="/json", method="PUT", content=pieces(bytes(70_000), 5000),
            headers={"Content-Type": "application/json"})  # fmt: skip
