"""Renditions: made once for all who ask for the same, four at a time, at an even rate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camdock.broadcast import Broadcast
from camdock.errors import ImageUnreadable, TooManyRenditions
from camdock.frame import Frame, jpeg_size
from camdock.imaging import fitted, rendition
from camdock.rendition import AS_IT_IS, MOST, Pace, Renditions, Wanted
from tests.unit.rig import Painter, jpeg_of

SMALL = Wanted(width=32)


class Counting(Painter):
    """Counts what it makes; while `hold` is clear it makes nothing."""

    def __init__(self) -> None:
        self.made: list[Mapping[str, Any]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def run(
        self, operation: str, arguments: Mapping[str, Any], picture: bytes = b"", *, within_s: float
    ) -> bytes:
        self.made.append(arguments)
        await self.hold.wait()
        return await super().run(operation, arguments, picture, within_s=within_s)


def frame(seq: int, jpeg: bytes | None = None) -> Frame:
    captured_ns = int((100 + seq / 30) * 1e9)
    return Frame.of(jpeg or jpeg_of(64, 48), seq=seq, captured_ns=captured_ns, captured_at=1.0, size=(64, 48))


class Rig:
    def __init__(self) -> None:
        self.source, self.maker = Broadcast(), Counting()
        self.renditions = Renditions("front", self.source, self.maker)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# --- made once --------------------------------------------------------------------------------------------------------


def test_everybody_who_asks_for_the_same_shares_one_picture() -> None:
    async def look() -> None:
        rig = Rig()
        with ExitStack() as viewers:
            shared = [viewers.enter_context(rig.renditions.stream(SMALL)) for _ in range(200)]
            assert len(set(map(id, shared))) == 1
            cursors = [viewers.enter_context(one.subscribe()) for one in shared]
            for seq in (1, 2):
                rig.source.publish(frame(seq))
                await settle()
                taken = [cursor.take() for cursor in cursors]
                assert all(one is taken[0] for one in taken)
                assert taken[0] is not None
                assert taken[0].seq == seq
                assert taken[0].size == jpeg_size(taken[0].jpeg) == (32, 24)
            assert len(rig.maker.made) == rig.renditions.made == 2
            assert len(rig.renditions.subscribers) == 200
            assert rig.source.viewers == 0, "the rendition is demand, and no viewer"
            assert rig.source.alone_s is None
        await settle()
        assert rig.source.alone_s is not None, "nobody wants pictures any more"
        assert not list(rig.renditions)

    asyncio.run(look())


def test_two_rates_of_one_size_and_a_still_are_decoded_once() -> None:
    async def look() -> None:
        rig = Rig()
        with rig.renditions.stream(Wanted(32, fps=10)), rig.renditions.stream(Wanted(32, fps=15)):
            await settle()
            rig.source.publish(frame(1))
            still = await rig.renditions.still(frame(1), SMALL)
            await settle()
            assert still.size == (32, 24)
            assert len(rig.maker.made) == 1

    asyncio.run(look())


def test_a_rate_alone_decodes_nothing() -> None:
    async def look() -> None:
        rig = Rig()
        with rig.renditions.stream(Wanted(fps=10)) as slower, slower.subscribe() as cursor:
            await settle()
            taken = []
            for seq in range(1, 31):
                rig.source.publish(given := frame(seq))
                await settle()
                if (one := cursor.take()) is not None:
                    assert one is given
                    taken.append(one.seq)
            assert len(taken) == 10
            assert not rig.maker.made

    asyncio.run(look())


def test_as_it_is_costs_nothing_and_takes_no_place() -> None:
    rig = Rig()
    with rig.renditions.stream(AS_IT_IS) as broadcast:
        assert broadcast is rig.source
        assert not list(rig.renditions)


def test_a_rendition_that_falls_behind_takes_the_newest() -> None:
    async def look() -> None:
        rig = Rig()
        with rig.renditions.stream(SMALL) as small, small.subscribe() as cursor:
            await settle()
            rig.maker.hold.clear()
            for seq in range(1, 11):
                rig.source.publish(frame(seq))
                await settle()
            rig.maker.hold.set()
            await settle()
            assert small.newest is not None
            assert small.newest.seq == 10
            assert len(rig.maker.made) == 2, "the first and the newest"
            assert cursor.take() is small.newest

    asyncio.run(look())


def test_a_picture_that_cannot_be_decoded_costs_that_picture(caplog: pytest.LogCaptureFixture) -> None:
    async def look() -> None:
        rig = Rig()

        async def run(_operation: str, _arguments: Mapping[str, Any], picture: bytes, *, within_s: float) -> bytes:
            if picture == b"no picture":
                raise ImageUnreadable("it is no picture")
            return await Painter().run("rendition", _arguments, picture, within_s=within_s)

        rig.maker.run = run  # type: ignore[method-assign, assignment]
        with rig.renditions.stream(SMALL) as small:
            await settle()
            rig.source.publish(frame(1, b"no picture"))
            await settle()
            rig.source.publish(frame(2))
            await settle()
            assert small.newest is not None
            assert small.newest.seq == 2
        assert "it is no picture" in caplog.text

    asyncio.run(look())


def test_many_stills_of_many_pictures_are_made_one_at_a_time() -> None:
    async def look() -> None:
        rig = Rig()
        rig.maker.hold.clear()
        asked = []
        for seq in range(1, 101):
            rig.source.publish(one := frame(seq))
            asked.append(asyncio.create_task(rig.renditions.still(one, SMALL)))
            await settle()
        assert len(rig.maker.made) == 1
        rig.maker.hold.set()
        stills = await asyncio.gather(*asked)
        assert len(rig.maker.made) == 2, "the first, and the newest for all the others"
        assert [still.seq for still in stills] == [1] + [100] * 99

    asyncio.run(look())


def test_the_first_picture_behind_a_notice_is_not_held_back() -> None:
    async def look() -> None:
        rig = Rig()
        with rig.renditions.stream(Wanted(fps=0.05)) as slow:
            await settle()
            rig.source.publish(frame(1))
            await settle()
            rig.source.publish(replace(frame(2), notice=True))
            await settle()
            assert slow.newest is not None
            assert slow.newest.notice
            rig.source.publish(frame(3))
            await settle()
            assert not slow.newest.notice
            rig.source.publish(frame(4))
            await settle()
            assert slow.newest.seq == 3

    asyncio.run(look())


# --- four at a time ---------------------------------------------------------------------------------------------------


def test_the_fifth_is_refused_with_the_four_and_a_place_is_free_again() -> None:
    async def look() -> None:
        rig = Rig()
        with ExitStack() as viewers:
            for width in range(MOST):
                viewers.enter_context(rig.renditions.stream(Wanted(width=100 + width, fps=5)))
            viewers.enter_context(rig.renditions.stream(Wanted(width=100, fps=5)))
            with pytest.raises(TooManyRenditions) as refused, rig.renditions.stream(Wanted(quality=7)):
                pass
            assert "103xany, 5 fps" in refused.value.message
            with pytest.raises(TooManyRenditions):
                await rig.renditions.still(frame(1), Wanted(quality=7))
            assert await rig.renditions.still(frame(1), Wanted(fps=3)) == frame(1), "no pixels, no place"
        with rig.renditions.stream(Wanted(quality=7)):
            assert len(list(rig.renditions)) == 1

    asyncio.run(look())


# --- rates ------------------------------------------------------------------------------------------------------------


@given(camera_fps=st.floats(1, 120), fps=st.floats(0.1, 120), jitter=st.floats(0, 0.3))
def test_the_rate_is_kept_evenly(camera_fps: float, fps: float, jitter: float) -> None:
    pace = Pace(fps)
    seconds = 20
    count = int(camera_fps * seconds)
    let = [
        n for n in range(count) if pace.lets(int((100 + n / camera_fps + (n % 3 - 1) * jitter / 3 / camera_fps) * 1e9))
    ]
    expected = min(fps, camera_fps) * seconds
    assert len(let) <= expected * 1.05 + 2
    assert len(let) >= expected * 0.9 - 2
    if let:
        gaps = [after - before for before, after in pairwise(let)]
        assert not gaps or max(gaps) <= camera_fps / fps + 2


def test_after_a_gap_there_is_no_burst() -> None:
    pace = Pace(10)
    assert pace.lets(1_000_000_000)
    assert pace.lets(9_000_000_000)
    assert not pace.lets(9_033_000_000)


# --- pixels -----------------------------------------------------------------------------------------------------------


@given(
    size=st.tuples(st.integers(1, 8000), st.integers(1, 8000)),
    width=st.none() | st.integers(16, 8192),
    height=st.none() | st.integers(16, 8192),
)
def test_the_box_is_kept_and_nothing_grows(size: tuple[int, int], width: int | None, height: int | None) -> None:
    to = fitted(size, width, height)
    assert 1 <= to[0] <= min(size[0], width or size[0])
    assert 1 <= to[1] <= min(size[1], height or size[1])
    assert to[0] == min(size[0], width or size[0]) or to[1] == min(size[1], height or size[1])


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(None, None, (96, 64)), (48, None, (48, 32)), (None, 16, (24, 16)), (40, 40, (40, 27)), (500, 500, (96, 64))],
)
def test_a_rendition_has_its_size(width: int | None, height: int | None, expected: tuple[int, int]) -> None:
    assert jpeg_size(rendition(jpeg_of(96, 64), width, height, 80)) == expected


def test_the_quality_is_the_one_asked_for() -> None:
    jpeg = jpeg_of(96, 64)
    assert len(rendition(jpeg, None, None, 10)) < len(rendition(jpeg, None, None, 50)) < len(jpeg)


def too_large() -> bytes:
    jpeg = jpeg_of(64, 48)
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff\xd9", jpeg_of(64, 48)[:200], b"GIF89a", too_large()])
def test_what_is_no_picture_is_refused(jpeg: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        rendition(jpeg, 32, None, 80)
