"""Three hosts and a release that one of them cannot give pictures with: the first has it, the second is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.host.deploying import SMALL, SOURCE, USUAL, pictures, serving, token_of, told
from tests.tools.target import PIP_CACHE, Target, play

GIVEN = {**USUAL, "deploy_extras": SMALL, "deploy_gate": "pictures"}
pytestmark = pytest.mark.timeout(900)  # a play takes its time, a first one most of all
VENV = ("python3-venv",)  # installing it is not the subject, and takes its time three times
KEPT = {"/var/lib/camdock/captures/still.jpg": "a still", "/var/lib/camdock/settings/camera.json": "{}"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[list[Target]]:
    """Three hosts that serve pictures, with a capture and settings each."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(Target("trixie", VENV, PIP_CACHE, deploy_source=SOURCE)) for _ in range(3)]
        play("deploy.yml", *hosts, deploy_serial=3, **GIVEN)
        for one in hosts:
            for path, text in KEPT.items():
                one.put(path, text)
        yield hosts


def test_a_bad_second_host_is_put_back_and_the_third_is_not_touched(fleet: list[Target]) -> None:
    first, second, third = fleet
    before = [told(one) for one in fleet]
    third_serves, third_files = serving(third), third.done("find /opt/camdock -printf '%p %T@\\n' | sort")
    second.vars["deploy_source"] = "relay:http://127.0.0.1:9/nobody"
    failed = play(
        "deploy.yml", *fleet, expect=None,
        **{**GIVEN, "deploy_appear_s": 20}, deploy_settings={"CAMDOCK_LOG_LEVEL": "debug"},
    )  # fmt: skip
    second.vars["deploy_source"] = SOURCE
    assert failed.status != 0
    assert failed.recap[first.name]["failed"] == 0
    assert failed.recap[second.name]["failed"] == 1
    assert failed.recap[third.name]["changed"] == 0

    assert told(first)["previous"] == before[0]["current"]
    assert told(first)["unconfirmed"] is None
    assert told(second)["current"] == before[1]["current"]
    assert told(second)["unconfirmed"] is None
    assert (told(third), serving(third)) == (before[2], third_serves)
    assert third.done("find /opt/camdock -printf '%p %T@\\n' | sort") == third_files

    last = failed.output.partition("PLAY RECAP")[0]
    assert "was taken back" in last
    assert f"{before[1]['current']} serves again" in last
    assert f"Not touched: {third.name}" in last
    for one in fleet:
        assert len(set(pictures(one, token_of(one)))) > 1
        for path, text in KEPT.items():
            assert one.done(f"cat {path}") == text


def test_the_next_run_brings_all_of_them_to_the_same_release(fleet: list[Target]) -> None:
    play("deploy.yml", *fleet, **GIVEN, deploy_serial="100%", deploy_settings={"CAMDOCK_LOG_LEVEL": "debug"})
    assert len({told(one)["current"] for one in fleet}) == 1
