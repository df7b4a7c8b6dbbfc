"""The service from its command line: which place wins, and why nothing listens."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

import pytest

from camdock import serve
from camdock.config import Config


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """Every configuration that would have been served; the environment is empty, and so is the folder."""
    configs: list[Config] = []

    def listen(config: Config) -> None:
        configs.append(config)

    monkeypatch.setattr(serve, "_listen", listen)
    monkeypatch.setattr(serve, "_serve", lambda _config, _listener: 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), "CAMDOCK_AUTH": "off"})
    return configs


# --- which place wins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["", "CAMDOCK_SOURCES=front=picamera2:0 nest=picamera2:1", "CAMDOCK_SOURCE=auto"])
@pytest.mark.parametrize("name", ["", "CAMDOCK_SOURCES", "camdock_sources", "CAMDOCK_SOURCE", "Camdock_Source"])
def test_a_source_as_argument_wins_over_whatever_names_cameras_elsewhere(
    served: list[Config], file: str, name: str
) -> None:
    Path(".env").write_text(file + "\n")
    os.environ.update({name: "a=auto" if name.lower().endswith("s") else "auto"} if name else {})
    assert serve.main(["v4l2:/nope"]) == 0
    assert {name: source.text for name, source in served[0].cameras.items()} == {"camera": "v4l2:/nope"}


@pytest.mark.parametrize("name", ["CAMDOCK_PORT", "camdock_port", "PORT"])
def test_a_port_and_a_host_as_arguments_win_in_whichever_letters_the_others_are(
    served: list[Config], name: str
) -> None:
    os.environ["CAMDOCK_PORT"] = "1"  # whichever of two the environment lists last would count
    os.environ.update({name: "2", "camdock_host": "10.0.0.1"})
    assert serve.main(["--port", "8123", "--host", "127.0.0.2"]) == 0
    assert (served[0].host, served[0].port) == ("127.0.0.2", 8123)


def test_two_ways_to_name_cameras_in_one_place_are_refused_with_its_name(
    served: list[Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path(".env").write_text("CAMDOCK_SOURCE=auto\nCAMDOCK_SOURCES=a=auto\n")
    assert (serve.main([]), served) == (serve.EXIT_CONFIG, [])
    assert f"both set in .env in {tmp_path}: give the one or the other" in capsys.readouterr().err


# --- where nothing can listen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "error", "says"),
    [
        ("127.0.0.1", 8000, OSError(errno.EADDRINUSE, "Address already in use"), "another port: CAMDOCK_PORT=8001"),
        ("127.0.0.1", 65535, OSError(errno.EADDRINUSE, "Address already in use"), "another port: CAMDOCK_PORT=8000"),
        ("127.0.0.1", 80, OSError(errno.EACCES, "Permission denied"), "Ports below 1024 need a right"),
        ("127.0.0.1", 8000, OSError(errno.EACCES, "Permission denied"), ""),
        ("203.0.113.9", 8000, OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "CAMDOCK_HOST=203.0.113.9 is no address"),
        ("::1", 8000, OSError(errno.EAFNOSUPPORT, "Address family not"), "CAMDOCK_HOST=::1 is no address"),
        ("no.invalid", 8000, socket.gaierror(socket.EAI_NONAME, "Name or"), "CAMDOCK_HOST=no.invalid is no address"),
        ("a..b", 8000, UnicodeError("label empty or too long"), "CAMDOCK_HOST=a..b is no address of this machine"),
        ("127.0.0.1", 8000, OSError(errno.EMFILE, "Too many open files"), ""),
    ],
)  # fmt: skip
def test_what_hinders_it_is_told_with_what_helps_against_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    host: str, port: int, error: Exception, says: str,
) -> None:  # fmt: skip
    def refuse(_config: Config) -> None:
        raise error

    monkeypatch.setattr(serve, "_listen", refuse)
    assert serve.main(["--host", host, "--port", str(port)]) == serve.EXIT_PORT
    first, *hint = capsys.readouterr().err.splitlines()
    shown = f"[{host}]" if ":" in host else host
    assert re.fullmatch(rf"camdock: cannot listen on {re.escape(shown)}:{port}: .+", first)
    assert [says in line for line in hint] == ([True] if says else [])


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:81"), ("0.0.0.0", "http://127.0.0.1:81"), ("::", "http://127.0.0.1:81"),
        ("[::]", "http://127.0.0.1:81"), ("::1", "http://[::1]:81"), ("[::1]", "http://[::1]:81"),
        ("cam.lan", "http://cam.lan:81"),
    ],
)  # fmt: skip
def test_the_log_names_an_address_that_a_browser_opens(host: str, address: str) -> None:
    assert serve._address(Config.model_construct(host=host, tls_cert=None), 81) == address
    assert serve._address(Config.model_construct(host=host, tls_cert=Path("x")), 81) == address.replace("http", "https")
