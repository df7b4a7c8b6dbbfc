"""The disk of a Docker engine with an image already loaded, for a machine on which loading would take minutes.

An emulated processor takes five minutes and more to unpack and to sum an image of 440 MB; here that takes seconds. The
machine's engine finds what an engine writes: the layers as its `overlay2` driver keeps them, the image's configuration
byte for byte (so that the image keeps its id), its name. What is left out, `tar-split.json.gz`, is for `docker save`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOM_BYTES = 1 << 30  # for what containers write
KEPT = 3  # disks, those used last
OPAQUE = ".wh..wh..opq"  # in a layer: nothing of the folder below shows through
DELETED = ".wh."  # in a layer: the file of that name below is gone


def engine_disk(image: str) -> Path:
    """An ext4 disk for /var/lib/docker with this image of the engine here, made once for each image id; takes root.

    raises  CalledProcessError when the engine has no such image, or a tool fails
    """
    identity = _asked("docker", "image", "inspect", "--format", "{{.Id}}", image)
    folder = _cache() / "vm" / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes() + f"{identity} {image}".encode()).hexdigest()[:16]
    disk = folder / f"{recipe}.img"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for half in folder.glob(".half-*"):  # of a killed run
            shutil.rmtree(half)
        if not disk.exists():
            half = Path(tempfile.mkdtemp(prefix=".half-", dir=folder))
            _make(image, half).rename(disk)
            shutil.rmtree(half)
        os.utime(disk)
        for old in sorted(folder.glob("*.img"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return disk


def _cache() -> Path:
    given = os.environ.get("CAMDOCK_TEST_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "camdock"


def _asked(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def _make(image: str, half: Path) -> Path:
    """The unfinished disk, below a folder that is thrown away."""
    saved, root, disk = half / "saved", half / "root", half / "disk.img"
    saved.mkdir()
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        subprocess.run(["tar", "-x", "-C", saved], stdin=saving.stdout, check=True)
    assert saving.returncode == 0, f"docker save {image} failed"
    [entry] = json.loads((saved / "manifest.json").read_text())
    _load(saved, entry, image, root)
    size = int(_asked("du", "--summarize", "--block-size=1", str(root)).split()[0])
    with disk.open("wb") as file:
        file.truncate((size * 5 // 4 + ROOM_BYTES) >> 20 << 20)
    _asked("mkfs.ext4", "-q", "-d", str(root), str(disk))
    return disk


def _load(saved: Path, entry: dict[str, Any], image: str, root: Path) -> None:
    """What `docker load` would have written below /var/lib/docker, into `root`."""
    metadata, layers = root / "image" / "overlay2", root / "overlay2"
    config = (saved / entry["Config"]).read_bytes()
    identity = hashlib.sha256(config).hexdigest()
    _write(metadata / "imagedb" / "content" / "sha256" / identity, config)
    name = image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
    tag = image if name != image else f"{image}:latest"
    _write(metadata / "repositories.json", json.dumps({"Repositories": {name: {tag: f"sha256:{identity}"}}}).encode())
    (layers / "l").mkdir(parents=True)
    chain, below = "", []
    for digest, tar in zip(json.loads(config)["rootfs"]["diff_ids"], entry["Layers"], strict=True):
        parent = chain
        # The name of a layer with all below it, as the image specification has it ("ChainID").
        chain = "sha256:" + hashlib.sha256(f"{parent} {digest}".encode()).hexdigest() if parent else digest
        own = chain.removeprefix("sha256:")
        short = own[:26].upper()  # 26 letters: a mount's options have room for 128 layers with such names
        size = _unpack(saved / tar, layers / own / "diff")
        (layers / "l" / short).symlink_to(f"../{own}/diff")
        _write(layers / own / "link", short.encode())
        _write(layers / own / "committed", b"")
        facts = {"cache-id": own, "diff": digest, "size": str(size)}
        if parent:
            (layers / own / "work").mkdir()
            _write(layers / own / "lower", ":".join(below).encode())
            facts["parent"] = parent
        for fact, text in facts.items():
            _write(metadata / "layerdb" / "sha256" / own / fact, text.encode())
        below.insert(0, f"l/{short}")


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _unpack(tar: Path, folder: Path) -> int:
    """A layer as overlay2 keeps it; how many bytes its files have."""
    folder.mkdir(parents=True)
    exactly = ("--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*")
    subprocess.run(["tar", "-x", "-f", tar, "-C", folder, *exactly], check=True)
    size = 0
    for file in list(folder.rglob("*")):
        if file.name == OPAQUE:
            os.setxattr(file.parent, "trusted.overlay.opaque", b"y")
            file.unlink()
        elif file.name.startswith(DELETED):
            file.unlink()
            os.mknod(file.with_name(file.name.removeprefix(DELETED)), 0o020000, os.makedev(0, 0))
        elif file.is_file() and not file.is_symlink():
            size += file.stat().st_size
    return size
