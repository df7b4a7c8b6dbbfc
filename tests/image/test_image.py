"""What is in every image: versions and files as pinned, one user without rights, and nothing that need not be there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from testinfra.host import Host

import camdock
from tests.image.conftest import Image
from tests.tools.containers import Container, docker, inspect, variables

COMPILED = {"numpy": "numpy", "opencv-python-headless": "cv2", "simplejpeg": "simplejpeg", "pillow": "PIL"}
VENV = "/opt/camdock/venv"

DISTRIBUTIONS = """
import importlib.metadata as metadata, json, re
found = [(re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(), one.version) for one in metadata.distributions()]
assert len(found) == len(set(found)), "two copies"
print(json.dumps(dict(found)))
"""

# As root, on the whole file system of the image: what a walk finds that nobody should, by what it is.
WALK = """
import collections, importlib.util, json, os, stat
CACHES = ("/root/.cache/", "/var/lib/camdock/", "/var/lib/apt/lists/", "/var/cache/", "/var/log/", "/tmp/", "/var/tmp/")
found = collections.defaultdict(list)
for folder, below, names in os.walk("/"):
    below[:] = [one for one in below if not os.path.ismount(os.path.join(folder, one))]
    for name in [*names, *below]:
        path = os.path.join(folder, name)
        try:
            info = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISLNK(info.st_mode) or os.path.ismount(path):
            continue
        if stat.S_ISREG(info.st_mode) and info.st_mode & 0o6000:
            found["raises"].append(path)
        if "security.capability" in os.listxattr(path):
            found["raises"].append(path)
        if info.st_mode & 0o002 or info.st_uid in (10001, 12345) or info.st_gid == 10001 and info.st_mode & 0o020:
            found["writable"].append(path)
        if info.st_uid not in (0, 10001):
            found["strange"].append(path)
        if stat.S_ISREG(info.st_mode) and path.startswith(CACHES):
            found["left"].append(path)
        if path.endswith(".py") and "/site-packages/" in path:
            compiled = os.path.exists(importlib.util.cache_from_source(path))
            found["compiled" if compiled else "slow"].append(path)
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
            found["special"].append(path)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def walked(image: Image) -> dict[str, list[str]]:
    """What is on the file system, as root sees it."""
    with Container(image.tag, "--user", "0", CAMDOCK_AUTH="off", CAMDOCK_SOURCE="synthetic:") as container:
        found: dict[str, list[str]] = container.python(WALK, user="0")
    return found


def pins_of(image: Image) -> dict[str, str]:
    """Version by name."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", image.constraints.read_text(), re.MULTILINE)
    return {name.lower(): version for name, version in lines}


# --- the NumPy ABI ----------------------------------------------------------------------------------------------------


def judged(text: str, image: Image) -> dict[str, list[dict[str, Any]]]:
    """The modules of an answer by package; every one has to fit."""
    answer = json.loads(text)
    assert answer["numpy"] == pins_of(image)["numpy"]
    assert answer["findings"] == []
    assert {one["verdict"] for one in answer["modules"]} == {"ok"}
    found: dict[str, list[dict[str, Any]]] = {}
    for one in answer["modules"]:
        found.setdefault(one["package"].lower(), []).append(one)
    for name in COMPILED:
        assert f"{name} {pins_of(image)[name]}" in found, f"nothing was judged of {name}"
    return found


def test_everything_compiled_fits_by_reading_from_inside_and_from_outside(image: Image, service: Container) -> None:
    within = judged(service.run("camdock", "abi", "check", "--strict", "--json").stdout, image)
    looked = subprocess.run(
        [sys.executable, "-m", "camdock.abi", "check", "--strict", "--json", image.tag],
        check=True, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    without = judged(looked.stdout, image)
    # What Debian lends the environment has no owner there; from outside dpkg's list names it.
    lent = within.pop("", [])
    assert [one["module"] for one in lent] == (["libcamera._libcamera"] if image.has_libcamera else [])
    assert {package: len(modules) for package, modules in within.items()}.items() <= {
        package: len(modules) for package, modules in without.items()
    }.items()


def test_everything_compiled_is_as_pinned_by_importing(image: Image, service: Container) -> None:
    script = f"""
import importlib, json, warnings
warnings.simplefilter("error")
print(json.dumps({{
    name: [(module := importlib.import_module(name)).__version__, module.__file__] for name in {list(COMPILED.values())}
}}))
"""
    loaded = service.python(script)
    for name, module in COMPILED.items():
        version, file = loaded[module]
        pinned = pins_of(image)[name]
        assert pinned in (version, f"{version}.{pinned.rpartition('.')[2]}"), "cv2 leaves the build's number out"
        assert re.fullmatch(rf"{VENV}/lib/python3\.\d+/site-packages/{module}/__init__\.py", file)


@pytest.mark.parametrize("python", ["python", "python3"])
@pytest.mark.parametrize("words", [(), ("-W", "error")], ids=["as-it-is", "warnings-are-errors"])
def test_cv2_and_numpy_import_in_a_bare_run_without_a_word_on_stderr(
    image: Image, python: str, words: tuple[str, ...]
) -> None:
    done = docker(
        "run", "--rm", image.tag, python, *words, "-c", "import cv2, numpy; print(cv2.__version__, numpy.__version__)"
    )
    opencv = pins_of(image)["opencv-python-headless"].rpartition(".")[0]
    assert done.stdout == f"{opencv} {pins_of(image)['numpy']}\n"
    assert done.stderr == ""


def test_every_distribution_is_the_pinned_one_and_the_pins_are_in_the_image(
    image: Image, service: Container, host: Host
) -> None:
    environment = variables(image.about)
    assert environment["PIP_CONSTRAINT"] == "/opt/camdock/constraints.txt"
    assert host.file(environment["PIP_CONSTRAINT"]).content_string == image.constraints.read_text()
    found = service.python(DISTRIBUTIONS)
    assert found.pop("camdock") == camdock.__version__
    found.pop("pip", None)  # of the environment itself
    assert set(COMPILED) <= set(found)
    assert found.items() <= pins_of(image).items()


def test_the_environments_python_is_the_one_on_the_path(host: Host) -> None:
    for name in ("python", "python3", "camdock"):
        assert host.check_output("command -v %s", name) == f"{VENV}/bin/{name}"
    assert host.check_output("python -c 'import sys; print(sys.prefix)'") == VENV


def test_the_libraries_were_judged_when_it_was_built_and_are_not_again(service: Container) -> None:
    assert service.get("/health").json()["abi"] == "ok"
    assert ", sealed (" in service.log
    assert not [words for *_, words in service.processes() if "camdock.abi" in words]


# --- the user, and what it may ----------------------------------------------------------------------------------------


def test_the_user_has_a_number_and_no_rights(image: Image, host: Host) -> None:
    assert image.about["Config"]["User"] == "10001:10001", "Kubernetes' runAsNonRoot understands numbers alone"
    user = host.user()
    assert (user.uid, user.gid, user.groups, user.shell) == (10001, 10001, ["camdock"], "/usr/sbin/nologin")
    status = dict(re.findall(r"^(\w+):\s*(.*)$", host.file("/proc/1/status").content_string, re.MULTILINE))
    assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
    assert [status[name] for name in ("CapEff", "CapPrm", "CapAmb")] == ["0" * 16] * 3


def test_no_file_raises_the_rights_of_who_runs_it(walked: dict[str, list[str]]) -> None:
    assert "raises" not in walked


def test_the_user_can_write_nothing_but_its_own_state(walked: dict[str, list[str]]) -> None:
    state = {"/var/lib/camdock", "/var/lib/camdock/settings", "/var/lib/camdock/captures"}
    assert set(walked["writable"]) == state | {"/tmp", "/var/tmp", "/run/lock"}
    assert set(walked.get("strange", [])) <= {"/var/cache/apt/archives/partial"}, "apt's own user"
    assert walked.get("special", []) == []


def test_nothing_that_compiles_and_no_cache_is_left(host: Host, walked: dict[str, list[str]]) -> None:
    for name in ("cc", "gcc", "g++", "c++", "clang", "tcc", "as", "ld", "make", "cmake", "cargo", "rustc", "go"):
        assert not host.exists(name), name
    assert not host.file("/usr/include/stdio.h").exists
    debian = {f"/var/cache/debconf/{name}.dat" for name in ("config", "passwords", "templates")}
    assert set(walked["left"]) <= debian | {"/var/cache/apt/archives/lock"}


def test_what_it_adds_to_its_base_is_no_more_than_promised(image: Image) -> None:
    """Unpacked. What an image should not carry shows here, wherever it is."""
    most_mb = {"current": 370, "optimized": 250, "numpy1": 415, "picamera2": 520}
    base = inspect(image.about["Config"]["Labels"]["org.opencontainers.image.base.name"])
    added_mb = (image.about["Size"] - base["Size"]) / 1e6
    assert added_mb <= most_mb[image.name]


def test_every_module_is_byte_compiled_once(walked: dict[str, list[str]]) -> None:
    """The file systems are read-only: what is not compiled here is compiled at every start."""
    assert "slow" not in walked
    assert walked["compiled"]


# --- what it says about itself ----------------------------------------------------------------------------------------


def test_the_labels_say_what_it_is(image: Image, revision: str) -> None:
    labels = image.about["Config"]["Labels"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert said["version"] == camdock.__version__
    assert said["revision"] == revision, "built from something else: make image"
    assert said["title"] == "Camdock"
    assert said["licenses"] == "MIT"
    assert said["description"]
    assert said["base.name"] == f"debian:{'bookworm' if image.pins == 'numpy1' else 'trixie'}-slim"


def test_version_json_says_the_same(image: Image, host: Host, revision: str) -> None:
    said = json.loads(host.file("/opt/camdock/version.json").content_string)
    pins = pins_of(image)
    assert said == {
        "camdock": camdock.__version__,
        "revision": revision,
        "pins": image.pins,
        "python": host.check_output("python -c 'import platform; print(platform.python_version())'"),
        "libraries": {name: pins[name] for name in COMPILED},
    }
    assert said["python"].startswith("3.11." if image.pins == "numpy1" else "3.13.")


def cyclonedx() -> jsonschema_rs.Draft7Validator:
    """CycloneDX 1.6, from the schemas that its library carries; nothing is fetched."""
    folder = Path(str(files("cyclonedx.schema"))) / "_res"
    texts = {
        name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())
        for name in ("bom-1.6", "spdx", "jsf-0.82")
    }
    registry = jsonschema_rs.Registry(
        [(f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", text) for name, text in texts.items()]
    )
    return jsonschema_rs.Draft7Validator(texts["bom-1.6"], registry=registry, validate_formats=True)


def test_the_bill_of_materials_keeps_the_schema_and_lists_exactly_what_is_there(
    image: Image, service: Container, host: Host
) -> None:
    bill = json.loads(host.file("/opt/camdock/sbom.cdx.json").content_string)
    validator = cyclonedx()
    assert [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(bill)] == []
    assert not validator.is_valid({**bill, "components": [{"name": "no type"}]}), "the schema is one"
    assert not validator.is_valid({**bill, "serialNumber": "mine"})

    listed = sorted((one["purl"].partition("/")[0], one["name"], one["version"]) for one in bill["components"])
    python = [("pkg:pypi", name, version) for name, version in service.python(DISTRIBUTIONS).items()]
    packages = host.check_output("dpkg-query --show --showformat '${db:Status-Abbrev}\\t${Package}\\t${Version}\\n'")
    debian = [("pkg:deb", *line.split("\t")[1:]) for line in packages.splitlines() if line.startswith("ii")]
    assert listed == sorted([*python, *debian])
    assert len({one["bom-ref"] for one in bill["components"]}) == len(listed)
    assert bill["metadata"]["component"]["version"] == camdock.__version__
    assert "timestamp" not in bill["metadata"], "two builds of one commit are the same"
