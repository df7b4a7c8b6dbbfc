"""The lab camera service's calls on cameras that were never opened, are gone, or have no settings."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import pytest
from PIL import Image

from camdock import compat
from camdock.captures import Captures
from camdock.errors import SourceMissing
from camdock.imaging import encode_jpeg
from tests.unit.rig import app_of, ask, camera_of, live_camera
from tests.unit.test_camera import rested
from tests.unit.test_captures import still


def test_the_settings_of_a_camera_that_never_opened_have_their_shape_too(tmp_path: Path) -> None:
    answer = ask(app_of(camera_of(tmp_path), captures=Captures(tmp_path)), "/settings")
    assert answer.text == (
        '{"exposure":0,"gain":1.0,"resolution":{"width":0,"height":0},"connected":false,"streaming":false}'
    )


@pytest.mark.parametrize(
    "change", [{"exposure": 0}, {"exposure": -1}, {"exposure": 10**30}, {"exposure": 10**400}, {"gain": -0.5}]
)
def test_what_no_camera_can_do_is_left_out_before_anything_is_known_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, float]
) -> None:
    camera = camera_of(tmp_path)
    with caplog.at_level(logging.WARNING, "camdock"):
        answer = ask(app_of(camera, captures=Captures(tmp_path)), "/settings", "PUT", json=change)
    assert answer.status_code == 200
    assert camera.status().wanted.given() == {}
    assert "what is in force stays" in caplog.text


def test_settings_of_a_camera_that_is_away_are_kept_for_its_return(tmp_path: Path) -> None:
    camera = camera_of(tmp_path)
    answer = ask(app_of(camera, captures=Captures(tmp_path)), "/settings", "PUT", json={"exposure": 500, "gain": 2})
    assert (answer.json()["exposure"], answer.json()["gain"]) == (500, 2.0)
    assert camera.status().wanted.exposure_us == 500


def test_settings_of_a_camera_at_rest_are_answered_as_they_were_put(tmp_path: Path) -> None:
    camera, _ = rested(tmp_path)
    served = app_of(camera, captures=Captures(tmp_path))
    assert ask(served, "/settings").json()["exposure"] == 10_000
    answer = ask(served, "/settings", "PUT", json={"exposure": 50_000})
    assert (answer.json()["exposure"], answer.json()["gain"]) == (50_000, 1.0)
    assert ask(served, "/settings").json() == answer.json()


def test_a_camera_without_these_settings_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    camera, worker = live_camera(tmp_path)
    worker.begin(limits={}, applied={})
    worker.give()
    with caplog.at_level(logging.WARNING, "camdock"):
        answer = ask(app_of(camera, captures=Captures(tmp_path)), "/settings", "PUT", json={"exposure": 500})
    assert (answer.status_code, answer.json()["exposure"], answer.json()["gain"]) == (200, 0, 1.0)


def test_somebody_who_looks_is_streaming(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    served = app_of(camera, captures=Captures(tmp_path))
    with camera.broadcast.subscribe():
        assert ask(served, "/settings").json()["streaming"] is True
    assert ask(served, "/settings").json()["streaming"] is False


@pytest.mark.parametrize(
    ("delivers", "quality", "is_own"), [("", 95, False), ("&format=YUV420", 95, False), ("&format=JPEG", None, True)]
)
def test_the_quality_told_is_the_picture_s(tmp_path: Path, delivers: str, quality: int | None, is_own: bool) -> None:
    camera, worker = live_camera(tmp_path, f"synthetic:?size=64x48&fps=1000&quality=31{delivers}")
    answer = ask(app_of(camera, captures=Captures(tmp_path)), "/capture", "POST", json={}).json()
    assert answer["metadata"]["quality"] == quality
    kept = Image.open(io.BytesIO((tmp_path / answer["filename"]).read_bytes())).quantization  # type: ignore[attr-defined]
    own = encode_jpeg(worker.backend._draw(0), 31 if is_own else 95)  # type: ignore[attr-defined]
    assert kept == Image.open(io.BytesIO(own)).quantization  # type: ignore[attr-defined]


def test_the_list_is_made_where_it_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captures, real = Captures(tmp_path), compat._local
    captures._add(still())
    threads: list[int] = []
    monkeypatch.setattr(compat, "_local", lambda at: threads.append(threading.get_ident()) or real(at))
    answer = ask(app_of(camera_of(tmp_path), captures=captures), "/captures/list")
    (one,) = compat.LabFiles.model_validate_json(answer.content).files
    assert (one.filename, one.size) == ("capture_20261017_010203_004.jpg", len(still().data))
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["files", "count", "path"]
    assert threads
    assert threading.get_ident() not in threads


def test_a_camera_that_is_gone_takes_no_picture_and_says_why(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    camera._went_offline(SourceMissing("unplugged", "plug it in"))
    answer = ask(app_of(camera, captures=Captures(tmp_path)), "/capture", "POST", json={})
    assert (answer.status_code, answer.json()["code"], answer.json()["hint"]) == (503, "source_missing", "plug it in")
    assert list(tmp_path.glob("capture_*")) == []
