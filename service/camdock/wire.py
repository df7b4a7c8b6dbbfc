"""The messages between the API process and its child processes, packed and unpacked.

Runs in: both ends. Plain functions on bytes: the reading and writing is the owners' business.

    header   magic "CDw4", kind, length of meta, length of blob     little endian, 16 bytes
    meta     JSON
    blob     bytes: a JPEG, mostly

    kind      who sends             who handles           meta; blob
    START     Camera._order_start   Worker.run            source, first_seq, wanted; -
    HELLO     Worker.run            Camera._dispatch      versions of what is loaded (opening begins now); -
    READY     Worker._send_ready    Camera._on_ready      fields of Opened, limits, applied, refused; -
    FRAME     Worker._serve         Camera._on_frame      captured_ns, size, drops, sensor, notice; JPEG
    DROPS     Worker._serve         Camera._dispatch      drops (while there are no frames to carry them); -
    REST      Camera._ask_to_rest   Worker._serve         - (give the device back; another START takes it again); -
    RESTED    Worker._rest          Camera._on_rested     - (from here on the device is free); -
    APPLY     Camera.apply          Worker.on_apply       id, wanted; -
    APPLIED   Worker.on_apply       Camera._on_applied    id, applied or error, limits; -
    STILL     Camera.still          Worker.on_still       id, overrides, format, quality; -
    TAKEN     Worker.on_still       Camera._on_taken      id, pictures read for it, applied behind it; captured_ns,
                                                          size, format, quality, settings, sensor or error; the
                                                          still, encoded
    FAILED    worker.main           Camera._dispatch      code, message, hint; -
    RUN       Pixels.run            pixelsworker.main     operation, arguments; input
    DONE      pixelsworker.main     Pixels._on_message    error, code, hint; output (HELLO comes first here too)
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

VERSION = 4
_HEADER = struct.Struct("<4sIII")
_MAGIC = b"CDw%d" % VERSION
PIPE_BYTES = 1 << 20  # the most an ordinary user may ask for: a whole frame fits, the worker never waits in the middle
LARGEST_KEPT = 1 << 23  # of a buffer: no camera's live pictures are larger
LARGEST_META = 1 << 16
LARGEST_BLOB = 1 << 27  # a 100-megapixel JPEG; more than that is a broken sender


class Kind(IntEnum):
    """What a message is; the table above says between whom."""

    START = 1
    HELLO = 2
    READY = 3
    FRAME = 4
    DROPS = 5
    APPLY = 6
    APPLIED = 7
    FAILED = 8
    RUN = 9
    DONE = 10
    REST = 11
    RESTED = 12
    STILL = 13
    TAKEN = 14


_KINDS = frozenset(Kind)
# Made once: json.dumps with separators makes an encoder for every call, which costs more than the encoding.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class WireBroken(Exception):
    """The other side sent bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    kind: Kind
    meta: Mapping[str, Any] = field(default_factory=dict)
    blob: bytes | bytearray | memoryview = b""


def head(kind: Kind, meta: Mapping[str, Any], blob_length: int = 0) -> bytes:
    """Header and meta, for a writer that sends the blob itself and spares a copy."""
    text = _encode(meta).encode()
    return _HEADER.pack(_MAGIC, kind, len(text), blob_length) + text


def pack(kind: Kind, meta: Mapping[str, Any], blob: bytes = b"") -> bytes:
    """A whole message."""
    return head(kind, meta, len(blob)) + blob


class Unpacker:
    """Turns the bytes of a pipe into messages, however they were cut.

    One buffer is kept and read into; a fresh one for every frame would cost more in page faults than the copy into it.
    Only what a still has made very large is given back. A message's blob is a view of that buffer: it is good until the
    next `fill`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(PIPE_BYTES)
        self._begin = self._end = 0
        self._whole = 0  # bytes of the message that has begun, once its header is there

    def fill(self, descriptor: int) -> bool:
        """Read once what is there; False at the end of the file. Raises BlockingIOError when there is nothing."""
        if self._begin == self._end:
            self._begin = self._end = 0
            if len(self._buffer) > LARGEST_KEPT:
                self._buffer = bytearray(PIPE_BYTES)
        elif self._end == len(self._buffer):
            # The rest of a message: to the front, and make room for all of it, at once.
            rest = self._buffer[self._begin : self._end]
            if self._whole > len(self._buffer) or len(rest) == len(self._buffer):
                self._buffer = bytearray(max(self._whole, len(rest) + 1))
            self._buffer[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        count = os.readv(descriptor, [memoryview(self._buffer)[self._end :]])
        self._end += count
        return count > 0

    def messages(self) -> Iterator[Message]:
        """Yield every message that is whole; raises WireBroken."""
        while self._end - self._begin >= _HEADER.size:
            magic, number, meta_length, blob_length = _HEADER.unpack_from(self._buffer, self._begin)
            if magic != _MAGIC:
                raise WireBroken(f"a message starts with {bytes(self._buffer[self._begin : self._begin + 16])!r}")
            if number not in _KINDS or meta_length > LARGEST_META or blob_length > LARGEST_BLOB:
                raise WireBroken(f"a header that cannot be: kind {number}, {meta_length} + {blob_length} bytes")
            meta_at = self._begin + _HEADER.size
            blob_at = meta_at + meta_length
            end = blob_at + blob_length
            if self._end < end:
                self._whole = end - self._begin
                return
            self._begin, self._whole = end, 0
            try:
                meta = _decode(self._buffer[meta_at:blob_at].decode())
            except (ValueError, RecursionError) as error:
                raise WireBroken("meta that is no JSON") from error
            if not isinstance(meta, dict):
                raise WireBroken("meta that is no JSON object")
            yield Message(Kind(number), meta, memoryview(self._buffer)[blob_at:end])

    @property
    def pending(self) -> int:
        """Bytes of a message that has begun."""
        return self._end - self._begin
