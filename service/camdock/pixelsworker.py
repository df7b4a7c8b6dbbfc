"""The process that touches pixels for the API: one operation after the other, and it may die.

Runs in: the pixels process, started by Pixels as `python -m camdock.pixelsworker`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

from camdock import lettering, wire
from camdock.parent import die_with_parent, send, take_wire
from camdock.wire import Kind


def _load(_arguments: dict[str, Any], _picture: bytes) -> bytes:
    """Get ready for the operations on arrays. The notice does without NumPy: it must be drawn where that breaks."""
    from camdock import imaging  # noqa: F401

    return b""


def _notice(arguments: dict[str, Any], _picture: bytes) -> bytes:
    width, height = arguments["size"]
    return lettering.notice((width, height), arguments["title"], arguments["texts"], arguments["footer"])


def _rendition(arguments: dict[str, Any], picture: bytes) -> bytes:
    from camdock import imaging

    return imaging.rendition(picture, arguments["width"], arguments["height"], arguments["quality"])


def _converted(arguments: dict[str, Any], picture: bytes) -> bytes:
    from camdock import imaging

    return imaging.converted(picture, arguments["format"])


OPERATIONS: dict[str, Callable[[dict[str, Any], bytes], bytes]] = {
    "load": _load,
    "notice": _notice,
    "rendition": _rendition,
    "converted": _converted,
}


def main() -> None:
    """Serve until stdin ends."""
    answers = take_wire()
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send(answers, Kind.HELLO, {})
    unpacker = wire.Unpacker()
    while unpacker.fill(0):
        for message in unpacker.messages():
            operation = OPERATIONS[message.meta["operation"]]
            try:
                output = operation(dict(message.meta["arguments"]), bytes(message.blob))
            except ValueError as error:
                send(answers, Kind.DONE, {"error": str(error)})
            else:
                send(answers, Kind.DONE, {}, output)


if __name__ == "__main__":
    main()
