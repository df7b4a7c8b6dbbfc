"""The pause before a camera's next worker."""

from __future__ import annotations

from camdock.backoff import Backoff
from camdock.errors import DriverMissing, SourceBusy, SourceDenied, SourceMissing, SourceStalled


def test_the_pause_doubles_from_a_fifth_of_a_second_and_is_five_seconds_from_the_fifth_failure_in_a_row_on() -> None:
    backoff = Backoff()
    pauses = [backoff.next_s(SourceStalled("x")) for _ in range(7)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 5.0, 5.0, 5.0]


def test_a_frame_resets_the_pause() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.next_s(SourceStalled("x"))
    backoff.reset()
    assert backoff.next_s(SourceBusy("x")) == 0.2


def test_a_missing_device_is_looked_for_every_second_and_does_not_lengthen_the_pause() -> None:
    backoff = Backoff()
    assert [backoff.next_s(SourceMissing("x")) for _ in range(5)] == [1.0] * 5
    assert backoff.next_s(SourceStalled("x")) == 0.2


def test_what_only_a_person_can_help_with_is_tried_every_half_minute() -> None:
    backoff = Backoff()
    assert [backoff.next_s(DriverMissing("x")) for _ in range(3)] == [30.0] * 3
    assert backoff.next_s(SourceStalled("x")) == 0.2


def test_a_node_that_udev_has_not_given_its_group_yet_is_asked_again_soon() -> None:
    backoff = Backoff()
    denied = SourceDenied("x")
    assert [backoff.next_s(denied) for _ in range(5)] == [1.0, 1.0, 1.0, 30.0, 30.0]
    backoff.next_s(SourceMissing("x"))  # unplugged; the next one is a new node
    assert [backoff.next_s(denied) for _ in range(4)] == [1.0, 1.0, 1.0, 30.0]
    backoff.reset()
    assert backoff.next_s(denied) == 1.0
    assert backoff.next_s(SourceStalled("x")) == 0.2
