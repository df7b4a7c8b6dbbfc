"""Parts: the pictures in a multipart body, whoever sent it and however it was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camdock.backends import relay
from camdock.backends.relay import Parts, PartsBroken
from camdock.frame import BOUNDARY, DELIMITER
from tests.unit.rig import frame_of, jpeg_of

PICTURES = [jpeg_of(seed=1), jpeg_of(seed=2), jpeg_of(seed=3)]


def body_of(
    pictures: list[bytes],
    delimiter: bytes = b"--cut",
    *,
    line_end: bytes = b"\r\n",
    length: bool = True,
    first: bool = True,
    last: bool = False,
    head: bytes = b"Content-Type: image/jpeg",
) -> bytes:
    """A multipart body as one of many kinds of senders writes it."""
    pieces = []
    for number, picture in enumerate(pictures):
        if number or first:
            pieces.append(delimiter + line_end)
        pieces.append(head + line_end if head else b"")
        pieces.append(b"Content-Length: %d" % len(picture) + line_end if length else b"")
        pieces += [line_end, picture, line_end]
    pieces.append(delimiter + (b"--" if last else b"") + line_end)
    return b"".join(pieces)


def cut(parts: Parts, data: bytes, step: int | None = None) -> list[bytes]:
    step = step or len(data)
    return [part for at in range(0, len(data), step) for part in parts.feed(data[at : at + step])]


# --- the kinds of senders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 1, 2, 7, 100])
@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("first", [True, False], ids=["first boundary", "no first boundary"])
def test_pictures_come_out_as_they_went_in(step: int | None, length: bool, line_end: bytes, first: bool) -> None:
    body = body_of(PICTURES, length=length, line_end=line_end, first=first)
    assert cut(Parts(b"cut"), body, step) == PICTURES


@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize(
    ("parameter", "delimiter"),
    [
        (b"cut", b"--cut"),
        (b"--cut", b"--cut"),  # the parameter has the dashes already
        (b"--cut", b"----cut"),  # and RFC 2046 puts two more before it
        (b" cut ", b"--cut"),
        (b"-cut-", b"---cut-"),
        (b"123456789000000000000987654321", b"--123456789000000000000987654321"),
    ],
)
def test_the_boundary_is_found_with_dashes_and_without(parameter: bytes, delimiter: bytes, length: bool) -> None:
    for step in (None, 1):
        assert cut(Parts(parameter), body_of(PICTURES, delimiter, length=length), step) == PICTURES


def test_our_own_stream_is_read_as_it_was_written() -> None:
    frames = [frame_of(number, picture) for number, picture in enumerate(PICTURES)]
    body = DELIMITER + frames[0].part + frames[1].part + frames[2].last_part
    for step in (None, 1, 1000):
        assert cut(Parts(BOUNDARY), body, step) == PICTURES


def test_a_part_with_a_length_is_there_before_the_next_boundary() -> None:
    parts = Parts(b"cut")
    body = body_of(PICTURES[:1])
    end = body.index(b"\xff\xd9") + 2
    assert cut(parts, body[: end - 1]) == []
    assert cut(parts, body[end - 1 : end]) == PICTURES[:1]


def test_the_name_of_the_length_has_no_case() -> None:
    body = body_of(PICTURES, length=False).replace(b"image/jpeg", b"image/jpeg\r\ncontent-LENGTH :  5 ", 1)
    assert cut(Parts(b"cut"), body)[0] == PICTURES[0][:5]


@pytest.mark.parametrize("value", [b"", b"-5", b"5.0", b"many", b"0x10"])
def test_a_length_that_is_no_number_is_no_length(value: bytes) -> None:
    body = body_of(PICTURES, length=False, head=b"Content-Type: image/jpeg\r\nContent-Length: " + value)
    assert cut(Parts(b"cut"), body) == PICTURES


def test_a_preamble_and_blank_lines_are_passed_over() -> None:
    body = b"This is a multipart stream.\r\n\r\nfor old readers\r\n" + body_of(PICTURES, length=False)
    assert cut(Parts(b"cut"), body)[-3:] == PICTURES
    spread = b"\r\n\r\n\r\n".join([b"", *(body_of([picture])[: -len(b"--cut\r\n")] for picture in PICTURES), b""])
    for step in (None, 1):
        assert cut(Parts(b"cut"), spread, step) == PICTURES


def test_empty_parts_are_no_pictures() -> None:
    assert cut(Parts(b"cut"), body_of([b"", PICTURES[0], b""])) == PICTURES[:1]
    assert cut(Parts(b"cut"), body_of([b"", PICTURES[0], b""], length=False)) == PICTURES[:1]


def test_other_headers_do_not_matter() -> None:
    head = b"X-Timestamp: 0.0\r\nContent-type:image/jpeg\r\nX-Odd\r\nX-Content-Length: 3"
    assert cut(Parts(b"cut"), body_of(PICTURES, head=head)) == PICTURES


def test_a_part_without_any_header_is_a_part() -> None:
    assert cut(Parts(b"cut"), body_of(PICTURES, length=False, head=b"")) == PICTURES


def test_a_length_that_lies_costs_its_picture_and_no_more() -> None:
    for lie in (-7, 7):
        wrong = b"Content-Length: %d" % (len(PICTURES[1]) + lie)
        body = body_of(PICTURES).replace(b"Content-Length: %d" % len(PICTURES[1]), wrong, 1)
        found = cut(Parts(b"cut"), body + body_of(PICTURES)[len(b"--cut\r\n") :])
        assert found[0] == PICTURES[0]
        assert found[-1] == PICTURES[2]


def test_the_closing_boundary_ends_the_last_part() -> None:
    assert cut(Parts(b"cut"), body_of(PICTURES, length=False, last=True)) == PICTURES


# --- junk and hostile ends --------------------------------------------------------------------------------------------


def test_a_head_that_does_not_end_is_broken() -> None:
    with pytest.raises(PartsBroken, match="head does not end"):
        cut(Parts(b"cut"), b"x" * (relay.LARGEST_HEAD + 1))
    assert cut(Parts(b"cut"), b"x" * relay.LARGEST_HEAD) == []


def test_a_part_larger_than_any_picture_is_broken_before_it_is_read() -> None:
    for length in (b"%d" % (relay.LARGEST_JPEG + 1), b"9" * 5000):
        with pytest.raises(PartsBroken, match="a part of"):
            cut(Parts(b"cut"), b"--cut\r\nContent-Length: " + length + b"\r\n\r\n")
    assert cut(Parts(b"cut"), b"--cut\r\nContent-Length: %d\r\n\r\n" % relay.LARGEST_JPEG) == []


def test_a_part_without_a_length_that_does_not_end_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "LARGEST_JPEG", 100_000)
    parts = Parts(b"cut")
    assert cut(parts, b"--cut\r\n\r\n" + b"x" * 100_000, 4096) == []
    with pytest.raises(PartsBroken, match="does not end"):
        cut(parts, b"x")


def test_thousands_of_blank_lines_are_nothing() -> None:
    parts = Parts(b"cut")
    assert cut(parts, b"\r\n" * 20_000 + b" \t\n\n" * 20_000) == []
    assert cut(parts, body_of(PICTURES)) == PICTURES


@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from([b"--cut", b"\r\n", b"\n\n", b"--", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n\r\n"]),
        max_size=30,
    ),
    st.integers(1, 50),
)
def test_junk_gives_parts_or_is_broken_and_never_anything_else(pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)
    try:
        found = cut(Parts(b"cut"), data, step)
    except PartsBroken:
        return
    assert all(found)
    assert sum(map(len, found)) <= len(data)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.data())
def test_any_bodies_with_a_length_come_out_however_they_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    stream = body_of(bodies)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)) | {0, len(stream)})
    parts = Parts(b"cut")
    found = []
    for begin, end in pairwise(cuts):
        found += parts.feed(stream[begin:end])
    assert found == bodies
