"""Camera: the newest pictures of any Camdock as NumPy arrays, for programs that look at them.

Runs in: somebody else's process. Imports nothing else of Camdock; `pip install 'camdock[client]'` brings what it needs.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

try:
    import numpy as np
    from simplejpeg import decode_jpeg
except ImportError as error:
    raise ImportError(f"camdock.client lacks {error.name}: pip install 'camdock[client]'", name=error.name) from error

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
LARGEST_PART = 1 << 26  # bytes: more is no picture of a camera
LONGEST_LINE = 1 << 14
# What asking again does not mend. The others pass: 429, all renditions taken; 502, a proxy whose service restarts.
FOR_GOOD = frozenset({400, 401, 403, 404, 405, 410, 421, 422})


class ClientError(Exception):
    """Whatever goes wrong here. The message names the address, never the token."""


class Refused(ClientError):
    """Asking again does not help: a wrong token, no such camera, a parameter that is not understood.

    status  of HTTP; None when the certificate is not trusted, or it is no stream of pictures
    code    Camdock's code, "" where it sent none
    """

    def __init__(self, message: str, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class NoPicture(ClientError):
    """None came in time; the message says what is known of the reason."""


class Closed(ClientError):
    """The camera was closed, here."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    seq          its number at the service; only grows while that runs, one that is missing was skipped
    captured_at  Unix seconds of the capture, by the service's clock
    jpeg         as it came
    """

    seq: int
    captured_at: float
    jpeg: bytes

    @cached_property
    def image(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(H, W, 3) uint8, BGR as OpenCV has it; decoded when first asked for. Raises ValueError for a broken JPEG."""
        decoded: np.ndarray[Any, np.dtype[np.uint8]] = decode_jpeg(self.jpeg, colorspace="BGR")
        return decoded


class Camera:
    """The newest pictures of one camera, from a thread that connects, and connects again, by itself.

        with Camera("http://camera.local:8000", width=640, fps=15) as camera:
            for frame in camera:
                look_at(frame.image)

    url        a Camdock (`http://host:8000`, `https://host/below/`), or the whole address of a stream; with
               `user:password@` these are sent as Basic
    name       which camera, as in GET /cameras; None: the first one
    width, height, fps, quality   made by the service, once for all who ask for the same; None: as the camera gives it
    token      sent as `Authorization: Bearer`
    timeout_s  without any byte for so long the connection is given up and made anew
    tls        what to trust, for https; None: what this machine trusts
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        quality: int | None = None,
        token: str | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address of a Camdock begins with http:// or https:// and a host")
        query = parse_qsl(parts.query, keep_blank_values=True)
        path = parts.path or "/"
        if path.endswith("/") and "action" not in dict(query):
            path += f"cameras/{quote(name, safe='')}/stream" if name else "stream"
        elif name:
            raise ValueError("give a name, or the whole address of a stream, not both")
        asked = {"width": width, "height": height, "fps": fps, "quality": quality}
        query += [(key, f"{value:g}" if key == "fps" else str(value)) for key, value in asked.items() if value]
        self._host, self._port = parts.hostname, parts.port
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._target = path + (f"?{urlencode(query)}" if query else "")
        self._headers = {"User-Agent": "camdock-client"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        elif parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"  # for people: no password, no token
        self._timeout_s = max(timeout_s, 3 / fps if fps else 0.0)
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._when = 0.0  # the newest one arrived, monotonic
        self._arrived = self._taken = 0  # how many came; which of them was the last one taken
        self._problem = f"{self.url}: not connected yet"
        self._refused: Refused | None = None
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    # --- for programs ---------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why no pictures come just now, for people; "" while they do."""
        return self._problem

    def next(self, within_s: float | None = None) -> Frame:
        """The newest picture, once there is one that was not taken yet; those between are skipped.

        within_s  how long to wait; None: through every outage, for ever
        raises    Refused, NoPicture, Closed
        """
        with self._news:
            self._started()
            due = None if within_s is None else time.monotonic() + within_s
            while True:
                if self._closed.is_set():
                    raise Closed(f"{self.url}: closed")
                if self._arrived != self._taken:
                    assert self._newest is not None
                    self._taken = self._arrived
                    return self._newest
                if self._refused:
                    raise self._refused
                left = None if due is None else due - time.monotonic()
                if left is not None and left <= 0:
                    raise NoPicture(f"no picture within {within_s:g} s: {self._problem or self.url}")
                self._news.wait(left)

    def latest(self, max_age_s: float = 1.0, within_s: float = 10.0) -> Frame:
        """The newest picture, taken before or not, if it arrived no longer ago than that; else the next one.

        raises  Refused, NoPicture, Closed
        """
        with self._news:
            newest = self._newest
            if newest is not None and not self._closed.is_set() and time.monotonic() - self._when <= max_age_s:
                self._taken = self._arrived
                return newest
            self._taken = self._arrived
        return self.next(within_s)

    def __iter__(self) -> Iterator[Frame]:
        """Every picture that is the newest when asked for, until closed. Raises Refused."""
        with contextlib.suppress(Closed):
            while True:
                yield self.next()

    def close(self) -> None:
        """Leave; whoever waits for a picture is told. It cannot be opened again."""
        self._closed.set()
        self._hang_up()
        with self._news:
            self._news.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2)  # it may be looking a name up, which nothing interrupts

    def __enter__(self) -> Self:
        with self._news:
            self._started()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _started(self) -> None:
        if self._thread is None and not self._closed.is_set():
            self._thread = threading.Thread(target=self._run, name=f"camdock {self.url}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            before = self._arrived
            try:
                self._look()
                problem = f"{self.url}: the stream ended"
            except Refused as error:
                with self._news:
                    self._refused, self._problem = error, str(error)
                    self._news.notify_all()
                return
            except NoPicture as error:
                problem = str(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{self.url}: {str(error) or type(error).__name__}"
            finally:
                self._hang_up()
            if self._closed.is_set():
                return
            self._problem = problem
            pause_s = FIRST_PAUSE_S if self._arrived != before else pause_s
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _hang_up(self) -> None:
        if (connected := self._socket) is not None:
            with contextlib.suppress(OSError):  # not SSLSocket's own: that one takes the TLS from under a reader
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def _look(self) -> None:
        """One connection, from its start to its end."""
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        with contextlib.closing(connection):
            try:
                connection.connect()
            except ssl.SSLCertVerificationError as error:
                raise Refused(f"{self.url}: its certificate is not trusted: {error.verify_message}") from error
            self._socket = connection.sock
            if self._closed.is_set():
                return  # closed while it connected
            connection.request("GET", self._target, headers=self._headers)
            with connection.getresponse() as response:
                self._judge(response)
                while self._part(response):
                    pass

    def _judge(self, response: http.client.HTTPResponse) -> None:
        """Return if it is a stream; raises what it is instead."""
        if response.status == 200:
            if response.headers.get_content_type() != "multipart/x-mixed-replace":
                raise Refused(f"{self.url}: no stream of pictures, but {response.headers.get_content_type()}")
            return
        told: Any = None
        with contextlib.suppress(ValueError):
            told = json.loads(response.read(1 << 16))
        told = told if isinstance(told, dict) else {}
        words = [f"{self.url}: {response.status} {response.reason}", told.get("detail"), told.get("hint")]
        message = "; ".join(str(word) for word in words if word)
        if response.status in FOR_GOOD:
            raise Refused(message, response.status, str(told.get("code", "")))
        raise NoPicture(message)

    def _part(self, response: http.client.HTTPResponse) -> bool:
        """Read one part of the stream, and make its picture the newest; False at the end."""
        headers: dict[bytes, bytes] = {}
        while (line := response.readline(LONGEST_LINE)) != b"\r\n" or not headers:
            if not line or line.rstrip(b"\r\n").endswith(b"--"):
                return False
            name, colon, value = line.partition(b":")
            if colon:
                headers[name.strip().lower()] = value.strip()
            if len(headers) > 100:
                raise NoPicture(f"{self.url}: what it sends is no multipart stream")
        length = int(headers.get(b"content-length", b"0"))
        if not 0 < length <= LARGEST_PART:
            raise NoPicture(f"{self.url}: a part of {length} bytes, which is no picture")
        jpeg = response.read(length)
        if len(jpeg) < length:
            return False
        if headers.get(b"x-notice"):
            self._problem = f"{self.url}: the camera gives no pictures; GET /cameras says why"
            return True
        seq = int(headers.get(b"x-seq", b"0")) or self._arrived + 1
        frame = Frame(seq, float(headers.get(b"x-timestamp", b"0")) or time.time(), jpeg)
        with self._news:
            self._newest, self._when, self._problem = frame, time.monotonic(), ""
            self._arrived += 1
            self._news.notify_all()
        return True
