"""What the endpoints answer, over cameras without a process."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import camdock
from camdock import api, app, bodies
from camdock.attempts import MOST
from camdock.auth import PUBLIC
from camdock.config import Config
from camdock.errors import SourceMissing, SourceStalled
from camdock.frame import jpeg_size
from camdock.rendition import AS_IT_IS
from tests.unit.rig import app_of, ask, camera_of, draw_notice, frame_of, live_camera

TOKEN = "hunter2-hunter2"
VIEWERS = "only-to-look-at-it"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FastAPI:
    """The application as it is built for two cameras and a token; not running."""
    monkeypatch.delenv("CAMDOCK_SOURCE", raising=False)
    monkeypatch.setenv("CAMDOCK_SOURCES", "front=relay:http://user:hunter2@h/ nest=synthetic:")
    monkeypatch.setenv("CAMDOCK_TOKEN", TOKEN)
    monkeypatch.setenv("CAMDOCK_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    return app.build(Config())


# --- cameras ----------------------------------------------------------------------------------------------------------


def test_a_live_camera_is_described_in_full(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.give(drops={"late": 2})
    found = ask(app_of(camera), "/cameras/front").json()
    assert set(found) == set(api.CameraModel.model_fields)
    known = {
        "name": "front",
        "source": "synthetic:?size=64x48&fps=1000",
        "state": "live",
        "reason": None,
        "device": "synthetic test card",
        "format": "JPEG",
        "size": {"width": 64, "height": 48},
        "fps_promised": 1000.0,
        "seq": 2,
        "viewers": 0,
        "frames": 2,
        "drops": {"late": 2},
        "restarts": {},
    }
    assert {name: found[name] for name in known} == known
    assert found["fps"] > 0
    assert 0 <= found["age_s"] < 5
    assert abs(found["since"] - time.time()) < 60
    assert ask(app_of(camera), "/cameras").json()[0]["name"] == "front"


def test_a_camera_that_is_gone_says_why_and_what_to_do(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    camera._went_offline(SourceMissing("/dev/video0 was unplugged", "plug it in"))
    found = ask(app_of(camera), "/cameras/front").json()
    assert found["reason"] == {
        "code": "source_missing",
        "message": "/dev/video0 was unplugged",
        "hint": "plug it in",
        "retry": True,
    }
    assert (found["state"], found["fps"], found["age_s"]) == ("offline", 0.0, None)
    assert found["restarts"] == {"source_missing": 1}


def test_the_cameras_are_listed_in_their_order_without_credentials(tmp_path: Path) -> None:
    cameras = [camera_of(tmp_path, "relay:http://user:hunter2@h/#token=hunter2", name) for name in ("z", "a", "m")]
    answer = ask(app_of(*cameras), "/cameras")
    assert [one["name"] for one in answer.json()] == ["z", "a", "m"]
    assert "hunter2" not in answer.text


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_reported_as_wanted_applied_and_limits(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    assert ask(app_of(camera), "/cameras/front/settings").json() == {
        "wanted": {"exposure_us": None, "gain": None, "auto_exposure": None},
        "applied": {"exposure_us": 10_000, "gain": 1.0, "auto_exposure": False},
        "limits": {"exposure_us": [10, 2_000_000], "gain": [1.0, 16.0], "auto_exposure": True},
    }


def test_a_change_answers_what_the_device_does_now(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    answer = ask(app_of(camera), "/cameras/front/settings", "PUT", json={"gain": 4, "exposure_us": 500})
    assert answer.status_code == 200
    assert answer.json()["applied"] == {"exposure_us": 500, "gain": 4.0, "auto_exposure": False}
    assert answer.json()["wanted"] == {"exposure_us": 500, "gain": 4.0, "auto_exposure": False}


def test_what_is_absent_stays_and_null_is_taken_back(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    served = app_of(camera)
    ask(served, "/cameras/front/settings", "PUT", json={"gain": 4.0, "exposure_us": 500})
    wanted = ask(served, "/cameras/front/settings", "PUT", json={"exposure_us": None}).json()["wanted"]
    assert wanted == {"exposure_us": None, "gain": 4.0, "auto_exposure": False}
    assert ask(served, "/cameras/front/settings", "PUT", json={}).json()["wanted"] == wanted


def test_a_value_out_of_range_is_refused_with_the_limits(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    answer = ask(app_of(camera), "/cameras/front/settings", "PUT", json={"exposure_us": 3_000_000})
    assert (answer.status_code, answer.json()["code"]) == (422, "setting_out_of_range")
    assert answer.json()["hint"] == "from 10 to 2000000"


def test_a_change_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    camera = camera_of(tmp_path / "file")
    answer = ask(app_of(camera), "/cameras/front/settings", "PUT", json={"gain": 2.0})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_failed")


# --- pictures ---------------------------------------------------------------------------------------------------------


def is_the_newest(answer: httpx.Response, camera: Any) -> None:
    frame = camera.broadcast.newest
    assert answer.status_code == 200
    assert answer.content == frame.jpeg
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-seq"] == str(frame.seq)
    assert answer.headers["x-timestamp"] == f"{frame.captured_at:.6f}"
    assert "no-store" in answer.headers["cache-control"]


def test_a_snapshot_is_the_newest_picture_of_its_camera(tmp_path: Path) -> None:
    front, its_worker = live_camera(tmp_path)
    back, worker = live_camera(tmp_path, "synthetic:?size=32x32&fps=1000", name="back")
    worker.give()
    served = app_of(front, back)
    for path in ("/snapshot", "/?action=snapshot", "/cameras/front/snapshot", "/snapshot?allow_offline=1"):
        # Ahead of the clock: on a full machine the request alone may take longer than a picture stays new.
        its_worker.give(captured_ns=time.monotonic_ns() + 60_000_000_000)
        is_the_newest(ask(served, path), front)
    is_the_newest(ask(served, "/cameras/back/snapshot?max_delay=60000"), back)


def test_an_old_picture_is_waited_out(tmp_path: Path) -> None:
    async def asking() -> None:
        camera, worker = live_camera(tmp_path)
        worker.give(captured_ns=time.monotonic_ns() - 600_000_000)
        task = asyncio.create_task(api.fresh_frame(camera, 0.3))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        worker.give()
        assert (await task).seq == 3

    asyncio.run(asking())


def test_a_notice_is_no_picture_however_fresh(tmp_path: Path) -> None:
    async def asking() -> None:
        camera, worker = live_camera(tmp_path)
        camera.broadcast.publish(replace(frame_of(1), notice=True))
        task = asyncio.create_task(api.fresh_frame(camera, 0.3))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        worker.give()
        assert not (await task).notice

    asyncio.run(asking())


def test_a_camera_that_fails_while_a_picture_is_waited_for_is_told_at_once(tmp_path: Path) -> None:
    async def asking() -> None:
        camera, worker = live_camera(tmp_path)
        worker.give(captured_ns=1)
        task = asyncio.create_task(api.fresh_frame(camera, 0.3))
        await asyncio.sleep(0)
        camera._went_offline(SourceMissing("unplugged"))
        await draw_notice(camera)
        with pytest.raises(SourceMissing):
            await task

    asyncio.run(asking())


def test_a_picture_that_does_not_come_is_a_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SNAPSHOT_WITHIN_S", 0.01)
    camera, worker = live_camera(tmp_path)
    worker.give(captured_ns=1)
    with pytest.raises(SourceStalled, match="no new picture"):
        asyncio.run(api.fresh_frame(camera, 0.3))


def test_an_offline_camera_has_no_snapshot_unless_the_notice_will_do(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    camera._went_offline(SourceMissing("unplugged", "plug it in"))
    asyncio.run(draw_notice(camera))
    served = app_of(camera)
    for path in ("/snapshot", "/?action=snapshot", "/cameras/front/snapshot"):
        answer = ask(served, path)
        assert (answer.status_code, answer.json()["code"]) == (503, "source_missing")
        assert answer.headers["retry-after"] == "1"
    answer = ask(served, "/snapshot?allow_offline=true")
    is_the_newest(answer, camera)
    assert jpeg_size(answer.content) == (160, 120)


def test_a_notice_that_nobody_looked_at_meanwhile_is_drawn_anew(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    camera._went_offline(SourceMissing("unplugged", "plug it in"))
    asyncio.run(draw_notice(camera))
    drawn = camera.broadcast.newest
    assert drawn is not None
    kept = replace(drawn, captured_ns=drawn.captured_ns - 60_000_000_000)
    camera.broadcast.newest = kept

    async def asked() -> str:
        asking = asyncio.create_task(api.snapshot_of(camera, AS_IT_IS, allow_offline=True))
        await asyncio.sleep(0)
        drawing = asyncio.create_task(camera._notices.run())
        try:
            return (await asking).headers["X-Seq"]
        finally:
            drawing.cancel()

    assert int(asyncio.run(asked())) == kept.seq + 1


# --- health -----------------------------------------------------------------------------------------------------------


def test_live_is_about_the_service_and_ready_about_every_camera(tmp_path: Path) -> None:
    front, _ = live_camera(tmp_path)
    back, _ = live_camera(tmp_path, name="back")
    served = app_of(front, back)
    assert ask(served, "/health/ready").json() == {"status": "ready"}
    back._went_offline(SourceMissing("/dev/video1 was unplugged"))
    assert ask(served, "/health/live").json() == {"status": "alive"}
    answer = ask(served, "/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.json()["detail"] == "1 of 2 cameras give no pictures"


def test_health_tells_whether_the_first_camera_gives_pictures(tmp_path: Path) -> None:
    front, _ = live_camera(tmp_path)
    back = camera_of(tmp_path, name="back")
    found = ask(app_of(front, back), "/health").json()
    assert (found["status"], found["camera_connected"]) == ("healthy", True)
    assert abs((datetime.fromisoformat(found["timestamp"]) - datetime.now()).total_seconds()) < 60
    assert ask(app_of(back, front), "/health").json()["camera_connected"] is False


def test_reasons_and_cameras_are_for_who_may_look(built: FastAPI) -> None:
    stranger = ask(built, "/health").json()
    assert (stranger["status"], stranger["cameras"], stranger["version"]) == ("healthy", None, None)
    assert ask(built, "/health/ready").json()["detail"] == "2 of 2 cameras give no pictures"
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    friend = ask(built, "/health", headers=bearer).json()
    assert [camera["name"] for camera in friend["cameras"]] == ["front", "nest"]
    assert friend["version"] == camdock.__version__
    assert "front: " in ask(built, "/health/ready", headers=bearer).json()["detail"]


# --- ustreamer's state ------------------------------------------------------------------------------------------------


def test_the_state_is_ustreamers(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    with camera.broadcast.subscribe(), camera.broadcast.subscribe():
        found = ask(app_of(camera), "/state").json()
    assert found["ok"] is True
    result = found["result"]
    assert result["instance_id"] == "front"
    assert result["source"]["online"] is True
    assert result["source"]["resolution"] == {"width": 64, "height": 48}
    assert result["source"]["desired_fps"] == 1000
    assert result["stream"]["clients"] == len(result["stream"]["clients_stat"]) == 2
    assert set(next(iter(result["stream"]["clients_stat"].values()))) == {
        "fps",
        "extra_headers",
        "advance_headers",
        "dual_final_frames",
    }
    assert ask(app_of(camera), "/cameras/front/state").json()["result"]["stream"]["clients"] == 0


def test_the_state_of_a_camera_that_never_opened_has_its_shape_too(tmp_path: Path) -> None:
    source = ask(app_of(camera_of(tmp_path)), "/state").json()["result"]["source"]
    assert source["online"] is False
    assert source["resolution"] == {"width": 0, "height": 0}


# --- the page, and the whole application ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/docs", "text/html"), ("/favicon.ico", "image/svg+xml")]
)
def test_the_page_its_description_and_its_icon_are_served(built: FastAPI, path: str, kind: str) -> None:
    answer = ask(built, path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert len(answer.content) > 100


def test_every_file_that_the_page_names_is_served(built: FastAPI) -> None:
    for path in ("/", "/docs"):
        page = ask(built, path, headers={"Authorization": f"Bearer {TOKEN}"}).text
        named = set(re.findall(r"""(?:src|href)=["']?(web/[^"'?>\s]+)""", page))
        assert named, path
        for file in named:
            assert ask(built, f"/{file}").status_code == 200, file
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)  # works where there is no internet


def test_no_file_outside_the_pages_folder_is_served(built: FastAPI) -> None:
    for path in (
        "/web/%2e%2e/app.py",
        "/web/..%2fapp.py",
        "/web/..%5capp.py",
        "/web//etc/passwd",
        "/web/%2fetc/passwd",
        "/web/",
    ):
        assert ask(built, path).status_code == 404, path


def test_everything_but_the_page_and_the_health_wants_the_token(built: FastAPI) -> None:
    for path in (
        "/snapshot",
        "/stream?frames=1",
        "/cameras",
        "/metrics",
        "/state",
        "/?%61ction=snapshot",
        "/openapi.json",
    ):
        assert ask(built, path).status_code == 401, path
        assert ask(built, path, host="evil.example").status_code == 421, path
    assert ask(built, "/cameras/nest/settings", "PUT", json={"gain": 2.0}).status_code == 401


def test_no_answer_shows_a_credential(built: FastAPI) -> None:
    for path in ("/cameras", "/cameras/front", "/health", "/state", "/metrics", "/openapi.json"):
        assert "hunter2" not in ask(built, path, headers={"Authorization": f"Bearer {TOKEN}"}).text, path


def test_a_camera_that_opens_is_waited_for_and_then_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SNAPSHOT_WITHIN_S", 0.1)
    camera = camera_of(tmp_path)
    monkeypatch.setattr(type(camera), "opens_within_s", 0.2)
    with pytest.raises(SourceStalled, match="no new picture within"):
        asyncio.run(api.fresh_frame(camera, 0.3))
    assert camera.broadcast.viewers == 0


def test_the_description_is_complete(built: FastAPI) -> None:
    description = ask(built, "/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert description["info"]["version"] == camdock.__version__
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            assert operation["tags"], (method, path)
            assert path in PUBLIC or {"401", "429"} <= set(operation["responses"]), (method, path)
            if "{name}" in path:
                assert "404" in operation["responses"], (method, path)


async def refusals(built: FastAPI, method: str, path: str, operation: dict[str, Any], sender: str) -> set[int]:
    """The statuses of what can go wrong with one operation before anything is done."""
    here = path.replace("{name}", "nest").replace("{filename}", "none.jpg")
    token, viewers = ({"Authorization": f"Bearer {one}"} for one in (TOKEN, VIEWERS))
    json = {"Content-Type": "application/json", **token}

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    questions: list[dict[str, Any]] = [{"headers": {"Host": "evil.example"}}]
    if "{" in path:
        questions += [
            {"url": path.replace("{name}", name).replace("{filename}", name), "json": {}} for name in ("none", "x" * 65)
        ]
    numbers = [
        one["name"]
        for one in operation.get("parameters", [])
        if one["in"] == "query" and "integer" in str(one.get("schema", {}).get("anyOf", one.get("schema")))
    ]
    questions += [{"params": {name: "nonsense"}} for name in numbers]
    if method != "get":
        questions += [
            {"headers": viewers},
            {"headers": {"Origin": "http://evil.example"}, "auth": ("me", TOKEN)},
            {"headers": json, "content": bytes(70_000)},
            {"headers": {**json, "Content-Length": str(10**9)}, "content": b"{"},
            {"headers": json, "content": stuck()},
            {"headers": {**json, "Content-Type": "multipart/form-data; boundary=b"}, "content": stuck()},
            {"headers": json, "content": b'{"gain": "\xff"}'},
            {"headers": json, "content": b"["},
            {"headers": {**token, "Content-Type": "multipart/form-data"}, "content": b"x"},
        ]
    seen = set()
    transport = httpx.ASGITransport(built, client=(sender, 40000))  # wrong tokens of one shut out no other
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for question in questions:
            more = {"url": here, "headers": token, **question}
            seen.add((await client.request(method, **more)).status_code)
        for _ in range(MOST + 1):
            wrong = {"Authorization": "Bearer nonsense", "Content-Type": "application/json"}
            answer = await client.request(method, here, headers=wrong, content=b'{"token": "nonsense"}')
            seen.add(answer.status_code)
    return {status for status in seen if status >= 400}


def test_whatever_is_refused_is_in_the_description(built: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SMALL_WITHIN_S", 0.01)
    monkeypatch.setattr(bodies, "ARRIVED_WITHIN_S", 0.01)
    monkeypatch.setenv("CAMDOCK_VIEWER_TOKEN", VIEWERS)
    monkeypatch.setenv("CAMDOCK_VISION", "on")
    asked, seen = app.build(Config()), set()
    senders = (f"203.0.113.{number}" for number in count())
    for path, methods in built.openapi()["paths"].items():
        for method, operation in methods.items():
            answered = asyncio.run(refusals(asked, method, path, operation, next(senders)))
            described = {int(status) for status in operation["responses"]}
            assert answered <= described, f"{method} {path} also answers {sorted(answered - described)}"
            seen |= answered
    assert seen >= {400, 401, 403, 404, 408, 413, 415, 421, 422, 429}


def test_every_parameter_of_a_path_has_an_example(built: FastAPI) -> None:
    for path, methods in built.openapi()["paths"].items():
        for method, operation in methods.items():
            examples = {one["name"]: one.get("schema", {}).get("examples") for one in operation.get("parameters", [])}
            assert all(examples[name] for name in re.findall(r"{(\w+)}", path)), (method, path)


def test_one_camera_has_the_default_name_and_keeps_its_settings_under_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("CAMDOCK_SOURCES", "CAMDOCK_TOKEN", "HOST", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAMDOCK_SOURCE", "synthetic:")
    monkeypatch.setenv("CAMDOCK_STATE_DIR", str(tmp_path))
    served = app.build(Config())
    assert ask(served, "/cameras/camera/settings", "PUT", json={"gain": 2.0}).status_code == 200
    assert (tmp_path / "camera.json").exists()
    assert ask(app.build(Config()), "/cameras/camera/settings").json()["wanted"]["gain"] == 2.0
