"""Root file systems of older Debian releases, to work in: those of tests/testbed/roots.sh, which stay as they are."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "testbed" / "roots.sh"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
INDEX_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


@dataclass(frozen=True)
class Root:
    """A root file system that commands can be run in. What they change is gone after the test."""

    path: Path
    environment: dict[str, str]

    def run(self, *command: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """A command inside; its output and its errors together, as a log would have them."""
        return subprocess.run(
            [
                "chroot",
                str(self.path),
                "/usr/bin/env",
                "-i",
                *(f"{k}={v}" for k, v in self.environment.items()),
                *command,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def done(self, *command: str) -> str:
        """A command inside that must succeed; its output."""
        ended = self.run(*command)
        assert ended.returncode == 0, f"{' '.join(command)}: exit status {ended.returncode}\n{ended.stdout}"
        return ended.stdout

    def outside(self, path: str) -> str:
        """A path inside as it is from outside."""
        return f"{self.path}{path}"

    def to_type(self, fix: str) -> str:
        """A fix as it is typed inside: without the words that say that it belongs there."""
        return self.inside(fix.removeprefix(f"inside {self.path}: "))

    def inside(self, text: str) -> str:
        """Paths in a text as they are from inside."""
        return text.replace(str(self.path), "")


def copied_root(name: str, place: Path) -> Root:
    """A copy of a root in a folder, to be removed by remove_roots(); skips the test where none can be made.

    That is a failure where CI=true.
    """
    made = subprocess.run([SCRIPT, name], capture_output=True, text=True)
    why_not = made.stderr.strip()
    if made.returncode == 0 and os.geteuid() != 0:
        made.returncode, why_not = 1, "working in a root file system takes root"
    if made.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail(why_not)
        pytest.skip(why_not)
    path = place / name
    if not _laid_over(made.stdout.strip(), path, place / f"{name}-changes"):
        subprocess.run(["cp", "--archive", "--reflink=auto", made.stdout.strip(), path], check=True)
    for file in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copyfile(file, f"{path}{file}")
    trusted = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    if trusted:
        shutil.copyfile(trusted, f"{path}{CERTIFICATES}")
    settings = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **_pip_settings()}
    # Most of what is installed is imported once or never: bytecode would take longer to make than it saves.
    return Root(path, {**settings, "PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_COMPILE": "1"})


def _laid_over(root: str, path: Path, changes: Path) -> bool:
    """Mount a root so that what is written goes elsewhere: nothing is copied, and only that has to be deleted."""
    for folder in (path, changes / "upper", changes / "work"):
        folder.mkdir(parents=True)
    layers = f"lowerdir={root},upperdir={changes}/upper,workdir={changes}/work"
    mounted = subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", path], capture_output=True)
    if mounted.returncode != 0:  # in a container, say, or with its files on an overlay already
        path.rmdir()
    return mounted.returncode == 0


def remove_roots(place: Path) -> None:
    """Remove a folder with roots in it."""
    for path in place.iterdir():
        if path.is_mount():
            subprocess.run(["umount", path], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


def _pip_settings() -> dict[str, str]:
    """How pip reaches its index on this machine, in environment variables; indexes on this machine's disk left out."""
    settings = {"PIP_CERT": CERTIFICATES, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        kept = " ".join(word for word in value.strip("'\"").split() if not word.startswith(("file:", "/")))
        if key in INDEX_SETTINGS and kept:
            settings["PIP_" + key.replace("-", "_").upper()] = kept
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        if name in os.environ:
            settings[name] = os.environ[name]
    return settings
