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
_PATIENT = "`camdock doctor --deadline 30` waits longer"
LARGEST_HEALTH = 1 << 20


# --- folders ----------------------------------------------------------------------------------------------------------


def folder(path: str) -> Iterator[dict[str, Any]]:
    """One answer: `at`, the folder itself or the nearest that is there, its room in bytes, and `error` of a trial.

    closed  `at` is as far as this user gets: what lies in it is not known
    """
    there, closed = Path(path), None
    facts: dict[str, Any] = {"uid": os.geteuid(), "error": ""}
    try:
        while True:
            try:
                os.stat(there)
                break
            except PermissionError as error:
                closed = error
            except (FileNotFoundError, NotADirectoryError):
                if there == there.parent:  # the working directory was deleted
                    raise
            there = there.parent
        if closed is not None:
            raise closed
        room = os.statvfs(there)
        facts |= {"free": room.f_bavail * room.f_frsize, "size": room.f_blocks * room.f_frsize}
        facts["files"] = room.f_favail if room.f_files else -1
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _try(there)
    except OSError as error:
        facts["error"] = errno.errorcode.get(error.errno or 0, "") or str(error)
    yield {**facts, "at": str(there), "exists": str(there) == path, "closed": closed is not None}


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
    if facts["closed"]:
        what = f"{path} lies in {facts['at']}, which this user (uid {facts['uid']}) has no permission to enter"
        return Check(name, Status.BAD, what, f"`sudo chmod o+x {shlex.quote(facts['at'])}`, or name another one", facts)
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


def port(host: str, port: int, token: str, *, tls: bool, within_s: float) -> Iterator[dict[str, Any]]:
    """Two answers, the second one whole: `free`, or `error`; who holds it; what Camdock says at /health, if it is that.

    within_s  seconds that each step of asking may take
    withheld  that Camdock is another user's, so the token was not shown to it
    """
    facts: dict[str, Any] = {"free": False, "error": "", "health": None, "holders": [], "closed": 0, "withheld": False}
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
        owners, facts["holders"], facts["closed"] = _listeners(port)
        yield {**facts, "asking": True}
        at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare), port  # noqa: S104 - compared, not bound
        facts["health"] = _health(at, "", tls=tls, within_s=within_s)
        # Whoever listens is shown the token only if it speaks like Camdock, and runs as who may read it anyway.
        facts["withheld"] = not owners <= {os.geteuid(), 0}
        if facts["health"] and token and not facts["withheld"]:
            facts["health"] = _health(at, token, tls=tls, within_s=within_s) or facts["health"]
    yield facts


def _health(at: tuple[str, int], token: str, *, tls: bool, within_s: float) -> Any:
    """The document at /health; None when nobody answers, or not like Camdock."""
    # HTTP/1.0 without a Host header: whatever names CAMDOCK_ALLOWED_HOSTS lists, this is answered.
    head = "GET /health HTTP/1.0\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "") + "\r\n"
    answer = b""
    try:
        with _connected(at, tls=tls, within_s=within_s) as connection:
            connection.sendall(head.encode())
            while (part := connection.recv(65536)) and len(answer) < LARGEST_HEALTH:
                answer += part
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        return document if isinstance(document, dict) and "abi" in document and "status" in document else None
    except (OSError, ValueError, RecursionError):
        return None


def _connected(at: tuple[str, int], *, tls: bool, within_s: float) -> socket.socket:
    """A connection. The service's certificate is for its name, and not for this address: it is not looked at."""
    connection = socket.create_connection(at, within_s)
    if not tls:
        return connection
    import ssl  # takes as long as all the rest

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


def _listeners(port: int) -> tuple[set[int], list[str], int]:
    """Who listens on a port: the users, the processes as "pid 812 (nginx)", how many may not be looked into."""
    inodes, owners = set(), set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:  # 0A: TCP_LISTEN
                inodes.add(f"socket:[{words[9]}]")
                owners.add(int(words[7]))
    found, closed = devices.holders(inodes)
    return owners, sorted({f"pid {pid} ({name})" for pids in found.values() for pid, name in pids.items()}), closed


def check_port(known: Known, answer: Answer) -> Check:
    """Whether the service can listen, or does already."""
    facts, at = answer.given[-1] if answer.given else {}, f"{known.host}:{known.port}"
    if not facts:
        return Check("port", Status.UNKNOWN, f"{at}: {answer.stuck or answer.trouble}")
    details = {name: facts[name] for name in ("free", "error", "holders")}
    if facts["free"]:
        return Check("port", Status.OK, f"{at} is free: no Camdock runs there", "", details)
    if facts["health"]:
        what = f"Camdock answers on {at}, {facts['health']['status']}"
        if facts["withheld"] and known.token:
            what += "; it runs as another user, so it was not shown the token, and tells nothing of its cameras"
        return Check("port", Status.OK, what, "", details)
    if "asking" in facts and answer.trouble:
        what = f"{at} is held by {' and '.join(facts['holders']) or 'another process'}, which did not answer"
        return Check("port", Status.UNKNOWN, f"{what}: {answer.stuck or answer.trouble}", _PATIENT, details)
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
