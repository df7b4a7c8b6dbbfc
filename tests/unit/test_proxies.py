"""Whose word about the far end is taken."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from starlette.routing import Match, Route

from camdock.proxies import Proxies, path_of, sender_of

TRUSTED = Proxies([ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def settled(client: Any, forwarded: str = "", proto: str = "", proxies: Proxies = TRUSTED, kind: str = "http") -> Any:
    scope: dict[str, Any] = {"type": kind, "client": client, "scheme": "http" if kind == "http" else "ws"}
    said = ((b"x-forwarded-for", forwarded), (b"x-forwarded-proto", proto))
    scope["headers"] = [(name, line.encode()) for name, lines in said for line in lines.split("|") if line]
    proxies.settle(scope)
    return scope


@pytest.mark.parametrize(
    ("client", "forwarded", "far_end"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("127.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # what stands before it, anybody can write
        ("127.0.0.1", "203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("127.0.0.1", "10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("fd00::1", "[2001:db8::7]:443", "2001:db8::/64"),
        ("127.0.0.1", "2001:db8::7", "2001:db8::/64"),
        ("127.0.0.1", "203.0.113.7, rubbish", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1|203.0.113.7|10.1.2.3", "203.0.113.7"),  # each in a line of its own
        ("127.0.0.1", "203.0.113.7|rubbish", "127.0.0.1"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # no proxy of ours
    ],
)
def test_the_last_address_that_is_no_proxy_of_ours_is_the_far_end(client: str, forwarded: str, far_end: str) -> None:
    assert sender_of(settled((client, 5), forwarded)) == far_end


def test_nobody_is_trusted_unless_it_is_said() -> None:
    scope = settled(("127.0.0.1", 5), "203.0.113.7", "https", Proxies([]))
    assert (sender_of(scope), scope["scheme"]) == ("127.0.0.1", "http")


@pytest.mark.parametrize(
    ("client", "proto", "kind", "scheme"),
    [
        ("127.0.0.1", "https", "http", "https"),
        ("127.0.0.1", "http, https", "http", "https"),
        ("127.0.0.1", "https", "websocket", "wss"),
        ("127.0.0.1", "gopher", "http", "http"),
        ("203.0.113.9", "https", "http", "http"),
    ],
)
def test_the_scheme_is_the_one_that_the_last_proxy_saw(client: str, proto: str, kind: str, scheme: str) -> None:
    assert settled((client, 5), "203.0.113.7", proto, kind=kind)["scheme"] == scheme


def test_a_household_counts_as_one_whatever_addresses_it_has() -> None:
    first, second = settled(("2001:db8:1:2::1", 5)), settled(("2001:db8:1:2:ffff::9", 5))
    assert sender_of(first) == sender_of(second) == "2001:db8:1:2::/64"
    assert sender_of(settled(("2001:db8:1:3::1", 5))) != sender_of(first)
    assert sender_of(settled(None)) == "unknown"  # a Unix socket


@pytest.mark.parametrize(
    ("path", "root", "ours"),
    [
        ("/health", "", "/health"),
        ("/cam/health", "/cam", "/health"),
        ("/health", "/cam", "/health"),  # a server that leaves it out of the path
        ("/cam/", "/cam", "/"),
        ("/cam", "/cam", ""),
        ("/camera", "/cam", "/camera"),
        ("/cam/stream", "/cam", "/stream"),
        ("/stream/cam/health", "/cam", "/stream/cam/health"),
    ],
)
def test_what_stands_before_our_paths_is_left_out(path: str, root: str, ours: str) -> None:
    assert path_of({"path": path, "root_path": root}) == ours


@pytest.mark.parametrize("path", ["/cam/health", "/health", "/camera", "/cam/", "/x/cam/health"])
def test_the_router_means_the_same_path_as_the_gate(path: str) -> None:
    """What the gate calls public the router must not take for something else."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "/cam", "headers": []}
    assert Route(path_of(scope), lambda _request: None).matches(scope)[0] is Match.FULL
