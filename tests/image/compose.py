"""A fresh clone of this repository, and `docker compose` in it as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tools.containers import ROOT, docker, inspect, new_name
from tests.tools.service import free_port

IMAGE = new_name("compose")  # not camdock:current, which other tests may be using
UP_S = 900  # the first build fetches and installs everything


def plain_environment(**more: str) -> dict[str, str]:
    """This process's environment without a variable that compose.yaml reads."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CAMDOCK_", "COMPOSE_"))}
    return {**kept, **more}


def clone(folder: Path) -> Path:
    """`git clone` of what is committed here, into a folder that is not there yet."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, timeout=60)
    return folder


@dataclass
class Project:
    """compose.yaml in one folder, under a project name and on a port of its own.

    name         what it is for; becomes part of the project's name, which nothing else has
    environment  variables as a person sets them, such as CAMDOCK_TOKEN
    files        further compose files, after compose.yaml
    """

    folder: Path
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.name = new_name(self.name)

    def run(self, *arguments: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """`docker compose ARGUMENTS`, whatever comes of it."""
        chosen = [word for file in ("compose.yaml", *self.files) for word in ("-f", file)] if self.files else []
        return subprocess.run(
            ["docker", "compose", "-p", self.name, *chosen, *arguments],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=within_s, check=False,
        )  # fmt: skip

    @property
    def variables(self) -> dict[str, str]:
        """The environment of `docker compose`."""
        return plain_environment(**{"CAMDOCK_PORT": str(self.port), "CAMDOCK_IMAGE": IMAGE, **self.environment})

    def up(self) -> None:
        """`up --detach --wait`; fails with what compose and the container say."""
        done = self.run("up", "--detach", "--wait", within_s=UP_S)
        assert done.returncode == 0, f"{done.stderr[-3000:]}\nthe container's log:\n{self.log}"

    def down(self, *arguments: str) -> None:
        """`down`; fails with what compose says."""
        done = self.run("down", *arguments)
        assert done.returncode == 0, done.stderr

    def config(self) -> dict[str, Any]:
        """What compose makes of the files; fails when it has anything to say about them."""
        done = self.run("config", "--format", "json")
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", f"compose is not content: {done.stderr}"
        read: dict[str, Any] = json.loads(done.stdout)
        return read

    @property
    def log(self) -> str:
        """What the container logged."""
        done = self.run("logs", "--no-color", "--no-log-prefix")
        return done.stdout + done.stderr

    @property
    def container(self) -> str:
        """The id of the container, which may have stopped."""
        return self.run("ps", "--all", "--quiet").stdout.strip()

    def inspect(self) -> dict[str, Any]:
        """`docker inspect` of the container."""
        return inspect(self.container)

    def inside(self, *command: str) -> str:
        """What a command prints that runs in the container as its user."""
        return docker("exec", self.container, *command).stdout.strip()

    def left_behind(self) -> dict[str, str]:
        """What the engine still has of this project, by kind."""
        label = f"label=com.docker.compose.project={self.name}"
        return {
            "containers": docker("ps", "--all", "--quiet", "--filter", label).stdout.strip(),
            "networks": docker("network", "ls", "--quiet", "--filter", label).stdout.strip(),
        }
