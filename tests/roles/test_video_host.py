"""What the role video leaves alone on a host because it is as wanted, and what it does not."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

LIBRARY = Path(__file__).parents[2] / "ansible" / "roles" / "video" / "library"
ACCOUNT = {"comment": "Camdock camera service", "home": "/nonexistent", "shell": "/usr/sbin/nologin"}
RULES = 'SUBSYSTEM=="media", GROUP="video", MODE="0660"\n'


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the role. It needs nothing of Ansible but AnsibleModule, which is not used here."""
    for one in ("ansible", "ansible.module_utils"):
        monkeypatch.setitem(sys.modules, one, ModuleType(one))
    monkeypatch.setitem(sys.modules, "ansible.module_utils.basic", SimpleNamespace(AnsibleModule=None))
    spec = importlib.util.spec_from_file_location(name, LIBRARY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the user ---------------------------------------------------------------------------------------------------------


def user(**changed: Any) -> SimpleNamespace:
    usual = {"pw_uid": 10001, "pw_gid": 10001, "pw_gecos": ACCOUNT["comment"], "pw_dir": ACCOUNT["home"]}
    return SimpleNamespace(**{**usual, "pw_shell": ACCOUNT["shell"], **changed})


@pytest.mark.parametrize(
    ("changed", "groups", "expected"),
    [
        ({}, ["video", "render"], True),
        ({}, ["video", "camdock-gid-4242"], False),
        ({}, ["video", "audio"], False),
        ({"pw_uid": 10002}, ["video"], False),
        ({"pw_gid": 44}, ["video"], False),
        ({"pw_gecos": ""}, ["video"], False),
        ({"pw_dir": "/home/camdock"}, ["video"], False),
        ({"pw_shell": "/bin/sh"}, ["video"], False),
    ],
)
def test_a_user_is_left_alone_only_where_it_is_as_wanted_in_every_word(
    changed: dict[str, Any], groups: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loaded("video_groups", monkeypatch)
    known = {"camdock": (10001, []), "video": (44, ["camdock"]), "render": (105, ["pi", "camdock"]), "audio": (29, [])}

    def getgrnam(name: str) -> SimpleNamespace:
        gid, members = known[name]
        return SimpleNamespace(gr_gid=gid, gr_mem=members)

    monkeypatch.setattr(module, "grp", SimpleNamespace(getgrnam=getgrnam))
    monkeypatch.setattr(module, "pwd", SimpleNamespace(getpwnam={"camdock": user(**changed)}.__getitem__))
    assert module.is_member("camdock", (10001, 10001), ACCOUNT, groups) is expected
    assert not module.is_member("eve", (10001, 10001), ACCOUNT, groups), "who is not there"


# --- the rules --------------------------------------------------------------------------------------------------------


@pytest.fixture
def udev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    module = loaded("video_udev", monkeypatch)
    monkeypatch.setattr(module, "OWNER", (os.getuid(), tmp_path.stat().st_gid))
    return module


def test_rules_are_written_whole_and_then_left_alone(udev: Any, tmp_path: Path) -> None:
    file = tmp_path / "rules.d" / "99-camdock-video.rules"
    assert udev.is_as_wanted(str(file), RULES) == (False, "")
    udev.write(str(file), RULES)
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing beside it"
    assert udev.is_as_wanted(str(file), RULES) == (True, RULES)
    assert udev.is_as_wanted(str(file), RULES + "#\n") == (False, RULES)
    file.chmod(0o666)
    assert udev.is_as_wanted(str(file), RULES) == (False, RULES)


def test_a_link_in_the_place_of_the_rules_is_replaced_and_what_it_names_stays(udev: Any, tmp_path: Path) -> None:
    other, file = tmp_path / "other", tmp_path / "99-camdock-video.rules"
    other.write_text(RULES)
    file.symlink_to(other)
    assert udev.is_as_wanted(str(file), RULES) == (False, RULES)
    udev.write(str(file), RULES)
    assert not file.is_symlink()
    assert other.read_text() == RULES


def test_rules_that_are_not_wanted_go_and_none_is_as_wanted_then(udev: Any, tmp_path: Path) -> None:
    file = tmp_path / "99-camdock-video.rules"
    assert udev.is_as_wanted(str(file), "") == (True, "")
    udev.write(str(file), RULES)
    assert udev.is_as_wanted(str(file), "") == (False, RULES)
    udev.write(str(file), "")
    assert not file.exists()
