"""The wheels that pip would install on another Python and machine, chosen and fetched by pip itself.

By pip, because it is what will install them: the same choice among indexes and tags, and the user's own configuration
(mirrors, extra indexes, find-links, certificates, logins) holds without being translated for another resolver. uv
resolves ten times faster, but where several indexes have a version it takes the files of the first one only, and so
gave other versions than pip will install.

Runs in: any process; pip runs in processes of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

PIP_TIMEOUT_S = 1800  # a hundred wheels over a slow line
AT_ONCE = min(4, os.cpu_count() or 1)

# What the caller's own `pip install` is to do with its packages; not what can be had, and from where.
# fmt: off
_NOT_OURS = {
    "PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_REQUIRE_HASHES", "PIP_DRY_RUN", "PIP_REPORT",
    "PIP_PLATFORM", "PIP_PYTHON_VERSION", "PIP_ABI", "PIP_PYTHON", "PIP_IMPLEMENTATION", "PIP_IGNORE_INSTALLED",
    "PIP_UPGRADE", "PIP_NO_DEPS", "PIP_QUIET", "PIP_VERBOSE", "PIP_BUILD_CONSTRAINT",
}
# fmt: on

# By machine: the oldest glibc its manylinux tags begin with, and the names the tags had before they said a glibc.
_MANYLINUX: dict[str, tuple[int, dict[int, str]]] = {
    "x86_64": (5, {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}),
    "i686": (5, {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}),
    "aarch64": (17, {17: "manylinux2014"}),
    "armv7l": (17, {17: "manylinux2014"}),
}
_OTHER_NAMES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
MACHINES = tuple(_MANYLINUX)


class PipFailed(Exception):
    """pip could not do it. The message is pip's own, without its decoration.

    missing  the requirement that no wheel fits, where that is what pip says; else ""
    """

    def __init__(self, message: str, missing: str = "") -> None:
        super().__init__(message)
        self.missing = missing


class PipMissing(Exception):
    """The running interpreter has no pip, or one that is too old."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """CPython `python` ("3.11") on Linux of that machine with glibc 2.`glibc`."""

    python: str
    machine: str
    glibc: int = 36  # Debian bookworm's, the oldest system the images are built on

    def __post_init__(self) -> None:
        object.__setattr__(self, "machine", _OTHER_NAMES.get(self.machine.lower(), self.machine))
        if not re.fullmatch(r"3\.\d{1,2}", self.python):
            raise ValueError(f"{self.python!r} is no Python release: write it like 3.12")
        if self.machine not in _MANYLINUX:
            raise ValueError(f"{self.machine!r} is no machine known here: {', '.join(MACHINES)} are")

    def __str__(self) -> str:
        return f"cp{self.python.replace('.', '')} {self.machine}"

    @property
    def tags(self) -> list[str]:
        """The platform tags such a system accepts, in pip's order: the newest glibc first."""
        oldest, names = _MANYLINUX[self.machine]
        tags = []
        for minor in range(self.glibc, oldest - 1, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in names:
                tags.append(f"{names[minor]}_{self.machine}")
        return [*tags, f"linux_{self.machine}"]

    @property
    def markers(self) -> dict[str, str]:
        """The environment that markers are evaluated in; the first patch release stands for all of them."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    @property
    def options(self) -> list[str]:
        """What tells pip to choose for this platform."""
        abis = ("cp" + self.python.replace(".", ""), "abi3", "none")
        words = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.python]
        words += [word for abi in abis for word in ("--abi", abi)]
        return words + [word for tag in self.tags for word in ("--platform", tag)]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel that pip chose. `file`: its name, which says what it fits; `sha256`: "" where pip gives none.

    requires  its Requires-Dist lines
    built     a package that is built from source where it is installed: there is no such file
    """

    name: str
    version: str
    file: str
    sha256: str = ""
    requires: tuple[str, ...] = ()
    built: bool = False


def resolve(
    platform: Platform,
    requirements: Iterable[str],
    constraints: Iterable[str] = (),
    from_source: Mapping[str, str] | None = None,
    *,
    dependencies: bool = True,
) -> dict[str, Wheel]:
    """The wheels pip would install on that platform, by canonical name. Fetches metadata, installs nothing.

    from_source   version by name: these are taken as being there, in that version, though no wheel of them is
    dependencies  False: only what is named
    raises        PipFailed, PipMissing
    """
    from_source = from_source or {}
    with tempfile.TemporaryDirectory(prefix="camdock-plan-") as folder:
        work = Path(folder)
        stand_ins = work / "built"
        stand_ins.mkdir()
        for name, version in from_source.items():
            _stand_in(stand_ins, name, version)
        (work / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
        (work / "constraints.txt").write_text("".join(f"{line}\n" for line in constraints))
        words = ["install", "--dry-run", "--ignore-installed", "--target", str(work / "never")]
        words += ["--report", str(work / "report.json"), *platform.options, "--find-links", str(stand_ins)]
        words += ["-c", str(work / "constraints.txt"), "-r", str(work / "requirements.txt")]
        _pip(platform, words if dependencies else [*words, "--no-deps"])
        report = json.loads((work / "report.json").read_bytes())
    environment = report["environment"]
    if any(environment.get(marker) != value for marker, value in platform.markers.items()):
        raise PipMissing(
            f"pip {report['pip_version']} evaluated the markers for another machine than {platform}: "
            "pip_for_platform.py does not know this pip; use another one"
        )
    wheels = [wheel_of(item, built=from_source) for item in report["install"]]
    return {wheel.name: wheel for wheel in wheels}


def wheel_of(item: Mapping[str, Any], built: Collection[str] = ()) -> Wheel:
    """An item of pip's report. Raises PipFailed where that is no wheel of its name: the file's name becomes a path.

    built  names of what is built from source
    """
    metadata, download = item["metadata"], item["download_info"]
    name = canonicalize_name(metadata["name"])
    # The last part is taken after unquoting: %2F is a slash, too.
    file = unquote(urlsplit(download["url"]).path).rpartition("/")[2]
    try:
        named = parse_wheel_filename(file)[0]
    except InvalidWheelFilename:
        named = None
    if (
        named != name
        or not re.fullmatch(r"[A-Za-z0-9_.!+-]+", file)
        or "dir_info" in download
        or "vcs_info" in download
    ):
        raise PipFailed(f"{name} {metadata['version']}: {file!r} is no wheel of it")
    return Wheel(
        name=name,
        version=metadata["version"],
        file=file,
        sha256=download.get("archive_info", {}).get("hashes", {}).get("sha256", ""),
        requires=tuple(metadata.get("requires_dist", ())),
        built=name in built,
    )


def fetch(
    wanted: Mapping[Platform, Sequence[Wheel]], cache: Path, say: Callable[[str], None]
) -> dict[tuple[Platform, str], str]:
    """Brings every wheel that is not there yet into the folder `cache`: each is there whole, with the right hash, or
    not at all.

    returns  what could not be had, (platform, name), and pip's reason
    raises   PipMissing, OSError where the folder cannot be written
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing: dict[Platform, list[Wheel]] = {}
    files: set[str] = set()
    for platform, wheels in wanted.items():
        for wheel in wheels:
            if wheel.built or wheel.file in files:
                continue
            files.add(wheel.file)
            path = cache / wheel.file
            if path.exists() and wheel.sha256 and _sha256(path) != wheel.sha256:
                say(f"{wheel.file}: another file than the index has now, fetched again")
                path.unlink()
            if not path.exists():
                missing.setdefault(platform, []).append(wheel)
    failed: dict[tuple[Platform, str], str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for problems in pool.map(partial(_fetch, cache, say), missing.items()):
            failed.update(problems)
    return failed


def _fetch(
    cache: Path, say: Callable[[str], None], job: tuple[Platform, list[Wheel]]
) -> dict[tuple[Platform, str], str]:
    platform, wheels = job
    say(f"{platform}: fetching {len(wheels)} wheel{'s' if len(wheels) > 1 else ''}")
    # In the cache's own folder, so that the rename stays within one file system.
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=cache) as folder:
        incoming = Path(folder)
        words = ["download", "--no-deps", "--dest", str(incoming), *platform.options]
        reason = "pip chose another file this time"
        try:
            _pip(platform, [*words, *(f"{wheel.name}=={wheel.version}" for wheel in wheels)])
        except PipFailed as error:
            reason = str(error)
        failed = {}
        for wheel in wheels:
            path = incoming / wheel.file
            if not path.exists():
                failed[platform, wheel.name] = reason
            elif wheel.sha256 and _sha256(path) != wheel.sha256:
                failed[platform, wheel.name] = f"{wheel.file} does not have the hash that the index gives"
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(path, cache / wheel.file)
    return failed


def _pip(platform: Platform, words: Sequence[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
    script = Path(__file__).with_name("pip_for_platform.py")
    # -P: a file of the folder somebody works in must not stand before pip's own modules.
    command = [sys.executable, "-P", str(script), json.dumps(platform.markers), "--no-color", *words]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PipFailed(f"pip did not finish within {PIP_TIMEOUT_S // 60} minutes") from error
    if "No module named 'pip" in done.stderr:
        raise PipMissing(
            f"{sys.executable} has no pip, which chooses and fetches the wheels: {sys.executable} -m ensurepip"
        )
    if "no such option: --report" in done.stderr:
        raise PipMissing(f"the pip of {sys.executable} is older than 22.2: {sys.executable} -m pip install -U pip")
    if done.returncode:
        raise _failure(done.stdout, done.stderr)


def _failure(said: str, errors: str) -> PipFailed:
    missing = re.search(r"^ERROR: No matching distribution found for (.+?)(?: \(from .*)?$", errors, re.MULTILINE)
    if missing:
        return PipFailed(f"no wheel of {missing[1]} fits", missing[1])
    if conflict := re.search(r"^The conflict is caused by:\n(.+?)\n(?:To fix this|\Z)", said, re.MULTILINE | re.DOTALL):
        # Recent pips add which of the packages have no wheel that fits.
        said_so = conflict[1].replace(
            "no matching distributions available for your environment:", "no wheel that fits:"
        )
        lines = [line.strip() for line in said_so.splitlines() if line.strip()]
        if len(lines) > 8:  # pip names every version that it tried
            lines = [*lines[:4], f"... {len(lines) - 6} more lines of pip's", *lines[-2:]]
    else:
        # "ERROR: Exception:" stands before a traceback, whose last line says what it is.
        last = errors.rstrip().splitlines()[-1 if "ERROR: Exception:" in errors else -3 :]
        kept = [line for line in errors.splitlines() if re.match("ERROR: (?!Exception:)", line)] or last
        lines = [line.removeprefix("ERROR:").strip() for line in kept]
    return PipFailed("\n".join(lines) or "pip failed and said nothing")


def _stand_in(folder: Path, name: str, version: str) -> None:
    """An empty wheel by that name: pip resolves for other platforms with wheels only."""
    written = re.sub(r"[-_.]+", "_", name)
    info = f"{written}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: camdock\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{written}-{version}-py3-none-any.whl", "w") as wheel:
        record = []
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record.append(f"{path},sha256={digest},{len(text)}\n")
        wheel.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
