"""Every failure is a problem document with a code that stays."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from camdock import problems
from camdock.errors import CameraError, every_error
from tests.unit.rig import app_of, ask, camera_of


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """With one camera, which nobody changes."""
    return app_of(camera_of(tmp_path_factory.mktemp("problems"), name="front"))


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document, checked for what is true of all of them."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    assert set(found) == {"type", "title", "status", "detail", "code", "hint"}
    assert (found["status"], found["code"], found["type"]) == (status, code, f"urn:camdock:problem:{code}")
    assert found["title"]
    assert found["detail"]
    assert found["hint"]
    return found


@pytest.mark.parametrize("cls", every_error().values(), ids=lambda cls: cls.__name__)
def test_every_error_of_the_tree_is_answered_as_it_says(cls: type[CameraError]) -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/fail")
    async def fail() -> None:
        raise cls("/dev/video0 is held by pid 812", "stop it")

    answer = ask(app, "/fail")
    found = problem(answer, cls.http_status, cls.code)
    assert (found["title"], found["detail"]) == (cls.summary, "/dev/video0 is held by pid 812")
    assert found["hint"] == "stop it"
    assert ("retry-after" in answer.headers) is (cls.http_status in (429, 503) and cls.retry)


def test_an_address_that_is_not_there(app: FastAPI) -> None:
    found = problem(ask(app, "/nothing/here?a=1"), 404, "not_found")
    assert found["detail"] == "GET /nothing/here: not found"
    assert "/docs" in found["hint"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/snapshot"), ("DELETE", "/cameras/front"), ("GET", "/settings")]
)
def test_a_method_that_is_not_there_names_those_that_are(app: FastAPI, method: str, path: str) -> None:
    answer = ask(app, path, method)
    if path == "/settings":
        problem(answer, 404, "not_found")
        return
    found = problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
    assert found["detail"] == f"{method} {path}: method not allowed"
    assert "allowed are GET;" in found["hint"]


def test_every_method_of_an_address_is_named_though_each_has_a_route_of_its_own(app: FastAPI) -> None:
    for method in ("POST", "DELETE"):
        answer = ask(app, "/cameras/front/settings", method)
        assert "allowed are GET, PUT;" in problem(answer, 405, "method_not_allowed")["hint"]
        assert answer.headers["allow"] == "GET, PUT"


def test_a_body_that_is_no_text_is_refused_with_what_to_do(app: FastAPI) -> None:
    for body in (b'{"gain": "\xff"}', b"[" * 60_000):
        answer = ask(app, "/cameras/front/settings", "PUT", content=body, headers={"Content-Type": "application/json"})
        problem(answer, 400, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("GET", "/stream?frames=0", None, "frames: Input should be greater than or equal to 1"),
        ("GET", "/stream?frames=many", None, "frames: Input should be a valid integer"),
        ("GET", "/snapshot?allow_offline=perhaps", None, "allow_offline: Input should be a valid boolean"),
        ("GET", "/cameras/" + "x" * 65, None, "name: String should have at most 64 characters"),
        ("PUT", "/cameras/front/settings", "{}x", "JSON"),
        ("PUT", "/cameras/front/settings", "[]", "body: Input should be a valid dictionary"),
        ("PUT", "/cameras/front/settings", "", "body: Field required"),
        ("PUT", "/cameras/front/settings", '{"gian": 2}', "gian: Extra inputs are not permitted"),
        ("PUT", "/cameras/front/settings", '{"gain": -1}', "gain: Input should be greater than or equal to 0"),
        ("PUT", "/cameras/front/settings", '{"gain": NaN}', "gain: Input should be a finite number"),
        ("PUT", "/cameras/front/settings", '{"gain": 1e999}', "gain: Input should be a finite number"),
        ("PUT", "/cameras/front/settings", '{"exposure_us": 1.5}', "exposure_us: Input should be a valid integer"),
        ("PUT", "/cameras/front/settings", '{"exposure_us": "1"}', "exposure_us: Input should be a valid integer"),
        ("PUT", "/cameras/front/settings", '{"auto_exposure": 1}', "auto_exposure: Input should be a valid boolean"),
        ("PUT", "/cameras/front/settings", '{"\\ud800": 1}', "unicode"),
        ("GET", "/?action=dance", None, "action=dance is not known"),
    ],
)
def test_a_request_that_cannot_be_understood_names_the_parameter(
    app: FastAPI, method: str, path: str, body: str | None, says: str
) -> None:
    headers = {"content-type": "application/json"}
    found = problem(ask(app, path, method, content=body, headers=headers), 422, "request_invalid")
    assert says in found["detail"]


@pytest.mark.parametrize(
    ("kind", "body", "detail", "hint"),
    [
        ("text/plain", '{"gain": 2}', "body: Input should be a valid dictionary", "send JSON as Content-Type: appl"),
        ("application/json", "{bad", "body: no JSON, at character 1: Expecting property name", "GET /docs"),
        ("application/json", '{"gian": 2}', "gian: Extra inputs", "there are: exposure_us, gain, auto_exposure; GET"),
        ("application/json", "[]", "body: Input should be a valid dictionary", "GET /docs shows"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_with_what_helps(
    app: FastAPI, kind: str, body: str, detail: str, hint: str
) -> None:
    answer = ask(app, "/cameras/front/settings", "PUT", content=body, headers={"content-type": kind})
    found = problem(answer, 422, "request_invalid")
    assert found["detail"].startswith(detail)
    assert found["hint"].startswith(hint)


def test_every_mistake_of_one_request_is_named(app: FastAPI) -> None:
    body = {"gain": -1, "exposure_us": 0, "auto_exposure": "x"}
    detail = problem(ask(app, "/cameras/front/settings", "PUT", json=body), 422, "request_invalid")["detail"]
    assert all(f"{name}: " in detail for name in body)


def test_a_request_with_thousands_of_mistakes_gets_a_short_answer(app: FastAPI) -> None:
    body = {f"wrong{number}": 1 for number in range(5000)}
    detail = problem(ask(app, "/cameras/front/settings", "PUT", json=body), 422, "request_invalid")["detail"]
    assert len(detail) <= 1000


def test_a_camera_that_is_not_there_is_answered_with_those_that_are(app: FastAPI) -> None:
    for path in ("/cameras/back", "/cameras/back/settings", "/cameras/back/snapshot", "/cameras/back/stream"):
        found = problem(ask(app, path), 404, "camera_missing")
        assert found["detail"] == "there is no camera called 'back'"
        assert found["hint"] == "there are: front"


def test_what_a_route_documents_points_to_the_problem_in_the_description(app: FastAPI) -> None:
    description = app.openapi()
    assert set(description["components"]["schemas"]["Problem"]["properties"]) == set(problems.Problem.model_fields)
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schemas = [kind["schema"] for kind in response["content"].values()]
                    assert schemas == [{"$ref": "#/components/schemas/Problem"}], (method, path, status)


def test_every_status_that_can_be_documented_has_its_words() -> None:
    statuses = {cls.http_status for cls in every_error().values()} - {500}
    assert all(one["description"] for one in problems.documented(*statuses).values())
