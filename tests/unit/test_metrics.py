"""The text that Prometheus scrapes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

import camdock
from camdock import metrics
from camdock.camera import State
from camdock.errors import SourceMissing, SourceStalled
from camdock.metrics import Owners, Storage, usage_of
from camdock.sender import Sender
from tests.unit.rig import app_of, ask, camera_of, live_camera, no_gate

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(*cameras: object) -> tuple[Samples, str]:
    answer = ask(app_of(*cameras), "/metrics")  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith(("camdock", "process_"))
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
        assert states == {state.value: float(state.value == name) for state in State}
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
    families = {family.name: family for family in Owners({}, sender, no_gate(), "1").collect()}
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


# --- processes --------------------------------------------------------------------------------------------------------


def test_the_usage_of_a_process_is_what_the_kernel_says() -> None:
    burn = "import time; filled = b'x' * (50 << 20); [None for _ in iter(lambda: time.process_time() < 0.3, False)]"
    with subprocess.Popen(
        [sys.executable, "-c", burn + "; print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = usage_of(process.pid)
        seen = psutil.Process(process.pid)
        times, resident = seen.cpu_times(), seen.memory_info().rss
        process.communicate(b"\n")
    assert usage is not None
    assert usage[0] == pytest.approx(times.user + times.system, abs=0.1)
    assert usage[0] >= 0.25
    assert usage[1] == pytest.approx(resident, rel=0.1)
    assert usage[1] > 50 << 20


def test_a_name_with_brackets_and_spaces_does_not_shift_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Path("/proc/self/stat").read_bytes()
    name = line[line.index(b"(") : line.rindex(b")") + 1]
    monkeypatch.setattr(Path, "read_bytes", lambda _path: line.replace(name, b"(a) b) 7 (\xff)"))
    usage = usage_of(os.getpid())
    assert usage is not None
    assert usage[1] > 10 << 20


def test_a_process_that_is_gone_has_no_figures(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert usage_of(process.pid) is None
    camera, worker = live_camera(tmp_path)
    worker.pid = process.pid
    samples, _ = scraped(camera)
    assert at(samples, "camdock_frames_total", camera="front") == 1
    assert at(samples, "camdock_worker_cpu_seconds_total", camera="front") is None
    assert at(samples, "camdock_worker_resident_memory_bytes", camera="front") is None


def test_the_workers_process_and_our_own_are_told(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.pid = os.getpid()
    samples, _ = scraped(camera, camera_of(tmp_path, name="starting"))
    ours = at(samples, "process_resident_memory_bytes")
    assert ours == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert at(samples, "camdock_worker_resident_memory_bytes", camera="front") == pytest.approx(ours, rel=0.2)
    assert (at(samples, "camdock_worker_cpu_seconds_total", camera="front") or 0) > 0
    assert (at(samples, "process_cpu_seconds_total") or 0) > 0
    assert at(samples, "camdock_worker_cpu_seconds_total", camera="starting") is None


# --- room on disk -----------------------------------------------------------------------------------------------------


def app_keeping(folder: Path) -> FastAPI:
    app = FastAPI()
    app.include_router(metrics.router({}, Sender(send_timeout_s=1), no_gate(), "1", folder))
    return app


def figure(text: str, name: str) -> float | None:
    """The value of a metric without labels; None when it is not told."""
    found = [line.split(" ")[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(found[0]) if found else None


def test_the_room_left_for_the_state_folder_is_told_before_it_is_made(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    for folder in (tmp_path, tmp_path / "not" / "yet" / "made"):
        text = ask(app_keeping(folder), "/metrics").text
        free, size = figure(text, "camdock_storage_free_bytes"), figure(text, "camdock_storage_size_bytes")
        assert free == pytest.approx(space.f_bavail * space.f_frsize, abs=1 << 30)
        assert size == space.f_blocks * space.f_frsize
        assert free is not None
        assert size is not None
        assert 0 < free <= size


def test_a_folder_that_cannot_be_asked_leaves_only_its_own_figures_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = ask(app_keeping(tmp_path / "file" / "state"), "/metrics")
    assert answer.status_code == 200
    assert figure(answer.text, "camdock_stuck_viewers_total") == 0
    assert "camdock_storage" not in answer.text
    samples, _ = scraped(camera_of(tmp_path))  # a router without a folder
    assert at(samples, "camdock_storage_free_bytes") is None


def test_a_file_system_that_hangs_holds_up_neither_a_scrape_nor_more_than_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), []

    def hanging(folder: Path) -> os.statvfs_result:
        asked.append(folder)
        answers.wait(20)
        return statvfs(folder)

    async def run() -> None:
        storage = Storage(tmp_path)
        assert [await storage.ask(), await storage.ask()] == [None, None]
        assert await asyncio.gather(storage.ask(), storage.ask()) == [None, None]
        assert len(asked) == 1
        answers.set()
        monkeypatch.setattr(metrics, "ASK_WITHIN_S", 10)
        told = await storage.ask()
        assert told is not None
        assert told.f_blocks == statvfs(tmp_path).f_blocks

    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", hanging)
    monkeypatch.setattr(metrics, "ASK_WITHIN_S", 0.05)
    try:
        asyncio.run(run())
    finally:
        answers.set()
