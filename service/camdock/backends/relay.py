"""relay: an MJPEG address elsewhere, another Camdock included, passed on without decoding.

Runs in: the worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth
from urllib3.exceptions import HTTPError

import camdock
from camdock.backends import Backend, Opened
from camdock.errors import CameraError, SourceDenied, SourceFailed, SourceMissing
from camdock.frame import Picture, jpeg_size, whole_jpeg
from camdock.source import host_of

CONNECT_S = 4.0
READ_S = 600.0  # the API's deadline is shorter, whatever rate was promised
CHUNK = 1 << 16
LARGEST_JPEG = 64 << 20
LARGEST_HEAD = 16 << 10


class PartsBroken(Exception):
    """The far end does not send what multipart/x-mixed-replace promises."""


class Parts:
    """Cuts a multipart/x-mixed-replace body into its parts, by Content-Length where there is one, else by delimiter.

    source  RFC 2046 section 5.1.1; in the wild the boundary parameter may or may not carry the two dashes already,
            the first delimiter may be missing, and lines may end in a bare line feed
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary.strip().removeprefix(b"--")
        self._buffer = bytearray()
        self._length: int | None = None
        self._in_body = False
        self._searched = 0
        self.is_notice = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the body of every part that `data` completes; raises PartsBroken.

        `is_notice` tells of the part just given whether a Camdock says with it why it has no picture.
        """
        self._buffer += data
        while True:
            if not self._in_body and not self._take_head():
                return
            body = self._take_body()
            if body is None:
                return
            self._in_body = False
            if body:
                yield body

    def _take_head(self) -> bool:
        del self._buffer[: len(self._buffer) - len(self._buffer.lstrip())]  # blank lines between the parts
        ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := self._buffer.find(mark)) >= 0]
        if not ends:
            if len(self._buffer) > LARGEST_HEAD:
                raise PartsBroken("a part's head does not end")
            return False
        at, mark_length = min(ends)
        head = bytes(self._buffer[:at])
        self._length, self.is_notice = None, False
        for line in head.splitlines():
            name, _, value = (word.strip() for word in line.partition(b":"))
            if name.lower() == b"content-length" and value.isdigit():
                self._length = int(value[:19])
            if name.lower() == b"x-notice":
                self.is_notice = value == b"1"
        if self._length is not None and self._length > LARGEST_JPEG:
            raise PartsBroken(f"a part of {self._length} bytes")
        del self._buffer[: at + mark_length]
        self._in_body, self._searched = True, 0
        return True

    def _take_body(self) -> bytes | None:
        if self._length is not None:
            if len(self._buffer) < self._length:
                return None
            body = bytes(memoryview(self._buffer)[: self._length])
            del self._buffer[: self._length]
            return body
        at = self._buffer.find(self._delimiter, self._searched)
        if at < 0:
            self._searched = max(0, len(self._buffer) - len(self._delimiter))
            if len(self._buffer) > LARGEST_JPEG:
                raise PartsBroken("a part does not end")
            return None
        # A boundary parameter that brings its own dashes may stand behind two more: they are no part of the body.
        body = bytes(self._buffer[:at]).removesuffix(b"--").rstrip(b"\r\n")
        del self._buffer[:at]
        return body


class Relay(Backend):
    """One HTTP connection to a camera elsewhere."""

    usual_settle_frames = 1  # the one that is on its way when a still is asked for
    has_stamps = False

    def open(self) -> Opened:
        parts = urlsplit(self.source.target)
        self.host = host_of(self.source.target)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        self.session = requests.Session()
        self.session.trust_env = False  # ~/.netrc and proxies of the environment have no say in a camera's address
        self.session.headers["User-Agent"] = f"camdock/{camdock.__version__}"
        if token := self.source.options.get("token"):
            self.session.headers["Authorization"] = f"Bearer {token}"
        response = self._get(urlunsplit(bare), unquote(parts.username or ""), unquote(parts.password or ""))
        kind, _, parameters = response.headers.get("Content-Type", "").partition(";")
        if "multipart" not in kind:
            raise SourceFailed(
                f"{self.host} answers {kind.strip() or 'no content type'}, which is no MJPEG stream",
                "an MJPEG address is needed: .../?action=stream, .../stream, .../video.mjpg"
                + ("; this one is a single picture" if "image/" in kind else ""),
            )
        boundary = next(
            (
                value.strip().strip('"')
                for name, _, value in (one.partition("=") for one in parameters.split(";"))
                if name.strip().lower() == "boundary"
            ),
            "",
        )
        if not boundary:
            raise SourceFailed(
                f"{self.host} names no boundary between its pictures", "it is no MJPEG stream as others send it"
            )
        self.response = response
        self.parts = Parts(boundary.encode("latin-1"))
        self.waiting: list[tuple[bytes, tuple[int, int], bool]] = []  # JPEG, its size, whether it is a notice
        self.next_at = 0.0
        first = self._first_picture()
        self.waiting.append(first)
        self.size = first[1]
        # How fast pictures come is the far end's business; less than one a second must be said, or it is a stall.
        slow = self.source.options.get("fps", 1.0)
        return Opened(self.source.redacted, f"MJPEG from {self.host}", self.size, slow if slow < 1 else 0.0, "MJPG")

    def _get(self, url: str, user: str, password: str) -> requests.Response:
        response = self._ask(url, None)
        if response.status_code == 401 and user:
            # The far end says which login it speaks; Digest is preferred, as Home Assistant prefers it.
            offered = response.headers.get("WWW-Authenticate", "").lower()
            response.close()
            login: AuthBase = (HTTPDigestAuth if "digest" in offered else HTTPBasicAuth)(user, password)
            response = self._ask(url, login)
        if response.status_code in (401, 403):
            raise SourceDenied(
                f"{self.host} refuses the login ({response.status_code})",
                "give user and password in the address (http://user:password@host/...), or #token=...",
            )
        if response.status_code in (404, 410):
            raise SourceMissing(f"{self.host} has nothing at this address ({response.status_code})", "look at the path")
        if not response.ok:
            raise SourceFailed(f"{self.host} answers {response.status_code} {response.reason}", "look at the far end")
        return response

    def _ask(self, url: str, login: AuthBase | None) -> requests.Response:
        try:
            return self.session.get(url, stream=True, timeout=(CONNECT_S, READ_S), auth=login)
        except requests.exceptions.SSLError as error:
            raise SourceDenied(
                f"{self.host}: the certificate is not trusted: {_root(error)}", "install its CA on this machine"
            ) from error
        except requests.exceptions.RequestException as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> CameraError:
        return SourceMissing(
            f"{self.host} does not answer: {_root(error)}", "is it switched on? it is tried every second"
        )

    def _read_some(self) -> None:
        """Read what is there, and put the newest whole pictures into `waiting`."""
        try:
            data = self.response.raw.read1(CHUNK, decode_content=False)
        except (HTTPError, OSError, ValueError) as error:
            raise self._lost(error) from error
        if not data:
            raise SourceMissing(f"{self.host} ended the stream", "it is tried again every second")
        try:
            for part in self.parts.feed(data):
                jpeg = whole_jpeg(part)
                size = jpeg and jpeg_size(jpeg)
                if jpeg and size:
                    self.waiting.append((jpeg, size, self.parts.is_notice))
                else:
                    self.drops["broken"] += 1
        except PartsBroken as error:
            raise SourceFailed(f"{self.host} sends what is no MJPEG stream: {error}", "look at the far end") from error

    def _first_picture(self) -> tuple[bytes, tuple[int, int], bool]:
        while not self.waiting:
            self._read_some()
        return self.waiting.pop(0)

    def read(self, wait_s: float) -> Picture | None:
        due = time.monotonic() + wait_s
        while True:
            if not self.waiting:
                self._read_some()
            if not self.waiting:
                if time.monotonic() > due:
                    return None
                continue
            if len(self.waiting) > 3:  # several came at once: the far end or the network held them back
                self.drops["late"] += len(self.waiting) - 1
                del self.waiting[:-1]
            jpeg, self.size, is_notice = self.waiting.pop(0)
            if fps := self.source.options.get("fps"):
                now = time.monotonic()
                if now < self.next_at:
                    if now > due:
                        return None
                    continue
                self.next_at = max(self.next_at + 1 / fps, now - 0.5 / fps)
            return Picture(self.size, time.monotonic_ns(), jpeg=jpeg, notice=is_notice)

    def still(self, wait_s: float) -> Picture | None:
        self.waiting.clear()
        picture = self.read(wait_s)
        if picture is not None and picture.notice:
            raise SourceMissing(f"{self.host} has no picture itself", "its stream says why")
        return picture

    def close(self) -> None:
        if hasattr(self, "response"):
            self.response.close()  # the session closes idle connections only
        self.session.close()


def _root(error: BaseException) -> str:
    """The innermost reason of requests' nested errors, which has the words that people know."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (getattr(error, "strerror", None) or str(error))[:200]
