"""Hosts for Ansible, in containers with a systemd of their own, and playbooks run on them as a person runs them.

    with Target("trixie") as target:
        done = play("deploy.yml", target, deploy_mode="native")
        assert done.recap[target.name]["changed"] > 0

They share this kernel: whatever needs one of its own (drivers, udev) is shown in a virtual machine (machine.py).
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import testinfra
from testinfra.host import Host

from tests.tools.cannot import cannot
from tests.tools.containers import ROOT, docker, inspect, new_name
from tests.tools.service import until

RECIPE = ROOT / "tests" / "testbed" / "target" / "Dockerfile"
UP_WITHIN_S = 60.0
PLAY_WITHIN_S = 900.0
# A pip cache that all targets may share, as options of a Target: what one has fetched, the next one has.
PIP_CACHE = ("--volume", "camdock-target-pip:/var/cache/camdock/pip")
# What systemd needs, and an engine in there; --privileged asks for more than every machine has.
_SYSTEMD = (
    "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE", "--cap-add", "SYS_TIME",
    "--cap-add", "AUDIT_CONTROL", "--cap-add", "SYSLOG", "--cap-add", "DAC_READ_SEARCH", "--cap-add", "SYS_NICE",
    "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--cgroupns", "private",
    "--tmpfs", "/run", "--tmpfs", "/run/lock", "--volume", "/var/lib/docker", "--volume", "/var/lib/containerd",
)  # fmt: skip


def image_of(release: str, packages: tuple[str, ...] = ()) -> str:
    """The image of such a host, built where the engine does not have it yet."""
    recipe = RECIPE.read_bytes() + " ".join(packages).encode()
    base = f"debian:{release}-slim"
    if docker("image", "inspect", base, check=False).returncode != 0:
        cannot(f"there is no image {base}: make host says how to get it")
    recipe += inspect(base)["Id"].encode()
    tag = f"camdock-target:{release}-{zlib.crc32(recipe):08x}"
    if docker("image", "inspect", tag, check=False).returncode != 0:
        docker(
            "build", "--tag", tag, "--build-arg", f"BASE={base}", "--build-arg", f"PACKAGES={' '.join(packages)}",
            RECIPE.parent, within_s=600,
        )  # fmt: skip
    return tag


@cache
def ssh_folder() -> Path:
    """Where this process keeps its key, and the sockets of its connections; made once, and short: see ControlPath."""
    folder = Path(tempfile.mkdtemp(prefix="camdock-ssh-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    except FileNotFoundError:
        cannot("ssh-keygen is not installed: apt install openssh-client")
    return folder


class Target:
    """One host; gone at the end of the context. Ansible comes to it as to any other: over SSH, here as root.

    release   of Debian: "trixie" or "bookworm"
    packages  what it has from the start, beside what every Debian has
    options   words for `docker run`: PIP_CACHE, ("--tmpfs", "/opt:size=600m")
    vars      its own variables in the inventory
    """

    alive: list[Target] = []  # noqa: RUF012 - for whoever reports a failure

    def __init__(
        self, release: str, packages: tuple[str, ...] = (), options: tuple[str, ...] = (), **variables: Any
    ) -> None:
        self.release, self.vars, self.name = release, variables, new_name(release)
        self._words = (*options, image_of(release, packages))

    def __enter__(self) -> Self:
        docker("run", "--detach", "--tty", "--name", self.name, *_SYSTEMD, *self._words)
        self.alive.append(self)
        try:
            self.until_up()
            self.put("/root/.ssh/authorized_keys", (ssh_folder() / "key.pub").read_text())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.alive.remove(self)
        self._hang_up()
        docker("rm", "--force", "--volumes", self.name)

    @property
    def _ssh(self) -> tuple[str, ...]:
        """Options of ssh: one connection for all that is done on this host, and no question to anybody."""
        # Each container of an image has the same key, under another address each time.
        return (
            "-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o", f"ControlPath={self._socket}",
            "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ServerAliveInterval=30",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        )  # fmt: skip

    @property
    def _socket(self) -> Path:
        return ssh_folder() / self.name

    def _hang_up(self) -> None:
        """End that connection: of a host that goes away nobody would hear."""
        if self._socket.exists():
            words = ["ssh", "-F", "none", "-o", f"ControlPath={self._socket}", "-O", "exit", self.name]
            subprocess.run(words, check=False, capture_output=True, timeout=30)

    @property
    def inventory(self) -> dict[str, Any]:
        """What an inventory says of it."""
        return {
            "ansible_connection": "ssh",
            "ansible_host": self.address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(ssh_folder() / "key"),
            "ansible_ssh_args": shlex.join(("-F", "none", *self._ssh)),
            **self.vars,
        }

    def until_up(self) -> None:
        """Wait until its systemd has started everything; an sshd that was killed is started again a moment later."""

        def up() -> bool:
            said = self.run("systemctl is-system-running --wait; systemctl is-active ssh").stdout.split()
            return said in (["running", "active"], ["degraded", "active"])

        until(up, UP_WITHIN_S, lambda: f"{self.name} is up; {self.run('systemctl --failed').stdout}", 0.1)

    def reboot(self) -> None:
        """Stop everything in order, and start it again; what is not on a disk (/run, /tmp) is gone."""
        self._hang_up()
        docker("restart", "--time", "60", self.name, within_s=120)
        self.until_up()

    def power_cut(self) -> None:
        """Reboot it without a word to anybody in there."""
        self._hang_up()
        docker("kill", self.name)
        docker("start", self.name)
        self.until_up()

    def run(self, command: str, *, user: str = "root", within_s: float = 120) -> subprocess.CompletedProcess[str]:
        """A line of shell inside."""
        return docker("exec", "--user", user, self.name, "bash", "-c", command, check=False, within_s=within_s)

    def done(self, command: str, *, user: str = "root", within_s: float = 120) -> str:
        """A line of shell inside that must succeed; what it printed, without the last line's end."""
        ended = self.run(command, user=user, within_s=within_s)
        assert ended.returncode == 0, f"{command}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended.stdout.rstrip("\n")

    def put(self, path: str, text: str) -> None:
        """A file inside, its folder made."""
        self.copy_in_bytes(path, text.encode())

    def copy_in_bytes(self, path: str, content: bytes) -> None:
        """The same with any content."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.name, "sh", "-c", 'mkdir -p "$(dirname "$0")" && cat >"$0"', path],
            input=content, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    @property
    def address(self) -> str:
        """Its IP address, as reached from here; another one after a reboot."""
        networks: dict[str, dict[str, str]] = inspect(self.name)["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    @cached_property
    def host(self) -> Host:
        """The same host, to testinfra."""
        return testinfra.get_host(f"docker://{self.name}")

    @property
    def log(self) -> str:
        """The end of its journal."""
        return self.run("journalctl --no-pager --lines 80 --output short-monotonic").stdout


# --- playbooks --------------------------------------------------------------------------------------------------------


class Play:
    """`ansible-playbook`, running.

    status, output, seconds  once it has ended: exit status, all that it printed, how long it took
    recap                    its last lines, as numbers: recap["host"]["changed"]
    """

    def __init__(self, playbook: str | Path, *targets: Target, options: tuple[str, ...] = (), **variables: Any) -> None:
        program = Path(sys.executable).with_name("ansible-playbook")
        if not program.exists():
            cannot("ansible is not installed: make host")
        self._folder = Path(tempfile.mkdtemp(prefix="camdock-play-"))
        hosts = {one.name: one.inventory for one in targets}
        inventory, given = self._folder / "inventory.json", self._folder / "given.json"
        inventory.write_text(json.dumps({"cameras": {"hosts": hosts}}))
        given.write_text(json.dumps(variables))
        # Nothing of the person's own settings, and nothing in colour.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment |= {
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_HOME": str(self._folder / "ansible"),
            "LC_ALL": "C.UTF-8",
        }
        self.output, self.status, self.seconds = "", -1, 0.0
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [program, "--inventory", inventory, "--extra-vars", f"@{given}", *options, ROOT / "ansible" / playbook],
            cwd=self._folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._more:
                    self.output += line
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def until(self, text: str, within_s: float = PLAY_WITHIN_S) -> None:
        """Wait until it has printed this; fails when it ends without."""
        with self._more:
            self._more.wait_for(lambda: text in self.output or self._ended, within_s)
            assert text in self.output, f"never said {text!r}:\n{self.output}"

    def kill(self) -> None:
        """End it as the power cut does, with all its processes here; what runs on the targets goes on."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.wait()

    def wait(self, within_s: float = PLAY_WITHIN_S) -> Self:
        """Wait until it has ended; it is killed when it takes longer."""
        try:
            self.status = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"the play takes longer than {within_s:g} s:\n{self.output}") from None
        finally:
            self._reader.join()
            self.seconds = time.monotonic() - self._began
            shutil.rmtree(self._folder, ignore_errors=True)
        return self

    @cached_property
    def recap(self) -> dict[str, dict[str, int]]:
        """Its last lines: how many tasks of each host were ok, changed, unreachable, failed, skipped ..."""
        lines = self.output.partition("PLAY RECAP")[2].splitlines()
        return {
            line.partition(" ")[0]: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}
            for line in lines
            if "changed=" in line
        }


def play(
    playbook: str | Path,
    *targets: Target,
    options: tuple[str, ...] = (),
    expect: int | None = 0,
    **variables: Any,
) -> Play:
    """Run a playbook of ansible/ on the targets, in the group `cameras`, and wait for its end.

    options    words for ansible-playbook: ("--check", "--diff")
    expect     the exit status that it must have; None: any. Fails with all that it printed
    variables  extra ones, stronger than any other
    """
    done = Play(playbook, *targets, options=options, **variables).wait()
    if expect is not None:
        assert done.status == expect, f"exit status {done.status}, not {expect}:\n{done.output}"
    return done
