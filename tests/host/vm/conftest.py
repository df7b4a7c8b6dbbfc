"""A Debian with a kernel, sshd and cameras of its own, to which Ansible comes as the user pi."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.tools.machine import Machine
from tests.tools.parts import Part, timed_parts
from tests.tools.service import Answer, Asked, Picture, Viewer
from tests.tools.target import PIP_CACHE, Target, play

CAMERA = "/dev/video0"
WITHIN_S = 180.0  # seconds elsewhere; an emulated processor beside much else takes ten times as long, and longer
# What the deployment is asked for. One small picture a second: the emulated processor has room for that.
WANTED = {
    "deploy_mode": "native",
    "deploy_extras": ["v4l2"],
    "deploy_source": f"v4l2:{CAMERA}?size=320x180&fps=1",
    # A service in which nobody looks gives the camera back; here it is to run on. A worker takes long to start here.
    "deploy_settings": {"CAMDOCK_LINGER_S": "0", "CAMDOCK_OPEN_TIMEOUT_S": "100"},
    "deploy_appear_s": WITHIN_S,
    "deploy_watch_s": 5,
}
# For the emulated processor alone, as an exception of this host that the deployment leaves in place.
SLOWLY = "[Service]\nTimeoutStartSec=300\nWatchdogSec=180\n"


@pytest.fixture(scope="session")
def part(request: pytest.FixtureRequest) -> Part:
    """part(name): says how long what is done within it took."""
    return timed_parts(request.config)


def builds() -> bytes:
    """/opt/camdock/builds as the same deployment makes it in a container of the same Debian, as a tar archive.

    Making it in the emulated processor would take ten minutes, and shows nothing about a kernel: the play in the
    machine finds the build complete, and does everything else.
    """
    with Target("trixie", ("python3-venv",), PIP_CACHE) as target:
        quick = {"deploy_source": "synthetic:", "deploy_gate": "live", "deploy_watch_s": 1, "deploy_appear_s": 60}
        play("deploy.yml", target, **{**WANTED, **quick})
        words = ["docker", "exec", target.name, "tar", "-c", "-C", "/opt/camdock", "builds"]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=120).stdout


class Booted:
    """The machine, as play() takes a host."""

    name = "machine"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.inventory: dict[str, Any] = {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": machine.port,
            "ansible_user": "pi",
            "ansible_ssh_private_key_file": str(machine.folder / "key"),
            "ansible_ssh_args": " ".join(machine.ssh[5:]),
            "ansible_pipelining": True,
        }


class Deployed(Asked):
    """The service in the machine, asked through a forwarded port with its token."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.find()

    def find(self) -> None:
        """A way to it, and its token; again after each reboot."""
        self.port = self.machine.forward(8000)
        self.login = {"Authorization": f"Bearer {self.machine.done('cat /etc/camdock/token').strip()}"}

    @property
    def log(self) -> str:
        """The end of its journal."""
        return self.machine.run("journalctl --no-pager --lines 60 --unit camdock").stdout.decode("utf-8", "replace")

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float = 0
    ) -> Answer:
        """One request; a busy emulated processor may take its time."""
        return super().ask(method, path, body, {**self.login, **(headers or {})}, timeout_s=WITHIN_S)

    def stream(self, path: str = "/stream", timeout_s: float = 0, headers: Mapping[str, str] | None = None) -> Viewer:
        """Open a stream as a viewer does."""
        return super().stream(path, WITHIN_S, {**self.login, **(headers or {})})

    def pictures(self, count: int = 2) -> list[Picture]:
        """So many of a live camera."""
        self.until_state("live", within_s=WITHIN_S)
        with self.stream() as viewer:
            return viewer.take(count)

    def process(self) -> str:
        """Which process it is, and how often systemd has restarted it."""
        return self.machine.done("systemctl show --property MainPID,NRestarts camdock")


@pytest.fixture(scope="session")
def machine(part: Part) -> Iterator[Machine]:
    """The machine with two cameras, those of each boot too, and with the build; nothing is deployed to it."""
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(builds)
        with part("boot"):
            one = Machine("trixie").__enter__()
        try:
            with part("build, beside it"):
                built = building.result()
            with part("cameras, build copied in"):
                one.done("echo options vivid n_devs=2 >/etc/modprobe.d/vivid.conf")
                one.done("echo vivid >/etc/modules-load.d/vivid.conf")
                one.done("modprobe vivid && udevadm settle", timeout_s=WITHIN_S)
                one.done("mkdir -p /opt/camdock && tar -x -C /opt/camdock", given=built, timeout_s=WITHIN_S)
                one.done("mkdir -p /etc/systemd/system/camdock.service.d")
                one.done("cat >/etc/systemd/system/camdock.service.d/slowly.conf", given=SLOWLY.encode())
            yield one
        finally:
            one.__exit__()


@pytest.fixture(scope="session")
def service(machine: Machine, part: Part) -> Deployed:
    """The service, deployed by a person who logs in as pi."""
    # A node as an earlier rule or a person may leave it: the play puts it right.
    machine.done("chgrp root /dev/video4 && chmod 600 /dev/video4")
    assert machine.run("getent passwd camdock").returncode != 0
    assert machine.run(f"exec 3<>{CAMERA}", user="pi").returncode != 0, "pi is in no group for cameras"
    with part("deploy.yml"):
        play("deploy.yml", Booted(machine), **WANTED)  # type: ignore[arg-type]
    return Deployed(machine)
