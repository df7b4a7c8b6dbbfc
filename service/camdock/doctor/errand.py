"""The other end of asking.py: does one errand, which may block, crash or never come back.

Runs in: a child of the doctor, `python -m camdock.doctor.errand`; started for one errand, killed when that takes too
long. An errand is a generator: what it has yielded before it hangs is not lost.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping

from camdock.parent import Orders, die_with_parent, send, take_wire
from camdock.wire import Kind

# name -> module and function; only the one that is asked for is imported
ERRANDS: Mapping[str, tuple[str, str]] = {
    "configuration": ("configuration", "read"),
    "folder": ("places", "folder"),
    "port": ("places", "port"),
    "nodes": ("nodes", "find"),
    "machine": ("machine", "look"),
    "abi": ("libraries", "abi"),
    "formats": ("drivers", "formats"),
    "backend": ("drivers", "backend"),
    "picamera2": ("drivers", "picamera2"),
    "video_backend": ("drivers", "video_backend"),
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
    module, function = ERRANDS[order.meta["operation"]]
    errand = getattr(importlib.import_module(f"camdock.doctor.{module}"), function)
    for answer in errand(**order.meta["arguments"]):
        send(frames, Kind.DONE, {"more": True}, json.dumps(answer).encode())
    send(frames, Kind.DONE, {"more": False})
    sys.stderr.flush()
    os._exit(0)  # not sys.exit: a driver's exit handlers may hang


if __name__ == "__main__":
    main()
