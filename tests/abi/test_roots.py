"""Root file systems and images: every Python in them, nothing outside of them."""

import gzip
import json
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from camdock.abi.check import Module, Report, check
from camdock.abi.targets import TargetUnreadable
from tests.abi import made

DEBIAN = "usr/lib/python3/dist-packages"
TAG = "cpython-311-x86_64-linux-gnu.so"


def by_file(report: Report) -> dict[str, Module]:
    return {module.file: module for module in report.modules}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Debian with apt's NumPy 1.24.2 and h5py, and an environment over it that has NumPy 2.2.0."""
    folder = tmp_path / "root"
    made.write(folder / "etc/debian_version", "12.5\n")
    made.write(folder / "usr/lib/python3.11/os.py")
    site = folder / DEBIAN
    made.numpy(site, "1.24.2")
    (site / "numpy-1.24.2.dist-info/RECORD").unlink()
    made.module(site, f"h5py/_x.{TAG}", made.FOR_1)
    # Debian's h5py has the project's own dist-info, with a RECORD
    made.package(site, "h5py.-debian-h5py-serial", "3.7.0", [f"h5py/_x.{TAG}"])
    made.dpkg(folder, "python3-h5py-serial:amd64", "3.7.0-8", [f"{DEBIAN}/h5py", f"{DEBIAN}/h5py/_x.{TAG}"])
    made.dpkg(folder, "python3-numpy", "1:1.24.2-1", [f"{DEBIAN}/numpy/_core/_multiarray_umath.{TAG}"])
    made.numpy(made.environment(folder / "opt/venv", "/usr/bin", system=True), "2.2.0")
    return folder


def test_a_system_is_judged_by_each_of_its_environments(root: Path) -> None:
    report = check(str(root))
    assert report.numpy == "2.2.0"
    module = by_file(report)[f"{DEBIAN}/h5py/_x.{TAG}"]
    assert (module.verdict, module.package) == ("breaks", "python3-h5py-serial 3.7.0-8 (dpkg)")
    assert module.evidence.startswith("with NumPy 2.2.0 of opt/venv: ")
    assert "/opt/venv/bin/python" in module.fix
    (finding,) = report.findings
    assert finding.rule == "second-numpy"
    assert "python3-numpy 1:1.24.2-1 (dpkg)" in finding.message


def test_what_is_to_be_typed_in_another_system_is_never_taken_for_this_one(
    root: Path, tmp_path: Path, scratch: Path
) -> None:
    made.numpy(root / "usr/local/lib/python3.11/dist-packages", "2.0.2", recorded="2.0.1")
    made.numpy(root / "root/.local/lib/python3.11/site-packages", "2.1.0")
    image = made.docker_archive(tmp_path / "image.tar", made.layer_of(root))
    for target, inside in ((root, str(root)), (root / "opt/venv", str(root)), (image, "the image")):
        report = check(str(target))
        fixes = [one.fix for one in (*report.modules, *report.findings) if one.fix]
        assert len(fixes) >= 1
        assert all(fix.startswith((f"inside {inside}: ", "make the virtual")) for fix in fixes), fixes
        assert not any(f"rm -r /{DEBIAN}" in fix for fix in fixes), "other Pythons of the root use it"


def test_an_environment_inside_a_system_sees_that_system_and_not_this_machine(root: Path) -> None:
    report = check(str(root / "opt/venv"))
    assert report.numpy == "2.2.0"
    module = by_file(report)[f"/{DEBIAN}/h5py/_x.{TAG}"]
    assert (module.verdict, module.package) == ("breaks", "python3-h5py-serial 3.7.0-8 (dpkg)")


def test_absolute_links_stay_inside(root: Path) -> None:
    """/opt/py is a link to /usr/python inside the root; on this machine /usr/python is something else, or nothing."""
    site = made.environment(root / "srv/app/.venv", "/opt/py/bin", system=True, python="3.12")
    made.numpy(site, "2.1.0")
    made.module(root / "usr/python/lib/python3.12/site-packages", "deep.so", made.FOR_1)
    (root / "opt/py").symlink_to("/usr/python")
    (root / "usr/python/bin").mkdir()
    (root / "srv/escape").symlink_to("../../../../../../../../etc")
    module = by_file(check(str(root)))["usr/python/lib/python3.12/site-packages/deep.so"]
    assert "NumPy 2.1.0 of srv/app/.venv" in module.evidence
    assert module.verdict == "breaks"


def test_pips_numpy_in_usr_local_comes_before_apts(root: Path) -> None:
    shutil.rmtree(root / "opt")
    local = root / "usr/local/lib/python3.11/dist-packages"
    made.numpy(local, "2.0.2")
    report = check(str(root))
    assert report.numpy == "2.0.2"
    assert by_file(report)[f"{DEBIAN}/h5py/_x.{TAG}"].verdict == "breaks"


def test_packages_unpacked_without_their_python_are_judged(root: Path) -> None:
    shutil.rmtree(root / "usr/lib/python3.11")
    shutil.rmtree(root / "opt")
    report = check(str(root))
    assert report.numpy == "1.24.2"
    assert by_file(report)[f"{DEBIAN}/h5py/_x.{TAG}"].verdict == "ok"
    assert not report.findings


def test_a_python_in_usr_local_has_its_own_packages(root: Path) -> None:
    shutil.rmtree(root / "opt")
    made.write(root / "usr/local/lib/python3.13/os.py")
    site = root / "usr/local/lib/python3.13/site-packages"
    made.numpy(site, "2.3.1")
    made.module(site, "old.so", made.FOR_1, "old")
    found = by_file(check(str(root)))
    assert found["usr/local/lib/python3.13/site-packages/old.so"].verdict == "breaks"
    assert found[f"{DEBIAN}/h5py/_x.{TAG}"].verdict == "ok", "it belongs to the other Python"


def test_a_numpy_that_no_path_holds_is_found(root: Path) -> None:
    made.numpy(root / "app/vendor", "2.2.0")
    made.module(root / "app/vendor", "old.so", made.FOR_1)
    assert by_file(check(str(root)))["app/vendor/old.so"].verdict == "breaks"


@pytest.mark.parametrize("shape", ["docker", "docker, packed", "docker.tar.gz", "oci", "oci.tar"])
def test_an_image_is_a_system_whose_layers_are_applied(root: Path, tmp_path: Path, scratch: Path, shape: str) -> None:
    layer = made.layer_of(root)
    archive = tmp_path / "image.tar"
    if shape.startswith("oci"):
        folder = made.oci_layout(tmp_path / "layout", layer)
        archive.write_bytes(made.layer_of(folder))
        target = folder if shape == "oci" else archive
    else:
        target = made.docker_archive(archive, layer, packed=shape == "docker, packed")
        if shape == "docker.tar.gz":
            target = made.write(tmp_path / "image.tar.gz", gzip.compress(target.read_bytes(), 1))
    report, unpacked = check(str(target)), check(str(root))
    there = f"inside {root}: "
    assert report.modules == [
        replace(one, fix=one.fix.replace(there, "inside the image: ")) for one in unpacked.modules
    ]
    assert report.numpy == unpacked.numpy
    assert [one.message for one in report.findings] == [one.message for one in unpacked.findings]


def test_what_a_later_layer_takes_away_is_gone(root: Path, tmp_path: Path, scratch: Path) -> None:
    first = made.layer_of(root)
    x = f"{DEBIAN}/h5py/_x.{TAG}"
    gone = made.tarred([made.member(f"{DEBIAN}/h5py/.wh._x.{TAG}")])
    folder_gone = made.tarred([made.member("opt/.wh.venv")])
    opaque = made.tarred(
        [
            made.member(f"{DEBIAN}/h5py/.wh..wh..opq"),
            made.member(f"{DEBIAN}/h5py/_y.{TAG}", made.compiled(made.FOR_1, "_y")),
        ]
    )
    replaced = made.tarred([made.member(x, made.compiled(made.FOR_2, "_x"))])
    linked = made.tarred(
        [
            made.member(f"{DEBIAN}/_z.{TAG}", type=b"1", linkname=x),  # a hard link to a file of the layer below
            made.member(f"{DEBIAN}/_s.{TAG}", type=b"2", linkname=f"/{x}"),
        ]
    )

    def judged(*layers: bytes) -> dict[str, Module]:
        return by_file(check(str(made.docker_archive(tmp_path / "image.tar", *layers))))

    assert judged(first)[x].verdict == "breaks"
    assert x not in judged(first, gone)
    assert judged(first, folder_gone)[x].verdict == "ok", "the environment with NumPy 2 is gone"
    found = judged(first, opaque)
    assert x not in found
    assert found[f"{DEBIAN}/h5py/_y.{TAG}"].verdict == "breaks"
    assert judged(first, replaced)[x].verdict == "ok"
    assert judged(first, gone, replaced)[x].verdict == "ok"
    found = judged(first, linked)
    assert found[f"{DEBIAN}/_z.{TAG}"].verdict == "breaks"
    assert f"{DEBIAN}/_s.{TAG}" not in found, "a link is no second module"


def test_an_images_pythonpath_counts(root: Path, tmp_path: Path, scratch: Path) -> None:
    shutil.rmtree(root / "opt")
    made.numpy(root / "app/deps", "2.2.0")
    archive = made.docker_archive(tmp_path / "i.tar", made.layer_of(root), variables=["PYTHONPATH=/app/deps:"])
    report = check(str(archive))
    assert report.numpy == "2.2.0"
    assert by_file(report)[f"{DEBIAN}/h5py/_x.{TAG}"].verdict == "breaks"


def test_nothing_in_an_image_leads_outside(tmp_path: Path, scratch: Path) -> None:
    secret = made.write(tmp_path / "secret/old.so", made.compiled(made.FOR_1, "old"))
    site = "usr/local/lib/python3.11/site-packages"
    layer = made.tarred(
        [
            made.member("usr/local/lib/python3.11/os.py"),
            made.member(f"{site}/numpy/__init__.py"),
            made.member(f"{site}/numpy/version.py", b'version = "2.2.0"'),
            made.member(f"{site}/link.so", type=b"2", linkname=str(secret)),
            made.member(f"{site}/up.so", type=b"2", linkname="../" * 20 + str(secret)[1:]),
            made.member(f"{site}/hard.so", type=b"1", linkname=str(secret)),
            made.member(f"../../../..{tmp_path}/written.so", made.compiled(made.FOR_1, "w")),
            made.member(f"{tmp_path}/absolute.so", made.compiled(made.FOR_1, "w")),
            made.member(f"{site}/device.so", type=b"3", devmajor=1, devminor=5),
            made.member(f"{site}/pipe.so", type=b"6"),
            made.member(".wh...", b""),
            made.member(f"{site}/good.so", made.compiled(made.FOR_1, "good")),
        ]
    )
    archive = made.docker_archive(tmp_path / "image.tar", layer)
    before = made.everything_below(tmp_path)
    report = check(str(archive))
    assert [Path(one.file).name for one in report.modules] == ["good.so"]
    assert made.everything_below(tmp_path) == before


def test_a_broken_image_is_said_to_be_broken(root: Path, tmp_path: Path, scratch: Path) -> None:
    archive = made.docker_archive(tmp_path / "image.tar", made.layer_of(root))
    whole = archive.read_bytes()

    def refused(content: bytes, match: str) -> None:
        archive.write_bytes(content)
        with pytest.raises(TargetUnreadable, match=match):
            check(str(archive))

    refused(whole[: len(whole) // 2], "image.tar")
    refused(gzip.compress(whole)[:-2000], "image.tar")
    refused(made.tarred([made.member("words.txt", b"hello")]), "no image")
    entry = {"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}
    refused(made.tarred([made.member("manifest.json", json.dumps([entry]).encode())]), "no layer l")
    refused(made.tarred([made.member("manifest.json", json.dumps([entry, entry]).encode())]), r"2 images \(a:1, a:1\)")
    refused(made.tarred([made.member("manifest.json", b'[{"Layers": 7}]')]), "manifest")
    zstd = made.member("l", b"\x28\xb5\x2f\xfd" + bytes(600))
    refused(made.tarred([zstd, made.member("manifest.json", json.dumps([entry]).encode())]), "zstd")
    pax = made.member("x", bytes(2 << 20), type=b"x")  # would be read into memory whole
    layer = made.tarred([pax])
    refused(
        made.tarred([made.member("l", layer), made.member("manifest.json", json.dumps([entry]).encode())]), "header"
    )
    assert list(Path(tempfile.gettempdir()).glob("camdock-abi-*")) == []


def test_an_endless_member_is_not_read_to_its_end(tmp_path: Path, scratch: Path) -> None:
    """A terabyte of zeros is a gigabyte when it is packed, and some bytes when only its header is there."""
    endless = tarfile.TarInfo("endless")
    endless.size = 1 << 40
    archive = made.write(tmp_path / "image.tar", endless.tobuf())
    with pytest.raises(TargetUnreadable, match="64 GB"):
        check(str(archive))
    layer = made.member("l", endless.tobuf() + bytes(1024))
    archive.write_bytes(made.tarred([layer]))
    with pytest.raises(TargetUnreadable, match="64 GB"):
        check(str(archive))


def test_an_images_name_is_given_to_docker(
    root: Path, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `docker` that does what the real one does with `save`, without a daemon."""
    archive = made.docker_archive(tmp_path / "image.tar", made.layer_of(root))
    command = made.write(
        tmp_path / "bin/docker",
        "#!/bin/sh\n"
        f'[ "$1 $2" = "save here/made:latest" ] && exec cat {archive}\n'
        'echo "Error response from daemon: No such image: $2" >&2; exit 1\n',
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    assert check("here/made").numpy == "2.2.0"
    with pytest.raises(TargetUnreadable, match="No such image: here/absent:1"):
        check("here/absent:1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnreadable, match="docker"):
        check("here/made")
