"""The workflows beside the project: what they call exists here, on every Python we promise, and with few rights.

Their form is actionlint's to judge (`make lint`).
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.name: path.read_text("utf-8") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}


@functools.cache
def jobs(name: str) -> dict[str, dict[str, Any]]:
    """Every job of a workflow by its name; nobody changes them."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOWS[name])["jobs"]
    return found


def test_they_are_the_three() -> None:
    assert list(WORKFLOWS) == ["ci.yml", "pins.yml", "release.yml"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_make_target_that_is_called_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    called = set(re.findall(r"\bmake ([a-z]+)\b(?=.*PYTHON=)", WORKFLOWS[name]))
    there = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert called <= there, f"{name} calls make {', '.join(sorted(called - there))}"
    assert called or name == "release.yml"


def test_the_tests_run_on_every_python_and_machine_that_we_promise() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    promised = [c.rpartition(" ")[2] for c in project["classifiers"] if c.startswith("Programming Language :: Python")]
    matrix = jobs("ci.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert matrix["machine"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]


def test_what_is_published_is_what_was_tested() -> None:
    matrix = jobs("release.yml")["build"]["strategy"]["matrix"]
    tested = jobs("ci.yml")["image"]["strategy"]["matrix"]["image"]
    assert matrix["variant"] == jobs("release.yml")["publish"]["strategy"]["matrix"]["variant"] == tested
    files = {entry["variant"]: (entry["file"], entry["pins"]) for entry in matrix["include"] if "variant" in entry}
    assert list(files) == tested
    for file, pins in files.values():
        text = (ROOT / file).read_text("utf-8")
        assert re.search(r"^ARG PINS\b", text, re.MULTILINE), f"{file} takes no PINS"
        assert re.search(r"^ARG REVISION\b", text, re.MULTILINE), f"{file} takes no REVISION"
        assert (ROOT / ("constraints.txt" if pins == "current" else f"docker/pins/{pins}.txt")).is_file()
    assert set(jobs("release.yml")["build"]["needs"]) == {"version", "ci"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_may_read_and_what_it_may_more_stands_with_it(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name])
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    more = {
        job: set(found["permissions"]) - {"contents"} for job, found in jobs(name).items() if "permissions" in found
    }
    publishing = {"build": {"packages"}, "publish": {"packages", "id-token", "attestations"}}
    assert more == (publishing if name == "release.yml" else {})


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_job_can_hang_for_six_hours(name: str) -> None:
    # GitHub's default timeout; a job that calls a workflow has the timeouts of the other's jobs.
    endless = [job for job, found in jobs(name).items() if "timeout-minutes" not in found and "uses" not in found]
    assert not endless


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_named_by_a_released_major(name: str) -> None:
    used = re.findall(r"uses: (\S+)", WORKFLOWS[name])
    assert used
    for action in used:
        assert re.fullmatch(r"(actions|docker)/[a-z-]+@v\d+|\./\.github/workflows/ci\.yml", action), action
