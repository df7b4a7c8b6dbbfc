"""What keeps a host from being deployed to is said before anything is changed there: all of it, each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.host.deploying import USUAL
from tests.tools.target import Target, play

pytestmark = pytest.mark.timeout(900)  # a play takes its time, a first one most of all


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target("trixie") as one:
        yield one


@pytest.fixture
def untouched(target: Target) -> Iterator[None]:
    """Nothing of ours may be there afterwards."""
    yield
    assert target.run("ls -d /opt/camdock /etc/camdock /var/lib/camdock").stdout == ""
    assert target.run("getent passwd camdock").returncode == 2


@pytest.mark.usefixtures("untouched")
def test_everything_that_is_wrong_is_said_at_once(target: Target) -> None:
    target.done("systemd-run --unit=other --quiet python3 -m http.server 8123 --bind 127.0.0.1")
    target.done("until ss -ltn | grep -q :8123; do sleep 0.1; done")
    refused = play(
        "deploy.yml", target, expect=2, **USUAL,
        deploy_port=8123, deploy_image="camdock:latest", deploy_source="v4l3:/dev/video0", deploy_free_mb=90_000_000,
        deploy_settings={"CAMDOCK_TOKEN": "not-to-be-seen", "PATH": "/bin"}, deploy_sorce="v4l2:/dev/video0",
    )  # fmt: skip
    for sentence in (
        "Port 8123 is taken by python3 (pid",
        "deploy_image is set, and deploy_mode is native",
        "deploy_source cannot work",
        "MB free and 90000000 MB are needed",
        "deploy_settings has CAMDOCK_TOKEN, which is set by nothing",
        "deploy_settings has 'PATH'",
        "No variable of role deploy is called deploy_sorce",
    ):
        assert sentence in refused.output, f"{sentence!r} is not said:\n{refused.output}"
    assert "not-to-be-seen" not in refused.output
    assert refused.recap[target.name]["changed"] == 0
    assert refused.recap[target.name]["failed"] == 1


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        ({"deploy_port": "eighty"}, ["deploy_port", "int"]),
        ({"deploy_mode": "contaner"}, ["deploy_mode", "native, container"]),
        ({"deploy_environment": {"PIP_INDEX_URL": "http://somebody:hidden-word@127.0.0.1:9/simple"}},
         ["The package index http://***@127.0.0.1:9/simple cannot be used from this host"]),
        ({"deploy_mode": "container", "deploy_image": "registry.example.org/camdock:1.0"},
         ["names no digest", "what a tag means changes"]),
        ({"deploy_mode": "container", "deploy_image_archive": "/etc/hostname"},
         ["The image archive /etc/hostname cannot be used", "docker save"]),
    ],
    ids=["type", "choice", "index", "tag", "archive"],
)  # fmt: skip
def test_a_variable_that_cannot_be_meant_is_refused(
    target: Target, given: dict[str, Any], sentences: list[str]
) -> None:
    refused = play("deploy.yml", target, expect=2, **{**USUAL, **given})
    for sentence in sentences:
        assert sentence in refused.output, refused.output
    assert "hidden-word" not in refused.output
    assert refused.recap[target.name]["changed"] == 0


@pytest.mark.usefixtures("untouched")
def test_an_unknown_system_is_refused_by_its_name(target: Target) -> None:
    kept = target.done("cat /etc/os-release")
    target.put("/etc/os-release", 'ID=fedora\nVERSION_ID=44\nPRETTY_NAME="Fedora Linux 44"\n')
    try:
        refused = play("deploy.yml", target, expect=2, **USUAL)
    finally:
        target.put("/etc/os-release", kept + "\n")
    assert "This host runs Fedora Linux 44; Camdock is deployed on Debian 12 and 13" in refused.output
