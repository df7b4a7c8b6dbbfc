"""Containers and images for tests: built, run, asked over HTTP, looked into, and removed behind the tests."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.tools.service import Asked, until

ROOT = Path(__file__).parents[2]
# Whose it is stands in the name: a later run removes what a killed one left.
PREFIX = f"camdock-test-p{os.getpid()}-"
_numbers = itertools.count(1)

# Every process of a container but this one and what else `docker exec` runs: [pid, ppid, state, words].
_PROCESSES = """
import json, os
found = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        state, ppid = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[:2]
        words = open(f"/proc/{pid}/cmdline", "rb").read().decode().split("\\0")[:-1]
    except OSError:
        continue
    found[int(pid)] = [int(ppid), state, words]
print(json.dumps([[pid, *what] for pid, what in found.items() if what[0] or pid == 1]))
"""


def docker(*words: object, check: bool = True, within_s: float = 60, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `docker`; fails with what it said when it does not succeed, unless not to `check`."""
    done = subprocess.run(
        ["docker", *map(str, words)],
        check=False, capture_output=True, text=True, timeout=within_s, stdin=subprocess.DEVNULL,
        env={**os.environ, "DOCKER_BUILDKIT": "1"}, **more,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, f"docker {' '.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done


def new_name(what: str = "") -> str:
    """A name for a container, an image or a volume that nothing has yet, and that is removed at the end."""
    return f"{PREFIX}{next(_numbers)}{what and '-'}{what}"


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows about a container or an image."""
    found: dict[str, Any] = json.loads(docker("inspect", name).stdout)[0]
    return found


def remove_all() -> None:
    """Remove what this run has made, and what runs that do not live any more have left."""
    ours = re.compile(r"camdock-test-p(\d+)-")
    for listed, removed in (
        (("ps", "--all", "--format", "{{.Names}}"), ("rm", "--force", "--volumes")),
        (("network", "ls", "--format", "{{.Name}}"), ("network", "rm")),
        (("images", "--format", "{{.Repository}}"), ("rmi", "--force")),
        (("volume", "ls", "--format", "{{.Name}}"), ("volume", "rm", "--force")),
    ):
        names = set(docker(*listed).stdout.split())
        told = {name: int(found[1]) for name in names if (found := ours.match(name))}
        gone = [name for name, pid in told.items() if pid == os.getpid() or not Path(f"/proc/{pid}").exists()]
        if gone:
            docker(*removed, *gone, check=False)


def context(folder: Path) -> Path:
    """A copy of what images are built from, to spoil; returns the folder."""
    folder.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            there = ROOT / line[1:]
            if there.is_dir():
                shutil.copytree(there, folder / line[1:], ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy2(there, folder / line[1:])
    for file in [".dockerignore", *(found.name for found in ROOT.glob("Dockerfile*"))]:
        shutil.copy2(ROOT / file, folder / file)
    return folder


class Built:
    """What came of one `docker build`.

    status, log, seconds  the build's own
    tag                   the image, when there is one
    """

    def __init__(self, folder: Path, *, dockerfile: str = "Dockerfile", **arguments: str) -> None:
        self.tag = new_name()
        words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        began = time.monotonic()
        done = docker(
            "build", "--progress=plain", "--tag", self.tag, *words,
            "--file", folder / dockerfile, folder, check=False, within_s=600,
        )  # fmt: skip
        self.seconds = time.monotonic() - began
        self.status, self.log = done.returncode, done.stdout + done.stderr

    @property
    def is_there(self) -> bool:
        """Whether an image has the tag."""
        return docker("image", "inspect", self.tag, check=False).returncode == 0

    def done(self) -> Self:
        """This; fails with the log when there is no image."""
        assert self.status == 0, self.log
        return self


class Container(Asked):
    """A container of an image, removed behind the context.

    options      words for `docker run`
    command      instead of the image's own
    inside       the port that is published
    environment  variables
    """

    alive: list[Container] = []  # noqa: RUF012 - for whoever reports a failure

    def __init__(
        self, image: str, *options: str, command: tuple[str, ...] = (), inside: int = 8000, **environment: str
    ) -> None:
        self.image, self.name, self._inside = image, new_name(), inside
        variables = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        self._words = ["--publish", f"127.0.0.1::{inside}", *options, *variables, image, *command]

    def start(self) -> Self:
        """Start it; waits for nothing."""
        docker("run", "--detach", "--name", self.name, *self._words)
        self.alive.append(self)
        return self

    def __enter__(self) -> Self:
        """Start it, and wait until the service in it answers."""
        self.start()
        try:
            self.port = int(docker("port", self.name, self._inside).stdout.split()[0].rpartition(":")[2])
            until(self._answers, 30, "the service answers", 0.02)
        except BaseException as error:
            log = self.log
            self.remove()
            if isinstance(error, AssertionError):
                raise AssertionError(f"{error}; its log:\n{log}") from None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _answers(self) -> bool:
        if not inspect(self.name)["State"]["Running"]:
            raise AssertionError("the container has ended")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/health/live").status == 200
        return False

    def remove(self) -> None:
        """Remove it, running or not."""
        if self in self.alive:
            self.alive.remove(self)
            docker("rm", "--force", "--volumes", self.name)

    @property
    def log(self) -> str:
        """What it has printed so far, on stdout and on stderr."""
        done = docker("logs", self.name, check=False)
        return done.stdout + done.stderr

    def wait(self) -> int:
        """Wait until it has ended; returns the exit status."""
        return int(docker("wait", self.name).stdout)

    def stop(self) -> tuple[int, float]:
        """`docker stop`, with the signal that the image asks for; the exit status, and how many seconds it took."""
        began = time.monotonic()
        docker("stop", self.name)
        return self.wait(), time.monotonic() - began

    def run(self, *words: str, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command inside, as the container's user."""
        return docker("exec", *(["--user", user] if user else []), self.name, *words, check=check)

    def python(self, script: str, *, user: str = "") -> Any:
        """A script inside, with the environment's own Python; what it prints, read as JSON."""
        return json.loads(self.run("python", "-c", script, user=user).stdout)

    def processes(self) -> list[tuple[int, int, str, list[str]]]:
        """(pid, parent, state, words) of every process inside, as seen there."""
        return [tuple(one) for one in self.python(_PROCESSES)]

    def workers(self) -> list[int]:
        """The processes that own a device."""
        return [pid for pid, _, state, words in self.processes() if "camdock.worker" in words and state != "Z"]

    def health(self) -> tuple[int, str]:
        """The exit status and the words of the image's own health check, run now."""
        kind, *words = inspect(self.name)["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD", "exec form: there may be no shell"
        done = self.run(*words, check=False)
        return done.returncode, done.stdout + done.stderr


def variables(image: Mapping[str, Any]) -> dict[str, str]:
    """The environment that an image sets, from `inspect`."""
    return dict(line.split("=", 1) for line in image["Config"]["Env"])
