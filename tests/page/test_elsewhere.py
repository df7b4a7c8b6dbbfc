"""Pages of others in Debian's chromium: a printer's page that shows a camera as OctoPrint, Mainsail and Fluidd do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.page.rig import WITHIN_MS, running
from tests.tools.service import free_port, until
from tests.tools.upstream import upstream

TOKEN = "sesame-open-please"

# Mainsail's and Fluidd's adaptive mode: the next snapshot when one is there, again after a second when none is.
ADAPTIVE = """url => {
    window.shown = 0;
    const next = () => { image.src = `${url}&bypassCache=${Date.now()}${Math.random()}`; };
    const image = document.querySelector("img");
    image.onload = () => { window.shown += 1; setTimeout(next, 50); };
    image.onerror = () => setTimeout(next, 1000);
    next();
}"""
# Mainsail's MJPEG mode: reads the stream itself, by the length of each part. Resolves after so many whole pictures.
FETCHED = """async ([url, wanted]) => {
    const controller = new AbortController();
    const reader = (await fetch(url, {mode: "cors", signal: controller.signal})).body.getReader();
    let text = "", pictures = 0;
    while (pictures < wanted) {
        const {value, done} = await reader.read();
        if (done) throw new Error("the stream ended");
        text += Array.from(value, code => String.fromCharCode(code)).join("");
        for (;;) {
            const head = text.match(/Content-Length: (\\d+)[^]*?\\r\\n\\r\\n/);
            if (!head || text.length < head.index + head[0].length + Number(head[1])) break;
            const jpeg = text.substr(head.index + head[0].length, Number(head[1]));
            if (!jpeg.startsWith("\\xff\\xd8") || !jpeg.endsWith("\\xff\\xd9")) throw new Error("no JPEG");
            text = text.slice(head.index + head[0].length + jpeg.length);
            pictures += 1;
        }
    }
    controller.abort();
    return pictures;
}"""


def answer(handler: BaseHTTPRequestHandler) -> None:
    """The printer's page."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    handler.wfile.write(b"<!doctype html><title>A printer</title><img alt='camera' width=320>")


@pytest.fixture
def printer(browser: Browser) -> Iterator[Page]:
    """A page of another origin."""
    with upstream(answer) as port:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
        context.close()


def expect_moving(page: Page) -> None:
    """Its picture is there and changes twice. What it shows is not for its scripts to read, so it is looked at."""
    image = page.locator("img")
    page.wait_for_function("() => document.querySelector('img').naturalWidth === 640", timeout=WITHIN_MS)
    for _ in range(2):
        before = image.screenshot()
        until(lambda shown=before: image.screenshot() != shown, WITHIN_MS / 1000, "the picture moves", 0)


def test_an_image_on_another_page_moves_and_moves_again_behind_a_restart(tmp_path: Path, printer: Page) -> None:
    port = free_port()
    for path in (f"/stream?token={TOKEN}", f"/?action=stream&token={TOKEN}&1763770000000"):
        with running(tmp_path, port, CAMDOCK_TOKEN=TOKEN):
            printer.evaluate("url => { document.querySelector('img').src = url; }", f"http://127.0.0.1:{port}{path}")
            expect_moving(printer)


def test_adaptive_snapshots_go_on_through_a_restart(tmp_path: Path, printer: Page) -> None:
    port = free_port()
    with ExitStack() as first:
        first.enter_context(running(tmp_path, port, CAMDOCK_TOKEN=TOKEN))
        printer.evaluate(ADAPTIVE, f"http://127.0.0.1:{port}/snapshot?token={TOKEN}")
        printer.wait_for_function("() => window.shown > 5", timeout=WITHIN_MS)
        expect_moving(printer)
    shown = printer.evaluate("() => window.shown")
    with running(tmp_path, port, CAMDOCK_TOKEN=TOKEN):
        printer.wait_for_function("before => window.shown > before + 5", arg=shown, timeout=WITHIN_MS)
        expect_moving(printer)


def test_a_page_that_is_allowed_reads_the_stream_itself_and_another_cannot(tmp_path: Path, printer: Page) -> None:
    origin = printer.evaluate("() => location.origin")
    for allowed in (origin, "http://elsewhere.example"):
        with running(tmp_path, CAMDOCK_TOKEN=TOKEN, CAMDOCK_ALLOWED_ORIGINS=allowed) as service:
            asked = [f"{service.url}/stream?token={TOKEN}", 10]
            if allowed == origin:
                assert printer.evaluate(FETCHED, asked) == 10
            else:
                with pytest.raises(Error, match="Failed to fetch"):
                    printer.evaluate(FETCHED, asked)
