"""`make deploy` for one machine: how it is named, what is asked there, which words are whose."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "ansible" / "one.py"
ANSWERS = {
    "system": "Debian", "machine": "aarch64", "board": "", "python": "3.13.5", "user": "pi", "sudo": "free",
    "release": "", "packages": "",
}  # fmt: skip


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with nothing of ours in the environment."""
    for name in ("HOST", "MODE", "SOURCE", "SOURCES", "PORT", "IMAGE", "YES"):
        monkeypatch.delenv(f"CAMDOCK_{name}", raising=False)
    spec = importlib.util.spec_from_file_location("one", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "one", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def begun(one: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Machines that were deployed to, each with the words for ansible-playbook; none is asked anything."""
    seen: list[tuple[str, list[str]]] = []

    def look(machine: Any) -> None:
        machine.answers, machine.devices = dict(ANSWERS), {"nodes": []}

    monkeypatch.setattr(one.Machine, "look", look)

    def deploy(machine: Any, given: Any) -> int:
        seen.append((machine.given, given.options))
        return 0

    monkeypatch.setattr(one, "deploy", deploy)
    return seen


def named(one: ModuleType, given: str, **answers: str) -> Any:
    machine = one.Machine(given)
    machine.check()
    machine.answers, machine.devices = {**ANSWERS, **answers}, {"nodes": []}
    return machine


@pytest.mark.parametrize(
    "words", [["--skip-tags", "purge"], ["-e", "purge_also_allow=[octo]"], ["--tags", "preflight", "-vv"]]
)
def test_words_for_ansible_are_no_machine(
    one: ModuleType, begun: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    assert one.main(["pi@camera.test", "--yes", *words]) == 0
    monkeypatch.setenv("CAMDOCK_HOST", "pi@camera.test")
    assert one.main(["--yes", *words]) == 0
    assert begun == [("pi@camera.test", words)] * 2


def test_a_word_of_ansible_is_not_taken_for_the_beginning_of_ours(
    one: ModuleType, begun: list[tuple[str, list[str]]]
) -> None:
    assert one.main(["camera.test", "--yes", "--so", "x"]) == 0
    assert begun == [("camera.test", ["--so", "x"])]


def test_without_a_machine_a_word_behind_an_option_is_none(
    one: ModuleType, begun: list[tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert one.main(["--yes", "--skip-tags", "purge"]) == 2
    assert "which machine?" in capsys.readouterr().err
    assert begun == []


@pytest.mark.parametrize("given", ["{{ 1 }}", "cam[1:3]", "pi@a,b", "a;b", "$(id)", "{{x}}@camera"])
def test_names_that_a_shell_or_ansible_would_take_apart_are_refused(one: ModuleType, given: str) -> None:
    with pytest.raises(one.CannotGoOn, match="names no machine"):
        one.Machine(given).check()


def test_a_machine_is_this_one_only_without_a_login(one: ModuleType) -> None:
    assert named(one, "localhost").is_local
    there = named(one, "pi@localhost")
    assert not there.is_local
    assert there.inventory()["cameras"]["hosts"]["localhost"]["ansible_user"] == "pi"


def test_root_needs_no_sudo_and_may_have_none(one: ModuleType) -> None:
    (about,) = named(one, "localhost", sudo="root").inventory()["cameras"]["hosts"].values()
    assert about == {"ansible_connection": "local", "ansible_become": False}
    (about,) = named(one, "localhost").inventory()["cameras"]["hosts"].values()
    assert "ansible_become" not in about


def test_how_ssh_is_called_again_is_told_with_the_port(one: ModuleType) -> None:
    assert named(one, "pi@camera.test").login == "pi@camera.test"
    assert named(one, "pi@camera.test:2222").login == "ssh://pi@camera.test:2222"
    assert named(one, "pi@camera.test").known_as == "camera.test"
    assert named(one, "pi@camera.test:2222").known_as == "'[camera.test]:2222'"


def test_where_the_pictures_are_is_an_address_that_a_browser_takes(one: ModuleType) -> None:
    given = one.argparse.Namespace(loopback=False, port=8000)
    assert one.address(named(one, "pi@[fe80::1]"), given).startswith("http://[fe80::1]:8000,")
    assert one.address(named(one, "camera.test"), given).startswith("http://camera.test:8000,")


def test_who_may_open_cameras_is_who_logs_in_and_never_root(one: ModuleType) -> None:
    given = one.argparse.Namespace(loopback=False, port=8000, mode="native", play="deploy")
    assert "let it and pi open cameras" in one.explanation(named(one, "camera.test"), given)
    assert "let it open cameras" in one.explanation(named(one, "root@camera.test", user="root", sudo="root"), given)


def test_a_password_for_sudo_needs_somebody_to_type_it(one: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    given = one.argparse.Namespace(options=[])
    asking = named(one, "pi@camera.test", sudo="asks")
    monkeypatch.setattr(one.sys, "stdin", io.StringIO())  # no terminal
    with pytest.raises(one.CannotGoOn, match="sudo asks for a password"):
        one.sudo_asks(asking, given)
    monkeypatch.setattr(one.sys.stdin, "isatty", lambda: True)
    assert one.sudo_asks(asking, given)
    given.options = ["--become-password-file=/x"]
    assert not one.sudo_asks(asking, given)
    assert not one.sudo_asks(named(one, "root@camera.test", sudo="root"), given)
    with pytest.raises(one.CannotGoOn, match="has no sudo"):
        one.sudo_asks(named(one, "pi@camera.test", sudo="none"), given)


def test_a_password_that_sudo_remembers_is_none(one: ModuleType, tmp_path: Path) -> None:
    """Ansible works in a session of its own, where what sudo remembers for a terminal does not count."""
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\ncase " $* " in *" -k "*) exit 1 ;; esac\n')
    sudo.chmod(0o755)
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)

    def asked(path: str) -> str:
        question: str = one.QUESTIONS["sudo"]
        return subprocess.check_output(["/bin/sh", "-s"], input=question, env={"PATH": path}, text=True).strip()

    assert asked(f"{tmp_path}:/usr/bin:/bin") == "asks"
    sudo.write_text("#!/bin/sh\nexit 0\n")
    assert asked(f"{tmp_path}:/usr/bin:/bin") == "free"
    sudo.unlink()
    assert asked(str(tmp_path)) == "none"


@pytest.mark.parametrize(("play", "words"), [("rollback", "the one that ran before it"), ("restore", "apt packages")])
def test_the_other_plays_are_explained_too_and_told_nothing_of_a_deployment(
    one: ModuleType, play: str, words: str
) -> None:
    given = one.argparse.Namespace(play=play, mode="native", source="v4l2:0", loopback=False, port=8000)
    shown = one.explanation(named(one, "camera.test", release="r1"), given)
    assert words in shown
    assert "release r1 is there" in shown
    assert one.variables(given) == {}
