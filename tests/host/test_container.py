"""deploy.yml with containers: an image from an archive, for this host's devices, and the same guarantees."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host.conftest import Figure
from tests.host.deploying import SOURCE, USUAL, ask, pictures, serving, token_of, told
from tests.tools.cannot import cannot
from tests.tools.containers import docker, new_name
from tests.tools.target import Play, Target, play

pytestmark = pytest.mark.timeout(900)  # a play takes its time, a first one most of all
IMAGE = f"{os.environ.get('CAMDOCK_TEST_REPOSITORY', 'camdock')}:current"


@dataclass
class Deployed:
    """A host, the plays that it has seen, one in check mode and one for real, and what they were given."""

    target: Target
    before: Play
    first: Play
    given: dict[str, object]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    if docker("image", "inspect", IMAGE, check=False).returncode != 0:
        cannot(f"there is no image {IMAGE}: make image IMAGES=current")
    archive = tmp_path_factory.mktemp("image") / "camdock.tar.gz"
    with archive.open("wb") as file, gzip.open(file, "wb", compresslevel=1) as packed:
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saved:
            assert saved.stdout
            shutil.copyfileobj(saved.stdout, packed, 1 << 20)
        assert saved.returncode == 0
    given = {**USUAL, "deploy_mode": "container", "deploy_image_archive": str(archive), "deploy_source": SOURCE}
    with Target("trixie") as target:  # bare: the role brings the engine
        dry = play("deploy.yml", target, options=("--check", "--diff"), **given)
        assert target.run("test -e /opt/camdock -o -e /etc/camdock").returncode == 1
        assert target.run("command -v docker || getent passwd camdock").returncode != 0
        yield Deployed(target, dry, play("deploy.yml", target, **given), given)


def inspected(target: Target) -> dict[str, dict[str, object]]:
    """What the host's engine knows of the container."""
    found: dict[str, dict[str, object]] = json.loads(target.done("docker inspect camdock-camdock-1"))[0]
    return found


def test_a_check_of_a_host_without_an_engine_tells_what_would_change_and_changes_nothing(deployed: Deployed) -> None:
    # That it changed nothing was looked at before the next play.
    assert deployed.before.recap[deployed.target.name]["changed"] >= 6
    assert "Would install docker.io, docker-cli, docker-compose." in deployed.before.output
    assert '+      CAMDOCK_SOURCE: "synthetic:?size=320x240&fps=20"' in deployed.before.output
    assert "would serve" in deployed.before.output


def test_a_container_serves_moving_pictures_after_one_play(deployed: Deployed) -> None:
    target = deployed.target
    assert target.host.service("camdock").is_running
    assert ask(target, "/health")[0] == 200
    assert ask(target, "/stream")[0] == 401
    assert len(set(pictures(target, token_of(target)))) > 1
    state = inspected(target)["State"]
    assert isinstance(state["Health"], dict)
    assert state["Health"]["Status"] in ("healthy", "starting")
    target.done("timeout 60 sh -c 'until docker inspect camdock-camdock-1 | grep -q \\\"healthy\\\"; do sleep 1; done'")


def test_the_container_is_given_what_this_host_needs_and_no_more(deployed: Deployed) -> None:
    target = deployed.target
    config, host = inspected(target)["Config"], inspected(target)["HostConfig"]
    assert config["User"] == "10001:10001"
    assert (host["Privileged"], host["ReadonlyRootfs"], host["CapDrop"]) == (False, True, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["DeviceCgroupRules"] == ["c 81:* rw"]
    assert host["GroupAdd"] == [str(target.host.group("video").gid)]
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}  # the unit starts it again
    said = " ".join(map(str, config["Env"])) if isinstance(config["Env"], list) else ""
    assert token_of(target) not in said
    assert "CAMDOCK_TOKEN_FILE=/run/camdock/token" in said


def test_a_second_run_changes_nothing_and_takes_half_the_time(deployed: Deployed, figure: Figure) -> None:
    target = deployed.target
    before = serving(target), inspected(target)["State"]["StartedAt"]
    second = play("deploy.yml", target, **deployed.given)
    assert second.recap[target.name]["changed"] == 0, second.output
    assert (serving(target), inspected(target)["State"]["StartedAt"]) == before
    figure(f"the first run took {deployed.first.seconds:.0f} s, the second {second.seconds:.0f} s")
    assert second.seconds < deployed.first.seconds / 2
    dry = play("deploy.yml", target, options=("--check", "--diff"), **deployed.given)
    assert dry.recap[target.name]["changed"] == 0
    assert target.run("ls /var/cache/camdock/image").returncode != 0


def test_a_changed_variable_is_shown_and_then_deployed_as_a_release_of_the_same_image(deployed: Deployed) -> None:
    target, before = deployed.target, told(deployed.target)
    given = {**deployed.given, "deploy_settings": {"CAMDOCK_LOG_LEVEL": "debug"}}
    dry = play("deploy.yml", target, options=("--check", "--diff"), **given)
    assert '+      CAMDOCK_LOG_LEVEL: "debug"' in dry.output
    assert told(target) == before
    play("deploy.yml", target, **given)
    now = told(target)
    assert now["previous"] == before["current"]
    assert len({one["build"] for one in now["releases"]}) == 1
    assert len(set(pictures(target, token_of(target)))) > 1


def test_an_image_for_another_architecture_is_refused_before_anything_is_copied(
    deployed: Deployed, tmp_path: Path
) -> None:
    name = new_name("other")
    empty = subprocess.run(["tar", "c", "--files-from", "/dev/null"], check=True, capture_output=True).stdout
    recipe = tmp_path / "build"
    recipe.mkdir()
    (recipe / "nothing.tar").write_bytes(empty)
    (recipe / "Dockerfile").write_text("FROM scratch\nADD nothing.tar /\n")
    docker("build", "--platform", "linux/arm64", "--tag", name, recipe)
    archive = tmp_path / "other.tar"
    docker("save", "--output", archive, name)
    refused = play("deploy.yml", deployed.target, expect=2, **{**deployed.given, "deploy_image_archive": str(archive)})
    assert "is for arm64, and this host is amd64" in refused.output
    assert refused.recap[deployed.target.name]["changed"] == 0
