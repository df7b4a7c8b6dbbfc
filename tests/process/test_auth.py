"""Who may look and who may touch, asked of a running service by the clients that people have."""

from __future__ import annotations

import functools
import json
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from requests.auth import HTTPDigestAuth

from tests.tools.service import Service

TOKEN, VIEWERS, WRONG = "full+token/1=", "viewers-token", "wrong-token"
METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
OPEN = {"/health", "/health/live", "/health/ready", "/", "/docs", "/login", "/favicon.ico", "/web/{file}"}
OPEN |= {"/api/v1/health/"}
BESIDE_THE_API = {"/", "/docs", "/login", "/logout", "/favicon.ico", "/web/{file}", "/ws", "/cameras/{name}/ws"}
ONCE = ssl.create_default_context()  # httpx would read every authority's certificate for each request
get, put, post = (functools.partial(one, verify=ONCE) for one in (httpx.get, httpx.put, httpx.post))
LogIn = Callable[..., tuple[httpx.Client, httpx.Response]]
SETTINGS = "/cameras/camera/settings"


@pytest.fixture(scope="module", params=["tokens service"])
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with both tokens; requests come from a proxy that says who sent them."""
    environment = {
        "CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=20",
        "CAMDOCK_TOKEN": TOKEN,
        "CAMDOCK_VIEWER_TOKEN": VIEWERS,
        "CAMDOCK_TRUSTED_PROXIES": "127.0.0.1",
        "CAMDOCK_ALLOWED_ORIGINS": "https://lab.example.org",
        "CAMDOCK_LOG_LEVEL": "debug",
    }
    with Service(environment, tmp_path_factory.mktemp("tokens")) as running:
        assert get(url(running, "/snapshot"), headers=bearer(TOKEN)).status_code == 200
        yield running
        assert "Traceback" not in running.log, running.log[-4000:]
        for secret in (TOKEN, VIEWERS, WRONG):
            assert secret not in running.log


def url(service: Service, path: str) -> str:
    return f"http://127.0.0.1:{service.port}{path}"


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


def far_end(number: int) -> dict[str, str]:
    """An address of a test's own: wrong tokens of one test lock no other out."""
    return {"X-Forwarded-For": f"203.0.113.{number}"}


# --- everything there is, by everybody --------------------------------------------------------------------------------


def every_path(service: Service) -> list[str]:
    described = get(url(service, "/openapi.json"), headers=bearer(TOKEN)).json()["paths"]
    assert SETTINGS.replace("camera/settings", "{name}/settings") in described
    return sorted(set(described) | BESIDE_THE_API)


def status_of(service: Service, path: str, method: str, token: str | None, address: int) -> int:
    asked = path.replace("{name}", "camera").replace("{file}", "app.js")
    headers = far_end(address) | (bearer(token) if token else {})
    frames = "?frames=1" if path.endswith(("/stream", "/video")) else ""
    return service.ask(method, asked + frames, headers=headers).status


def test_without_a_token_nothing_answers_but_health_login_and_the_pages_files(service: Service) -> None:
    for path in every_path(service):
        for method in METHODS:
            status = status_of(service, path, method, None, 1)
            is_open = path in OPEN or path == "/logout"
            if path in OPEN and method == "GET":
                assert status == 200, (path, status)
            elif is_open:
                assert status in (200, 401, 404, 405), (path, method, status)
            else:
                assert status == 401, (path, method, status)


def test_a_wrong_token_opens_no_more_than_none(service: Service) -> None:
    address = 2
    for number, path in enumerate(set(every_path(service)) - OPEN - {"/logout"}):
        for method in ("GET", "PUT", "DELETE"):
            address = 100 + number * 3 + ("GET", "PUT", "DELETE").index(method)
            assert status_of(service, path, method, WRONG, address) == 401, (path, method)


def test_viewers_see_what_the_others_see_and_change_nothing(service: Service) -> None:
    for path in every_path(service):
        for method in METHODS:
            by_viewer = status_of(service, path, method, VIEWERS, 3)
            if method in ("GET", "HEAD", "OPTIONS") or path in OPEN or path == "/logout":
                assert by_viewer == status_of(service, path, method, TOKEN, 3), (path, method)
                assert by_viewer not in (401, 403) or (path, method) == ("/login", "POST"), (path, method)
            else:
                assert by_viewer == 403, (path, method)


def test_a_viewer_is_told_why_he_may_not_touch_and_nothing_has_changed(service: Service) -> None:
    before = get(url(service, SETTINGS), headers=bearer(VIEWERS)).json()["wanted"]
    answer = put(url(service, SETTINGS), headers=bearer(VIEWERS), json={"gain": 7.5})
    assert (answer.status_code, answer.json()["code"]) == (403, "token_read_only")
    assert "CAMDOCK_TOKEN" in answer.json()["hint"]
    assert get(url(service, SETTINGS), headers=bearer(VIEWERS)).json()["wanted"] == before
    assert put(url(service, SETTINGS), headers=bearer(TOKEN), json={"gain": 1.0}).status_code == 200


# --- the clients' own ways --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "change"), [(TOKEN, 200), (VIEWERS, 403)])
def test_clients_with_basic_and_digest_get_in(service: Service, token: str, change: int) -> None:
    for auth in (httpx.DigestAuth("anybody", token), httpx.BasicAuth("anybody", token)):
        with httpx.Client(verify=ONCE, auth=auth) as client:
            for _ in range(3):  # Digest counts them
                assert client.get(url(service, "/snapshot?width=64")).content[:2] == b"\xff\xd8"
            assert client.put(url(service, SETTINGS), json={"gain": 1.0}).status_code == change
            with client.stream("GET", url(service, "/?action=stream&frames=1")) as stream:
                assert b"image/jpeg" in stream.read()
    with requests.Session() as session:
        session.auth = HTTPDigestAuth("any body", token)
        assert [session.get(url(service, "/state")).status_code for _ in range(3)] == [200] * 3
        assert session.put(url(service, SETTINGS), json={"gain": 1.0}).status_code == change


@pytest.mark.parametrize("how", ["--digest", "--basic", "--anyauth"])
def test_curl_gets_in(service: Service, how: str) -> None:
    command = ["curl", "-s", "-o", "-", "-w", "%{http_code}", how, "-u", f"me:{TOKEN}", url(service, "/state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout.endswith("200"), done


def test_a_wrong_password_does_not(service: Service) -> None:
    for number, auth in enumerate((httpx.DigestAuth("me", WRONG), httpx.BasicAuth("me", WRONG))):
        answer = get(url(service, "/state"), auth=auth, headers=far_end(10 + number))
        assert (answer.status_code, answer.json()["code"]) == (401, "token_needed")


def test_a_digest_that_was_seen_is_worth_nothing(service: Service) -> None:
    sent: list[str] = []
    with httpx.Client(verify=ONCE, auth=httpx.DigestAuth("me", TOKEN)) as client:
        answer = client.get(url(service, "/state"))
        sent.append(answer.request.headers["Authorization"])
    assert answer.status_code == 200
    again = get(url(service, "/state"), headers={"Authorization": sent[0]})
    assert again.status_code == 401
    assert "stale=true" in again.headers["www-authenticate"]
    assert get(url(service, "/cameras"), headers={"Authorization": sent[0]}).status_code == 401


# --- a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture
def log_in(service: Service) -> Iterator[LogIn]:
    """log_in(token, **headers): a client with a cookie, and what it was answered."""
    with ExitStack() as stack:

        def logged_in(token: str, **headers: str) -> tuple[httpx.Client, httpx.Response]:
            client = stack.enter_context(httpx.Client(verify=ONCE, base_url=url(service, ""), headers=headers))
            return client, client.post("/login", json={"token": token})

        yield logged_in


def test_a_form_is_answered_with_a_cookie_and_the_way_to_the_page(service: Service) -> None:
    form = get(url(service, "/login"))
    assert 'method="post" action="login"' in form.text
    with httpx.Client(
        verify=ONCE, base_url=url(service, "/"), headers={"Accept": "text/html"}, follow_redirects=True
    ) as client:
        wrong = client.post("/login", data={"token": WRONG}, headers=far_end(20))
        assert (wrong.url.path, wrong.url.fragment, wrong.status_code) == ("/login", "wrong", 200)
        assert 'id="wrong"' in wrong.text
        assert client.get("/cameras").status_code == 401
        page = client.post("/login", data={"token": TOKEN})
        assert (page.url.path, page.status_code) == ("/", 200)
        assert client.get("/snapshot").headers["content-type"] == "image/jpeg"
        assert client.get("/health").json()["by"] == "cookie"
        assert client.post("/logout").url.path == "/"
        assert client.get("/cameras").status_code == 401


def test_a_viewers_cookie_looks_and_the_other_touches(log_in: LogIn) -> None:
    for token, may, change in ((VIEWERS, "look", 403), (TOKEN, "touch", 200)):
        client, answer = log_in(token)
        assert answer.json() == {"may": may}
        assert client.get("/health").json()["may"] == may
        assert client.put(SETTINGS, json={"gain": 1.0}).status_code == change
    assert "Secure" not in answer.headers["set-cookie"]
    _, answer = log_in(TOKEN, **{"X-Forwarded-Proto": "https", **far_end(21)})
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"token": ["x"]}', b'{"token": "\xff"}', b"[" * 4000, b"token=" + b"x" * 9000]
)
def test_rubbish_does_not_log_in(service: Service, body: bytes) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = post(url(service, "/login"), content=body, headers={"Content-Type": kind, **far_end(22 + len(kind))})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Origin": "https://lab.example.org", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({}, False),
    ],
)
def test_another_website_changes_nothing_in_its_visitors_name(
    service: Service, log_in: LogIn, said: dict[str, str], refused: bool
) -> None:
    client, _ = log_in(TOKEN)
    change: dict[str, Any] = {"json": {"gain": 1.0}, "headers": said}
    answers = [client.put(SETTINGS, **change), put(url(service, SETTINGS), auth=("me", TOKEN), **change)]
    with httpx.Client(verify=ONCE, auth=httpx.DigestAuth("me", TOKEN)) as by_digest:
        by_digest.get(url(service, "/state"))  # the challenge, which a page of ours would not get
        answers.append(by_digest.put(url(service, SETTINGS), **change))
    answers += [client.post("/login", json={"token": TOKEN}, headers=said), client.post("/logout", headers=said)]
    assert {answer.status_code for answer in answers} == {403 if refused else 200}
    if refused:
        assert {answer.json()["code"] for answer in answers} == {"cross_site"}
    # A token that was meant is no visitor's name.
    meant = put(url(service, SETTINGS), json={"gain": 1.0}, headers=said | bearer(TOKEN))
    assert meant.status_code == 200


def test_another_website_may_show_pictures(service: Service) -> None:
    said = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    for path in ("/snapshot", "/stream?frames=1"):
        answer = get(url(service, path), headers=said | bearer(VIEWERS))
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "content-security-policy" not in answer.headers  # people put it into frames as well
        assert "access-control-allow-origin" not in answer.headers  # it cannot read them
    assert get(url(service, "/health")).headers["cross-origin-resource-policy"] == "same-origin"


def test_every_answer_says_how_it_may_be_used(service: Service) -> None:
    for path in ("/", "/login", "/web/app.js", "/health", "/snapshot", "/stream?frames=1", "/nothing", "/metrics"):
        for headers in ({}, bearer(TOKEN)):
            answer = get(url(service, path), headers=headers)
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["referrer-policy"] == "no-referrer", path
    for path in ("/", "/login", "/docs"):
        assert "frame-ancestors 'self'" in get(url(service, path)).headers["content-security-policy"]
    assert "frame-ancestors 'none'" in get(url(service, "/health")).headers["content-security-policy"]


# --- guessing ---------------------------------------------------------------------------------------------------------


def test_who_guesses_has_to_wait_and_nobody_else(service: Service, log_in: LogIn) -> None:
    client, _ = log_in(TOKEN)
    guesses = [
        lambda: get(url(service, f"/state?token={WRONG}"), headers=far_end(90)),
        lambda: get(url(service, "/state"), headers=far_end(90) | bearer(WRONG)),
        lambda: get(url(service, "/state"), headers=far_end(90), auth=("me", WRONG)),
        lambda: get(url(service, "/state"), headers=far_end(90), auth=httpx.DigestAuth("me", WRONG)),
        lambda: post(url(service, "/login"), headers=far_end(90), json={"token": WRONG}),
    ]
    assert [guess().status_code for _ in range(2) for guess in guesses] == [401] * 10
    answers = [guess() for guess in guesses[:3] + guesses[4:]]
    assert [answer.status_code for answer in answers] == [429] * 4
    assert {answer.json()["code"] for answer in answers} == {"too_many_attempts"}
    assert all(0 < int(answer.headers["retry-after"]) <= 60 for answer in answers)
    # The right one is not told from a wrong one now, not even where everybody is answered.
    assert get(url(service, "/state"), headers=far_end(90) | bearer(TOKEN)).status_code == 429
    assert post(url(service, "/login"), headers=far_end(90), json={"token": TOKEN}).status_code == 429
    health = get(url(service, "/health"), headers=far_end(90) | bearer(TOKEN))
    assert (health.status_code, health.json()["may"]) == (200, "nothing")
    # Others, and who is logged in, notice nothing.
    assert get(url(service, "/state"), headers=far_end(91) | bearer(TOKEN)).status_code == 200
    assert client.get("/state", headers=far_end(90)).status_code == 200
    assert get(url(service, "/state"), headers=far_end(90)).status_code == 401
    lines = re.findall(r"WARNING.*203\.0\.113\.90 .*", service.log)
    assert len(lines) == 1, lines


# --- nothing is asked for ---------------------------------------------------------------------------------------------


def test_on_loopback_without_a_token_a_foreign_page_changes_nothing(plain: Service) -> None:
    for said in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        for path in (SETTINGS, f"{SETTINGS}?token=anything"):
            answer = plain.ask("PUT", path, {"gain": 3.0}, headers=said)
            assert (answer.status, answer.json()["code"]) == (403, "cross_site")
        assert plain.ask("PUT", SETTINGS, {"gain": 3.0}, headers=said | bearer("anything")).status == 403
    ours = {"Origin": f"http://127.0.0.1:{plain.port}"}
    assert plain.ask("PUT", SETTINGS, {}, headers=ours).status == 200
    assert plain.get("/snapshot", headers={"Origin": "http://evil.example"}).status == 200


def test_no_proxy_is_believed_unless_it_is_named(start: Any, tmp_path: Path) -> None:
    service = start("synthetic:", CAMDOCK_TOKEN=TOKEN)
    for number in range(10):
        assert service.get(f"/state?token={WRONG}", headers={"X-Forwarded-For": f"198.51.100.{number}"}).status == 401
    answer = service.get("/state", headers=bearer(TOKEN, **{"X-Forwarded-For": "198.51.100.99"}))
    assert (answer.status, json.loads(answer.body)["code"]) == (429, "too_many_attempts")
    assert "127.0.0.1 sent a wrong token" in service.log
