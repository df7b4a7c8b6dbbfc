"""Folders and the port, by the doctor's eyes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from camdock.doctor import places
from camdock.doctor.answer import Answer
from camdock.doctor.configuration import Known
from camdock.doctor.report import Check, Status


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
    return places.check_port(Known(host=host, port=number), Answer(list(places.port(host, number, ""))))


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


def test_an_address_that_this_machine_has_not_is_named() -> None:
    found = port(8000, "192.0.2.1")
    assert found.status is Status.BAD
    assert "no such address" in found.what
