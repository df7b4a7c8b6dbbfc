"""The real service and a page of Debian's chromium, as the tests of the page use them.

Every page is served with a strict Content-Security-Policy, so inline scripts, inline styles and foreign resources are
found by every test.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import ConsoleMessage, Error, Page, Request, Route, expect

from tests.tools.service import free_port

CSP = "default-src 'self'; img-src 'self' blob: data:"
SOURCES = "front=synthetic: nest=synthetic:?fps=10&label=nest"
WITHIN_MS = 20_000

# A small copy of what an <img> shows now, as text: two that differ are two pictures.
PIXELS = """img => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 48];
    const context = canvas.getContext("2d");
    context.drawImage(img, 0, 0, 64, 48);
    return Array.from(context.getImageData(0, 0, 64, 48).data).join();
}"""
DIFFERS = f"([img, before]) => img.naturalWidth > 0 && ({PIXELS})(img) !== before"

# --- the service ------------------------------------------------------------------------------------------------------


@dataclass
class Service:
    """A running service, alone in its process group."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self.port}"

    def worker(self, camera: str) -> psutil.Process:
        """The driver process of one camera."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            words = child.cmdline()
            if "camdock.worker" in words and camera in words:
                return child
        raise AssertionError(f"no worker for {camera}")

    def kill(self) -> None:
        """The whole service at once; its workers, in groups of their own, follow by themselves."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    """Return as soon as a connection is taken; fail at once when the process ends, or after 30 s."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            pass
        try:
            raise AssertionError(f"the service ended with status {process.wait(0.05)}")
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError("the service does not listen after 30 s")


@contextmanager
def running(folder: Path, port: int | None = None, **variables: str) -> Iterator[Service]:
    """The real service, from when it listens until it has gone; prints its log."""
    port = port or free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CAMDOCK_")}
    environment |= {"CAMDOCK_PORT": str(port), "CAMDOCK_STATE_DIR": str(folder), "CAMDOCK_SOURCES": SOURCES} | variables
    log_path = folder / "log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "camdock"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        wait_until_it_listens(process, port)
        yield Service(process, port)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        print(log_path.read_text("utf-8", "replace"))


# --- the browser ------------------------------------------------------------------------------------------------------


@dataclass
class Window:
    """One page of a fresh profile, and what it did."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        """Keep errors and warnings."""
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def on_request(self, request: Request) -> None:
        """Keep what leaves the origin."""
        if not request.url.startswith((self.origin + "/", "blob:" + self.origin, "data:")):
            self.foreign.append(request.url)

    def card(self, camera: str) -> Any:
        """The card of one camera."""
        return self.page.locator(f'.card[data-camera="{camera}"]')

    def expect_moving(self, camera: str) -> None:
        """Wait until the card's picture is there and has changed twice."""
        img = self.card(camera).locator("img").element_handle(timeout=WITHIN_MS)
        self.page.wait_for_function("img => img.naturalWidth > 0", arg=img, timeout=WITHIN_MS)
        for _ in range(2):
            self.page.wait_for_function(DIFFERS, arg=[img, img.evaluate(PIXELS)], timeout=WITHIN_MS)

    def expect_state(self, camera: str, word: str) -> None:
        """Wait until the card says this state."""
        expect(self.card(camera).locator(".state")).to_have_text(word, timeout=WITHIN_MS)

    def pretend(self, camera: str, **changes: Any) -> None:
        """Change what /cameras answers about one camera, on the way to this page; the service knows nothing of it."""

        def changed(route: Route) -> None:
            try:
                response = route.fetch()
            except Error:  # the service has ended before the page was closed
                route.abort()
                return
            cameras = [known | (changes if known["name"] == camera else {}) for known in response.json()]
            route.fulfill(response=response, json=cameras)

        self.page.route(f"{self.origin}/cameras", changed)

    def pretend_idle(self, camera: str) -> None:
        """As of a camera that nobody looks at; its stream is real all the same."""
        self.pretend(camera, state="idle", reason=None, age_s=None, fps=0.0, viewers=0)

    def look(self, *, hidden: bool) -> None:
        """Turn to another tab, or back."""
        self.page.evaluate(
            """hidden => {
                Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )


Open = Callable[..., Window]


def with_policy(route: Route) -> None:
    """Serve a document with the strict policy."""
    response = route.fetch()
    route.fulfill(response=response, headers={**response.headers, "content-security-policy": CSP})
