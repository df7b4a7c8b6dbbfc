"""Which NumPy a module meets: the order of a path, and what lies on it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from camdock.abi.check import Module, Report, check, check_paths
from camdock.abi.targets import TargetUnreadable, open_target
from tests.abi import made


def by_name(report: Report) -> dict[str, Module]:
    return {module.module: module for module in report.modules}


def rules(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings]


def test_a_virtual_environment_is_judged_by_its_own_numpy(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "venv")
    made.numpy(site, "2.2.0")
    made.module(site, "old/core.cpython-311-x86_64-linux-gnu.so", made.FOR_1, "old-thing", "1.7.2")
    made.module(site, "new.abi3.so", made.FOR_2, "new")
    made.module(site, "plain.so", made.NONE)

    report = check(str(tmp_path / "venv"))

    assert report.numpy == "2.2.0"
    assert not report.findings
    found = by_name(report)
    old = found["old.core"]
    assert (old.verdict, old.rule, old.package) == ("breaks", "built-for-1", "old-thing 1.7.2")
    assert old.file == "lib/python3.11/site-packages/old/core.cpython-311-x86_64-linux-gnu.so"
    assert f"{tmp_path}/venv/bin/python -m pip install" in old.fix
    assert (found["new"].verdict, found["new"].rule) == ("ok", "fits")
    assert (found["plain"].verdict, found["plain"].rule, found["plain"].fix) == ("ok", "no-numpy", "")
    assert found["numpy._core._multiarray_umath"].rule == "numpy-itself"
    assert report.modules[0] == old, "the worst comes first"


def test_another_numpy_can_be_asked_about(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "venv")
    made.numpy(site, "2.2.0")
    made.module(site, "new.so", made.FOR_2)
    assert by_name(check(str(tmp_path / "venv")))["new"].verdict == "ok"
    report = check(str(tmp_path / "venv"), numpy="1.22.4")
    assert report.numpy == "1.22.4"
    assert (by_name(report)["new"].verdict, by_name(report)["new"].rule) == ("breaks", "numpy-too-old")


@pytest.mark.parametrize("system", [False, True])
def test_system_packages_count_only_where_the_environment_lets_them_in(tmp_path: Path, system: bool) -> None:
    debian = tmp_path / "usr/lib/python3/dist-packages"
    made.numpy(debian, "1.24.2")
    made.module(debian, "h5py/_x.cpython-311-x86_64-linux-gnu.so", made.FOR_1)
    made.write(tmp_path / "etc/debian_version")
    site = made.environment(tmp_path / "venv", system=system)
    made.numpy(site, "2.2.0")

    report = check(str(tmp_path / "venv"))

    assert report.numpy == "2.2.0"
    if not system:
        assert set(by_name(report)) == {"numpy._core._multiarray_umath"}
        assert not report.findings
        return
    module = by_name(report)["h5py._x"]
    assert module.verdict == "breaks"
    assert module.file == "/usr/lib/python3/dist-packages/h5py/_x.cpython-311-x86_64-linux-gnu.so"
    (finding,) = report.findings
    assert finding.rule == "second-numpy"
    assert "NumPy 1.24.2 in /usr/lib/python3/dist-packages/numpy" in finding.message
    assert "lib/python3.11/site-packages/numpy" in finding.message


def test_a_hidden_numpys_modules_are_not_judged(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    made.numpy(first, "2.2.0")
    made.numpy(second, "1.26.4")
    report = check_paths([str(first), str(second)])
    assert [module.file for module in report.modules] == [
        f"{first}/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so"
    ]
    assert rules(report) == ["second-numpy"]


def test_paths_in_pth_files_are_followed_and_their_code_is_not_run(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "venv")
    made.numpy(site, "2.2.0")
    witness = tmp_path / "was-run"
    made.write(site / "a.pth", f"# words\n../more\nnowhere\nimport os; open({str(witness)!r}, 'w')\n")
    made.write(site / "__editable__.thing-1.0.pth", "import __editable___thing_1_0_finder; f()")
    made.module(site.parent / "more", "old.so", made.FOR_1)

    report = check(str(tmp_path / "venv"))

    assert by_name(report)["old"].verdict == "breaks"
    assert by_name(report)["old"].file == "lib/python3.11/more/old.so"
    assert not witness.exists()
    assert rules(report) == ["editable-hook"]
    assert "__editable__.thing-1.0" in report.findings[0].message


@pytest.mark.parametrize(
    ("source", "beside", "version"),
    [
        ('version = "2.2.0"\n', "", "2.2.0"),
        ("short_version = '1.16.2'\nversion = '1.16.2'\nfull_version = '1.16.2'\n", "", "1.16.2"),
        ('version: str = "1.26.4"\n', "", "1.26.4"),
        ("from ._version import get_versions\n", '{\n "dirty": false,\n "version": "1.24.2"\n}', "1.24.2"),
        ("", "", "9.9.9"),  # then the metadata's
    ],
)
def test_the_version_of_every_age_of_numpy_is_read(tmp_path: Path, source: str, beside: str, version: str) -> None:
    made.numpy(tmp_path, version, text=source)
    made.write(tmp_path / "numpy/_version.py", beside)
    assert check(str(tmp_path)).numpy == version


def test_a_numpy_copied_over_another_is_a_finding(tmp_path: Path) -> None:
    made.numpy(tmp_path, "2.2.0", recorded="1.26.4")
    report = check(str(tmp_path))
    assert report.numpy == "2.2.0", "what is imported is the source"
    assert rules(report) == ["torn-numpy"]
    assert "2.2.0" in report.findings[0].message
    assert "1.26.4" in report.findings[0].message
    assert "--force-reinstall --no-deps numpy==2.2.0" in report.findings[0].fix


def test_a_file_left_by_another_numpy_is_a_finding(tmp_path: Path) -> None:
    made.numpy(tmp_path, "2.2.0")
    made.module(tmp_path, "numpy/core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", made.NONE)
    report = check(str(tmp_path))
    assert rules(report) == ["mixed-numpy"]
    assert "numpy/core/_multiarray_umath" in report.findings[0].message


def test_without_numpy_only_what_uses_it_is_unknown(tmp_path: Path) -> None:
    made.module(tmp_path, "old.so", made.FOR_1)
    made.module(tmp_path, "plain.so", made.NONE)
    report = check(str(tmp_path))
    assert report.numpy is None
    assert [(one.module, one.verdict, one.rule) for one in report.modules] == [
        ("old", "unknown", "numpy-unknown"),
        ("plain", "ok", "no-numpy"),
    ]


def test_a_numpy_of_no_known_release_is_said_and_not_guessed(tmp_path: Path) -> None:
    made.numpy(tmp_path, "7.0.0")
    made.module(tmp_path, "old.so", made.FOR_1)
    module = by_name(check(str(tmp_path)))["old"]
    assert (module.verdict, module.rule) == ("unknown", "numpy-unknown")
    assert "7.0.0" in module.evidence


def test_only_what_is_asked_for_is_judged(tmp_path: Path) -> None:
    made.numpy(tmp_path, "2.2.0")
    made.module(tmp_path, "a/x.so", made.FOR_1)
    made.module(tmp_path, "b.cpython-311-x86_64-linux-gnu.so", made.FOR_1)
    made.module(tmp_path, "c.so", made.FOR_1)
    report = check_paths([str(tmp_path)], only=["a", "b"])
    assert [module.module for module in report.modules] == ["a.x", "b"]


def test_a_module_is_judged_with_the_libraries_that_it_is_linked_to(tmp_path: Path) -> None:
    made.numpy(tmp_path, "2.2.0")
    made.write(tmp_path / "p/m.so", made.compiled(made.NONE, "m", ("libone.so.1",)))
    made.write(tmp_path / "p.libs/libone.so.1", made.compiled(made.NONE, None, ("libtwo.so",), "libone.so.1"))
    made.write(tmp_path / "p.libs/libtwo.so", made.compiled(made.FOR_1, None, (), "libtwo.so"))
    made.write(tmp_path / "q/libtwo.so", made.compiled(made.NONE, None, (), "libtwo.so"))
    for report in (check(str(tmp_path)), check_paths([str(tmp_path)], only=["p"])):
        assert [(one.module, one.verdict) for one in report.modules if one.verdict != "ok"] == [
            ("p.m", report.modules[0].verdict)
        ]
        assert report.modules[0].rule == "built-for-1"
        assert "libtwo.so" in report.modules[0].evidence


def test_a_module_that_is_linked_to_an_asking_library_and_never_calls_it_works(tmp_path: Path) -> None:
    """RDKit's modules are all linked to Boost's NumPy library; most never ask it for anything."""
    made.numpy(tmp_path, "2.2.0")
    made.write(tmp_path / "p/calls.so", made.compiled(made.NONE, "calls", ("libnumpy.so",)))
    made.write(tmp_path / "p/links.so", made.compiled(made.NONE, "links", ("libnumpy.so",), calls=False))
    made.write(tmp_path / "p.libs/libnumpy.so", made.compiled(made.FOR_1, None, (), "libnumpy.so"))
    found = {one.module: one.verdict for one in check(str(tmp_path)).modules}
    assert (found["p.calls"], found["p.links"]) == ("breaks", "ok")


def test_a_library_that_nobody_is_linked_to_is_listed_when_it_uses_numpy(tmp_path: Path) -> None:
    made.numpy(tmp_path, "2.2.0")
    made.write(tmp_path / "p/loaded_by_ctypes.so", made.compiled(made.FOR_1, None))
    made.write(tmp_path / "p/plain.so.3", made.compiled(made.NONE, None))
    report = check(str(tmp_path))
    assert [one.file for one in report.modules if one.rule != "numpy-itself"] == ["p/loaded_by_ctypes.so"]
    assert report.modules[0].rule == "built-for-1"


def test_a_file_for_another_python_is_not_loaded_by_this_one(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "venv", python="3.11")
    made.numpy(site, "2.2.0")
    made.module(site, "a.cpython-311-x86_64-linux-gnu.so", made.FOR_2)
    made.module(site, "a.cpython-39-x86_64-linux-gnu.so", made.FOR_1)
    found = {Path(one.file).name: one.verdict for one in check(str(tmp_path / "venv")).modules}
    # It is judged all the same: no other environment of the target would load it.
    assert found["a.cpython-39-x86_64-linux-gnu.so"] == "breaks"
    assert found["a.cpython-311-x86_64-linux-gnu.so"] == "ok"


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "fifo", "folder", "huge"])
def test_what_cannot_be_read_is_said(tmp_path: Path, damage: str) -> None:
    made.numpy(tmp_path, "2.2.0")
    file = tmp_path / "bad.cpython-311-x86_64-linux-gnu.so"
    whole = made.compiled(made.FOR_1, "bad")
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 3])
    elif damage == "fifo":
        os.mkfifo(file)  # opening it would wait for ever
    elif damage == "folder":
        file.mkdir()
    elif damage == "huge":
        with file.open("wb") as out:
            out.truncate((1 << 30) + 1)
    else:
        file.write_bytes(b"" if damage == "empty" else b"Not a module.\n")
    report = check(str(tmp_path))
    found = [(one.module, one.verdict, one.rule) for one in report.modules if one.rule != "numpy-itself"]
    assert found == ([] if damage in ("fifo", "folder") else [("bad", "unknown", "unreadable")])


def test_links_are_followed_once_and_never_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    made.module(outside, "secret.so", made.FOR_1)
    inside = tmp_path / "inside"
    made.numpy(inside, "2.2.0")
    made.module(inside, "p/m.so", made.FOR_1)
    (inside / "p/again.so").symlink_to("m.so")
    (inside / "p/round").symlink_to("..")
    (inside / "alias").symlink_to("p")
    (inside / "out.so").symlink_to(outside / "secret.so")
    (inside / "out").symlink_to("../outside")
    (inside / "loop").symlink_to("loop")
    report = check(str(inside))
    assert [one.file for one in report.modules if one.rule != "numpy-itself"] == ["p/m.so"]
    assert rules(report) == ["link-outside"]
    assert "and 1 more" in report.findings[0].message


def test_a_link_to_above_is_not_followed(tmp_path: Path) -> None:
    made.numpy(tmp_path / "site", "2.2.0")
    made.module(tmp_path / "site", "m.so", made.NONE)
    made.module(tmp_path, "beside/old.so", made.FOR_1)
    (tmp_path / "site/up").symlink_to("..")
    assert "old" not in {one.module.rpartition(".")[2] for one in check_paths([str(tmp_path / "site")]).modules}


def test_a_pipe_is_no_target_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.so")
    with pytest.raises(TargetUnreadable, match="a device, a pipe or a socket"):
        check(str(tmp_path / "pipe.so"))


def test_one_shared_object_is_judged_in_the_environment_around_it(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "venv")
    made.numpy(site, "2.2.0")
    made.module(site, "p/old.so", made.FOR_1, "owner")
    made.module(site, "p/other.so", made.FOR_1)
    report = check(str(site / "p/old.so"))
    assert [(one.file, one.module, one.verdict, one.package) for one in report.modules] == [
        ("old.so", "p.old", "breaks", "owner 1.0")
    ]
    alone = made.write(tmp_path / "elsewhere/old.so", (site / "p/old.so").read_bytes())
    assert check(str(alone)).modules[0].rule == "numpy-unknown"
    assert check(str(alone), "2.0").modules[0].verdict == "breaks"
    alone.write_bytes(alone.read_bytes()[:100])
    with pytest.raises(TargetUnreadable, match=r"old\.so"):
        check(str(alone))


def test_a_folder_is_judged_by_the_numpy_in_it_and_environments_in_it_by_theirs(tmp_path: Path) -> None:
    made.numpy(tmp_path / "vendor", "1.26.4")
    made.module(tmp_path / "vendor", "old.so", made.FOR_1)
    site = made.environment(tmp_path / "app/.venv")
    made.numpy(site, "2.2.0")
    made.module(site, "old.so", made.FOR_1)
    found = {one.file: one for one in check(str(tmp_path)).modules}
    assert found["vendor/old.so"].verdict == "ok"
    inner = found["app/.venv/lib/python3.11/site-packages/old.so"]
    assert inner.verdict == "breaks"
    assert "NumPy 2.2.0 of app/.venv" in inner.evidence


@pytest.mark.parametrize("word", ["/nowhere", "./nowhere", "no.whl", "/dev/null", "UPPER CASE"])
def test_what_is_no_target_is_told_what_would_be_one(word: str) -> None:
    with pytest.raises(TargetUnreadable, match=r"target|image|name of an image"):
        check(word)


@pytest.mark.parametrize("system", [False, True])
def test_the_path_is_the_one_that_python_itself_makes(tmp_path: Path, system: bool) -> None:
    """A real environment, with path files of every kind, asked for its sys.path."""
    folder = tmp_path / "venv"
    options = ["--without-pip", *(["--system-site-packages"] if system else [])]
    subprocess.run([sys.executable, "-m", "venv", *options, folder], check=True)
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for name in ("b", "c", "d"):
        (tmp_path / name).mkdir()
    (site / "below").mkdir()
    made.write(site / "z.pth", f"{tmp_path}/d\nbelow\n# {tmp_path}/e\n   \n{tmp_path}/absent\n")
    made.write(site / "a.pth", f"{tmp_path}/c\n{tmp_path}/b\nimport sys; sys.path.append('/from/code')\n")
    made.write(site / "no.txt", f"{tmp_path}\n")

    told = subprocess.run(
        [folder / "bin/python", "-s", "-c", "import sys; print(*sys.path, sep='\\n')"],
        check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
    ).stdout.splitlines()  # fmt: skip
    standard = re.compile(r"^$|\.zip$|/python3\.\d+$|/lib-dynload$|^/from/code$")
    with open_target(str(folder)) as target:
        (environment,) = target.environments
        ours = [f"/{path}" for path in environment.paths]
    theirs = [os.path.realpath(path) for path in told if not standard.search(path) and os.path.isdir(path)]
    assert [os.path.realpath(path) for path in ours] == theirs
    assert f"{tmp_path}/d" in ours
    assert environment.version == sys.version_info[:2]


def test_separate_trees_below_one_folder_are_each_judged_by_their_own_numpy(tmp_path: Path) -> None:
    made.numpy(tmp_path / "a", "2.2.0")
    made.numpy(tmp_path / "b", "1.26.4")
    made.module(tmp_path / "a", "m.so", made.FOR_1)
    made.module(tmp_path / "b", "m.so", made.FOR_1)
    made.numpy(tmp_path / "b/deeper", "2.1.0")
    made.module(tmp_path / "b/deeper", "m.so", made.FOR_1)
    made.module(tmp_path / "c", "m.so", made.FOR_1)
    report = check(str(tmp_path))
    assert report.findings == []
    found = {one.file: one for one in report.modules if one.rule != "numpy-itself"}
    assert {file: one.verdict for file, one in found.items()} == {
        "a/m.so": "breaks", "b/m.so": "ok", "b/deeper/m.so": "breaks", "c/m.so": "unknown",
    }  # fmt: skip
    assert "with NumPy 2.1.0 of b/deeper: " in found["b/deeper/m.so"].evidence
    assert check(str(tmp_path / "b")).findings == [], "a NumPy further down is no second one either"


def test_an_environment_below_a_folder_is_mended_by_its_own_python(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "my app/.venv")
    made.numpy(site, "2.2.0")
    made.module(site, "old.so", made.FOR_1, "old")
    fix = next(one.fix for one in check(str(tmp_path)).modules if one.module == "old")
    assert shlex.split(fix)[0] == f"{tmp_path}/my app/.venv/bin/python"


def test_a_hidden_numpy_is_removed_where_it_really_is(tmp_path: Path) -> None:
    site = made.environment(tmp_path / "venv")
    made.numpy(site, "2.2.0")
    hidden = tmp_path / "my libs"
    made.numpy(hidden, "1.26.4")
    kept = made.write(hidden / "numpy_like-1.0.dist-info/METADATA")
    made.write(site / "more.pth", f"{hidden}\n")
    (finding,) = check(str(tmp_path / "venv")).findings
    assert finding.rule == "second-numpy"
    assert shlex.split(finding.fix) == ["rm", "-r", f"{hidden}/numpy", f"{hidden}/numpy-1.26.4.dist-info"]
    subprocess.run(["sh", "-c", finding.fix], check=True)
    assert [path.name for path in hidden.iterdir()] == ["numpy_like-1.0.dist-info"]
    assert kept.exists()
    assert check(str(tmp_path / "venv")).findings == []


def test_the_numpy_of_another_python_is_never_to_be_removed(tmp_path: Path) -> None:
    """pip's, in the Python that a virtual environment was made from: others use it."""
    made.numpy(tmp_path / "base/lib/python3.11/site-packages", "1.26.4")
    made.numpy(made.environment(tmp_path / "venv", f"{tmp_path}/base/bin", system=True), "2.2.0")
    (finding,) = check(str(tmp_path / "venv")).findings
    assert finding.rule == "second-numpy"
    assert "rm" not in finding.fix
    assert "--system-site-packages" in finding.fix
