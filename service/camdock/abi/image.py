"""A Docker or OCI image's files: layers applied in order, with their whiteouts.

Of each layer only what can matter is kept: compiled files and the texts that say what Python finds, under numbers
instead of names, in the temporary folder that the caller gives.

Runs in: any process.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Self

from camdock.abi.facts import Bytes, Unreadable
from camdock.abi.tree import COMPILED, FILE_LIMIT, Kind, ListedTree, TargetUnreadable, clean, opened

SPOOL_LIMIT = 16 << 30  # bytes kept in the temporary folder; images with CUDA and torch have 8 GB of libraries
NODE_LIMIT = 400_000  # files and links kept; a large image has 20,000 that matter
MEMBER_LIMIT = 5_000_000  # members of all layers
UNPACKED_LIMIT = 64 << 30  # bytes of all layers once unpacked
JSON_LIMIT = 4 << 20
LAYER_LIMIT = 512
HEADER_LIMIT = 1 << 20  # bytes of a name or of pax attributes
TEXTS_LIMIT = 64 << 20  # bytes of JSON in one archive; a list of an image's parts may have a few MB
_MOST_EMPTY = 8  # reads at the end of a tar that tarfile needs to see that it is one
_TEXT_LIMIT = 16 << 20
_CHUNK = 1 << 20
_TEXTS = re.compile(
    r"(?:^|/)(?:pyvenv\.cfg|METADATA|RECORD|PKG-INFO|installed-files\.txt|[^/]+\.(?:pth|egg-info|egg-link)"
    r"|numpy/(?:__init__|version|_version)\.py|python3\.\d+/os\.py)$"
    r"|^var/lib/dpkg/(?:status|info/[^/]+\.list|status\.d/[^/]+)$|(?:^|/)conda-meta/[^/]+\.json$"
    r"|^etc/(?:debian_version|os-release)$"
)
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(slots=True)
class _Layer:
    """What one layer adds and takes away. `nodes`: kind, a link's target, the number a file is kept under."""

    nodes: dict[str, tuple[Kind | None, str, int]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)


class ImageTree(ListedTree):
    """The files of an image. Close nothing: what was kept goes with the temporary folder."""

    def __init__(self, name: str, scratch: str) -> None:
        super().__init__(name)
        self._scratch = scratch
        self._numbers: dict[str, int] = {}
        self.variables: dict[str, str] = {}

    @contextlib.contextmanager
    def load(self, real: str) -> Iterator[Bytes]:
        number = self._numbers.get(real)
        if number is None:
            raise Unreadable("is not there")
        if number == _TOO_LARGE:
            raise Unreadable(f"has more than {FILE_LIMIT >> 20} MB")
        with opened(f"{self._scratch}/{number}") as data:
            yield data

    def apply(self, layer: _Layer) -> None:
        """Put a layer over what is there."""
        for folder in layer.opaque:
            self._remove(folder, itself=False)
        for path in layer.gone:
            self._remove(path, itself=True)
        for path, (kind, target, number) in layer.nodes.items():
            if kind is None:  # a hard link: another name of a file of this layer or one below
                if target not in self._numbers:
                    continue
                kind, target, number = "file", "", self._numbers[target]
            if path in self._below or path in self._nodes:
                self._remove(path, itself=True)
            above = path.rpartition("/")[0]
            while above:  # a folder where a lower layer had a file or a link
                if above in self._nodes:
                    self._remove(above, itself=True)
                above = above.rpartition("/")[0]
            self.add(path, kind, target)
            if kind == "file":
                self._numbers[path] = number

    def _remove(self, path: str, *, itself: bool) -> None:
        todo = [path]
        while todo:
            here = todo.pop()
            if here != path or itself:
                self._nodes.pop(here, None)
                self._numbers.pop(here, None)
            todo += [f"{here}/{name}" if here else name for name in self._below.pop(here, ())]
        if not itself:
            self._below.setdefault(path, {})
            return
        folder, _, name = path.rpartition("/")
        self._below.get(folder, {}).pop(name, None)


_TOO_LARGE = -1
_WITHOUT_CONTENT = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


class ImageReader:
    """Reads the members of an image's archive, in whatever order they come, and keeps what matters of each layer."""

    def __init__(self, name: str, scratch: str) -> None:
        self.name = name
        self.layers: dict[str, _Layer | str] = {}  # by member name; a text says why it could not be read
        self.links: dict[str, str] = {}
        self.texts: dict[str, bytes] = {}
        self._scratch = scratch
        self._kept = self._nodes = self._members = self._unpacked = self._text_bytes = 0

    def member(self, name: str, content: IO[bytes], size: int) -> None:
        """One file of the archive, its name clean."""
        head = content.read(512)
        if head[:1] in (b"{", b"["):
            if size <= JSON_LIMIT:
                self._text_bytes += size
                if self._text_bytes > TEXTS_LIMIT:
                    raise TargetUnreadable(
                        f"{self.name} has more than {TEXTS_LIMIT >> 20} MB of descriptions: no image"
                    )
                self.texts[name] = head + content.read(JSON_LIMIT)
            return
        if len(self.layers) >= LAYER_LIMIT:
            raise TargetUnreadable(f"{self.name} has more than {LAYER_LIMIT} layers: no image")
        joined = Joined(head, content)
        if head[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=joined) as unpacked:
                self._layer(name, Ending(unpacked))
        elif head[:4] == b"\x28\xb5\x2f\xfd":
            self.layers[name] = "is packed with zstd, which this Python cannot unpack: use `docker save`"
        elif head[257:262] == b"ustar" or (head and not head.strip(b"\0")):
            self._layer(name, Ending(joined))

    def _layer(self, name: str, content: IO[bytes] | io.IOBase) -> None:
        layer = _Layer()
        try:
            with tarfile.open(fileobj=content, mode="r|", tarinfo=Header) as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # or every one of them stays in memory
                    self._members += 1
                    self.count(member.size)  # before the rest of it is read, if only to pass over it
                    if self._members > MEMBER_LIMIT:
                        raise TargetUnreadable(f"{self.name} has more than {MEMBER_LIMIT:,} files: no image")
                    self._keep(layer, archive, member)
        except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
            self.layers[name] = f"cannot be read: {error}"
            return
        self.layers[name] = layer

    def count(self, count: int) -> None:
        """Add bytes to those unpacked so far. Raises TargetUnreadable where it is too much."""
        self._unpacked += count
        if self._unpacked > UNPACKED_LIMIT:
            raise TargetUnreadable(f"{self.name} unpacks to more than {UNPACKED_LIMIT >> 30} GB: no image")

    def _keep(self, layer: _Layer, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = clean(member.name.removeprefix("/"))
        if not path:
            return
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            self._count()
            layer.opaque.add(folder)
        elif name.startswith(_WHITEOUT):
            gone = name.removeprefix(_WHITEOUT)
            if gone not in ("", ".", ".."):
                self._count()
                layer.gone.add(f"{folder}/{gone}" if folder else gone)
        elif member.issym():
            self._node(layer, path, "link", member.linkname)
        elif member.islnk():
            if COMPILED.search(path) or _TEXTS.search(path):
                target = clean(member.linkname.removeprefix("/"))
                if target:
                    self._node(layer, path, None, target)
        elif member.isreg() and (COMPILED.search(path) or _TEXTS.search(path)):
            self._node(layer, path, "file", "", self._spool(archive, member))

    def _node(self, layer: _Layer, path: str, kind: Kind | None, target: str, number: int = 0) -> None:
        self._count()
        layer.nodes[path] = (kind, target, number)

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > NODE_LIMIT:
            raise TargetUnreadable(f"{self.name} has more than {NODE_LIMIT:,} files that matter: no image")

    def _spool(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        """Keep a file's bytes under the next number."""
        limit = FILE_LIMIT if COMPILED.search(member.name) else _TEXT_LIMIT
        if member.size > limit:
            return _TOO_LARGE
        self._kept += member.size
        if self._kept > SPOOL_LIMIT:
            raise TargetUnreadable(f"{self.name} holds more than {SPOOL_LIMIT >> 30} GB of compiled files")
        content = archive.extractfile(member)
        assert content is not None  # a regular file has content
        number = self._nodes + 1
        with open(f"{self._scratch}/{number}", "xb") as file:
            try:
                shutil.copyfileobj(content, file, _CHUNK)
            except OSError as error:
                if error.errno is not None:  # the disk's word, not the archive's
                    raise TargetUnreadable(
                        f"{self.name} cannot be unpacked to {self._scratch} ({error.strerror}): set TMPDIR"
                    ) from error
                raise
        return number

    def tree(self) -> ImageTree:
        """The image, once every member has been read."""
        layers, config = self._described()
        tree = ImageTree(self.name, self._scratch)
        for name in layers:
            layer = self.layers.get(self.links.get(name, name))
            if layer is None:
                raise TargetUnreadable(f"{self.name} has no layer {name}: the archive is incomplete; save it again")
            if isinstance(layer, str):
                raise TargetUnreadable(f"{self.name}: layer {name} {layer}")
            tree.apply(layer)
        settings = self._said(config)
        inner = settings.get("config") if isinstance(settings, dict) else None
        variables = inner.get("Env") if isinstance(inner, dict) else None
        for variable in variables if isinstance(variables, list) else ():
            key, _, value = str(variable).partition("=")
            tree.variables[key] = value
        return tree

    def _said(self, name: str) -> Any:
        """What a JSON file of the archive says; None where there is none that can be understood. Parsed only now: it
        takes twenty times its size."""
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(self.texts.get(name, b""))
        return None

    def _described(self) -> tuple[list[str], str]:
        """The layers' member names, lowest first, and the configuration's."""
        try:
            if "manifest.json" in self.texts:
                entries = self._said("manifest.json")
                if len(entries) != 1:
                    names = ", ".join(str((entry.get("RepoTags") or ["<no name>"])[0]) for entry in entries[:8])
                    raise TargetUnreadable(f"{self.name} holds {len(entries)} images ({names}): save one of them")
                layers = [os.path.normpath(str(layer)) for layer in entries[0]["Layers"]]
                return layers, os.path.normpath(str(entries[0]["Config"]))
            if "index.json" in self.texts:
                return self._oci(self._said("index.json"), 0)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise TargetUnreadable(
                f"{self.name}: its manifest cannot be understood ({error!r}); save it again"
            ) from error
        raise TargetUnreadable(
            f"{self.name} is no image: it has neither manifest.json nor index.json. "
            "Make one with `docker save NAME -o FILE`; unpack an archive of anything else, and name the folder"
        )

    def _oci(self, index: Any, depth: int) -> tuple[list[str], str]:
        found = [
            entry
            for entry in index["manifests"]
            if (entry.get("platform") or {}).get("os") != "unknown"
            and self._blob(entry["digest"]) in self.texts  # a layout may name other platforms without holding them
        ]
        if len(found) != 1:
            names = ", ".join("/".join(map(str, (entry.get("platform") or {}).values())) for entry in found[:8])
            raise TargetUnreadable(f"{self.name} holds {len(found)} images ({names}): save one of them")
        manifest = self._said(self._blob(found[0]["digest"]))
        if "manifests" in manifest and depth < 3:
            return self._oci(manifest, depth + 1)
        return [self._blob(layer["digest"]) for layer in manifest["layers"]], self._blob(manifest["config"]["digest"])

    @staticmethod
    def _blob(digest: str) -> str:
        return "blobs/" + digest.replace(":", "/", 1)


class Header(tarfile.TarInfo):
    """A member's header. Those that only extend the next one are read into memory whole: they must be small."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        extends = not header.isreg() and not header.isdir() and header.type not in _WITHOUT_CONTENT
        if extends and header.size > HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class Ending(io.RawIOBase):
    """A stream that fails when it is read on beyond its end: for a member that claims to have 64 GB tarfile would read
    6 million times at the end of a file of 10 KB."""

    def __init__(self, stream: IO[bytes] | io.IOBase) -> None:
        self._stream = stream
        self._empty = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        found: bytes = self._stream.read(size)
        self._empty = 0 if found else self._empty + 1
        if self._empty > _MOST_EMPTY:
            raise EOFError("ends in the middle of a file")
        return found


class Joined(io.RawIOBase):
    """What was read of a file to look at it, and then the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        taken = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(taken) :]
        return taken + self._rest.read(-1 if size < 0 else size - len(taken))
