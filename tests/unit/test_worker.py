"""Stills in the worker: their own settings, what was on its way, what comes back when the device refuses or fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from camdock import wire
from camdock.backends import SourceChanged
from camdock.backends.relay import Relay
from camdock.backends.synthetic import Synthetic
from camdock.errors import SettingOutOfRange, SourceFailed, SourceMissing
from camdock.frame import Picture
from camdock.parent import Orders
from camdock.settings import Limits, Settings
from camdock.source import Source
from camdock.wire import Kind, Message
from camdock.worker import Worker
from tests.unit.rig import jpeg_of


class Recording(Synthetic):
    """The synthetic camera, which remembers what was set and can be told to misbehave."""

    usual_settle_frames = 3

    def __init__(self, options: str = "") -> None:
        super().__init__(Source.parse(f"synthetic:?size=64x48&fps=1000{options}"))
        self.was_set: list[dict[str, Any]] = []
        self.reads = 0
        self.raises: Exception | None = None
        self.refuses: Exception | None = None
        self.old = 0
        self.open()

    def limits(self) -> Limits:
        return super().limits()

    def apply(self, wanted: Settings) -> Settings:
        self.was_set.append(wanted.given())
        applied = super().apply(wanted)
        if self.refuses is not None and wanted.gain == 9.0:
            raise self.refuses  # behind having done half of it
        return applied

    def still(self, wait_s: float) -> Picture | None:
        self.reads += 1
        if self.raises is not None:
            raise self.raises
        picture = super().still(wait_s)
        if picture is not None and self.reads <= self.old:
            return Picture(picture.size, time.monotonic_ns() - 10**9, jpeg=picture.jpeg)
        return picture


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def taken(pipe: tuple[int, int], backend: Recording, worker: Worker | None = None, **overrides: Any) -> dict[str, Any]:
    """What one STILL is answered with, its blob beside it."""
    worker = worker or started(pipe, backend)
    meta = {"id": 5, "overrides": overrides, "format": "JPG", "quality": 95}
    worker.on_still(backend, Message(Kind.STILL, meta))
    return answer_in(pipe)


def answer_in(pipe: tuple[int, int]) -> dict[str, Any]:
    unpacker = wire.Unpacker()
    unpacker.fill(pipe[0])
    (message,) = unpacker.messages()
    assert message.kind is Kind.TAKEN
    assert message.meta["id"] == 5
    return {**message.meta, "blob": bytes(message.blob)}


def started(pipe: tuple[int, int], backend: Recording) -> Worker:
    """A worker as it is once pictures come, its settings settled."""
    worker = Worker(pipe[1], Orders(-1))
    worker._apply(backend, Settings())
    worker.unsettled = 0
    backend.was_set.clear()
    return worker


def test_a_still_without_settings_of_its_own_touches_none(pipe: tuple[int, int]) -> None:
    backend = Recording()
    answer = taken(pipe, backend)
    assert backend.was_set == []
    assert (answer["pictures"], answer["size"], answer["format"]) == (1, [64, 48], "JPG")
    assert answer["settings"] == {"exposure_us": 10_000, "gain": 1.0, "auto_exposure": False}
    assert answer["blob"].startswith(b"\xff\xd8")


def test_its_own_settings_are_set_waited_for_told_and_taken_back(pipe: tuple[int, int]) -> None:
    backend = Recording()
    answer = taken(pipe, backend, exposure_us=500, gain=2.0)
    assert backend.reads == answer["pictures"] == 4, "three that were on their way, and its own"
    assert answer["settings"] == {"exposure_us": 500, "gain": 2.0, "auto_exposure": False}
    assert backend.settings == Settings(10_000, 1.0, False)
    assert answer["applied"] == {"exposure_us": 10_000, "gain": 1.0, "auto_exposure": False}, (
        "what the device says then"
    )
    assert len(backend.was_set) == 2


def test_the_next_one_waits_for_the_settings_that_came_back(pipe: tuple[int, int]) -> None:
    backend = Recording()
    worker = started(pipe, backend)
    taken(pipe, backend, worker, gain=2.0)
    assert taken(pipe, backend, worker)["pictures"] == 4
    assert taken(pipe, backend, worker)["pictures"] == 1


def test_a_picture_from_before_the_order_is_not_it(pipe: tuple[int, int]) -> None:
    backend = Recording()
    backend.old = 2
    assert taken(pipe, backend)["pictures"] == 3


def test_pictures_that_waited_unstamped_are_not_it(pipe: tuple[int, int]) -> None:
    backend = Recording()
    backend.has_stamps = False  # their time is that of the read: those in the driver's queue look new
    worker = started(pipe, backend)
    assert [taken(pipe, backend, worker)["pictures"] for _ in range(2)] == [4, 4]


def test_a_relay_s_still_is_none_that_came_before(pipe: tuple[int, int]) -> None:
    relay = Relay(Source.parse("relay:http://camera.local/stream"))
    old, *new = (jpeg_of(seed=number) for number in range(3))
    relay.waiting, relay.size, relay.next_at, relay.drops = [(old, (64, 48), False)], (64, 48), 0.0, relay.drops
    coming = iter(new)
    relay._read_some = lambda: relay.waiting.append((next(coming), (64, 48), False))  # type: ignore[method-assign]
    worker = Worker(pipe[1], Orders(-1))
    worker.on_still(relay, Message(Kind.STILL, {"id": 5, "overrides": {}, "format": "JPG", "quality": 95}))
    assert answer_in(pipe)["blob"] == new[1], "the first may have been on its way"


def test_what_a_far_camdock_says_in_the_place_of_a_picture_is_no_still(pipe: tuple[int, int]) -> None:
    relay = Relay(Source.parse("relay:http://camera.local/stream"))
    relay.waiting, relay.size, relay.next_at, relay.host = [], (64, 48), 0.0, "camera.local"
    relay._read_some = lambda: relay.waiting.append((jpeg_of(), (64, 48), True))  # type: ignore[method-assign]
    worker = Worker(pipe[1], Orders(-1))
    with pytest.raises(SourceMissing, match="has no picture itself"):
        worker.on_still(relay, Message(Kind.STILL, {"id": 5, "overrides": {}, "format": "JPG", "quality": 95}))


def test_what_the_device_refuses_is_the_answer_and_half_of_it_is_undone(pipe: tuple[int, int]) -> None:
    backend = Recording()
    backend.refuses = SettingOutOfRange("gain=9.0 is refused", "less")
    answer = taken(pipe, backend, gain=9.0, exposure_us=77)
    assert answer["error"] == {"code": "setting_out_of_range", "message": "gain=9.0 is refused", "hint": "less"}
    assert answer["blob"] == b""
    assert backend.settings == Settings(10_000, 1.0, False)


def test_a_failure_in_the_middle_is_raised_and_what_was_in_force_is_back(pipe: tuple[int, int]) -> None:
    backend = Recording()
    backend.raises = SourceFailed("the cable")
    with pytest.raises(SourceFailed):
        taken(pipe, backend, gain=2.0)
    assert backend.settings == Settings(10_000, 1.0, False)


def test_a_camera_that_appears_meanwhile_is_told_as_a_failure_of_the_still(pipe: tuple[int, int]) -> None:
    backend = Recording()
    backend.raises = SourceChanged()
    with pytest.raises(SourceChanged):
        taken(pipe, backend, gain=2.0)
    assert answer_in(pipe)["error"]["code"] == "source_failed"
    assert backend.settings == Settings(10_000, 1.0, False)


def test_a_camera_that_chose_by_itself_goes_on_doing_so(pipe: tuple[int, int]) -> None:
    backend = Recording()
    worker = started(pipe, backend)
    worker._apply(backend, Settings(auto_exposure=True))
    answer = taken(pipe, backend, worker, exposure_us=500)
    assert answer["settings"]["auto_exposure"] is False
    assert backend.settings.auto_exposure is True


def test_the_settings_to_keep_are_kept_beside_those_of_a_still(pipe: tuple[int, int]) -> None:
    backend = Recording()
    worker = started(pipe, backend)
    worker.wanted = Settings(gain=3.0)
    worker._apply(backend, worker.wanted)
    taken(pipe, backend, worker, exposure_us=500)
    assert worker.wanted == worker.asked == Settings(gain=3.0)
    assert (backend.settings.exposure_us, backend.settings.gain) == (10_000, 3.0)


def test_nobody_is_answered_once_the_orders_have_ended(pipe: tuple[int, int]) -> None:
    backend = Recording()
    worker = started(pipe, backend)
    worker.orders.ended.set()
    worker.on_still(backend, Message(Kind.STILL, {"id": 5, "overrides": {"gain": 2.0}, "format": "JPG", "quality": 95}))
    assert backend.settings == Settings(10_000, 1.0, False)
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)
