"""What a refused camera says: the line that mends it, where it has to be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from camdock.backends import v4l2
from camdock.errors import SourceDenied


def hint(number: int, path: Path) -> str:
    error = v4l2.error_of(OSError(number, os.strerror(number)), str(path))
    assert isinstance(error, SourceDenied)
    assert str(path) in error.message
    return error.hint


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A file in place of a device; only its group is looked at."""
    path = tmp_path / "video0"
    path.touch()
    return path


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / ".dockerenv"
    mark.touch()
    monkeypatch.setattr(v4l2, "IN_CONTAINER", (str(mark),))


def test_on_a_machine_it_names_the_group_and_for_a_container_its_number(
    node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(v4l2, "IN_CONTAINER", (str(tmp_path / "absent"),))
    monkeypatch.setattr(v4l2.grp, "getgrgid", lambda _: v4l2.grp.struct_group(("camera", "x", 7, [])))
    said = hint(errno.EACCES, node)
    assert "usermod -aG camera USER" in said
    assert f"--group-add {node.stat().st_gid}`" in said


@pytest.mark.usefixtures("container")
def test_in_a_container_it_names_the_number_of_the_node_s_group_alone(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **more: os.stat_result((0o20660, 0, 0, 1, 0, 27, 0, 0, 0, 0))
        if path == str(node) else real(path, **more),
    )  # fmt: skip
    said = hint(errno.EACCES, node)
    assert said == """`--group-add 27`, in compose.yaml `group_add: ["27"]`"""


@pytest.mark.usefixtures("container")
def test_a_container_that_lacks_the_device_rule_is_told_the_rule(node: Path) -> None:
    assert "--device-cgroup-rule 'c 81:* rw'" in hint(errno.EPERM, node)
    assert "group" not in hint(errno.EPERM, node).replace("cgroup", "")
