"""What a second build does: little where little has changed, and the same where nothing has."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.conftest import IMAGES, Image, image_named
from tests.tools.containers import context, docker, inspect, new_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# What two builds of one commit may differ in, each with its reason.
DIFFERS: dict[str, str] = {}


def sizes(tag: str) -> list[int]:
    """Bytes of every layer, the lowest first."""
    told = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", tag).stdout.split()
    return [int(size) for size in reversed(told)]


def test_one_line_of_ours_rebuilds_the_last_layers_alone(
    image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = context(tmp_path / "context")
    before = image.built(folder).done()
    api = folder / "service/camdock/api.py"
    line = f"# one line more, {uuid.uuid4()}\n"  # another one than in every run before: those are in the cache
    api.write_text(api.read_text() + "\n" + line)
    after = image.built(folder).done()
    with capsys.disabled():
        print(f"\n{image.tag}: one line changed, built again in {after.seconds:.1f} s")
    layers = [inspect(built.tag)["RootFS"]["Layers"] for built in (before, after)]
    same = sum(1 for _ in takewhile_equal(*layers))
    assert 0 < len(layers[1]) - same <= 3, "what we wrote, the seal, what is said about it"
    changed = sum(sizes(after.tag)) - sum(sizes(before.tag))
    assert abs(changed) < 1 << 20
    weight = weight_of_last(after.tag, len(layers[1]) - same)
    assert weight < 16 << 20, f"{weight / 1e6:.1f} MB of layers are new"
    said = docker("run", "--rm", after.tag, "python", "-c", "import camdock.api; print(camdock.api.__file__)").stdout
    assert docker("run", "--rm", after.tag, "tail", "-n", "1", said.strip()).stdout == line


def takewhile_equal(one: list[str], other: list[str]) -> Iterator[str]:
    """What both begin with."""
    for left, right in zip(one, other, strict=True):
        if left != right:
            return
        yield left


def weight_of_last(tag: str, count: int) -> int:
    """Bytes in the last layers that have any content."""
    return sum([size for size in sizes(tag) if size][-count:])


# --- the same, twice --------------------------------------------------------------------------------------------------


def content(tag: str, folder: Path) -> dict[str, tuple[object, ...]]:
    """Every file of an image: kind, mode, owner, group, and content as a hash or the place a link leads to."""
    name = new_name()
    docker("create", "--name", name, tag)
    archive = folder / "image.tar"
    try:
        with archive.open("wb") as file:
            subprocess.run(["docker", "export", name], stdout=file, check=True, timeout=300)
    finally:
        docker("rm", "--force", name)
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(archive) as opened:
        for one in opened:
            body: str = one.linkname
            if one.isreg():
                file_in = opened.extractfile(one)
                assert file_in is not None
                body = hashlib.file_digest(file_in, "sha256").hexdigest()
            # What the seal counts by has to be the same, too.
            date = one.mtime if "/site-packages/" in one.name and one.isreg() else None
            found[one.name] = (one.type, oct(one.mode), one.uid, one.gid, body, date)
    archive.unlink()
    return found


def differences(one: dict[str, tuple[object, ...]], other: dict[str, tuple[object, ...]]) -> dict[str, object]:
    """What is not the same in both, by path."""
    return {
        path: (one.get(path), other.get(path)) for path in sorted({*one, *other}) if one.get(path) != other.get(path)
    }


# The others take a minute or two more each: on request (CAMDOCK_TEST_ALL=1).
TWICE = list(IMAGES) if os.environ.get("CAMDOCK_TEST_ALL") == "1" else ["current"]


@pytest.mark.parametrize("name", TWICE)
def test_two_builds_of_one_commit_have_the_same_files(engine: None, name: str, tmp_path: Path, revision: str) -> None:
    image = image_named(name)

    def again(first: str) -> dict[str, object]:
        """Build from nothing; what differs from that image."""
        folder = context(tmp_path / str(uuid.uuid4()))
        file = folder / image.dockerfile
        # Not --no-cache: it leaves a second result of every step, and later builds take now the one, now the other.
        anew = file.read_text().replace("RUN apt-get update", f"RUN : {uuid.uuid4()} && apt-get update")
        assert anew != file.read_text()
        file.write_text(anew)
        built = image.built(folder, REVISION=revision).done()
        packages = [docker("run", "--rm", tag, "dpkg-query", "--show").stdout for tag in (first, built.tag)]
        # The image that is there may be older than Debian's last update: then that one more is built from nothing.
        if len(set(packages)) > 1:
            return again(built.tag)
        return differences(content(first, tmp_path), content(built.tag, tmp_path))

    found = again(image.tag)
    unexpected = {path: what for path, what in found.items() if path not in DIFFERS}
    assert unexpected == {}
    assert set(DIFFERS) <= set(found), "does not differ any more: take it off the list"
