"""What tests ask of a host that the play has deployed to, and copies of the project to deploy from."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from pathlib import Path
from typing import Any

from tests.tools.containers import ROOT
from tests.tools.target import Target

SOURCE = "synthetic:?size=320x240&fps=20"
# Short watches: these tests share a busy machine, and how long a release is watched is not their subject.
USUAL = {"deploy_host": "0.0.0.0", "deploy_appear_s": 90, "deploy_watch_s": 1}
SMALL = ["relay"]  # the back end with the least to install; `synthetic:` needs none


def ask(target: Target, path: str, token: str = "", port: int = 8000) -> tuple[int, bytes]:
    """Status and body of one answer, as somebody on the network gets it."""
    connection = http.client.HTTPConnection(target.address, port, timeout=20)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def pictures(target: Target, token: str, count: int = 5, within_s: float = 60) -> list[bytes]:
    """So many pictures of a stream, as a viewer on the network gets them."""
    connection = http.client.HTTPConnection(target.address, 8000, timeout=within_s)
    due = time.monotonic() + within_s
    got: list[bytes] = []
    try:
        connection.request("GET", "/stream", headers={"Authorization": f"Bearer {token}"})
        stream = connection.getresponse()
        assert stream.status == 200
        while len(got) < count:
            assert time.monotonic() < due, f"{len(got)} pictures in {within_s:g} s"
            size = 0
            while line := stream.readline().strip() or (b"-" if not size else b""):
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            got.append(stream.read(size))
    finally:
        connection.close()
    return got


def token_of(target: Target) -> str:
    """The host's token, read by root there."""
    return target.done("cat /etc/camdock/token").strip()


def serving(target: Target) -> str:
    """The process that serves now: another one after a restart."""
    return target.done("systemctl show camdock --property=InvocationID,NRestarts")


def told(target: Target) -> dict[str, Any]:
    """What the release tool says."""
    found: dict[str, Any] = json.loads(target.done("/opt/camdock/bin/camdock-release status --json"))
    return found


def copy_of_project(folder: Path) -> Path:
    """The project without its history, as an unpacked release is; to be changed, and deployed from."""
    for name in ("ansible", "service", "docker/pins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def change(file: Path, before: str, after: str) -> None:
    """Replace a text that must be there."""
    text = file.read_text()
    assert before in text, f"{file.name} has no {before!r}"
    file.write_text(text.replace(before, after))
