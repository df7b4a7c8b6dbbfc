"""Wheels by their file names, fetched once with pip and kept."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import parse_wheel_filename

KEPT = Path(os.environ.get("CAMDOCK_TEST_CACHE") or Path.home() / ".cache" / "camdock") / "wheels"


def fetched(names: Collection[str]) -> dict[str, Path]:
    """Where those wheels are, all of them. pip fetches what is not there yet: many packages at a time, since starting
    pip takes longer than a small wheel does; one version of each, since it takes no two of the same."""
    KEPT.mkdir(parents=True, exist_ok=True)
    missing = [name for name in sorted(names) if not (KEPT / name).exists()]
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(_together, _rounds(missing)):
            for name in again:  # the index has several files for a version, and pip preferred another one
                _download([name], _tags(name)[2][-1:])
    absent = [name for name in names if not (KEPT / name).exists()]
    assert not absent, f"the package index does not give: {' '.join(absent)}"
    return {name: KEPT / name for name in names}


def _tags(name: str) -> tuple[str, str, list[str]]:
    """Python, ABI and platforms of a wheel, as its file's name says."""
    python, abi, platforms = name.removesuffix(".whl").split("-")[-3:]
    return python, abi, platforms.split(".")


def _rounds(names: Iterable[str]) -> list[list[str]]:
    rounds: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    count: dict[tuple[str, str, str], int] = defaultdict(int)
    for name in names:
        package = parse_wheel_filename(name)[0]
        python, abi, platforms = _tags(name)
        python = "cp311" if abi == "abi3" else python
        machine = "aarch64" if platforms[0].endswith("aarch64") else "x86_64"
        rounds[python, machine, count[package, python, machine]].append(name)
        count[package, python, machine] += 1
    return list(rounds.values())


def _together(names: list[str]) -> list[str]:
    """Fetches one wheel of each package; returns those it did not get."""
    platforms = sorted({platform for name in names for platform in _tags(name)[2]})
    _download(names, platforms)
    return [name for name in names if not (KEPT / name).exists()]


def _download(names: list[str], platforms: list[str]) -> None:
    pythons = {_tags(name)[0] for name in names if _tags(name)[1] != "abi3"} or {"cp311"}
    (python,) = pythons
    abis = sorted({_tags(name)[1] for name in names} | {"abi3"})
    options = [f"--abi={abi}" for abi in abis] + [f"--platform={platform}" for platform in platforms]
    pins = ["{}=={}".format(*parse_wheel_filename(name)[:2]) for name in names]
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:", "--dest", str(KEPT)]
    command += ["--implementation=cp", f"--python-version={python[2]}.{python[3:]}", *options, *pins]
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
