"""A camera elsewhere for `relay:`, as a test wants it to be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def upstream(answer: Answer) -> Iterator[int]:
    """An HTTP server on a free port of loopback, in this process; `answer` writes the whole answer to each GET."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def moving(jpeg: bytes, every_s: float, over: threading.Event) -> Answer:
    """An answer that never ends: the same picture again and again, until `over`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace;boundary=part")
        handler.end_headers()
        head = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
        while True:
            handler.wfile.write(head + jpeg + b"\r\n")
            if over.wait(every_s):
                return

    return answer


def swollen(jpeg: bytes, size: int) -> bytes:
    """A JPEG of at least so many bytes: the same picture with comments in front."""
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    return jpeg[:2] + comment * (max(0, size - len(jpeg)) // len(comment) + 1) + jpeg[2:]
