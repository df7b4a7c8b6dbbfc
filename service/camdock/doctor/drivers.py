"""Drivers: the errands that open devices and import what may not load, hang or crash.

Runs in: errands alone, so that it costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from camdock import devices, picamera2lib
from camdock.backends import open_backend
from camdock.devices import Node
from camdock.errors import DriverMissing
from camdock.source import KINDS, Source


def formats(paths: list[str]) -> Iterator[dict[str, Any]]:
    """First that everything is loaded; then one answer for each node.

    That is what its driver calls it, whether it captures, its pixel formats with their sizes.
    """
    with contextlib.suppress(ImportError):  # then nothing is known but what `ask` finds out
        importlib.import_module("linuxpy.video.device")
    yield {"loaded": True}
    for path in paths:
        node = Node(path, "video", 0, 0, 0, "", "")
        devices.ask(node, Path(path))
        yield {"path": path, "name": node.name, "driver": node.driver, "captures": node.captures,
               "formats": _formats(path) if node.captures else {}}  # fmt: skip


def _formats(path: str) -> dict[str, list[str]]:
    try:
        from linuxpy.video.device import BufferType, FrameSizeType, iter_read_formats, iter_read_frame_sizes
    except ImportError:
        return {}
    offered: dict[str, list[str]] = {}
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return offered
    try:
        for one in iter_read_formats(descriptor, BufferType.VIDEO_CAPTURE):
            sizes = offered.setdefault(one.pixel_format.human_str(), [])
            for size in iter_read_frame_sizes(descriptor, one.pixel_format):
                if size.type == FrameSizeType.DISCRETE:
                    sizes.append(f"{size.info.width}x{size.info.height}")
                else:
                    sizes.append(f"up to {size.info.max_width}x{size.info.max_height}")
                    break
    except OSError:
        pass  # what it said so far
    finally:
        os.close(descriptor)
    return offered


def backend(kind: str) -> Iterator[dict[str, Any]]:
    """One answer: `installed`, and `message` and `hint` where its library does not load."""
    if find_spec(KINDS[kind].loads[0]) is None:
        yield {"installed": False}
        return
    try:
        open_backend(Source.parse(KINDS[kind].example))  # loaded and made, not opened
    except DriverMissing as error:
        yield {"installed": True, "message": error.message, "hint": error.hint}
        return
    yield {"installed": True, "message": "", "hint": ""}


def picamera2() -> Iterator[dict[str, Any]]:
    """First what is installed and what memory there is; then, loaded, `versions`, or `message` and `hint` why not."""
    found = {name: picamera2lib.copies(name) for name in ("picamera2", "libcamera")}
    version = found["picamera2"][0].version if found["picamera2"] else ""
    numbers = picamera2lib.numbers(version)
    yield {
        "copies": {name: [str(one) for one in copies] for name, copies in found.items()},
        "several": picamera2lib.several(),
        "install": picamera2lib.INSTALL,
        "version": version,
        "is_too_old": bool(numbers) and numbers < picamera2lib.OLDEST,
        "dies_of_two": bool(numbers) and numbers < picamera2lib.MENDED,
        "heap_folder": picamera2lib.HEAPS,
        "heaps": {str(path): os.access(path, os.R_OK | os.W_OK) for path in sorted(Path(picamera2lib.HEAPS).glob("*"))},
    }
    try:
        library = picamera2lib.load()
    except DriverMissing as error:
        yield {"message": error.message, "hint": error.hint}
        return
    yield {"message": "", "hint": "", "versions": library.versions}


def video_backend(name: str) -> Iterator[dict[str, Any]]:
    """One answer: OpenCV's `version`, and whether it is `able` to use one of its video back ends."""
    if find_spec("cv2") is None:
        yield {"version": ""}
        return
    import cv2

    # A wheel may name a back end that it would need a plugin for: only hasBackend() tries.
    yield {"version": cv2.__version__, "able": cv2.videoio_registry.hasBackend(getattr(cv2, f"CAP_{name}"))}
