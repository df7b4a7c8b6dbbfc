"""The process that works on pixels: what is too large to be sent is said, and it goes on."""

from __future__ import annotations

import os
import subprocess
import sys

from camdock import wire
from camdock.wire import Kind, Message

SMALL_WIRE = "from camdock import pixelsworker, wire; wire.LARGEST_BLOB = {}; pixelsworker.main()"
NOTICE = {"size": [320, 240], "title": "a title", "texts": ["a text"], "footer": ""}


def answers(largest: int) -> list[Message]:
    """What one whose messages may be so large says to two orders, one behind the other."""
    command = [sys.executable, "-c", SMALL_WIRE.format(largest), "pixels", str(os.getpid())]
    order = wire.pack(Kind.RUN, {"operation": "notice", "arguments": NOTICE})
    done = subprocess.run(command, input=order * 2, capture_output=True, timeout=30, check=True)
    into, out = os.pipe()
    os.write(out, done.stdout)
    os.close(out)
    unpacker, found = wire.Unpacker(), []
    while unpacker.fill(into):
        found += [Message(one.kind, one.meta, bytes(one.blob)) for one in unpacker.messages()]
    os.close(into)
    return found


def test_a_picture_that_is_too_large_to_be_sent_is_an_answer() -> None:
    hello, *refused = answers(1000)
    assert hello.kind is Kind.HELLO
    assert ["1000 are the most" in one.meta["error"] for one in refused] == [True, True]
    assert [one.meta for one in answers(100_000)[1:]] == [{}, {}]
