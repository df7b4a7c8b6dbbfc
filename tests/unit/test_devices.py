"""`camdock devices` on made-up machines: real device nodes, real links and groups, below a folder of its own."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from camdock import devices

ROOT = Path(__file__).resolve().parents[2]
GROUPS = "root:x:0:\nvideo:x:44:pi\nrender:x:992:\nplugdev:x:46:\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine with /dev and /etc/group, and no camera."""
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "CI=true, and device nodes can only be made by root"
        pytest.skip("device nodes can only be made by root")
    (tmp_path / "dev").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text(GROUPS)
    return tmp_path


def plug(
    machine: Path, name: str, major: int = 81, minor: int = 0, *, group: int = 44, mode: int = 0o660, says: str = ""
) -> None:
    """A device node as udev would leave it."""
    path = machine / "dev" / name
    path.parent.mkdir(exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
    path.chmod(mode)
    os.chown(path, 0, group)
    if says:
        about = machine / "sys/class/video4linux" / name
        about.mkdir(parents=True)
        (about / "name").write_text(f"{says}\n")


def make_a_pi(machine: Path) -> None:
    """The nodes of a Raspberry Pi 4, with numbers that one kernel gave them."""
    (machine / "proc/device-tree").mkdir(parents=True)
    (machine / "proc/device-tree/model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    (machine / "run/udev").mkdir(parents=True)
    plug(machine, "video0", says="unicam-image")
    plug(machine, "media0", 237, 0)
    plug(machine, "media3", 237, 3)
    plug(machine, "dma_heap/linux,cma", 251, 0)
    plug(machine, "dma_heap/system", 251, 1)
    plug(machine, "vchiq", 239, 0)


def service_of(text: str) -> dict[str, Any]:
    """What the override says of the service."""
    service: dict[str, Any] = yaml.safe_load(text)["services"]["camdock"]
    return service


def test_without_a_camera_the_lines_still_let_one_in_that_is_plugged_in_later(machine: Path) -> None:
    found = devices.look(machine)
    assert devices.lines(found).rules.keys() == {"c 81:* rw"}
    assert devices.lines(found).groups.keys() == {"44"}
    assert devices.lines(found).mounts.keys() == {"/dev:/dev:ro"}
    assert service_of(devices.compose(found)) == {}, "compose.yaml has them all"
    said = "\n".join(devices.words(found))
    assert "No /dev/video*" in said
    assert "the test card is served" in said


def test_a_camera_is_named_by_the_link_that_survives_replugging(machine: Path) -> None:
    plug(machine, "video0", says="Logi C920")
    links = machine / "dev/v4l/by-id"
    links.mkdir(parents=True)
    (links / "usb-Logi_C920_42-video-index0").symlink_to("../../video0")
    found = devices.look(machine)
    assert devices.sources(found) == [
        "Logi C920: CAMDOCK_SOURCE=v4l2:/dev/v4l/by-id/usb-Logi_C920_42-video-index0"
    ]  # fmt: skip
    assert found.nodes[0].links == ["/dev/v4l/by-id/usb-Logi_C920_42-video-index0"]
    assert service_of(devices.compose(found)) == {}


def test_numbers_are_read_from_the_nodes_and_groups_from_this_machine(machine: Path) -> None:
    (machine / "etc/group").write_text("root:x:0:\nvideo:x:39:\n")
    plug(machine, "video2", group=39)
    plug(machine, "video10", minor=10, group=46)
    found = devices.look(machine)
    assert [node.path for node in found.nodes] == ["/dev/video2", "/dev/video10"]
    assert list(devices.lines(found).groups) == ["39", "46"]
    assert service_of(devices.compose(found)) == {"group_add": ["39", "46"]}


def test_a_raspberry_pi_gets_the_rules_of_its_kernel_and_the_list_of_devices(machine: Path) -> None:
    make_a_pi(machine)
    found = devices.look(machine)
    service = service_of(devices.compose(found))
    assert service["device_cgroup_rules"] == ["c 237:* rw", "c 251:* rw", "c 239:* rw"], "and 81 is in compose.yaml"
    assert service["group_add"] == ["992"]
    assert service["volumes"] == ["/run/udev:/run/udev:ro"]
    assert "libcamera, which the image camdock:picamera2 has" in "\n".join(devices.words(found))


def test_another_board_gets_none_of_what_a_pi_needs(machine: Path) -> None:
    make_a_pi(machine)
    (machine / "proc/device-tree/model").write_bytes(b"Radxa ROCK 5B\0")
    assert service_of(devices.compose(devices.look(machine))) == {}


def test_a_pi_that_lacks_something_is_told_what(machine: Path) -> None:
    make_a_pi(machine)
    (machine / "dev/vchiq").unlink()
    (machine / "run/udev").rmdir()
    found = devices.look(machine)
    said = "\n".join(devices.words(found))
    assert "Not there: /dev/vchiq" in said
    assert "Not there: /run/udev" in said
    assert "/run/udev:/run/udev:ro" not in devices.lines(found).mounts


@pytest.mark.parametrize(
    ("group", "mode", "words"),
    [
        (44, 0o600, "sudo chgrp video /dev/video0 && sudo chmod 660 /dev/video0"),
        (0, 0o660, "belongs to group root, which no container is given"),
    ],
)
def test_a_node_that_no_group_opens_is_named_with_what_mends_it(
    machine: Path, group: int, mode: int, words: str
) -> None:
    plug(machine, "video0", group=group, mode=mode)
    found = devices.look(machine)
    assert words in "\n".join(devices.words(found))
    assert list(devices.lines(found).groups) == ["44"], "group root is never given away"


def test_a_node_that_this_user_may_not_open_is_the_containers_all_the_same(machine: Path) -> None:
    plug(machine, "video0")
    os.chmod(machine, 0o755)  # pytest's own folders are for their owner alone
    command = [sys.executable, "-c", (
        "import os, sys; from pathlib import Path; from camdock import devices; os.setgroups([]); "
        "os.chroot(sys.argv[1]); os.setgid(65534); os.setuid(65534); found = devices.look(Path('/')); "
        "print(devices.words(found)); print(devices.lines(found).groups)"
    ), str(machine)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "/dev/video0 may not be opened by you (uid 65534)" in done.stdout
    assert "sudo usermod -aG video $USER" in done.stdout
    assert "'44': 'video'" in done.stdout


def test_what_a_device_calls_itself_cannot_become_a_line_of_the_file(machine: Path) -> None:
    plug(machine, "video0", says="evil\r\x85\u2028    privileged: true\x00\x1b[2J # ' \"")
    text = devices.compose(devices.look(machine))
    assert service_of(text) == {}
    assert "privileged" in text, "the name is shown"
    assert all("privileged" not in line for line in text.splitlines() if not line.startswith("#"))


def test_a_file_or_a_dead_link_named_like_a_camera_is_none(machine: Path) -> None:
    (machine / "dev/video0").write_text("")
    (machine / "dev/video1").symlink_to("nowhere")
    assert devices.look(machine).nodes == []


def test_the_run_command_is_one_shell_line_with_the_same_lines(machine: Path) -> None:
    make_a_pi(machine)
    words = shlex.split(devices.run(devices.look(machine)))
    given = [words[at + 1] for at, word in enumerate(words) if word == "--device-cgroup-rule"]
    assert given == ["c 81:* rw", "c 237:* rw", "c 251:* rw", "c 239:* rw"]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--group-add"] == ["44", "992"]
    assert "/run/udev:/run/udev:ro" in words
    assert "--privileged" not in words
    assert words[-1] == "camdock:current"


def test_run_and_compose_file_agree(machine: Path) -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["camdock"]
    words = shlex.split(devices.run(devices.look(machine)))
    for tmpfs in service["tmpfs"]:
        assert tmpfs in words
    for word in ("--read-only", "--cap-drop", "ALL", "no-new-privileges", str(service["pids_limit"])):
        assert word in words
    assert {*service["device_cgroup_rules"], *service["group_add"]} == set(devices.IN_COMPOSE[:2])
    assert devices.IN_COMPOSE[2] in service["volumes"]


def test_it_runs_from_a_plain_clone_without_anything_installed(machine: Path) -> None:
    make_a_pi(machine)
    command = ["python3", "-I", "-S", "-c", (
        "import sys; sys.path.insert(0, 'service'); from camdock.__main__ import main; sys.exit(main(sys.argv[1:]))"
    ), "devices", "--root", str(machine)]  # fmt: skip
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [node["path"] for node in answer["nodes"]][:2] == ["/dev/video0", "/dev/media0"]
    plain = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "services" in yaml.safe_load(plain.stdout), "words do not get into the file"
    assert "Raspberry Pi 4" in plain.stderr


def test_a_wrong_root_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert devices.main(["--root", "/nowhere"]) == 2
    assert "/nowhere/dev is no folder" in capsys.readouterr().err
