"""Every environment variable, the open door that is refused, and no secret where it can be read."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr

from camdock.config import Config, ConfigInvalid, read_config, variables
from tests.tools import certificate

TOKEN = "hunter2-hunter2"
# The lab camera service's own names, and the two that everybody knows.
WITHOUT_PREFIX = (
    "HOST", "PORT", "DEBUG", "DEFAULT_EXPOSURE", "DEFAULT_GAIN", "IMAGE_SAVE_PATH", "IMAGE_FORMAT", "IMAGE_QUALITY",
    "ALLOWED_ORIGINS", "CAMERA_SERIAL_NUMBER",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("CAMDOCK_") or name.upper() in (*WITHOUT_PREFIX, "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "viewers").write_text("for-viewers\n")


def given(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Config:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return read_config()


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        given(monkeypatch, **environment)
    return str(caught.value)


# --- every variable ---------------------------------------------------------------------------------------------------


def test_without_any_variable_the_first_camera_is_served_to_this_machine_only(tmp_path: Path) -> None:
    config = read_config()
    assert [(name, source.kind) for name, source in config.cameras.items()] == [("camera", "auto")]
    assert (config.host, config.port, config.is_loopback) == ("127.0.0.1", 8000, True)
    assert (config.token, config.auth, config.log_level) == (None, "on", "info")
    assert (config.open_timeout_s, config.send_timeout_s) == (5.0, 10.0)
    assert config.settings_path("front") == tmp_path / ".local/state/camdock/front.json"
    assert config.abi_cache_path == tmp_path / ".cache/camdock/abi.json"


# name of the variable -> a value that is not the default, and what the field then is
VALUES: dict[str, tuple[str, object]] = {
    "CAMDOCK_SOURCE": ("synthetic:?fps=5", "synthetic:?fps=5"),
    "CAMDOCK_SOURCES": ("a=synthetic: b=auto", "a=synthetic: b=auto"),
    "CAMDOCK_HOST": ("127.0.0.2", "127.0.0.2"),
    "CAMDOCK_PORT": ("8080", 8080),
    "CAMDOCK_TOKEN": (TOKEN, TOKEN),
    "CAMDOCK_TOKEN_FILE": ("token", TOKEN),
    "CAMDOCK_VIEWER_TOKEN": ("for-viewers", "for-viewers"),
    "CAMDOCK_VIEWER_TOKEN_FILE": ("viewers", "for-viewers"),
    "CAMDOCK_LOGIN_DAYS": ("0.5", 0.5),
    "CAMDOCK_AUTH": ("OFF", "off"),
    "CAMDOCK_TRUSTED_PROXIES": (
        "127.0.0.1, 10.0.0.0/8,fd00::/8",
        tuple(map(ip_network, ("127.0.0.1", "10.0.0.0/8", "fd00::/8"))),
    ),
    "CAMDOCK_TLS_CERT": ("tls.crt", Path("tls.crt")),
    "CAMDOCK_TLS_KEY": ("tls.key", Path("tls.key")),
    "CAMDOCK_UPLOAD_MAX_BYTES": ("5000000", 5_000_000),
    "CAMDOCK_UPLOAD_MAX_PIXELS": ("12000000", 12_000_000),
    "CAMDOCK_VISION": ("ON", "on"),
    "CAMDOCK_VISION_ENDPOINT": ("eu-vision.googleapis.com", "eu-vision.googleapis.com"),
    "CAMDOCK_ALLOWED_HOSTS": (
        " Cam.lan, *.example.org ,,[FD00::5],10.0.0.1,*",
        ("cam.lan", "*.example.org", "[fd00::5]", "10.0.0.1", "*"),
    ),
    "CAMDOCK_STATE_DIR": ("/somewhere/else", Path("/somewhere/else")),
    "CAMDOCK_CAPTURES_DIR": ("/somewhere/captures", Path("/somewhere/captures")),
    "CAMDOCK_CAPTURES_MAX_BYTES": ("1000000", 1_000_000),
    "CAMDOCK_CAPTURES_MAX_AGE_DAYS": ("0.5", 0.5),
    "CAMDOCK_IMAGE_FORMAT": ("tif", "TIFF"),
    "CAMDOCK_IMAGE_QUALITY": ("80", 80),
    "CAMDOCK_DEFAULT_EXPOSURE_US": ("100000.0", 100_000),
    "CAMDOCK_DEFAULT_GAIN": ("2.5", 2.5),
    "CAMDOCK_CAMERA_SERIAL_NUMBER": ("775001234", 775001234),
    "CAMDOCK_ALLOWED_ORIGINS": (
        " http://a:5173/, https://Lab.example.org,",
        ("http://a:5173", "https://lab.example.org"),
    ),
    "CAMDOCK_DEBUG": ("True", True),
    "CAMDOCK_LINGER_S": ("0", 0.0),
    "CAMDOCK_OPEN_TIMEOUT_S": ("2.5", 2.5),
    "CAMDOCK_SEND_TIMEOUT_S": ("60", 60.0),
    "CAMDOCK_ABI": ("OFF", "off"),
    "CAMDOCK_ABI_CACHE": ("/somewhere/abi.json", Path("/somewhere/abi.json")),
    "CAMDOCK_LOG_LEVEL": ("Debug", "debug"),
}


# Those that mean something only beside another one.
BESIDE = {
    "CAMDOCK_VIEWER_TOKEN": {"CAMDOCK_TOKEN": TOKEN},
    "CAMDOCK_VIEWER_TOKEN_FILE": {"CAMDOCK_TOKEN": TOKEN},
    "CAMDOCK_TLS_CERT": {"CAMDOCK_TLS_KEY": "tls.key"},
    "CAMDOCK_TLS_KEY": {"CAMDOCK_TLS_CERT": "tls.crt"},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    if "TLS" in name:
        certificate.make(tmp_path)
    text, value = VALUES[name]
    config = given(monkeypatch, **BESIDE.get(name, {}), **{name: text})
    field = getattr(config, name.removeprefix("CAMDOCK_").lower())
    assert (field.get_secret_value() if isinstance(field, SecretStr) else field) == value
    assert field != Config.model_fields[name.removeprefix("CAMDOCK_").lower()].default


def test_the_cache_is_where_it_is_wanted_and_nowhere_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, XDG_CACHE_HOME="/var/cache/x").abi_cache_path == Path("/var/cache/x/camdock/abi.json")
    assert given(monkeypatch, CAMDOCK_ABI_CACHE="/a/b").abi_cache_path == Path("/a/b")
    monkeypatch.delenv("CAMDOCK_ABI_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # nobody's number
    monkeypatch.delenv("HOME")
    assert read_config().abi_cache_path is None


def test_every_variable_is_tried_above_and_described() -> None:
    described = {name: text for name, _default, text in variables()}
    assert set(described) == set(VALUES)
    assert all(len(text) > 15 for text in described.values())


@pytest.mark.parametrize("name", VALUES)
def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert given(monkeypatch, **{name: ""}) == read_config()
    monkeypatch.delenv(name)
    assert read_config() == given(monkeypatch, **{name: ""})


def test_host_and_port_are_read_without_the_prefix_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = given(monkeypatch, HOST="::1", PORT="9000")
    assert (config.host, config.port) == ("::1", 9000)


def test_the_variable_with_the_prefix_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    config = given(monkeypatch, HOST="0.0.0.0", PORT="9000", CAMDOCK_HOST="127.0.0.1", CAMDOCK_PORT="8001")
    assert (config.host, config.port) == ("127.0.0.1", 8001)


def test_variables_of_others_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, SOURCE="v4l2:9", TOKEN="x", AUTH="off", CAMDOCK_FUTURE="1") == read_config()
    assert read_config().cameras["camera"].kind == "auto"
    assert read_config().auth == "on"


def test_a_file_in_the_working_folder_counts_less_than_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CAMDOCK_PORT=1234\nimage_quality=70\nSOMEBODY_ELSES=1\n")
    assert (read_config().port, read_config().image_quality) == (1234, 70)
    assert given(monkeypatch, CAMDOCK_PORT="4321").port == 4321
    assert given(monkeypatch, CAMDOCK_PORT="").port == 1234


@pytest.mark.parametrize(
    ("in_file", "in_environment", "wins"),
    [
        ("CAMDOCK_SOURCES=front=auto nest=auto", {"CAMDOCK_SOURCE": "v4l2:/nope"}, ["camera"]),
        ("CAMDOCK_SOURCES=front=auto nest=auto", {"camdock_source": "v4l2:/nope"}, ["camera"]),
        ("CAMDOCK_SOURCES=front=auto nest=auto", {"CAMDOCK_SOURCE": ""}, ["front", "nest"]),
        ("camdock_source=auto", {"CAMDOCK_SOURCES": "nest=auto"}, ["nest"]),
    ],
)
def test_a_way_to_name_cameras_counts_less_in_the_file_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_file: str, in_environment: dict[str, str], wins: list[str]
) -> None:
    (tmp_path / ".env").write_text(in_file + "\n")
    assert list(given(monkeypatch, **in_environment).cameras) == wins


def test_a_token_of_the_environment_leaves_nothing_for_the_file_to_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CAMDOCK_TOKEN_FILE=/no/such\nCAMDOCK_VIEWER_TOKEN=from-the-file\n")
    config = given(monkeypatch, CAMDOCK_TOKEN=TOKEN, CAMDOCK_VIEWER_TOKEN_FILE="viewers")
    assert (config.secret, config.viewer_secret) == (SecretStr(TOKEN), SecretStr("for-viewers"))


def test_both_ways_to_name_cameras_in_the_file_are_one_too_many_and_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CAMDOCK_SOURCE=auto\nCAMDOCK_SOURCES=a=auto\n")
    assert refused(monkeypatch).startswith(
        f"CAMDOCK_SOURCE and CAMDOCK_SOURCES are both set in .env in {tmp_path}: give the one"
    )
    both = refused(monkeypatch, CAMDOCK_SOURCE="synthetic:", CAMDOCK_SOURCES="b=auto")
    assert "are both set in the environment" in both


def test_a_file_in_the_working_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"CAMDOCK_PORT=\xff\xfe\n")
    with pytest.raises(ConfigInvalid, match=r"^\.env in .* cannot be read"):
        read_config()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"CAMERA_SERIAL_NUMBER": ""}, ["auto:"]),
        ({"CAMERA_SERIAL_NUMBER": "0"}, ["auto:"]),
        ({"CAMERA_SERIAL_NUMBER": "5"}, ["pixelink:5"]),
        ({"CAMERA_SERIAL_NUMBER": "0", "CAMDOCK_SOURCE": "pixelink:"}, ["pixelink:"]),
        ({"CAMERA_SERIAL_NUMBER": "5", "CAMDOCK_SOURCE": "pixelink:?fps=9"}, ["pixelink:5?fps=9"]),
        ({"CAMERA_SERIAL_NUMBER": "5", "CAMDOCK_SOURCE": "pixelink:7"}, ["pixelink:7"]),
        ({"CAMERA_SERIAL_NUMBER": "5", "CAMDOCK_SOURCE": "synthetic:"}, ["synthetic:"]),
        ({"CAMERA_SERIAL_NUMBER": "5", "CAMDOCK_SOURCES": "a=pixelink: b=auto:"}, ["pixelink:5", "auto:"]),
    ],
)
def test_the_serial_number_is_that_of_the_camera_named_without_one(
    given: dict[str, str], meant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert [
        source.text if ":" in source.text else f"{source.text}:" for source in read_config().cameras.values()
    ] == meant


def test_every_name_of_the_lab_camera_service_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = {
        "HOST": "127.0.0.9", "PORT": "8001", "DEBUG": "true", "DEFAULT_EXPOSURE": "100000.0", "DEFAULT_GAIN": "1.5",
        "IMAGE_SAVE_PATH": "./captures", "IMAGE_FORMAT": "jpeg", "IMAGE_QUALITY": "95",
        "ALLOWED_ORIGINS": "http://localhost:3000,http://localhost:5173", "CAMERA_SERIAL_NUMBER": "775001234",
    }  # fmt: skip
    assert set(old) == set(WITHOUT_PREFIX)

    def understood(config: Config) -> None:
        assert (config.host, config.port, config.level) == ("127.0.0.9", 8001, "debug")
        assert (config.default_exposure_us, config.default_gain) == (100_000, 1.5)
        assert config.captures_path == tmp_path / "captures"
        assert (config.image_format, config.image_quality) == ("JPG", 95)
        assert config.allowed_origins == ("http://localhost:3000", "http://localhost:5173")
        assert [(source.kind, source.target) for source in config.cameras.values()] == [("pixelink", "775001234")]

    for spelled in (str.upper, str.lower):
        (tmp_path / ".env").write_text("".join(f"{spelled(name)}={value}\n" for name, value in old.items()))
        understood(read_config())
    (tmp_path / ".env").unlink()
    for name, value in old.items():
        monkeypatch.setenv(name.title(), value)
    understood(read_config())


@pytest.mark.parametrize("debug", ["*", "app:*", "0", "false"])
def test_a_debug_of_other_programs_is_nothing_to_us(monkeypatch: pytest.MonkeyPatch, debug: str) -> None:
    assert given(monkeypatch, DEBUG=debug).level == "info"


def test_a_level_that_is_named_wins_over_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, DEBUG="true", CAMDOCK_LOG_LEVEL="error").level == "error"


def test_captures_lie_beside_the_settings_unless_a_folder_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert read_config().captures_path == tmp_path / ".local/state/camdock/captures"
    assert given(monkeypatch, CAMDOCK_STATE_DIR="/given").captures_path == Path("/given/captures")
    assert given(monkeypatch, IMAGE_SAVE_PATH="pictures").captures_path == tmp_path / "pictures"


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_config().port = 1  # type: ignore[misc]


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"CAMDOCK_PORT": "http"}, "CAMDOCK_PORT=http: "),
        ({"PORT": "0"}, "PORT=0: "),
        ({"CAMDOCK_PORT": "65536"}, "CAMDOCK_PORT=65536: "),
        ({"CAMDOCK_AUTH": "maybe"}, "CAMDOCK_AUTH=maybe: Input should be 'on' or 'off'"),
        ({"CAMDOCK_LOG_LEVEL": "loud"}, "CAMDOCK_LOG_LEVEL=loud: Input should be 'debug', 'info', "),
        ({"CAMDOCK_LINGER_S": "-1"}, "CAMDOCK_LINGER_S=-1: "),
        ({"IMAGE_FORMAT": "BMP"}, "IMAGE_FORMAT=BMP: Input should be 'JPG', 'PNG' or 'TIFF'"),
        ({"IMAGE_QUALITY": "0"}, "IMAGE_QUALITY=0: "),
        ({"CAMERA_SERIAL_NUMBER": "4294967296"}, "CAMERA_SERIAL_NUMBER=4294967296: "),
        ({"CAMERA_SERIAL_NUMBER": "-1"}, "CAMERA_SERIAL_NUMBER=-1: "),
        ({"DEFAULT_EXPOSURE": "long"}, "DEFAULT_EXPOSURE=long: "),
        ({"DEFAULT_EXPOSURE": "inf"}, "DEFAULT_EXPOSURE=inf: "),
        ({"DEFAULT_GAIN": "nan"}, "DEFAULT_GAIN=nan: "),
        ({"CAMDOCK_CAPTURES_MAX_BYTES": "-1"}, "CAMDOCK_CAPTURES_MAX_BYTES=-1: "),
        ({"ALLOWED_ORIGINS": "http://a/path"}, "ALLOWED_ORIGINS=http://a/path: 'http://a/path' is no origin"),
        ({"ALLOWED_ORIGINS": "localhost"}, "ALLOWED_ORIGINS=localhost: 'localhost' is no origin"),
        ({"CAMDOCK_OPEN_TIMEOUT_S": "0"}, "CAMDOCK_OPEN_TIMEOUT_S=0: "),
        ({"CAMDOCK_OPEN_TIMEOUT_S": "nan"}, "CAMDOCK_OPEN_TIMEOUT_S=nan: "),
        ({"CAMDOCK_SEND_TIMEOUT_S": "inf"}, "CAMDOCK_SEND_TIMEOUT_S=inf: "),
        ({"CAMDOCK_SOURCE": "v4l:0"}, "CAMDOCK_SOURCE: there is no kind of source called 'v4l'; did you mean v4l2:?"),
        ({"CAMDOCK_SOURCES": "a=auto a=auto"}, "CAMDOCK_SOURCES: two cameras are called 'a'"),
        ({"CAMDOCK_SOURCES": "synthetic:"}, "CAMDOCK_SOURCES: 'synthetic:' is not NAME=SOURCE"),
        (
            {"CAMDOCK_SOURCE": "auto", "CAMDOCK_SOURCES": "a=auto"},
            "CAMDOCK_SOURCE and CAMDOCK_SOURCES are both set in the environment: give the one or the other",
        ),
        *(
            (
                {"CAMDOCK_VISION_ENDPOINT": bad},
                f"CAMDOCK_VISION_ENDPOINT={bad}: must be the name of a host without http",
            )
            for bad in ("https://eu-vision.googleapis.com", "http://a/path", "a:port", "http://", ":80")
        ),
        *(
            (
                {"CAMDOCK_ALLOWED_HOSTS": f"localhost,{bad}"},
                f"CAMDOCK_ALLOWED_HOSTS=localhost,{bad}: {bad!r} is not how",
            )
            for bad in (
                "http://cam.lan",
                "cam.lan/",
                "cam.lan:8000",
                "[::1]:8000",
                "fd00::5",
                "cam.*",
                "*cam.lan",
                "a b",
            )
        ),
    ],
)
def test_a_mistake_names_its_variable(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str) -> None:
    assert refused(monkeypatch, **environment).startswith(says)


def test_every_mistake_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = refused(monkeypatch, CAMDOCK_PORT="x", CAMDOCK_AUTH="y", CAMDOCK_TOKEN="short").splitlines()
    assert sorted(line.split("=")[0].split(":")[0] for line in lines) == [
        "CAMDOCK_AUTH",
        "CAMDOCK_PORT",
        "CAMDOCK_TOKEN",
    ]


# --- the open door ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "camera.lan", "0", "127.1"])
def test_listening_to_the_network_is_refused_with_both_ways_out(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    message = refused(monkeypatch, HOST=host)
    assert f"listening on {host} opens the cameras to the network, so nothing was started" in message
    assert "set CAMDOCK_TOKEN" in message
    assert "CAMDOCK_TOKEN_FILE" in message
    assert "set CAMDOCK_AUTH=off" in message


@pytest.mark.parametrize(
    "way_out",
    [{"CAMDOCK_TOKEN": TOKEN}, {"CAMDOCK_TOKEN_FILE": "token"}, {"CAMDOCK_AUTH": "off"}],
)
def test_both_ways_out_lead_out(monkeypatch: pytest.MonkeyPatch, way_out: dict[str, str]) -> None:
    config = given(monkeypatch, HOST="0.0.0.0", **way_out)
    assert not config.is_loopback
    assert config.hosts == ("*",)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"])
def test_loopback_needs_no_token(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    config = given(monkeypatch, CAMDOCK_HOST=host)
    assert config.is_loopback
    assert "*" not in config.hosts
    assert host.lower() in config.hosts


def test_named_hosts_are_answered_wherever_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, CAMDOCK_ALLOWED_HOSTS="cam.lan").hosts == ("cam.lan",)
    assert given(monkeypatch, HOST="0.0.0.0", CAMDOCK_TOKEN=TOKEN).hosts == ("cam.lan",)


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", ["a" * 7, "with a space in it", "schlüssel-schlüssel", "tab\tinside-it", "new\nline-in-it"]
)
def test_a_weak_or_odd_token_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    message = refused(monkeypatch, CAMDOCK_TOKEN=token)
    assert message.startswith("CAMDOCK_TOKEN: needs 8 or more printable ASCII characters")
    assert "openssl rand -hex 16" in message
    assert token not in message


def test_eight_characters_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    token = given(monkeypatch, CAMDOCK_TOKEN="!~aB+/=9").token
    assert token is not None
    assert token.get_secret_value() == "!~aB+/=9"


# --- the token's file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [TOKEN, TOKEN + "\n", f"  {TOKEN}\t\r\nthe rest is a note\n"])
def test_the_token_is_the_first_line_of_its_file(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    Path("token").write_text(content)
    secret = given(monkeypatch, CAMDOCK_TOKEN_FILE="token").secret
    assert secret is not None
    assert secret.get_secret_value() == TOKEN


def test_the_secret_is_the_token_wherever_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_config().secret is None
    config = given(monkeypatch, CAMDOCK_TOKEN=TOKEN)
    assert config.secret is config.token is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; `umask 077; openssl rand -hex 16 > "),
        (b" \n", "is empty; `umask 077; openssl rand -hex 16 > "),
        (b" \n" + TOKEN.encode(), "its first line is empty; name another file"),
        (
            b"hunter2",
            "its first line is no token (8 or more printable ASCII characters without spaces); name another file",
        ),
        (b"hunter2 hunter2", "its first line is no token"),
        ("hunter2-schlüssel".encode(), "its first line is no token"),
        (b"hunter2\0hunter2", "its first line is no token"),
        (b"hunter2" * 1000, "its first line is no token"),
    ],
)
def test_a_file_without_a_good_token_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "the token"
    path.write_bytes(content)
    message = refused(monkeypatch, CAMDOCK_TOKEN_FILE=str(path))
    assert message.startswith(f"CAMDOCK_TOKEN_FILE={path}: {says}")
    assert (f"openssl rand -hex 16 > '{path}'" in message) is (not content.strip()), "what is there would be lost"
    assert "openssl rand -hex 16" in message, "not what to type"
    assert "hunter2" not in message


def test_a_token_file_that_is_not_there_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, CAMDOCK_TOKEN_FILE="/no/such/token")
    assert message.startswith("CAMDOCK_TOKEN_FILE=/no/such/token: there is no such file; `umask 077; openssl rand")


def test_a_folder_is_no_token_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = refused(monkeypatch, CAMDOCK_TOKEN_FILE=str(tmp_path))
    assert message == f"CAMDOCK_TOKEN_FILE={tmp_path}: is a folder; name a file in it whose first line is the token"


def test_a_device_is_not_written_over_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, CAMDOCK_TOKEN_FILE="/dev/null")
    assert message.startswith("CAMDOCK_TOKEN_FILE=/dev/null: its first line is empty; name another file")
    assert "> /dev" not in message


def test_a_token_file_that_may_not_be_read_says_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("token").absolute()
    path.chmod(0)
    was = os.geteuid()
    monkeypatch.setenv("CAMDOCK_TOKEN_FILE", str(path))
    if was == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ConfigInvalid) as caught:
            read_config()
        user = os.geteuid()
    finally:
        os.seteuid(was)
    message = str(caught.value)
    assert message.startswith(f"CAMDOCK_TOKEN_FILE={path}: the service's user ({user}) may not read it")
    assert f"chown {user} " in message


def test_a_token_and_a_file_of_it_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, CAMDOCK_TOKEN=TOKEN, CAMDOCK_TOKEN_FILE="token")
    assert message == (
        "CAMDOCK_TOKEN and CAMDOCK_TOKEN_FILE are both set in the environment: give the one or the other"
    )


def test_a_token_file_is_told_beside_every_other_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = refused(monkeypatch, CAMDOCK_PORT="x", CAMDOCK_TOKEN_FILE="/no/such/token").splitlines()
    assert sorted(re.split("[=:]", line)[0] for line in lines) == ["CAMDOCK_PORT", "CAMDOCK_TOKEN_FILE"]


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sources",
    [
        {"CAMDOCK_SOURCE": "relay:http://user:hunter2@h/?token=hunter2"},
        {"CAMDOCK_SOURCES": "a=opencv:rtsp://user:hunter2@h/ b=relay:http://h/#token=hunter2"},
    ],
)
@pytest.mark.parametrize("token", [{"CAMDOCK_TOKEN": TOKEN}, {"CAMDOCK_TOKEN_FILE": "token"}])
def test_a_config_never_shows_its_secrets(
    monkeypatch: pytest.MonkeyPatch, token: dict[str, str], sources: dict[str, str]
) -> None:
    config = given(monkeypatch, **token, **sources)
    for shown in (repr(config), str(config), f"{config}", repr(config.secret), str(config.secret)):
        assert "hunter2" not in shown
    assert all("hunter2" not in source.redacted for source in config.cameras.values())


@pytest.mark.parametrize(
    "environment",
    [
        {"CAMDOCK_SOURCE": "relay:http://user:hunter2@h:port/"},
        {"CAMDOCK_SOURCE": "http://user:hunter2@h/"},
        {"CAMDOCK_SOURCE": "relay:?token=hunter2"},
        {"CAMDOCK_SOURCES": "relay:http://user:hunter2@h/"},
        {"CAMDOCK_SOURCE": "relay:http://user:hunter2@h/", "CAMDOCK_SOURCES": "a=auto"},
        {"CAMDOCK_SOURCE": "relay:http://user:hunter2@h/", "HOST": "0.0.0.0"},
    ],
)
def test_a_refusal_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    assert "hunter2" not in refused(monkeypatch, **environment)


# --- where settings are kept ------------------------------------------------------------------------------------------


def test_the_state_folder_is_the_systems_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, XDG_STATE_HOME="/xdg").settings_path("a") == Path("/xdg/camdock/a.json")
    assert given(monkeypatch, CAMDOCK_STATE_DIR="/given").settings_path("a") == Path("/given/a.json")


# --- viewers, proxies, TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewers", [{"CAMDOCK_VIEWER_TOKEN": "for-viewers"}, {"CAMDOCK_VIEWER_TOKEN_FILE": "viewers"}])
def test_a_viewers_token_alone_is_refused_unless_nothing_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, viewers: dict[str, str]
) -> None:
    assert "set CAMDOCK_TOKEN as well" in refused(monkeypatch, **viewers)
    assert given(monkeypatch, CAMDOCK_AUTH="off").viewer_secret is not None


def test_the_two_tokens_differ_and_neither_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, CAMDOCK_TOKEN=TOKEN, CAMDOCK_VIEWER_TOKEN=TOKEN)
    assert "the same as CAMDOCK_TOKEN" in message
    assert TOKEN not in message
    message = refused(monkeypatch, CAMDOCK_VIEWER_TOKEN="tooShrt")
    assert message.startswith("CAMDOCK_VIEWER_TOKEN: needs 8 or more")
    assert "tooShrt" not in message


@pytest.mark.parametrize("text", ["proxy.example.org", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_a_proxy_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    message = refused(monkeypatch, CAMDOCK_TRUSTED_PROXIES=f"127.0.0.1,{text}")
    assert message.startswith("CAMDOCK_TRUSTED_PROXIES=127.0.0.1,")
    assert "like 10.0.0.0/8" in message


def test_a_certificate_and_its_key_come_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate.make(tmp_path)
    assert "CAMDOCK_TLS_KEY is missing" in refused(monkeypatch, CAMDOCK_TLS_CERT="tls.crt")
    monkeypatch.delenv("CAMDOCK_TLS_CERT")
    assert "CAMDOCK_TLS_CERT is missing" in refused(monkeypatch, CAMDOCK_TLS_KEY="tls.key")
    assert "CAMDOCK_TLS_CERT=/no/such cannot be read" in refused(monkeypatch, CAMDOCK_TLS_CERT="/no/such")
