"""The command that mends a verdict: what is typed, for whom, and that it is one pip and a shell understand."""

from __future__ import annotations

import shlex

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from camdock.abi.fixes import FIRST_FOR_2, alternative_for, canonical, fix_for, newer, pip_name
from camdock.abi.owners import Owner

VENV = "/opt/app/venv/bin/python"
SIMPLEJPEG = Owner("simplejpeg", "1.7.2", "pip")


def test_a_package_whose_first_release_for_numpy_2_is_known_is_moved_there() -> None:
    fix = fix_for("built-for-1", SIMPLEJPEG, "2.2.0", "", VENV)
    assert fix == "/opt/app/venv/bin/python -m pip install 'simplejpeg>=1.7.4'"


@pytest.mark.parametrize("rule", ["built-for-1", "type-size", "unchecked"])
def test_an_unknown_package_is_upgraded(rule: str) -> None:
    assert (
        fix_for(rule, Owner("Some_Thing", "1.0", "pip"), "2.2.0", "", VENV)
        == f"{VENV} -m pip install --upgrade some-thing"
    )


def test_a_release_that_should_load_but_was_compiled_here_is_replaced_by_its_wheel() -> None:
    fix = fix_for("built-for-1", Owner("pandas", "2.2.3", "pip"), "2.2.0", "", VENV)
    assert fix == f"{VENV} -m pip install --force-reinstall --no-deps --no-cache-dir 'pandas>=2.2.2'"


def test_where_no_release_was_ever_built_for_numpy_2_numpy_is_held() -> None:
    fix = fix_for("built-for-1", Owner("tflite_runtime", "2.14.0", "pip"), "2.2.0", "", VENV)
    assert shlex.split(fix, comments=True)[-2:] == ["install", "numpy<2"]
    assert "everything else must then load on 1.x too" in fix


def test_a_file_nobody_owns_holds_numpy_and_says_what_that_asks_of_the_others() -> None:
    fix = fix_for("built-for-1", None, "2.2.0", "", VENV)
    assert fix == f"{VENV} -m pip install 'numpy<2'  # everything else must then load on 1.x too: check again"
    assert shlex.split(fix, comments=True)[-2:] == ["install", "numpy<2"]
    assert alternative_for("built-for-1", "2.2.0", VENV, fix) == "", "it is that already"


@pytest.mark.parametrize(
    ("package", "version", "typed"),
    [
        ("python3-bottleneck", "1.3.5+ds1-2", "'bottleneck>=1.4.0'"),
        ("python3-h5py-serial", "3.7.0-8", "'h5py>=3.11.0'"),
        ("python3-h5py-serial:amd64", "3.7.0-8", "'h5py>=3.11.0'"),
        ("python3-opencv", "4.6.0+dfsg-12", "'opencv-python-headless>=4.10.0.84'"),
        ("python3-mpi4py", "3.1.4-2", "--ignore-installed numpy==2.2.0 mpi4py"),
    ],
)
def test_a_package_of_apt_gets_a_copy_in_the_virtual_environment_and_keeps_numpy(
    package: str, version: str, typed: str
) -> None:
    assert (
        fix_for("built-for-1", Owner(package, version, "dpkg"), "2.2.0", "", VENV) == f"{VENV} -m pip install {typed}"
    )


def test_a_package_of_apt_with_pips_numpy_beside_it_in_the_system_gets_its_own_numpy_back() -> None:
    fix = fix_for("built-for-1", Owner("python3-h5py-serial", "3.7.0-8", "dpkg"), "2.2.0", "", "/usr/bin/python3")
    assert fix == "PIP_BREAK_SYSTEM_PACKAGES=1 /usr/bin/python3 -m pip uninstall --yes numpy"


def test_a_package_of_conda_is_left_to_conda() -> None:
    assert fix_for("built-for-1", Owner("h5py", "3.9.0", "conda"), "2.2.0", "", VENV) == "conda update --yes h5py"


def test_an_old_numpy_is_moved_within_its_major_version() -> None:
    numexpr = Owner("numexpr", "2.10.1", "pip")
    assert fix_for("numpy-too-old", numexpr, "1.22.4", "1.23", VENV) == f"{VENV} -m pip install 'numpy>=1.23,<2'"
    assert fix_for("numpy-too-old", numexpr, "2.0.2", "2.1", VENV) == f"{VENV} -m pip install 'numpy>=2.1'"
    assert fix_for("numpy-too-old", numexpr, "1.26.4", "2.0", VENV) == f"{VENV} -m pip install 'numpy>=2.0'"


def test_where_the_numpy_it_needs_is_not_known_the_package_is_held() -> None:
    fix = fix_for("numpy-too-old", Owner("numexpr", "2.10.1", "pip"), "1.22.4", "", VENV)
    assert fix == f"{VENV} -m pip install 'numexpr<2.10.1'"


def test_a_type_that_is_too_small_in_numpy_1_wants_a_newer_numpy_1() -> None:
    fix = fix_for("type-size", Owner("pykdtree", "1.3.4", "pip"), "1.21.6", "1.22", VENV)
    assert fix == f"{VENV} -m pip install 'numpy>=1.22,<2'"
    assert alternative_for("type-size", "1.21.6", VENV) == ""


def test_a_mixed_numpy_is_installed_again_as_it_was() -> None:
    assert (
        fix_for("mixed-numpy", None, "2.0.2", "", VENV)
        == f"{VENV} -m pip install --force-reinstall --no-deps numpy==2.0.2"
    )


def test_an_unreadable_file_is_installed_again_by_its_owner() -> None:
    again = "--force-reinstall --no-deps simplejpeg==1.7.2"
    assert fix_for("unreadable", SIMPLEJPEG, "2.2.0", "", VENV) == f"{VENV} -m pip install {again}"
    assert (
        fix_for("unreadable", Owner("python3-opencv", "1", "dpkg"), None, "", VENV)
        == "apt-get install --reinstall python3-opencv"
    )


@pytest.mark.parametrize("rule", ["fits", "no-numpy", "numpy-itself", "undecodable", "numpy-unknown"])
def test_there_is_no_command_for_what_is_all_right_or_not_known(rule: str) -> None:
    assert fix_for(rule, SIMPLEJPEG, "2.2.0", "", VENV) == ""


def test_a_path_with_spaces_stays_one_word_for_the_shell() -> None:
    fix = fix_for("built-for-1", SIMPLEJPEG, "2.2.0", "", "/home/a b/venv/bin/python")
    assert shlex.split(fix) == ["/home/a b/venv/bin/python", "-m", "pip", "install", "simplejpeg>=1.7.4"]


@pytest.mark.parametrize(
    "owner",
    [
        Owner("https://192.0.2.1/x", "1", "pip"),
        Owner("--index-url=http://evil.example/", "1", "pip"),
        Owner("_r", "1", "pip"),  # pip would be given -r
        Owner("x; rm -rf $HOME", "1", "pip"),
        Owner("simplejpeg @ file:///tmp/x", "1", "pip"),
        Owner("simplejpeg\n", "1", "pip"),
        Owner("simplejpeg", "1 --pre", "pip"),
        Owner("simplejpeg", "1,>=0 @ https://192.0.2.1/x", "pip"),
        Owner("--force-yes", "1", "dpkg"),
        Owner("python3-x=1", "1", "dpkg"),
        Owner("--channel=http://evil.example/", "1", "conda"),
    ],
)
def test_an_owner_whose_name_or_version_is_none_gets_no_command(owner: Owner) -> None:
    for rule in ("built-for-1", "type-size", "unchecked", "numpy-too-old", "unreadable"):
        assert fix_for(rule, owner, "1.26.4", "", VENV) == ""
    if owner.name != "simplejpeg":
        assert newer(owner, VENV) == ""


def test_names_that_pip_dpkg_and_conda_accept_are_names() -> None:
    assert Owner("python3-h5py-serial:amd64", "1:3.7.0-8", "dpkg").is_named
    assert Owner("libstdc++6", "?", "dpkg").is_named
    assert Owner("_libgcc_mutex", "0.1", "conda").is_named
    assert Owner("zope.interface", "1.0+cpu", "pip").is_named
    # what is left of apt's name without the prefix is none
    assert fix_for("built-for-1", Owner("python3-x++", "1", "dpkg"), "2.2.0", "", VENV) == ""


def test_a_numpy_of_no_release_is_not_typed() -> None:
    again = f"{VENV} -m pip install --force-reinstall --no-deps"
    assert fix_for("mixed-numpy", None, "2 @ https://192.0.2.1/x", "", VENV) == f"{again} numpy"
    assert fix_for("mixed-numpy", None, "9.0", "", VENV) == f"{again} numpy==9.0"


def test_the_other_way_is_for_the_interpreter_of_the_command() -> None:
    fix = f"PIP_BREAK_SYSTEM_PACKAGES=1 {VENV} -m pip install 'simplejpeg>=1.7.4'"
    said = alternative_for("built-for-1", "2.2.0", "python", fix)
    assert f"PIP_BREAK_SYSTEM_PACKAGES=1 {VENV} -m pip install 'numpy<2' (" in said
    assert ": python -m pip install 'numpy<2' (" in alternative_for("built-for-1", "2.2.0", "python", "conda update x")


def test_every_line_of_the_table_is_a_release_pip_understands() -> None:
    for name, first in FIRST_FOR_2.items():
        assert canonical(name) == name
        if first is not None:
            assert Requirement(f"{name}>={first}").specifier.contains(str(Version(first)))


def test_debians_names_lead_to_pips() -> None:
    assert pip_name(Owner("python3-bottleneck", "", "dpkg")) == "bottleneck"
    assert pip_name(Owner("python3-opencv", "", "dpkg")) == "opencv-python-headless"
    assert pip_name(Owner("Fast_Histogram", "", "pip")) == "fast-histogram"
