"""A wheel's files, where an install would put them. Nothing is unpacked under a name that the wheel chose.

Runs in: any process.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator

from camdock.abi.facts import Bytes, Unreadable
from camdock.abi.tree import FILE_LIMIT, ListedTree, TargetUnreadable, clean, opened

DIRECTORY_LIMIT = 8 << 20  # bytes of a zip's directory: some 80,000 files; torch has 12,000
ALL_LIMIT = 8 << 30  # bytes of all compiled files of one wheel once unpacked; the largest has 3 GB
RATIO_LIMIT = 200  # unpacked by packed bytes; compiled code reaches 20, deflate's most is 1032
RATIO_FREE = 16 << 20  # bytes below which the ratio means nothing: a file of zeros may well be small
IN_MEMORY = 16 << 20  # larger files go through a temporary file
_CHUNK = 1 << 20
DATA = re.compile(r"^[^/]+\.data/(?:platlib|purelib)/")

# What zipfile raises for what is damaged, encrypted, or packed in a way that it does not know.
_SPOILED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
)


class _Careful(io.FileIO):
    """A file that is never read in pieces larger than a zip's directory may be, so that zipfile cannot ask for more."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its directory has more than {DIRECTORY_LIMIT >> 20} MB")
        return super().read(size) or b""


class WheelTree(ListedTree):
    """The files of a wheel. Raises TargetUnreadable: no zip, damaged, or names that lead out."""

    def __init__(self, path: str, scratch: str) -> None:
        super().__init__(os.path.basename(path))
        self._scratch = scratch
        self._read = 0
        try:
            self._file = _Careful(path)
        except OSError as error:
            raise TargetUnreadable(f"{path} cannot be opened: {error.strerror}") from error
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            self._file.close()
            raise TargetUnreadable(
                f"{path} is no wheel that can be read ({error}): truncated or damaged; fetch it again"
            ) from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            for member in self._zip.infolist():
                self._place(path, member)
        except TargetUnreadable:
            self.close()
            raise

    def _place(self, path: str, member: zipfile.ZipInfo) -> None:
        name = clean(member.filename)
        if name is None or "\0" in member.orig_filename:
            raise TargetUnreadable(
                f"{path} wants to write outside of where it is installed ({member.filename!r}): do not install it"
            )
        if not name or member.is_dir():  # in this order: is_dir fails on a member without a name
            return
        name = DATA.sub("", name)
        self._members[name] = member
        # A symbolic link is a file for pip, which writes its target as text: so it is here.
        self.add(name, "file")

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    @contextlib.contextmanager
    def load(self, real: str) -> Iterator[Bytes]:
        member = self._members.get(real)
        if member is None:
            raise Unreadable("is not there")
        if member.flag_bits & 1:
            raise Unreadable("is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # LZMA would let the file say how much memory its unpacking takes.
            raise Unreadable("is packed in a way that wheels are not")
        if member.file_size > FILE_LIMIT:
            raise Unreadable(f"has {member.file_size >> 20} MB unpacked; {FILE_LIMIT >> 20} MB at most are read")
        if member.file_size > RATIO_FREE and member.file_size > RATIO_LIMIT * max(member.compress_size, 1):
            raise Unreadable(
                f"unpacks {member.compress_size} bytes to {member.file_size}: more than {RATIO_LIMIT} times, a zip bomb"
            )
        self._read += member.file_size
        if self._read > ALL_LIMIT:
            raise TargetUnreadable(
                f"{self.name} unpacks to more than {ALL_LIMIT >> 30} GB: no wheel that anybody needs"
            )
        if member.file_size <= IN_MEMORY:
            packed = io.BytesIO()
            self._unpack(member, packed)
            yield packed.getvalue()
            return
        with tempfile.NamedTemporaryFile(dir=self._scratch) as file:
            self._unpack(member, file)
            file.flush()
            with opened(file.name) as data:
                yield data

    def _unpack(self, member: zipfile.ZipInfo, into: io.BytesIO | tempfile._TemporaryFileWrapper[bytes]) -> None:
        """Never writes more than the declared size, whatever is packed."""
        left = member.file_size
        try:
            with self._zip.open(member) as packed:
                # zipfile ends at the declared size, and compares the checksum there
                while chunk := packed.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise Unreadable("unpacks to more than it declares")
                    into.write(chunk)
        except _SPOILED as error:
            raise Unreadable(f"cannot be unpacked: {error}") from error
        if left:
            raise Unreadable(f"ends {left} bytes early")
