"""JPEG's outer form, and the bytes that every viewer gets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from email.parser import BytesParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camdock.frame import BOUNDARY, DELIMITER, SMALLEST_JPEG, STANDARD_HUFFMAN, Frame, jpeg_size, whole_jpeg
from tests.unit.rig import frame_of, jpeg_of


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, whole segment) up to the scan, whose segment takes everything that is left."""
    at = 2
    while True:
        marker = jpeg[at + 1]
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA:
            yield marker, jpeg[at:]
            return
        yield marker, jpeg[at : at + 2 + length]
        at += 2 + length


def pillow_jpeg(mode: str = "RGB", size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    """A baseline JPEG with the standard's tables."""
    noise = np.random.default_rng(7).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, "JPEG", quality=80, **options)
    return out.getvalue()


def without_tables(jpeg: bytes) -> bytes:
    """The JPEG as a UVC camera sends it."""
    return b"\xff\xd8" + b"".join(segment for marker, segment in segments(jpeg) if marker != 0xC4)


def pixels(jpeg: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return np.asarray(image)


# --- whole_jpeg -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_the_tables_put_in_give_the_identical_picture(mode: str, subsampling: int) -> None:
    jpeg = pillow_jpeg(mode, subsampling=subsampling)
    bare = without_tables(jpeg)
    assert b"\xff\xc4" not in bare[: bare.index(b"\xff\xda")]
    whole = whole_jpeg(bare)
    assert whole is not None
    assert np.array_equal(pixels(whole), pixels(jpeg))


def test_the_standard_tables_are_those_of_another_encoder() -> None:
    theirs = b"".join(segment[4:] for marker, segment in segments(pillow_jpeg()) if marker == 0xC4)
    assert sorted(theirs) == sorted(STANDARD_HUFFMAN[4:])
    assert len(theirs) == len(STANDARD_HUFFMAN) - 4
    assert int.from_bytes(STANDARD_HUFFMAN[2:4], "big") == len(STANDARD_HUFFMAN) - 2


def test_a_jpeg_that_lacks_nothing_is_not_copied() -> None:
    jpeg = pillow_jpeg()
    assert whole_jpeg(jpeg) is jpeg


@pytest.mark.parametrize("count", [1, 15, 4095])
def test_padding_behind_the_end_is_cut_off(count: int) -> None:
    jpeg = pillow_jpeg()
    assert whole_jpeg(jpeg + b"\0" * count) == jpeg
    bare = without_tables(jpeg)
    assert whole_jpeg(bare + b"\0" * count) == whole_jpeg(bare)


def test_a_frame_cut_anywhere_is_no_picture() -> None:
    jpeg = pillow_jpeg()
    for length in range(len(jpeg)):
        assert whole_jpeg(jpeg[:length]) is None, length
        assert whole_jpeg(jpeg[:length] + b"\0" * (len(jpeg) - length)) is None, length


def test_a_frame_that_lost_its_beginning_is_no_picture() -> None:
    jpeg = pillow_jpeg()
    for lost in range(1, 200):
        assert whole_jpeg(jpeg[lost:]) is None, lost


def test_two_frames_mixed_up_behind_the_start_are_no_picture() -> None:
    jpeg = pillow_jpeg()
    assert whole_jpeg(jpeg[:2] + jpeg[300:]) is None


def test_fill_bytes_before_a_marker_are_allowed() -> None:
    jpeg = pillow_jpeg()
    filled = jpeg[:2] + b"\xff\xff\xff" + jpeg[2:]
    assert whole_jpeg(filled) is filled
    bare = without_tables(jpeg)
    whole = whole_jpeg(bare[:2] + b"\xff\xff" + bare[2:])
    assert whole is not None
    assert np.array_equal(pixels(whole), pixels(jpeg))


@pytest.mark.parametrize("marker", [0x00, 0x01, 0xBF, 0xD0, 0xD7, 0xD8, 0xD9])
def test_a_marker_that_cannot_stand_before_the_scan_is_no_picture(marker: int) -> None:
    jpeg = pillow_jpeg()
    assert whole_jpeg(jpeg[:2] + bytes((0xFF, marker, 0, 4, 0, 0)) + jpeg[2:]) is None


def test_a_segment_that_does_not_begin_with_a_marker_is_no_picture() -> None:
    jpeg = pillow_jpeg()
    assert jpeg[2] == 0xFF
    assert whole_jpeg(jpeg[:2] + b"\0" + jpeg[3:]) is None


def test_a_segment_whose_length_cannot_be_is_no_picture() -> None:
    jpeg = pillow_jpeg()
    for length in (b"\0\0", b"\0\1", b"\xff\xff"):
        assert whole_jpeg(jpeg[:4] + length + jpeg[6:]) is None


def test_comments_and_application_data_stay() -> None:
    jpeg = pillow_jpeg()
    commented = jpeg[:2] + b"\xff\xfe\0\6\xff\xc4\xff\xda" + jpeg[2:]
    assert whole_jpeg(commented) is commented
    bare = without_tables(jpeg)
    whole = whole_jpeg(bare[:2] + b"\xff\xfe\0\6\xff\xc4\xff\xda" + bare[2:])
    assert whole is not None
    assert whole.startswith(b"\xff\xd8\xff\xfe\0\6\xff\xc4\xff\xda")
    assert np.array_equal(pixels(whole), pixels(jpeg))


def test_what_is_smaller_than_any_jpeg_is_none() -> None:
    tiny = b"\xff\xd8\xff\xc4\0\2\xff\xda\0\2\xff\xd9"
    assert len(tiny) < SMALLEST_JPEG
    assert whole_jpeg(tiny) is None


@given(st.binary(max_size=400), st.booleans())
def test_arbitrary_bytes_are_a_jpeg_or_none_and_never_an_error(data: bytes, dressed: bool) -> None:
    data = b"\xff\xd8\xff" + data + b"\xff\xd9" if dressed else data
    whole = whole_jpeg(data)
    assert whole is None or (whole.startswith(b"\xff\xd8") and whole.endswith(b"\xff\xd9"))
    assert jpeg_size(data) is None or min(jpeg_size(data) or ()) >= 0


@given(st.data())
def test_a_jpeg_with_flipped_bytes_never_raises(data: st.DataObject) -> None:
    jpeg = bytearray(without_tables(pillow_jpeg(size=(16, 16))))
    for _ in range(data.draw(st.integers(1, 6))):
        jpeg[data.draw(st.integers(0, len(jpeg) - 1))] = data.draw(st.integers(0, 255))
    whole = whole_jpeg(bytes(jpeg))
    assert whole is None or whole.startswith(b"\xff\xd8")
    jpeg_size(bytes(jpeg))


# --- jpeg_size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (33, 17), (1280, 720), (300, 4000)])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_is_read_from_the_frame_header(size: tuple[int, int], progressive: bool) -> None:
    assert jpeg_size(pillow_jpeg(size=size, progressive=progressive)) == size


def test_a_table_or_a_comment_is_not_taken_for_the_frame_header() -> None:
    jpeg = pillow_jpeg(size=(40, 24))
    for marker in (0xC4, 0xC8, 0xCC, 0xFE):
        decoy = bytes((0xFF, marker, 0, 9, 8, 0, 1, 0, 2, 3, 4))
        assert jpeg_size(jpeg[:2] + decoy + jpeg[2:]) == (40, 24), hex(marker)


def test_there_is_no_size_without_a_frame_header() -> None:
    jpeg = pillow_jpeg()
    headless = b"\xff\xd8" + b"".join(segment for marker, segment in segments(jpeg) if marker != 0xC0)
    assert jpeg_size(headless) is None
    assert jpeg_size(b"") is None
    assert jpeg_size(b"no picture at all, but long enough") is None


# --- Frame ------------------------------------------------------------------------------------------------------------


def test_a_part_is_exactly_what_multipart_promises() -> None:
    frame = frame_of(5, b"\xff\xd8abc\xff\xd9")
    assert frame.part == (
        b"Content-Type: image/jpeg\r\nContent-Length: 7\r\nX-Timestamp: 1700000000.250000\r\nX-Seq: 5\r\n\r\n"
        b"\xff\xd8abc\xff\xd9\r\n--" + BOUNDARY + b"\r\n"
    )
    assert frame.part.endswith(DELIMITER)


def test_a_notice_is_told_from_a_picture_by_its_head() -> None:
    jpeg = jpeg_of()
    notice = Frame.of(jpeg, seq=1, captured_ns=2, captured_at=3.0, size=(64, 48), notice=True)
    picture = Frame.of(jpeg, seq=1, captured_ns=2, captured_at=3.0, size=(64, 48))
    assert b"\r\nX-Notice: 1\r\n\r\n\xff\xd8" in notice.part
    assert b"X-Notice" not in picture.part
    assert notice.jpeg == picture.jpeg == jpeg


def test_the_last_part_closes_the_multipart() -> None:
    frame = frame_of(5)
    assert frame.last_part == frame.part.removesuffix(b"\r\n") + b"--\r\n"


def test_another_parser_finds_every_part() -> None:
    pictures = [b"the first", b"the second, longer", b"--" + BOUNDARY[:-1]]  # text: email's parser is none for pictures
    frames = [frame_of(number, picture) for number, picture in enumerate(pictures)]
    body = DELIMITER + b"".join(frame.part for frame in frames[:-1]) + frames[-1].last_part
    head = b"Content-Type: multipart/x-mixed-replace;boundary=" + BOUNDARY + b"\r\n\r\n"
    message = BytesParser().parsebytes(head + body)
    assert not message.defects
    parts = message.get_payload()
    assert [part.get_content_type() for part in parts] == ["image/jpeg"] * 3
    assert [part["Content-Length"] for part in parts] == [str(len(picture)) for picture in pictures]
    assert [part.get_payload().encode() for part in parts] == pictures
    assert not any(part.defects for part in parts)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_jpeg_comes_back_as_it_went_in(kind: type) -> None:
    jpeg = jpeg_of()
    frame = Frame.of(kind(jpeg), seq=1, captured_ns=2, captured_at=3.0, size=(64, 48))
    assert frame.jpeg == jpeg
    assert frame.part[frame.offset : frame.offset + len(jpeg)] == jpeg
    assert not frame.notice


def test_a_frame_keeps_its_bytes_when_the_wire_reuses_its_buffer() -> None:
    buffer = bytearray(jpeg_of())
    frame = Frame.of(memoryview(buffer), seq=1, captured_ns=2, captured_at=3.0, size=(64, 48))
    before = frame.jpeg
    buffer[:] = bytes(len(buffer))
    assert frame.jpeg == before
