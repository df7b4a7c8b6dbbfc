"""The number that stands for what is installed, the file of answers, and the seal."""

from __future__ import annotations

import json
import os
import shutil
import site
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from camdock.installed import KEPT, Answers, Seal, fingerprint

NAMES = ("grain", "lens")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to import from with an installed package `grain`, its libraries beside it, and another package."""
    folder = tmp_path / "site-packages"
    for name, text in {
        "grain/__init__.py": "",
        "grain/deep/_grain.cpython-311-x86_64-linux-gnu.so": "compiled",
        "grain_dist.libs/libgrain-1234.so.1": "linked",
        "grain-1.0.dist-info/METADATA": "Name: grain",
        "grain-1.0.dist-info/RECORD": "grain/__init__.py,,",
        "other/_other.so": "compiled",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def with_times_put_back(file: Path, text: str) -> None:
    """Other bytes of the same length with the same mtime: only ctime tells."""
    before = file.stat()
    assert len(text) == before.st_size
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def upgraded(place: Path) -> None:
    """What pip does to the files that are not compiled."""
    (place / "grain-1.0.dist-info").rename(place / "grain-1.1.dist-info")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a compiled file is edited": lambda p: with_times_put_back(next(p.glob("grain/deep/*.so")), "COMPILED"),
    "a compiled file is added": lambda p: (p / "grain" / "_more.abi3.so").touch(),
    "a compiled file is removed": lambda p: next(p.glob("grain/deep/*.so")).unlink(),
    "a linked library is edited": lambda p: with_times_put_back(next(p.glob("grain_dist.libs/*")), "LINKED"),
    "another version": upgraded,
    "another record": lambda p: (p / "grain-1.0.dist-info" / "RECORD").write_text("other"),
    "another package is installed": lambda p: (p / "numpy-2.0.0.dist-info").mkdir(),
    "a single file module of that name": lambda p: (p / "lens.cpython-311-x86_64-linux-gnu.so").touch(),
    "a copy before it": lambda p: sys.path.insert(0, str(p / "other")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_that_the_check_could_see_changes_the_number(
    place: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = fingerprint(NAMES)
    change(place)
    assert fingerprint(NAMES) != before


def test_the_number_stays_while_nothing_of_that_changes(place: Path) -> None:
    before = fingerprint(NAMES)
    (place / "grain" / "__pycache__").mkdir()
    (place / "other" / "_other.so").write_text("edited")
    assert fingerprint(NAMES) == before
    assert fingerprint(NAMES[::-1]) == before
    assert fingerprint(("grain",)) != before


def test_what_only_a_child_would_import_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = fingerprint(NAMES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    there = fingerprint(NAMES)
    (tmp_path / "grain").mkdir()
    assert len({alone, there, fingerprint(NAMES)}) == 3


def test_the_folder_that_it_is_started_in_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(NAMES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grain").mkdir()
    assert fingerprint(NAMES) == before


def test_a_folder_that_is_not_there_any_more_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.syspath_prepend(str(tmp_path / "never"))
    assert fingerprint(NAMES) == fingerprint(NAMES)


@pytest.mark.parametrize("shipped", [False, True])
def test_a_link_that_leads_nowhere_does_not_keep_the_rest_from_being_looked_at(
    place: Path, tmp_path: Path, *, shipped: bool
) -> None:
    before = fingerprint(NAMES, shipped=shipped)
    (place / "round").symlink_to("round")
    (place / "lens").symlink_to("lens")
    (place / "far").symlink_to(tmp_path / ("x" * 300))
    after = fingerprint(NAMES, shipped=shipped)
    (place / "grain" / "_more.abi3.so").touch()
    assert fingerprint(NAMES, shipped=shipped) != after
    assert shipped or after != before, "one of them has a name that is asked for"


@pytest.mark.parametrize("shipped", [False, True])
def test_a_folder_that_a_package_links_to_counts_and_a_link_round_ends(
    place: Path, tmp_path: Path, *, shipped: bool
) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    (place / "grain" / "linked").symlink_to(apart)
    (apart / "back").symlink_to(place / "grain")
    before = fingerprint(NAMES, shipped=shipped)
    (apart / "_more.abi3.so").touch()
    assert fingerprint(NAMES, shipped=shipped) != before


# --- the file of answers ----------------------------------------------------------------------------------------------


def test_an_answer_is_found_again_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "abi.json"
    for number in range(KEPT + 2):
        Answers(path).put(f"key {number}", {"number": number})
    Answers(path).put("key 5", {"number": "again"})
    found = [Answers(path).get(f"key {number}") for number in range(KEPT + 2)]
    assert found[:2] == [None, None]
    assert found[5] == {"number": "again"}
    assert [one["number"] for one in found[2:5] + found[6:]] == [2, 3, 4, 6, 7, 8, 9]
    assert [file.name for file in path.parent.iterdir()] == ["abi.json"], "no temporary file stays"


@pytest.mark.parametrize(
    "spoiled",
    [b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b'{"format": 1}', b'{"format": 1, "answers": []}', b"[" * 100_000,
     b'{"format": 99, "answers": {"key": {}}}'],
)  # fmt: skip
def test_a_spoiled_file_is_as_good_as_none_and_is_replaced(tmp_path: Path, spoiled: bytes) -> None:
    path = tmp_path / "abi.json"
    path.write_bytes(spoiled)
    assert Answers(path).get("key") is None
    Answers(path).put("key", {"number": 1})
    assert json.loads(path.read_bytes())["answers"] == {"key": {"number": 1}}


def test_a_place_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="camdock")
    (tmp_path / "file").touch()
    answers = Answers(tmp_path / "file" / "abi.json")
    answers.put("key", {})
    assert answers.get("key") is None
    assert "not kept" in caplog.text
    Answers(None).put("key", {})
    assert Answers(None).get("key") is None


# --- the seal ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, sealed as an image's build does it: every file with the same old date."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    for file in place.rglob("*"):
        os.utime(file, (946684800, 946684800))
    Seal.of(NAMES, "2.4.6").write()
    return place


def test_a_seal_is_whole_for_what_it_covers_and_for_nothing_else(sealed: Path) -> None:
    assert Seal.whole(NAMES) == Seal.of(NAMES, "2.4.6")
    assert Seal.whole(["lens"]) == Seal.of(NAMES, "2.4.6")
    assert Seal.whole([*NAMES, "numpy"]) is None
    assert stat.S_IMODE(Seal.path().stat().st_mode) == 0o644, "whoever runs the service reads it"
    assert [file.name for file in Seal.path().parent.iterdir()] == ["seal.json"]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_is_installed_edited_or_removed_breaks_the_seal(
    sealed: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="camdock")
    monkeypatch.setattr(sys, "path", list(sys.path))
    if change in (CHANGES["a compiled file is edited"], CHANGES["a linked library is edited"]):
        change(sealed)
        assert Seal.whole(NAMES) is not None, "whoever puts the times back is not found out: `camdock seal` says so"
        for file in sealed.rglob("*.so*"):
            file.touch()
    else:
        change(sealed)
    if change is CHANGES["a copy before it"]:
        # A folder without anything of these names changes nothing that is imported, and may be anywhere.
        assert Seal.whole(NAMES) is not None
        (sealed / "other" / "grain").mkdir()
    assert Seal.whole(NAMES) is None
    assert "since this environment was sealed" in caplog.text


def test_another_home_another_user_and_a_copy_of_the_files_do_not_break_it(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in sealed.rglob("*"):  # as unpacking does: another inode, another ctime
        if file.is_file():
            copy = file.with_name(file.name + "~")
            shutil.copy2(file, copy)
            copy.replace(file)
    for folder in [file for file in sealed.rglob("*") if file.is_dir()]:
        for number in range(500):  # a folder's size says what a file system needed for it: other ones need other sizes
            (folder / f"{number:0200}").touch()
        for number in range(500):
            (folder / f"{number:0200}").unlink()
        os.utime(folder, (946684800, 946684800))
    (sealed / "grain" / "__pycache__").mkdir()
    for home in (tmp_path / "nowhere", tmp_path):
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(site, "USER_BASE", None)
        monkeypatch.setattr(site, "USER_SITE", None)
        assert Seal.whole(NAMES) is not None


def test_a_module_of_that_name_in_the_home_breaks_it(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "home"))
    assert Seal.whole(NAMES) is not None
    (tmp_path / "home" / "lens").mkdir(parents=True)
    assert Seal.whole(NAMES) is None


def test_python_and_python3_of_one_environment_are_the_same(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", sys.executable + "3")
    assert Seal.whole(NAMES) is not None
    monkeypatch.setattr(sys, "version", "3.99")
    assert Seal.whole(NAMES) is None


@pytest.mark.parametrize(
    "spoiled",
    [b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b'{"format": 1}',
     b'{"format": 1, "names": 3, "state": "", "numpy": ""}',
     b'{"format": 99, "names": ["grain", "lens"], "state": "", "numpy": ""}', b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_seal_is_as_good_as_none(sealed: Path, spoiled: bytes) -> None:
    Seal.path().write_bytes(spoiled)
    assert Seal.whole(NAMES) is None
    Seal.path().unlink()
    assert Seal.whole(NAMES) is None
    Seal.path().mkdir()
    assert Seal.whole(NAMES) is None


def test_a_seal_with_another_environments_number_is_broken(sealed: Path) -> None:
    kept = json.loads(Seal.path().read_bytes())
    Seal.path().write_text(json.dumps({**kept, "state": "0" * 64}))
    assert Seal.whole(NAMES) is None
