"""The page and /docs in Debian's chromium, against the real service with synthetic cameras.

Needs chromium, and playwright from the `test` extra: playwright's own browsers are not used. Every page is served
with a strict Content-Security-Policy, so inline scripts, inline styles and foreign resources are found by every test.
"""

from __future__ import annotations

import os
import re
import shutil
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
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, expect, sync_playwright

CSP = "default-src 'self'; img-src 'self' blob: data:"
SOURCES = "front=synthetic: nest=synthetic:?fps=10&label=nest"
TOKEN = "sesame-open-please"
SIZES = [(320, 640), (1280, 800), (3840, 2160)]
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

# Every text on the page whose contrast with what lies behind it is under 4.5:1 (WCAG 2, SC 1.4.3).
FAINT = """() => {
    const numbers = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = numbers(getComputedStyle(at).backgroundColor);
            if ((colour[3] ?? 1) === 1) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const [a, b] = [luminance(numbers(getComputedStyle(element).color)), luminance(ground(element))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${walker.currentNode.data.trim()}`);
    }
    return faint;
}"""

# Resolves when every camera has so many viewers. (wait_for_function does not wait for what a promise brings.)
UNTIL_VIEWERS = """async ([wanted, withinMs]) => {
    const due = performance.now() + withinMs;
    for (;;) {
        const viewers = (await (await fetch("/cameras")).json()).map(camera => camera.viewers);
        if (viewers.every(count => count === wanted)) return;
        if (performance.now() > due) throw new Error(`viewers: ${viewers}, not ${wanted}`);
        await new Promise(done => setTimeout(done, 50));
    }
}"""

# What sticks out of the window, or out of its card, where it would be cut off unseen.
STICKS_OUT = """() => {
    const wide = document.documentElement.scrollWidth;
    const found = wide > innerWidth ? [`the page is ${wide} px wide in ${innerWidth} px`] : [];
    for (const box of document.querySelectorAll(".card, .block, .endpoint, .panel, .bar")) {
        const right = box.getBoundingClientRect().right;
        for (const element of box.querySelectorAll("*")) {
            if (!element.checkVisibility() || element.closest("pre")) continue;
            const over = element.getBoundingClientRect().right - right;
            if (over > 0.5) found.push(`${element.tagName} ${element.className}: ${over} px`);
        }
    }
    return found;
}"""


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


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two cameras, no token."""
    with running(tmp_path) as started:
        yield started


# --- the browser ------------------------------------------------------------------------------------------------------


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
        window.page.context.close()
        assert window.foreign == []


# --- pictures and states ----------------------------------------------------------------------------------------------


def test_the_pictures_move_in_every_card_without_a_word_on_the_console(service: Service, open_page: Open) -> None:
    window = open_page(service)
    for camera in ("front", "nest"):
        window.expect_moving(camera)
        window.expect_state(camera, "Live")
        expect(window.card(camera)).to_contain_text("640 × 480")
    expect(window.card("nest")).to_contain_text(re.compile(r"(9\.\d|10) per second"), timeout=WITHIN_MS)
    version = window.page.request.get(f"{service.url}/health").json()["version"]
    expect(window.page.locator("#version")).to_have_text(version)
    assert window.errors == []


def test_a_killed_driver_is_told_in_words_and_the_card_is_live_again_by_itself(
    service: Service, open_page: Open
) -> None:
    window = open_page(service)
    window.expect_moving("front")
    window.expect_state("front", "Live")
    service.worker("front").kill()
    # The outage may be over before the page's next question: the words stay in the card.
    expect(window.card("front")).to_contain_text("driver process died", timeout=WITHIN_MS)
    window.expect_state("front", "Live")
    expect(window.page.locator("#news")).to_contain_text("front", timeout=WITHIN_MS)
    window.expect_moving("front")
    window.expect_state("nest", "Live")
    assert window.errors == []


def test_an_unplugged_camera_says_why_and_what_to_do(tmp_path: Path, open_page: Open) -> None:
    gone = tmp_path / "gone"
    gone.touch()
    with running(tmp_path, CAMDOCK_SOURCES=f"shed=synthetic:?gone={gone}") as service:
        window = open_page(service)
        window.expect_state("shed", "Offline")
        expect(window.card("shed").locator(".reason")).to_contain_text(f"delete {gone}")
        window.card("shed").get_by_role("button", name="Snapshot of shed").click()
        expect(window.card("shed").locator(".side > .problem")).to_contain_text("unplugged", timeout=WITHIN_MS)
        gone.unlink()
        window.expect_state("shed", "Live")
        expect(window.card("shed").locator(".reason")).to_be_hidden()
        window.expect_moving("shed")


def test_a_silent_service_is_told_and_its_return_needs_nobody(tmp_path: Path, open_page: Open) -> None:
    port = free_port()
    with running(tmp_path, port) as service:
        window = open_page(service)
        window.expect_moving("front")
        service.kill()
        banner = window.page.locator("#banner")
        expect(banner).to_contain_text("does not answer", timeout=WITHIN_MS)
    with running(tmp_path, port):
        expect(banner).to_be_hidden(timeout=WITHIN_MS)
        window.expect_state("front", "Live")
        window.expect_moving("front")


def test_a_tab_that_nobody_sees_holds_no_stream_and_asks_nothing(service: Service, open_page: Open) -> None:
    window = open_page(service)
    window.expect_moving("front")
    watcher = open_page(service, "/docs")  # asks for the page, which should have nothing to do with it
    watcher.page.evaluate(UNTIL_VIEWERS, [1, WITHIN_MS])
    window.look(hidden=True)
    watcher.page.evaluate(UNTIL_VIEWERS, [0, WITHIN_MS])
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    window.page.wait_for_timeout(2500)  # that nothing happens cannot be waited for otherwise
    assert asked == []
    window.look(hidden=False)
    window.expect_moving("front")
    watcher.page.evaluate(UNTIL_VIEWERS, [1, WITHIN_MS])


def test_nine_cameras_on_one_screen_all_move_and_the_page_still_gets_answers(tmp_path: Path, open_page: Open) -> None:
    names = [f"cam{number}" for number in range(9)]
    sources = " ".join(f"{name}=synthetic:?fps=5&size=320x240" for name in names)
    with running(tmp_path, CAMDOCK_SOURCES=sources) as service:
        window = open_page(service, size=(3840, 2160))
        for name in names:
            window.expect_state(name, "Live")
            window.expect_moving(name)
        kinds = [window.card(name).locator("img").get_attribute("src") for name in names]
        assert sum("/stream" in str(kind) for kind in kinds) == 4
        assert sum(str(kind).startswith("blob:") for kind in kinds) == 5
        assert window.errors == []


# --- what can be done -------------------------------------------------------------------------------------------------


def test_a_snapshot_is_saved_under_the_cameras_name(service: Service, open_page: Open) -> None:
    window = open_page(service)
    window.expect_state("nest", "Live")
    with window.page.expect_download(timeout=WITHIN_MS) as saved:
        window.card("nest").get_by_role("button", name="Snapshot of nest").click()
    assert re.fullmatch(r"nest-\d{4}-\d\d-\d\dT[\d-]+Z\.jpg", saved.value.suggested_filename)
    assert saved.value.path().read_bytes().startswith(b"\xff\xd8")


def test_full_screen_shows_the_picture(service: Service, open_page: Open) -> None:
    window = open_page(service)
    window.expect_state("front", "Live")
    window.card("front").get_by_role("button", name="Full screen, front").click()
    window.page.wait_for_function("document.fullscreenElement?.className === 'stage'", timeout=WITHIN_MS)


def test_settings_are_changed_by_keyboard_and_a_refusal_is_told_beside_the_control(
    service: Service, open_page: Open
) -> None:
    window = open_page(service)
    page, card = window.page, window.card("front")
    window.expect_state("front", "Live")
    card.locator("summary").press("Enter")

    def applied() -> dict[str, Any]:
        answer: dict[str, Any] = page.request.get(f"{service.url}/cameras/front/settings").json()["applied"]
        return answer

    exposure, setting = card.get_by_label("Exposure", exact=True), card.locator("[data-setting=exposure_us]")
    exposure.fill("20000")
    exposure.press("Enter")
    expect(setting.locator(".note")).to_contain_text("now 20 ms", timeout=WITHIN_MS)
    assert applied()["exposure_us"] == 20000

    exposure.fill("99999999")
    exposure.press("Enter")
    expect(setting.locator(".problem")).to_contain_text("outside", timeout=WITHIN_MS)
    expect(exposure).to_have_attribute("aria-invalid", "true")
    assert applied()["exposure_us"] == 20000
    exposure.press("Escape")
    expect(exposure).to_have_value("20000")
    expect(setting.locator(".problem")).to_be_empty()

    card.get_by_label("Exposure, slider").press("End")
    expect(setting.locator(".note")).to_contain_text("now 2 s", timeout=WITHIN_MS)
    assert applied()["exposure_us"] == 2_000_000
    card.get_by_label("Automatic exposure").press("Space")
    expect(setting.locator(".note")).to_contain_text("chosen by the camera", timeout=WITHIN_MS)
    assert applied()["auto_exposure"] is True
    assert [error for error in window.errors if "422" not in error] == []


# --- the token --------------------------------------------------------------------------------------------------------


def test_the_token_is_asked_for_refused_taken_kept_and_forgotten(tmp_path: Path, open_page: Open) -> None:
    with running(tmp_path, CAMDOCK_TOKEN=TOKEN) as service:
        window = open_page(service)
        page = window.page
        field_ = page.get_by_label("Token", exact=True)
        expect(field_).to_be_focused(timeout=WITHIN_MS)
        expect(page.locator("#token-problem")).to_be_empty()
        field_.fill("not the token")
        field_.press("Enter")
        expect(page.locator("#token-problem")).to_have_text("This token is not accepted.", timeout=WITHIN_MS)
        assert page.locator(".card").count() == 0
        field_.fill(TOKEN)
        field_.press("Enter")
        window.expect_moving("front")
        window.expect_moving("nest")
        expect(field_).to_be_hidden()
        page.reload()
        window.expect_moving("front")
        page.get_by_role("button", name="Forget token").click()
        expect(field_).to_be_visible(timeout=WITHIN_MS)
        assert page.locator(".card").count() == 0
        assert [error for error in window.errors if "401" not in error] == []


def test_a_token_in_the_address_is_used_and_taken_out_of_it(tmp_path: Path, open_page: Open) -> None:
    with running(tmp_path, CAMDOCK_TOKEN=TOKEN) as service:
        window = open_page(service, f"/?token={TOKEN}")
        window.expect_moving("front")
        assert window.page.url == f"{service.url}/"
        window.page.get_by_role("link", name="API").click()
        expect(window.page.get_by_role("heading", name="What to type first")).to_be_visible(timeout=WITHIN_MS)
        assert TOKEN not in window.page.locator("main").inner_text()
        window.page.get_by_role("link", name="Cameras", exact=True).first.click()
        window.expect_moving("front")
        assert window.errors == []


# --- how it looks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_nothing_sticks_out_and_every_text_can_be_read(tmp_path: Path, open_page: Open, size: tuple[int, int]) -> None:
    gone = tmp_path / "gone"
    gone.touch()
    sources = f"{SOURCES} a-camera-with-a-name-of-many-letters=synthetic:?gone={gone}"
    with running(tmp_path, CAMDOCK_SOURCES=sources) as service:
        for scheme in ("light", "dark"):
            window = open_page(service, size=size, scheme=scheme)
            window.expect_state("front", "Live")
            window.expect_state("a-camera-with-a-name-of-many-letters", "Offline")
            window.card("front").locator("summary").click()
            expect(window.card("front").get_by_label("Exposure", exact=True)).to_be_visible(timeout=WITHIN_MS)
            assert window.page.evaluate(STICKS_OUT) == []
            assert window.page.evaluate(FAINT) == []

            docs = open_page(service, "/docs", size=size, scheme=scheme)
            expect(docs.page.get_by_role("heading", name="What to type first")).to_be_visible(timeout=WITHIN_MS)
            assert docs.page.evaluate(STICKS_OUT) == []
            assert docs.page.evaluate(FAINT) == []


def test_the_docs_show_every_endpoint_with_a_line_to_copy(service: Service, open_page: Open) -> None:
    window = open_page(service, "/docs")
    paths = window.page.request.get(f"{service.url}/openapi.json").json()["paths"]
    endpoints = window.page.locator(".endpoint")
    expect(endpoints).to_have_count(sum(len(methods) for methods in paths.values()), timeout=WITHIN_MS)
    assert sorted(set(window.page.locator(".endpoint h3 code").all_inner_texts())) == sorted(paths)

    change = window.page.locator("#put-cameras-name-settings")
    expect(change).to_contain_text(f"{service.url}/cameras/front/settings")
    expect(change).to_contain_text("exposure_us")
    expect(change).to_contain_text("422")
    line = change.locator("pre").first.inner_text()
    change.get_by_role("button", name=re.compile("^Copy")).first.click()
    expect(change.get_by_text("Copied")).to_be_visible()
    # What is copied is a whole command: it does what it says.
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=30)
    assert done.stdout.startswith(b'{"wanted"')
    assert window.errors == []
