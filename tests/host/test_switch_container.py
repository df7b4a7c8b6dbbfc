"""The switch in container mode: the same tool, the same promises, with Compose in the foreground."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.host.conftest import Figure
from tests.host.switching import GOOD, TOKEN, Deployed, Outsider, is_short, unit
from tests.tools.cannot import cannot
from tests.tools.containers import docker
from tests.tools.service import until
from tests.tools.target import Target

pytestmark = pytest.mark.timeout(600)
IMAGE = "camdock:optimized"
COMPOSE = """
name: camdock
services:
  camdock:
    image: {image}
    pull_policy: never
    restart: "no"
    stop_grace_period: 5s
    ports: ["0.0.0.0:8000:8000"]
    environment: {{CAMDOCK_SOURCE: "{source}", CAMDOCK_TOKEN: {token}}}
    read_only: true
    cap_drop: [ALL]
    tmpfs: [/tmp]
"""


@pytest.fixture(scope="module")
def bare() -> Iterator[Deployed]:
    """A host with an engine that has the image."""
    if docker("image", "inspect", IMAGE, check=False).returncode != 0:
        cannot(f"there is no image {IMAGE}: make image")
    with Target("trixie", packages=("docker.io", "docker-cli", "docker-compose")) as target:
        target.done("systemctl start docker.service")
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "exec", "--interactive", target.name, "docker", "load"],
                stdin=saving.stdout, check=True, capture_output=True, timeout=300,
            )  # fmt: skip
        host = Deployed(target)
        target.put("/opt/camdock/builds/image/complete", json.dumps({"image": IMAGE}))
        release(host, "steady")
        host.tool("switch steady --watch 0")
        yield host


def release(host: Deployed, name: str, source: str = GOOD, image: str = IMAGE) -> None:
    """A release in a container."""
    compose = COMPOSE.format(image=image, source=source, token=TOKEN)
    host.release(name, source, build="image", mode="container", unit_text=unit("container"), compose=compose)


@pytest.fixture
def host(bare: Deployed) -> Deployed:
    """A host on which `steady` serves, or any release that gives pictures."""
    bare.tool("recover")
    bare.tool("gate --watch 0")
    return bare


def containers(host: Deployed) -> list[str]:
    """The containers of the service that run."""
    return host.target.done("docker ps --quiet --filter label=com.docker.compose.project=camdock").split()


def test_a_viewer_misses_less_than_ten_seconds_of_a_good_switch(host: Deployed, figure: Figure) -> None:
    gaps = []
    for name in ("next", "next-but-one", "third"):  # the machine may be busy: the best of three
        release(host, name, GOOD + "&label=" + name)
        with Outsider(host.target.address) as viewer:
            assert host.tool(f"switch {name} --watch 1")["outcome"] == "confirmed"
            came = len(viewer.times)
            until(lambda came=came, viewer=viewer: len(viewer.times) > came, 60, "pictures go on")
        gaps.append(viewer.longest_gap())
        if gaps[-1] < 10:
            break
    figure(f"without pictures for {', '.join(f'{gap:.2f}' for gap in gaps)} s")
    assert is_short(host, min(gaps), 10)
    assert len(containers(host)) == 1


@pytest.mark.parametrize(
    ("source", "image", "reason", "logged"),
    [
        pytest.param("synthetic:?nonsense=1", IMAGE, "the service has ended", "no option 'nonsense'", id="start"),
        pytest.param(GOOD, "camdock:none", "the service has ended", "camdock:none", id="image"),
        pytest.param("synthetic:?hang_open=1", IMAGE, "after 8 s: camera: it is st", "hang_open", id="pictures"),
    ],
)
def test_a_release_that_gives_no_pictures_is_taken_back(
    host: Deployed, source: str, image: str, reason: str, logged: str, figure: Figure
) -> None:
    before = host.current
    release(host, "bad", source, image)
    with Outsider(host.target.address) as viewer:
        told = host.tool(f"switch bad --appear {8 if 'after 8 s' in reason else 60}", expect=1)
        came = len(viewer.times)
        until(lambda: len(viewer.times) > came, 60, "pictures are back")
    assert told["outcome"] == "put_back"
    assert reason in told["reason"]
    assert logged in "\n".join(told["log"])
    assert host.current == before
    figure(f"without pictures for {viewer.longest_gap():.2f} s")
    assert is_short(host, viewer.longest_gap(), 15)
    assert len(containers(host)) == 1


def test_a_container_that_a_killed_compose_has_left_is_taken_over(host: Deployed) -> None:
    host.target.done("systemctl kill --signal=KILL camdock.service")
    until(
        lambda: host.target.run("systemctl is-active camdock.service").stdout.strip() == "active", 60, "it runs again"
    )
    host.tool("gate --watch 0")
    assert len(containers(host)) == 1


def test_a_stop_leaves_no_container_and_a_reboot_brings_it_back(host: Deployed) -> None:
    host.target.done("systemctl stop camdock.service")
    assert containers(host) == []
    host.target.reboot()
    until(
        lambda: host.target.run("systemctl is-active camdock.service").stdout.strip() == "active", 60, "it runs again"
    )
    host.tool("gate --watch 0")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("systemctl restart docker.service",), id="restarted"),
        pytest.param(("systemctl stop docker.service docker.socket", "systemctl start docker.service"), id="stopped"),
    ],
)
def test_an_engine_that_is_back_brings_the_service_along(host: Deployed, words: tuple[str, ...]) -> None:
    for word in words:
        host.target.done(word)
    until(
        lambda: host.target.run("systemctl is-active camdock.service").stdout.strip() == "active", 60, "it runs again"
    )
    host.tool("gate --watch 0")
    assert len(containers(host)) == 1
