"""tests/testbed/engine.sh and vm.sh where they cannot help: what they say then, and that they say it at once.

The docker and dockerd here do nothing but what the real ones do in that case: they complain and end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
DENIED = "permission denied while trying to connect to the Docker daemon socket"
STALE = "failed to start daemon: pid file found, ensure docker is not running or delete /var/run/docker.pid"

Said = Callable[[int], subprocess.CompletedProcess[str]]


@pytest.fixture
def said() -> Iterator[Said]:
    """said(uid): what the script comes to as that user, in a folder that everybody may read and write."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for script in ("tests/testbed/engine.sh", "docker/up.sh"):
            (place / script).parent.mkdir(parents=True)
            shutil.copy2(ROOT / script, place / script)
        programs = place / "bin"
        programs.mkdir()
        for program, words in (("docker", DENIED), ("dockerd", STALE), ("iptables", "")):
            (programs / program).write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
        for path in (place, *place.rglob("*")):
            path.chmod(0o777)

        def run(uid: int) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["bash", place / "tests/testbed/engine.sh"], user=uid if os.geteuid() == 0 else None,
                env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": name, "CAMDOCK_TEST_CACHE": f"{name}/cache"},
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip

        yield run


def test_who_may_not_use_the_engine_is_told_so_and_not_to_install_one(said: Said) -> None:
    done = said(NOBODY)
    assert done.returncode == 1
    assert "the Docker engine runs, and" in done.stderr
    assert "sudo usermod -aG docker" in done.stderr
    assert "apt install" not in done.stderr


def test_an_engine_that_ends_at_once_is_not_waited_for_and_its_words_are_shown(said: Said) -> None:
    if os.geteuid() != 0 or Path("/run/systemd/system").exists():
        pytest.skip("it starts an engine of its own only as root, and where systemd does not run")
    done = said(0)
    assert done.returncode == 1
    assert STALE in done.stderr
    assert "it was started and does not answer" in done.stderr


def test_another_processor_is_named_before_anything_is_made(tmp_path: Path) -> None:
    """linux32: `uname -m` answers i686 on x86-64, armv8l on aarch64."""
    done = subprocess.run(
        ["linux32", ROOT / "tests/testbed/vm.sh", "trixie"], env={**os.environ, "CAMDOCK_TEST_CACHE": str(tmp_path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "x86-64" in done.stderr
    assert list(tmp_path.iterdir()) == []
