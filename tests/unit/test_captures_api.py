"""The captures' endpoints: the answer to a capture, pages, ranges, tags, thumbnails, names that lead nowhere."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from camdock.captures import Captures, Opened
from camdock.darkroom import IN_LINE, PLACES
from camdock.frame import jpeg_size
from camdock.settings import Settings
from tests.unit.rig import Painter, app_of, ask, live_camera
from tests.unit.test_captures import still

DATA = bytes(range(256)) * 4


@pytest.fixture
def captures(tmp_path: Path) -> Captures:
    return Captures(tmp_path / "captures")


@pytest.fixture
def served(tmp_path: Path, captures: Captures) -> FastAPI:
    """A camera, and one capture of 1024 bytes."""
    captures._add(still(DATA))
    return app_of(live_camera(tmp_path)[0], captures=captures)


PATH = "/captures/capture_20261017_010203_004.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the captures of `kept`."""
    return tmp_path_factory.mktemp("kept") / "captures"


@pytest.fixture(scope="module")
def kept(folder: Path) -> FastAPI:
    """The same as `served`, for tests that change nothing."""
    captures = Captures(folder)
    captures._add(still(DATA))
    return app_of(live_camera(folder.parent)[0], captures=captures)


def test_a_capture_answers_its_metadata_and_where_it_is(served: FastAPI, captures: Captures) -> None:
    answer = ask(served, "/cameras/front/captures", "POST", json={"exposure_us": 500, "gain": 2.0})
    assert answer.status_code == 201
    found = answer.json()
    assert answer.headers["location"] == "/captures/" + found["filename"]
    assert (found["camera"], found["format"], found["size"]) == ("front", "JPG", {"width": 64, "height": 48})
    assert found["settings"] == {"exposure_us": 500, "gain": 2.0, "auto_exposure": False}
    assert ask(served, answer.headers["location"] + "/metadata").json() == found
    file = ask(served, answer.headers["location"])
    assert jpeg_size(file.content) == (64, 48)
    assert len(file.content) == found["size_bytes"]


@pytest.mark.parametrize(
    "body", [{"exposure_us": 0}, {"exposure_us": 1.5}, {"gain": "2"}, {"format": "BMP"}, {"x": 1}, []]
)
def test_what_cannot_be_understood_takes_no_picture(kept: FastAPI, body: Any) -> None:
    answer = ask(kept, "/cameras/front/captures", "POST", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert ask(kept, "/captures").json()["count"] == 1


def test_an_unknown_camera_takes_none(kept: FastAPI) -> None:
    assert ask(kept, "/cameras/back/captures", "POST").json()["code"] == "camera_missing"


def test_a_folder_that_cannot_be_made_is_said(served: FastAPI, tmp_path: Path) -> None:
    blocked = app_of(live_camera(tmp_path)[0], captures=Captures(Path("/dev/full/captures")))
    answer = ask(blocked, "/capture", "POST")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_failed")


def test_the_list_goes_on_where_it_ended(served: FastAPI, captures: Captures) -> None:
    for second in range(1, 5):
        captures._add(still(at=still().captured_at + second))
    seen: list[str] = []
    path = "/captures?limit=2"
    for _ in range(3):
        page = ask(served, path).json()
        seen += [one["filename"] for one in page["captures"]]
        path = f"/captures?limit=2&before={page['next']}"
    assert (page["count"], page["next"]) == (5, None)
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 5
    assert ask(served, "/captures?limit=0").status_code == ask(served, "/captures?limit=1001").status_code == 422


# --- ranges and tags --------------------------------------------------------------------------------------------------


def test_the_whole_file_has_its_checksum_as_its_tag(kept: FastAPI) -> None:
    answer, sha256 = ask(kept, PATH), ask(kept, PATH + "/metadata").json()["sha256"]
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == "1024"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{sha256}"'


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=1000-", 1000, 1024), ("bytes=-24", 1000, 1024),
        ("bytes=1000-5000", 1000, 1024), ("bytes=-5000", 0, 1024), ("bytes=0-", 0, 1024),
        ("bytes=1023-1023", 1023, 1024),
    ],
)  # fmt: skip
def test_a_range_is_answered_exactly(kept: FastAPI, wanted: str, begin: int, end: int) -> None:
    answer = ask(kept, PATH, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, DATA[begin:end])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/1024"
    assert answer.headers["content-length"] == str(end - begin)


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_that_is_not_there_is_refused_with_the_size(kept: FastAPI, wanted: str) -> None:
    answer = ask(kept, PATH, headers={"Range": wanted})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_there")
    assert answer.headers["content-range"] == "bytes */1024"


@pytest.mark.parametrize(
    "wanted", ["bytes=20-10", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=0-1,5-6", "", "bytes=٠-٩"]
)
def test_a_range_that_is_none_is_ignored(kept: FastAPI, wanted: str) -> None:
    assert ask(kept, PATH, headers={"Range": wanted.encode()}).content == DATA


def test_what_one_has_already_is_not_sent_again(kept: FastAPI) -> None:
    tag = ask(kept, PATH).headers["etag"]
    for sent in (tag, f'"x", W/{tag}', "*"):
        answer = ask(kept, PATH, headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert ask(kept, PATH, headers={"If-None-Match": '"another"'}).status_code == 200
    halves = {"Range": "bytes=0-9", "If-Range": tag}
    assert ask(kept, PATH, headers=halves).status_code == 206
    assert ask(kept, PATH, headers={**halves, "If-Range": '"another"'}).content == DATA


def test_a_head_tells_of_the_file_and_sends_none_of_it(kept: FastAPI) -> None:
    answer, whole = ask(kept, PATH, "HEAD"), ask(kept, PATH)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers == whole.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_another_one_than_meant_is_left_alone(served: FastAPI, captures: Captures, method: str) -> None:
    tag = ask(served, PATH).headers["etag"]
    answer = ask(served, PATH, method, headers={"If-Match": '"another"'})
    assert (answer.status_code, answer.headers["etag"]) == (412, tag)
    assert method == "HEAD" or answer.json()["code"] == "another_capture"
    assert ask(served, PATH).content == DATA
    assert ask(served, PATH, method, headers={"If-Match": f'"another", {tag}'}).status_code in (200, 204)


def test_a_file_whose_answer_cannot_be_made_is_closed(
    served: FastAPI, captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = asyncio.run(captures.open(PATH.rpartition("/")[2]))
    bad = replace(opened, etag='"\u2603"')

    async def opening(_name: str) -> Opened:
        return bad

    monkeypatch.setattr(captures, "open", opening)
    with pytest.raises(UnicodeEncodeError):
        ask(served, PATH)
    assert opened.file.closed


def test_an_empty_file_is_one_too(served: FastAPI, captures: Captures) -> None:
    (captures.folder / "capture_20261018_010203_004.jpg").touch()
    answer = ask(served, "/captures/capture_20261018_010203_004.jpg")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


# --- thumbnails -------------------------------------------------------------------------------------------------------


def picture(still_format: str, size: tuple[int, int] = (640, 480)) -> bytes:
    output = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(output, still_format)
    return output.getvalue()


@pytest.mark.parametrize("still_format", ["JPEG", "PNG", "TIFF"])
def test_a_thumbnail_fits_its_box_and_keeps_the_shape(served: FastAPI, captures: Captures, still_format: str) -> None:
    added, _ = captures._add(still(picture(still_format), still_format={"JPEG": "JPG"}.get(still_format, still_format)))
    path = f"/captures/{added.filename}/thumbnail"
    for query, size in (
        ("", (320, 240)),
        ("?width=64", (64, 48)),
        ("?height=48&width=600", (64, 48)),
        ("?width=8000", (640, 480)),
    ):
        answer = ask(served, path + query)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        assert jpeg_size(answer.content) == size
        shown = Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((5, 5))
        assert all(abs(a - b) < 12 for a, b in zip(shown, (200, 30, 30), strict=True))  # type: ignore[arg-type]
    tag = answer.headers["etag"]
    assert ask(served, path + "?width=8000", headers={"If-None-Match": tag}).status_code == 304
    assert ask(served, path + "?width=64", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xd9", picture("PNG")[:200], picture("TIFF")[:300]])
def test_what_is_no_picture_has_no_thumbnail(served: FastAPI, captures: Captures, data: bytes) -> None:
    added, _ = captures._add(still(data))
    with pytest.raises(ValueError, match=r"JPEG|decoded"):  # the pixels process makes image_unreadable of it
        ask(served, f"/captures/{added.filename}/thumbnail")


def test_a_page_of_thumbnails_asked_for_at_once_waits_its_turn_and_few_are_in_memory(
    tmp_path: Path, captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures._add(still(picture("JPEG")))
    served = app_of(live_camera(tmp_path)[0], captures=captures)
    held, most, may = 0, 0, asyncio.Event()
    real_aside, real_run = Captures.aside, Painter.run

    async def aside(self: Captures, work: Any, *arguments: Any) -> Any:
        nonlocal held, most
        if getattr(work, "__name__", "") == "readall" or getattr(work, "__name__", "") == "read":
            held += 1
            most = max(most, held)
        return await real_aside(self, work, *arguments)

    async def run(painter: Painter, operation: str, arguments: Any, data: bytes = b"", *, within_s: float) -> bytes:
        nonlocal held
        await may.wait()
        held -= 1
        return await real_run(painter, operation, arguments, data, within_s=within_s)

    monkeypatch.setattr(Captures, "aside", aside)
    monkeypatch.setattr(Painter, "run", run)

    async def asking() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://localhost") as client:
            asked = [asyncio.create_task(client.get(f"{PATH}/thumbnail")) for _ in range(PLACES + IN_LINE)]
            refused = None
            while refused is None or refused.status_code != 503:  # until all of them wait
                one = asyncio.create_task(client.get(f"{PATH}/thumbnail"))
                await asyncio.wait((one,), timeout=0.1)
                refused = one.result() if one.done() else None
                asked += [] if one.done() else [one]
            may.set()
            return [refused, *await asyncio.gather(*asked)]

    refused, *others = asyncio.run(asking())
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_pictures")
    assert [one.status_code for one in others].count(200) == PLACES + IN_LINE
    assert most == PLACES


# --- deleting, and names that lead nowhere ----------------------------------------------------------------------------


def test_what_is_deleted_is_gone(served: FastAPI, captures: Captures) -> None:
    assert ask(served, PATH, "DELETE").status_code == 204
    assert list(captures.folder.iterdir()) == []
    for method, path in (("DELETE", PATH), ("GET", PATH), ("GET", PATH + "/thumbnail"), ("GET", PATH + "/metadata")):
        answer = ask(served, path, method)
        assert (answer.status_code, answer.json()["code"]) == (404, "capture_missing")


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "front.json", "capture_20261017_010203_004.jpg.json", "%00"]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_other_file_is_reached(kept: FastAPI, folder: Path, method: str, name: str) -> None:
    (folder / "front.json").write_text("a secret")
    answer: httpx.Response = ask(kept, f"/captures/{name}", method)
    assert answer.status_code == 404
    assert "secret" not in answer.text
    assert (folder / "front.json").exists()


def test_metadata_that_was_changed_by_hand_is_no_error_of_ours(served: FastAPI, captures: Captures) -> None:
    (captures.folder / (PATH.rpartition("/")[2] + ".json")).write_text('{"seq": "x"}')
    assert ask(served, PATH + "/metadata").json()["code"] == "capture_missing"
    assert ask(served, PATH).content == DATA


# --- what undoes a still's settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "overrides", "back"),
    [
        (Settings(10, 2.0, False), Settings(exposure_us=500), Settings(10, None, False)),
        (Settings(10, 2.0, False), Settings(gain=4.0), Settings(None, 2.0)),
        (Settings(10, 2.0, True), Settings(exposure_us=500, gain=4.0), Settings(None, 2.0, True)),
        (Settings(10, None, None), Settings(exposure_us=500), Settings(10)),
        (Settings(10, 2.0, False), Settings(), Settings()),
    ],
)
def test_what_was_in_force_is_brought_back(before: Settings, overrides: Settings, back: Settings) -> None:
    assert before.undoing(overrides) == back
