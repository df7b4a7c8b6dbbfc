"""The machine by the doctor's eyes: which lines of a kernel are about video, groups, two OpenCVs, limits."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from camdock.doctor import machine
from camdock.doctor.answer import Answer
from camdock.doctor.report import Status


@pytest.mark.parametrize(
    ("line", "about", "trouble"),
    [
        ("uvcvideo 1-1:1.0: Found UVC 1.00 device HD Webcam C270 (046d:0825)", True, False),
        ("uvcvideo: Failed to query (GET_CUR) UVC control 11 on unit 2: -110 (exp. 1).", True, True),
        ("usb 1-1.2: USB disconnect, device number 5", True, True),
        ("usb 1-1.2: device descriptor read/64, error -71", True, True),
        ("unicam fe801000.csi: Failed to start media pipeline: -22", True, True),
        ("hwmon hwmon1: Undervoltage detected!", True, True),
        ("imx708 10-001a: camera module ID 0x0301", True, False),
        ("scsi host0: ahci", False, False),
        ("EXT4-fs error (device sda1)", False, True),
        ("usb 1-1: New USB device found, idVendor=046d", False, False),
    ],
)
def test_lines_about_video_are_told_from_others(line: str, about: bool, trouble: bool) -> None:
    assert bool(machine.VIDEO.search(line)) is about
    assert bool(machine.TROUBLE.search(line)) is trouble


def test_trouble_counts_for_an_hour_and_a_log_that_may_not_be_read_is_unknown() -> None:
    line = [5000.0, True, "uvcvideo: it failed"]
    assert machine.check_kernel({"lines": [line]}, "").status is Status.OK
    found = machine.check_kernel({"lines": [[60.0, *line[1:]]]}, "")
    assert found.status is Status.WARNING
    assert found.details["lines"] == ["60 s ago: uvcvideo: it failed"]
    assert machine.check_kernel({"lines": None}, "").status is Status.UNKNOWN
    assert "sudo dmesg" in machine.check_kernel({"lines": None}, "").hint


def test_a_group_that_this_session_does_not_know_of_is_named() -> None:
    facts: dict[str, Any] = {"uid": 1000, "name": "pi", "groups": {"pi": 1000}, "missed": ["video"]}
    found = machine.check_user(facts, "")
    assert found.status is Status.WARNING
    assert "put into group video" in found.what
    assert machine.check_user({**facts, "missed": ["games"]}, "").status is Status.OK


def test_two_opencvs_in_one_place_are_named() -> None:
    found = machine.versions()
    assert machine.check_versions(found, "").status is Status.OK
    twice = {**found, "opencv-python": "4.9.0", "opencv-python-headless": "5.0.0"}
    check = machine.check_versions(twice, "")
    assert check.status is Status.WARNING
    assert "pip uninstall -y opencv-python opencv-python-headless" in check.hint


def test_a_container_with_little_memory_or_killed_processes_is_worth_a_look() -> None:
    facts = {"memory": 512_000_000, "used": 1, "killed": 0, "cpus": 1.0, "pids": 512, "read_only": True,
             "capabilities": "0" * 16, "inside": True}  # fmt: skip
    assert machine.check_limits(facts, "").status is Status.OK
    assert "memory 512 MB, 1 processors, 512 processes, root read-only" in machine.check_limits(facts, "").what
    assert machine.check_limits({**facts, "memory": 64_000_000}, "").status is Status.WARNING
    assert "3 processes" in machine.check_limits({**facts, "killed": 3}, "").what


def test_parts_that_never_came_are_unknown_with_the_reason_and_the_others_are_told() -> None:
    answer = Answer(
        [{"versions": machine.versions()}, {"limits": {"inside": False}}], "no answer within 7 s", hung=True
    )
    found = {check.name: check for check in machine.checks(answer)}
    assert found["versions"].status is Status.OK
    assert found["user"].status is Status.UNKNOWN
    assert "no answer within 7 s" in found["user"].what
    assert "no answer within 7 s" in found["engine"].what
    assert found["engine"].status is Status.UNKNOWN
    assert "does not answer" not in found["engine"].what, "there may be none"


def test_an_engine_that_does_not_answer_is_told_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DOCKER_SOCKET", str(tmp_path / "socket"))
    monkeypatch.setattr(machine, "ENGINE_WITHIN_S", 0.1)
    assert "no Docker engine here" in machine.check_engine(machine.engine(), "").what
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(machine.DOCKER_SOCKET)
        silent.listen()
        found = machine.check_engine(machine.engine(), "")
    assert (found.status, found.what) == (Status.WARNING, "the Docker engine does not answer: timed out")
