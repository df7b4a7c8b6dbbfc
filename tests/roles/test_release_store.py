"""Releases, history and journal on the disk: whole at any time, and read with a sentence for whatever is wrong."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.roles.release import disk, errors, make_release, store


@pytest.fixture
def kept(tmp_path: Path) -> store.Store:
    for created, name in enumerate(("a", "b", "c")):
        make_release(tmp_path, name, created)
    return store.Store(tmp_path)


def confirm(kept: store.Store, *names: str) -> None:
    for name in names:
        kept.begin(kept.release(name), is_rollback=False)
        kept.point_at(kept.release(name))
        kept.confirm()


def names(root: Path) -> set[str]:
    return {one.name for one in root.iterdir()}


# --- the disk -------------------------------------------------------------------------------------------------------


def test_a_file_is_synced_before_it_gets_its_name_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    disk.write_whole(tmp_path / "x.json", {"a": 1})
    assert steps == ["sync .x.json.new", "rename", f"sync {tmp_path.name}"]
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    steps.clear()
    disk.link(tmp_path / "y", "x.json")
    disk.link(tmp_path / "y", "other")
    assert steps == ["rename", f"sync {tmp_path.name}"] * 2
    assert os.readlink(tmp_path / "y") == "other"


def test_what_cannot_be_written_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write_whole(tmp_path / "x.json", {"a": 1})

    def is_full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(OSError, match="No space"):
        disk.write_whole(tmp_path / "x.json", {"a": 2})
    assert names(tmp_path) == {"x.json"}
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_a_full_disk_is_named_with_the_room_that_is_left(tmp_path: Path) -> None:
    told = disk.full(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert told.startswith(f"the file system of {tmp_path} is full: ")
    assert "prune" in told
    assert disk.full(OSError(errno.EROFS, "Read-only file system", "/x"), tmp_path) == "/x: Read-only file system"


# --- releases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"port": None}, "port is missing, or not of its kind"),
        ({"cameras": "front"}, "cameras is missing, or not of its kind"),
        ({"port": True}, "port is missing, or not of its kind"),
        ({"id": "other"}, "is of another release: other"),
        ({"mode": "snap"}, "mode is native or container, not 'snap'"),
        ({"gate": "perhaps"}, "gate is pictures, live or off, not 'perhaps'"),
        ({"cameras": []}, "it names no camera"),
    ],
)
def test_a_release_that_is_not_as_agreed_is_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    make_release(tmp_path, "a", **changed)
    with pytest.raises(errors.Refused, match=said):
        store.Store(tmp_path).release("a")


def test_an_id_is_no_path(kept: store.Store) -> None:
    for name in ("../a", "", ".a", "a/b", "a\n"):
        with pytest.raises(errors.Refused, match="is not the id of a release"):
            kept.release(name)
    with pytest.raises(errors.Refused, match="there is no release d; there are: a, b, c"):
        kept.release("d")


@pytest.mark.parametrize("missing", ["camdock.service", "build", "camdock.env", "release.json"])
def test_a_release_that_is_not_whole_is_refused(kept: store.Store, missing: str) -> None:
    (kept.releases / "a" / missing).unlink()
    with pytest.raises(errors.Refused, match="whole"):
        kept.release("a").check_whole()


def test_a_container_release_needs_its_compose_file(kept: store.Store) -> None:
    folder = make_release(kept.root, "d", mode="container")
    with pytest.raises(errors.Refused, match=r"compose\.yaml is missing"):
        kept.release("d").check_whole()
    (folder / "compose.yaml").write_text("")
    kept.release("d").check_whole()


@pytest.mark.parametrize(
    ("line", "told", "address"),
    [
        ("CAMDOCK_HOST=0.0.0.0", None, "127.0.0.1"),
        ('CAMDOCK_HOST="::"', None, "::1"),
        ("CAMDOCK_HOST='[::1]'", None, "::1"),
        ("#CAMDOCK_HOST=10.0.0.1", None, "127.0.0.1"),
        (" CAMDOCK_HOST = 10.0.0.1 ", None, "10.0.0.1"),
        ("CAMDOCK_HOST=0.0.0.0", "10.0.0.2", "10.0.0.2"),
        ("CAMDOCK_HOST=", "0.0.0.0", "127.0.0.1"),
    ],
)
def test_a_service_is_asked_where_it_listens(tmp_path: Path, line: str, told: str | None, address: str) -> None:
    folder = make_release(tmp_path, "a", address=told)
    (folder / "camdock.env").write_text(f"CAMDOCK_LINGER_S=1\n{line}\n")
    assert store.Store(tmp_path).release("a").address == address


# --- history and journal --------------------------------------------------------------------------------------------


def test_previous_is_the_last_other_one_that_was_confirmed_and_is_there(kept: store.Store) -> None:
    assert kept.previous_id() is None
    confirm(kept, "a")
    assert kept.previous_id() is None
    confirm(kept, "b", "a", "c")
    assert kept.previous_id() == "a"
    (kept.releases / "a" / "release.json").unlink()
    assert kept.previous_id() == "b"


def test_after_a_rollback_the_one_before_is_next(kept: store.Store) -> None:
    confirm(kept, "a", "b", "c")
    kept.begin(kept.release("b"), is_rollback=True)
    kept.point_at(kept.release("b"))
    kept.confirm()
    assert (kept.current_id(), kept.previous_id(), kept.confirmed_ids()) == ("b", "a", ["a", "b"])


def test_a_history_that_cannot_be_read_is_left_as_it_is_and_named_with_what_to_do(kept: store.Store) -> None:
    confirm(kept, "a", "b")
    kept.history.write_text("{")
    with pytest.raises(errors.Refused, match=r"history\.json cannot be read: .*move it away"):
        kept.previous_id()
    with pytest.raises(errors.Refused, match="move it away"):
        kept.begin(kept.release("c"), is_rollback=False)
    assert kept.history.read_text() == "{"


def test_the_history_does_not_grow_for_ever(kept: store.Store) -> None:
    confirm(kept, *["a", "b"] * 15)
    assert len(kept.confirmed_ids()) == store.HISTORY


def test_a_switch_is_unconfirmed_from_its_journal_to_its_confirmation(kept: store.Store) -> None:
    confirm(kept, "a")
    kept.begin(kept.release("b"), is_rollback=False)
    told = kept.unconfirmed()
    assert told is not None
    assert (told["from"], told["to"]) == ("a", "b")
    # The power goes between the confirmation and the removal of the journal.
    kept.confirmed.replace(kept.history)
    assert kept.unconfirmed() is None
    kept.tidy()
    assert names(kept.root) == {"releases", "builds", "current", "history.json"}


@pytest.mark.parametrize("written", range(6))
def test_a_disk_that_fills_up_while_a_switch_is_prepared_leaves_nothing_of_it(
    kept: store.Store, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    confirm(kept, "a")
    before = names(kept.root)
    left = iter(range(written))
    real = os.fsync

    def fsync(handle: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        kept.begin(kept.release("b"), is_rollback=False)
    except OSError:
        monkeypatch.undo()
        assert names(kept.root) == before
    else:
        assert written == 5, "five times something is synced"


def test_the_way_back_needs_no_new_file(kept: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    confirm(kept, "a")
    kept.begin(kept.release("b"), is_rollback=False)
    kept.point_at(kept.release("b"))

    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", is_full)
    monkeypatch.setattr(Path, "open", is_full)
    kept.point_back("a")
    assert kept.current_id() == "a"


def test_only_one_is_at_work(
    kept: store.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "LOCK_WITHIN_S", 0.3)
    with (kept.root / ".lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(errors.Refused, match="another camdock-release is at work"), kept.locked():
            pass
    assert "waiting for its end" in capsys.readouterr().err
    with kept.locked():
        pass
    with pytest.raises(errors.Refused, match="nothing was ever deployed here"), store.Store(kept.root / "no").locked():
        pass


def test_a_broken_journal_is_named(kept: store.Store) -> None:
    kept.journal.write_text("{")
    with pytest.raises(errors.Refused, match=r"switch\.json cannot be read"):
        kept.unconfirmed()
    kept.journal.write_text("[]")
    with pytest.raises(errors.Refused, match="holds no JSON object"):
        kept.unconfirmed()
