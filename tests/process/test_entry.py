"""The way in: the command line, the port, the token, the Host header, the settings that are kept."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import pytest

import camdock
from camdock.config import Config
from camdock.source import KINDS
from tests.process.conftest import StartService
from tests.tools.raw import connect, read_all, request
from tests.tools.service import Answer, Service, free_port, until
from tests.tools.upstream import upstream

TOKEN = "tok-3n-of-the+tests"
SLOW = pytest.mark.slow  # the words are the unit tests' matter; without `make test` each start is 0.4 s of a core
PUBLIC = ("/", "/health", "/health/live", "/health/ready", "/api/v1/health/", "/favicon.ico", "/docs", "/web/app.js")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m camdock` to its end, which must come by itself; in `make test` forked from what has the imports."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CAMDOCK_") and k not in ("HOST", "PORT")}
    whole = {**inherited, "CAMDOCK_PORT": str(free_port()), **environment}
    if Service.nursery is not None:
        return Service.nursery.run(arguments, whole)
    return subprocess.run(
        [sys.executable, "-m", "camdock", *arguments], env=whole,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


# --- the command line -------------------------------------------------------------------------------------------------


def test_help_names_every_source_and_variable_with_examples() -> None:
    answer = run("--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    for kind, known in KINDS.items():  # what each may be: test_usage
        assert known.example in answer.stdout
        for name in known.options:
            assert f"{name}=" in answer.stdout, f"option {name} of {kind}"
    for name in Config.model_fields:
        assert f"CAMDOCK_{name.upper()}" in answer.stdout
    examples = answer.stdout.partition("\nexamples")[2]
    assert "camdock 'v4l2:" in examples
    assert "CAMDOCK_SOURCES=" in examples
    assert "CAMDOCK_TOKEN=" in examples
    assert "camdock abi --help" in answer.stdout


def test_version() -> None:
    answer = run("--version")
    assert (answer.returncode, answer.stdout) == (0, f"camdock {camdock.__version__}\n")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("nonsense:", "Known: auto, synthetic", marks=SLOW),
        ("synthetik:", "did you mean synthetic:?"),
        pytest.param("v4l2:", "v4l2:/dev/video0", marks=SLOW),
        pytest.param("/dev/video0", "v4l2:/dev/video0", marks=SLOW),
        pytest.param("http://camera/stream", "relay:http://camera/stream", marks=SLOW),
        pytest.param("synthetic:?fsp=3", "did you mean fps?", marks=SLOW),
        pytest.param("synthetic:?size=huge", "1280x720", marks=SLOW),
        pytest.param("relay:ftp://camera/", "http://", marks=SLOW),
    ],
)
def test_a_bad_source_is_refused_with_what_would_do(source: str, says: str) -> None:
    answer = run(source)
    assert answer.returncode == 2
    assert says in answer.stderr
    assert "CAMDOCK_SOURCE" in answer.stderr
    assert "--help" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("port", ["65536", *(pytest.param(port, marks=SLOW) for port in ("0", "-1", "http", "80 80"))])
def test_a_bad_port_is_refused(port: str) -> None:
    answer = run(f"--port={port}")
    assert answer.returncode == 2
    assert "CAMDOCK_PORT" in answer.stderr
    assert port in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = run("synthetic:", CAMDOCK_PORT=str(port))
    assert answer.returncode == 3
    assert f"127.0.0.1:{port}" in answer.stderr
    assert re.search(r"CAMDOCK_PORT=\d+", answer.stderr)
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("variable", [pytest.param("CAMDOCK_HOST", marks=SLOW), "HOST"])
def test_the_network_is_refused_without_a_token_with_both_ways_out(variable: str) -> None:
    answer = run("synthetic:", **{variable: "0.0.0.0"})
    assert answer.returncode == 2
    assert "0.0.0.0" in answer.stderr
    assert "CAMDOCK_TOKEN" in answer.stderr
    assert "CAMDOCK_AUTH=off" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.slow  # quick: the guarded service, and test_config
def test_the_network_is_served_when_everybody_may_look_and_a_warning_says_so(start: StartService) -> None:
    service = start("synthetic:", "--host", "0.0.0.0", CAMDOCK_AUTH="off", CAMERA_SERIAL_NUMBER="775001234")
    assert service.get("/cameras", headers={"Host": "camera.example"}).status == 200
    assert "CAMDOCK_AUTH=off" in service.log
    assert "WARNING CAMERA_SERIAL_NUMBER=775001234 has no effect" in service.log


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["guarded service"])
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service for the network, with a token and all that it can log."""
    environment = {
        "CAMDOCK_SOURCE": "synthetic:",
        "CAMDOCK_HOST": "0.0.0.0",
        "CAMDOCK_TOKEN": TOKEN,
        "CAMDOCK_LOG_LEVEL": "debug",
    }
    with Service(environment, tmp_path_factory.mktemp("guarded")) as service:
        until(lambda: service.get("/health/ready").status == 200, 15, "the camera is live")
        yield service
        assert service.get(f"/cameras?token={quote(TOKEN, safe='')}").status == 200
        assert TOKEN not in service.log
        assert quote(TOKEN, safe="") not in service.log
        assert "***" in service.log, "no address with a token was logged, so nothing was proved"
        assert "Traceback" not in service.log


BEARER = {"Authorization": f"Bearer {TOKEN}"}
IN_QUERY = "token=" + quote(TOKEN, safe="")


def looked_at(service: Service, path: str, headers: dict[str, str] | None = None) -> int:
    """The status of a GET, also of one that does not end."""
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    with connect(service.port, request(path, *lines)) as client:
        return int(client.recv(20).split()[1])


def every_path(service: Service) -> list[str]:
    """All addresses that GET can ask for, of the one camera."""
    described = service.get("/openapi.json", BEARER).json()["paths"]
    paths = [path.replace("{name}", "camera") for path, methods in described.items() if "get" in methods]
    assert len(paths) > 12
    return [*paths, "/docs", "/openapi.json", "/no/such/path", "/?action=stream", "/?action=snapshot"]


def test_without_the_token_only_the_public_paths_answer(guarded: Service) -> None:
    for path in every_path(guarded):
        expected = 200 if path in PUBLIC else 401
        assert looked_at(guarded, path) == expected, path
    for path in PUBLIC:
        assert looked_at(guarded, path) == 200, path
    answer = guarded.ask("PUT", "/cameras/camera/settings", {"gain": 2})
    assert answer.status == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "token_needed"


@pytest.mark.parametrize(
    "path",
    [
        "/?%61ction=stream", "/?a=b&%61%63%74%69%6f%6e=snapshot", "//stream", "/web/../stream", "/web/%2e%2e/stream",
        "/health/../stream", "/%73tream", "/stream?token=", "/stream?token=wrong", "/stream?TOKEN=" + TOKEN,
        "/STREAM", "/stream/", "/stream#/health", "/stream;/health",
    ],
)  # fmt: skip
def test_no_way_of_writing_an_address_gets_around_the_token(guarded: Service, path: str) -> None:
    assert looked_at(guarded, path) in (400, 401, 404), "404: from the page's own files, which hold no pictures"


def test_the_public_paths_tell_no_stranger_what_the_camera_is(guarded: Service) -> None:
    stranger, friend = guarded.get("/health"), guarded.get("/health", BEARER)
    assert stranger.json()["status"] == "healthy"
    assert (stranger.json()["cameras"], stranger.json()["version"]) == (None, None)
    assert friend.json()["cameras"][0]["source"] == "synthetic:"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", BEARER),
        ("", {"Authorization": f"bearer {TOKEN}"}),
        (IN_QUERY, {}),
        ("x=1&" + IN_QUERY, {}),
        (IN_QUERY.replace("token", "%74oken"), {}),
    ],
)
def test_the_token_opens_everything(guarded: Service, query: str, headers: dict[str, str]) -> None:
    for path in every_path(guarded):
        expected = 404 if path == "/no/such/path" or "{filename}" in path else 200  # nothing was captured
        whole = path + ("&" if "?" in path else "?") + query
        assert looked_at(guarded, whole, headers) == expected, path


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer", "", "Basic " + base64.b64encode(TOKEN.encode()).decode(),
                                   f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff\xfe"])  # fmt: skip
def test_a_wrong_token_opens_nothing(guarded: Service, value: str) -> None:
    assert guarded.get("/snapshot", {"Authorization": value}).status == 401


# --- the Host header --------------------------------------------------------------------------------------------------


def test_a_foreign_host_header_is_refused(plain: Service) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]", "x:y"):
        for path in ("/", "/health", "/snapshot", "/stream", "/openapi.json"):
            answer = plain.get(path, {"Host": host})
            assert (answer.status, answer.headers["content-type"]) == (421, "application/problem+json"), (host, path)
            assert answer.json()["code"] == "host_unknown"
            assert "CAMDOCK_ALLOWED_HOSTS" in answer.json()["hint"]
    for host in ("localhost", f"localhost:{plain.port}", "127.0.0.1", "LOCALHOST", "[::1]:8000", "cam.localhost"):
        assert plain.get("/health", {"Host": host}).status == 200, host
    with connect(plain.port, request("/health", version="1.0")) as client:
        assert b" 200 " in read_all(client)[:20], "HTTP/1.0 knows no Host"


@pytest.fixture(scope="module", params=["odd service"])
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that was told its hosts, and that found a spoiled file of settings."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "state").mkdir()
    (folder / "state" / "camera.json").write_bytes(b'{"gain": 2')
    environment = {"CAMDOCK_SOURCE": "synthetic:", "CAMDOCK_ALLOWED_HOSTS": "localhost,127.0.0.1,*.example.org"}
    with Service(environment, folder) as service:
        yield service


def test_a_listed_host_is_served(odd: Service) -> None:
    assert odd.get("/health", {"Host": "cam.example.org"}).status == 200
    assert odd.get("/health", {"Host": "example.com"}).status == 421


# --- credentials of a source ------------------------------------------------------------------------------------------

USER, PASSWORD, RELAY_TOKEN = "camuser", "s3cr/et&pw", "r3lay-t0ken"


def talkative(status: int, reason: str) -> AbstractContextManager[int]:
    """An upstream that refuses and repeats the credentials it was sent, as some do."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        sent = handler.headers.get("Authorization", "")
        kind, _, value = sent.partition(" ")
        said = base64.b64decode(value).decode() if kind == "Basic" else value
        handler.send_response(401 if not sent else status, f"{reason} {said} {quote(said)} at {handler.path}")
        handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
        handler.send_header("Content-Type", "text/plain")
        handler.end_headers()
        handler.wfile.write(f"{sent} {said}".encode())

    return upstream(answer)


REFUSALS = {
    401: "source_denied",
    403: "source_denied",
    404: "source_missing",
    500: "source_failed",
    200: "source_failed",
}


@pytest.mark.parametrize("statuses", [(401,), pytest.param(tuple(REFUSALS), marks=SLOW)], ids=["one", "all"])
def test_credentials_of_a_source_are_never_told(start: StartService, statuses: tuple[int, ...]) -> None:
    with ExitStack() as upstreams:
        ports = {status: upstreams.enter_context(talkative(status, "no access for")) for status in statuses}
        sources = [
            f"user-{status}=relay:http://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/video?key=k3y-in-query "
            f"token-{status}=relay:http://127.0.0.1:{port}/video#token={RELAY_TOKEN}"
            for status, port in ports.items()
        ]
        service = start(None, CAMDOCK_SOURCES=" ".join(sources), CAMDOCK_LOG_LEVEL="debug")
        answers = []
        for status in statuses:
            code = REFUSALS[status]
            for name in (f"user-{status}", f"token-{status}"):
                until(lambda name=name, code=code: (service.camera(name)["reason"] or {}).get("code") == code, 15,
                      lambda code=code: f"{code}; log:\n{service.log}")  # fmt: skip
                answers += [service.get(f"/cameras/{name}{tail}") for tail in ("", "/settings", "/state", "/snapshot")]
        answers += [
            service.get(path)
            for path in ("/cameras", "/health", "/health/ready", "/metrics", "/state", "/snapshot", "/openapi.json")
        ]
        assert service.get("/health/ready").status == 503
        told = service.log + "".join(answer.body.decode() for answer in answers)
        told += "".join(str(answer.headers) for answer in answers)
    for port in ports.values():
        assert f"127.0.0.1:{port}" in told
    secrets = (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), RELAY_TOKEN, "k3y-in-query")
    assert [secret for secret in secrets if secret in told] == []
    assert "Traceback" not in service.log


@pytest.mark.parametrize(
    "source",
    [
        f"relay:http://{USER}:hunter22@camera/#fsp=3",
        *(
            pytest.param(source, marks=SLOW)
            for source in (
                f"http://{USER}:hunter22@camera/",
                f"rtsp://{USER}:hunter22@camera/",
                "relay:#token=hunter22",
                f"relay:ftp://{USER}:hunter22@camera/",
                "relay:http://camera/?token=hunter22#fps=no",
            )
        ),
    ],
)
def test_a_bad_source_does_not_tell_its_credentials(source: str) -> None:
    answer = run(source)
    assert answer.returncode == 2
    assert "hunter22" not in answer.stderr + answer.stdout


# --- cameras by name --------------------------------------------------------------------------------------------------


def test_cameras_are_found_by_name(start: StartService) -> None:
    service = start(None, CAMDOCK_SOURCES="front=synthetic:?size=320x240 nest=synthetic:?size=160x120")
    for name, width in (("front", 320), ("nest", 160)):
        assert service.until_state("live", name)["size"]["width"] == width
        assert service.get(f"/cameras/{name}/snapshot").body[:2] == b"\xff\xd8"
        with service.stream(f"/cameras/{name}/stream") as viewer:
            assert len(viewer.take(2)) == 2
    assert [camera["name"] for camera in service.get("/cameras").json()] == ["front", "nest"]
    until(lambda: service.camera("nest")["viewers"] == 0, 5, "the viewer left")
    with service.stream("/stream") as viewer:
        assert len(viewer.take(1)) == 1
        assert (service.camera("front")["viewers"], service.camera("nest")["viewers"]) == (1, 0)
    for path in ("", "/stream", "/snapshot", "/settings", "/state"):
        answer = service.get(f"/cameras/attic{path}")
        assert answer.status == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "camera_missing"
        assert "front, nest" in answer.json()["hint"]
    assert service.ask("PUT", "/cameras/attic/settings", {"gain": 2}).status == 404


# --- settings ---------------------------------------------------------------------------------------------------------


def put(service: Service, **changes: object) -> Answer:
    """Change settings of the first camera."""
    return service.ask("PUT", "/cameras/camera/settings", changes)


def test_settings_are_changed_told_and_limited(plain: Service) -> None:
    answer = put(plain, exposure_us=20_000, gain=2.5)
    assert answer.status == 200
    report = plain.get("/cameras/camera/settings").json()
    assert report == answer.json()
    assert report["applied"] == report["wanted"] == {"exposure_us": 20_000, "gain": 2.5, "auto_exposure": False}
    low, high = report["limits"]["exposure_us"]
    for value in (low - 1, high + 1):
        refused = put(plain, exposure_us=value)
        assert refused.status == 422
        assert refused.headers["content-type"] == "application/problem+json"
        if value >= 1:
            assert refused.json()["code"] == "setting_out_of_range"
            assert f"{low}" in refused.json()["hint"]
            assert f"{high}" in refused.json()["hint"]
            assert f"{value}" in refused.json()["detail"]
    assert put(plain, gain=1000).json()["code"] == "setting_out_of_range"
    assert put(plain, gain=4, exposure_us=high + 1).status == 422
    assert plain.get("/cameras/camera/settings").json() == report, "a refused change changed something"


@pytest.mark.parametrize(
    "changes",
    [{"gain": "2"}, {"gain": True}, {"exposure_us": 1.5}, {"exposure_us": "20000"}, {"exposure_us": 0},
     {"auto_exposure": "yes"}, {"auto_exposure": 1}, {"brightness": 3}, {"gain": -1}, {"exposure_us": 10**30}],
)  # fmt: skip
def test_a_change_that_cannot_be_understood_is_refused(guarded: Service, changes: dict[str, object]) -> None:
    answer = guarded.ask("PUT", "/cameras/camera/settings", changes, BEARER)
    assert answer.status == 422
    assert answer.json()["code"] == "request_invalid"
    assert next(iter(changes)) in answer.json()["detail"]


def test_settings_survive_the_service(start: StartService) -> None:
    wanted = {"exposure_us": 30_000, "gain": 3.0, "auto_exposure": False}
    service = start("synthetic:")
    service.until_state("live")
    assert put(service, exposure_us=30_000, gain=3).status == 200
    service.signal(signal.SIGINT)
    assert service.process.wait(10) == 0, "Ctrl-C is an orderly end"
    service = start("synthetic:")
    camera = service.until_state("live")
    assert camera["settings"]["wanted"] == camera["settings"]["applied"] == wanted


@pytest.mark.slow  # quick: test_api, without a start
def test_settings_that_cannot_be_kept_are_a_507_with_the_reason(start: StartService, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")  # a folder without permission would not stop root
    service = start("synthetic:", CAMDOCK_STATE_DIR=str(tmp_path / "file" / "state"))
    service.until_state("live")
    for gain in (2, 3):
        answer = put(service, gain=gain)
        assert answer.status == 507
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "storage_failed"
        assert str(tmp_path / "file" / "state") in answer.json()["detail"]
        assert "Not a directory" in answer.json()["detail"]
        assert "CAMDOCK_STATE_DIR" in answer.json()["hint"]
        # In force all the same, until the service ends.
        assert service.get("/cameras/camera/settings").json()["applied"]["gain"] == gain
    with service.stream() as viewer:
        assert len(viewer.take(3)) == 3
    assert "Traceback" not in service.log


def test_a_spoiled_settings_file_is_told_and_keeps_no_camera_dark(odd: Service) -> None:
    odd.until_state("live")
    assert "camera.json cannot be read" in odd.log
    assert put(odd, gain=4).status == 200
    assert (odd.folder / "state" / "camera.json").read_text().startswith("{\n")
