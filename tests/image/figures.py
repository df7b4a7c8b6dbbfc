"""How large the images are and how quickly they start, beside a plain `pip install` of the same parts, in one run.

`make figures`: prints the table of the README. Ten starts of each image in turn, so that whatever else the machine
does meets all of them; medians. A start counts from the `docker run` to the first 200 of /health, and to the last byte
of the first picture of /stream.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.tools.containers import ROOT, docker, inspect

PLAIN = "camdock-figures:plain"
# What somebody writes who has heard of nothing: no constraints, no trimming, the same base and the same extras.
PLAIN_DOCKERFILE = """
FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes python3-venv
RUN python3 -m venv /venv
COPY . /source
RUN /venv/bin/pip install '/source[all]'
ENV CAMDOCK_HOST=0.0.0.0
CMD ["/venv/bin/camdock"]
"""
WITHIN_S = 60.0


def size(image: str) -> int:
    """Bytes unpacked."""
    return int(inspect(image)["Size"])


def base_of(image: str) -> str:
    """The image it was made from, by its label."""
    labels = inspect(image)["Config"]["Labels"] or {}
    return str(labels.get("org.opencontainers.image.base.name", "debian:trixie-slim"))


@contextlib.contextmanager
def answer(port: int, path: str, until: bytes, deadline: float) -> Iterator[bytes]:
    """What comes back for a GET, as far as `until`; asks again until there is one."""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            received = b""
            while until not in received and (part := connection.recv(65536)):
                received += part
            if until in received:
                yield received
                return
        time.sleep(0.002)  # nothing tells when a container's port begins to answer
    raise TimeoutError(f"no answer to {path} within {WITHIN_S:.0f} s")


def start(image: str) -> tuple[float, float, float]:
    """Seconds to the first /health, to the first whole picture, and from `docker stop` to its end."""
    began = time.monotonic()
    deadline = began + WITHIN_S
    container = docker(
        "run", "--detach", "--rm", "--publish", "127.0.0.1::8000", "--env", "CAMDOCK_AUTH=off", image
    ).stdout.strip()
    try:
        port = int(docker("port", container, "8000").stdout.rpartition(":")[2])
        with answer(port, "/health", b"\r\n\r\n", deadline) as head:
            if not re.match(rb"HTTP/1\.1 200 ", head):
                raise RuntimeError(f"{image}: /health answered {head[:40]!r}")
            healthy = time.monotonic() - began
        with answer(port, "/stream", b"\xff\xd9", deadline):
            pictured = time.monotonic() - began
    finally:
        stopping = time.monotonic()
        docker("stop", container)
    return healthy, pictured, time.monotonic() - stopping


def build_plain() -> None:
    """The image to compare with, from this commit's files."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("LICENSE", "README.md", "pyproject.toml", "service")
        subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), folder], check=True)
        Path(folder, "Dockerfile").write_text(PLAIN_DOCKERFILE)
        docker("build", "--tag", PLAIN, folder, within_s=600)


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.image.figures", description=__doc__)
    parser.add_argument("--starts", type=int, default=10, help="of each image (default 10)")
    parser.add_argument(
        "images", nargs="*", default=["camdock:current", "camdock:optimized", "camdock:numpy1", "camdock:picamera2"]
    )
    given = parser.parse_args()
    images = [*given.images, PLAIN]
    build_plain()
    try:
        measure(images, given.starts)
    finally:
        docker("image", "rm", PLAIN)
    return 0


def measure(images: list[str], starts: int) -> None:
    """Start each in turn, and print the table."""
    times: dict[str, list[tuple[float, float, float]]] = {image: [] for image in images}
    for turn in range(starts):
        for image in images:
            times[image].append(start(image))
        print(f"{turn + 1} of {starts}", end="\r", file=sys.stderr, flush=True)
    print("| image | above its base, unpacked | to /health | to the first picture | to stop |")
    print("| --- | --- | --- | --- | --- |")
    for image in images:
        above = (size(image) - size(base_of(image))) / 1e6
        medians = (statistics.median(column) for column in zip(*times[image], strict=True))
        print(f"| `{image}` | {above:.0f} MB | " + " | ".join(f"{value:.2f} s" for value in medians) + " |")


if __name__ == "__main__":
    sys.exit(main())
