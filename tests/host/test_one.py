"""`make deploy HOST=...`: one machine, over real SSH, as a person types it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tools.containers import ROOT
from tests.tools.target import PIP_CACHE, Target

SCRIPT = ROOT / "ansible" / "one.py"
pytestmark = pytest.mark.timeout(900)  # a play takes its time, a first one most of all


@dataclass
class Pi:
    """A machine that is reached over SSH, and what reaches it."""

    target: Target
    folder: Path
    host: str = "pi@camera.test"

    @property
    def config(self) -> Path:
        """For ssh -F, with the address that it has now."""
        file = self.folder / "config"
        file.write_text(
            f"Host camera.test\n  HostName {self.target.address}\n  IdentityFile {self.folder / 'key'}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.folder / 'known'}\n"
        )
        return file


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with nobody at the keyboard."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CAMDOCK_", "ANSIBLE_"))}
    return subprocess.run(
        [sys.executable, SCRIPT, *words], env={**kept, "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def typed(answer: str, *words: str) -> tuple[int, str]:
    """The command at a terminal, where somebody answers its question; exit status and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(SCRIPT), *words])
    shown, answered, due = b"", False, time.monotonic() + 60
    while time.monotonic() < due:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            more = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
        if b"[y/N]" in shown and not answered:
            os.write(terminal, answer.encode() + b"\n")
            answered = True
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.fixture(scope="module")
def pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pi]:
    folder = tmp_path_factory.mktemp("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    with Target("trixie", packages=("python3-numpy",), options=PIP_CACHE) as target:
        target.done("useradd --create-home --shell /bin/bash pi")
        target.put("/etc/sudoers.d/pi", "pi ALL=(ALL) NOPASSWD: ALL\n")
        target.put("/home/pi/.ssh/authorized_keys", (folder / "key.pub").read_text())
        target.done("chown -R pi:pi /home/pi/.ssh && chmod -R go= /home/pi/.ssh")
        key = target.done("cat /etc/ssh/ssh_host_ed25519_key.pub")
        (folder / "known").write_text(f"{target.address} {key}\ncamera.test {key}\n")
        yield Pi(target, folder)


def test_it_explains_asks_once_and_does_nothing_without_a_yes(pi: Pi) -> None:
    status, shown = typed("n", pi.host, "--ssh-config", str(pi.config))
    assert status == 0, shown
    assert "Debian GNU/Linux 13 (trixie)" in shown
    assert "remove python3-numpy" in shown
    assert "for whoever has the token" in shown
    assert shown.count("[y/N]") == 1
    assert shown.rstrip().endswith("Nothing was changed.")
    assert pi.target.run("ls /opt/camdock /etc/camdock").returncode == 2
    assert pi.target.host.package("python3-numpy").is_installed


def test_with_nobody_to_ask_it_does_nothing(pi: Pi) -> None:
    done = run(pi.host, "--ssh-config", str(pi.config))
    assert done.returncode == 2
    assert "YES=1" in done.stderr
    assert pi.target.run("ls /opt/camdock").returncode == 2


def test_one_yes_and_it_serves_with_a_token(pi: Pi) -> None:
    done = run("--ssh-config", str(pi.config), CAMDOCK_HOST=pi.host, CAMDOCK_YES="1", CAMDOCK_SOURCE="synthetic:")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The token: ssh pi@camera.test sudo cat /etc/camdock/token" in done.stdout
    token = pi.target.done("cat /etc/camdock/token")
    assert token not in done.stdout + done.stderr
    ask = f"curl --silent --output /dev/null --write-out '%{{http_code}}' http://{pi.target.address}:8000/snapshot"
    assert subprocess.run(f"{ask} -H 'Authorization: Bearer {token}'", shell=True, capture_output=True).stdout == b"200"
    assert subprocess.run(ask, shell=True, capture_output=True).stdout == b"401"
    again = run(pi.host, "--ssh-config", str(pi.config), "--yes", "--check", CAMDOCK_SOURCE="synthetic:")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "is there; it is kept" in again.stdout
    assert "changed=0" in again.stdout


def test_with_nothing_to_go_back_to_a_rollback_says_so_and_the_service_goes_on(pi: Pi) -> None:
    serves = pi.target.done("systemctl show camdock --property=InvocationID")
    done = run("--play", "rollback", pi.host, "--ssh-config", str(pi.config), "--yes")
    assert done.returncode == 2, done.stdout
    assert "start the one that ran before it" in done.stdout
    assert re.search(r"There is no release before \S+ to go\s+back to", done.stdout), done.stdout
    assert pi.target.done("systemctl show camdock --property=InvocationID") == serves


def test_what_was_removed_for_it_is_put_back(pi: Pi) -> None:
    assert not pi.target.host.package("python3-numpy").is_installed
    done = run("--play", "restore", pi.host, "--ssh-config", str(pi.config), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pi.target.host.package("python3-numpy").is_installed


def test_a_machine_that_lets_nobody_in_is_explained(pi: Pi) -> None:
    stranger = pi.folder / "stranger"
    stranger.write_text(pi.config.read_text().replace(str(pi.folder / "known"), "/dev/null"))
    unknown = run(pi.host, "--ssh-config", str(stranger))
    assert unknown.returncode == 2
    assert "say once that you know this machine: ssh pi@camera.test" in unknown.stderr
    keyless = run("nobody@camera.test", "--ssh-config", str(pi.config))
    assert keyless.returncode == 2
    assert "ssh-copy-id nobody@camera.test" in keyless.stderr
    closed = run("pi@camera.test:1", "--ssh-config", str(pi.config))
    assert closed.returncode == 2
    assert "Connection refused" in closed.stderr


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=touch${IFS}/tmp/x", "pi@-oX", "pi@camera:ssh", "pi@camera:70000", "a b"]
)
def test_what_names_no_machine_is_refused(host: str) -> None:
    done = run("--", host) if host.startswith("-") else run(host)
    assert done.returncode == 2
    assert "make deploy" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_passes_on_what_it_is_given() -> None:
    """Through make itself: what a shell would take apart stays whole."""
    done = subprocess.run(
        ["make", "-n", "deploy", "HOST=pi@camera.test", "SOURCE=v4l2:0?size=640x480&fps=5"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "ansible/one.py" in done.stdout
    assert "640x480" not in done.stdout, "it travels in the environment"
