"""The machine: what its kernel said of video, versions, the user, the container or the engine.

Runs in: `look`, in one errand, whose later parts are the ones that may block; `checks` in the doctor's process.
"""

from __future__ import annotations

import grp
import importlib.metadata
import os
import platform
import pwd
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import camdock
from camdock import devices
from camdock.doctor.answer import Answer
from camdock.doctor.report import Check, Status

VIDEO = re.compile(
    r"(?i)uvc|v4l2?|/dev/video|videodev|unicam|rp1-cfe|pisp|\bimx\d{3}|\bov\d{4}|\bcsi|webcam|camera|gspca"
    r"|usb \d[\d.-]*: .*(error|disconnect|reset|over-current)|under-?voltage"
)
TROUBLE = re.compile(r"(?i)error|fail|timed? ?out|disconnect|under-?voltage|over-current|unable|hung|\breset")
RECENT_S = 3600.0
SHOWN = 8
PACKAGES = (
    "numpy", "simplejpeg", "pillow", "linuxpy", "picamera2", "pixelinkWrapper", "requests", "opencv-python",
    "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless", "fastapi", "uvicorn",
    "pydantic-settings",
)  # fmt: skip
DOCKER_SOCKET = "/var/run/docker.sock"
ENGINE_WITHIN_S = 2.0
LITTLE_MEMORY = 200_000_000  # one 1080p camera and its viewers need about half of this
_NO_LIMIT = 1 << 60  # cgroup v1 writes "none" as a number near 2**63


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def look() -> Iterator[dict[str, Any]]:
    """An answer for each part, by its name."""
    yield {"versions": versions()}
    yield {"limits": limits()}
    yield {"kernel": kernel()}
    yield {"user": user()}  # asks a directory service, where there is one
    yield {"engine": engine()}


def checks(answer: Answer) -> list[Check]:
    """What is made of them."""
    parts: dict[str, dict[str, Any]] = {}
    for given in answer.given:
        parts |= given
    why = answer.stuck or answer.trouble
    found = [check_kernel(parts.get("kernel", {}), why), check_user(parts.get("user", {}), why),
             check_versions(parts.get("versions", {}), why)]  # fmt: skip
    limited = parts.get("limits", {})
    inside = not limited or limited["inside"]
    return [*found, check_limits(limited, why) if inside else check_engine(parts.get("engine", {}), why)]


# --- the kernel's log -------------------------------------------------------------------------------------------------


def kernel() -> dict[str, Any]:
    """Gives `lines` about video as (age in seconds or None, is it trouble, text), None where none may be read."""
    lines: list[tuple[float | None, str]] | None
    try:
        lines = list(_kmsg())
    except OSError:
        lines = _journal()
    if lines is None:
        return {"lines": None}
    return {"lines": [[age, bool(TROUBLE.search(text)), text] for age, text in lines if VIDEO.search(text)][-100:]}


def _kmsg() -> Iterator[tuple[float | None, str]]:
    """Raises OSError where the kernel lets only root read."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(descriptor, 8192).decode("utf-8", "replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten before it was read: the next one is there
                continue
            head, _, text = record.partition(";")
            micros = head.split(",")[2:3]
            yield time.monotonic() - int(micros[0]) / 1e6 if micros else None, text.partition("\n")[0]
    finally:
        os.close(descriptor)


def _journal() -> list[tuple[float | None, str]] | None:
    command = ["journalctl", "--dmesg", "--quiet", "--no-pager", "--lines=2000", "--output=short-monotonic"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return None
    found = re.findall(r"(?m)^\[ *([\d.]+)\] \S+ kernel: (.*)$", said)
    return [(time.monotonic() - float(at), text) for at, text in found] or None


def check_kernel(facts: Mapping[str, Any], why: str) -> Check:
    """Trouble of the last hour is worth a look; nothing in a log proves that something is wrong now."""
    lines = facts.get("lines")
    if lines is None:
        what = f"the kernel's log may not be read by this user{f': {why}' if why else ''}"
        return Check("kernel", Status.UNKNOWN, what, "`sudo dmesg | grep -iE 'uvc|video|usb'`")
    shown = [f"{_ago(age)}: {text}" for age, _, text in lines[-SHOWN:]]
    details = {"lines": shown, "all": lines}
    trouble = [text for age, is_trouble, text in lines if is_trouble and (age is None or age < RECENT_S)]
    if trouble:
        what = f"the kernel had trouble with video or USB in the last hour: {trouble[-1]}"
        hint = "cable, power supply and hub first: most of these lines come from them"
        return Check("kernel", Status.WARNING, what, hint, details)
    return Check("kernel", Status.OK, f"{len(lines) or 'no'} lines about video, none of trouble now", "", details)


def _ago(age: float | None) -> str:
    if age is None:
        return "some time ago"
    return f"{age:.0f} s ago" if age < 120 else f"{age / 60:.0f} min ago" if age < 7200 else f"{age / 3600:.0f} h ago"


# --- versions ---------------------------------------------------------------------------------------------------------


def versions() -> dict[str, Any]:
    """Gives version by name, "" for what is not installed. Imports none of them."""
    found = {
        "camdock": camdock.__version__,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "system": next(iter(re.findall(r'(?m)^PRETTY_NAME="?(.*?)"?$', _text("/etc/os-release"))), ""),
        "python": platform.python_version(),
        "uvcvideo": _text("/sys/module/uvcvideo/version")
        or ("there" if os.path.exists("/sys/module/uvcvideo") else ""),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def check_versions(facts: Mapping[str, Any], why: str) -> Check:
    """What is there, in one line; two OpenCVs in one place are a mistake."""
    found = facts
    if not found:
        return Check("versions", Status.UNKNOWN, f"versions: {why}")
    here = ", ".join(f"{name} {found[name]}" for name in ("camdock", "kernel", "python"))
    driver = f"uvcvideo {found['uvcvideo']}" if found["uvcvideo"] else "uvcvideo not loaded (no USB camera yet)"
    packages = [f"{name} {found[name]}" for name in PACKAGES if found[name]]
    details = {"lines": [", ".join(packages) or "no libraries of the service"], "versions": found}
    opencvs = [name for name in PACKAGES if name.startswith("opencv") and found[name]]
    what = f"{here}, {driver}"
    if len(opencvs) > 1:
        what = f"{' and '.join(opencvs)} are both installed, and have written over each other's files"
        hint = f"`pip uninstall -y {' '.join(opencvs)} && pip install -c constraints.txt opencv-python-headless`"
        return Check("versions", Status.WARNING, what, hint, details)
    return Check("versions", Status.OK, what, "", details)


# --- the user ---------------------------------------------------------------------------------------------------------


def user() -> dict[str, Any]:
    """Gives `uid`, `name`, `groups` by name, and `missed`: groups that this session does not have yet."""
    uid, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    names = {}
    for number in sorted(groups):
        try:
            names[grp.getgrgid(number).gr_name] = number
        except KeyError:
            names[str(number)] = number
    missed = [one.gr_name for one in grp.getgrall() if name in one.gr_mem and one.gr_gid not in groups]
    return {"uid": uid, "name": name, "groups": names, "missed": missed}


def check_user(facts: Mapping[str, Any], why: str) -> Check:
    """Who this is; a group that was given since the session began is the commonest reason for "no permission"."""
    if not facts:
        return Check("user", Status.UNKNOWN, f"the user's groups: {why}")
    what = f"{facts['name'] or 'a user without a name'} (uid {facts['uid']}), groups {', '.join(facts['groups'])}"
    if missed := [name for name in facts["missed"] if name in ("video", "render", "docker")]:
        what = f"{facts['name']} was put into group {', '.join(missed)}, which this session does not know of yet"
        return Check("user", Status.WARNING, what, "log out and in again; a service: `sudo systemctl restart camdock`",
                     facts)  # fmt: skip
    return Check("user", Status.OK, what, "", facts)


# --- the container, or the engine -------------------------------------------------------------------------------------


def limits() -> dict[str, Any]:
    """Inside a container: `inside`, limits in bytes, processors and processes, None for none."""
    if not any(os.path.exists(mark) for mark in devices.IN_CONTAINER):
        return {"inside": False}
    v2, memory, cpu = "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"
    quota, _, period = _text(f"{v2}/cpu.max").partition(" ")
    quota, period = quota or _text(f"{cpu}/cpu.cfs_quota_us"), period or _text(f"{cpu}/cpu.cfs_period_us")
    oom = re.search(r"(?m)^oom_kill (\d+)", _text(f"{v2}/memory.events") or _text(f"{memory}/memory.oom_control"))
    return {
        "inside": True,
        "memory": _number(_text(f"{v2}/memory.max") or _text(f"{memory}/memory.limit_in_bytes")),
        "used": _number(_text(f"{v2}/memory.current") or _text(f"{memory}/memory.usage_in_bytes")),
        "killed": int(oom[1]) if oom else 0,
        "cpus": int(quota) / int(period) if quota.isdigit() and period.isdigit() else None,
        "pids": _number(_text(f"{v2}/pids.max")),
        "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "capabilities": next(iter(re.findall(r"CapEff:\s*(\w+)", _text("/proc/self/status"))), ""),
        # cgroup v2 keeps its list in the kernel, as a program: only opening a device tells.
        "devices": _text("/sys/fs/cgroup/devices/devices.list").splitlines(),
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None


def engine() -> dict[str, Any]:
    """On a machine: is there a Docker `socket`, may this user `use` it, what `version` answers."""
    facts = {"socket": os.path.exists(DOCKER_SOCKET), "use": os.access(DOCKER_SOCKET, os.W_OK), "version": ""}
    if facts["use"]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ENGINE_WITHIN_S)
            try:
                connection.connect(DOCKER_SOCKET)
                connection.sendall(b"GET /version HTTP/1.0\r\n\r\n")
                said = connection.makefile("rb").read(1 << 20).decode("utf-8", "replace")
                facts["version"] = next(iter(re.findall(r'"Version":"([^"]+)"', said)), "")
            except OSError as error:
                facts["error"] = str(error)
    return facts


def check_limits(facts: Mapping[str, Any], why: str) -> Check:
    """What the container may use."""
    if not facts:
        return Check("container", Status.UNKNOWN, f"limits of a container: {why}")
    said = [
        f"memory {facts['memory'] / 1e6:.0f} MB" if facts["memory"] else "memory not limited",
        f"{facts['cpus']:g} processors" if facts["cpus"] else "processors not limited",
        f"{facts['pids']} processes" if facts["pids"] else "processes not limited",
        "root read-only" if facts["read_only"] else "root writable",
        f"capabilities {facts['capabilities']}",
    ]
    what = "in a container: " + ", ".join(said)
    if facts["killed"]:
        what = f"the kernel has ended {facts['killed']} processes of this container for want of memory"
        return Check("container", Status.WARNING, what, "more for it: `mem_limit` in compose.yaml",
                     facts)  # fmt: skip
    if facts["memory"] and facts["memory"] < LITTLE_MEMORY:
        what = f"this container has {facts['memory'] / 1e6:.0f} MB of memory, which is little"
        return Check("container", Status.WARNING, what, "`mem_limit: 512m` in compose.yaml, `docker run --memory 512m`",
                     facts)  # fmt: skip
    return Check("container", Status.OK, what, "", facts)


def check_engine(facts: Mapping[str, Any], why: str) -> Check:
    """Docker, which nothing but `make up` and `make image` needs."""
    if not facts:
        return Check("engine", Status.UNKNOWN, f"whether there is a Docker engine: {why}")
    if facts.get("error"):
        what = f"the Docker engine does not answer: {facts['error']}"
        return Check("engine", Status.WARNING, what, "`sudo systemctl status docker`", facts)
    if not facts["socket"]:
        return Check("engine", Status.OK, "no Docker engine here; only `make up` would need one", "", facts)
    if not facts["use"]:
        what = "there is a Docker engine, and this user may not use it; only `make up` would need that"
        return Check("engine", Status.OK, what, "`sudo usermod -aG docker $USER`, then log in again", facts)
    return Check("engine", Status.OK, f"Docker {facts['version']}", "", facts)
