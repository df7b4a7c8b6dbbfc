"""Releases for tests, made by hand as the role makes them; and a viewer outside that never gives up."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import jinja2

from tests.tools.containers import ROOT
from tests.tools.service import until
from tests.tools.target import Target

DEPLOY = ROOT / "ansible" / "roles" / "deploy"
TOOL = "/opt/camdock/bin/camdock-release"
TOKEN = "a-token-for-tests-0123456789"
GOOD = "synthetic:?size=320x240&fps=20"


def unit(mode: str, *, major: int = 13, port: int = 8000, groups: tuple[str, ...] = ("video",)) -> str:
    """camdock.service as the role renders it."""
    template = (DEPLOY / "templates" / f"camdock.service.{mode}.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        ansible_managed="Made by a test",
        ansible_facts={"distribution_major_version": str(major)},
        deploy_unit_groups=groups,
        deploy_port=port,
        deploy_memory_max="512M",
    )


def wheel() -> tuple[str, bytes]:
    """The wheel of this checkout: its name and its content."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)], check=True
        )
        (made,) = Path(folder).glob("*.whl")
        return made.name, made.read_bytes()


class Deployed:
    """A host with the tool, its user and one build; releases are made as tests need them."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._made = 0
        self.put_tool()
        recover = (DEPLOY / "files" / "camdock-recover.service").read_text()
        target.put("/etc/systemd/system/camdock-recover.service", recover)
        target.put("/etc/camdock/token", TOKEN + "\n")
        target.done(
            "groupadd --system --gid 10001 camdock && useradd --system --uid 10001 --gid camdock --no-create-home "
            "--home-dir /var/lib/camdock --shell /usr/sbin/nologin camdock && chown camdock /etc/camdock/token && "
            "chmod 0400 /etc/camdock/token && mkdir -p /opt/camdock/releases && "
            "systemctl daemon-reload && systemctl enable --quiet camdock-recover.service"
        )

    def put_tool(self) -> None:
        """The tool of this checkout."""
        for file in (DEPLOY / "files" / "camdock-release", *(DEPLOY / "files" / "camdock_release").glob("*.py")):
            self.target.put(f"/opt/camdock/bin/{file.relative_to(DEPLOY / 'files')}", file.read_text())
        self.target.done(f"chmod 0755 {TOOL}")

    def build_native(self, name: str = "b1") -> None:
        """A virtual environment with this checkout in it."""
        file, content = wheel()
        self.target.copy_in_bytes(f"/root/{file}", content)
        self.target.put("/root/constraints.txt", (ROOT / "constraints.txt").read_text())
        folder = f"/opt/camdock/builds/{name}"
        self.target.done(
            f"python3 -m venv {folder}/venv && {folder}/venv/bin/pip install --quiet "
            "--cache-dir /var/cache/camdock/pip --constraint /root/constraints.txt "
            f"'/root/{file}[service]' && echo '{{}}' >{folder}/complete",
            within_s=600,
        )

    def release(
        self, name: str, source: str = GOOD, *, build: str = "b1", mode: str = "native", gate: str = "pictures",
        unit_text: str | None = None, compose: str = "", **more: str,
    ) -> str:  # fmt: skip
        """Make releases/NAME; returns its id."""
        self._made += 1
        folder = f"/opt/camdock/releases/{name}"
        environment = {"CAMDOCK_HOST": "0.0.0.0", "CAMDOCK_SOURCE": source, **more}
        told = {
            "id": name, "build": build, "mode": mode, "version": "0.1.0", "created": 1_700_000_000 + self._made,
            "port": 8000, "cameras": ["camera"], "gate": gate,
        }  # fmt: skip
        put = self.target.put
        put(f"{folder}/camdock.env", "".join(f'{key}="{value}"\n' for key, value in environment.items()))
        put(f"{folder}/camdock.service", unit_text or unit(mode, major=13 if self.target.release == "trixie" else 12))
        if compose:
            put(f"{folder}/compose.yaml", compose)
        self.target.done(f"ln -sfn ../../builds/{build} {folder}/build")
        put(f"{folder}/release.json", json.dumps(told))
        return name

    def tool(self, *words: object, expect: int | None = 0) -> dict[str, Any]:
        """Run the tool; what it answers, as JSON. Fails when its exit status is not the expected one (None: any)."""
        ended = self.target.run(f"{TOOL} {' '.join(map(str, words))} --json", within_s=200)
        assert expect is None or ended.returncode == expect, f"{ended.returncode}: {ended.stdout}{ended.stderr}"
        told: dict[str, Any] = json.loads(ended.stdout)
        return told

    @property
    def current(self) -> str:
        """What `current` names."""
        return self.target.done("readlink /opt/camdock/current").rpartition("/")[2]

    @property
    def main_pid(self) -> str:
        """The service's main process."""
        return self.target.done("systemctl show --property MainPID --value camdock.service")

    def camera(self) -> dict[str, Any]:
        """GET /cameras/camera from outside."""
        connection = http.client.HTTPConnection(self.target.address, 8000, timeout=5)
        try:
            connection.request("GET", "/cameras/camera", headers={"Authorization": f"Bearer {TOKEN}"})
            told: dict[str, Any] = json.loads(connection.getresponse().read())
            return told
        finally:
            connection.close()


class Outsider(threading.Thread):
    """A viewer on another machine that connects again at once; knows the times at which it got pictures.

    A picture that says why there is none is not counted: what counts came with two others within half a second.
    """

    def __init__(self, address: str, port: int = 8000) -> None:
        super().__init__(daemon=True)
        self._where, self._over = (address, port), threading.Event()
        self.times: list[float] = []

    def __enter__(self) -> Self:
        self.start()
        until(lambda: len(self.times) > 10, 20, "the viewer gets pictures")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Until the context ends."""
        while not self._over.is_set():
            try:
                with socket.create_connection(self._where, 3) as connection:
                    connection.sendall(f"GET /stream?token={TOKEN} HTTP/1.0\r\n\r\n".encode())
                    self._read(connection)
            except OSError:
                pass
            self._over.wait(0.02)

    def _read(self, connection: socket.socket) -> None:
        recent = [0.0, 0.0]
        with connection.makefile("rb") as file:
            while not self._over.is_set():
                line = file.readline()
                if not line:
                    return
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                    while file.readline() not in (b"\r\n", b""):
                        pass
                    if len(file.read(length)) < length:
                        return
                    now = time.monotonic()
                    if now - recent[0] < 0.5:
                        self.times.append(now)
                    recent = [recent[1], now]

    def longest_gap(self) -> float:
        """Seconds; what has passed since the last picture counts too."""
        times = [*self.times, time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))
