"""`camdock devices`: which cameras this machine has, and the lines that give a container exactly those.

Runs in: a process of its own, on the host, from a plain clone (`python3 -m camdock devices` in service/). Nothing but
the standard library, and nothing newer than Python 3.9: neither Camdock nor anything else is installed there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import stat
import struct
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

V4L2_MAJOR = 81  # fixed for every kernel; compose.yaml has it. The others are chosen anew by each kernel
VIDEO_GROUP = 44  # `video` on Debian, Ubuntu and Raspberry Pi OS; compose.yaml has it
IN_COMPOSE = (f"c {V4L2_MAJOR}:* rw", str(VIDEO_GROUP), "/dev:/dev:ro")  # the lines that compose.yaml has
IN_CONTAINER = ("/.dockerenv", "/run/.containerenv")  # what Docker and Podman put into each of theirs
IMAGE = "camdock:current"
LIBCAMERA = ("media", "dma_heap", "vchiq")  # what libcamera opens on a Raspberry Pi, beside /dev/video*

_QUERYCAP = 0x80685600  # VIDIOC_QUERYCAP, struct v4l2_capability: 16s driver, 32s card, 32s bus, 3 numbers, 3 reserved
_CAPTURE, _CAPTURE_MPLANE, _M2M, _M2M_MPLANE, _DEVICE_CAPS = 0x1, 0x1000, 0x8000, 0x4000, 0x80000000
# The receivers of a ribbon cable: raw pixels that only libcamera makes pictures of. As in backends/v4l2.py.
_RIBBON = ("unicam", "rp1-cfe")


@dataclass
class Node:
    """One device node."""

    path: str  # as it is called in /dev
    kind: str  # video, media, dma_heap or vchiq
    major: int
    minor: int
    owner: int  # gid
    group: str  # its name on this machine, or the number again
    mode: str  # octal, such as 660
    name: str = ""  # what the driver calls it
    driver: str = ""
    links: list[str] = field(default_factory=list)  # names that stay when it is plugged in elsewhere
    captures: bool | None = None  # does it give pictures; None where it could not be asked
    may_open: bool = True  # this user
    group_may: bool = True  # whoever is in its group, as the container's user then is


@dataclass
class Found:
    """What this machine has."""

    nodes: list[Node]
    board: str  # the board's name where the device tree has one: "Raspberry Pi 5 Model B Rev 1.0"
    has_udev: bool  # /run/udev, where libcamera looks up what it finds
    groups: dict[str, int]  # video and render

    def of(self, *kinds: str) -> list[Node]:
        """The nodes of these kinds."""
        return [node for node in self.nodes if node.kind in kinds]

    @property
    def cameras(self) -> list[Node]:
        """The nodes that give pictures, or may give some: those that could not be asked."""
        return [node for node in self.of("video") if node.captures is not False and node.driver not in _RIBBON]

    @property
    def is_pi(self) -> bool:
        """Whether libcamera on this machine needs more than /dev/video*."""
        return "Raspberry Pi" in self.board or any(node.driver in _RIBBON for node in self.nodes)


# --- looking ----------------------------------------------------------------------------------------------------------


def look(root: Path = Path("/"), *, also: Iterable[str] = (), opening: bool = True) -> Found:
    """What is there below `root`. Raises nothing: what cannot be read is not there.

    also     video nodes that lie elsewhere, by their paths
    opening  False: no device is opened, which may hang, so that what a node gives stays unknown (`ask` it)
    """
    groups = _groups(root)
    names = {number: name for name, number in groups.items()}
    nodes = []
    paths = list(_paths(root))
    paths += [("video", Path(path)) for path in also if ("video", Path(path)) not in paths]
    for kind, path in paths:
        try:
            status = path.stat()
        except OSError:
            continue  # unplugged meanwhile, or a link to nowhere
        if stat.S_ISCHR(status.st_mode):
            shown = "/" + str(path.relative_to(root))
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            mode = stat.S_IMODE(status.st_mode)
            node = Node(
                shown, kind, major, minor, status.st_gid, names.get(status.st_gid, str(status.st_gid)), f"{mode:o}"
            )
            node.group_may = mode & 0o060 == 0o060 or mode & 0o006 == 0o006
            node.may_open = os.access(path, os.R_OK | os.W_OK)
            if kind == "video":
                _name(node, path, root)
                if opening:
                    ask(node, path)
            nodes.append(node)
    return Found(
        nodes,
        _text(root / "proc/device-tree/model"),
        (root / "run/udev").is_dir(),
        {name: groups[name] for name in ("video", "render") if name in groups},
    )


def _paths(root: Path) -> Iterator[tuple[str, Path]]:
    dev = root / "dev"
    for kind in ("video", "media"):
        yield from ((kind, path) for path in sorted(dev.glob(f"{kind}[0-9]*"), key=_number))
    yield from (("dma_heap", path) for path in sorted(dev.glob("dma_heap/*")))
    yield from (("vchiq", path) for path in dev.glob("vchiq"))


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.name))
    return int(digits or 0), path.name


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _groups(root: Path) -> dict[str, int]:
    """Name and number of every group in /etc/group."""
    found = {}
    for line in _text(root / "etc/group").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split(":")[1:2]
        if number and number[0].isdigit():
            found[name] = int(number[0])
    return found


def _name(node: Node, path: Path, root: Path) -> None:
    """Fill in what the kernel says of a video node that is not opened."""
    node.name = _text(root / f"sys/class/video4linux/{path.name}/name")
    for folder in ("dev/v4l/by-id", "dev/v4l/by-path"):
        try:
            links = sorted((root / folder).iterdir())
        except OSError:
            continue
        # Where the links point is named after the real /dev, also when that is looked at elsewhere.
        node.links += [
            f"/{folder}/{link.name}" for link in links if os.path.basename(os.path.realpath(link)) == path.name
        ]


def ask(node: Node, path: Path) -> None:
    """Fill in what the driver says of a video node, by opening it where this user may."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # no permission, held by somebody, or no driver behind it
    try:
        answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(104))
    except OSError:
        return
    finally:
        os.close(descriptor)
    driver, card, _bus, _version, able, able_here = struct.unpack_from("16s32s32s3I", answer)
    able = able_here if able & _DEVICE_CAPS else able
    node.driver = driver.rstrip(b"\0").decode("utf-8", "replace")
    node.name = card.rstrip(b"\0").decode("utf-8", "replace") or node.name
    node.captures = bool(able & (_CAPTURE | _CAPTURE_MPLANE)) and not able & (_M2M | _M2M_MPLANE)


def holders(targets: Collection[str], proc: Path = Path("/proc")) -> tuple[dict[str, dict[int, str]], int]:
    """Which other processes have files open: their names by process id, for each target that somebody has.

    targets  as they stand in /proc/PID/fd: a device's real path, or socket:[INODE]
    returns  those, and how many processes this user may not look into
    """
    found: dict[str, dict[int, str]] = {}
    closed = 0
    for entry in proc.glob("[0-9]*"):
        try:
            if int(entry.name) == os.getpid():
                continue
            for link in os.listdir(entry / "fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    if (target := os.readlink(entry / "fd" / link)) in targets:
                        found.setdefault(target, {})[int(entry.name)] = _text(entry / "comm")
        except PermissionError:
            closed += 1
        except OSError:
            continue  # it has ended meanwhile
    return found, closed


# --- the lines --------------------------------------------------------------------------------------------------------


@dataclass
class Lines:
    """What a container is given: rules and groups with what each is for, mounts."""

    rules: dict[str, str]
    groups: dict[str, str]
    mounts: dict[str, str]


def lines(found: Found) -> Lines:
    """What this machine's cameras need: V4L2 always, so that one that is plugged in later works as well."""
    wanted = [*found.cameras, *(found.of("video", *LIBCAMERA) if found.is_pi else [])]
    rules = {f"c {V4L2_MAJOR}:* rw": "V4L2: /dev/video*"}
    for node in wanted:
        rules.setdefault(f"c {node.major}:* rw", f"{node.path} and its kind")
    groups = {str(found.groups.get("video", VIDEO_GROUP)): "video"}
    for node in wanted:
        if node.owner and node.group_may:  # group root would be a gift, and is not needed
            groups.setdefault(str(node.owner), f"{node.group}, of {node.path}")
    if found.is_pi and "render" in found.groups:
        groups.setdefault(str(found.groups["render"]), "render")
    mounts = {"/dev:/dev:ro": "the nodes, also of what is plugged in later"}
    if found.is_pi and found.has_udev:
        mounts["/run/udev:/run/udev:ro"] = "libcamera looks up there what it finds"
    return Lines(rules, groups, mounts)


def compose(found: Found) -> str:
    """A whole compose.override.yaml. What compose.yaml has already stands there as a comment: compose refuses twins."""
    given = lines(found)
    text = ["# Made for this machine by `camdock devices`. Beside compose.yaml, `docker compose` reads it by itself."]
    text += [f"# {sentence}" for sentence in sources(found)]
    text += ["services:", "  camdock:"]
    adds = False
    for key, entries in (("device_cgroup_rules", given.rules), ("group_add", given.groups), ("volumes", given.mounts)):
        new = any(entry not in IN_COMPOSE for entry in entries)
        adds = adds or new
        text.append(f"    {'' if new else '# '}{key}:")
        for entry, reason in entries.items():
            known = entry in IN_COMPOSE
            text.append(f'      {"# " if known else ""}- "{entry}"  # {_plain(reason)}{", in compose.yaml" * known}')
    if not adds:
        text[text.index("  camdock:")] = "  camdock: {}  # nothing to add"
    return "\n".join(text) + "\n"


def run(found: Found) -> str:
    """The `docker run` that is the same as compose.yaml with this machine's lines, for a shell."""
    given = lines(found)
    options = [
        "docker run --detach --name camdock --restart unless-stopped",
        "--publish 127.0.0.1:8000:8000 --env CAMDOCK_AUTH=off",
        "--env 'CAMDOCK_ALLOWED_HOSTS=localhost,127.0.0.1,[::1],*.localhost'",
        "--read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 512 --memory 512m --cpus 1",
        "--tmpfs /tmp:size=64m,mode=1777,noexec,nosuid,nodev --tmpfs /dev/shm:size=16m,mode=1777,noexec,nosuid,nodev",
        "--log-opt max-size=10m --log-opt max-file=3",
        "--volume camdock_settings:/var/lib/camdock/settings --volume camdock_captures:/var/lib/camdock/captures",
        *(f"--device-cgroup-rule '{rule}'" for rule in given.rules),
        *(f"--group-add {group}" for group in given.groups),
        *(f"--volume {mount}" for mount in given.mounts),
        IMAGE,
    ]
    return " \\\n  ".join(options) + "\n"


def _plain(text: str) -> str:
    """On one line, whatever a device calls itself: its name stands in a comment of a file that somebody runs."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


# --- in words ---------------------------------------------------------------------------------------------------------


def sources(found: Found) -> list[str]:
    """One sentence for each camera: what to write for it."""
    said = []
    for node in found.cameras:
        said.append(f"{_plain(node.name) or 'a camera'}: CAMDOCK_SOURCE=v4l2:{(node.links or [node.path])[0]}")
    return said


def words(found: Found) -> list[str]:
    """What was found, what was not, why, and what to do."""
    said = [f"Found: {sentence}" for sentence in sources(found)]
    if not found.of("video"):
        said.append("No /dev/video*: no camera is plugged in, or it has no driver (`dmesg`, `lsusb`).")
    elif not found.cameras:
        said.append(f"No camera among {_paths_of(found.of('video'))}: none of them gives pictures by itself.")
    if not found.cameras:
        said.append("Without a camera the test card is served; one that is plugged in later is taken by itself.")
    for node in found.cameras:
        if not node.group_may:
            said.append(
                f"{node.path} is closed to its group {node.group} (mode {node.mode}), so the container cannot open it: "
                f"sudo chgrp video {node.path} && sudo chmod 660 {node.path}; for good with a udev rule."
            )
        elif not node.owner and int(node.mode, 8) & 0o006 != 0o006:
            said.append(
                f"{node.path} belongs to group root, which no container is given: sudo chgrp video {node.path}; "
                "for good with a udev rule."
            )
        elif not node.may_open:
            said.append(
                f"{node.path} may not be opened by you (uid {os.geteuid()}): only what it is could not be asked. The "
                f"container may, through group {node.group} ({node.owner}); you could, too: "
                f"sudo usermod -aG {node.group} $USER."
            )
        elif node.captures is None:
            said.append(f"{node.path} was not asked what it is: another program holds it, or no driver answers.")
    others = [node for node in found.of("video") if node.captures is False and node.driver not in _RIBBON]
    if found.cameras and others:
        said.append(f"Left out, because they give no pictures: {_paths_of(others)}.")
    ribbon = [node for node in found.of("video") if node.driver in _RIBBON]
    if ribbon or found.is_pi:
        lacking = [kind for kind in LIBCAMERA if not found.of(kind)]
        said.append(
            f"{found.board or 'This board'}: a camera on the ribbon cable{f' ({_paths_of(ribbon)})' if ribbon else ''} "
            "speaks through libcamera, which the image camdock:picamera2 has (compose.pi.yaml) and no other one; USB "
            "cameras work with each of them."
        )
        if lacking:
            said.append(f"Not there: {', '.join(f'/dev/{kind}' for kind in lacking)} (a Pi 5 has no /dev/vchiq).")
        if not found.has_udev:
            said.append("Not there: /run/udev, without which libcamera finds no camera.")
    return said


def _paths_of(nodes: Iterable[Node]) -> str:
    return ", ".join(node.path for node in nodes)


def main(arguments: Sequence[str]) -> int:
    """Print the lines on stdout and the words on stderr; returns the exit status, 0 without a camera too."""
    parser = argparse.ArgumentParser(
        prog="camdock devices",
        description="Print what a container needs for the cameras of this machine. Changes nothing.",
        epilog="make -s devices > compose.override.yaml      `docker compose up` reads it by itself",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--compose", action="store_true", help="a compose.override.yaml (this is the default)")
    form.add_argument("--run", action="store_true", help="the whole `docker run` command")
    form.add_argument("--json", action="store_true", help="everything found, for programs")
    parser.add_argument("--root", type=Path, default=Path("/"), help="the folder that has dev, sys, run, etc (/)")
    given = parser.parse_args(arguments)
    if not (given.root / "dev").is_dir():
        print(
            f"camdock devices: {given.root / 'dev'} is no folder: --root names the one that has dev in it",
            file=sys.stderr,
        )
        return 2
    found = look(given.root)
    if given.json:
        print(json.dumps({**asdict(found), "lines": asdict(lines(found)), "words": words(found)}, indent=2))
        return 0
    for sentence in words(found):
        print(sentence, file=sys.stderr)
    sys.stdout.write(run(found) if given.run else compose(found))
    return 0


if __name__ == "__main__":  # from a file of its own, or from standard input: how another host is asked
    sys.exit(main(sys.argv[1:]))
