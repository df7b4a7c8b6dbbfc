"""Clients that say exactly what a test wants them to say, and what a running service has open."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.tools.service import Service, Viewer, until

HEAD_END = b"\r\n\r\n"


def request(path: str, *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """The bytes of one request; a Host header comes by itself, except for HTTP/1.0."""
    host = ["Host: localhost"] if version == "1.1" else []
    return "\r\n".join([f"{method} {path} HTTP/{version}", *host, *headers, "", ""]).encode() + body


def connect(port: int, data: bytes = b"", *, receive_buffer: int | None = None, timeout_s: float = 10) -> socket.socket:
    """A connection on which `data` has been sent; `receive_buffer` bytes make a viewer that is soon full."""
    connected = socket.socket()
    connected.settimeout(timeout_s)
    if receive_buffer is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connected.connect(("127.0.0.1", port))
    connected.sendall(data)
    return connected


def reset(connected: socket.socket) -> None:
    """Leave without a word: RST instead of FIN."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def read_all(connected: socket.socket) -> bytes:
    """Everything until the server closes; TimeoutError when it does not."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connected.recv(1 << 16):
            data += more
    return data


def read_answer(connected: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer that has a Content-Length."""
    data = b""
    while HEAD_END not in data:
        more = connected.recv(1 << 16)
        assert more, f"closed behind {data!r}"
        data += more
    head, _, body = data.partition(HEAD_END)
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers["content-length"]):
        more = connected.recv(1 << 16)
        assert more, "closed in the body"
        body += more
    return int(status.split()[1]), headers, body


@contextlib.contextmanager
def viewer(port: int, data: bytes) -> Iterator[Viewer]:
    """A strict viewer behind a request of one's own making."""
    with Viewer.on(connect(port, data)) as viewing:
        yield viewing


def open_files(service: Service) -> int:
    """How many file descriptors the API process has."""
    return psutil.Process(service.process.pid).num_fds()


def until_nobody_looks(service: Service, files: int, within_s: float = 10) -> None:
    """Wait until no viewer is counted and no more than so many descriptors are open; `files` is measured when idle."""
    until(
        lambda: service.camera()["viewers"] == 0 and open_files(service) <= files,
        within_s,
        lambda: f"viewers {service.camera()['viewers']} of 0, descriptors {open_files(service)} of {files}",
    )


@contextlib.contextmanager
def unharmed(service: Service) -> Iterator[None]:
    """Behind what is done in here the service is alive and idle, with the same worker and no traceback in its log."""
    files, worker = open_files(service), service.worker().pid
    yield
    until_nobody_looks(service, files)
    assert service.worker().pid == worker
    assert service.get("/health").json()["camera_connected"] is True
    assert "Traceback" not in service.log, service.log[-6000:]


def loop_of(service: Service) -> str:
    """Which event loop the API process runs on."""
    return "uvloop" if "/uvloop/" in Path(f"/proc/{service.process.pid}/maps").read_text() else "asyncio"
