"""The other end of asking.py: does one errand, which may block, crash or never come back.

Runs in: a child of the doctor, `python -m camdock.doctor.errand`; started for one errand, killed when that takes too
long. An errand is a generator: what it has yielded before it hangs is not lost.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from camdock.doctor import configuration, drivers, libraries, machine, nodes, places
from camdock.parent import Orders, die_with_parent, send, take_wire
from camdock.wire import Kind

ERRANDS: Mapping[str, Callable[..., Iterator[Any]]] = {
    "configuration": configuration.read,
    "folder": places.folder,
    "port": places.port,
    "nodes": nodes.find,
    "formats": drivers.formats,
    "kernel": machine.kernel,
    "versions": machine.versions,
    "user": machine.user,
    "limits": machine.limits,
    "engine": machine.engine,
    "abi": libraries.abi,
    "backend": drivers.backend,
    "video_backend": drivers.video_backend,
}
LATER = ("backend", "video_backend")  # on a slow machine the cameras go first


def main() -> None:
    """Do the errand that the first order names; an exception is for the log, whose last line the doctor repeats."""
    frames = take_wire()
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the doctor
    order = Orders(0).first()
    if order.meta["operation"] in LATER:
        os.nice(10)
    for answer in ERRANDS[order.meta["operation"]](**order.meta["arguments"]):
        send(frames, Kind.DONE, {"more": True}, json.dumps(answer).encode())
    send(frames, Kind.DONE, {"more": False})
    sys.stderr.flush()
    os._exit(0)  # not sys.exit: a driver's exit handlers may hang


if __name__ == "__main__":
    main()
