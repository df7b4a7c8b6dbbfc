"""How fast: counted in processor time of a process of its own, so that other work on the machine does not matter."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abi.roots import Root, copied_root, remove_roots

PROJECT = Path(__file__).parents[2]
PROGRAM = r"""
import re, sys, time
from camdock.abi.check import check
files = 0
def count(number, path):
    global files
    files = number + 1
before = time.process_time()
report = check(sys.argv[1], progress=count)
took = time.process_time() - before
# not ru_maxrss: that one counts what the process that started this one had
print(files, took, int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) >> 10)
assert report.numpy is not None
assert not [one for one in report.modules if one.verdict != "ok"], report.modules
"""


def measured(target: str) -> tuple[float, float, float]:
    """Files that were read, seconds, MB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, target], check=True, capture_output=True, text=True)
    files, seconds, most = (float(word) for word in done.stdout.split())
    print(f"\n{files:.0f} files in {seconds:.2f} s of processor time: {files / seconds:.0f} files/s, {most:.0f} MB")
    return files, seconds, most


@pytest.mark.slow
def test_an_environment_is_read_at_more_than_150_files_a_second() -> None:
    files, seconds, most = measured(sys.prefix)
    assert files >= 60, "OpenCV and NumPy bring that many"
    assert seconds < 5
    assert files / seconds >= 150
    assert most < 300


@pytest.fixture
def trixie(tmp_path: Path) -> Iterator[Root]:
    try:
        yield copied_root("trixie", tmp_path)
    finally:
        remove_roots(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_files_of_a_service_image_are_read_at_more_than_150_a_second(trixie: Root) -> None:
    """A Debian root with Python, and in /opt/camdock everything that camdock[all] brings, at our pins."""
    root = trixie
    root.done("/usr/bin/python3", "-m", "venv", "/opt/camdock")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [line for name in ("service", "v4l2", "opencv", "relay") for line in wanted(project, name)]
    made = [*project["dependencies"], *extras]
    (root.path / "tmp/wanted.txt").write_text("\n".join(line for line in made if not line.startswith("camdock[")))
    (root.path / "tmp/constraints.txt").write_text((PROJECT / "constraints.txt").read_text())
    root.done(
        *("/opt/camdock/bin/pip", "install", "-q", "--only-binary=:all:"),
        *("-c", "/tmp/constraints.txt", "-r", "/tmp/wanted.txt"),
    )
    files, seconds, most = measured(os.fspath(root.path))
    assert files >= 60, "OpenCV and NumPy bring that many"
    assert seconds < 5
    assert files / seconds >= 150
    assert most < 300


def wanted(project: dict[str, dict[str, list[str]]], extra: str) -> list[str]:
    return project["optional-dependencies"].get(extra, [])
