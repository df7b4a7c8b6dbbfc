"""Places: the folders that the service writes to, and the port that it listens on.

Runs in: `folder` and `port` in errands, one for each folder, since a mount may be dead; the others in the doctor's own
process.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from camdock import devices
from camdock.doctor.answer import Answer
from camdock.doctor.configuration import Known
from camdock.doctor.report import Check, Status

TRIAL_BYTES = 1 << 16
LITTLE_BYTES, LITTLE_SHARE = 200_000_000, 0.02  # less room than either of these is worth a look
HEALTH_WITHIN_S = 2.0
LARGEST_HEALTH = 1 << 20


# --- folders ----------------------------------------------------------------------------------------------------------


def folder(path: str) -> Iterator[dict[str, Any]]:
    """One answer: `at`, the folder itself or the nearest that is there, its room in bytes, and `error` of a trial."""
    there = Path(path)
    while not there.exists() and there != there.parent:
        there = there.parent
    facts: dict[str, Any] = {"at": str(there), "exists": str(there) == path, "uid": os.geteuid(), "error": ""}
    try:
        room = os.statvfs(there)
        facts |= {"free": room.f_bavail * room.f_frsize, "size": room.f_blocks * room.f_frsize}
        facts["files"] = room.f_favail if room.f_files else -1
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _try(there)
    except OSError as error:
        facts["error"] = errno.errorcode.get(error.errno or 0, "") or str(error)
    yield facts


def _try(there: Path) -> None:
    """Write something that nobody ever sees; what holds of a disk is what it says then."""
    try:
        descriptor = os.open(there, os.O_TMPFILE | os.O_WRONLY, 0o600)  # without a name: killed now, nothing stays
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
        descriptor, name = tempfile.mkstemp(prefix=".camdock-doctor-", dir=there)
        os.unlink(name)
    try:
        if os.write(descriptor, bytes(TRIAL_BYTES)) < TRIAL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_folder(name: str, path: str, answer: Answer) -> Check:
    """Whether the service can keep there what it wants to."""
    name = f"disk.{name}"
    if not path:
        return Check(name, Status.BAD, "this user has no home, so settings cannot be kept", "set CAMDOCK_STATE_DIR")
    facts, quoted = answer.facts, shlex.quote(path)
    if not facts:
        what = f"{path} does not answer: {answer.stuck or answer.trouble}"
        return Check(name, Status.BAD, what, f"is its mount alive? `findmnt -T {quoted}`", {"path": path})
    hints = {
        "ENOSPC": ("is full", f"make room: `df -h {quoted}`, `df -i {quoted}`, `du -xh {quoted} | sort -h | tail`"),
        "EDQUOT": ("is full for this user, by quota", "make room: `quota -s`"),
        "EROFS": ("is on a file system that is read-only", "in a container: a volume; else `dmesg` says why"),
        "ENOTDIR": ("is no folder", "name another one"),
    }
    if code := facts["error"]:
        mend = f"`sudo install -d -o {facts['uid']} {quoted}`"
        words, hint = hints.get(code, (f"cannot be written by this user (uid {facts['uid']}, {code})", mend))
        where = path if facts["exists"] else f"{path}, which would be made in {facts['at']},"
        return Check(name, Status.BAD, f"{where} {words}", hint, facts)
    room = f"{facts['free'] / 1e9:.1f} GB free"
    what = f"{path}: {room}" + ("" if facts["exists"] else "; it is made when it is needed")
    little = facts["free"] < min(LITTLE_BYTES, facts["size"] / 2) or facts["free"] < LITTLE_SHARE * facts["size"]
    if little or 0 <= facts["files"] < 100:
        return Check(name, Status.WARNING, f"{path} is nearly full: {room}, room for {facts['files']} files",
                     f"make room: `df -h {quoted}`, `df -i {quoted}`", facts)  # fmt: skip
    return Check(name, Status.OK, what, "", facts)


# --- the port ---------------------------------------------------------------------------------------------------------


def port(host: str, port: int, token: str) -> Iterator[dict[str, Any]]:
    """One answer: `free`, or `error`; who holds it; and what Camdock says at /health, where it is that."""
    facts: dict[str, Any] = {"free": False, "error": "", "health": None, "holders": [], "closed": 0}
    bare = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
        facts["free"] = True
    except OSError as error:
        facts["error"] = errno.errorcode.get(error.errno or 0, "") or "unknown"
        if isinstance(error, socket.gaierror):
            facts["error"] = "host"
    if facts["error"] == "EADDRINUSE":
        asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)  # noqa: S104 - compared, not bound
        facts["health"] = _health(asked, port, token)
        facts["holders"], facts["closed"] = _listeners(port)
    yield facts


def _health(host: str, port: int, token: str) -> Any:
    """The document at /health; None when nobody answers, or not like Camdock."""
    # HTTP/1.0 without a Host header: whatever names CAMDOCK_ALLOWED_HOSTS lists, this is answered.
    head = "GET /health HTTP/1.0\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "") + "\r\n"
    answer = b""
    try:
        with socket.create_connection((host, port), HEALTH_WITHIN_S) as connection:
            connection.sendall(head.encode())
            while (part := connection.recv(65536)) and len(answer) < LARGEST_HEALTH:
                answer += part
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        return document if isinstance(document, dict) and "abi" in document and "status" in document else None
    except (OSError, ValueError, RecursionError):
        return None


def _listeners(port: int) -> tuple[list[str], int]:
    """Who listens on a port, "pid 812 (nginx)", and how many processes may not be looked into."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:  # 0A: TCP_LISTEN
                inodes.add(f"socket:[{words[9]}]")
    found, closed = devices.holders(inodes)
    return sorted({f"pid {pid} ({name})" for pids in found.values() for pid, name in pids.items()}), closed


def check_port(known: Known, answer: Answer) -> Check:
    """Whether the service can listen, or does already."""
    facts, at = answer.facts, f"{known.host}:{known.port}"
    if not facts:
        return Check("port", Status.UNKNOWN, f"{at}: {answer.stuck or answer.trouble}")
    details = {name: facts[name] for name in ("free", "error", "holders")}
    if facts["free"]:
        return Check("port", Status.OK, f"{at} is free: no Camdock runs there", "", details)
    if facts["health"]:
        return Check("port", Status.OK, f"Camdock answers on {at}, {facts['health']['status']}", "", details)
    other = known.port + 1 if known.port < 65535 else 8000
    match facts["error"]:
        case "EADDRINUSE":
            by = " and ".join(facts["holders"]) or "another process"
            if not facts["holders"] and facts["closed"]:
                by = f"a process of another user; `sudo ss -ltnp 'sport = :{known.port}'` names it"
            return Check("port", Status.BAD, f"{at} is held by {by}",
                         f"stop that program, or take another port: `CAMDOCK_PORT={other}`", details)  # fmt: skip
        case "EACCES":
            what, hint = "may not be taken by this user: ports below 1024 are root's", "`CAMDOCK_PORT=8000`"
        case "EADDRNOTAVAIL" | "host":
            what = "cannot be taken: this machine has no such address"
            hint = "`ip address` lists them; `CAMDOCK_HOST=0.0.0.0` means all, and wants a token"
        case code:
            what, hint = f"cannot be taken: {code}", ""
    return Check("port", Status.BAD, f"{at} {what}", hint, details)
