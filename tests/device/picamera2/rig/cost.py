"""What a JPEG of 1280x720 costs three programs on the rig: `python cost.py WAY FRAMES` prints nanoseconds and bytes.

Runs in: a container of the Pi image, for test_cost.py.

    planes   Camdock's back end: YUV420 encoded from its planes
    imencode what most scripts do: an RGB888 array, then cv2.imencode
    example  picamera2's mjpeg_server: create_video_configuration, JpegEncoder, an output that keeps the newest

All at quality 80 and 4:2:0, nobody looking on. What stands in for a Pi's parts is counted on no side: pictures are
converted beforehand and handed out by one assignment, whatever their format (prepared.py), and processor time is that
of Python's own threads without the rig's; libcamera's, which draws the virtual camera's pattern, is none of them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from example import Newest

SIZE, FPS, QUALITY, WARM = (1280, 720), 60, 80, 20
PLACE = 1  # imx_virtual


def counted_ns() -> int:
    """Processor time of the threads that count, so far."""
    threads = [one for one in threading.enumerate() if not one.name.startswith("rig:")]
    stats = (Path(f"/proc/self/task/{one.native_id}/schedstat") for one in threads)
    return sum(int(path.read_text().split()[0]) for path in stats if path.exists())


def planes() -> Callable[[], int]:
    """Camdock's."""
    from camdock.backends import open_backend
    from camdock.source import Source

    backend = open_backend(Source.parse(f"picamera2:{PLACE}?size=1280x720&fps={FPS}&quality={QUALITY}"))
    backend.open()

    def one() -> int:
        while (picture := backend.read(1.0)) is None:
            pass
        return len(picture.jpeg or b"")

    return one


def imencode() -> Callable[[], int]:
    """A script's."""
    import cv2

    camera = _camera()
    controls = {"FrameDurationLimits": (1_000_000 // FPS,) * 2}
    camera.configure(camera.create_video_configuration(main={"size": SIZE, "format": "RGB888"}, controls=controls))
    camera.start()

    def one() -> int:
        _, jpeg = cv2.imencode(".jpg", camera.capture_array("main"), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return len(jpeg)

    return one


def example() -> Callable[[], int]:
    """picamera2's."""
    camera, output = _camera(), Newest()
    from picamera2.encoders import JpegEncoder
    from picamera2.outputs import FileOutput

    controls = {"FrameDurationLimits": (1_000_000 // FPS,) * 2}
    camera.configure(camera.create_video_configuration(main={"size": SIZE}, controls=controls))
    camera.start_recording(JpegEncoder(q=QUALITY), FileOutput(output))
    seen = 0

    def one() -> int:
        nonlocal seen
        with output.condition:
            output.condition.wait_for(lambda: output.count > seen, 5)
            seen += 1  # those that came at once count one by one
        return len(output.frame)

    return one


def _camera() -> Any:
    from camdock.picamera2lib import load

    return load().Picamera2(PLACE)


def main(way: str, frames: int) -> None:
    """Measure one way."""
    one = {"planes": planes, "imencode": imencode, "example": example}[way]()
    for _ in range(WARM):
        one()
    began, size = counted_ns(), 0
    for _ in range(frames):
        size += one()
    print((counted_ns() - began) // frames, size // frames, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    os._exit(0)  # closing is not measured
