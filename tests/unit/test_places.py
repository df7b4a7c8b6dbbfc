"""Folders and the port, by the doctor's eyes."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from camdock.doctor import places
from camdock.doctor.answer import Answer
from camdock.doctor.configuration import Known
from camdock.doctor.report import Check, Status
from tests.tools import certificate


def folder(path: Path) -> Check:
    """What is said of a folder."""
    return places.check_folder("settings", str(path), Answer(list(places.folder(str(path)))))


def test_a_folder_that_can_be_written_is_well_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    assert folder(tmp_path).status is Status.OK
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_nameless_files_is_tried_with_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # for writing: EISDIR, as such file systems answer
    assert folder(tmp_path).status is Status.OK
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_made_when_needed_where_that_can_be() -> None:
    found = folder(Path("/proc/camdock/state"))
    assert found.status is Status.BAD
    assert "/proc/camdock/state, which would be made in /proc, " in found.what
    assert "sudo install -d -o" in found.hint


def test_a_folder_yet_to_be_made_is_well_and_is_not_made(tmp_path: Path) -> None:
    found = folder(tmp_path / "a" / "b")
    assert found.status is Status.OK
    assert "made when it is needed" in found.what
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", ["in", "in/it"])
def test_a_folder_in_one_that_may_not_be_entered_is_a_matter_of_permission(inside: str) -> None:
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        closed = Path(open_to_all, "closed")
        closed.mkdir(mode=0)
        if was == 0:
            os.seteuid(65534)  # root passes over permissions
        try:
            found = folder(closed / inside)
        finally:
            os.seteuid(was)
    assert found.status is Status.BAD
    assert f"{closed}/{inside} lies in {closed}, which this user" in found.what
    assert "no permission" in found.what
    assert f"`sudo chmod o+x {closed}`" in found.hint


def test_little_room_is_worth_a_look_and_no_answer_is_wrong(tmp_path: Path) -> None:
    facts = next(places.folder(str(tmp_path)))
    nearly = {**facts, "free": 10_000_000, "size": 10**12}
    assert places.check_folder("settings", "/x", Answer([nearly])).status is Status.WARNING
    small = {**facts, "free": 60_000_000, "size": 64_000_000, "files": -1}  # a tmpfs of a container, nearly empty
    assert places.check_folder("settings", "/x", Answer([small])).status is Status.OK
    found = places.check_folder("settings", "/x", Answer(trouble="no answer within 7 s", hung=True))
    assert found.status is Status.BAD
    assert "findmnt -T /x" in found.hint


def port(number: int, host: str = "127.0.0.1") -> Check:
    """What is said of a port."""
    answer = Answer(list(places.port(host, number, "", tls=False, within_s=1)))
    return places.check_port(Known(host=host, port=number), answer)


def test_a_port_is_free_until_somebody_has_it_who_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        number = other.getsockname()[1]
        other.listen()
        held = port(number)
        assert held.status is Status.BAD
        # Our own process is the one that looks, which names only others.
        assert held.what == f"127.0.0.1:{number} is held by another process" or "another user" in held.what
    assert port(number).status is Status.OK


class Answering(http.server.BaseHTTPRequestHandler):
    """/health as Camdock answers it, with its cameras for who shows a token; notes what is shown."""

    def do_GET(self) -> None:
        shown = self.headers["Authorization"]
        self.server.shown.append(shown)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        cameras = [{"name": "camera"}] if shown else None
        said = {"status": "healthy", "abi": "ok", "cameras": cameras} if self.server.is_camdock else {}  # type: ignore[attr-defined]
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(*, tls: bool = False, is_camdock: bool = True) -> Iterator[tuple[int, list[str | None]]]:
    """The port that it answers on, and what was shown to it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.shown, server.is_camdock = [], is_camdock  # type: ignore[attr-defined]
    if tls:
        one = certificate.shared()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(one.cert, one.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1], server.shown  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(number: int, *, tls: bool = False) -> tuple[Check, Any]:
    """What is said of a port that a token is for, and what Camdock told there."""
    answer = Answer(list(places.port("127.0.0.1", number, "0123456789abcdef", tls=tls, within_s=5)))
    known = Known(host="127.0.0.1", port=number, token="0123456789abcdef", tls=tls)
    return places.check_port(known, answer), answer.given[-1]["health"]


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_camdock_is_asked_as_it_speaks_and_shown_the_token_second(*, tls: bool) -> None:
    with serving(tls=tls) as (number, shown):
        found, health = asked(number, tls=tls)
    assert found.status is Status.OK, found
    assert "Camdock answers" in found.what
    assert health["cameras"] == [{"name": "camera"}]
    assert shown == [None, "Bearer 0123456789abcdef"]


def test_a_stranger_is_not_shown_the_token() -> None:
    with serving(is_camdock=False) as (number, shown):
        found, _ = asked(number)
    assert found.status is Status.BAD
    assert shown == [None]


def test_what_another_user_runs_is_not_shown_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)  # whose socket it is then
    else:
        monkeypatch.setattr(os, "geteuid", lambda: was + 1)
    try:
        opened = serving()
        with opened as (number, shown):
            os.seteuid(was)
            found, health = asked(number)
    finally:
        os.seteuid(was)
    assert found.status is Status.OK
    assert "was not shown the token" in found.what
    assert (shown, health["cameras"]) == ([None], None)


def test_who_does_not_answer_in_time_is_named_and_not_called_a_stranger() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        first = next(iter(places.port("127.0.0.1", number, "", tls=False, within_s=1)))
    found = places.check_port(Known(port=number), Answer([first], "no answer within 2.0 s", hung=True))
    assert found.status is Status.UNKNOWN
    assert "which did not answer: no answer within 2.0 s" in found.what
    assert "--deadline" in found.hint


def test_an_address_that_this_machine_has_not_is_named() -> None:
    found = port(8000, "192.0.2.1")
    assert found.status is Status.BAD
    assert "no such address" in found.what
