"""What images are made with: the list of what is wanted, the health check, the seal's maker where something breaks."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tools.service import Service, free_port, until

ROOT = Path(__file__).parents[2]
PARTS = ROOT / "docker/image"
PROJECT = """
[project]
name = "camdock"
dependencies = ["packaging", "pyelftools"]
[project.optional-dependencies]
service = ["numpy", "packaging", "uvloop; platform_machine == 'x86_64'"]
v4l2 = ["camdock[service]", "linuxpy"]
relay = ["camdock[service]", "requests"]
all = ["camdock[v4l2,relay]"]
image = ["setuptools>=77"]
"""


# --- wanted.py --------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two sets of pins beside the current one."""
    (tmp_path / "docker/pins").mkdir(parents=True)
    for file, text in {
        "pyproject.toml": PROJECT,
        "constraints.txt": "numpy==2.4.6\n",
        "docker/pins/old.txt": "numpy==1.26.4\n",
        "docker/pins/old.in": "# what it is for\nnumpy<2\ngunicorn\n",
        "docker/pins/pi.txt": "numpy==2.2.0\n",
        "docker/pins/pi.in": "picamera2\n\n# why\n--no-binary pidng  # plain C\n",
    }.items():
        (tmp_path / file).write_text(text)
    return tmp_path


def wanted(project: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run wanted.py there."""
    return subprocess.run(
        [sys.executable, PARTS / "wanted.py", *map(str, words)],
        cwd=project, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_nested_extras_are_spelled_out_and_nothing_is_named_twice(project: Path) -> None:
    assert wanted(project, "current", "made/here").returncode == 0
    assert (project / "made/here/constraints.txt").read_text() == "numpy==2.4.6\n"
    assert (project / "made/here/requirements.txt").read_text().splitlines() == [
        "packaging", "pyelftools", "numpy", "uvloop; platform_machine == 'x86_64'", "linuxpy", "requests",
    ]  # fmt: skip


def test_another_set_brings_its_own_pins_and_what_they_are_for(project: Path) -> None:
    assert wanted(project, "old", "made").returncode == 0
    assert (project / "made/constraints.txt").read_text() == "numpy==1.26.4\n"
    lines = (project / "made/requirements.txt").read_text().splitlines()
    assert lines[-3:] == ["# what it is for", "numpy<2", "gunicorn"]
    assert "linuxpy" in lines


def test_what_is_compiled_elsewhere_is_no_word_for_this_pip(project: Path) -> None:
    """Its wheel is made in another stage; `--no-binary` here would have it made again, without a compiler."""
    assert wanted(project, "pi", "made").returncode == 0
    lines = (project / "made/requirements.txt").read_text().splitlines()
    assert lines[-3:] == ["picamera2", "", "# why"]


@pytest.mark.parametrize("name", ["numpy3", "", "../constraints"])
def test_a_set_that_does_not_exist_is_named_with_those_there_are(project: Path, name: str) -> None:
    done = wanted(project, name, "made")
    assert done.returncode == 1
    assert done.stderr == f"There is no set of pins {name!r}; PINS is one of current, old, pi\n"
    assert not (project / "made").exists()


def test_an_extra_is_printed_line_by_line(project: Path) -> None:
    assert wanted(project, "--extra", "image").stdout == "setuptools>=77\n"
    assert wanted(project, "--extra", "relay").stdout.splitlines()[-1] == "requests"


def test_the_real_project_lists_every_package_that_it_asks_for(tmp_path: Path) -> None:
    done = wanted(ROOT, "numpy1", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "requirements.txt").read_text()
    for name in ("numpy>=1.21,<2", "simplejpeg", "linuxpy", "requests", "pyelftools", "gunicorn==21.2.0"):
        assert f"\n{name}" in f"\n{lines}", name
    assert "camdock[" not in lines


# --- health.py --------------------------------------------------------------------------------------------------------


def health(**environment: str) -> tuple[int, str, str]:
    """Run the health check as the image does: (status, what it prints, what it complains of)."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", PARTS / "health.py"],
        env={**environment}, check=False, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_real_service_is_well_while_its_camera_is_there(plain: Service) -> None:
    port = str(plain.port)
    assert health(PORT=port) == (0, "healthy; camera connected\n", "")
    assert health(PORT="9", CAMDOCK_PORT=port, HOST="0.0.0.0") == (0, "healthy; camera connected\n", "")


def test_a_real_service_is_well_without_its_camera(tmp_path: Path) -> None:
    with Service({"CAMDOCK_SOURCE": f"v4l2:{tmp_path}/none"}, tmp_path) as service:
        service.until_state("offline")
        assert health(CAMDOCK_PORT=str(service.port)) == (0, "healthy; camera not connected\n", "")


@pytest.mark.slow
def test_names_and_a_token_do_not_keep_it_out(tmp_path: Path) -> None:
    closed = {"CAMDOCK_HOST": "0.0.0.0", "CAMDOCK_TOKEN": "a-long-token", "CAMDOCK_ALLOWED_HOSTS": "127.0.0.1"}
    with Service({"CAMDOCK_SOURCE": "synthetic:", **closed}, tmp_path) as service:
        assert service.get("/snapshot").status == 401
        assert service.get("/health", headers={"Host": "camera.example.org"}).status == 421
        assert health(CAMDOCK_HOST="0.0.0.0", CAMDOCK_PORT=str(service.port))[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("host", ["[::]", "::", "::1"])
def test_it_asks_an_ipv6_address_too(host: str) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "camdock", "synthetic:"],
        env={**os.environ, "CAMDOCK_HOST": host, "CAMDOCK_PORT": str(port), "CAMDOCK_AUTH": "off"},
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        first = process.stderr.readline()
        try:
            if "Address family not supported" in first or "Cannot assign requested address" in first:
                pytest.skip("this machine has no IPv6")
            assert "INFO" in first
            found = until(
                lambda: (now := health(CAMDOCK_HOST=host, CAMDOCK_PORT=str(port)))[0] == 0 and now, 10, "well"
            )
            assert found[1].startswith("healthy")
            for another in ("::", "[::]", "::1"):  # where a service on `::` is found, too
                assert health(CAMDOCK_HOST=another, CAMDOCK_PORT=str(port))[0] == 0, another
        finally:
            process.terminate()


def test_a_port_where_nobody_listens_is_not_well() -> None:
    port = free_port()
    status, said, complaint = health(CAMDOCK_PORT=str(port))
    assert (status, complaint) == (1, "")
    assert said.startswith(f"not well: nothing that can be used from 127.0.0.1:{port}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("port", ["http", "70000", "-1"])
def test_a_port_that_is_none_is_not_well(port: str) -> None:
    status, said, complaint = health(PORT=port)
    assert (status, said.startswith("not well: "), complaint) == (1, True, "")


WELL = b'{"status": "healthy", "camera_connected": true, "abi": "ok"}'


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """answering(bytes): a port that says just this to whoever connects, and hangs up."""
    listeners = []

    def begin(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield begin
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "answered nothing"),
        (b"SSH-2.0-OpenSSH\r\n", "answered nothing"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n" + WELL, "answered 404"),
        (b"HTTP/1.1 2\xff0 OK\r\n\r\n" + WELL, "answered 2"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + WELL[:-3], "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\nnull", "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000, "nothing that can be used"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + WELL.replace(b'"ok"', b'"broken"'), "a library breaks with the installed NumPy"),
    ],
)
def test_an_answer_that_is_not_ours_is_not_well_and_is_said_in_one_line(
    answering: Callable[[bytes], int], answer: bytes, says: str
) -> None:
    status, said, complaint = health(CAMDOCK_PORT=str(answering(answer)))
    assert (status, complaint) == (1, "")
    assert said.startswith("not well: ")
    assert says in said
    assert said.count("\n") == 1


def test_who_says_nothing_is_not_waited_for() -> None:
    """The engine gives it three seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, said, complaint = health(CAMDOCK_PORT=str(silent.getsockname()[1]))
    assert (status, complaint) == (1, "")
    assert "timed out" in said


@pytest.mark.slow  # the whole time waited out
def test_who_stops_in_the_middle_is_not_given_the_whole_time_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as kept:

        def serve() -> None:
            connection, _ = listener.accept()
            kept.enter_context(connection)
            if not over.wait(2):
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        over = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        status, said, complaint = health(CAMDOCK_PORT=str(listener.getsockname()[1]))
        took = time.monotonic() - began
        over.set()
        thread.join()
    assert (status, complaint) == (1, "")
    assert "timed out" in said
    assert took < 4, "2.5 s, and the start of an interpreter; 4.5 s with the time given anew"


@pytest.mark.slow  # the whole time waited out
def test_who_speaks_without_end_is_not_listened_to_for_ever() -> None:
    over = threading.Event()

    class Drip(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.2):
                self.wfile.write(b" ")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] - it hangs up: that is meant
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            status, said, complaint = health(CAMDOCK_PORT=str(server.server_address[1]))
        finally:
            over.set()
            server.shutdown()
            thread.join()
    assert (status, complaint, said.count("\n")) == (1, "", 1)


# --- the pins ---------------------------------------------------------------------------------------------------------


def test_every_set_of_pins_is_judged_for_both_machines_by_make_verify() -> None:
    """`camdock abi plan` judges the wheels for x86-64 and aarch64 unless it is told otherwise."""
    planned = re.findall(r"^\tpart \"pins: [^\"]+\" plan (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    sets = ["constraints.txt", *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docker/pins").glob("*.txt"))]
    assert sorted(words.split()[0] for words in planned) == sorted(sets)
    for words in planned:
        assert "--platform" not in words
        if words.startswith("docker/"):
            assert f"-r {words.split()[0].removesuffix('.txt')}.in" in words
