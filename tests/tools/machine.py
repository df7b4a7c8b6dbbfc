"""A virtual machine for tests: one of tests/testbed/vm.sh, booted fresh, commanded over SSH, gone afterwards.

    with Machine("trixie") as machine:
        machine.done("modprobe vivid n_devs=2")
        port = machine.forward(8000)          # its loopback's 8000 on this loopback

The processor is emulated: everything in there takes about ten times as long as here. Several machines can run at once.
"""

from __future__ import annotations

import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Self

from tests.tools.cannot import cannot
from tests.tools.service import free_port

SCRIPT = Path(__file__).parents[1] / "testbed" / "vm.sh"
READY = "camdock-vm: ready"  # what vm.sh makes the machine say
BOOT_WITHIN_S = 900.0  # 24 s with the machine to itself, 130 s beside much else, 300 s beside ten of that
NO_WAITING = ("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ServerAliveInterval=30")
# Ends the machine when we close our end, also because we were killed ourselves. Not the kernel's death signal: that
# comes when the thread ends that started it.
KEEPER = '"$@" </dev/null & machine=$!; exec >/dev/null 2>&1; read -r _; kill -KILL $machine'


class NotRun(Exception):
    """The machine did not do what it was asked; the message has its words and its serial console's."""


def made(name: str) -> Path:
    """The folder of a machine, made first where it is not there; skips the test where that cannot be.

    That is a failure where CI=true.
    """
    why_not = [f"{tool} is missing" for tool in ("qemu-system-x86_64", "ssh") if not shutil.which(tool)]
    if not why_not:
        ended = subprocess.run([SCRIPT, name], capture_output=True, text=True)
        if ended.returncode == 0:
            return Path(ended.stdout.strip())
        why_not = [ended.stderr.strip()]
    reason = f"{'; '.join(why_not)}: tests/testbed/packages.sh mmdebstrap e2fsprogs openssh-client qemu-system-x86"
    return cannot(reason)


class Machine:
    """One booted machine.

    name         what vm.sh calls it
    engine_data  a disk for its /var/lib/docker (enginedisk.py); what is written to it is gone afterwards, too
    ssh          the words of an ssh command to it, user and command left out: for Ansible, and for who is curious
    """

    def __init__(self, name: str = "trixie", engine_data: Path | None = None, memory_mb: int = 2048) -> None:
        self.folder = made(name)
        self.port = free_port()
        self.booted_in_s = 0.0
        self._engine_data = engine_data
        self._memory_mb = memory_mb
        self._scratch = Path(tempfile.mkdtemp(prefix="camdock-vm-"))  # short: a socket's path may have 107 bytes
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.ssh = (
            "ssh", "-p", str(self.port), "-i", str(self.folder / "key"), *NO_WAITING,
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "HostKeyAlias=camdock-vm",
            # One connection for all commands: exchanging keys takes the emulated processor a second.
            "-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", f"ControlPath={self._scratch}/%r",
        )  # fmt: skip

    # --- its life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        began = time.monotonic()
        self._qemu = subprocess.Popen(
            ["bash", "-c", KEEPER, "keeper", *self._command()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self._qemu.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._qemu.stdout,))
        self._listener.start()
        try:
            self.until_ready()
        except BaseException:
            self.__exit__()
            raise
        self.booted_in_s = time.monotonic() - began
        return self

    def _command(self) -> list[str]:
        kernel = "root=/dev/vda rw console=ttyS0 loglevel=4 mitigations=off systemd.show_status=error"
        disks = [self.folder / "disk.img"]
        if self._engine_data:
            disks.append(self._engine_data)
            kernel += " systemd.mount-extra=/dev/vdb:/var/lib/docker:ext4"
        command = [
            # q35: what a PC of today has. Nothing but what is named here: each device would be looked for at boot.
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", str(self._memory_mb), "-nodefaults", "-display", "none", "-serial", "stdio",
            "-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd"), "-append", kernel,
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        for disk in disks:  # snapshot: what is written goes to a file without a name
            command += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        return command

    def _listen(self, console: IO[bytes]) -> None:
        with console, (self._scratch / "serial.log").open("wb") as log:
            for line in console:
                log.write(line)
                log.flush()
                if READY.encode() in line:
                    self._said.put(READY)
        self._said.put(None)

    def until_ready(self) -> None:
        """Wait until it says that it takes commands: after its start, or after a reboot. Raises NotRun."""
        try:
            if self._said.get(timeout=BOOT_WITHIN_S) is None:
                raise NotRun(f"qemu ended before the machine was up\n{self.console}")
        except queue.Empty:
            raise NotRun(f"the machine is not up after {BOOT_WITHIN_S:g} s\n{self.console}") from None

    @property
    def console(self) -> str:
        """The end of what its serial console said."""
        text = (self._scratch / "serial.log").read_text("utf-8", "replace")
        return "serial console:\n" + "\n".join(text.splitlines()[-40:])

    def reboot(self) -> None:
        """Reboot it and wait until it is up again; its disk stays as it is."""
        self.run("systemctl reboot", timeout_s=60)
        self._disconnect()
        self.until_ready()

    def __exit__(self, *_: object) -> None:
        self._disconnect()
        assert self._qemu.stdin is not None
        self._qemu.stdin.close()  # the keeper kills it: its disk is thrown away, nothing has to be shut down in order
        self._qemu.wait()
        self._listener.join()
        shutil.rmtree(self._scratch)

    def _disconnect(self) -> None:
        for user in ("root", "pi"):
            if (self._scratch / user).exists():
                subprocess.run([*self.ssh, "-O", "exit", f"{user}@127.0.0.1"], capture_output=True)

    # --- commanding it ----------------------------------------------------------------------------------------------

    def run(
        self, command: str, *, user: str = "root", given: bytes | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """A line of shell inside, `given` as its standard input. Raises NotRun when it takes longer than timeout_s."""
        try:
            return subprocess.run(
                [*self.ssh, f"{user}@127.0.0.1", command],
                input=given or b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NotRun(f"{command}: not done after {timeout_s:g} s\n{error.output}\n{self.console}") from None

    def done(self, command: str, *, user: str = "root", given: bytes | None = None, timeout_s: float = 120) -> str:
        """A line of shell inside that must succeed; its output and its errors. Raises NotRun."""
        ended = self.run(command, user=user, given=given, timeout_s=timeout_s)
        said = ended.stdout.decode("utf-8", "replace")
        if ended.returncode != 0:
            raise NotRun(f"{command}: exit status {ended.returncode}\n{said}\n{self.console}")
        return said

    def copy_in(self, file: Path, path: str) -> None:
        """A file from here to a path inside, its folder made. Raises NotRun."""
        self.done(f"mkdir -p $(dirname {path}) && cat >{path}", given=file.read_bytes())

    def forward(self, port: int) -> int:
        """A port of the machine's own loopback as one of ours, for as long as the connection lasts. Raises NotRun."""
        self.done("true")  # the connection that carries it
        ours = free_port()
        asked = [*self.ssh, "-O", "forward", "-L", f"127.0.0.1:{ours}:127.0.0.1:{port}", "root@127.0.0.1"]
        ended = subprocess.run(asked, capture_output=True, text=True)
        if ended.returncode != 0:
            raise NotRun(f"no way to its port {port}: {ended.stderr}")
        return ours
