"""Who is at the far end: the address and the scheme of a request that came through proxies that we were told to trust.

Runs in: the API process. uvicorn's own middleware knows no networks in the oldest version we allow, and trusts loopback
without being asked: a program on this machine could then choose the address that its wrong tokens are counted for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(text: str) -> Address | None:
    """An address, however a proxy writes it: 10.0.0.1, 10.0.0.1:1234, ::1, [::1]:1234; None when it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def path_of(scope: Mapping[str, Any]) -> str:
    """The path as our routes name it: without what a proxy, or `--root-path`, put before it (ASGI's `root_path`).

    Servers differ in whether `path` has it still; so does Starlette's router, from 0.33 on as here.
    """
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


class Proxies:
    """Believes X-Forwarded-For and X-Forwarded-Proto where they were written by one of `trusted`, nowhere else."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def settle(self, scope: MutableMapping[str, Any]) -> None:
        """Put the far end's address and scheme into the scope.

        The last address of X-Forwarded-For that is none of ours: what stands before it, anybody can write.
        """
        if not self._trusted or not self._is_trusted(_peer(scope)):
            return
        for text in reversed(_all(scope, b"x-forwarded-for").decode("latin-1").split(",")):
            address = address_of(text)
            if address is None:
                break
            scope["client"] = (str(address), 0)
            if not self._is_trusted(address):
                break
        proto = _all(scope, b"x-forwarded-proto").rpartition(b",")[2].strip().lower()
        if proto in (b"http", b"https"):
            secure = proto == b"https"
            scope["scheme"] = ("wss" if secure else "ws") if scope["type"] == "websocket" else proto.decode()

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _all(scope: Mapping[str, Any], name: bytes) -> bytes:
    """What a header says, in one line or in several: a proxy may add a line of its own (RFC 9110, section 5.3)."""
    return b",".join(value for other, value in scope["headers"] if other == name)


def _peer(scope: Mapping[str, Any]) -> Address | None:
    client = scope.get("client")
    return address_of(client[0]) if client and client[0] else None


def sender_of(scope: Mapping[str, Any]) -> str:
    """Whose wrong tokens are counted together: an IPv4 address, or the /64 that one household has of IPv6."""
    address = _peer(scope)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address is not None else "unknown"
