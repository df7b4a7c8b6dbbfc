"""What breaks with which NumPy, predicted by reading, then seen in a real virtual environment, explained and mended.

Each recipe runs in a Debian root: bookworm has CPython 3.11, bullseye 3.9.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from camdock.abi.check import Module, Report, check
from tests.abi.roots import Root, copied_root, remove_roots

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NOT_CLEAN = ("breaks", "breaks-on-use", "hazard")


@dataclass(frozen=True)
class Recipe:
    """An environment that breaks, and how.

    says      what the failing import prints; `dies`: the signal that ends it
    breaking  the modules that check must say break on import; `rule`: by which rule
    culprit   what explain must name
    """

    root: str
    packages: tuple[str, ...]
    imports: str
    says: str
    breaking: frozenset[str]
    rule: str
    culprit: str
    package: str
    dies: int = 0


RECIPES = {
    "simplejpeg": Recipe(
        "bookworm",
        ("numpy==2.2.0", "simplejpeg==1.7.2"),
        "simplejpeg",
        "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88",
        frozenset({"simplejpeg._jpeg"}),
        "built-for-1",
        "simplejpeg._jpeg",
        "simplejpeg 1.7.2",
    ),
    "opencv": Recipe(
        "bookworm",
        ("numpy==2.3.1", "opencv-python-headless==4.8.1.78"),
        "cv2",
        "_ARRAY_API not found",
        frozenset({"cv2.cv2"}),
        "built-for-1",
        "cv2.cv2",
        "opencv-python-headless 4.8.1.78",
    ),
    "fast-histogram": Recipe(
        "bookworm",
        ("numpy==2.2.0", "fast-histogram==0.11"),
        "fast_histogram",
        "compiled against ABI version 0x1000009 but this version of numpy is 0x2000000",
        frozenset({"fast_histogram._histogram_core"}),
        "built-for-1",
        "fast_histogram._histogram_core",
        "fast-histogram 0.11",
    ),
    "numexpr": Recipe(
        "bullseye",
        ("numpy==1.22.4", "numexpr==2.10.1"),
        "numexpr",
        "C-API version 0x10 (NumPy 1.23) but the running NumPy has C-API version 0xf",
        frozenset({"numexpr.interpreter"}),
        "numpy-too-old",
        "numexpr.interpreter",
        "numexpr 2.10.1",
    ),
    "soxr": Recipe(
        "bullseye",
        ("numpy==2.0.2", "soxr==0.2.7"),
        "soxr",
        "A module that was compiled using NumPy 1.x cannot be run in",
        frozenset({"soxr.cysoxr"}),
        "built-for-1",
        "soxr.cysoxr",
        "soxr 0.2.7",
        dies=signal.SIGSEGV,
    ),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Root]]:
    place = tmp_path_factory.mktemp("roots")
    roots: dict[str, Root] = {}

    class Copied(dict[str, Root]):
        def __missing__(self, name: str) -> Root:
            self[name] = copied_root(name, place)
            return self[name]

    roots = Copied()
    yield roots
    remove_roots(place)


def made_environment(root: Root, name: str, packages: tuple[str, ...], *options: str) -> str:
    """A virtual environment inside; its path there. Installed as the recipes say: without dependencies."""
    venv = f"/venvs/{name}"
    root.done("python3", "-m", "venv", *options, venv)
    root.done(f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", *packages)
    return venv


def imported(root: Root, venv: str, name: str) -> subprocess.CompletedProcess[str]:
    return root.run(f"{venv}/bin/python", "-c", f"import {name}", timeout_s=120)


def explained(text: str, environment: str) -> list[dict[str, str]]:
    """What the command makes of a text that is piped into it."""
    ended = subprocess.run(
        [sys.executable, "-m", "camdock.abi", "explain", "--json", "--env", environment],
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, str]] = json.loads(ended.stdout)["explanations"]
    return found


def broken(report: Report, top: str = "") -> list[Module]:
    return [one for one in report.modules if one.verdict in NOT_CLEAN and one.module.split(".")[0].startswith(top)]


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_predicted_happens_is_explained_and_mended(name: str, roots: dict[str, Root]) -> None:
    recipe = RECIPES[name]
    root = roots[recipe.root]
    venv = made_environment(root, name, recipe.packages)
    outside = root.outside(venv)

    predicted = check(outside)
    assert {one.module for one in broken(predicted)} == recipe.breaking
    assert {(one.verdict, one.rule, one.package) for one in broken(predicted)} == {
        ("breaks", recipe.rule, recipe.package)
    }

    failed = imported(root, venv, recipe.imports)
    assert failed.returncode == (-recipe.dies if recipe.dies else 1)
    assert recipe.says in failed.stdout

    (explanation,) = explained(failed.stdout, outside)
    assert (explanation["culprit"], explanation["package"]) == (recipe.culprit, recipe.package)
    assert explanation["rule"] == recipe.rule
    assert explanation["fix"] == broken(predicted)[0].fix

    root.done("/bin/sh", "-c", root.to_type(explanation["fix"]))
    assert imported(root, venv, recipe.imports).returncode == 0
    assert broken(check(outside)) == []


def test_apts_modules_under_a_newer_numpy_of_pip_are_found_named_and_mended(roots: dict[str, Root]) -> None:
    root = roots["bookworm"]
    venv = made_environment(root, "debian", ("numpy==2.2.0",), "--system-site-packages")
    apt = Path(root.outside("/usr/lib/python3/dist-packages"))
    before = {file: file.stat().st_mtime_ns for file in apt.rglob("*.so")}
    bottleneck = {f"bottleneck.{name}" for name in ("move", "nonreduce", "nonreduce_axis", "reduce")}

    # The whole root, as a file system that came from elsewhere: nothing of it runs here.
    predicted = broken(check(str(root.path)))
    of_bottleneck = [one for one in predicted if one.module.startswith("bottleneck.")]
    of_h5py = [one for one in predicted if one.module.startswith("h5py.")]
    assert {one.module for one in of_bottleneck} == bottleneck
    assert {"_errors", "defs", "h5", "h5d", "h5t"} <= {one.module.rpartition(".")[2] for one in of_h5py}
    assert all(one.package.startswith("python3-bottleneck 1.3.5") and "dpkg" in one.package for one in of_bottleneck)
    assert all(one.package.startswith("python3-h5py-serial 3.7.0") and "dpkg" in one.package for one in of_h5py)
    assert {one.verdict for one in of_bottleneck + of_h5py} == {"breaks"}
    assert {one.rule for one in of_bottleneck + of_h5py} == {"built-for-1"}

    for name, says, culprit in (
        ("bottleneck", "_ARRAY_API not found", "bottleneck.move"),
        ("h5py", "numpy.dtype size changed", "h5py._debian_h5py_serial._errors"),
    ):
        # Without the virtual environment they are apt's own, and all right.
        assert root.run("python3", "-c", f"import {name}").returncode == 0
        failed = imported(root, venv, name)
        assert failed.returncode == 1
        assert says in failed.stdout
        (explanation,) = explained(failed.stdout, str(root.path))
        assert explanation["culprit"] == culprit
        assert "dpkg" in explanation["package"]
        root.done("/bin/sh", "-c", root.to_type(explanation["fix"]))
        assert imported(root, venv, name).returncode == 0

    assert [one for one in broken(check(str(root.path))) if one.module.startswith(("bottleneck.", "h5py."))] == []
    assert root.done(f"{venv}/bin/python", "-c", "import numpy; print(numpy.__version__)").strip() == "2.2.0"
    assert {file: file.stat().st_mtime_ns for file in apt.rglob("*.so")} == before, "apt's copy was touched"


def test_the_virtual_environment_inside_a_root_is_judged_with_what_it_sees_of_the_system(
    roots: dict[str, Root],
) -> None:
    root = roots["bookworm"]
    venv = made_environment(root, "seen", ("numpy==2.2.0",), "--system-site-packages")
    packages = {one.package.split()[0] for one in broken(check(root.outside(venv)))}
    assert packages == {"python3-bottleneck", "python3-h5py-serial"}
    closed = made_environment(root, "closed", ("numpy==2.2.0",))
    assert broken(check(root.outside(closed))) == []
