"""The page and /docs in Debian's chromium, against the real service with synthetic cameras."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.page.rig import WITHIN_MS, Open, Service, running
from tests.tools.service import free_port

TOKEN = "sesame-open-please"

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

        # Snapshots keep a camera awake as a stream does: in a tab that nobody sees there are none either.
        window.look(hidden=True)
        window.page.wait_for_timeout(500)  # what is on its way may arrive
        asked: list[str] = []
        window.page.on("request", lambda request: asked.append(request.url))
        window.page.wait_for_timeout(2500)
        assert asked == []


# --- idle -------------------------------------------------------------------------------------------------------------


def test_cameras_go_to_rest_behind_a_hidden_tab_and_its_return_wakes_them(service: Service, open_page: Open) -> None:
    window = open_page(service)
    window.expect_moving("front")
    window.look(hidden=True)
    states: list[str] = []
    for _ in range(120):
        states = [camera["state"] for camera in window.page.request.get(f"{service.url}/cameras").json()]
        if states == ["idle", "idle"]:
            break
        window.page.wait_for_timeout(250)
    assert states == ["idle", "idle"]
    window.look(hidden=False)
    window.expect_moving("front")
    for camera in ("front", "nest"):
        window.expect_state(camera, "Live")
    expect(window.page.locator("#news")).to_be_empty()
    assert window.errors == []


# In the next two, what /cameras answers is changed on the way to the page; the streams are real.


def test_an_idle_camera_is_said_to_be_idle_without_alarm_and_its_stream_is_opened_all_the_same(
    service: Service, open_page: Open
) -> None:
    window = open_page(service, "/docs")  # so that the page's first answer is changed already
    window.pretend_idle("nest")
    window.page.goto(service.url)
    window.expect_state("nest", "Idle")
    card = window.card("nest")
    expect(card.locator(".stage")).to_contain_text("Nobody is looking. It starts when somebody does.")
    expect(card.locator(".reason")).to_be_hidden()
    expect(window.page.locator("#summary")).to_have_text("1 of 2 cameras live, 1 idle", timeout=WITHIN_MS)
    window.expect_moving("nest")
    watcher = open_page(service, "/docs")
    watcher.page.evaluate(UNTIL_VIEWERS, [1, WITHIN_MS])

    window.page.unroute_all(behavior="ignoreErrors")
    window.expect_state("nest", "Live")
    expect(card.locator(".stage")).not_to_contain_text("Nobody is looking", use_inner_text=True)
    expect(window.page.locator("#news")).to_be_empty()  # neither was worth interrupting somebody who listens
    assert window.errors == []


def test_a_card_that_scrolls_into_sight_opens_its_stream_though_its_camera_is_idle(
    tmp_path: Path, open_page: Open
) -> None:
    names = [f"cam{number}" for number in range(6)]
    with running(tmp_path, CAMDOCK_SOURCES=" ".join(f"{name}=synthetic:?fps=5" for name in names)) as service:
        window = open_page(service, "/docs", size=(320, 568))
        window.pretend_idle("cam5")
        window.page.goto(service.url)
        window.expect_moving("cam0")
        window.expect_state("cam5", "Idle")
        last = window.card("cam5").locator("img")
        assert last.get_attribute("src") is None
        window.card("cam5").scroll_into_view_if_needed()
        expect(last).to_have_attribute("src", re.compile("/stream"), timeout=WITHIN_MS)
        window.expect_moving("cam5")


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
    window.page.wait_for_function("() => document.fullscreenElement?.className === 'stage'", timeout=WITHIN_MS)


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
        page.get_by_role("link", name="API").click()
        # The browser has a cookie, curl has none: the lines say where the token goes.
        expect(page.locator("#start ~ section").nth(1)).to_contain_text("/stream?token=TOKEN", timeout=WITHIN_MS)
        line = try_it(page, "get-cameras")
        assert line == f"curl -H 'Authorization: Bearer TOKEN' {service.url}/cameras"
        assert b'"front"' in done_in(tmp_path, line.replace("TOKEN", TOKEN))
        assert "Bearer" not in try_it(page, "get-health") + try_it(page, "post-login")
        assert TOKEN not in page.locator("main").inner_text()
        page.get_by_role("link", name="Cameras", exact=True).first.click()
        page.get_by_role("button", name="Log out").click()
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


# --- /docs ------------------------------------------------------------------------------------------------------------


def try_it(page: Page, endpoint: str) -> str:
    """The line of one endpoint that is there to be copied."""
    return page.locator(f"#{endpoint} pre").first.inner_text()


def done_in(folder: Path, line: str) -> bytes:
    """What such a line answers, as a whole command; it must do what it says."""
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, check=True, timeout=30).stdout


def test_the_docs_show_every_endpoint_with_a_line_to_copy(service: Service, open_page: Open, tmp_path: Path) -> None:
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
    assert done_in(tmp_path, line).startswith(b'{"wanted"')

    for line in window.page.locator(".endpoint").locator("pre").all_inner_texts():
        assert "%7B" not in line
    assert try_it(window.page, "get-captures-filename-thumbnail").endswith(
        f"-f -o thumbnail.jpg {service.url}/captures/capture_20261017_010203_004.jpg/thumbnail"
    )
    process = window.page.locator("#post-images-process")
    fields = process.locator("h4:has-text('Body (a form)') ~ dl").first
    expect(fields).to_contain_text("file")
    expect(fields).to_contain_text("operations")
    done_in(tmp_path, f"curl -f -o photo.jpg {service.url}/snapshot")
    done_in(tmp_path, try_it(window.page, "post-images-process"))
    assert (tmp_path / "process.jpg").read_bytes().startswith(b"\xff\xd8")
    annotate = try_it(window.page, "post-images-annotate")
    assert b'"vision_off"' in done_in(tmp_path, annotate)  # which is looked at first
    # As it is, it is a picture that is taken.
    assert b'"width": 640' in done_in(tmp_path, annotate.replace("annotate", "'process?answer=measurements'"))
    expect(window.page.locator("main")).to_contain_text("/cameras/{name}/ws are WebSockets")
    assert window.errors == []
