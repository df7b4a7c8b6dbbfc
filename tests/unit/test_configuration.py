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
