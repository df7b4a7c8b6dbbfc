"""What prune removes, and what it never does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.roles.release import disk, errors, make_release, prune, store, unit


@pytest.fixture
def kept(tmp_path: Path) -> store.Store:
    """Six releases of four builds; `two`, `four` and `five` were confirmed, `five` is current."""
    for created, name in enumerate(("one", "two", "three", "four", "five", "six")):
        make_release(tmp_path, name, created, build=f"b{created % 4}")
    found = store.Store(tmp_path)
    for name in ("two", "four", "five"):
        found.begin(found.release(name), is_rollback=False)
        found.point_at(found.release(name))
        found.confirm()
    return found


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def test_current_and_previous_stay_and_what_once_served_goes_last(kept: store.Store) -> None:
    removed = prune.prune(kept, 3)
    assert names(kept.releases) == {"two", "four", "five"}
    assert removed["releases"] == ["one", "six", "three"]
    # five has b0, two b1, four b3
    assert names(kept.builds) == {"b0", "b1", "b3"}
    assert prune.prune(kept, 3) == {"releases": [], "builds": [], "images": []}
    prune.prune(kept, 1)
    assert names(kept.releases) == {"four", "five"}


def test_more_room_is_for_the_newest(kept: store.Store) -> None:
    prune.prune(kept, 4)
    assert names(kept.releases) == {"two", "four", "five", "six"}


def test_half_made_builds_and_releases_go_unless_they_are_needed(kept: store.Store) -> None:
    (kept.builds / "half" / "venv").mkdir(parents=True)
    (kept.releases / "half").mkdir()
    (kept.releases / ".gone.removed").mkdir()
    removed = prune.prune(kept, 9)
    assert removed["builds"] == ["half"]
    assert removed["releases"] == [".gone.removed", "half"]
    assert len(names(kept.releases)) == 6
    (kept.builds / "b0" / "complete").unlink()
    prune.prune(kept, 9)
    assert "b0" in names(kept.builds), "what runs is not taken away, whatever is wrong with it"


def test_a_switch_that_is_not_confirmed_keeps_both_its_ends(kept: store.Store) -> None:
    kept.begin(kept.release("one"), is_rollback=False)
    prune.prune(kept, 1)
    assert names(kept.releases) == {"one", "four", "five"}


def test_a_removal_that_was_cut_off_is_finished_the_next_time(
    kept: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            prune.prune(kept, 3)
    assert [one.id for one in kept.all() if not (one.folder / "release.json").exists()] == []
    prune.prune(kept, 3)
    assert names(kept.releases) == {"two", "four", "five"}


def test_images_go_with_the_last_build_that_needs_them(kept: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def call(*words: str) -> object:
        asked.append(words)
        return unit.subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(unit.Systemd, "_call", staticmethod(call))
    for build, image in (("b0", "camdock@sha256:0"), ("b2", "camdock@sha256:2"), ("b3", "camdock@sha256:0")):
        (kept.builds / build / "complete").write_text(json.dumps({"image": image}))
    assert prune.prune(kept, 3)["images"] == ["camdock@sha256:2"]
    assert asked == [("docker", "image", "rm", "camdock@sha256:2")]


def test_what_cannot_be_read_stops_nothing_but_an_error_is_named(kept: store.Store) -> None:
    kept.history.write_text("[]")
    with pytest.raises(errors.Refused, match="holds no JSON object"):
        prune.prune(kept, 3)
    disk.write_whole(kept.history, {"confirmed": []})
    prune.prune(kept, 1)
    assert names(kept.releases) == {"five"}
