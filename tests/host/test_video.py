"""The role video on hosts in containers: everything but the kernel's side, which a virtual machine shows (vm/)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.containers import ROOT
from tests.tools.target import Play, Target, play

pytestmark = pytest.mark.timeout(900)

RULES = "/etc/udev/rules.d/99-camdock-video.rules"
# The null device under a camera's name: it opens for whom permissions let in, and is no camera's driver.
NULL = "c 1 3"
NOBODY = "c 5 0"  # the terminal of a process that has none
V4L2 = "c 81 0"  # a camera's numbers, which a container is not given

# No hardware: these files say to the role that there is a Raspberry Pi, and stand for what it starts from.
PI = {
    "video_device_tree_model": "/fake/model",
    "video_config_txt_files": ["/fake/absent/config.txt", "/fake/config.txt"],
    "video_raspi_firmware": "/fake/raspi-firmware",
    "video_rpi_issue": "/fake/rpi-issue",
    "video_pi_packages": {"debian": [], "raspberry-pi-os": []},
}
REBOOT = re.compile(r"TASK \[[^]]*Reboot, as video_reboot allows\] \*+\nchanged")
CONFIG = "dtparam=audio=on\ncamera_auto_detect=1\n\n[pi4]\narm_boost=1\n"


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The role, alone."""
    file = tmp_path_factory.mktemp("video") / "video.yml"
    file.write_text(f"""
- hosts: cameras
  become: true
  gather_subset: ["!all", "!min", distribution, env]
  vars: {{ansible_pipelining: true}}
  roles: [{ROOT}/ansible/roles/video]
""")
    return file


@pytest.fixture(scope="module")
def host(playbook: Path) -> Iterator[Target]:
    """A host on which the role has run."""
    with Target("trixie") as target:
        play(playbook, target)
        yield target


def changes(done: Play) -> int:
    """How many tasks have changed something, all hosts together."""
    return sum(numbers["changed"] for numbers in done.recap.values())


@pytest.mark.parametrize("release", ["trixie", "bookworm"])
def test_a_bare_host_gets_the_user_and_the_rules_and_the_second_run_changes_nothing(
    playbook: Path, release: str
) -> None:
    with Target(release) as target:
        promised = play(playbook, target, options=("--check", "--diff"))
        assert '+SUBSYSTEM=="dma_heap"' in promised.output
        assert target.run(f"getent passwd camdock || getent group camdock || test -e {RULES}").returncode != 0
        assert changes(play(playbook, target)) == changes(promised) == 3, "rules, group, user: what was promised"
        user = target.host.user("camdock")
        assert (user.uid, user.gid, user.group) == (10001, 10001, "camdock")
        assert (user.home, user.shell) == ("/nonexistent", "/usr/sbin/nologin")
        present = {"camdock", "video", "render"} & {line.split(":")[0] for line in target.done("getent group").split()}
        assert set(user.groups) == present
        rules = target.host.file(RULES)
        assert (rules.user, rules.mode) == ("root", 0o644)
        assert rules.content_string.count('GROUP="video", MODE="0660"') == 3
        for options in ((), ("--check", "--diff")):
            again = play(playbook, target, options=options)
            assert changes(again) == 0, again.output
        assert "No udev runs here" in again.output
        assert "No camera is there" in again.output


def test_a_host_that_must_have_a_camera_fails_without(playbook: Path, host: Target) -> None:
    failed = play(playbook, host, expect=2, video_require_camera=True)
    assert "video_require_camera wants one" in failed.output


def test_the_number_that_a_node_carries_counts_also_when_it_has_no_name(playbook: Path, host: Target) -> None:
    host.done(
        f"mknod /dev/video6 {NULL} && chgrp 4242 /dev/video6 && mknod /dev/video7 {NOBODY} && chgrp video /dev/video7"
    )
    try:
        host.done("chmod 660 /dev/video6 /dev/video7")
        as_the_user = "runuser -u camdock -- sh -c 'exec 3<>/dev/video6'"
        assert host.run(as_the_user).returncode != 0
        done = play(playbook, host)
        assert "camdock opens /dev/video6" in done.output
        assert "/dev/video7 is a node that no driver answers behind" in done.output
        host.done(as_the_user)
        assert changes(play(playbook, host)) == 0
    finally:
        host.done("rm /dev/video6 /dev/video7")


def test_cameras_that_do_not_open_fail_the_play_each_with_its_reason(playbook: Path, host: Target) -> None:
    reasons = {
        "/dev/video1": (NULL, "root", "600", "is closed to its own group"),
        "/dev/video2": (NULL, "root", "660", "belongs to root's group"),
        "/dev/video3": (NULL, "disk", "660", "is not in that group and is not put into it"),
        "/dev/video4": (V4L2, "video", "660", "the kernel's device list refuses"),
    }
    for node, (numbers, group, mode, _) in reasons.items():
        host.done(f"mknod {node} {numbers} && chgrp {group} {node} && chmod {mode} {node}")
    try:
        failed = play(playbook, host, expect=2)
        told = play(playbook, host, options=("--check",))
    finally:
        host.done(f"rm {' '.join(reasons)}")
    for node, (_, _, _, why) in reasons.items():
        for done in (failed, told):
            assert re.search(rf"{node} \(group [^()]*\)[^()]*{why}", done.output), f"{node}: {done.output}"
    assert set(host.host.user("camdock").groups).isdisjoint({"root", "disk"})


UNIT = "[Service]\nUser={user}\nExecStart=/bin/sleep infinity\n"


def test_a_service_that_runs_without_its_groups_is_restarted_once(playbook: Path, host: Target) -> None:
    def groups(pid: str) -> set[str]:
        return set(host.done(f"sed -n 's/^Groups://p' /proc/{pid}/status").split())

    def main_pid() -> str:
        return host.done("systemctl show --property MainPID --value camdock.service")

    video = str(host.host.group("video").gid)
    host.put("/run/systemd/system/camdock.service", UNIT.format(user="camdock"))
    host.done("gpasswd -d camdock video && systemctl daemon-reload && systemctl start camdock")
    before = main_pid()
    try:
        assert video not in groups(before)
        promised = play(playbook, host, options=("--check",))
        assert main_pid() == before
        first = play(playbook, host)
        assert changes(first) == changes(promised) == 3, "the membership, what the service lacks, its restart"
        after = main_pid()
        assert after != before
        assert video in groups(after)
        assert f"camdock.service (pid {before}) was started before" in first.output
        assert changes(play(playbook, host)) == 0
        assert main_pid() == after, "not restarted again"
        # In container mode the unit's process is root's `docker compose`, which lacks nothing.
        host.put("/run/systemd/system/camdock.service", UNIT.format(user="root"))
        host.done("systemctl daemon-reload && systemctl restart camdock")
        after = main_pid()
        assert changes(play(playbook, host)) == 0
        assert main_pid() == after
    finally:
        host.done("systemctl stop camdock; rm /run/systemd/system/camdock.service; systemctl daemon-reload")


def test_people_are_given_the_groups_and_told_to_log_in_anew(playbook: Path, host: Target) -> None:
    host.done("useradd --groups users pi")
    done = play(playbook, host, video_users=["pi"])
    assert {"video", "users"} <= set(host.host.user("pi").groups)
    assert "pi: the groups video" in done.output
    assert changes(play(playbook, host, video_users=["pi"])) == 0


@pytest.fixture
def pi(host: Target) -> Iterator[Target]:
    """The host, as if it were a Raspberry Pi."""
    host.put("/fake/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    host.put("/fake/config.txt", CONFIG)
    yield host
    host.done("rm -r /fake")


def test_a_raspberry_pi_gets_its_lines_in_one_block_and_is_as_before_without(playbook: Path, pi: Target) -> None:
    # As Debian itself has it on a Pi: each kernel writes config.txt anew, with the lines of raspi-firmware-custom.
    pi.put("/fake/raspi-firmware", "#CMA=64M\n")
    asked: dict[str, Any] = {**PI, "video_config_txt": ["dtoverlay=imx477", "gpu_mem=76"], "video_cma_mb": 256}
    # In check mode: a container's reboot would take the connection along.
    promised = play(playbook, pi, options=("--check", "--diff"), video_reboot=True, **asked)
    assert "+dtoverlay=imx477" in promised.output
    assert REBOOT.search(promised.output)
    assert pi.done("cat /fake/config.txt") + "\n" == CONFIG
    done = play(playbook, pi, **asked)
    assert changes(done) == changes(promised) - 1 == 1, "all that was promised but the reboot"
    assert not REBOOT.search(done.output)
    assert "reboot it, or set video_reboot: true" in done.output
    written = pi.done("cat /fake/config.txt")
    assert written.startswith(CONFIG), "nothing of it is lost"
    for block in (written.removeprefix(CONFIG), pi.done("cat /fake/raspi-firmware-custom")):
        first, *lines, last = block.strip().splitlines()
        assert lines == ["[all]", "dtoverlay=imx477", "gpu_mem=76", "dtoverlay=cma,cma-256"]
        assert first.startswith("# BEGIN Camdock")
        assert last.startswith("# END Camdock")
    assert pi.done("cat /fake/config.txt.*~") + "\n" == CONFIG, "a copy of it as it was"
    assert changes(play(playbook, pi, **asked)) == 0
    gone = play(playbook, pi, video_state="absent", **asked)
    assert changes(gone) == 2, "the block and the rules"
    assert pi.done("cat /fake/config.txt") + "\n" == CONFIG
    assert "imx477" not in pi.done("cat /fake/raspi-firmware-custom")
    assert pi.run(f"test -e {RULES}").returncode != 0
    assert pi.host.user("camdock").exists
    assert changes(play(playbook, pi, **PI)) == 1, "the rules are back"


def test_debians_camera_stack_is_installed_without_what_it_recommends(playbook: Path, pi: Target) -> None:
    stack = {name: value for name, value in PI.items() if name != "video_pi_packages"}
    promised = play(playbook, pi, options=("--check",), **stack)
    assert "apt would install python3-libcamera, libcamera-ipa" in promised.output
    assert changes(play(playbook, pi, **stack)) == changes(promised) == 1
    pi.done("python3 -c 'import libcamera; libcamera.CameraManager.singleton().cameras'")
    again = play(playbook, pi, **stack)
    assert changes(again) == 0
    assert "video_apt_release: trixie-backports" in again.output


def test_what_cannot_be_is_refused_in_sentences_before_anything_changes(playbook: Path, host: Target) -> None:
    host.done("useradd --uid 10777 bob && groupadd --gid 10778 choir")
    wrong: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        (
            {"video_user": "eve", "video_uid": 10777, "video_gid": 10778, "video_users": ["stranger"],
             "video_config_txt": ["dtoverlay=imx477"]},
            ("uid 10777 belongs to bob", "gid 10778 belongs to the group choir",
             "names stranger, whom this host does not know", "are for a Raspberry Pi, which this host is not by"),
        ),
        (
            {"video_uid": 10779, "video_gid": 10779, "video_board": "raspberry-pi", "video_cma_mb": 256},
            ("The user camdock is there already, with uid 10001", "The group camdock is there already, with gid 10001",
             "Is /boot/firmware mounted?"),
        ),
        ({"video_uid": "ten", "video_state": "gone"}, ("cannot be converted to an int", "one of: present, absent")),
        ({"ansible_become": True, "ansible_become_user": "bob"}, ("Ansible works as bob, who is not root",)),
    ]  # fmt: skip
    try:
        for given, reasons in wrong:
            refused = play(playbook, host, expect=2, **given)
            for why in reasons:
                assert why in " ".join(refused.output.split())
            assert changes(refused) == 0
    finally:
        host.done("userdel bob; groupdel choir")
    assert host.run("getent passwd eve").returncode != 0


def test_a_second_overlay_for_contiguous_memory_is_refused(playbook: Path, pi: Target) -> None:
    pi.put("/fake/config.txt", CONFIG + "dtoverlay=vc4-kms-v3d\n")
    refused = play(playbook, pi, expect=2, video_cma_mb=256, **PI)
    assert "write dtoverlay=vc4-kms-v3d,cma-256 there" in refused.output
    assert "Camdock" not in pi.done("cat /fake/config.txt")


def test_another_system_is_refused_in_a_sentence(playbook: Path) -> None:
    with Target("trixie") as target:
        target.put("/etc/os-release", 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n')
        refused = play(playbook, target, expect=2)
        assert f"{target.name} runs Ubuntu 24.04" in refused.output
        assert "knows Debian and Raspberry Pi OS 12 (bookworm) and 13 (trixie)" in refused.output
        assert changes(refused) == 0
        assert target.run("getent passwd camdock").returncode != 0
