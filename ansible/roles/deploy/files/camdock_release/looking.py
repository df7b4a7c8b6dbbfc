"""Asking one release over HTTP, and looking at its streams."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from camdock_release.store import Release

ASK_WITHIN_S = 2.0
LOOK_WITHIN_S = 5.0
AGAIN_S = 0.1
LARGEST_ANSWER = 4 << 20
LARGEST_PICTURE = 64 << 20


class Asker:
    """Asks the service of one release over HTTP, with the host's token.

    HTTP/1.0 without a Host header: whatever names CAMDOCK_ALLOWED_HOSTS lists, this is answered.
    """

    def __init__(self, release: Release, token_file: Path) -> None:
        self._where = (release.address, release.port)
        self._tls: ssl.SSLContext | None = None
        if release.tls:
            # Its certificate is for its name, and not for the address that is asked from this same host.
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._token = ""
        with contextlib.suppress(OSError):
            self._token = token_file.read_text("utf-8").strip()

    @contextlib.contextmanager
    def open(self, path: str, within_s: float = ASK_WITHIN_S) -> Iterator[http.client.HTTPResponse]:
        """An answer, its body not yet read. Raises OSError, http.client.HTTPException."""
        with self._connected(within_s) as connection:
            lines = [f"GET {path} HTTP/1.0", *([f"Authorization: Bearer {self._token}"] if self._token else [])]
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            response = http.client.HTTPResponse(connection)
            response.begin()
            with response:
                yield response

    def _connected(self, within_s: float) -> socket.socket:
        connection = socket.create_connection(self._where, within_s)
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection)
        except BaseException:
            connection.close()
            raise

    def get(self, path: str) -> tuple[int, Any]:
        """The status and the JSON of one answer. Raises OSError, http.client.HTTPException, ValueError."""
        with self.open(path) as response:
            return response.status, json.loads(response.read(LARGEST_ANSWER))


class Viewer(threading.Thread):
    """Looks at one camera's stream, as a person would, again and again when it ends.

    pictures  so many came
    digests   of the first two that differ: one alone means that it is always the same picture
    """

    def __init__(self, asker: Asker, camera: str) -> None:
        super().__init__(daemon=True, name=camera)
        self._asker, self._path = asker, f"/cameras/{camera}/stream"
        self._over = threading.Event()
        self.pictures = 0
        self.digests: set[bytes] = set()

    def run(self) -> None:
        """Until `leave`."""
        while not self._over.is_set():
            with (
                contextlib.suppress(OSError, ValueError, http.client.HTTPException),
                self._asker.open(self._path, LOOK_WITHIN_S) as response,
            ):
                if response.status == http.HTTPStatus.OK:
                    self._look(response)
            self._over.wait(AGAIN_S)

    def _look(self, response: http.client.HTTPResponse) -> None:
        """Read the parts by their headers; raises ValueError where there is something else."""
        while not self._over.is_set():
            if not (line := response.readline(1000)):
                return
            if not line.startswith(b"--"):
                continue
            length = int(http.client.parse_headers(response)["Content-Length"] or 0)
            if not 0 < length <= LARGEST_PICTURE:
                raise ValueError("a part without a usable length")
            if len(jpeg := response.read(length)) < length:
                return
            if len(self.digests) < 2:
                self.digests.add(hashlib.sha256(jpeg).digest())
            self.pictures += 1

    def leave(self) -> None:
        """Stop looking; does not wait for the end."""
        self._over.set()
