"""Wheels, well and ill meant."""

import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from camdock.abi.check import Report, check
from camdock.abi.targets import TargetUnreadable
from tests.abi import made

INFO = {"thing-1.0.dist-info/METADATA": "Name: thing\nVersion: 1.0\n\n", "thing-1.0.dist-info/RECORD": ""}
pytestmark = pytest.mark.usefixtures("scratch")


def summary(report: Report) -> list[tuple[str, str, str, str]]:
    return [(one.file, one.module, one.verdict, one.package) for one in report.modules]


def test_a_wheel_is_judged_where_it_would_be_installed(tmp_path: Path) -> None:
    records = "thing/a.so,sha256=x,1\nthing-1.0.data/platlib/thing/b.so,,\n"
    path = made.wheel(
        tmp_path / "thing-1.0-cp311-cp311-linux_x86_64.whl",
        {
            **INFO,
            "thing-1.0.dist-info/RECORD": records,
            "thing/a.so": made.compiled(made.FOR_2, "a"),
            "thing-1.0.data/platlib/thing/b.so": made.compiled(made.FOR_1, "b"),
            "thing-1.0.data/purelib/thing/c.so": made.compiled(made.NONE, "c"),
        },
    )
    assert summary(check(str(path), "2.2.0")) == [
        ("thing/b.so", "thing.b", "breaks", "thing 1.0"),
        ("thing/a.so", "thing.a", "ok", "thing 1.0"),
        ("thing/c.so", "thing.c", "ok", ""),
    ]
    assert [one.rule for one in check(str(path)).modules] == ["numpy-unknown", "numpy-unknown", "no-numpy"]


def test_numpys_own_wheel_is_judged_by_itself(tmp_path: Path) -> None:
    made.numpy(tmp_path / "n", "2.2.0")
    files = {name: (tmp_path / "n" / name).read_bytes() for name in made.everything_below(tmp_path / "n")}
    report = check(str(made.wheel(tmp_path / "numpy-2.2.0-cp311-cp311-linux_x86_64.whl", files)))
    assert report.numpy == "2.2.0"
    assert [one.rule for one in report.modules] == ["numpy-itself"]


@pytest.mark.parametrize(
    "name", ["../outside.so", "/etc/outside.so", "a/../../outside.so", "..\\outside.so", "C:/outside.so"]
)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    path = made.wheel(folder / "x.whl", {name: made.compiled(made.FOR_1)})
    before = made.everything_below(tmp_path)
    with pytest.raises(TargetUnreadable, match="outside of where it is installed"):
        check(str(path), "2.2.0")
    assert made.everything_below(tmp_path) == before


def spoiled(path: Path, find: bytes, replace: bytes) -> Path:
    """The archive with bytes of its directory and headers changed."""
    content = path.read_bytes()
    assert find in content
    path.write_bytes(content.replace(find, replace))
    return path


def unreadable(report: Report) -> list[tuple[str, str]]:
    return [(one.file, one.evidence) for one in report.modules if one.rule == "unreadable"]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = made.wheel(tmp_path / "x.whl", {"bomb.so": bytes(64 << 20), "good.so": made.compiled(made.FOR_1, "good")})
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    report = check(str(path), "2.2.0")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ((file, evidence),) = unreadable(report)
    assert file == "bomb.so"
    assert "zip bomb" in evidence
    assert [one.verdict for one in report.modules] == ["breaks", "unknown"]
    assert most < 16 << 20, "the 64 MB were not unpacked"


def test_sizes_that_lie_are_found_out(tmp_path: Path) -> None:
    content = made.compiled(made.FOR_1, "m")
    path = made.wheel(tmp_path / "x.whl", {"m.so": content})
    size = struct.pack("<I", len(content))
    for lie in (len(content) + 1000, len(content) - 1000, 0, 0x7FFFFFFF):
        other = tmp_path / f"{lie}.whl"
        other.write_bytes(path.read_bytes())
        report = check(str(spoiled(other, size, struct.pack("<I", lie))), "2.2.0")
        assert len(unreadable(report)) == 1, lie


def test_an_encrypted_file_is_said_to_be_encrypted(tmp_path: Path) -> None:
    path = made.wheel(tmp_path / "x.whl", {"m.so": made.compiled(made.FOR_1, "m")})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    content[start + 8] |= 1  # the flag of the directory's entry
    path.write_bytes(content)
    assert unreadable(check(str(path), "2.2.0")) == [("m.so", "is encrypted")]


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_is_packed_unlike_a_wheel_is_not_unpacked(tmp_path: Path, compression: int) -> None:
    path = made.wheel(tmp_path / "x.whl", {"m.so": made.compiled(made.FOR_1, "m")}, compression)
    assert unreadable(check(str(path), "2.2.0")) == [("m.so", "is packed in a way that wheels are not")]


def test_damage_to_one_file_leaves_the_others(tmp_path: Path) -> None:
    good, bad = made.compiled(made.FOR_1, "good"), made.compiled(made.FOR_1, "bad")
    path = made.wheel(tmp_path / "x.whl", {"bad.so": bad, "good.so": good}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    at = content.index(bad) + 2000
    path.write_bytes(content[:at] + b"!" + content[at + 1 :])
    report = check(str(path), "2.2.0")
    assert [(one.file, one.rule) for one in report.modules] == [("good.so", "built-for-1"), ("bad.so", "unreadable")]
    assert "CRC" in report.modules[1].evidence


def test_a_truncated_wheel_is_said_to_be_truncated(tmp_path: Path) -> None:
    path = made.wheel(tmp_path / "x.whl", {"m.so": made.compiled(made.FOR_1)})
    whole = path.read_bytes()
    for kept in (0, 3, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:kept])
        with pytest.raises(TargetUnreadable, match="truncated or damaged"):
            check(str(path), "2.2.0")


def test_a_directory_of_a_million_files_is_not_read(tmp_path: Path) -> None:
    """zipfile would make an object of every entry before anybody could count them."""
    path = tmp_path / "x.whl"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0)
    with path.open("wb") as file:
        for number in range(200_000):
            file.write(entry + b"%08d" % number)
        size = file.tell()
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0))
    tracemalloc.start()
    with pytest.raises(TargetUnreadable, match="8 MB"):
        check(str(path), "2.2.0")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20


def test_a_wheel_in_a_wheel_is_not_opened(tmp_path: Path) -> None:
    inner = made.wheel(tmp_path / "in.whl", {"m.so": made.compiled(made.FOR_1)})
    outer = made.wheel(tmp_path / "out.whl", {"in.whl": inner.read_bytes(), "in.so": inner.read_bytes()})
    assert check(str(outer), "2.2.0").modules == []


@pytest.mark.slow
def test_large_files_take_disk_and_not_memory(tmp_path: Path) -> None:
    """Half a gigabyte of a library in a wheel, that says NumPy everywhere: below 300 MB all the same."""
    path = tmp_path / "large.whl"
    content = made.compiled(made.FOR_1, "m")
    block = bytes(range(256)) * 4095 + b"numpy " * 170
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive, archive.open("m.so", "w", force_zip64=True) as file:
        file.write(content)
        for _ in range(512):
            file.write(block)
    program = (
        "import re, sys; from camdock.abi.check import check; r = check(sys.argv[1], '2.2.0'); "
        # not ru_maxrss: that one counts what the process that started this one had
        "most = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]; "
        "print(r.modules[0].rule, int(most) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    rule, most = done.stdout.split()
    assert rule == "built-for-1"
    assert int(most) < 300
