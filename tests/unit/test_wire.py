"""Messages over a real pipe, however the kernel cuts them, and what is no message."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camdock import wire
from camdock.wire import LARGEST_BLOB, LARGEST_META, PIPE_BYTES, Kind, Message, Unpacker, WireBroken, head, pack

HEADER_BYTES = 16


class Pipe:
    """A pipe with an Unpacker at its end."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        os.set_blocking(self.out, False)
        os.set_blocking(self.into, False)
        self.unpacker = Unpacker()

    def push(self, data: bytes) -> list[Message]:
        """Everything that is whole once `data` has gone through, blobs copied: the next read takes them away."""
        found = []
        for at in range(0, len(data), 1 << 16):  # no more fits the pipe
            assert os.write(self.into, data[at : at + (1 << 16)]) == len(data[at : at + (1 << 16)])
            with suppress(BlockingIOError):
                while self.unpacker.fill(self.out):
                    found += [Message(one.kind, one.meta, bytes(one.blob)) for one in self.unpacker.messages()]
        return found

    def close(self) -> None:
        for descriptor in {self.out, self.into}:
            os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


FRAME = Message(Kind.FRAME, {"captured_ns": 1 << 62, "size": [640, 480], "drops": {"späť": 3}}, bytes(range(256)))


def packed(message: Message) -> bytes:
    return pack(message.kind, message.meta, bytes(message.blob))


# --- whole messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_goes_through(pipe: Pipe, kind: Kind) -> None:
    assert pipe.push(pack(kind, {"a": [1, None, "ü"]}, b"blob")) == [Message(kind, {"a": [1, None, "ü"]}, b"blob")]
    assert pipe.unpacker.pending == 0


def test_a_message_may_have_neither_meta_nor_blob(pipe: Pipe) -> None:
    assert pipe.push(pack(Kind.HELLO, {})) == [Message(Kind.HELLO, {}, b"")]


def test_the_head_alone_announces_a_blob_that_is_written_by_itself(pipe: Pipe) -> None:
    assert pipe.push(head(Kind.FRAME, {"n": 1}, 4)) == []
    assert pipe.push(b"jpeg") == [Message(Kind.FRAME, {"n": 1}, b"jpeg")]


def test_a_message_cut_at_any_place_arrives_once_and_whole() -> None:
    data = packed(FRAME)
    for cut in range(1, len(data)):
        pipe = Pipe()
        assert pipe.push(data[:cut]) == [], cut
        assert pipe.unpacker.pending == cut
        assert pipe.push(data[cut:]) == [FRAME], cut
        assert pipe.unpacker.pending == 0
        pipe.close()


def test_a_message_that_comes_byte_by_byte_arrives(pipe: Pipe) -> None:
    data = packed(FRAME)
    found = [message for at in range(len(data)) for message in pipe.push(data[at : at + 1])]
    assert found == [FRAME]


def test_several_messages_in_one_read_keep_their_order(pipe: Pipe) -> None:
    sent = [Message(Kind.FRAME, {"n": number}, b"x" * number) for number in range(50)]
    assert pipe.push(b"".join(packed(one) for one in sent)) == sent


def test_one_and_a_half_messages_are_one_and_then_the_other(pipe: Pipe) -> None:
    data = packed(FRAME)
    assert pipe.push(data + data[:40]) == [FRAME]
    assert pipe.unpacker.pending == 40
    assert pipe.push(data[40:] + data) == [FRAME, FRAME]


def test_messages_that_together_outgrow_the_buffer_many_times_all_arrive(pipe: Pipe) -> None:
    # 37 does not divide the buffer, so its end falls into headers, metas and blobs alike.
    sent = [Message(Kind.FRAME, {"n": number}, os.urandom(37_003)) for number in range(4 * PIPE_BYTES // 37_003)]
    assert pipe.push(b"".join(packed(one) for one in sent)) == sent


def test_a_message_larger_than_the_buffer_arrives_and_small_ones_after_it(pipe: Pipe) -> None:
    large = Message(Kind.FRAME, {}, os.urandom(3 * PIPE_BYTES + 12_345))
    assert pipe.push(packed(FRAME) + packed(large) + packed(FRAME)) == [FRAME, large, FRAME]
    assert pipe.push(packed(FRAME) * 3) == [FRAME] * 3


def test_a_very_large_message_is_made_room_for_once_and_the_room_is_given_back(pipe: Pipe) -> None:
    large = packed(Message(Kind.TAKEN, {}, bytes(wire.LARGEST_KEPT + 12_345)))
    rooms = []
    for at in range(0, len(large), PIPE_BYTES):
        pipe.push(large[at : at + PIPE_BYTES])
        rooms.append(len(pipe.unpacker._buffer))
    assert set(rooms) == {PIPE_BYTES, len(large)}
    assert pipe.push(packed(FRAME)) == [FRAME]
    assert len(pipe.unpacker._buffer) == PIPE_BYTES


@given(
    sent=st.lists(
        st.builds(
            Message,
            st.sampled_from(Kind),
            st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=20), max_size=4),
            st.binary(max_size=3000),
        ),
        max_size=8,
    ),
    data=st.data(),
)
def test_any_messages_cut_in_any_way_arrive_as_they_were(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(packed(one) for one in sent)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)) | {0, len(stream)})
    pipe = Pipe()
    found = []
    for begin, end in pairwise(cuts):
        found += pipe.push(stream[begin:end])
    pipe.close()
    assert found == sent


# --- ends -------------------------------------------------------------------------------------------------------------


def test_the_end_of_the_pipe_is_told_from_an_empty_one(pipe: Pipe) -> None:
    with pytest.raises(BlockingIOError):
        pipe.unpacker.fill(pipe.out)
    os.close(pipe.into)
    pipe.into = pipe.out
    assert pipe.unpacker.fill(pipe.out) is False


def test_half_a_message_before_the_end_is_left_pending_and_not_delivered(pipe: Pipe) -> None:
    data = packed(FRAME)
    assert pipe.push(data[: len(data) // 2]) == []
    os.close(pipe.into)
    pipe.into = pipe.out
    assert pipe.unpacker.fill(pipe.out) is False
    assert list(pipe.unpacker.messages()) == []
    assert pipe.unpacker.pending == len(data) // 2


# --- what is no message -----------------------------------------------------------------------------------------------


def header(magic: bytes = b"CDw%d" % wire.VERSION, kind: int = 4, meta: int = 2, blob: int = 0) -> bytes:
    return magic + b"".join(number.to_bytes(4, "little") for number in (kind, meta, blob))


def test_the_header_is_what_the_table_at_the_top_says() -> None:
    assert pack(Kind.FRAME, {}, b"abc") == header(kind=4, meta=2, blob=3) + b"{}abc"


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (b"driver says hello\n", "a message starts with b'driver says hell'"),
        (header(magic=b"CDw%d" % (wire.VERSION + 1)) + b"{}", "a message starts with"),
        (b"\0" * 64, "a message starts with"),
        (header(kind=0) + b"{}", "kind 0"),
        (header(kind=max(Kind) + 1) + b"{}", f"kind {max(Kind) + 1}"),
        (header(meta=LARGEST_META + 1), f"{LARGEST_META + 1} + 0 bytes"),
        (header(blob=LARGEST_BLOB + 1), f"2 + {LARGEST_BLOB + 1} bytes"),
        (header(meta=2) + b"{]", "meta that is no JSON"),
        (header(meta=0), "meta that is no JSON"),
        (header(meta=2) + b"\xff\xff", "meta that is no JSON"),
        (header(meta=2) + b"[]", "meta that is no JSON object"),
        (header(meta=4) + b"null", "meta that is no JSON object"),
        (header(meta=60_000) + b"[" * 60_000, "meta that is no JSON"),
    ],
)
def test_what_is_no_message_breaks_the_wire_and_says_how(pipe: Pipe, garbage: bytes, says: str) -> None:
    os.write(pipe.into, garbage)
    pipe.unpacker.fill(pipe.out)
    with pytest.raises(WireBroken) as caught:
        list(pipe.unpacker.messages())
    assert says in str(caught.value)


def test_the_largest_meta_is_still_a_message(pipe: Pipe) -> None:
    meta = {"a": "x" * (LARGEST_META - len(json.dumps({"a": ""}, separators=(",", ":"))))}
    assert pipe.push(pack(Kind.FAILED, meta)) == [Message(Kind.FAILED, meta, b"")]


def test_what_came_before_the_garbage_is_delivered(pipe: Pipe) -> None:
    os.write(pipe.into, packed(FRAME) + b"driver says hello")
    pipe.unpacker.fill(pipe.out)
    messages = pipe.unpacker.messages()
    assert next(messages).kind is Kind.FRAME
    with pytest.raises(WireBroken):
        next(messages)


def test_too_little_for_a_header_is_not_judged_yet(pipe: Pipe) -> None:
    assert pipe.push(b"x" * (HEADER_BYTES - 1)) == []
    with pytest.raises(WireBroken):
        pipe.push(b"x")


@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_arbitrary_bytes_break_the_wire_or_wait_and_nothing_else(data: bytes, dressed: bool) -> None:
    if dressed:
        data = header(meta=len(data)) + data
    pipe = Pipe()
    try:
        assert all(message.kind in Kind for message in pipe.push(data))
    except WireBroken:
        pass
    finally:
        pipe.close()
