"""The text that Prometheus scrapes."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import camdock
from camdock.errors import SourceMissing, SourceStalled
from camdock.metrics import Owners
from camdock.sender import Sender
from tests.unit.rig import app_of, ask, camera_of, live_camera

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(*cameras: object) -> tuple[Samples, str]:
    answer = ask(app_of(*cameras), "/metrics")  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith("camdock")
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples, answer.text


def at(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_the_figures_are_the_owners(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.give(drops={"late": 3, "broken": 1})
    with camera.broadcast.subscribe():
        samples, _ = scraped(camera)
    assert at(samples, "camdock_info", version=camdock.__version__) == 1
    assert at(samples, "camdock_frames_total", camera="front") == 2
    assert at(samples, "camdock_dropped_frames_total", camera="front", reason="late") == 3
    assert at(samples, "camdock_dropped_frames_total", camera="front", reason="broken") == 1
    assert at(samples, "camdock_viewers", camera="front") == 1
    assert 0 <= (at(samples, "camdock_frame_age_seconds", camera="front") or 0) < 5
    assert (at(samples, "camdock_frames_per_second", camera="front") or 0) > 0
    assert at(samples, "camdock_stuck_viewers_total") == 0


def test_exactly_one_state_is_true_and_no_age_is_told_without_a_picture(tmp_path: Path) -> None:
    live, _ = live_camera(tmp_path, name="live")
    stalled, _ = live_camera(tmp_path, name="stalled")
    stalled._went_offline(SourceStalled("x"))
    offline, _ = live_camera(tmp_path, name="offline")
    offline._went_offline(SourceMissing("x"))
    starting = camera_of(tmp_path, name="starting")
    samples, _ = scraped(live, stalled, offline, starting)
    for name in ("live", "stalled", "offline", "starting"):
        states = {dict(labels)["state"]: value for (metric, labels), value in samples.items()
                  if metric == "camdock_camera_state" and dict(labels)["camera"] == name}  # fmt: skip
        assert states == {state: float(state == name) for state in ("starting", "live", "stalled", "offline")}
        assert (at(samples, "camdock_frame_age_seconds", camera=name) is not None) is (name == "live")


def test_restarts_are_counted_by_the_code_of_their_error(tmp_path: Path) -> None:
    camera, _ = live_camera(tmp_path)
    for error in (SourceStalled("a"), SourceStalled("b"), SourceMissing("c")):
        camera._went_offline(error)
    samples, _ = scraped(camera)
    assert at(samples, "camdock_worker_restarts_total", camera="front", reason="source_stalled") == 2
    assert at(samples, "camdock_worker_restarts_total", camera="front", reason="source_missing") == 1


def test_stuck_viewers_are_the_senders_count(tmp_path: Path) -> None:
    sender = Sender(send_timeout_s=1)
    sender.dropped_stuck = 7
    families = {family.name: family for family in Owners({}, sender, "1").collect()}
    assert [sample.value for sample in families["camdock_stuck_viewers"].samples] == [7]


def test_nothing_is_kept_between_two_scrapes(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    app = app_of(camera)
    before = ask(app, "/metrics").text
    worker.give()
    after = ask(app, "/metrics").text
    assert 'camdock_frames_total{camera="front"} 1.0' in before
    assert 'camdock_frames_total{camera="front"} 2.0' in after


def test_no_credential_and_no_device_stands_in_the_figures(tmp_path: Path) -> None:
    _, text = scraped(camera_of(tmp_path, "relay:http://user:hunter2@h/"))
    assert "hunter2" not in text
    assert "relay:" not in text
