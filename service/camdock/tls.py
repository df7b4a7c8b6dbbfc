"""Whether a certificate and its key can be served with, said in words before anything is started.

Runs in: the API process.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class TlsInvalid(ValueError):
    """The message names the variable and the file, and says what is wrong with it."""


def _encrypted() -> str:
    raise TlsInvalid("CAMDOCK_TLS_KEY is encrypted; `openssl pkey -in KEY -out PLAIN` takes the passphrase away")


def check(cert: Path, key: Path) -> None:
    """Raises TlsInvalid unless the two can be read, are what they should be, and belong together."""
    for name, path in (("CERT", cert), ("KEY", key)):
        try:
            with path.open("rb") as file:
                file.read(1)
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            raise TlsInvalid(f"CAMDOCK_TLS_{name}={path} cannot be read: {what}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cert)
    except OSError:
        raise TlsInvalid(f"CAMDOCK_TLS_CERT={cert} is no certificate with its chain behind it, in PEM form") from None
    try:
        context.load_cert_chain(cert, key, password=_encrypted)
    except OSError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            what = f"is not the key of CAMDOCK_TLS_CERT={cert}: give the two that belong together"
        else:
            what = "is no private key in PEM form"
        raise TlsInvalid(f"CAMDOCK_TLS_KEY={key} {what}") from None
