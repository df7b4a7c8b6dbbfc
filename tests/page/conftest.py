"""The service and the browser, started for the tests of the page.

Needs chromium, and playwright from the `test` extra: playwright's own browsers are not used.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.page.rig import CSP, Open, Service, Window, running, with_policy


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two cameras, no token."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing: apt install chromium")
        pytest.skip("chromium is missing: apt install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """open_page(service, "/", size=..., scheme=...): a Window. In the end: nothing has left the service's origin."""
    windows: list[Window] = []

    def open_one(
        service: Service, path: str = "/", size: tuple[int, int] = (1280, 800), scheme: str = "light"
    ) -> Window:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)  # type: ignore[arg-type]
        context.route(re.compile(rf"^{re.escape(service.url)}/(docs)?(\?.*)?$"), with_policy)
        window = Window(context.new_page(), service.url)
        windows.append(window)
        window.page.on("console", window.on_console)
        window.page.on("pageerror", lambda error: window.errors.append(str(error)))
        window.page.on("request", window.on_request)
        response = window.page.goto(service.url + path)
        assert response is not None
        assert response.headers["content-security-policy"] == CSP
        return window

    yield open_one
    for window in windows:
        window.page.unroute_all(behavior="ignoreErrors")  # of an answer on its way
        window.page.context.close()
        assert window.foreign == []
