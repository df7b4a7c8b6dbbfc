"""Devices by the doctor's eyes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from camdock import devices
from camdock.devices import Node
from camdock.doctor import cameras, drivers, nodes
from camdock.doctor.answer import Answer
from camdock.doctor.asking import ask
from camdock.doctor.nodes import Looked
from camdock.doctor.report import Status
from camdock.guard import Guard
from camdock.source import Source


def looked(**more: object) -> Looked:
    """One camera that this user may not open."""
    node = Node("/dev/video0", "video", 81, 0, 44, "video", "660", name="C920", captures=True, may_open=False)
    found = Looked([node])
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_a_node_that_may_not_be_opened_is_named_with_the_group_that_may() -> None:
    found = nodes.check(looked())
    assert [check.status for check in found] == [Status.OK, Status.WARNING]
    assert "mode 660, group video" in found[1].what
    assert "sudo usermod -aG video $USER" in found[1].hint


def test_who_may_not_be_seen_is_said_and_what_hangs_is_bad() -> None:
    found = nodes.check(looked(closed=7, hanging={"/dev/video0": "no answer within 2.0 s"}))
    told = {(check.name, check.status) for check in found}
    assert {("holders", Status.UNKNOWN), ("devices", Status.BAD)} <= told


def test_what_could_not_be_asked_is_unknown_and_nobodys_fault() -> None:
    found = nodes.check(looked(unasked={"/dev/video0": "no answer within 0.3 s"}))
    (unknown,) = [check for check in found if check.status is Status.UNKNOWN]
    assert "/dev/video0 could not be asked" in unknown.what
    assert "--deadline" in unknown.hint
    assert not [check for check in found if check.status is Status.BAD]


@pytest.mark.parametrize("left_s", [-0.1, 0.01], ids=["none", "little"])
def test_a_camera_for_which_no_time_was_left_is_unknown(left_s: float) -> None:
    guard, source = Guard(), Source.parse("synthetic:?size=64x64")
    try:
        (found,) = asyncio.run(cameras.check("camera", source, "", None, Looked(), guard, time.monotonic() + left_s))
    finally:
        guard.stop()
    assert found.status is Status.UNKNOWN
    assert "was not tried" in found.what
    assert "--deadline" in found.hint


def test_each_answer_has_its_time_from_the_one_before_and_the_first_as_long_as_there_is() -> None:
    guard = Guard()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        arguments = {"host": "127.0.0.1", "port": silent.getsockname()[1], "token": "", "tls": False, "within_s": 60}
        try:
            answer = asyncio.run(ask("port", arguments, guard, time.monotonic() + 30, 0.1))
        finally:
            guard.stop()
    assert answer.given[0]["asking"], "starting took longer than what each may take, and that is no matter"
    assert len(answer.given) == 1
    assert answer.hung
    assert 0.1 <= answer.waited_s < 15


def test_formats_say_first_that_they_are_about_to_begin() -> None:
    said = list(drivers.formats(["/dev/null"]))
    assert said[0] == {"loaded": True}
    assert [one["path"] for one in said[1:]] == ["/dev/null"]


def test_without_a_video_node_that_is_said() -> None:
    (found,) = nodes.check(Looked())
    assert found.status is Status.WARNING
    assert "no /dev/video*" in found.what


def test_a_device_is_known_by_every_name_of_it_and_a_worker_keeps_it(tmp_path: Path) -> None:
    node, link = tmp_path / "video0", tmp_path / "by-id"
    node.touch()
    link.symlink_to(node)
    answer = Answer([
        asdict(devices.Found([Node(str(node), "video", 81, 0, 44, "video", "660")], "", has_udev=True, groups={})),
        {"holders": {str(node): [[812, "python", True], [813, "guvcview", False]]}, "closed": 0},
    ])  # fmt: skip
    found = Looked.of(answer)
    assert found.held(str(link)) == "pid 812 (python) and pid 813 (guvcview)"
    assert found.worker(str(link)) == 812
    assert found.to_ask() == [], "its driver is not asked while a Camdock has it"
    assert "worker is pid 812" in cameras.occupied("front", Source.parse(f"v4l2:{link}"), str(link), None, found)


def test_a_camera_that_rests_may_be_opened_and_one_that_runs_may_not() -> None:
    source = Source.parse("relay:http://me:hunter2@host/")
    for state, kept in (("live", True), ("starting", True), ("stalled", True), ("idle", False), ("offline", False)):
        health = {"cameras": [{"source": source.redacted, "state": state}]}
        assert bool(cameras.occupied("front", source, "", health, Looked())) is kept, state
        assert not cameras.occupied("front", Source.parse("synthetic:"), "", health, Looked())


def test_what_auto_has_become_in_the_service_is_known_by_the_cameras_name() -> None:
    auto = Source.parse("auto")
    health = {"cameras": [{"name": "camera", "source": "v4l2:/dev/video0", "state": "live"}]}
    assert cameras.occupied("camera", auto, "", health, Looked())
    assert not cameras.occupied("other", auto, "", health, Looked())
    assert not cameras.occupied("camera", Source.parse("v4l2:/dev/video4"), "", health, Looked()), "another one by now"


def test_auto_is_in_use_where_any_camera_is_and_not_opened_where_one_hangs() -> None:
    auto = Source.parse("auto")
    held = looked(holders={"/dev/video0": [(812, "python", True)]})
    assert "worker is pid 812" in cameras.occupied("camera", auto, "", None, held)
    guard = Guard()
    try:
        hanging = looked(hanging={"/dev/video0": "no answer within 2.0 s"})
        (found,) = asyncio.run(cameras.check("camera", auto, "", None, hanging, guard, time.monotonic() + 5))
    finally:
        guard.stop()
    assert found.status is Status.BAD
    assert "was not opened: /dev/video0 does not answer" in found.what


def test_open_files_are_found_by_process(tmp_path: Path) -> None:
    path = tmp_path / "held"
    path.touch()
    with path.open("rb") as file, subprocess.Popen(["sleep", "60"], stdin=file) as holder:
        found, _closed = devices.holders([str(path), "/nowhere"])
        holder.kill()
    assert found == {str(path): {holder.pid: "sleep"}}, "this process has it too, and is not the question"
