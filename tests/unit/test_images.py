"""POST /images/process through ASGI: whose picture, which operations, what is answered, what is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from camdock.images import EXAMPLES
from tests.unit.rig import app_of, ask, jpeg_of, live_camera

PICTURE = jpeg_of(64, 48)
IMAGE = {"Content-Type": "image/png"}  # which it is not: the bytes decide


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """With one camera, `front`, which gave one picture of 64x48; it keeps nothing of what it is asked."""
    camera, _worker = live_camera(tmp_path_factory.mktemp("images"))
    return app_of(camera)


def post(app: FastAPI, operations: Any = None, **more: Any) -> httpx.Response:
    """One request; a raw picture unless `content`, `files` or `params` say otherwise."""
    params = dict(more.pop("params", {}))
    if operations is not None:
        params["operations"] = operations if isinstance(operations, str) else json.dumps(operations)
    if "files" not in more and "camera" not in params:
        more = {"content": PICTURE, "headers": IMAGE} | more
    return ask(app, "/images/process", "POST", params=params, **more)


def size_of(answer: httpx.Response) -> tuple[int, int]:
    """Of the picture that was answered."""
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        assert answer.headers["content-type"] == f"image/{str(image.format).lower()}"
        return image.size


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["code"] == code
    return str(answer.json()["detail"])


HALF = [{"op": "resize", "width": 32}]


def test_a_picture_comes_raw_or_in_a_form_and_its_operations_with_it_or_behind_the_address(app: FastAPI) -> None:
    form = {"file": ("x.jpg", PICTURE)}
    assert size_of(post(app)) == (64, 48)
    assert size_of(post(app, HALF)) == (32, 24)
    assert size_of(post(app, HALF, files=form)) == (32, 24)
    assert size_of(post(app, files=form, data={"operations": json.dumps(HALF)})) == (32, 24)
    twice = post(app, HALF, files=form, data={"operations": json.dumps(HALF)})
    assert "given twice" in refused(twice, 422, "request_invalid")


def test_a_camera_may_be_named_instead_of_a_picture(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camdock.images.FRESH_MS", 60_000)  # of its one picture, on a machine that is busy
    assert size_of(post(app, HALF, params={"camera": "front"})) == (32, 24)
    refused(post(app, params={"camera": "back"}), 404, "camera_missing")
    assert "one of the three" in refused(post(app, params={"camera": "front"}, content=PICTURE, headers=IMAGE), 422,
                                       "request_invalid")  # fmt: skip
    assert "one of the three" in refused(post(app, content=b""), 422, "request_invalid")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one["op"])
def test_every_example_can_be_asked_of_a_picture_that_is_large_enough(app: FastAPI, example: dict[str, Any]) -> None:
    size_of(post(app, [example], content=jpeg_of(400, 300)))


def test_measurements_are_json(app: FastAPI) -> None:
    found = post(app, HALF, params={"answer": "measurements"})
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    assert (found.json()["width"], found.json()["height"]) == (32, 24)
    assert sum(found.json()["histogram"]) == 32 * 24


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ([{"op": "grayscale"}, {"op": "resize", "width": 0}], "operations.1.resize.width: "),
        ([{"op": "explode"}], "operations.0: "),
        ("[", "operations: Invalid JSON"),
        ("{}", "operations: "),
        ("[" * 20_000, "longer than 16384 characters"),
    ],
)
def test_a_wrong_list_is_refused_with_place_and_field(app: FastAPI, operations: Any, says: str) -> None:
    assert says in refused(post(app, operations), 422, "request_invalid")


def test_what_only_the_picture_can_tell_is_refused_with_the_place_too(app: FastAPI) -> None:
    crop = {"op": "crop", "x": 60, "width": 5, "height": 5}
    assert "operations.1 (crop)" in refused(post(app, [{"op": "flip"}, crop]), 422, "operation_impossible")


def test_what_is_no_picture_is_refused(app: FastAPI) -> None:
    refused(post(app, content=b"GIF89a"), 415, "upload_unsupported")
    refused(post(app, content=PICTURE, headers={"Content-Type": "text/html"}), 415, "upload_unsupported")
    refused(post(app, content=PICTURE[:300]), 422, "image_unreadable")
    refused(post(app, content=bytes(100_001)), 413, "upload_too_large")
    assert "1,000,000" in refused(post(app, content=jpeg_of(1001, 1000)[:90_000]), 422, "image_unreadable")
    assert "answer" in refused(post(app, params={"answer": "everything"}), 422, "request_invalid")


def test_the_operations_are_taught_with_examples_that_may_be_asked(app: FastAPI) -> None:
    taught = ask(app, "/images/operations").json()
    assert [one["op"] for one in taught] == [one["op"] for one in EXAMPLES]
    assert all(one["does"] for one in taught)
    assert size_of(post(app, [one["example"] for one in taught], content=jpeg_of(400, 360)))


def test_the_description_holds_every_operation_and_its_limits(app: FastAPI) -> None:
    described = ask(app, "/openapi.json").json()
    parameters = {one["name"]: one for one in described["paths"]["/images/process"]["post"]["parameters"]}
    recipe = parameters["operations"]["content"]["application/json"]["schema"]
    assert len(recipe["items"]["oneOf"]) == len(EXAMPLES)
    for one in recipe["items"]["oneOf"]:
        assert one["$ref"].rpartition("/")[2] in described["components"]["schemas"]
    blur = described["components"]["schemas"]["Blur"]["properties"]["radius"]
    assert (blur["minimum"], blur["maximum"]) == (0.1, 100)
    assert "Measurements" in described["components"]["schemas"]
