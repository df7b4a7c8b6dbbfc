"""http.server with a thread for each viewer: the shape of picamera2's MJPEG example.

Runs in: a process of its own, started by the bench.
"""

import socketserver
import threading
from http.server import BaseHTTPRequestHandler

from tests.bench.peers import capture


class Output:
    def __init__(self) -> None:
        self.frame = b""
        self.condition = threading.Condition()

    def publish(self, frame: bytes) -> None:
        with self.condition:
            self.frame = frame
            self.condition.notify_all()

    def next(self) -> bytes:
        with self.condition:
            self.condition.wait()
            return self.frame


OUTPUT = Output()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/stream":
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=FRAME")
        self.end_headers()
        try:
            while True:
                frame = OUTPUT.next()
                self.wfile.write(b"--FRAME\r\n")
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(frame)))
                self.end_headers()
                self.wfile.write(frame)
                self.wfile.write(b"\r\n")
        except OSError:
            pass  # the viewer left


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    given = capture.options()
    capture.start(given.size, given.format, OUTPUT.publish)
    Server(("127.0.0.1", given.port), Handler).serve_forever()
