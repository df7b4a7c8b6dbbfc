"""What an earlier folder of the path provides, a later one does not: only what an import would find is judged."""

from __future__ import annotations

from pathlib import Path

from camdock.abi.check import check
from tests.abi import made

DEBIAN = "usr/lib/python3/dist-packages"


def broken(root: Path) -> set[str]:
    return {one.module for one in check(str(root / "venv")).modules if one.verdict == "breaks"}


def system_and_environment(root: Path) -> Path:
    """apt's NumPy 1.24 and three things compiled for it; NumPy 2.2 in the environment, whose folder is returned."""
    debian = root / DEBIAN
    made.numpy(debian, "1.24.2")
    made.write(debian / "h5py/__init__.py")
    made.module(debian, "h5py/defs.cpython-311-x86_64-linux-gnu.so", made.FOR_1)
    made.module(debian, "cv2.cpython-311-x86_64-linux-gnu.so", made.FOR_1)
    made.module(debian, "ours/core.so", made.FOR_1)
    made.write(debian / "ours/__init__.py")
    made.write(root / "etc/debian_version")
    site = made.environment(root / "venv", system=True)
    made.numpy(site, "2.2.0")
    return site


def test_a_package_of_the_environment_hides_the_systems(tmp_path: Path) -> None:
    site = system_and_environment(tmp_path)
    assert broken(tmp_path) == {"h5py.defs", "cv2", "ours.core"}
    made.write(site / "h5py/__init__.py")
    made.module(site, "h5py/defs.cpython-311-x86_64-linux-gnu.so", made.FOR_2)
    assert broken(tmp_path) == {"cv2", "ours.core"}
    made.write(site / "cv2/__init__.py")
    made.module(site, "cv2/cv2.abi3.so", made.FOR_2)
    assert broken(tmp_path) == {"ours.core"}


def test_a_folder_that_is_no_package_hides_nothing(tmp_path: Path) -> None:
    site = system_and_environment(tmp_path)
    made.write(site / "ours/notes.txt")
    assert "ours.core" in broken(tmp_path)
    made.write(site / "ours.py")
    assert "ours.core" not in broken(tmp_path)


def test_a_hidden_numpy_is_still_spoken_of(tmp_path: Path) -> None:
    system_and_environment(tmp_path)
    files = [str(file.relative_to(tmp_path)) for file in (tmp_path / DEBIAN / "numpy").rglob("*") if file.is_file()]
    made.dpkg(tmp_path, "python3-numpy", "1:1.24.2-1", files)
    (second,) = [finding for finding in check(str(tmp_path / "venv")).findings if finding.rule == "second-numpy"]
    assert "python3-numpy 1:1.24.2-1 (dpkg)" in second.message
