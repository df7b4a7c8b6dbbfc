"""What may go: old releases, and builds that nothing needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from camdock_release.disk import read_json
from camdock_release.errors import Refused, say
from camdock_release.store import Store
from camdock_release.unit import Systemd


def prune(store: Store, keep: int) -> dict[str, list[str]]:
    """Remove all but the newest releases, and the builds that no release needs; current and previous always stay."""
    journal = store.unconfirmed() or {}
    needed = {store.current_id(), store.previous_id(), journal.get("from"), journal.get("to")}
    # What was never confirmed, or was taken back, goes before what once served.
    place = {name: number for number, name in enumerate(store.confirmed_ids())}
    best_last = sorted(store.all(), key=lambda one: place.get(one.id, -1))
    newest = [one.id for one in reversed(best_last) if one.id not in needed]
    room = max(0, keep - len([one for one in needed if one and (store.releases / one).is_dir()]))
    kept = {*newest[:room], *needed}
    gone = [folder for folder in _folders(store.releases) if folder.name not in kept]
    builds = {
        Path(os.path.realpath(folder / "build")).name for folder in _folders(store.releases) if folder not in gone
    }
    spare = [
        folder for folder in _folders(store.builds) if folder.name not in builds or not (folder / "complete").exists()
    ]
    images = {_image(folder) for folder in _folders(store.builds) if folder not in spare}
    loose = {image for folder in spare if (image := _image(folder)) and image not in images}
    for folder in (*gone, *spare):
        # Out of the way in one step: one that is half removed must not look like one that is there.
        hidden = folder.with_name(f".{folder.name}.removed")
        if not folder.name.startswith("."):
            folder.rename(hidden)
        shutil.rmtree(hidden if hidden.exists() else folder)
    for image in sorted(loose):
        done = Systemd._call("docker", "image", "rm", image)
        if done.returncode and "No such image" not in done.stderr:
            say(f"the image {image} stays: {done.stderr.strip()}")
    return {
        "releases": sorted(folder.name for folder in gone),
        "builds": sorted(folder.name for folder in spare),
        "images": sorted(loose),
    }


def _folders(parent: Path) -> list[Path]:
    return sorted(one for one in parent.iterdir() if one.is_dir() and not one.is_symlink()) if parent.is_dir() else []


def _image(build: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError, Refused):
        return read_json(build / "complete").get("image")
    return None
