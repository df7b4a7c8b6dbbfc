"""What a refused camera says: the line that mends it, where it has to be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from camdock import devices
from camdock.backends import v4l2
from camdock.errors import SourceDenied


def hint(number: int, path: Path) -> str:
    error = v4l2.error_of(OSError(number, os.strerror(number)), str(path))
    assert isinstance(error, SourceDenied)
    assert str(path) in error.message
    return error.hint


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of a device; only its group and its mode are looked at."""
    path = tmp_path / "video0"
    path.touch()
    looks_like(path, 0o20660, 27, monkeypatch)
    return path


def looks_like(node: Path, mode: int, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **more: os.stat_result((mode, 0, 0, 1, 0, group, 0, 0, 0, 0))
        if path == str(node) else real(path, **more),
    )  # fmt: skip


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / ".dockerenv"
    mark.touch()
    monkeypatch.setattr(devices, "IN_CONTAINER", (str(mark),))


def test_on_a_machine_it_names_the_group_and_for_a_container_its_number(
    node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "IN_CONTAINER", (str(tmp_path / "absent"),))
    monkeypatch.setattr(v4l2.grp, "getgrgid", lambda _: v4l2.grp.struct_group(("camera", "x", 7, [])))
    said = hint(errno.EACCES, node)
    assert "usermod -aG camera USER" in said
    assert "--group-add 27`" in said


@pytest.mark.usefixtures("container")
def test_in_a_container_it_names_the_number_of_the_node_s_group_alone(node: Path) -> None:
    said = hint(errno.EACCES, node)
    assert said == """`--group-add 27`, in compose.yaml `group_add: ["27"]`"""


@pytest.mark.usefixtures("container")
def test_a_container_that_lacks_the_device_rule_is_told_the_rule(node: Path) -> None:
    assert "--device-cgroup-rule 'c 81:* rw'" in hint(errno.EPERM, node)
    assert "group" not in hint(errno.EPERM, node).replace("cgroup", "")


@pytest.mark.parametrize(("mode", "group"), [(0o20600, 0), (0o20660, 0), (0o20600, 27), (0o20640, 27)])
@pytest.mark.usefixtures("container")
def test_no_container_is_given_the_group_root_or_one_that_may_not_open_it_either(
    node: Path, mode: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_like(node, mode, group, monkeypatch)
    said = hint(errno.EACCES, node)
    assert f"on the machine itself: `sudo chgrp video {node} && sudo chmod 660 {node}`" in said
    assert "group_add" not in said
