"""Camera without its process: pauses, deadlines, states, what the worker's messages change, settings."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from camdock import errors, wire
from camdock.camera import Camera, State, _Session
from camdock.errors import (
    SettingOutOfRange,
    SourceBusy,
    SourceDenied,
    SourceMissing,
    SourceStalled,
    StorageFull,
)
from camdock.frame import jpeg_size
from camdock.notices import LARGEST_NOTICE_SIDE, Notices
from camdock.settings import Settings, SettingsFile
from camdock.wire import Kind, Message
from tests.unit.rig import WorkerHere, camera_of, draw_notice, live_camera

# --- failures in a row -----------------------------------------------------------------------------------------------


def test_every_kind_of_failure_in_a_row_is_counted_until_a_picture_comes(tmp_path: Path) -> None:
    camera = camera_of(tmp_path)
    for error in (SourceStalled("x"), SourceMissing("x"), errors.DriverMissing("x"), errors.SourceDenied("x")):
        camera._backoff.next_s(error)
    worker = WorkerHere(camera)
    worker.begin()
    assert camera.status().failures == 4  # opening alone is no success
    worker.give()
    assert camera.status().failures == 0


def test_the_first_picture_of_a_worker_resets_the_pause(tmp_path: Path) -> None:
    camera = camera_of(tmp_path)
    for _ in range(3):
        camera._backoff.next_s(SourceStalled("x"))
    worker = WorkerHere(camera)
    worker.begin()
    assert camera._backoff.next_s(SourceStalled("x")) == 1.6  # opening alone is no success
    worker.give()
    assert camera._backoff.next_s(SourceStalled("x")) == 0.2


# --- deadlines --------------------------------------------------------------------------------------------------------


def worker_of(tmp_path: Path, source: str = "synthetic:?fps=1000") -> WorkerHere:
    return WorkerHere(camera_of(tmp_path, source))


def test_opening_and_the_first_picture_have_deadlines_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []
    monkeypatch.setattr(WorkerHere, "expect", lambda _self, within_s: deadlines.append(within_s))
    worker_of(tmp_path).begin(applied={})
    assert deadlines == [5.0, 3.0]


@pytest.mark.parametrize(
    ("fps", "exposure_us", "first_s", "next_s"),
    [
        (30.0, 0, 3.0, 1.0),  # never shorter than these
        (10.0, 0, 3.0, 1.0),
        (2.0, 0, 3.0, 2.5),  # five frames
        (0.5, 0, 10.0, 10.0),
        (30.0, 2_000_000, 5.0, 2.0 + 5 / 30),  # and the exposure
        (30.0, 100_000, 3.1, 1.0),
        (0.0, 0, 5.0, 5.0),  # nobody says how fast
    ],
)
def test_the_deadline_is_five_frames_and_the_exposure(
    tmp_path: Path, fps: float, exposure_us: int, first_s: float, next_s: float
) -> None:
    worker = worker_of(tmp_path)
    worker.begin(fps=fps, applied={"exposure_us": exposure_us} if exposure_us else {})
    assert worker.within_s == pytest.approx(first_s)
    worker.give()
    assert worker.within_s == pytest.approx(next_s)


def test_a_camera_slower_than_it_promised_gets_the_time_it_takes(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    worker.begin(fps=30.0)
    for second in range(1, 200):
        worker.give(captured_ns=second * 500_000_000)
    assert worker.within_s == pytest.approx(2.5, rel=0.01)
    assert worker.camera.status().fps == pytest.approx(2.0, rel=0.01)


def test_one_long_gap_does_not_stretch_the_deadline(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    worker.begin(fps=30.0)
    worker.give(captured_ns=1_000_000_000)
    worker.give(captured_ns=100_000_000_000)
    assert worker.within_s == 1.0


def test_a_clock_that_goes_backwards_is_no_rate(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    worker.begin(fps=30.0)
    worker.give(captured_ns=5_000_000_000)
    worker.give(captured_ns=1_000_000_000)
    assert worker.within_s == 1.0
    assert worker.camera.status().fps > 0


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_frame_makes_the_camera_live_and_is_published(tmp_path: Path) -> None:
    camera = camera_of(tmp_path, "synthetic:?size=64x48&fps=1000")
    assert camera.status().state is State.STARTING
    assert isinstance(camera.unavailable(), SourceStalled)
    worker = WorkerHere(camera)
    worker.begin()
    assert camera.unavailable() is not None
    worker.give()
    status = camera.status()
    assert (status.state, status.error, camera.unavailable()) == (State.LIVE, None, None)
    assert (status.size, status.frames, status.seq, status.pid) == ((64, 48), 1, 1, 4242)
    assert status.age_s is not None
    assert 0 <= status.age_s < 5
    frame = camera.broadcast.newest
    assert frame is not None
    assert jpeg_size(frame.jpeg) == (64, 48)


def test_the_number_only_grows_over_notices_and_restarts(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.give()
    camera._went_offline(SourceStalled("no picture"))
    asyncio.run(draw_notice(camera))
    notice = camera.broadcast.newest
    assert notice is not None
    assert (notice.seq, notice.notice) == (3, True)
    again = WorkerHere(camera)
    again.begin()
    again.give()
    assert camera.broadcast.newest is not None
    assert (camera.broadcast.newest.seq, camera.broadcast.newest.notice) == (4, False)
    assert camera.status().frames == 3


def test_the_time_of_a_picture_is_the_time_of_its_capture(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.give(captured_ns=time.monotonic_ns() - 10_000_000_000)
    frame = camera.broadcast.newest
    assert frame is not None
    assert frame.captured_at == pytest.approx(time.time() - 10, abs=2)
    age_s = camera.status().age_s
    assert age_s is not None
    assert 10 <= age_s < 15


def test_drops_are_the_last_report_of_this_worker(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.give(drops={"late": 2})
    worker.give(drops={"late": 3, "broken": 1})
    worker.give()
    assert camera.status().drops == {"late": 3, "broken": 1}


def test_what_a_worker_on_its_way_out_still_sends_is_ignored(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    camera._session = None
    worker.give()
    assert camera.status().frames == 1


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SourceStalled("no picture"), State.STALLED),
        (SourceMissing("unplugged"), State.OFFLINE),
        (SourceDenied("no"), State.OFFLINE),
        (errors.WorkerDied("crashed"), State.OFFLINE),
    ],
)
def test_a_camera_that_fails_says_why(tmp_path: Path, error: errors.CameraError, state: State) -> None:
    camera, _worker = live_camera(tmp_path)
    camera._went_offline(error)
    status = camera.status()
    assert (status.state, status.error, camera.unavailable()) == (state, error, error)
    assert status.restarts == {error.code: 1}
    assert (status.fps, status.age_s) == (0.0, None)


def test_the_same_failure_again_does_not_make_it_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    camera = camera_of(tmp_path)
    with caplog.at_level(logging.WARNING, "camdock"):
        camera._went_offline(SourceMissing("unplugged", "plug it in"))
        since = camera.status().since
        camera._went_offline(SourceMissing("unplugged", "plug it in"))
        camera._went_offline(SourceBusy("somebody has it"))
    assert [record.getMessage() for record in caplog.records] == [
        "front: source_missing: unplugged -- plug it in",
        "front: source_busy: somebody has it",
    ]
    assert camera.status().restarts == {"source_missing": 2, "source_busy": 1}
    assert camera.status().since > since


def test_what_the_worker_reports_becomes_the_error_without_the_password(tmp_path: Path) -> None:
    camera = camera_of(tmp_path, "relay:http://user:hunter2@h/")
    worker = WorkerHere(camera_of(tmp_path))
    worker.camera = camera
    camera._session = live_camera(tmp_path)[0]._session
    meta = {"code": "source_denied", "message": "401 for user:hunter2", "hint": "look at http://user:hunter2@h/"}
    with pytest.raises(SourceDenied) as caught:
        camera._dispatch(Message(Kind.FAILED, meta))
    assert (caught.value.message, caught.value.hint) == ("401 for ***", "look at http://***@h/")


def test_a_message_that_nobody_expects_is_logged_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera, _worker = live_camera(tmp_path)
    before = camera.status().seq
    camera._dispatch(Message(Kind.DONE))
    assert "the worker sent DONE, which nobody expects" in caplog.text
    assert camera.status().seq == before


def test_auto_keeps_the_camera_that_it_found(tmp_path: Path) -> None:
    worker = WorkerHere(camera_of(tmp_path, "synthetic:?fps=1000"))
    worker.camera = camera = camera_of(tmp_path, "auto")
    worker.begin(source="v4l2:/dev/video0")
    assert camera.status().source == "v4l2:/dev/video0"
    assert camera._resolved == "v4l2:/dev/video0"


def test_auto_does_not_settle_for_the_test_card(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = WorkerHere(camera_of(tmp_path, "synthetic:?fps=1000"))
    worker.camera = camera = camera_of(tmp_path, "auto")
    worker.begin(source="synthetic:?label=no camera")
    assert camera._resolved is None
    assert "no camera found, so this is a test card" in caplog.text


# --- the picture that says why ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, (640, 480)),
        ((0, 0), (640, 480)),  # a far end that does not say
        ((1280, 720), (1280, 720)),
        ((4056, 3040), (LARGEST_NOTICE_SIDE, 959)),
        ((16, 16), (160, 120)),
        ((100, 8000), (160, LARGEST_NOTICE_SIDE)),
    ],
)
def test_the_notice_has_the_cameras_size_within_reason(
    tmp_path: Path, size: tuple[int, int] | None, shown: tuple[int, int]
) -> None:
    camera = camera_of(tmp_path)
    camera._size = size
    camera._went_offline(SourceMissing("/dev/video0 does not exist", "plug it in"))
    asyncio.run(draw_notice(camera))
    frame = camera.broadcast.newest
    assert frame is not None
    assert frame.size == jpeg_size(frame.jpeg) == shown


def test_a_notice_that_comes_too_late_is_not_shown(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    camera._went_offline(SourceMissing("unplugged"))

    class Slow:
        async def notice(self, *_: object) -> bytes:
            worker.give()  # meanwhile it is back
            return b"an old story"

    camera._notices._painter = Slow()  # type: ignore[assignment]
    asyncio.run(draw_notice(camera))
    assert camera.broadcast.newest is not None
    assert not camera.broadcast.newest.notice


def test_a_picture_that_cannot_be_drawn_is_tried_less_and_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    class Painter:
        """Fails nine times, draws once, fails again."""

        calls = 0

        async def notice(self, *_: object) -> bytes | None:
            self.calls += 1
            return b"drawn" if self.calls == 10 else None

    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 11:
            raise Enough

    camera = camera_of(tmp_path)
    camera._went_offline(SourceMissing("unplugged"))
    notices = Notices(camera.broadcast, Painter(), camera._why, lambda *_: None)  # type: ignore[arg-type]
    monkeypatch.setattr("camdock.notices.NOTICE_EVERY_S", 0.001)
    monkeypatch.setattr("camdock.notices.LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr("camdock.notices.asyncio.sleep", sleep)
    with pytest.raises(Enough):
        asyncio.run(notices.run())
    assert pauses == [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1, 0.1, 0.002, 0.004]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_given_while_offline_are_kept_for_the_next_start(tmp_path: Path) -> None:
    camera = camera_of(tmp_path)
    assert asyncio.run(camera.apply({"exposure_us": 500})) == Settings(500, None, False)
    assert camera.status().wanted == Settings(500, None, False)
    assert camera_of(tmp_path).status().wanted == Settings(500, None, False)


def test_settings_given_while_live_are_applied_and_kept(tmp_path: Path) -> None:
    camera, _worker = live_camera(tmp_path)
    assert asyncio.run(camera.apply({"gain": 4.0})) == Settings(10_000, 4.0, False)
    assert camera.status().applied == Settings(10_000, 4.0, False)
    assert SettingsFile(tmp_path / "front.json").load() == Settings(gain=4.0)


def test_changes_that_wait_for_their_turn_lose_none_of_each_other(tmp_path: Path) -> None:
    camera, _worker = live_camera(tmp_path)

    async def both() -> None:
        async with camera._ordering:  # a still is under way
            changes = [asyncio.create_task(camera.apply(one)) for one in ({"gain": 4.0}, {"exposure_us": 500})]
            await asyncio.sleep(0)
        await asyncio.gather(*changes)

    asyncio.run(both())
    assert camera.status().applied == Settings(500, 4.0, False)
    assert camera.status().wanted == SettingsFile(tmp_path / "front.json").load() == Settings(500, 4.0, False)


def test_a_change_behind_which_the_camera_began_to_rest_is_kept_for_its_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camdock.camera.APPLY_WITHIN_S", 0.05)
    camera, worker = live_camera(tmp_path)

    async def silence(_message: bytes) -> None:
        """A worker that was told to rest hears of nothing but a start."""

    async def changing() -> Settings:
        assert camera._session is not None
        async with camera._ordering:
            change = asyncio.create_task(camera.apply({"gain": 4.0}))
            await asyncio.sleep(0)
            await camera._ask_to_rest(camera._session)
            worker.send = silence  # type: ignore[method-assign]
        return await change

    assert asyncio.run(changing()).gain == 4.0
    assert SettingsFile(tmp_path / "front.json").load().gain == 4.0


def test_an_exposure_lengthens_the_deadline(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    asyncio.run(camera.apply({"exposure_us": 2_000_000}))
    worker.give()
    assert worker.within_s == pytest.approx(2.0 + 5 / 1000, abs=0.05)


def test_a_setting_out_of_range_reaches_neither_the_driver_nor_the_file(tmp_path: Path) -> None:
    camera, _worker = live_camera(tmp_path)
    with pytest.raises(SettingOutOfRange):
        asyncio.run(camera.apply({"gain": 17.0}))
    assert camera.status().wanted == Settings()
    assert not (tmp_path / "front.json").exists()


def test_what_the_driver_refuses_is_not_kept(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)

    def refuse(_wanted: Settings) -> Settings:
        raise SettingOutOfRange("gain=4.0 is refused", "less")

    worker.backend.apply = refuse  # type: ignore[method-assign]
    with pytest.raises(SettingOutOfRange) as caught:
        asyncio.run(camera.apply({"gain": 4.0}))
    assert (caught.value.message, caught.value.hint) == ("gain=4.0 is refused", "less")
    assert camera.status().wanted == Settings()
    assert not (tmp_path / "front.json").exists()


def test_a_full_disk_is_told_though_the_setting_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    camera, _worker = live_camera(tmp_path)
    with pytest.raises(StorageFull):
        asyncio.run(camera.apply({"gain": 4.0}))
    assert camera.status().applied.gain == 4.0


def test_a_driver_that_does_not_answer_is_a_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camdock.camera.APPLY_WITHIN_S", 0.01)
    camera, worker = live_camera(tmp_path)

    async def silence(_message: bytes) -> None:
        pass

    worker.send = silence  # type: ignore[method-assign]
    with pytest.raises(SourceStalled) as caught:
        asyncio.run(camera.apply({"gain": 4.0}))
    assert "did not answer" in caught.value.message
    assert camera._orders.only(0)


def test_a_file_that_cannot_be_read_costs_the_settings_and_not_the_camera(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "front.json").write_text("{")
    assert camera_of(tmp_path).status().wanted == Settings()
    assert "cannot be read" in caplog.text


def test_the_status_shows_no_credentials(tmp_path: Path) -> None:
    camera = camera_of(tmp_path, "relay:http://user:hunter2@h/#token=hunter2")
    assert "hunter2" not in repr(camera.status())
    asyncio.run(draw_notice(camera))
    assert camera.status().source == "relay:http://***@h/#token=***"


# --- stills with settings of their own --------------------------------------------------------------------------------


class Told:
    """A worker that only hears."""

    def __init__(self) -> None:
        self.orders: list[Message] = []

    def expect(self, _within_s: float) -> None:
        pass

    async def send(self, message: bytes) -> None:
        into, out = os.pipe()
        os.write(out, message)
        unpacker = wire.Unpacker()
        unpacker.fill(into)
        self.orders += unpacker.messages()
        os.close(into)
        os.close(out)


def started_with(tmp_path: Path) -> dict[str, Any]:
    """The settings that a service which is started now begins with."""
    told = Told()
    asyncio.run(camera_of(tmp_path)._order_start(_Session(told)))  # type: ignore[arg-type]
    return dict(told.orders[0].meta["wanted"])


def test_a_service_killed_in_the_middle_of_a_still_undoes_its_settings_when_it_is_back(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    real, meanwhile = worker.still, tmp_path / "meanwhile"

    def killed(order: Message) -> None:
        shutil.copytree(tmp_path, meanwhile)  # what a SIGKILL here would leave
        real(order)

    worker.still = killed  # type: ignore[method-assign]
    asyncio.run(camera.still(Settings(exposure_us=500)))
    assert started_with(meanwhile) == {"exposure_us": 10_000, "auto_exposure": False}
    assert started_with(tmp_path) == {}, "nothing is left to undo behind the still"


def test_a_camera_that_is_open_again_has_nothing_to_undo(tmp_path: Path) -> None:
    SettingsFile(tmp_path / "front.json.undo").save(Settings(gain=3.0))
    assert started_with(tmp_path) == {"gain": 3.0}
    live_camera(tmp_path)
    assert started_with(tmp_path) == {}


def test_an_undo_that_cannot_be_kept_costs_no_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    camera, _worker = live_camera(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    assert asyncio.run(camera.still(Settings(gain=2.0))).settings.gain == 2.0
    assert "No space left" in caplog.text


def test_the_answer_to_another_still_leaves_what_undoes_this_one(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    real = worker.still
    kept: list[Settings | None] = []

    def another_first(order: Message) -> None:  # one whose caller has left
        camera._dispatch(Message(Kind.TAKEN, {"id": order.meta["id"] - 1, "pictures": 1}))
        kept.append(camera._undo.settings)
        real(order)

    worker.still = another_first  # type: ignore[method-assign]
    asyncio.run(camera.still(Settings(gain=2.0)))
    assert kept == [Settings(gain=1.0)]
    assert camera._undo.settings is None


def test_what_the_device_says_behind_a_still_is_what_is_in_force(tmp_path: Path) -> None:
    camera, _worker = live_camera(tmp_path)
    applied = {"exposure_us": 77, "gain": 2.0, "auto_exposure": False}
    camera._dispatch(Message(Kind.TAKEN, {"id": 5, "pictures": 1, "applied": applied}))
    assert camera.status().applied == Settings(77, 2.0, False)


# --- demand -----------------------------------------------------------------------------------------------------------


def rested(tmp_path: Path) -> tuple[Camera, WorkerHere]:
    camera, worker = live_camera(tmp_path)
    assert camera._session is not None
    asyncio.run(camera._ask_to_rest(camera._session))
    camera._dispatch(Message(Kind.RESTED))
    return camera, worker


def test_a_camera_at_rest_is_idle_and_keeps_no_old_picture(tmp_path: Path) -> None:
    camera, worker = rested(tmp_path)
    status = camera.status()
    assert (status.state, status.error, status.age_s, status.fps) == (State.IDLE, None, None, 0.0)
    assert camera.broadcast.newest is None
    assert camera.unavailable() is None
    assert worker.within_s == math.inf, "it owes nothing"


def test_a_picture_that_was_on_its_way_wakes_nobody(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    assert camera._session is not None
    asyncio.run(camera._ask_to_rest(camera._session))
    due = worker.within_s
    worker.give()
    camera._dispatch(Message(Kind.RESTED))
    worker.give()
    assert camera.status().frames == 1
    assert camera.status().state is State.IDLE
    assert due == 3.0, "to give the device back"


def test_what_was_dropped_before_a_rest_is_not_forgotten(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    worker.give(drops={"broken": 3})
    assert camera._session is not None
    asyncio.run(camera._ask_to_rest(camera._session))
    camera._dispatch(Message(Kind.RESTED))
    assert camera.status().drops == {"broken": 3}


def test_settings_asked_for_at_rest_are_kept_for_the_next_start(tmp_path: Path) -> None:
    camera, _ = rested(tmp_path)
    assert asyncio.run(camera.apply({"gain": 2.0})).gain == 2.0
    assert SettingsFile(tmp_path / "front.json").load().gain == 2.0


def test_another_camera_found_at_rest_is_taken(tmp_path: Path) -> None:
    camera, worker = rested(tmp_path)
    camera._dispatch(Message(Kind.HELLO))
    assert camera.status().state is State.STARTING
    assert worker.within_s == 5.0, "to open"
    worker.give()
    assert camera.status().state is State.LIVE


def test_settings_asked_for_while_it_opens_are_applied_once_it_is_live(tmp_path: Path) -> None:
    async def opening() -> None:
        camera = camera_of(tmp_path, "synthetic:?size=64x48&fps=1000")
        worker = WorkerHere(camera)
        worker.begin()
        assert camera._session is not None
        camera._session.wanted = Settings()  # what its START carried
        await camera.apply({"gain": 4.0})
        assert camera.status().applied.gain != 4.0
        worker.give()
        following = asyncio.create_task(camera._follow_demand())
        for _ in range(5):
            await asyncio.sleep(0)
        assert camera.status().applied.gain == 4.0
        following.cancel()

    asyncio.run(opening())


def test_what_the_camera_cannot_do_of_that_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    camera, _ = live_camera(tmp_path)
    with caplog.at_level(logging.WARNING, "camdock"):
        error = {"code": "setting_out_of_range", "message": "gain=99 is too much", "hint": ""}
        camera._dispatch(Message(Kind.APPLIED, {"id": 99, "error": error, "limits": {}}))
    assert "the kept settings are not used: gain=99 is too much" in caplog.text


def test_limits_are_kept_to_at_rest_too(tmp_path: Path) -> None:
    camera, _ = rested(tmp_path)
    with pytest.raises(SettingOutOfRange):
        asyncio.run(camera.apply({"exposure_us": 1_000_000_000}))
    assert not (tmp_path / "front.json").exists()


def test_a_slow_camera_has_a_picture_s_time_to_give_its_device_back(tmp_path: Path) -> None:
    camera, worker = live_camera(tmp_path)
    assert camera._session is not None
    camera._session.interval_s = 6.0
    asyncio.run(camera._ask_to_rest(camera._session))
    assert worker.within_s == pytest.approx(30.0, abs=0.1)
