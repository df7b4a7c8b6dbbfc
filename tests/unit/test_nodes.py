"""Devices by the doctor's eyes."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path

from camdock import devices
from camdock.devices import Node
from camdock.doctor import cameras, nodes
from camdock.doctor.answer import Answer
from camdock.doctor.nodes import Looked
from camdock.doctor.report import Status
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
    assert "worker is pid 812" in cameras.occupied(Source.parse(f"v4l2:{link}"), str(link), None, found)


def test_a_camera_that_rests_may_be_opened_and_one_that_runs_may_not() -> None:
    source = Source.parse("relay:http://me:hunter2@host/")
    for state, kept in (("live", True), ("starting", True), ("stalled", True), ("idle", False), ("offline", False)):
        health = {"cameras": [{"source": source.redacted, "state": state}]}
        assert bool(cameras.occupied(source, "", health, Looked())) is kept, state
        assert not cameras.occupied(Source.parse("synthetic:"), "", health, Looked())


def test_open_files_are_found_by_process(tmp_path: Path) -> None:
    path = tmp_path / "held"
    path.touch()
    with path.open("rb") as file, subprocess.Popen(["sleep", "60"], stdin=file) as holder:
        found, _closed = devices.holders([str(path), "/nowhere"])
        holder.kill()
    assert found == {str(path): {holder.pid: "sleep"}}, "this process has it too, and is not the question"
