"""What picamera2's example mjpeg_server does, to be measured beside Camdock: `python example.py [QUALITY]`, port 8000.

Runs in: a container of the Pi image, for test_cost.py.

As there: create_video_configuration and JpegEncoder as they come (XBGR8888, four threads, and without QUALITY its own
default, which is 50), an output that keeps the newest picture, Python's http.server with a thread for each viewer.
Other than there: 1280x720 instead of 640x480, and `/frames` tells how many pictures were made.
"""

from __future__ import annotations

import io
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition
from typing import Any

SIZE, PLACE = (1280, 720), 1  # imx_virtual


class Newest(io.BufferedIOBase):
    """The newest picture, and everyone waiting for it."""

    def __init__(self) -> None:
        self.frame, self.count, self.condition = b"", 0, Condition()

    def write(self, frame: Any) -> int:
        with self.condition:
            self.frame = frame
            self.count += 1
            self.condition.notify_all()
        return len(frame)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    newest = Newest()

    def do_GET(self) -> None:
        if self.path == "/stream":
            self._stream()
            return
        body = str(self.newest.count).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=FRAME")
        self.end_headers()
        try:
            while True:
                with self.newest.condition:
                    self.newest.condition.wait()
                    frame = self.newest.frame
                self.wfile.write(b"--FRAME\r\n")
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(frame)))
                self.end_headers()
                self.wfile.write(frame)
                self.wfile.write(b"\r\n")
        except OSError:  # the viewer has left
            return

    def log_message(self, *_: object) -> None:
        """Nothing: what is measured shall not wait for a log."""


def main(quality: int | None) -> None:
    """Serve for ever."""
    from camdock.picamera2lib import load

    camera = load().Picamera2(PLACE)
    from picamera2.encoders import JpegEncoder
    from picamera2.outputs import FileOutput

    camera.configure(camera.create_video_configuration(main={"size": SIZE}))
    camera.start_recording(JpegEncoder(q=quality), FileOutput(Handler.newest))
    server = ThreadingHTTPServer(("", 8000), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
