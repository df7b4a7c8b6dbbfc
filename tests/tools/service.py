"""The real service for tests: started as a user starts it, asked over HTTP, ended, looked after for what it leaves."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import psutil

from tests.tools.nursery import Forked, Nursery

# What the 99th percentile of a small answer must stay under, in ms; beside other tests the machine has less for each.
RESPONSIVE_MS = 250 if os.environ.get("PYTEST_XDIST_WORKER") else 50

ABI_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "tests" / "abi.json"


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], within_s: float, what: str | Callable[[], str], every_s: float = 0.05) -> Any:
    """The first true answer of `condition`; fails with `what` when there is none in time."""
    due = time.monotonic() + within_s
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > due:
            raise AssertionError(f"not within {within_s:g} s: {what() if callable(what) else what}")
        time.sleep(every_s)


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Picture:
    """One part of a stream as a viewer got it."""

    headers: dict[str, str]
    jpeg: bytes
    arrived: float  # monotonic


class Asked:
    """Something that answers on a port of loopback: in a process, or in a container."""

    port: int

    @property
    def log(self) -> str:
        """What it logged so far."""
        raise NotImplementedError

    tls: ssl.SSLContext | None = None

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float = 10
    ) -> Answer:
        """One request on a connection of its own; `body` is sent as JSON unless it is bytes."""
        if self.tls is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout_s, context=self.tls
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            extra = {"Content-Type": "application/json"} if sent is not None else {}
            connection.request(method, path, sent, {**extra, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None, timeout_s: float = 10) -> Answer:
        """One GET."""
        return self.ask("GET", path, headers=headers, timeout_s=timeout_s)

    def camera(self, name: str = "camera") -> dict[str, Any]:
        """GET /cameras/NAME."""
        answer = self.get(f"/cameras/{name}")
        assert answer.status == 200, answer
        camera: dict[str, Any] = answer.json()
        return camera

    def until_state(self, state: str, name: str = "camera", within_s: float = 15) -> dict[str, Any]:
        """Wait until a camera is in a state; returns it."""

        def there() -> dict[str, Any] | None:
            camera = self.camera(name)
            return camera if camera["state"] == state else None

        def instead() -> str:
            return f"{name} is {state}, but {self.camera(name)}; log:\n{self.log}"

        found: dict[str, Any] = until(there, within_s, instead)
        return found

    def stream(self, path: str = "/stream", timeout_s: float = 10, headers: Mapping[str, str] | None = None) -> Viewer:
        """Open a stream as a viewer does."""
        return Viewer(self.port, path, timeout_s, headers or {})


@dataclass
class Service(Asked):
    """`python -m camdock` in a process group of its own, on a free port.

    environment  CAMDOCK_ variables and others, on top of this process's own
    tls          how to ask, where it speaks https
    nursery      where it is forked, if it is: `make test` saves the imports (tests/process/conftest.py)
    """

    nursery: ClassVar[Nursery | None] = None

    environment: Mapping[str, str]
    folder: Path
    arguments: tuple[str, ...] = ()
    executable: str = sys.executable
    port: int = field(default_factory=free_port)
    started_in: Path | None = None
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self.log_path = self.folder / f"service-{self.port}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CAMDOCK_") and k not in ("HOST", "PORT")}
        environment = {
            **inherited,
            "CAMDOCK_PORT": str(self.port),
            "CAMDOCK_STATE_DIR": str(self.folder / "state"),
            "CAMDOCK_ABI_CACHE": str(ABI_CACHE),  # each start would read every library anew
            "CAMDOCK_LINGER_S": "0",  # most tests ask for pictures now and then, and mean a camera that runs
            **self.environment,
        }
        with self.log_path.open("wb") as log:
            self.process = self._start(environment, log)
        try:
            until(self._answers, 20, "the service answers")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; its log:\n{self.log}") from None
        return self

    def _start(self, environment: Mapping[str, str], log: BinaryIO) -> subprocess.Popen[bytes] | Forked:
        # What Python reads before the first line runs cannot be given to one that runs already. What the loader reads
        # is meant for the worker, where a driver is named; under `auto` the service itself looks for a camera.
        early = ("PYTHON",) if self.environment.keys() & {"CAMDOCK_SOURCE", "CAMDOCK_SOURCES"} else ("PYTHON", "LD_")
        own = self.executable != sys.executable or any(name.startswith(early) for name in self.environment)
        if self.nursery is not None and not own:
            return self.nursery.start(self.arguments, environment, self.started_in, log)
        return subprocess.Popen(
            [self.executable, "-m", "camdock", *self.arguments],
            cwd=self.started_in, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with {self.process.returncode}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/health/live").status == 200
        return False

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self.log_path.read_text("utf-8", "replace")

    def stop(self) -> float:
        """SIGTERM; returns how many seconds it took. Kills, and fails, after 10 s; fails when children stay behind."""
        if self.process.poll() is not None:
            return 0.0
        children = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end the service; its log:\n{self.log}") from None
        took = time.monotonic() - began
        _, left = psutil.wait_procs(children, 2)
        for child in left:
            child.kill()
        assert not left, f"left behind: {left}; log:\n{self.log}"
        return took

    def kill(self) -> None:
        """SIGKILL for the service alone; what its children do then is for the test to see."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send the API process a signal."""
        self.process.send_signal(number)

    def worker(self, name: str = "camera") -> psutil.Process:
        """The process that owns the driver of a camera."""

        def find() -> psutil.Process | None:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if child.cmdline()[2:5] == ["-m", "camdock.worker", name]:
                        return child
            return None

        found: psutil.Process = until(find, 10, lambda: f"{name} has a worker; log:\n{self.log}")
        return found


class Viewer:
    """A strict reader of multipart/x-mixed-replace: iterate for pictures; anything out of form fails."""

    def __init__(self, port: int, path: str, timeout_s: float, headers: Mapping[str, str]) -> None:
        connected = socket.create_connection(("127.0.0.1", port), timeout_s)
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *(f"{k}: {v}" for k, v in headers.items())]
        connected.sendall("\r\n".join([*lines, "", ""]).encode())
        self._begin(connected)

    @classmethod
    def on(cls, connected: socket.socket) -> Self:
        """A viewer whose request has been sent already, whatever it was."""
        viewer = cls.__new__(cls)
        viewer._begin(connected)
        return viewer

    def _begin(self, connected: socket.socket) -> None:
        self.socket = connected
        self.file = self.socket.makefile("rb", buffering=1 << 16)
        status = self.file.readline()
        assert status.startswith(b"HTTP/1.1 200"), status
        self.headers = self._headers()
        kind, _, boundary = self.headers["content-type"].partition("boundary=")
        assert kind.startswith("multipart/x-mixed-replace"), kind
        assert "transfer-encoding" not in self.headers, "simple readers take chunks for junk"
        self.delimiter = b"--" + boundary.encode()
        self.ended = False

    def _headers(self) -> dict[str, str]:
        found = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            found[name.strip().lower()] = value.strip()
        return found

    def __iter__(self) -> Iterator[Picture]:
        line = b"" if self.ended else self.file.readline()
        while line:
            assert line.rstrip(b"\r\n") == self.delimiter, line
            headers = self._headers()
            if not headers:
                return  # the connection ended behind a delimiter
            jpeg = self.file.read(int(headers["content-length"]))
            arrived = time.monotonic()
            if len(jpeg) < int(headers["content-length"]):
                return
            assert headers["content-type"] == "image/jpeg"
            assert self.file.readline() == b"\r\n"
            yield Picture(headers, jpeg, arrived)
            line = self.file.readline()
            if line.rstrip(b"\r\n") == self.delimiter + b"--":
                self.ended = True
                return

    def take(self, count: int) -> list[Picture]:
        """The next pictures, so many; fewer when the stream ends."""
        pictures = []
        for picture in self:
            pictures.append(picture)
            if len(pictures) == count:
                break
        return pictures

    def close(self) -> None:
        """Leave."""
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pulse:
    """Asks GET /health/live every few milliseconds on one connection, for as long as the context lasts."""

    def __init__(self, port: int, path: str = "/health/live", every_s: float = 0.01) -> None:
        self.port, self.path, self.every_s = port, path, every_s
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self._over.wait(self.every_s):
            began = time.monotonic()
            try:
                connection.request("GET", self.path)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.seconds.append(time.monotonic() - began)
        connection.close()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def percentile_ms(self, percent: float) -> float:
        """The time under which so many percent of the answers came, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000
