"""What the camera, picamera2 and libcamera can do to a worker, ten times each: it costs pictures, never the service."""

from __future__ import annotations

import time

import pytest

from tests.device.picamera2.conftest import StartRigged
from tests.device.picamera2.rigged import Rigged
from tests.tools.service import Pulse, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TIMES = 10
DEADLINE_S = 1.0  # at 30 pictures a second
AGAIN_WITHIN_S = DEADLINE_S + 2.0
RESPONSIVE_MS = 50
SOURCE = "camera=picamera2:imx_virtual?size=640x480"

# In the middle of a stream: the code that Camera gives it. Counted is the whole gap between two pictures.
STREAMING = {
    "stall": "source_stalled",
    "cancelled": "source_stalled",
    "double": "source_stalled",
    "crash": "worker_died",
}
# While it is opened: the code, and a word of the message. Counted from the moment that the fault is over.
OPENING = {
    "busy": ("source_busy", "is held by"),
    "no_heap": ("source_denied", "/dev/dma_heap"),
}


def frames_above(container: Rigged, floor: int) -> bool:
    """Whether the camera gave pictures since it had given so many."""
    return bool(container.camera()["frames"] > floor)


def good_second(container: Rigged) -> None:
    """Wait for thirty pictures."""
    floor = container.camera()["frames"]
    until(lambda: frames_above(container, floor + 30), 10, lambda: f"a good second; {container.log[-3000:]}", 0.02)


def restarts(container: Rigged, code: str) -> int:
    """How often the worker was started anew for this reason."""
    return int(container.camera()["restarts"].get(code, 0))


def check_figures(fault: str, seconds: list[float], pulse: Pulse) -> None:
    """Say the figures of one fault, and hold them against what is asked."""
    print(
        f"{fault}: {len(seconds)} times, pictures again after {min(seconds):.2f} to {max(seconds):.2f} s; "
        f"/health/live p99 {pulse.percentile_ms(99):.1f} ms of {len(pulse.seconds)}"
    )
    assert max(seconds) < AGAIN_WITHIN_S
    assert not pulse.failures
    assert pulse.percentile_ms(99) < RESPONSIVE_MS


def check_nothing_left(container: Rigged, kinds: list[str] | None) -> None:
    """The same processes as before, and no other."""
    until(lambda: container.kinds() == kinds, 5, lambda: f"{container.kinds()}, before: {kinds}")


@pytest.mark.parametrize("fault", STREAMING)
def test_pictures_come_back_from_a_fault_in_the_middle_of_a_stream(start: StartRigged, fault: str) -> None:
    container = start(SOURCE)
    container.until_state("live")
    kinds, code, gaps = container.kinds(), STREAMING[fault], []
    file = container.faults / fault
    with Pulse(container.port) as pulse:
        for _ in range(TIMES):
            good_second(container)
            before = restarts(container, code)
            began = time.monotonic()
            file.touch()
            until(lambda floor=before: restarts(container, code) > floor, 5, f"{fault} is noticed as {code}", 0.02)
            file.unlink()
            floor = container.camera()["frames"]
            until(lambda floor=floor: frames_above(container, floor), 10, "pictures again", 0.02)
            gaps.append(time.monotonic() - began)
    check_figures(fault, gaps, pulse)
    check_nothing_left(container, kinds)
    assert set(container.camera()["restarts"]) == {code}


@pytest.mark.parametrize("fault", OPENING)
def test_pictures_come_back_when_what_kept_it_from_opening_is_over(start: StartRigged, fault: str) -> None:
    container = start(SOURCE)
    container.until_state("live")
    kinds, (code, words), seconds = container.kinds(), OPENING[fault], []
    file = container.faults / fault
    with Pulse(container.port) as pulse:
        for _ in range(TIMES):
            good_second(container)
            before = restarts(container, code)
            file.touch()
            container.kill_worker()
            until(lambda floor=before: restarts(container, code) > floor, 15, f"{fault} is noticed as {code}", 0.02)
            reason = container.camera()["reason"]
            assert words in reason["message"]
            assert reason["hint"]
            file.unlink()
            mended, floor = time.monotonic(), container.camera()["frames"]
            until(lambda floor=floor: frames_above(container, floor), 10, "pictures again", 0.02)
            seconds.append(time.monotonic() - mended)
    check_figures(fault, seconds, pulse)
    check_nothing_left(container, kinds)
    assert set(container.camera()["restarts"]) == {code, "worker_died"}


def test_a_close_that_hangs_ends_with_its_worker(start: StartRigged) -> None:
    container = start(SOURCE, CAMDOCK_LINGER_S="0.5")
    kinds, seconds = None, []
    file = container.faults / "close_hangs"
    with Pulse(container.port) as pulse:
        for _ in range(TIMES):
            with container.stream() as viewer:
                viewer.take(15)
                kinds = kinds or container.kinds()
                before = restarts(container, "source_stalled")
                file.touch()
            # Nobody looks any more: it is told to give the camera back, and never does.
            until(
                lambda floor=before: restarts(container, "source_stalled") > floor, 10,
                "a close that hangs is noticed", 0.02,
            )  # fmt: skip
            file.unlink()
            mended, floor = time.monotonic(), container.camera()["frames"]
            with container.stream():
                until(lambda floor=floor: frames_above(container, floor), 10, "pictures again", 0.02)
            seconds.append(time.monotonic() - mended)
    check_figures("close_hangs", seconds, pulse)
    check_nothing_left(container, kinds)
