"""The machine that the figures belong to: they compare servers on it, never one machine with another.

Runs in: the bench's process.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from tests.bench.servers import ROOT

PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "numpy", "simplejpeg", "linuxpy")


def _words(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    model = Path("/proc/device-tree/model")
    board = model.read_text().strip("\0\n") if model.exists() else ""
    return facts.get("model name") or board or facts.get("Hardware") or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what takes part, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in ("opencv-python-headless", "opencv-python"):
        try:
            found["opencv"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if shutil.which("ustreamer"):
        found["ustreamer"] = _words("ustreamer", "--version")
    return found


def facts() -> dict[str, object]:
    """What must be known to read the figures; goes into the JSON."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "") if Path("/etc/os-release").exists() else "",
        "load_before": os.getloadavg()[0],
        "commit": _words("git", "describe", "--always", "--dirty"),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
    }
