"""`pip install camdock` without any extra: `camdock abi`, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import camdock

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command to its end, outside the sources, without this environment's pins and paths."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CAMDOCK_", "PIP_CONSTRAINT", "PYTHONPATH"))}
    return subprocess.run(
        command, cwd=folder, env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment in which a wheel of this project was installed with no extra."""
    folder = tmp_path_factory.mktemp("base")
    sources = folder / "sources"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        sources.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "service", sources / "service", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    bin_folder = folder / "venv" / "bin"
    for command in (
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sources],
        [sys.executable, "-m", "venv", folder / "venv"],
    ):
        answer = run(*command, folder=folder)
        assert answer.returncode == 0, answer.stderr
    wheel = next(folder.glob("camdock-*.whl"))
    answer = run(bin_folder / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, folder=folder)
    assert answer.returncode == 0, answer.stderr
    return bin_folder


@pytest.mark.slow
def test_the_base_install_is_the_abi_tool_and_three_libraries(bare: Path, tmp_path: Path) -> None:
    listed = json.loads(run(bare / "pip", "list", "--format", "json", folder=tmp_path).stdout)
    there = {re.sub(r"[-_.]+", "-", one["name"]).lower() for one in listed}
    assert there - {"pip", "setuptools"} == {"camdock", "pyelftools", "capstone", "packaging"}
    for command in ([bare / "camdock", "abi"], [bare / "python", "-m", "camdock", "abi"],
                    [bare / "python", "-m", "camdock.abi"]):  # fmt: skip
        answer = run(*command, "--help", folder=tmp_path)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "camdock abi check" in answer.stdout
    answer = run(bare / "camdock", "abi", "check", "--json", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {"numpy": None, "modules": [], "findings": []}
    assert run(bare / "camdock", "--version", folder=tmp_path).stdout == f"camdock {camdock.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["synthetic:"], ["--help"]])
def test_without_the_service_one_sentence_says_what_to_install(
    bare: Path, tmp_path: Path, arguments: list[str]
) -> None:
    answer = run(bare / "camdock", *arguments, folder=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert len(answer.stderr.splitlines()) == 1
    assert "pip install 'camdock[service]'" in answer.stderr
    assert "camdock abi --help" in answer.stderr


@pytest.mark.slow
def test_the_doctor_says_what_is_not_installed_and_looks_at_the_rest(bare: Path, tmp_path: Path) -> None:
    answer = run(bare / "camdock", "doctor", "--json", folder=tmp_path)
    assert answer.returncode == 1, answer.stderr
    found = {one["name"]: one for one in json.loads(answer.stdout)["checks"]}
    assert "the camera service is not installed" in found["configuration"]["what"]
    assert "pip install 'camdock[service]'" in found["configuration"]["hint"]
    assert found["backend.v4l2"]["what"].startswith("not installed")
    assert {found[name]["status"] for name in ("user", "versions", "backend.v4l2", "backend.relay")} == {"ok"}
    assert found["abi"]["what"] == "NumPy is not installed"


def test_the_base_is_no_part_of_the_service_and_every_source_brings_the_service() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {re.split(r"[<>=;\s]", line)[0] for line in PROJECT["dependencies"]} == {
        "pyelftools", "capstone", "packaging"
    }  # fmt: skip
    # A client runs where no service is.
    for name in set(extras) - {"service", "client", "all", "test", "lint", "fuzz", "image", "deploy"}:
        assert "camdock[service]" in extras[name], name
