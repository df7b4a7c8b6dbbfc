"""A file whose read blocks in the kernel, deaf to SIGKILL: what a broken driver does, without a broken driver.

A FUSE file system of one file, spoken by hand over /dev/fuse: once its daemon has taken a read request and does not
answer, the reader sleeps uninterruptibly until the connection is aborted. Needs root.
source  linux/fuse.h; fs/fuse/dev.c, request_wait_answer()
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
import threading
from pathlib import Path
from typing import Self

_IN = struct.Struct("<IIQQIIIHH")  # len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
_OUT = struct.Struct("<IiQ")  # len, error, unique
_ATTR = struct.Struct(
    "<QQQQQQIIIIIIIIII"
)  # ino, size, blocks, 3 times, 3 nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags
LOOKUP, GETATTR, OPEN, READ, INIT, FLUSH, RELEASE, OPENDIR = 1, 3, 14, 15, 26, 25, 18, 27
ROOT, FILE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _attributes(node: int) -> bytes:
    mode, size = (0o40755, 0) if node == ROOT else (0o100644, 4096)
    return _ATTR.pack(node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


class StuckFile:
    """A mounted folder with one file, `path`; whoever reads it sleeps until `release`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "stuck"
        self._reading = threading.Event()
        self._released = False

    def __enter__(self) -> Self:
        self.folder.mkdir()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._over = os.eventfd(0)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if _libc.mount(b"stuck", os.fsencode(self.folder), b"fuse", 0, options) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(self.folder))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while True:
            # A read that blocks would keep the device open behind our back when it is closed.
            if self._over in select.select([self._device, self._over], [], [])[0]:
                return
            try:
                request = os.read(self._device, 1 << 20)
            except BlockingIOError:
                continue
            except OSError:  # unmounted or aborted
                return
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            if opcode == READ:
                self._reading.set()
                continue  # no answer, ever
            self._answer(unique, *self._reply(opcode, node, request[_IN.size :]))

    def _reply(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == INIT:
            major, minor, read_ahead, _ = struct.unpack_from("<IIII", body)
            reply = struct.pack("<IIIIHHIIHH", major, min(minor, 31), read_ahead, 0, 12, 9, 1 << 16, 1, 16, 0)
            return 0, reply + bytes(64 - len(reply))
        if opcode == LOOKUP:
            if body.rstrip(b"\0") != b"stuck":
                return -errno.ENOENT, b""
            return 0, struct.pack("<QQQQII", FILE, 0, 0, 0, 0, 0) + _attributes(FILE)
        if opcode == GETATTR:
            return 0, struct.pack("<QII", 0, 0, 0) + _attributes(node)
        if opcode in (OPEN, OPENDIR):
            return 0, struct.pack("<QII", 1, 0, 0)
        if opcode in (FLUSH, RELEASE):
            return 0, b""
        return -errno.ENOSYS, b""

    def _answer(self, unique: int, error: int, body: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # the asker was interrupted, which FUSE answers so
            os.write(self._device, _OUT.pack(_OUT.size + len(body), error, unique) + body)

    def wait_for_reader(self, within_s: float) -> None:
        """Wait until somebody reads and sleeps."""
        assert self._reading.wait(within_s), "nobody read the stuck file"

    def release(self) -> None:
        """Abort the connection: the sleeper wakes with an error, and the file is gone."""
        if not self._released:
            self._released = True
            os.eventfd_write(self._over, 1)
            self._thread.join()
            _libc.umount2(os.fsencode(self.folder), 2)  # MNT_DETACH
            os.close(self._device)
            os.close(self._over)

    def __exit__(self, *_: object) -> None:
        self.release()
