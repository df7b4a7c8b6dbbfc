"""`camdock abi plan` and `upgrade` with pip itself, on an index that is a folder of small wheels."""

import argparse
import json
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

from camdock.abi import plan, upgrade, wheels
from camdock.abi.wheels import PipFailed, Platform, fetch, resolve

# pip starts in half a second of CPU time, and a plan asks it once for each platform, an upgrade several times.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

X86, ARM = Platform("3.11", "x86_64"), Platform("3.11", "aarch64")


def wheel(folder, name, version, *requires, tag="py3-none-any", python=""):
    """A wheel without a compiled module."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    metadata += f"Requires-Python: {python}\n" if python else ""
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/__init__.py", "")
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all pip knows of."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "somebody-elses.txt"))  # `make` exports ours
    wheel(folder, "numpy", "2.2.0")
    return folder


@pytest.fixture
def command(tmp_path, capsys):
    """Runs a command in two platforms' worth of arguments; its exit code, stdout and stderr."""

    def run(name, *words, pins, wanted=None):
        (tmp_path / "constraints.txt").write_text(pins)
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers()
        plan.add_parser(subparsers)
        upgrade.add_parser(subparsers)
        line = [name, str(tmp_path / "constraints.txt"), "--cache", str(tmp_path / "cache"), "--python", "3.11"]
        if wanted is not None:
            (tmp_path / "wanted.in").write_text(wanted)
            line += ["-r", str(tmp_path / "wanted.in")]
        arguments = parser.parse_args([*line, *words])
        code = arguments.run(arguments)
        return code, *capsys.readouterr()

    return run


# ------------------------------------------------------------------------------------------------------ choosing


def test_the_python_that_counts_is_the_platforms_and_not_the_one_that_runs(index):
    wheel(index, "app", "1.0")
    wheel(index, "app", "2.0", python=">=3.11,<3.13")
    wheel(index, "app", "3.0", python=">=3.13")
    found = {python: resolve(Platform(python, "x86_64"), ["app"])["app"].version for python in ("3.10", "3.12", "3.13")}
    assert found == {"3.10": "1.0", "3.12": "2.0", "3.13": "3.0"}


def test_markers_are_those_of_the_platform_and_not_of_this_machine(index):
    wheel(index, "app", "1.0", "arm_only; platform_machine == 'aarch64'", "new_only; python_version >= '3.13'")
    wheel(index, "arm_only", "1.0")
    wheel(index, "new_only", "1.0")
    assert resolve(X86, ["app"]).keys() == {"app"}
    assert resolve(ARM, ["app"]).keys() == {"app", "arm-only"}
    assert resolve(Platform("3.13", "aarch64"), ["app"]).keys() == {"app", "arm-only", "new-only"}


def test_tags_are_those_of_the_platform(index):
    wheel(index, "app", "1.0", tag="cp311-cp311-manylinux2014_x86_64")
    wheel(index, "app", "2.0", tag="cp39-abi3-manylinux_2_36_aarch64")
    wheel(index, "app", "3.0", tag="cp311-cp311-manylinux_2_37_aarch64")
    wheel(index, "app", "4.0", tag="cp312-cp312-manylinux2014_x86_64")
    assert resolve(X86, ["app"])["app"].version == "1.0"
    assert resolve(ARM, ["app"])["app"].version == "2.0"
    assert resolve(Platform("3.11", "aarch64", 41), ["app"])["app"].version == "3.0"
    assert resolve(Platform("3.12", "x86_64"), ["app"])["app"].version == "4.0"


def test_a_conflict_is_told_in_pips_words(index):
    wheel(index, "app", "1.0", "numpy<2")
    with pytest.raises(PipFailed, match=r"app 1\.0 depends on numpy<2"):
        resolve(X86, ["app"], ["numpy==2.2.0"])
    with pytest.raises(PipFailed) as failed:
        resolve(X86, ["absent==1.0"])
    assert failed.value.missing == "absent==1.0"
    wheel(index, "odd", "1.0", "thing @ git+file:///srv/thing")  # pip's own parser falls over this one
    with pytest.raises(PipFailed, match="thing"):
        resolve(X86, ["odd"])


def test_what_is_built_from_source_is_taken_as_there(index):
    wheel(index, "app", "1.0", "only_source>=1")
    found = resolve(X86, ["app"], from_source={"only-source": "1.8.1"})
    assert found["only-source"].built
    assert found["only-source"].version == "1.8.1"


def test_a_wheel_in_the_cache_is_whole_or_fetched_again(index, tmp_path):
    cache = tmp_path / "cache"
    wheels = resolve(X86, ["numpy"])
    said = []
    assert fetch({X86: list(wheels.values())}, cache, said.append) == {}
    file = cache / "numpy-2.2.0-py3-none-any.whl"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert fetch({X86: list(wheels.values())}, cache, said.append) == {}
    assert file.read_bytes() == whole
    assert [path.name for path in cache.iterdir()] == [file.name]
    assert any("fetched again" in line for line in said)
    assert fetch({X86: list(wheels.values())}, cache, pytest.fail) == {}


def test_a_wheel_that_the_index_lost_is_named(index, tmp_path):
    gone = wheel(index, "app", "1.0")
    wheels = resolve(X86, ["app"])
    gone.unlink()
    failed = fetch({X86: list(wheels.values())}, tmp_path / "cache", lambda _: None)
    assert failed[X86, "app"] == "no wheel of app==1.0 fits"
    assert list((tmp_path / "cache").iterdir()) == []


SETUP = "open({trace!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='evil', version='1.0')\n"


@pytest.mark.parametrize("kind", ["folder", "archive", "repository"])
def test_no_code_runs_of_a_source_that_a_wheel_asks_for_by_its_address(index, tmp_path, kind):
    trace, source = tmp_path / "it-ran", tmp_path / "evil-1.0"
    source.mkdir()
    (source / "setup.py").write_text(SETUP.format(trace=str(trace)))
    address = f"file://{source}"
    if kind == "archive":
        with tarfile.open(tmp_path / "evil-1.0.tar.gz", "w:gz") as archive:
            archive.add(source, "evil-1.0")
        address += ".tar.gz"
    elif kind == "repository":
        git = ["git", "-C", source, "-c", "user.name=a", "-c", "user.email=a@example.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
            subprocess.run([*git, *words], check=True)
        address = f"git+file://localhost{source}"
    wheel(index, "app", "1.0", f"evil @ {address}")
    with pytest.raises(PipFailed, match=r"evil.* is no wheel: building it would run its code"):
        resolve(X86, ["app"])
    assert not trace.exists()


def test_a_wheel_by_its_address_is_taken_by_the_name_of_its_file(index, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel(index, "app", "1.0", f"thing @ file://{wheel(elsewhere, 'thing', '1.0')}")
    assert resolve(X86, ["app"])["thing"].file == "thing-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    "end",
    ["..%2F..%2Fvictim-1.0-py3-none-any.whl", "%2E%2E%2Fvictim.whl", "victim-1.0.tar.gz", "other-1.0-py3-none-any.whl",
     "victim-1.0-py3-none-%1B]0;x.whl", "victim-1.0-py3-none-any.whl%00", "..", ""],
)  # fmt: skip
def test_a_name_from_the_index_leads_nowhere_but_into_the_cache(end):
    item = {
        "metadata": {"name": "victim", "version": "1.0"},
        "download_info": {"url": f"https://example.org/files/{end}", "archive_info": {"hashes": {"sha256": "0" * 64}}},
    }
    if end.endswith("%2Fvictim-1.0-py3-none-any.whl"):
        assert wheels.wheel_of(item).file == "victim-1.0-py3-none-any.whl"
        return
    with pytest.raises(PipFailed, match="is no wheel of it") as failed:
        wheels.wheel_of(item)
    assert "\x1b" not in str(failed.value)


@pytest.mark.parametrize("info", ["dir_info", "vcs_info"])
def test_what_pip_would_take_from_a_folder_or_a_repository_is_no_wheel(info):
    url = "file:///srv/victim-1.0-py3-none-any.whl"
    item = {"metadata": {"name": "victim", "version": "1.0"}, "download_info": {"url": url, info: {}}}
    with pytest.raises(PipFailed, match="is no wheel of it"):
        wheels.wheel_of(item)


def test_a_python_without_pip_says_so(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, system_site_packages=False)
    code = "from camdock.abi.wheels import *\ntry: resolve(Platform('3.11', 'x86_64'), ['numpy'])\n"
    code += "except PipMissing as error: print(error)"
    path = ":".join(sys.path[1:])
    done = subprocess.run(
        [tmp_path / "bare/bin/python", "-c", f"import sys; sys.path += {path!r}.split(':')\n{code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "has no pip" in done.stdout, done
    assert "-m ensurepip" in done.stdout


# ------------------------------------------------------------------------------------------------------ planning


def test_a_clean_set_is_said_to_be_clean(index, command):
    wheel(index, "app", "1.0", "numpy")
    code, out, _ = command("plan", pins="numpy==2.2.0\napp==1.0\n", wanted="app\n")
    assert code == 0
    assert "constraints.txt, NumPy 2.2.0: clean" in out


def test_pins_missing_and_left_over_are_findings(index, command):
    wheel(index, "app", "1.0", "extra_thing", "numpy")
    wheel(index, "extra_thing", "3.0")
    wheel(index, "unused", "1.0")
    code, out, _ = command("plan", "--json", pins="app==1.0\nnumpy==2.2.0\nunused==1.0\n", wanted="app\n")
    found = json.loads(out)
    assert code == 1
    assert [(finding["rule"], finding["fix"]) for finding in found["findings"]] == [
        ("numpy-not-first", "move its line to the top"),
        ("not-pinned", "pin extra-thing==3.0"),
        ("left-over", "remove the line"),
    ]
    assert "cp311 x86_64, cp311 aarch64" in found["findings"][1]["message"]
    assert found["platforms"] == ["cp311 x86_64", "cp311 aarch64"]


def test_a_pin_without_a_wheel_is_named_unless_the_requirements_exclude_it(index, command):
    wheel(index, "tool", "1.0", tag="py3-none-manylinux2014_x86_64")
    pins = "numpy==2.2.0\ntool==1.0\n"
    code, out, _ = command("plan", pins=pins)
    assert code == 2
    assert "no-wheel: cp311 aarch64: there is no wheel of tool 1.0 for it" in out
    assert "cp311 x86_64: there" not in out
    code, out, _ = command("plan", pins=pins, wanted="numpy\ntool; platform_machine == 'x86_64'\n")
    assert code == 0
    code, out, _ = command("plan", pins=pins, wanted="numpy\ntool\n")
    assert code == 2
    assert "tool" in out.partition("unresolved: cp311 aarch64")[2]


def test_a_marker_on_the_pin_is_heeded(index, command):
    wheel(index, "tool", "1.0", tag="py3-none-manylinux2014_x86_64")
    code, _, _ = command("plan", pins="numpy==2.2.0\ntool==1.0; platform_machine == 'x86_64'\n")
    assert code == 0


def test_what_is_built_from_source_is_said_and_not_judged(index, command):
    code, out, _ = command(
        "plan", pins="numpy==2.2.0\nonly-source==1.8\n", wanted="numpy\nonly-source\n--no-binary only-source  # why\n"
    )
    assert code == 0
    assert "built" in next(line for line in out.splitlines() if line.startswith("only-source 1.8"))


def test_a_file_that_is_no_wheel_is_not_judged(index, command):
    broken = index / "app-1.0-py3-none-any.whl"
    wheel(index, "app", "1.0")
    whole = broken.read_bytes()
    code, _, _ = command("plan", pins="numpy==2.2.0\napp==1.0\n")
    assert code == 0
    broken.write_bytes(whole[: len(whole) // 2])
    code, out, err = command("plan", pins="numpy==2.2.0\napp==1.0\n")
    assert code == 2, out + err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--platform", "sparc"], "is no machine known here: x86_64, i686, aarch64, armv7l are"),
        (["--python", "3.11,three"], "is no Python release"),
        (["--glibc", "bookworm"], "write it like 2.36"),
        (["-r", "absent.in"], "absent.in cannot be read"),
        (["-r", "broken.toml"], "must be a list of requirements"),
    ],
)
def test_bad_arguments_are_answered(command, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[project]\ndependencies = 5\n")
    code, out, err = command("plan", *words, pins="numpy==2.2.0\n")
    assert (code, out) == (2, "")
    assert said in err


def test_pins_without_numpy_cannot_be_judged(command):
    code, _, err = command("plan", pins="app==1.0\n")
    assert code == 2
    assert "pins no numpy" in err


# ------------------------------------------------------------------------------------------------------- upgrade


PINS = "numpy==2.0.0       # first\n\n# app\napp==1.0           # a story\ngone==1.0\n"


@pytest.fixture
def releases(index):
    """App 2 has other needs than app 1; NumPy 2.5 has left this Python; plugin 9 is not for app's liking."""
    wheel(index, "numpy", "2.0.0")
    wheel(index, "numpy", "2.5.0", tag="cp313-none-any")
    wheel(index, "app", "1.0", "numpy", "gone")
    wheel(index, "app", "2.0", "numpy", "plugin<9")
    wheel(index, "gone", "1.0")
    wheel(index, "plugin", "8.0")
    wheel(index, "plugin", "9.0")


def test_pins_move_come_and_go(releases, command, tmp_path):
    code, out, _ = command("upgrade", "--python", "3.11,3.13", pins=PINS, wanted="app\n")
    assert code == 0, out
    assert (tmp_path / "constraints.txt").read_text() == (
        "numpy==2.2.0       # first\n\n# app\napp==2.0           # a story\nplugin==8.0  # app\n"
    )
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "numpy 2.0.0 -> 2.2.0" in lines
    assert "numpy 2.2.0, newest 2.5.0: there is no wheel of 2.5.0 for cp311 x86_64, cp311 aarch64" in lines
    assert "plugin 8.0, newest 9.0: app 2.0 requires plugin<9" in lines
    assert "plugin 8.0, wanted by app" in lines
    assert "gone 1.0" in lines
    assert f"Undo: git checkout {tmp_path / 'constraints.txt'}" in out
    assert "read whether it still holds: numpy, app" in out


def test_a_dry_run_changes_nothing(releases, command, tmp_path):
    code, out, _ = command("upgrade", "--dry-run", pins=PINS, wanted="app\n")
    assert code == 0
    assert "app" in out
    assert (tmp_path / "constraints.txt").read_text() == PINS


def test_only_what_is_named_moves_and_what_is_held_stays(releases, command, tmp_path):
    code, out, _ = command("upgrade", "--only", "NumPy", pins=PINS, wanted="app\n")
    assert code == 0
    assert (tmp_path / "constraints.txt").read_text() == PINS.replace("numpy==2.0.0", "numpy==2.2.0")
    assert "1.0, newest 2.0: not named with --only" in out
    code, out, _ = command("upgrade", "--hold", "numpy", pins=PINS, wanted="app\n")
    assert code == 0
    assert (tmp_path / "constraints.txt").read_text().startswith("numpy==2.0.0 ")
    assert "asked for with --hold" in out
    code, _, err = command("upgrade", "--only", "nmupy", pins=PINS, wanted="app\n")
    assert code == 2
    assert "does not pin nmupy" in err


def test_a_set_at_its_newest_is_left_alone(index, command, tmp_path):
    code, out, _ = command("upgrade", pins="numpy==2.2.0\n", wanted="numpy\n")
    assert code == 0
    assert "nothing to move, and all of it is clean" in out
    assert "Undo" not in out


def test_what_does_not_resolve_leaves_the_file_alone(index, command, tmp_path):
    code, _, err = command("upgrade", pins="numpy==2.2.0\n", wanted="numpy\nabsent\n")
    assert code == 1
    assert "untouched" in err
    assert "absent" in err
    assert (tmp_path / "constraints.txt").read_text() == "numpy==2.2.0\n"
