"""How the page and /docs look, and whether they serve somebody who cannot see them well, or has no mouse.

axe-core is the judge of what a program can judge. The rest is asked here: what sticks out, what the Tab key meets and
in which order, what is said aloud and how often.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tests.page.rig import WITHIN_MS, Open, Service, running

SIZES = [(320, 568), (1280, 800), (3840, 2160)]
LONG = "a-camera-with-a-name-of-many-letters"

# The rules of WCAG 2.2 to level AA, and what axe calls best practice.
AXE_OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

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

# The element that has the focus: what it is called, and whether one sees that it has it.
FOCUSED = """() => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    return {
        name: element.getAttribute("aria-label") ?? element.textContent.trim(),
        ring: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
        onScreen: box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth,
    };
}"""

# From now on: every text that a screen reader says by itself, because it changed in a live region.
LISTEN = """() => {
    window.said = [];
    const spoken = "[aria-live], [role=status], [role=alert]";
    const listen = changes => {
        for (const { target } of changes) {
            const element = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
            const region = element?.closest(spoken);
            if (region?.textContent) window.said.push(region.textContent);
        }
    };
    new MutationObserver(listen).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is now, one line for each element."""
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("options => axe.run(document, options)", AXE_OPTIONS)["violations"]
    return [
        f"{rule['impact']}: {rule['id']}: {node['target']}: {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]


def test_axe_finds_what_is_wrong(service: Service, open_page: Open) -> None:
    page = open_page(service).page
    page.evaluate("""() => {
        document.querySelector("main").append(document.createElement("button"));
        document.querySelector("h1").style.color = "#ddd";
    }""")
    found = "\n".join(violations(page))
    assert "critical: button-name" in found
    assert "serious: color-contrast" in found


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_nothing_sticks_out_every_text_can_be_read_and_axe_finds_nothing(
    tmp_path: Path, open_page: Open, size: tuple[int, int]
) -> None:
    gone = tmp_path / "gone"
    gone.touch()
    sources = f"front=synthetic: nest=synthetic:?fps=10 {LONG}=synthetic:?gone={gone} shed=synthetic:?fps=1"
    with running(tmp_path, CAMDOCK_SOURCES=sources) as service:
        for scheme in ("light", "dark"):
            window = open_page(service, size=size, scheme=scheme)
            window.page.route("**/cameras/shed/stream*", lambda route: route.abort())  # no picture covers the words
            window.pretend_idle("shed")
            window.page.reload()
            window.expect_state("front", "Live")
            window.expect_state(LONG, "Offline")
            window.expect_state("shed", "Idle")
            expect(window.card("shed").get_by_text("Nobody is looking")).to_be_visible()
            for camera in ("front", "shed"):
                window.card(camera).locator("summary").click()
                expect(window.card(camera).get_by_label("Exposure", exact=True)).to_be_visible(timeout=WITHIN_MS)
            assert window.page.evaluate(STICKS_OUT) == []
            assert window.page.evaluate(FAINT) == []
            assert violations(window.page) == []

            docs = open_page(service, "/docs", size=size, scheme=scheme)
            expect(docs.page.get_by_role("heading", name="What to type first")).to_be_visible(timeout=WITHIN_MS)
            docs.page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true; })")
            assert docs.page.evaluate(STICKS_OUT) == []
            assert docs.page.evaluate(FAINT) == []
            assert violations(docs.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_where_a_token_is_asked_for_and_where_the_service_is_silent(
    tmp_path: Path, open_page: Open, scheme: str
) -> None:
    with running(tmp_path, CAMDOCK_TOKEN="sesame-open-please") as service:
        window = open_page(service, size=SIZES[0], scheme=scheme)
        field = window.page.get_by_label("Token", exact=True)
        field.fill("not the token")
        field.press("Enter")
        expect(window.page.get_by_text("This token is not accepted.")).to_be_visible(timeout=WITHIN_MS)
        assert violations(window.page) == []
        field.fill("sesame-open-please")
        field.press("Enter")
        window.expect_state("front", "Live")
        service.kill()
        expect(window.page.locator("#banner")).to_contain_text("does not answer", timeout=WITHIN_MS)
        assert violations(window.page) == []


# --- keyboard and screen reader ---------------------------------------------------------------------------------------


def test_the_tab_key_meets_every_control_in_reading_order_and_one_sees_where_it_is(
    service: Service, open_page: Open
) -> None:
    window = open_page(service, size=(320, 568))
    page = window.page
    window.expect_state("nest", "Live")
    met: list[dict[str, Any]] = []
    for _ in range(7):
        page.keyboard.press("Tab")
        met.append(page.evaluate(FOCUSED))
    cards = [[f"Snapshot of {one}", f"Full screen, {one}", f"Settings of {one}"] for one in ("front", "nest")]
    assert [one["name"] for one in met] == ["API", *cards[0], *cards[1]]
    assert [one for one in met if one["ring"] < 2 or not one["onScreen"]] == []

    page.keyboard.press("Enter")  # opens the settings of nest, the last one met
    for label in ("Automatic exposure", "Exposure, slider", "Exposure", "Gain, slider", "Gain"):
        page.keyboard.press("Tab")
        expect(window.card("nest").get_by_label(label, exact=True)).to_be_focused()
        assert page.evaluate(FOCUSED)["ring"] >= 2


def test_snapshot_and_full_screen_work_by_keyboard_and_keep_the_focus(service: Service, open_page: Open) -> None:
    window = open_page(service)
    page = window.page
    window.expect_state("nest", "Live")
    snapshot = window.card("nest").get_by_role("button", name="Snapshot of nest")
    snapshot.focus()
    for key in ("Enter", "Space"):
        with page.expect_download(timeout=WITHIN_MS):
            page.keyboard.press(key)
        expect(snapshot).to_be_focused()
        expect(snapshot).to_have_attribute("aria-disabled", "false")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.fullscreenElement?.className === 'stage'", timeout=WITHIN_MS)
    page.evaluate("document.exitFullscreen()")  # Escape is the browser's own key: no test can press it
    page.wait_for_function("() => document.fullscreenElement === null", timeout=WITHIN_MS)
    expect(window.card("nest").get_by_role("button", name="Full screen, nest")).to_be_focused()


def test_a_screen_reader_hears_of_an_interruption_once_and_otherwise_nothing(service: Service, open_page: Open) -> None:
    window = open_page(service)
    window.expect_state("front", "Live")
    window.expect_state("nest", "Live")
    window.page.wait_for_timeout(1500)  # the first answers are over
    expect(window.page.locator("#news")).to_have_attribute("aria-live", "polite")
    window.page.evaluate(LISTEN)
    window.page.wait_for_timeout(3500)  # rates and ages change, and are not said; that cannot be waited for otherwise
    assert window.page.evaluate("window.said") == []
    service.worker("front").kill()
    window.page.wait_for_function("() => window.said.length > 0", timeout=WITHIN_MS)
    window.expect_state("front", "Live")
    window.page.wait_for_timeout(2500)
    said = window.page.evaluate("window.said")
    assert len(said) <= 2, said  # at most: offline, and live again
    assert all(re.match("front: ", one) for one in said), said
