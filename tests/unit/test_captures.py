"""The folder of captures: names, order, whole or not there, leftovers, pages, pruning, a disk that refuses."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from camdock import captures as module
from camdock.captures import NAME, Captures
from camdock.errors import CaptureMissing, StorageFailed, StorageFull
from camdock.frame import Still
from camdock.settings import Settings

AT = datetime(2026, 10, 17, 1, 2, 3, 4999).timestamp()
SENSOR = {"exposure_us": 9_987, "gain": 1.5, "colour_temperature_k": 4700, "timestamp_ns": 67_555_780_425_350}


def still(data: bytes = b"\xff\xd8picture\xff\xd9", at: float = AT, still_format: str = "JPG") -> Still:
    settings = Settings(10_000, 1.5, False)
    return Still(data, still_format, (64, 48), 7, at, settings, "front", "synthetic:", "a card", sensor=SENSOR)


def add(captures: Captures, **more: Any) -> str:
    return captures._add(still(**more))[0].filename


def names(captures: Captures, limit: int | None = None, before: str | None = None) -> list[str]:
    return [one.filename for one in asyncio.run(captures.page(limit, before)).captures]


# --- adding -----------------------------------------------------------------------------------------------------------


def test_a_capture_is_the_bytes_and_their_metadata(tmp_path: Path) -> None:
    captures = Captures(tmp_path / "made" / "here")
    capture, metadata = asyncio.run(captures.add(still()))
    assert capture.filename == "capture_20261017_010203_004.jpg"
    assert capture.path.read_bytes() == still().data
    assert capture.size_bytes == len(still().data)
    assert metadata == asyncio.run(captures.metadata(capture.filename)) == {
        "camera": "front", "source": "synthetic:", "device": "a card", "seq": 7, "captured_at": AT, "format": "JPG",
        "size": {"width": 64, "height": 48}, "size_bytes": len(still().data),
        "sha256": hashlib.sha256(still().data).hexdigest(),
        "settings": {"exposure_us": 10_000, "gain": 1.5, "auto_exposure": False}, "sensor": SENSOR,
    }  # fmt: skip
    assert sorted(os.listdir(captures.folder)) == [capture.filename, capture.filename + ".json"]


@pytest.mark.parametrize(("still_format", "ending"), [("PNG", "png"), ("TIFF", "tiff")])
def test_the_name_ends_as_the_format_does(tmp_path: Path, still_format: str, ending: str) -> None:
    assert add(Captures(tmp_path), still_format=still_format) == f"capture_20261017_010203_004.{ending}"


def test_many_in_one_millisecond_overwrite_nothing(tmp_path: Path) -> None:
    one, other = Captures(tmp_path), Captures(tmp_path)  # two services on one folder

    def adding(number: int) -> str:
        return add((one, other)[number % 2], data=b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        added = list(pool.map(adding, range(100)))
    assert len(set(added)) == 100
    assert all(NAME.fullmatch(name) for name in added)
    assert [(tmp_path / name).read_bytes() for name in added] == [b"%d" % number for number in range(100)]
    assert max(added) == "capture_20261017_010203_103.jpg"
    for number, name in enumerate(added):
        told = json.loads((tmp_path / (name + ".json")).read_text())
        assert told["sha256"] == hashlib.sha256(b"%d" % number).hexdigest(), "the metadata of another picture"


def test_the_last_millisecond_of_a_year_is_followed_by_the_next_one(tmp_path: Path) -> None:
    captures, at = Captures(tmp_path), datetime(2026, 12, 31, 23, 59, 59, 999_500).timestamp()
    assert [add(captures, at=at) for _ in range(2)] == [
        "capture_20261231_235959_999.jpg",
        "capture_20270101_000000_000.jpg",
    ]


def test_a_picture_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "capture_20261017_010203_004.jpg").write_bytes(b"the old service's")
    captures = Captures(tmp_path)
    assert add(captures) == "capture_20261017_010203_005.jpg"
    assert (tmp_path / "capture_20261017_010203_004.jpg").read_bytes() == b"the old service's"
    with pytest.raises(CaptureMissing, match="no metadata"):
        asyncio.run(captures.metadata("capture_20261017_010203_004.jpg"))


def test_the_picture_has_its_name_only_once_all_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every sync: what a power cut would leave. The picture is never there without its metadata, nor unsynced."""
    seen: list[tuple[bool, bool, int]] = []
    real = os.fsync
    name = "capture_20261017_010203_004.jpg"

    def fsync(descriptor: int) -> None:
        real(descriptor)
        sidecar = tmp_path / (name + ".json")
        seen.append(((tmp_path / name).exists(), sidecar.exists(), sidecar.stat().st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    assert add(Captures(tmp_path)) == name
    assert len(seen) == 4  # picture, metadata, folder, folder
    assert [whole for whole, _, _ in seen] == [False, False, False, True]
    assert seen[2][1]
    assert seen[2][2] == seen[3][2] > 100


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageFailed)]
)
def test_a_disk_that_refuses_at_any_moment_leaves_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: int, error: type[StorageFailed]
) -> None:
    captures = Captures(tmp_path)
    before = add(captures)
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    left, real = [at], os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(error) as caught:
        add(captures)
    assert caught.value.code == ("storage_full" if error is StorageFull else "storage_failed")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there
    monkeypatch.setattr(os, "fsync", real)
    assert names(captures) == [before]
    assert add(captures) != before


def at_sync(monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], object]) -> None:
    """Have something happen behind the sync of that number, counted from 1: picture, metadata, folder, folder."""
    left, real = [number], os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        left[0] -= 1
        if left[0] == 0:
            happens()

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_picture_that_another_program_makes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "capture_20261017_010203_004.jpg"
    at_sync(monkeypatch, 3, lambda: other.write_bytes(b"the old service's"))
    assert add(Captures(tmp_path)) == "capture_20261017_010203_005.jpg"
    assert other.read_bytes() == b"the old service's"
    assert len(os.listdir(tmp_path)) == 3, "its own picture and metadata, and the other one"


def test_a_picture_that_another_program_makes_meanwhile_outlives_our_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "capture_20261017_010203_004.jpg"

    def full() -> None:
        other.write_bytes(b"the old service's")
        raise OSError(errno.ENOSPC, "No space left on device")

    at_sync(monkeypatch, 3, full)
    with pytest.raises(StorageFull):
        add(Captures(tmp_path))
    assert os.listdir(tmp_path) == [other.name]


def test_a_capture_that_is_deleted_as_soon_as_it_is_there_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures, began = Captures(tmp_path), time.time()
    at_sync(monkeypatch, 4, lambda: captures._delete("capture_20261017_010203_004.jpg"))
    capture, _ = captures._add(still())
    assert began - 1 < capture.modified < time.time() + 1


def test_a_file_system_without_hard_links_keeps_captures_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_names: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    name = add(Captures(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [name, name + ".json"]


def test_a_folder_that_had_to_be_made_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    add(Captures(tmp_path / "made" / "here"))
    assert synced[:2] == [str(tmp_path / "made"), str(tmp_path)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    captures = Captures(tmp_path / "file" / "captures")
    with pytest.raises(StorageFailed) as caught:
        add(captures)
    assert str(tmp_path / "file") in caught.value.message
    assert "CAMDOCK_CAPTURES_DIR" in caught.value.hint
    with pytest.raises(StorageFailed):
        names(captures)


# --- listing ----------------------------------------------------------------------------------------------------------


def test_the_newest_come_first_in_pages_that_do_not_move(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    assert names(captures) == []
    added = [add(captures, at=AT + second) for second in range(7)]
    newest = added[::-1]
    page = asyncio.run(captures.page(3))
    assert ([one.filename for one in page.captures], page.count) == (newest[:3], 7)
    add(captures, at=AT + 100)
    second = asyncio.run(captures.page(3, page.before))
    assert [one.filename for one in second.captures] == newest[3:6]
    last = asyncio.run(captures.page(3, second.before))
    assert ([one.filename for one in last.captures], last.before) == (newest[6:], None)
    assert asyncio.run(captures.page(7, added[-1])).before is None
    assert names(captures, 3, "") == []


def test_only_captures_are_listed(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    name = add(captures)
    for other in ("notes.txt", f".{name}.tmp", "capture_1.jpg", name + ".bak", "capture_20261017_010203_004.exe"):
        (tmp_path / other).touch()
    assert names(captures) == [name]


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_are_listed_without_a_look_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    captures = Captures(tmp_path)
    for number in range(count):
        (tmp_path / f"capture_20261017_{number // 1000:06d}_{number % 1000:03d}.jpg").touch()
    looked_at: list[str] = []
    real = captures._stat
    monkeypatch.setattr(captures, "_stat", lambda name: looked_at.append(name) or real(name))
    page = captures._page(100, None)
    assert (len(page.captures), page.count, len(looked_at)) == (100, count, 100)


# --- reading and deleting ---------------------------------------------------------------------------------------------

WHOLE = "capture_20261017_010203_004.jpg"
OUTSIDE = ["../secret.jpg", "/etc/passwd", f"{WHOLE}/../../x", f"{WHOLE}\n", f"{WHOLE}.json", f".{WHOLE}.tmp", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_other_name_leads_anywhere(tmp_path: Path, name: str) -> None:
    captures = Captures(tmp_path)
    add(captures)
    for asked in (captures.open, captures.metadata, captures.delete):
        with pytest.raises(CaptureMissing):
            asyncio.run(asked(name))
    assert len(os.listdir(tmp_path)) == 2


def test_an_open_capture_is_read_to_its_end_though_it_is_deleted(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    name = add(captures)
    opened = asyncio.run(captures.open(name))
    asyncio.run(captures.delete(name))
    assert os.listdir(tmp_path) == []
    with opened.file:
        assert opened.file.read() == still().data
    assert opened.etag == f'"{hashlib.sha256(still().data).hexdigest()}"'
    assert opened.media_type == "image/jpeg"
    with pytest.raises(CaptureMissing):
        asyncio.run(captures.delete(name))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b"{}", b'{"sha256": null}', b'{"sha256": 7}', '{"sha256": "\u2603"}'.encode(),
     b'{"sha256": "a\\r\\nSet-Cookie: b"}'],
)  # fmt: skip
def test_metadata_that_was_changed_takes_nothing_from_the_picture(tmp_path: Path, content: bytes) -> None:
    captures = Captures(tmp_path)
    name = add(captures)
    (tmp_path / (name + ".json")).write_bytes(content)
    opened = asyncio.run(captures.open(name))
    with opened.file:
        assert opened.file.read() == still().data
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', opened.etag)


# --- pruning ----------------------------------------------------------------------------------------------------------


def test_the_oldest_are_deleted_above_the_size_and_the_newest_never(tmp_path: Path) -> None:
    captures = Captures(tmp_path, max_bytes=250)
    added = [add(captures, data=bytes(100), at=AT + second) for second in range(5)]
    assert captures.prune() == 3
    assert names(captures) == added[:2:-1]
    assert len(os.listdir(tmp_path)) == 4, "their metadata went with them"
    assert captures.prune() == 0
    large = add(captures, data=bytes(1000), at=AT + 9)
    assert captures.prune() == 2
    assert names(captures) == [large]


def test_the_old_ones_are_deleted_by_the_date_of_their_files(tmp_path: Path) -> None:
    captures = Captures(tmp_path, max_age_days=2)
    added = [add(captures, at=AT + second) for second in range(4)]
    for name, days in zip(added, (5, 3, 1, 9), strict=True):
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    assert captures.prune() == 3
    assert names(captures) == [added[2]]
    os.utime(tmp_path / added[2], (0, 0))
    assert captures.prune() == 0, "the newest one stays however old"


def test_the_newest_stays_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """As it is every autumn, or where a machine without a battery has started: by its name it is the oldest."""
    captures = Captures(tmp_path, max_bytes=250)
    added = [add(captures, data=bytes(100), at=AT - 1000 * number) for number in range(4)]
    for number, name in enumerate(added):
        os.utime(tmp_path / name, (1_000_000 + number,) * 2)
    assert captures.prune() == 2
    assert names(captures) == added[2:]


def test_nothing_is_deleted_unless_somebody_says_so(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    name = add(captures)
    os.utime(tmp_path / name, (0, 0))
    add(captures, data=bytes(10_000), at=AT + 1)
    assert captures.prune() == 0


def test_a_capture_has_the_others_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRUNE_PAUSE_S", 0.0)
    captures = Captures(tmp_path, max_bytes=150)
    pruned, real = threading.Event(), captures.prune

    def prune() -> int:
        deleted = real()
        if names(captures) == ["capture_20261017_010206_004.jpg"]:
            pruned.set()
        return deleted

    monkeypatch.setattr(captures, "prune", prune)

    async def capturing() -> None:
        captures.start()
        for second in range(4):
            await captures.add(still(bytes(100), AT + second))
        assert await asyncio.wait_for(asyncio.to_thread(pruned.wait, 5), 6)
        await captures.stop()

    asyncio.run(capturing())


def test_a_look_through_that_fails_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PRUNE_PAUSE_S", 0.0)
    captures = Captures(tmp_path, max_bytes=150)
    turns: list[int] = []
    failed, looked, real = threading.Event(), threading.Event(), captures.prune

    def prune() -> int:
        turns.append(1)
        if len(turns) == 1:
            failed.set()
            raise RuntimeError("can't start new thread")
        looked.set()
        return real()

    monkeypatch.setattr(captures, "prune", prune)

    async def capturing() -> None:
        captures.start()
        assert await asyncio.to_thread(failed.wait, 5)
        await captures.add(still())
        assert await asyncio.to_thread(looked.wait, 5)
        await captures.stop()

    asyncio.run(capturing())
    assert "can't start new thread" in caplog.text


def test_a_mistake_of_ours_that_ends_it_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    captures = Captures(tmp_path)
    monkeypatch.setattr(captures, "sweep", lambda: 1 // 0)

    async def starting() -> None:
        captures.start()
        assert captures._task is not None
        await asyncio.wait((captures._task,), timeout=5)
        await asyncio.sleep(0)  # its callbacks

    asyncio.run(starting())
    assert "please report it" in caplog.text


def test_a_caller_who_leaves_has_the_others_looked_through_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures, go = Captures(tmp_path), threading.Event()
    at_sync(monkeypatch, 1, lambda: go.wait(5))

    async def leaving() -> None:
        adding = asyncio.create_task(captures.add(still()))
        await asyncio.sleep(0)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        go.set()
        await asyncio.wait_for(captures._added.wait(), 5)

    asyncio.run(leaving())
    assert len(names(captures)) == 1


# --- leftovers --------------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    name = add(captures)
    half, claimed = "capture_20261017_050000_000.jpg", "capture_20261017_060000_000.jpg"
    (tmp_path / f".{half}.tmp").write_bytes(b"\xff\xd8ha")
    (tmp_path / f"{half}.json").write_bytes(b"{")
    (tmp_path / f"{claimed}.json").touch()
    (tmp_path / f".{name}.tmp").touch()  # of a whole one: not ours to judge, and hidden
    for others in ("notes.json", ".other.tmp", "picture.jpg"):
        (tmp_path / others).touch()
    assert captures.sweep() == 3
    assert sorted(os.listdir(tmp_path)) == sorted(
        [name, f"{name}.json", f".{name}.tmp", "notes.json", ".other.tmp", "picture.jpg"]
    )


def test_what_another_process_is_writing_is_left_to_it(tmp_path: Path) -> None:
    name = "capture_20261017_050000_000.jpg"
    (tmp_path / f".{name}.tmp").touch()
    with (tmp_path / f"{name}.json").open("wb") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        assert Captures(tmp_path).sweep() == 0
    assert Captures(tmp_path).sweep() == 2


def test_nobody_can_take_what_is_being_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that took a claim between the look at it and its removal would lose its metadata."""
    claimed, unclaimed = "capture_20261017_050000_000.jpg", "capture_20261017_060000_000.jpg"
    for file in (f"{claimed}.json", f".{claimed}.tmp", f".{unclaimed}.tmp"):
        (tmp_path / file).touch()
    removed: list[str] = []
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        name = path.name.removeprefix(".").removesuffix(".tmp").removesuffix(".json")
        with (tmp_path / f"{name}.json").open("rb+") as claim, pytest.raises(BlockingIOError):
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        removed.append(path.name)
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert Captures(tmp_path).sweep() == 3
    assert len(removed) == 4, "with the claim of the one that had none"
    assert os.listdir(tmp_path) == []


def test_an_entry_that_cannot_be_removed_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for hour in range(3):
        (tmp_path / f"capture_20261017_0{hour}0000_000.jpg.json").touch()
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if "_000000_" in path.name:
            raise OSError(errno.EIO, "Input/output error", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert Captures(tmp_path).sweep() == 2
    assert "Input/output error" in caplog.text


def test_a_file_in_the_folders_place_is_told_at_start_with_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    captures = Captures(tmp_path / "file", max_bytes=1)
    assert (captures.sweep(), captures.prune()) == (0, 0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(f"{tmp_path}/file: Not a directory -- point CAMDOCK_CAPTURES_DIR at a folder" in one for one in told)


def test_a_folder_that_is_not_there_yet_has_no_leftovers(tmp_path: Path) -> None:
    assert Captures(tmp_path / "none").sweep() == 0


def test_the_metadata_is_readable_json_for_people(tmp_path: Path) -> None:
    name = add(Captures(tmp_path))
    text = (tmp_path / (name + ".json")).read_text()
    assert text.count("\n") > 10
    assert json.loads(text)["camera"] == "front"


def test_a_folder_that_hangs_holds_up_nothing_but_captures(tmp_path: Path) -> None:
    async def run() -> None:
        captures, hangs = Captures(tmp_path), threading.Event()
        waiting = [asyncio.create_task(captures.aside(hangs.wait)) for _ in range(64)]
        try:
            async with asyncio.timeout(10):
                assert await asyncio.to_thread(lambda: "kept") == "kept"  # as settings are
        finally:
            hangs.set()
        assert all(await asyncio.gather(*waiting))
        await captures.stop()

    asyncio.run(run())
