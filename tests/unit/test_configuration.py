"""What the doctor makes of a configuration: mistakes are told, and whatever can be used is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camdock.doctor import configuration
from camdock.doctor.answer import Answer
from camdock.doctor.configuration import Known, check
from camdock.doctor.report import Status


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`read` takes out of the environment what cannot be used: it has one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {"HOME": str(tmp_path), "CAMDOCK_STATE_DIR": str(tmp_path)})


def read(**given: str) -> Answer:
    """The errand's answer in an environment."""
    import os

    os.environ.update(given)
    return Answer(list(configuration.read()))


def test_a_mistake_is_told_and_the_rest_of_the_configuration_is_known() -> None:
    answer = read(CAMDOCK_SOURCE="v4l2:/dev/video3", CAMDOCK_PORT="http", CAMDOCK_HOST="10.0.0.1")
    known = Known.of(answer)
    assert {name: source.text for name, source in known.cameras.items()} == {"camera": "v4l2:/dev/video3"}
    assert (known.host, known.port) == ("10.0.0.1", 8000)
    found = check(answer)
    assert [one.status for one in found] == [Status.BAD]
    assert found[0].what.startswith("CAMDOCK_PORT=http")


def test_a_source_that_cannot_be_used_is_not_replaced_by_another() -> None:
    answer = read(CAMDOCK_SOURCE="v4l3:0")
    assert Known.of(answer).cameras == {}
    assert "did you mean v4l2:?" in check(answer)[0].what


def test_a_mistake_behind_another_is_told_too() -> None:
    found = check(read(CAMDOCK_LINGER_S="soon", CAMDOCK_SOURCE="v4l3:0"))
    assert [one.what.partition("=")[0].partition(":")[0] for one in found] == ["CAMDOCK_LINGER_S", "CAMDOCK_SOURCE"]


def test_a_network_address_without_a_token_is_one_mistake_with_the_ways_out() -> None:
    found = check(read(CAMDOCK_HOST="0.0.0.0"))
    assert len(found) == 1
    assert "opens the cameras to the network" in found[0].what
    assert "CAMDOCK_AUTH=off" in found[0].hint


@pytest.mark.parametrize(
    ("given", "says"),
    [({"PORT": "abc"}, "PORT=abc: "), ({"IMAGE_FORMAT": "BMP"}, "IMAGE_FORMAT=BMP: "),
     ({"camdock_linger_s": "soon"}, "CAMDOCK_LINGER_S=soon: "),
     ({"CAMDOCK_TLS_CERT": "/no/such"}, "CAMDOCK_TLS_KEY is missing"),
     ({"CAMDOCK_TLS_CERT": "/no/such", "CAMDOCK_TLS_KEY": "/nor/this"}, "CAMDOCK_TLS_CERT=/no/such cannot be read")],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)  # fmt: skip
@pytest.mark.parametrize("in_file", [False, True], ids=["environment", "file"])
def test_a_mistake_under_any_name_and_in_either_place_is_told_once_and_the_cameras_are_looked_at(
    given: dict[str, str], says: str, in_file: bool
) -> None:
    if in_file:
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    answer = read(CAMDOCK_SOURCE="v4l2:/dev/video3", **({} if in_file else given))
    assert list(Known.of(answer).cameras) == ["camera"]
    assert Known.of(answer).folders
    (found,) = check(answer)
    assert found.what.startswith(says)


def test_a_file_that_cannot_be_read_is_one_mistake_and_the_environment_is_looked_at() -> None:
    Path(".env").write_bytes(b"CAMDOCK_PORT=\xff\n")
    answer = read(CAMDOCK_SOURCE="v4l2:/dev/video3")
    assert Known.of(answer).folders
    (found,) = check(answer)
    assert ".env in" in found.what


def test_the_file_gives_what_the_environment_leaves_empty_and_nothing_of_other_programs() -> None:
    Path(".env").write_text("CAMDOCK_SOURCE=v4l2:/dev/video3\nCAMDOCK_PORT=81\nCAMDOCK_SORUCE=x\nHOME=/nowhere\n")
    answer = read(CAMDOCK_SOURCE="", CAMDOCK_PORT="82")
    assert Known.of(answer).paths == {"camera": "/dev/video3"}
    assert Known.of(answer).port == 82
    assert [one.what for one in check(answer) if one.status is Status.WARNING] == [
        "CAMDOCK_SORUCE is set, and nothing reads it"
    ]
    assert "/nowhere" not in str(answer)


@pytest.mark.parametrize("name", ["CAMDOCK_TOKEN_FILE", "CAMDOCK_VIEWER_TOKEN_FILE"])
@pytest.mark.parametrize("in_file", [False, True], ids=["environment", "file"])
def test_each_file_with_a_token_is_for_the_right_eyes_alone_wherever_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, in_file: bool
) -> None:
    monkeypatch.setattr("camdock.devices.IN_CONTAINER", ())
    token = tmp_path / "one"
    token.write_text("0123456789abcdef")
    token.chmod(0o644)
    if in_file:
        Path(".env").write_text(f"{name}={token}\n")
    beside = {"CAMDOCK_TOKEN": "abcdefgh"} if "VIEWER" in name else {}
    found = check(read(**beside, **({} if in_file else {name: str(token)})))
    assert any(f"may read the token in {token}" in one.what for one in found)


@pytest.mark.parametrize(
    ("in_file", "given", "cameras"),
    [
        ("CAMDOCK_SOURCES=front=v4l2:0 nest=v4l2:1", {"CAMDOCK_SOURCE": "v4l2:7"}, {"camera": "/dev/video7"}),
        ("CAMDOCK_SOURCES=front=v4l2:0", {}, {"front": "/dev/video0"}),
        ("CAMDOCK_SOURCE=v4l2:0", {"camdock_sources": "nest=v4l2:7"}, {"nest": "/dev/video7"}),
    ],
)
def test_the_environment_names_the_cameras_whatever_the_file_says(
    in_file: str, given: dict[str, str], cameras: dict[str, str]
) -> None:
    Path(".env").write_text(in_file + "\n")
    answer = read(**given)
    assert Known.of(answer).paths == cameras
    assert [one.status for one in check(answer)] == [Status.OK]


@pytest.mark.parametrize("in_file", [False, True], ids=["environment", "file"])
def test_two_ways_to_name_cameras_in_one_place_are_a_mistake_of_that_place(tmp_path: Path, in_file: bool) -> None:
    both = {"CAMDOCK_SOURCE": "auto", "CAMDOCK_SOURCES": "a=auto"}
    if in_file:
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in both.items()))
    (found,) = check(read(**({} if in_file else both)))
    assert f"both set in {f'.env in {tmp_path}' if in_file else 'the environment'}: give" in found.what


@pytest.mark.parametrize(("content", "hint"), [("short\n", "name another file"), ("", "`umask 077; openssl rand -hex")])
def test_a_file_without_a_token_is_told_with_what_mends_it(tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "one").write_text(content)
    found = [one for one in check(read(CAMDOCK_TOKEN_FILE=str(tmp_path / "one"))) if "token" in one.hint]
    found = [one for one in found if one.status is Status.BAD]
    assert [one.hint.startswith(hint) for one in found] == [True]


def test_a_token_that_is_given_as_its_file_is_not_repeated() -> None:
    found = check(read(CAMDOCK_TOKEN_FILE="0123456789abcdef", CAMDOCK_VIEWER_TOKEN_FILE="a/b+fedcba98765"))
    assert [one.what.partition(":")[0] for one in found] == ["CAMDOCK_TOKEN_FILE", "CAMDOCK_VIEWER_TOKEN_FILE"]
    assert "0123456789" not in str(found)
    assert "fedcba" not in str(found)


@pytest.mark.parametrize(
    ("given", "remarked"),
    [({"CAMDOCK_SOURCE": "v4l2:0"}, True), ({"CAMDOCK_SOURCE": "pixelink:7"}, True),
     ({"CAMDOCK_SOURCE": "pixelink:"}, False), ({}, False)],
)  # fmt: skip
def test_a_serial_number_that_no_source_takes_is_worth_a_look(given: dict[str, str], remarked: bool) -> None:
    found = check(read(CAMERA_SERIAL_NUMBER="775001234", **given))
    assert any("775001234 has no effect" in one.what for one in found if one.status is Status.WARNING) is remarked


def test_a_slip_of_the_pen_is_a_warning_and_other_peoples_names_are_left_alone() -> None:
    found = check(read(CAMDOCK_SORUCE="v4l2:0", CAMDOCK_TEST_IMAGES="current"))
    assert [(one.status, one.what) for one in found if one.status is not Status.OK] == [
        (Status.WARNING, "CAMDOCK_SORUCE is set, and nothing reads it")
    ]
    assert found[-1].hint == "was CAMDOCK_SOURCE meant?"


@pytest.mark.parametrize(
    ("mode", "boxed", "status"),
    [(0o600, False, None), (0o640, False, None), (0o644, False, Status.WARNING), (0o666, False, Status.BAD),
     (0o444, True, None), (0o446, True, Status.BAD)],
)  # fmt: skip
def test_a_token_is_for_the_right_eyes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, boxed: bool, status: Status | None
) -> None:
    monkeypatch.setattr("camdock.devices.IN_CONTAINER", (str(tmp_path),) if boxed else ())
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(mode)
    found = [one for one in check(read(CAMDOCK_TOKEN_FILE=str(token))) if one.name == "token"]
    assert [one.status for one in found] == ([status] if status else [])
    assert "0123456789abcdef" not in str(found)
    if found:
        assert found[0].hint.startswith(f"`chmod o= {token}`")


def test_an_answer_that_never_came_is_bad_and_the_cameras_are_read_all_the_same() -> None:
    import os

    os.environ["CAMDOCK_SOURCES"] = "front=v4l2:0 nest=synthetic:"
    answer = Answer(trouble="no answer within 3.5 s", hung=True)
    assert list(Known.of(answer).cameras) == ["front", "nest"]
    assert Known.of(answer).paths == {"front": "/dev/video0"}
    (found,) = check(answer)
    assert found.status is Status.BAD
    assert "no answer within 3.5 s" in found.what


def test_credentials_of_a_source_are_in_no_check() -> None:
    found: list[Any] = check(read(CAMDOCK_SOURCE="relay:http://me:hunter2@host/"))
    assert "hunter2" not in str(found)
    assert found[0].status is Status.OK
