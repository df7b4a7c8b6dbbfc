"""`camdock abi upgrade` with real wheels: from folders in which the newest set breaks, and from the index."""

import argparse
import re
import shutil
import zipfile

import pytest

from camdock.abi import plan, upgrade
from tests.abi.wheelhouse import fetched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LINUX = "manylinux_2_17_x86_64.manylinux2014_x86_64"
NUMPY_1, NUMPY_2 = f"numpy-1.26.4-cp311-cp311-{LINUX}.whl", f"numpy-2.2.0-cp311-cp311-{LINUX}.whl"
SIMPLEJPEG = f"simplejpeg-1.7.1-cp311-cp311-{LINUX}.whl", f"simplejpeg-1.7.2-cp311-cp311-{LINUX}.whl"


def run(name, *words):
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    plan.add_parser(subparsers)
    upgrade.add_parser(subparsers)
    arguments = parser.parse_args([name, *map(str, words)])
    return arguments.run(arguments)


@pytest.fixture
def wheels_of(tmp_path):
    """A folder with those wheels, copies that a test may change. One machine: test_plan.py has several."""

    def folder(*names):
        (tmp_path / "index").mkdir()
        for path in fetched(names).values():
            shutil.copy(path, tmp_path / "index")
        return tmp_path / "index"

    return folder


@pytest.fixture
def only(monkeypatch):
    """Makes a folder all that pip knows of."""

    def point(folder):
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    return point


@pytest.fixture
def move(tmp_path, only, capsys):
    """Upgrades those pins from a folder; the exit code, the file afterwards, and what was said."""

    def upgraded(python, folder, pins, wanted):
        only(folder)
        (tmp_path / "constraints.txt").write_bytes(pins.encode())
        (tmp_path / "wanted.in").write_text(wanted)
        code = run(
            "upgrade", tmp_path / "constraints.txt", "-r", tmp_path / "wanted.in", "--python", python,
            "--platform", "x86_64", "--cache", folder,  # they are there already
        )  # fmt: skip
        said = capsys.readouterr()
        return code, (tmp_path / "constraints.txt").read_bytes().decode(), said.out + said.err

    return upgraded


def test_numpy_is_held_where_the_newest_set_breaks(wheels_of, move):
    folder = wheels_of(NUMPY_1, NUMPY_2, *SIMPLEJPEG)
    pins = "# ours\nnumpy==1.26.4      # first\nsimplejpeg==1.7.1  # built for 1.x\n"
    code, text, said = move("3.11", folder, pins, "numpy\nsimplejpeg\n")
    assert code == 0, said
    assert text == pins.replace("1.7.1", "1.7.2")
    held = next(line for line in said.splitlines() if "newest 2.2.0" in line)
    assert re.search(
        r"numpy +1\.26\.4, newest 2\.2\.0: with NumPy 2\.2\.0, simplejpeg/\S+\.so of simplejpeg 1\.7\.2", held
    )


def without_requirements(path):
    """The same wheel, asking for nothing: some say too little of the NumPy they were compiled for."""
    with zipfile.ZipFile(path) as wheel:
        members = {info.filename: wheel.read(info) for info in wheel.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            if name.endswith(".dist-info/METADATA"):
                data = re.sub(rb"(?m)^Requires-Dist:.*\n", b"", data)
            wheel.writestr(name, data)


def test_a_package_is_held_where_its_own_new_release_breaks(wheels_of, move):
    folder = wheels_of(
        f"numpy-1.22.4-cp39-cp39-{LINUX}.whl",
        f"numexpr-2.8.4-cp39-cp39-{LINUX}.whl",
        "numexpr-2.10.1-cp39-cp39-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "Pillow-9.5.0-cp39-cp39-manylinux_2_28_x86_64.whl",
        "Pillow-10.1.0-cp39-cp39-manylinux_2_28_x86_64.whl",
    )
    for path in folder.glob("numexpr-2.10.1-*"):
        without_requirements(path)
    pins = "numpy==1.22.4\nnumexpr==2.8.4\npillow==9.5.0\n"
    code, text, said = move("3.9", folder, pins, "numpy\nnumexpr\npillow\n")
    assert code == 0, said
    assert text == pins.replace("9.5.0", "10.1.0")
    held = next(line for line in said.splitlines() if "newest 2.10.1" in line)
    assert re.search(
        r"numexpr +2\.8\.4, newest 2\.10\.1: with NumPy 1\.22\.4, numexpr/\S+\.so of numexpr 2\.10\.1", held
    )


def test_nothing_is_touched_where_nothing_is_clean(wheels_of, move):
    folder = wheels_of(NUMPY_2, *SIMPLEJPEG)
    pins = "numpy==2.2.0\r\nsimplejpeg==1.7.1 # no newline at the end"
    code, text, said = move("3.11", folder, pins, "numpy\nsimplejpeg\n")
    assert code == 1
    assert text == pins
    assert "untouched" in said
    assert "simplejpeg 1.7.1: breaks" in said


def test_a_stale_file_moves_to_what_the_index_has_and_is_clean_then(tmp_path, capsys):
    constraints, wanted = tmp_path / "constraints.txt", tmp_path / "wanted.in"
    constraints.write_text("# ours\nnumpy==2.0.0       # first\nsimplejpeg==1.8.0  # pixels\npillow==10.4.0\n")
    wanted.write_text("numpy\nsimplejpeg\npillow<12\n")
    words = [constraints, "-r", wanted, "--python", "3.11,3.13", "--platform", "aarch64", "--cache", tmp_path / "cache"]
    assert run("upgrade", *words) == 0
    said = capsys.readouterr().out
    moved = re.fullmatch(
        r"# ours\nnumpy==(\S+) +# first\nsimplejpeg==(\S+) +# pixels\npillow==11\.\S+\n", constraints.read_text()
    )
    assert moved, constraints.read_text()
    assert moved[1] not in ("2.0.0", "")
    assert moved[2] != "1.8.0"
    assert re.search(r"pillow +11\S+, newest \S+: wanted\.in asks for pillow<12", said)
    # NumPy 2.5 has left CPython 3.11: one version serves both, and it is said why there is no newer one.
    assert re.search(r"numpy +\S+, newest \S+: there is no wheel of \S+ for cp311 aarch64", said)
    assert run("plan", *words) == 0
