"""Which requests come from another website's page."""

from __future__ import annotations

import pytest

from camdock.origins import is_foreign

HERE = "cam.lan:8000"


@pytest.mark.parametrize(
    ("origin", "site", "host", "foreign"),
    [
        (None, None, HERE, False),  # curl, Home Assistant: no browser
        ("http://cam.lan:8000", None, HERE, False),
        ("HTTP://CAM.lan:8000", None, HERE, False),
        ("https://cam.lan", None, "cam.lan", False),  # a proxy ends TLS
        ("https://cam.lan", None, "cam.lan:443", False),
        ("http://[::1]:8000", None, "[::1]:8000", False),
        ("http://evil.example", None, HERE, True),
        ("http://cam.lan:8001", None, HERE, True),  # another program on the same machine
        ("http://cam.lan", None, HERE, True),
        ("http://cam.lan:8000.evil.example", None, HERE, True),
        ("http://evil.example#cam.lan:8000", None, HERE, True),
        ("null", None, HERE, True),
        ("http://[broken", None, HERE, True),
        ("http://cam.lan:99999", None, HERE, True),
        ("", None, HERE, False),
        ("http://cam.lan:8000", "same-origin", HERE, False),
        ("https://cam.example", "same-origin", "127.0.0.1:8000", False),  # a proxy that puts its own Host
        (None, "none", HERE, False),
        ("http://evil.example", "cross-site", HERE, True),
        ("http://cam.lan:8000", "cross-site", HERE, True),
        ("http://cam.lan:8001", "same-site", HERE, True),
        (None, "cross-site", HERE, True),
        (None, "what a later browser says", HERE, True),
        ("https://lab.example.org", None, HERE, False),  # allowed
        ("https://LAB.example.org", "cross-site", HERE, False),
        ("http://lab.example.org", "cross-site", HERE, True),
    ],
)
def test_what_a_browser_says_decides(origin: str | None, site: str | None, host: str, foreign: bool) -> None:
    headers = {b"host": host.encode()}
    if origin is not None:
        headers[b"origin"] = origin.encode()
    if site is not None:
        headers[b"sec-fetch-site"] = site.encode()
    assert is_foreign(headers, ("https://lab.example.org",)) is foreign


def test_a_star_allows_every_website() -> None:
    assert not is_foreign({b"host": b"cam.lan", b"origin": b"http://evil.example"}, ("*",))
