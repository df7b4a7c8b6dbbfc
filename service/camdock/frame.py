"""Picture (what a driver gave), Frame (one numbered JPEG for looking at), Still (one for keeping), JPEG's outer form.

Runs in: Picture in the worker, Frame and Still in the API process. Needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from camdock.settings import Settings

BOUNDARY = b"boundarydonotcross"  # mjpg-streamer's; some clients of that age know no other
DELIMITER = b"--" + BOUNDARY + b"\r\n"


# What a sensor says of one picture: exposure time, gain (a linear factor), the colour temperature that white balance
# found, and its own time stamp (its clock's zero is the driver's affair).
SENSOR = ("exposure_us", "gain", "colour_temperature_k", "timestamp_ns")


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels as the driver gave them.

    size         (width, height)
    captured_ns  CLOCK_MONOTONIC when the driver says the picture was taken, nanoseconds
    jpeg         the bytes, when the camera encodes; else None
    planes       Y, U, V as (H, W) uint8 arrays, the two last subsampled as the camera left them; (Y,) when grey
    rgb          (H, W, 3) uint8 array in the order of `order`, when the driver gives nothing better
    order        "RGB" or "BGR"
    sensor       what the sensor says of this picture: some of SENSOR; empty where the driver does not say
    notice       True for what a Camdock elsewhere sends in the place of a picture, to say why it has none
    """

    size: tuple[int, int]
    captured_ns: int
    jpeg: bytes | None = None
    planes: Sequence[Any] = ()
    rgb: Any = None
    order: str = "RGB"
    sensor: Mapping[str, Any] = field(default_factory=dict)
    notice: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One numbered JPEG.

    seq          only grows, across restarts of the worker too
    captured_ns  CLOCK_MONOTONIC of the capture, nanoseconds: for ages
    captured_at  Unix seconds of the capture: for people
    size         (width, height)
    part         the multipart bytes, made once however many look: headers, JPEG, the next delimiter
    offset       where in `part` the JPEG starts
    notice       True for a picture that says why there is no picture
    """

    seq: int
    captured_ns: int
    captured_at: float
    size: tuple[int, int]
    part: bytes
    offset: int
    notice: bool = False

    @classmethod
    def of(
        cls,
        jpeg: bytes | bytearray | memoryview,
        *,
        seq: int,
        captured_ns: int,
        captured_at: float,
        size: tuple[int, int],
        notice: bool = False,
    ) -> Frame:
        """Wrap one JPEG. The delimiter of the next part stands right behind it: Chromium shows a picture only then."""
        head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nX-Timestamp: %.6f\r\nX-Seq: %d\r\n%s\r\n" % (
            len(jpeg),
            captured_at,
            seq,
            b"X-Notice: 1\r\n" if notice else b"",  # for programs: this is no picture of what the camera sees
        )
        part = b"".join((head, jpeg, b"\r\n", DELIMITER))
        return cls(seq, captured_ns, captured_at, size, part, len(head), notice)

    @property
    def jpeg(self) -> bytes:
        """The JPEG alone: a copy."""
        return self.part[self.offset : -(len(DELIMITER) + 2)]

    @property
    def last_part(self) -> bytes:
        """The part with the closing delimiter of RFC 2046 behind it: a copy."""
        return self.part[:-2] + b"--\r\n"

    @property
    def message(self) -> tuple[bytes, memoryview]:
        """One binary message of a WebSocket, unmasked as servers send them: its head, and the JPEG, not copied.

        source  RFC 6455, section 5.2
        """
        jpeg = memoryview(self.part)[self.offset : -(len(DELIMITER) + 2)]
        size = len(jpeg)
        if size < 126:
            return bytes((0x82, size)), jpeg
        if size < 1 << 16:
            return b"\x82\x7e" + size.to_bytes(2, "big"), jpeg
        return b"\x82\x7f" + size.to_bytes(8, "big"), jpeg


# What a still may be: the word for it in settings and answers -> the end of its file's name, its media type.
FORMATS: Mapping[str, tuple[str, str]] = {
    "JPG": ("jpg", "image/jpeg"),
    "PNG": ("png", "image/png"),
    "TIFF": ("tiff", "image/tiff"),
}


@dataclass(frozen=True, slots=True)
class Still:
    """One picture at full quality, for keeping.

    data         the encoded bytes
    format       a key of FORMATS
    size         (width, height)
    seq          its number among the camera's frames
    captured_at  Unix seconds of the capture
    settings     what was in force when it was taken
    camera, source, device  by name, as configured without credentials, and in words
    quality      of a JPG that we have encoded, 1 to 100; None where the camera did, or nothing was lost
    sensor       what the sensor said of it: some of SENSOR
    """

    data: bytes
    format: str
    size: tuple[int, int]
    seq: int
    captured_at: float
    settings: Settings
    camera: str
    source: str
    device: str
    quality: int | None = None
    sensor: Mapping[str, Any] = field(default_factory=dict)


# ITU-T T.81 tables K.3 to K.6, as one DHT segment. Motion JPEG leaves them out ("abbreviated format"), decoders want
# them. The same bytes stand in every program that reads UVC cameras.
_COUNTS_DC_LUMA = bytes.fromhex("00010501010101010100000000000000")
_COUNTS_DC_CHROMA = bytes.fromhex("00030101010101010101010000000000")
_COUNTS_AC_LUMA = bytes.fromhex("0002010303020403050504040000017d")
_COUNTS_AC_CHROMA = bytes.fromhex("00020102040403040705040400010277")
_VALUES_DC = bytes(range(12))
_VALUES_AC_LUMA = bytes.fromhex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a"
    "434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8"
    "a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)
_VALUES_AC_CHROMA = bytes.fromhex(
    "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738"
    "393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5"
    "a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
)


def _standard_huffman_segment() -> bytes:
    tables = (
        b"\x00" + _COUNTS_DC_LUMA + _VALUES_DC,
        b"\x10" + _COUNTS_AC_LUMA + _VALUES_AC_LUMA,
        b"\x01" + _COUNTS_DC_CHROMA + _VALUES_DC,
        b"\x11" + _COUNTS_AC_CHROMA + _VALUES_AC_CHROMA,
    )
    body = b"".join(tables)
    return b"\xff\xc4" + (len(body) + 2).to_bytes(2, "big") + body


STANDARD_HUFFMAN = _standard_huffman_segment()
SMALLEST_JPEG = 125  # bytes; the smallest valid baseline JPEG with its tables


def whole_jpeg(data: bytes) -> bytes | None:
    """The JPEG in `data`, complete: Huffman tables put in where a camera left them out, padding behind the end cut off.

    data     what the camera delivered
    returns  the very same object when nothing had to change; None when it is no whole JPEG (no start, no end, no scan)
    source   ITU-T T.81 annex B (markers); UVC payload "MJPEG" 1.5, section 3.3 (tables may be absent)
    """
    if data[:2] != b"\xff\xd8":
        return None
    if not data.endswith(b"\xff\xd9"):
        # Some cameras pad to the next multiple of 16 or of a page: nothing but one byte value, or it is a cut frame.
        stripped = data.rstrip(b"\0")
        if not stripped.endswith(b"\xff\xd9"):
            return None
        data = stripped
    at, has_tables = 2, False
    while True:
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xC4:
            has_tables = True
        elif marker == 0xDA:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xD9:
            return None
        at += 2 + length
    if has_tables:
        return data if len(data) >= SMALLEST_JPEG else None
    return data[:at] + STANDARD_HUFFMAN + data[at:]


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the frame header of a JPEG; None when there is none before the scan."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
