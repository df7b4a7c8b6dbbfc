"""The process that works on pixels: what is too large to be sent is said, and it goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


THREADS = """
import threading
from camdock import imaging, pixelsworker
threading.stack_size(64 << 20)
for _ in range(4):  # as OpenBLAS starts one for each processor
    threading.Thread(target=threading.Event().wait, daemon=True).start()
pixelsworker._load({"memory_bytes": 96 << 20}, b"")
held = [bytes(64 << 20)]
try:
    held.append(bytes(64 << 20))
except MemoryError:
    print("no more")
"""


LESS = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (pixelsworker._data_bytes() + (80 << 20),) * 2)
pixelsworker._load"""


@pytest.mark.parametrize("before", ["pixelsworker._load", LESS], ids=["unlimited", "less than it asks for"])
def test_what_it_may_have_for_a_picture_does_not_go_to_threads(before: str) -> None:
    program = THREADS.replace("pixelsworker._load", before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("no more\n", 0), done.stderr[-1000:]
