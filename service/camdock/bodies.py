"""What a request brings: a limit on every body, and an upload read whole, in memory and in time.

Runs in: the API process. No byte of a picture is looked at here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camdock.errors import ImageUnreadable, RequestInvalid, UploadTooLarge, UploadTooSlow, UploadUnsupported
from camdock.problems import Refused
from camdock.proxies import path_of

MOST_BYTES = 64 << 10  # of a body that is no upload
MOST_FIELDS = 8
AROUND_BYTES = 64 << 10  # of a form, beside its picture
ARRIVED_WITHIN_S = 60.0
SMALL_WITHIN_S = 10.0  # a body that is no upload
FORM = b"multipart/form-data"


def _too_large(most_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"the body is larger than {most_bytes:,} bytes", "send a smaller picture, or less of it")


def _declared(length: bytes) -> int:
    """What Content-Length says; 0 where it says nothing. The server has refused what is no number."""
    return int(length) if length.isdigit() else 0


def _no_form(why: object) -> RequestInvalid:
    return RequestInvalid(
        f"the form cannot be read: {why}", "it is multipart/form-data, as curl -F and browsers write it"
    )


class BodyLimit:
    """Refuses with 413 what is longer than any request's body needs to be, and with 408 what does not arrive.

    But for the paths that take uploads, which have limits of their own.
    """

    def __init__(self, app: ASGIApp, uploads: Collection[str], most_bytes: int = MOST_BYTES) -> None:
        self._app = app
        self._uploads = frozenset(uploads)
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, with its body counted."""
        if scope["type"] != "http" or path_of(scope) in self._uploads:
            await self._app(scope, receive, send)
            return
        left = self._most_bytes
        due: float | None = asyncio.get_running_loop().time() + SMALL_WITHIN_S

        async def counted() -> Message:
            nonlocal left, due
            try:
                async with asyncio.timeout_at(due):
                    message = await receive()
            except TimeoutError:
                late = UploadTooSlow(
                    f"the body did not arrive within {SMALL_WITHIN_S:g} s",
                    "send all of it at once, and as many bytes as Content-Length says",
                )
                raise Refused(late, {"Connection": "close"}) from None
            if not message.get("more_body"):
                due = None  # what is received from here on is that the client leaves
            left -= len(message.get("body", b""))
            if left < 0 or declared > self._most_bytes:
                raise Refused(
                    UploadTooLarge(
                        f"the body is larger than {self._most_bytes:,} bytes",
                        "send what GET /docs lists for this address; pictures go to POST /images/process",
                    )
                )
            return message

        async def answering(message: Message) -> None:
            nonlocal due
            due = None  # a body that nobody reads is not waited for
            await send(message)

        declared = _declared(dict(scope["headers"]).get(b"content-length", b""))
        await self._app(scope, counted, answering)


@dataclass(frozen=True, slots=True)
class Upload:
    """What came: the bytes of a picture, the JSON of its operations; None where there was none."""

    picture: bytes | None = None
    operations: str | None = None


class _Form:
    """A multipart form, taken apart as it arrives. Only `file` and `operations` are known."""

    def __init__(self, boundary: bytes) -> None:
        self._found: dict[str, bytes] = {}
        self._fields = 0
        self._ended = False
        config: Any = {"MAX_MEMORY_FILE_SIZE": 1 << 40}  # never to disk: the whole is limited
        try:
            self._parser = FormParser(
                "multipart/form-data", self._on_field, self._on_file, self._on_end, boundary=boundary, config=config
            )
        except FormParserError as error:
            raise _no_form(error) from error

    def write(self, data: bytes) -> None:
        """The next bytes. Raises RequestInvalid."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _no_form(error) from error

    def upload(self) -> Upload:
        """What was in it. Raises RequestInvalid."""
        if not self._ended:
            raise _no_form("it lacks its end")
        operations = self._found.get("operations")
        return Upload(self._found.get("file"), None if operations is None else operations.decode("utf-8", "replace"))

    def _on_end(self) -> None:
        self._ended = True

    def _on_field(self, field: Any) -> None:
        self._keep(field.field_name, field.value or b"")

    def _on_file(self, file: Any) -> None:
        file.file_object.seek(0)
        self._keep(file.field_name, file.file_object.read())

    def _keep(self, name: bytes | None, value: bytes) -> None:
        self._fields += 1
        known = (name or b"").decode("latin-1")
        if self._fields > MOST_FIELDS or known not in ("file", "operations") or known in self._found:
            raise RequestInvalid(f"the form has a field {known[:40]!r}", "it takes `file` and `operations`, once each")
        self._found[known] = value


async def read_upload(request: Request, most_bytes: int) -> Upload:
    """The picture in a request's body, raw or in a form; an empty one where there is no body.

    most_bytes  of the picture
    raises      UploadTooLarge, UploadTooSlow, UploadUnsupported, RequestInvalid, ImageUnreadable
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    form = kind == FORM
    limit = most_bytes + (AROUND_BYTES if form else 0)
    if _declared(request.headers.get("content-length", "").encode("latin-1")) > limit:
        raise _too_large(most_bytes)
    if form and not options.get(b"boundary"):
        raise RequestInvalid("the form has no boundary", "let the client write the Content-Type of a form")
    into = _Form(options[b"boundary"]) if form else None
    raw = bytearray()
    try:
        async with asyncio.timeout(ARRIVED_WITHIN_S):
            await _read(request, limit, into.write if into else raw.extend, most_bytes)
    except TimeoutError:
        raise UploadTooSlow(
            f"the picture did not arrive within {ARRIVED_WITHIN_S:g} s", "send a smaller one, or over a faster line"
        ) from None
    except ClientDisconnect:
        raise ImageUnreadable("the picture ended before its end", "send it again") from None
    upload = into.upload() if into else Upload(bytes(raw) if raw else None)
    if not into and raw and not kind.startswith(b"image/"):
        raise UploadUnsupported(
            f"a body of type {kind.decode('latin-1')[:60]!r} is taken for no picture",
            "send it as multipart/form-data with a field `file`, or as it is with `Content-Type: image/jpeg`",
        )
    if upload.picture is not None and len(upload.picture) > most_bytes:
        raise _too_large(most_bytes)
    return upload


async def _read(request: Request, limit: int, take: Callable[[bytes], None], most_bytes: int) -> None:
    came = 0
    async for chunk in request.stream():
        came += len(chunk)
        if came > limit:
            raise _too_large(most_bytes)
        take(chunk)
