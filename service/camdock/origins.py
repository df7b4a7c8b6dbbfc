"""Where a request comes from, as browsers say: another website must not change anything here in a visitor's name.

Runs in: the API process. source: Fetch Metadata Request Headers (Sec-Fetch-Site), RFC 6454 (Origin)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # no endpoint of ours changes anything when it is asked so


def is_foreign(headers: Mapping[bytes, bytes], allowed: Iterable[str]) -> bool:
    """Whether a page of another origin sent this; programs that are no browsers say nothing, and are not foreign.

    Another port of the same machine is another origin, whatever "same-site" sounds like.
    """
    origin = headers.get(b"origin", b"").decode("latin-1").strip().lower()
    if origin and (origin in allowed or "*" in allowed):
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site.strip().lower() not in (b"same-origin", b"none")
    if not origin:
        return False
    # Browsers send Sec-Fetch-Site over https and to localhost alone. The scheme is not compared: a proxy may end TLS.
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    return _place(origin) != _place(f"{origin.partition('://')[0]}://{host}")


def _place(origin: str) -> tuple[str, int]:
    """(name, port) of an origin; no name for "null" and for what cannot be read."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return ("", 0)
    return (parts.hostname or "", port or {"http": 80, "https": 443}.get(parts.scheme, 0))
