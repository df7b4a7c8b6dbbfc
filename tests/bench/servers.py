"""The servers beside each other: how each is started on the test camera, when it is ready, how it ends for certain.

Runs in: the bench's process; every server gets a session (and process group) of its own.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.tools import build, frames

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 15.0
STOP_WITHIN_S = 3.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Task:
    """What the camera gives and the server is to stream."""

    size: tuple[int, int] = (640, 480)
    format: str = "MJPG"
    fps: int = 30

    @property
    def size_text(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Server:
    """One of the servers compared. command and environment are made for a port and a task."""

    name: str
    title: str
    command: Callable[[int, Task], list[str]]
    environment: Callable[[int, Task], dict[str, str]] = field(default=lambda port, task: {})
    ready_path: str = "/health"
    small_path: str = "/health"  # the other request, answered while many stream
    needs: str | None = None  # a program that must be installed
    windows: int | None = None  # at most so many of each row

    def missing(self) -> str | None:
        """Why this server cannot run here; None if it can."""
        if self.needs and shutil.which(self.needs) is None:
            return f"{self.needs} is not installed"
        return None


def _ustreamer(*more: str) -> Callable[[int, Task], list[str]]:
    def command(port: int, task: Task) -> list[str]:
        kind = {"MJPG": ["--format", "MJPEG", "--encoder", "HW"], "YUYV": ["--format", "YUYV", "--encoder", "CPU"]}
        return [
            "ustreamer", "--device", "/dev/video0", *kind[task.format], "--resolution", task.size_text,
            "--desired-fps", str(task.fps), "--host", "127.0.0.1", "--port", str(port), *more,
        ]  # fmt: skip

    return command


def _peer(module: str) -> Callable[[int, Task], list[str]]:
    def command(port: int, task: Task) -> list[str]:
        name = f"tests.bench.peers.{module}"
        return [sys.executable, "-m", name, "--port", str(port), "--size", task.size_text, "--format", task.format]

    return command


def _camdock_environment(port: int, task: Task) -> dict[str, str]:
    return {
        "CAMDOCK_SOURCE": f"v4l2:/dev/video0?size={task.size_text}&fps={task.fps}&format={task.format}",
        "CAMDOCK_HOST": "127.0.0.1",
        "CAMDOCK_PORT": str(port),
        "CAMDOCK_LOG_LEVEL": "warning",
    }


CAMDOCK = Server(
    "camdock", "Camdock", lambda port, task: [sys.executable, "-m", "camdock"], _camdock_environment, "/health/ready"
)
USTREAMER = Server("ustreamer", "ustreamer", _ustreamer(), ready_path="/state", small_path="/state", needs="ustreamer")
USTREAMER_ONE_WORKER = Server(
    "ustreamer-1w", "ustreamer --workers=1", _ustreamer("--workers", "1"), ready_path="/state", needs="ustreamer"
)
# They are there for their size, not for their decimals: one window of each row spares a quarter of an hour.
CONDITION = Server("condition", "FastAPI StreamingResponse, asyncio.Condition", _peer("condition"), windows=1)
THREADS = Server("threads", "http.server, a thread for each viewer", _peer("threads"), windows=1)
# No server, but what the kernel asks of any: how much of the figures above it is the machine's.
FLOOR = Server(
    "floor",
    "a write() for each viewer, in C, no camera",
    lambda port, task: [str(build.ensure("floor")), str(port), str(frames_for(task)), str(task.fps)],
)


def _die_with_the_bench() -> None:
    """In the child, before exec: even a bench that is killed leaves no server behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes below pid, whatever group they have put themselves into."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text()
        except OSError:
            continue
        for child in map(int, children.split()):
            found += [child, *descendants(child)]
    return found


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


class Running:
    """A server, running as long as the `with` block; entering raises RuntimeError if it does not get ready."""

    def __init__(self, server: Server, task: Task, folder: Path) -> None:
        """folder: frames for FAKEV4L2_JPEGS."""
        self.server, self.task, self._frames = server, task, folder
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._place = Path(tempfile.mkdtemp(prefix="camdock-bench-"))
        self.clock = self._place / "clock"
        self._log = self._place / "log"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "Running":
        inherited = {
            key: value for key, value in os.environ.items()
            if not key.startswith(("CAMDOCK_", "FAKEV4L2")) and key not in ("HOST", "PORT", "LD_PRELOAD")
        }  # fmt: skip
        environment = inherited | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "service"), str(ROOT)]),
            "LD_PRELOAD": str(build.ensure("fakev4l2")),
            "FAKEV4L2_JPEGS": str(self._frames),
            "FAKEV4L2_FORMATS": self.task.format,
            "FAKEV4L2_FPS": str(self.task.fps),
            "FAKEV4L2_STATE": str(self._place),  # a lock of its own: several cameras /dev/video0 at once
            "FAKEV4L2_CLOCK": str(self.clock),
            "CAMDOCK_STATE_DIR": str(self._place),
            **self.server.environment(self.port, self.task),
        }
        command = self.server.command(self.port, self.task)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_the_bench,  # safe: the bench has no other threads
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + READY_WITHIN_S
        url = f"http://{self.address}{self.server.ready_path}"
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.05)
        code = self._process.poll()
        what = "did not get ready" if code is None else f"ended with status {code}"
        raise RuntimeError(f"{self.server.name} {what}:\n{self.log_end()}")

    def figures(self) -> dict[str, float]:
        """The plain figures of Camdock's /metrics, by name; of one camera."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        named = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name.partition("{")[0]: float(value) for name, _, value in named}

    def log_end(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """Ask, wait, kill: the group, and whoever below it has left the group."""
        group = self._process.pid
        below = descendants(group)
        _signal_group(group, signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            below = [*below, *descendants(group)]
        finally:
            _signal_group(group, signal.SIGKILL)
            for pid in below:
                self._kill_ours(pid)
            self._process.wait()
            shutil.rmtree(self._place, ignore_errors=True)

    def _kill_ours(self, pid: int) -> None:
        """Kill a former descendant unless its number belongs to somebody else by now."""
        mark = f"FAKEV4L2_STATE={self._place}".encode()
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def frames_for(task: Task) -> Path:
    """The camera's frames for this task, made now if they are not in the cache."""
    return frames.camera_frames(task.size)
