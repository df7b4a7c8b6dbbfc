"""The Pi image with what only a Pi has stood in for, mounted read-only: nothing of it is in the image."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.tools.containers import Container, docker, new_name

IMAGE = os.environ.get("CAMDOCK_TEST_PICAMERA2", "camdock:picamera2")
RIG = Path(__file__).parent / "rig"
CAMERAS = "/usr/share/libcamera/pipeline/virtual/virtual.yaml"
# As compose.yaml starts it: an ordinary user, no capability, nothing to write on but memory.
UNPRIVILEGED = (
    "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp",
    "--tmpfs", "/var/lib/camdock:uid=10001,gid=10001,mode=700",
)  # fmt: skip


def mounts(faults: Path | None = None) -> tuple[str, ...]:
    """Words for `docker run`: the rig, its two cameras, and the folder whose files are faults."""
    pairs = [(RIG, "/rig"), (RIG / "virtual.yaml", CAMERAS)] + ([(faults, "/faults")] if faults else [])
    return tuple(word for here, there in pairs for word in ("--volume", f"{here}:{there}:ro"))


class Rigged(Container):
    """The service on two cameras of libcamera's virtual pipeline: picamera2:0 is `second`, picamera2:1 `imx_virtual`.

    faults  the folder: a file in it is a fault, as long as it is there (rig/faults.py)
    """

    def __init__(self, image: str, faults: Path, **environment: str) -> None:
        usual = {
            "CAMDOCK_AUTH": "off", "CAMDOCK_LINGER_S": "0", "PYTHONPATH": "/rig", "CAMDOCK_RIG_FAULTS": "/faults",
        }  # fmt: skip
        super().__init__(image, *UNPRIVILEGED, *mounts(faults), **{**usual, **environment})
        self.faults = faults

    def kill_worker(self) -> None:
        """SIGKILL for the process that owns the camera; the service starts another one."""
        (pid,) = self.workers()
        self.run("sh", "-c", f"kill -9 {pid}")

    def kinds(self) -> list[str]:
        """What runs inside, a line for each, zombies told apart; without who draws notices while there are any."""
        found = [("zombie " if state == "Z" else "") + " ".join(words[1:4]) for _, _, state, words in self.processes()]
        return sorted(one for one in found if "pixelsworker" not in one)


def program(
    image: str, script: str, *options: str, faults: Path | None = None, rigged: bool = True, within_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """A Python program in a container of the image, with the library alone; killed there when it takes too long."""
    environment = ("--env", "PYTHONPATH=/rig", "--env", "CAMDOCK_RIG_FAULTS=/faults") if rigged else ()
    name = new_name("program")
    try:
        return docker(
            "run", "--rm", "--name", name, *UNPRIVILEGED, *mounts(faults), *environment, *options,
            image, "python", "-c", script, check=False, within_s=within_s,
        )  # fmt: skip
    finally:
        docker("rm", "--force", name, check=False)
