"""A certificate for loopback and its key, made by OpenSSL once in a run of the tests."""

from __future__ import annotations

import functools
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.tools.cannot import cannot


@dataclass(frozen=True)
class Certificate:
    """Two PEM files that belong together."""

    cert: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        """What a client trusts that knows this certificate, and nothing else."""
        return ssl.create_default_context(cafile=str(self.cert))


def make(folder: Path, *more: str) -> Certificate:
    """A new one in that folder."""
    if shutil.which("openssl") is None:
        cannot("there is no openssl here")
    made = Certificate(folder / "tls.crt", folder / "tls.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += [*(more or ("-nodes",)), "-out", str(made.cert), "-keyout", str(made.key)]
    subprocess.run(command, check=True, capture_output=True)
    return made


@functools.cache
def shared() -> Certificate:
    """The one that most tests share."""
    return make(Path(tempfile.mkdtemp(prefix="camdock-tls-")))
