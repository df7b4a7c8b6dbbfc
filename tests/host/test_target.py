"""The test bed itself: a target is a host as others are, and a play on it says what it did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.target import Play, Target, play


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target("trixie", told="by its inventory") as one:
        yield one


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    """A play that writes a file, and waits when it is told to."""
    file = tmp_path / "try.yml"
    file.write_text("""
- hosts: cameras
  gather_facts: false
  tasks:
    - name: Write
      ansible.builtin.copy:
        content: "{{ told }}, {{ given }}"
        dest: /etc/tried
        mode: "0644"
    - name: Stay
      ansible.builtin.command: sleep {{ stay | default(0) }}
      changed_when: false
""")
    return file


def test_a_play_changes_the_target_once_and_says_so(target: Target, playbook: Path) -> None:
    first = play(playbook, target, given="by the caller")
    assert first.recap[target.name]["changed"] == 1
    assert target.done("cat /etc/tried") == "by its inventory, by the caller"
    assert play(playbook, target, given="by the caller").recap[target.name]["changed"] == 0
    with pytest.raises(AssertionError, match="exit status 0, not 2"):
        play(playbook, target, given="by the caller", expect=2)


def test_a_killed_play_ends_at_once(target: Target, playbook: Path) -> None:
    begun = Play(playbook, target, given="x", stay=600)
    begun.until("TASK [Stay]")
    begun.kill()
    assert begun.status < 0
    assert begun.recap == {}


def test_a_reboot_loses_what_is_in_memory_keeps_the_disk_and_lets_ansible_in_again(
    target: Target, playbook: Path
) -> None:
    target.put("/etc/kept", "kept")
    for again in (target.reboot, target.power_cut):
        target.put("/run/lost", "lost")
        again()
        assert target.done("cat /etc/kept") == "kept"
        assert target.run("cat /run/lost").returncode == 1
        assert play(playbook, target, given="anything").recap[target.name]["ok"] == 2
    assert target.host.service("dbus").is_running
