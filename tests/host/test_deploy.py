"""deploy.yml natively, on bare hosts: pictures, the same again, what would change, and builds that fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host.conftest import Figure
from tests.host.deploying import (
    SMALL,
    SOURCE,
    USUAL,
    ask,
    change,
    copy_of_project,
    pictures,
    serving,
    token_of,
    told,
)
from tests.tools.containers import ROOT
from tests.tools.target import PIP_CACHE, Play, Target, play

GIVEN = {**USUAL, "deploy_source": SOURCE}
pytestmark = pytest.mark.timeout(900)  # a play takes its time, a first one most of all
DISK = ("--tmpfs", "/opt/camdock:size=900m,exec,mode=755")  # small, and apart from the others
_IMPORTS = "import numpy, cv2, simplejpeg, linuxpy, requests; print(numpy.__version__, numpy.__file__)"

# What goes wrong while it is built is the same on both.
ON_TRIXIE = pytest.mark.parametrize("deployed", ["trixie"], indirect=True)
ON_BOOKWORM = pytest.mark.parametrize("deployed", ["bookworm"], indirect=True)


@dataclass
class Deployed:
    """A host, and the two plays that it has seen: one in check mode, and one for real."""

    target: Target
    before: Play
    first: Play


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def deployed(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """Both releases of Debian in turn, deployed to once."""
    with Target(request.param, options=(*PIP_CACHE, *DISK)) as target:
        dry = play("deploy.yml", target, options=("--check", "--diff"), **GIVEN)
        assert target.run("test -e /opt/camdock/builds -o -e /etc/camdock").returncode == 1
        assert target.run("getent passwd camdock").returncode == 2
        yield Deployed(target, dry, play("deploy.yml", target, **GIVEN))


@dataclass
class Again:
    """The same play once more, with all that Ansible can say of it; and what served before it."""

    before: tuple[str, str]
    done: Play


@pytest.fixture(scope="module")
def again(deployed: Deployed) -> Again:
    target = deployed.target
    before = serving(target), target.done("readlink /opt/camdock/current")
    return Again(before, play("deploy.yml", target, options=("-vvv", "--diff"), **GIVEN))


def test_a_check_of_a_bare_host_tells_what_would_change_and_changes_nothing(deployed: Deployed) -> None:
    # That it changed nothing was looked at before the next play.
    assert deployed.before.recap[deployed.target.name]["changed"] >= 6
    assert "python3-venv" in deployed.before.output
    assert '+CAMDOCK_SOURCE="synthetic:?size=320x240&fps=20"' in deployed.before.output
    assert "would serve" in deployed.before.output


def test_a_bare_host_serves_moving_pictures_after_one_play(deployed: Deployed) -> None:
    target = deployed.target
    service = target.host.service("camdock")
    assert service.is_running
    assert service.is_enabled
    assert target.host.service("camdock-recover").is_enabled
    status, health = ask(target, "/health")
    assert (status, b'"healthy"' in health) == (200, True)
    assert len(set(pictures(target, token_of(target)))) > 1
    assert told(target)["releases"][0]["confirmed"] is True


def test_the_service_runs_as_its_own_user_in_the_group_of_cameras(deployed: Deployed) -> None:
    host = deployed.target.host
    user = host.user("camdock")
    assert (user.uid, user.gid, user.shell) == (10001, 10001, "/usr/sbin/nologin")
    pid = host.check_output("systemctl show camdock --property=MainPID --value")
    ids = host.check_output(f"grep -E '^(Uid|Groups)' /proc/{pid}/status")
    assert re.search(r"^Uid:\s+10001\s+10001", ids, re.MULTILINE)
    assert str(host.group("video").gid) in ids.rpartition("Groups:")[2].split()


def test_the_environment_is_as_pinned_and_fits_numpy(deployed: Deployed) -> None:
    target = deployed.target
    python = "/opt/camdock/current/build/venv/bin/python -P"
    version, file = target.done(f"{python} -W error -c '{_IMPORTS}'", user="camdock").split()
    assert f"numpy=={version} " in (ROOT / "constraints.txt").read_text()
    assert "/opt/camdock/builds/" in target.done(f"realpath {file}")
    target.done(f"{python} -m camdock abi check --strict", user="camdock")
    assert "sealed" in target.done("journalctl --unit camdock --output cat")


def test_nobody_but_root_changes_what_runs(deployed: Deployed) -> None:
    target = deployed.target
    writable = "find /opt/camdock /etc/camdock /var/cache/camdock/pip -writable -not -type l -print -quit"
    assert target.run(writable, user="camdock").stdout == ""
    assert target.run("find /opt/camdock/builds -name '*.py' -path '*/camdock/app.py'").stdout != ""
    assert target.run("find /opt/camdock/builds -name 'app.cpython-*.pyc' -path '*/camdock/*'").stdout != ""


def test_the_token_is_for_the_service_alone_and_never_printed(deployed: Deployed, again: Again) -> None:
    target = deployed.target
    file = target.host.file("/etc/camdock/token")
    assert (file.mode, file.uid, file.gid) == (0o400, 10001, 10001)
    token = token_of(target)
    assert len(token) >= 40
    assert ask(target, "/stream")[0] == 401
    assert "/etc/camdock/token" in again.done.output  # where it lies is said
    for text in (deployed.first.output, again.done.output, target.done("journalctl --no-pager")):
        assert token not in text


def test_a_second_run_changes_nothing_and_takes_half_the_time(deployed: Deployed, again: Again, figure: Figure) -> None:
    target, second = deployed.target, again.done
    assert second.recap[target.name]["changed"] == 0, second.output
    assert (serving(target), target.done("readlink /opt/camdock/current")) == again.before
    figure(f"the first run took {deployed.first.seconds:.0f} s, the second {second.seconds:.0f} s")
    assert second.seconds < deployed.first.seconds / 2


def test_a_check_of_a_converged_host_finds_nothing(deployed: Deployed) -> None:
    target = deployed.target
    assert play("deploy.yml", target, options=("--check", "--diff"), **GIVEN).recap[target.name]["changed"] == 0


def test_a_check_shows_a_changed_template_as_what_would_change(deployed: Deployed, tmp_path: Path) -> None:
    target, project = deployed.target, copy_of_project(tmp_path)
    change(project / "ansible/roles/deploy/templates/camdock.env.j2", "# What", "# Another template. What")
    before = serving(target), told(target)
    checked = play(project / "ansible/deploy.yml", target, options=("--check", "--diff"), **GIVEN)
    assert checked.recap[target.name]["changed"] == 1
    assert "+# Another template. What" in checked.output
    assert "would serve" in checked.output
    assert (serving(target), told(target)) == before


@pytest.fixture
def trixie(deployed: Deployed) -> Target:
    """The host with Debian 13; for tests with that mark."""
    return deployed.target


@pytest.fixture
def as_before(trixie: Target) -> Iterator[None]:
    """Whatever a test does: the release of before still serves, undisturbed, and nothing half-made stays."""
    before = serving(trixie), told(trixie), trixie.done("ls /opt/camdock/builds")
    yield
    assert (serving(trixie), told(trixie), trixie.done("ls /opt/camdock/builds")) == before
    assert len(set(pictures(trixie, token_of(trixie)))) > 1


@ON_TRIXIE
@pytest.mark.usefixtures("as_before")
def test_a_breaking_pin_stops_the_play_with_the_fix_before_any_switch(trixie: Target, tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    text = (project / "constraints.txt").read_text()
    pinned = re.sub(r"^opencv-python-headless==\S+", "opencv-python-headless==4.8.1.78", text, flags=re.MULTILINE)
    (project / "constraints.txt").write_text(pinned)
    failed = play(project / "ansible/deploy.yml", trixie, expect=2, deploy_extras=["opencv"], **GIVEN)
    assert "would break with the installed NumPy" in failed.output
    assert "opencv-python-headless 4.8.1.78" in failed.output
    assert "pip install" in failed.output  # the command that mends it
    assert "Make the release" not in failed.output


@ON_TRIXIE
@pytest.mark.usefixtures("as_before")
def test_a_disk_that_fills_while_unpacking_leaves_the_old_release_serving(trixie: Target) -> None:
    trixie.done("fallocate -l $(( $(df --output=avail -B1 /opt/camdock | tail -1) - 25000000 )) /opt/camdock/filler")
    try:
        refused = play("deploy.yml", trixie, expect=2, deploy_extras=SMALL, **GIVEN)
        assert "MB are needed" in refused.output
        assert refused.recap[trixie.name]["changed"] == 0
        failed = play("deploy.yml", trixie, expect=2, deploy_extras=SMALL, deploy_free_mb=1, **GIVEN)
        assert "The disk was full when it came to install" in failed.output
    finally:
        trixie.done("rm /opt/camdock/filler")


@ON_TRIXIE
def test_a_play_that_is_killed_while_it_builds_disturbs_nobody_and_the_next_run_converges(trixie: Target) -> None:
    before = serving(trixie), told(trixie)
    killed = Play("deploy.yml", trixie, deploy_extras=SMALL, **GIVEN)
    killed.until("TASK [deploy : Build it")
    killed.kill()
    assert (serving(trixie), told(trixie)) == before
    play("deploy.yml", trixie, deploy_extras=SMALL, **GIVEN)
    assert play("deploy.yml", trixie, deploy_extras=SMALL, **GIVEN).recap[trixie.name]["changed"] == 0
    builds = trixie.done("ls /opt/camdock/builds").split()
    assert len(builds) == 2
    for one in builds:
        trixie.done(f"test -s /opt/camdock/builds/{one}/complete")
    assert trixie.run(f"ls {' '.join(f'/opt/camdock/builds/{one}/source' for one in builds)}").stdout == ""
    assert told(trixie)["previous"] == before[1]["current"]


@ON_BOOKWORM
def test_debian_12_is_told_the_native_way_when_it_shall_run_a_container(deployed: Deployed) -> None:
    image = f"registry.example.org/camdock@sha256:{'0' * 64}"
    refused = play("deploy.yml", deployed.target, expect=2, **GIVEN, deploy_mode="container", deploy_image=image)
    assert "no Compose v2" in refused.output
    assert "deploy_mode: native" in refused.output
    assert refused.recap[deployed.target.name]["changed"] == 0
