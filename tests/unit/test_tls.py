"""A certificate that cannot be served with is named before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from camdock.tls import TlsInvalid, check
from tests.tools import certificate


def why(cert: Path, key: Path) -> str:
    with pytest.raises(TlsInvalid) as caught:
        check(cert, key)
    return str(caught.value)


def test_a_certificate_and_its_key_are_taken() -> None:
    one = certificate.shared()
    check(one.cert, one.key)


def test_what_is_wrong_is_named_with_the_variable_and_the_file(tmp_path: Path) -> None:
    one, other = certificate.shared(), certificate.make(tmp_path)
    assert "is not the key of CAMDOCK_TLS_CERT=" in why(one.cert, other.key)
    assert why(tmp_path / "none", one.key).startswith(f"CAMDOCK_TLS_CERT={tmp_path}/none cannot be read: No such file")
    assert why(one.cert, tmp_path).startswith(f"CAMDOCK_TLS_KEY={tmp_path} cannot be read: Is a directory")
    assert why(one.key, one.key).startswith(f"CAMDOCK_TLS_CERT={one.key} is no certificate")
    assert why(one.cert, one.cert).startswith(f"CAMDOCK_TLS_KEY={one.cert} is no private key")
    (tmp_path / "cut").write_bytes(one.cert.read_bytes()[:200])
    assert why(tmp_path / "cut", one.key).startswith(f"CAMDOCK_TLS_CERT={tmp_path}/cut is no certificate")


def test_a_key_with_a_passphrase_asks_nobody_for_it(tmp_path: Path) -> None:
    locked = certificate.make(tmp_path, "-passout", "pass:hunter2")
    assert "CAMDOCK_TLS_KEY is encrypted" in why(locked.cert, locked.key)
