#!/usr/bin/python
"""Looks at a host before anything is changed there, and says in sentences what would keep Camdock from being deployed.

Runs in: the target, as an Ansible module; standard library only. Changes nothing.
"""

from __future__ import annotations

import configparser
import json
import os
import platform
import re
import socket
import ssl
import struct
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.camdock_deploy import (
    build_of_image,
    build_of_source,
    complete,
    without_secrets,
)

DOCUMENTATION = r"""
module: camdock_preflight
short_description: Judge whether Camdock can be deployed on this host
description: Collects every problem, so that a person mends all of them before the next run.
options:
  mode: {description: How Camdock will run., type: str, required: true, choices: [native, container]}
  root: {description: Folder of builds and releases., type: path, required: true}
  cache: {description: Folder of pip's cache., type: path, required: true}
  host: {description: Address the service will listen on., type: str, required: true}
  port: {description: Port the service will listen on., type: int, required: true}
  version: {description: Version of the source., type: str, default: ""}
  digest: {description: Digest of the source., type: str, default: ""}
  extras: {description: Extras that are installed., type: list, elements: str, default: []}
  image: {description: Image by digest., type: str, default: ""}
  image_archive: {description: The docker save file., type: str, default: ""}
  archive: {description: What camdock_archive said., type: dict, default: {}}
  source: {description: The one camera's source., type: str, default: auto}
  sources: {description: Several cameras' sources., type: str, default: ""}
  settings: {description: Further variables of the service., type: dict, default: {}}
  environment: {description: Variables for pip and docker., type: dict, default: {}}
  free_mb: {description: Least free space asked for; 0 for what was measured., type: int, default: 0}
  keep: {description: How many releases stay., type: int, default: 3}
  memory_max: {description: Most memory of the service., type: str, default: 512M}
author: The Camdock authors
"""
EXAMPLES = r"""
- camdock_preflight: {mode: native, root: /opt/camdock, cache: /var/cache/camdock, host: 127.0.0.1, port: 8000}
"""
RETURN = r"""
problems: {description: Sentences; deploy only without any., type: list, returned: always}
warnings_said: {description: Sentences., type: list, returned: always}
build: {description: The id of the build that would be deployed., type: str, returned: always}
ready: {description: Whether that build is there and complete., type: bool, returned: always}
python: {description: Minor version of the host's Python., type: str, returned: always}
packages: {description: Debian packages that are missing., type: list, returned: always}
"""

# What runs it, as /etc/os-release says: ID, VERSION_ID. The 64-bit Raspberry Pi OS says debian.
KNOWN = {"debian": ("12", "13"), "ubuntu": ("24.04",)}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
PYTHON = "/usr/bin/python3"
OLDEST, NEWEST = (3, 11), (3, 13)
NATIVE_PACKAGES = ("python3-venv", "ca-certificates")
# What a Pi's own cameras need besides: two libraries have no wheel, libcamera and libarchive are apt's.
PICAMERA2 = "picamera2"
PICAMERA2_PACKAGES = (
    "gcc", "libarchive13t64", "libc6-dev", "libcap-dev", "libcap2", "libcamera-ipa", "python3-dev", "python3-libcamera",
)  # fmt: skip
PICAMERA2_PYTHON = (3, 13)  # what docker/pins/picamera2.txt is for
ENGINE_PACKAGES: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("debian", "13"): {"engine": ("docker.io", "docker-cli"), "compose": ("docker-compose",)},
    ("ubuntu", "24.04"): {"engine": ("docker.io",), "compose": ("docker-compose-v2",)},
}
# MB that a first deployment was seen to take, and a quarter more. Packages: what apt unpacks and downloads.
NATIVE_MB = {"build": 400, "cache": 150, "temporary": 130, "packages": 60}
PICAMERA2_MB = {"build": 230, "packages": 420}  # in addition
CONTAINER_MB = {"engine": 410, "image": 550}
READY_MB = 10  # a release alone
LISTEN = "0A"
ANSWER_WITHIN_S = 10.0


@dataclass
class Host:
    """What this host is. Everything is read, nothing is run that changes it."""

    name: str
    id: str
    release: str
    architecture: str  # as dpkg says: the kernel may be of another kind than what is installed
    machine: str
    python: tuple[int, int] | None
    init: str
    folder: Path = field(default=Path("/"))


def words_of(*command: str) -> str:
    """What a command prints; an empty text when it fails or is not there."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def look(root: Path = Path("/")) -> Host:
    """What this host is; `root` is another folder in tests."""
    said: dict[str, str] = {}
    try:
        for line in (root / "etc/os-release").read_text().splitlines():
            name, _, value = line.partition("=")
            said[name] = value.strip().strip("\"'")
    except OSError:
        pass
    python = words_of(PYTHON, "-c", "import sys; print(*sys.version_info[:2])").split()
    try:
        init = (root / "proc/1/comm").read_text().strip()
    except OSError:
        init = "?"
    return Host(
        said.get("PRETTY_NAME", "an unknown system"),
        said.get("ID", ""),
        said.get("VERSION_ID", ""),
        words_of("dpkg", "--print-architecture") or "unknown",
        platform.machine(),
        (int(python[0]), int(python[1])) if len(python) == 2 else None,
        init,
        root,
    )


def judge(host: Host) -> list[str]:
    """What this host itself lacks."""
    problems = []
    if host.release not in KNOWN.get(host.id, ()) and host.id != "raspbian":
        known = "Debian 12 and 13, Raspberry Pi OS of either (64-bit), Ubuntu 24.04"
        problems.append(f"This host runs {host.name}; Camdock is deployed on {known}. Install one of them.")
    if host.architecture not in ARCHITECTURES:
        reason = (
            f"a 32-bit system ({host.architecture})"
            + (" although its processor could run a 64-bit one" if host.machine in ("aarch64", "x86_64") else "")
            if host.architecture in ("armhf", "armel", "i386")
            else f"a system for {host.architecture}"
        )
        problems.append(
            f"This host runs {reason}: NumPy and OpenCV are published for 64-bit x86-64 and ARM only. "
            "Write a 64-bit system to its card (Raspberry Pi 3 and later, Zero 2 W)."
        )
    if host.python is None:
        problems.append(f"{PYTHON} does not run: apt install python3.")
    elif not OLDEST <= host.python <= NEWEST:
        found = ".".join(map(str, host.python))
        problems.append(
            f"{PYTHON} is Python {found}; Camdock needs {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}, "
            "as Debian 12 and 13 have."
        )
    if host.init != "systemd":
        problems.append(
            f"Process 1 of this host is {host.init}, not systemd, which starts the service and takes a bad release "
            "back. In a container, run the image instead (compose.yaml)."
        )
    return problems


# What the role sets for the service in a way of its own, and how that is set.
RESERVED = {
    "CAMDOCK_SOURCE": "deploy_source",
    "CAMDOCK_SOURCES": "deploy_sources",
    "CAMDOCK_HOST": "deploy_host",
    "CAMDOCK_PORT": "deploy_port",
    "CAMDOCK_AUTH": "deploy_auth",
    "CAMDOCK_ALLOWED_HOSTS": "deploy_allowed_hosts",
    "CAMDOCK_STATE_DIR": "nothing: all releases share /var/lib/camdock/settings",
    "CAMDOCK_ABI_CACHE": "nothing: it lies where the service can write",
    "CAMDOCK_TOKEN": "nothing: it is made on the host, in /etc/camdock/token",
    "CAMDOCK_TOKEN_FILE": "nothing: it is /etc/camdock/token",
}


def contradictions(given: dict[str, Any]) -> list[str]:
    """Which of the variables cannot be meant together, or not at all."""
    problems = []
    if given["sources"] and given["source"] != "auto":
        problems.append("deploy_source and deploy_sources are both set: give the one or the other.")
    for name, value in given["settings"].items():
        if not re.fullmatch(r"CAMDOCK_[A-Z0-9_]+", str(name)):
            problems.append(f"deploy_settings has {name!r}: only variables of the service belong there, CAMDOCK_...")
        elif name in RESERVED:
            problems.append(f"deploy_settings has {name}, which is set by {RESERVED[name]}.")
        elif "\n" in str(value) or "\0" in str(value):
            problems.append(f"The value of {name} in deploy_settings has more than one line.")
    if not 1 <= given["port"] <= 65535:
        problems.append(f"deploy_port is {given['port']}: a port is a number from 1 to 65535.")
    if given["keep"] < 1:
        problems.append(
            f"deploy_keep is {given['keep']}: at least 1 release stays, and the one before it for the way back."
        )
    if not re.fullmatch(r"[1-9]\d*[KMG]", given["memory_max"]):
        problems.append(
            f"deploy_memory_max is {given['memory_max']!r}: write a whole number with K, M or G, such as 512M."
        )
    if given["mode"] == "native":
        for name in ("image", "image_archive"):
            if given[name]:
                problems.append(f"deploy_{name} is set, and deploy_mode is native: set deploy_mode to container.")
        return problems
    if bool(given["image"]) == bool(given["image_archive"]):
        either = "deploy_image (an image by digest) or deploy_image_archive (a file made by docker save)"
        are = "are both set: give the one or the other" if given["image"] else "is needed in deploy_mode container"
        problems.append(f"{either} {are}.")
    elif given["image"] and not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", given["image"]):
        problems.append(
            f"deploy_image is {without_secrets(given['image'])}, which names no digest: what a tag means changes under "
            "it, and a release must stay what it was to be gone back to. Write repository@sha256:... (`docker buildx "
            "imagetools inspect` prints it)."
        )
    return problems


# --- ports ------------------------------------------------------------------------------------------------------------


def listeners(port: int, root: Path = Path("/")) -> dict[str, str]:
    """Inode by address of every socket that listens on this TCP port."""
    found: dict[str, str] = {}
    for table, size in (("tcp", 4), ("tcp6", 16)):
        try:
            lines = (root / "proc/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            address, _, hexadecimal = words[1].partition(":")
            if words[3] == LISTEN and int(hexadecimal, 16) == port:
                found[_address(address, size)] = words[9]
    return found


def _address(text: str, size: int) -> str:
    # The kernel prints 32-bit words in the machine's own order.
    packed = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, size * 2, 8))
    return socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, packed)


def holder(inode: str, root: Path = Path("/")) -> str:
    """Who holds a socket, in words."""
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) == f"socket:[{inode}]" for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return "another program"


def in_the_way(host: str, found: dict[str, str]) -> dict[str, str]:
    """Those listeners beside which nobody can listen on `host`."""
    wide = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return {
        address: inode
        for address, inode in found.items()
        if host in wide or address in wide or address.removeprefix("::ffff:") == host
    }


def is_ours(root: Path, port: int) -> bool:
    """Whether the release that serves now is the one on this port."""
    try:
        current = json.loads((root / "current" / "release.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(current.get("port") == port and words_of("systemctl", "is-active", "camdock.service"))


# --- disk -------------------------------------------------------------------------------------------------------------


def there(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def too_full(wanted: dict[Path, int], least_mb: int = 0) -> list[str]:
    """Where there is less room than wanted, in MB by folder; folders of one file system count together.

    least_mb  asked for on each file system instead of what was measured; 0: what was measured
    """
    disks: dict[int, list[Path]] = {}
    for folder in wanted:
        disks.setdefault(there(folder).stat().st_dev, []).append(folder)
    problems = []
    for folders in disks.values():
        need = least_mb or sum(wanted[folder] for folder in folders)
        place = there(folders[0])
        state = os.statvfs(place)
        free = state.f_bavail * state.f_frsize // 1_000_000
        if free < need:
            names = ", ".join(map(str, folders))
            problems.append(
                f"The disk of {names} has {free} MB free and {need} MB are needed: remove something "
                f"(`apt clean`, `journalctl --vacuum-size=50M`), or use a larger card."
            )
    return problems


# --- addresses --------------------------------------------------------------------------------------------------------


def index_of(environment: dict[str, Any], configured: Path = Path("/etc/pip.conf")) -> str:
    """Where pip will look for packages; an empty text when it will not ask any server."""
    if str(environment.get("PIP_NO_INDEX", "")).lower() in ("1", "true", "yes", "on"):
        return ""
    given = environment.get("PIP_INDEX_URL") or os.environ.get("PIP_INDEX_URL")
    if not given:
        settings = configparser.RawConfigParser()
        try:
            settings.read(configured)
            given = settings.get("install", "index-url", fallback="") or settings.get(
                "global", "index-url", fallback=""
            )
        except configparser.Error:
            given = ""
    return str(given or "https://pypi.org/simple").rstrip("/")


def unreachable(address: str, environment: dict[str, Any], may_refuse: bool = False) -> str:
    """Why nothing answers at this address; an empty text when something does.

    may_refuse  an answer of 401 will do: a registry asks for a login even where it lets everybody read
    """
    url = urllib.parse.urlsplit(address)
    if url.scheme not in ("http", "https"):
        return ""
    lower = {str(name).lower(): str(value) for name, value in {**os.environ, **environment}.items()}
    proxies = {scheme: lower[f"{scheme}_proxy"] for scheme in ("http", "https") if lower.get(f"{scheme}_proxy")}
    without = {"no": lower.get("no_proxy", "")}
    if urllib.request.proxy_bypass_environment(url.hostname or "", without):  # type: ignore[attr-defined]
        proxies = {}
    bare = url._replace(netloc=url.netloc.rpartition("@")[2])
    request = urllib.request.Request(bare.geturl(), method="GET")  # noqa: S310 - http and https, see above
    if url.username:
        import base64

        login = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        context = ssl.create_default_context(cafile=lower.get("pip_cert") or None)
    except OSError as error:
        return f"the certificates in {lower.get('pip_cert')} cannot be read: {error.strerror}"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=ANSWER_WITHIN_S):
            return ""
    except urllib.error.HTTPError as error:
        if may_refuse and error.code == 401:
            return ""
        return f"it answers {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError) as error:
        return str(error)


# --- packages and engine ----------------------------------------------------------------------------------------------


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those Debian packages that are not installed."""
    return [one for one in packages if words_of("dpkg-query", "-W", "-f", "${db:Status-Status}", one) != "installed"]


def compose_version() -> str:
    """Of `docker compose`, the plugin; an empty text where there is none."""
    return words_of("docker", "compose", "version", "--short").removeprefix("v")


def engine_lacks(host: Host) -> tuple[list[str], list[str]]:
    """(packages to install, problems) before containers can be run here."""
    if compose_version()[:1].isdigit() and int(compose_version().partition(".")[0]) >= 2:
        return [], []
    packages = ENGINE_PACKAGES.get((host.id, host.release))
    if packages is None:
        return [], [
            f"{host.name} has no Compose v2 in its packages, and `docker compose` is not here. Deploy natively "
            "(deploy_mode: native), or install Docker's own packages first (docs.docker.com/engine/install/debian)."
        ]
    has_engine = bool(words_of("docker", "--version"))
    wanted = packages["compose"] if has_engine else (*packages["engine"], *packages["compose"])
    return missing(wanted), []


def no_pins_for(host: Host) -> list[str]:
    """Why a Pi's own cameras cannot be served natively here, if so: their set of pins is for one Python."""
    if host.python in (None, PICAMERA2_PYTHON):
        return []
    found, wanted = (".".join(map(str, python)) for python in (host.python or (), PICAMERA2_PYTHON))
    return [
        f"A source picamera2: is served natively beside Python {wanted} (Debian 13, Raspberry Pi OS trixie), and this "
        f"host has {found}: install that system, or deploy the image camdock:picamera2 with deploy_mode: container."
    ]


def room_for(given: dict[str, Any], packages: list[str]) -> dict[Path, int]:
    """MB by folder that a deployment of a build that is not here yet will take."""
    if given["mode"] == "native":
        more = PICAMERA2_MB if PICAMERA2 in given["extras"] else dict.fromkeys(PICAMERA2_MB, 0)
        return {
            Path(given["root"]): NATIVE_MB["build"] + more["build"],
            Path(given["cache"]): NATIVE_MB["cache"],
            Path(str(given["environment"].get("TMPDIR") or "/tmp")): NATIVE_MB["temporary"],  # noqa: S108 - pip's own
            Path("/usr"): NATIVE_MB["packages"] + more["packages"] if packages else 0,
        }
    room = {Path("/var/lib/docker"): CONTAINER_MB["image"], Path("/usr"): CONTAINER_MB["engine"] if packages else 0}
    if archive := given["archive"]:
        # While it is loaded, the archive lies beside what comes out of it.
        room[Path("/var/lib/docker")] = int(archive["unpacked"]) * 5 // 4 // 1_000_000
        room[Path(given["cache"])] = int(archive["bytes"]) // 1_000_000 + 1
    return room


def registry_of(image: str) -> str:
    """The address that answers for an image's registry: registry.example.org/camdock@sha256:..."""
    first, slash, _ = image.partition("/")
    if not slash or not (("." in first) or (":" in first) or first == "localhost"):
        return "https://registry-1.docker.io/v2/"
    # As the engine does: plain HTTP on this host alone.
    is_here = first.partition(":")[0] in ("localhost", "127.0.0.1")
    return f"http{'' if is_here else 's'}://{first}/v2/"


def preflight(given: dict[str, Any]) -> dict[str, Any]:
    """Everything the module returns."""
    host = look()
    problems = contradictions(given) + judge(host)
    said: list[str] = []
    root = Path(given["root"])
    python = ".".join(map(str, host.python or ()))
    if given["mode"] == "native":
        build = build_of_source(given["version"], given["digest"], given["extras"], python)
        is_pis = PICAMERA2 in given["extras"]
        packages = missing((*NATIVE_PACKAGES, *(PICAMERA2_PACKAGES if is_pis else ())))
        problems += no_pins_for(host) if is_pis else []
    else:
        archive = given["archive"]
        digest = archive.get("image") or given["image"].rpartition(":")[2]
        build = build_of_image(archive.get("version", ""), digest)
        packages, lacking = engine_lacks(host)
        problems += lacking
        if archive and archive["architecture"] != host.architecture:
            problems.append(
                f"The image archive is for {archive['architecture']}, and this host is {host.architecture}: "
                f"build it with --platform linux/{host.architecture}, or deploy natively."
            )
    ready = complete(root / "builds" / build) is not None
    taken = in_the_way(given["host"], listeners(given["port"]))
    if taken and not is_ours(root, given["port"]):
        address, inode = next(iter(taken.items()))
        shown = f"[{address}]" if ":" in address else address
        problems.append(
            f"Port {given['port']} is taken by {holder(inode)}, which listens on {shown}:{given['port']}: stop it, or "
            "set deploy_port to another port."
        )
    wanted = {root: READY_MB} if ready else room_for(given, packages)
    problems += too_full({folder: need for folder, need in wanted.items() if need}, given["free_mb"])
    if not ready and not problems:
        problems += not_reached(given)
    if host.id == "ubuntu":
        said.append(f"{host.name} is not among the systems that the tests deploy on.")
    return {
        "problems": problems, "warnings_said": said, "build": build, "ready": ready, "python": python,
        "packages": packages, "architecture": host.architecture,
    }  # fmt: skip


def not_reached(given: dict[str, Any]) -> list[str]:
    """What cannot be fetched from this host, because nothing answers there."""
    environment = given["environment"]
    if given["mode"] == "native":
        index = index_of(environment)
        if index and (reason := unreachable(f"{index}/numpy/", environment)):
            return [
                f"The package index {without_secrets(index)} cannot be used from this host: {without_secrets(reason)}. "
                "Check its network; for a proxy or an index of your own, set HTTPS_PROXY or PIP_INDEX_URL in "
                "deploy_environment."
            ]
    elif given["image"] and not words_of("docker", "info", "--format", "{{.HTTPProxy}}{{.HTTPSProxy}}"):
        registry = registry_of(given["image"])
        if reason := unreachable(registry, environment, may_refuse=True):
            return [
                f"The registry {registry} cannot be reached from this host: {without_secrets(reason)}. Check its "
                "network, or bring the image as a file (deploy_image_archive)."
            ]
    return []


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "required": True, "choices": ["native", "container"]},
            "root": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "version": {"type": "str", "default": ""},
            "digest": {"type": "str", "default": ""},
            "extras": {"type": "list", "elements": "str", "default": []},
            "image": {"type": "str", "default": ""},
            "image_archive": {"type": "str", "default": ""},
            "archive": {"type": "dict", "default": {}},
            "source": {"type": "str", "default": "auto"},
            "sources": {"type": "str", "default": ""},
            "settings": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "free_mb": {"type": "int", "default": 0},
            "keep": {"type": "int", "default": 3},
            "memory_max": {"type": "str", "default": "512M"},
        },
        supports_check_mode=True,
        no_log=True,  # the environment may carry a login
    )
    module.exit_json(changed=False, invocation={}, **preflight(module.params))


if __name__ == "__main__":
    main()
