"""The process that touches pixels for the API: one operation after the other, and it may die.

Runs in: the pixels process, started by Pixels as `python -m camdock.pixelsworker`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camdock import lettering, wire
from camdock.errors import CameraError
from camdock.parent import die_with_parent, send, take_wire
from camdock.wire import Kind


def _load(arguments: dict[str, Any], _picture: bytes) -> bytes:
    """Get ready for the operations on arrays. The notice does without NumPy: it must be drawn where that breaks.

    arguments  nice: so much politer than the others; memory_bytes: the most that it may have on top of
               what it has then; both may be absent
    """
    if arguments.get("nice"):
        os.nice(arguments["nice"])
        # Where memory runs out, the kernel takes this process before the one that serves. (proc_pid_oom_score_adj(5))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")
    from camdock import imaging  # noqa: F401

    if most := arguments.get("memory_bytes"):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most += _data_bytes()
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    return b""


def _data_bytes() -> int:
    """What counts for RLIMIT_DATA now: NumPy's threads have stacks of megabytes, one for each processor."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


def _annotate(arguments: dict[str, Any], picture: bytes) -> bytes:
    from camdock import cloudvision

    return cloudvision.annotate(picture, **arguments)


def _process(arguments: dict[str, Any], picture: bytes) -> bytes:
    from camdock import operations

    return operations.process(picture, **arguments)


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
    "annotate": _annotate,
    "load": _load,
    "notice": _notice,
    "process": _process,
    "rendition": _rendition,
    "converted": _converted,
}


def _sendable(output: bytes) -> bytes:
    """The output. Raises ValueError where it would break the wire."""
    if len(output) > wire.LARGEST_BLOB:
        raise ValueError(f"what came out has {len(output)} bytes, {wire.LARGEST_BLOB} are the most")
    return output


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
                output = _sendable(operation(dict(message.meta["arguments"]), bytes(message.blob)))
            except CameraError as error:
                send(answers, Kind.DONE, {"error": error.message, "code": error.code, "hint": error.hint})
            except ValueError as error:
                send(answers, Kind.DONE, {"error": str(error)})
            except MemoryError:
                send(answers, Kind.DONE, {"error": f"{message.meta['operation']} needs more memory than it may have"})
            else:
                send(answers, Kind.DONE, {}, output)


if __name__ == "__main__":
    main()
