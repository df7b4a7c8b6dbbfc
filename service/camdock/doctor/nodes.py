"""Nodes: the video devices of this machine, what each gives, who holds it, whether this user may open it.

Runs in: `find` in an errand, which opens no device; the rest in the doctor's process. What opens them is drivers.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from camdock import devices
from camdock.devices import Node
from camdock.doctor.answer import Answer
from camdock.doctor.report import Check, Status

_FORMATS_SHOWN = 12


# --- the errand -------------------------------------------------------------------------------------------------------


def find(also: list[str]) -> Iterator[dict[str, Any]]:
    """First what there is, then who holds it: `holders` by path, and how many processes are `closed` to this user."""
    found = devices.look(also=[path for path in also if os.path.exists(path)], opening=False)
    yield asdict(found)
    real = {node.path: os.path.realpath(node.path) for node in found.nodes}
    holders, closed = devices.holders(set(real.values()))
    told: dict[str, Any] = {}
    for path, target in real.items():
        told[path] = [[pid, name, _is_worker(pid)] for pid, name in holders.get(target, {}).items()]
    yield {"holders": told, "closed": closed}


def _is_worker(pid: int) -> bool:
    """Whether a process is the worker of a running Camdock."""
    try:
        return b"camdock.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


# --- the doctor -------------------------------------------------------------------------------------------------------


@dataclass
class Looked:
    """What is known of the nodes when cameras are to be opened.

    holders  by path: process id, name, and whether it is a Camdock's worker
    hanging  words for each node whose driver did not answer: it is not opened again
    unasked  words for each node that could not be asked, by no fault of its own
    """

    nodes: list[Node] = field(default_factory=list)
    board: str = ""
    trouble: str = ""
    closed: int = 0
    holders: dict[str, list[tuple[int, str, bool]]] = field(default_factory=dict)
    formats: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    hanging: dict[str, str] = field(default_factory=dict)
    unasked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Answer) -> Looked:
        """What `find` says, as far as it came."""
        looked = cls(trouble=answer.stuck or answer.trouble)
        if answer.given:
            found = answer.given[0]
            looked.nodes, looked.board = [Node(**node) for node in found["nodes"]], found["board"]
        for more in answer.given[1:]:
            looked.closed = more["closed"]
            looked.holders = {path: [(p, n, w) for p, n, w in found] for path, found in more["holders"].items()}
        return looked

    def to_ask(self) -> list[str]:
        """The video nodes whose drivers may be asked: those that no running Camdock has."""
        return [node.path for node in self.nodes if node.kind == "video" and self.worker(node.path) is None]

    def names(self) -> str:
        """The cameras that are there, as sources."""
        return ", ".join(f"v4l2:{(node.links or [node.path])[0]}" for node in self.found.cameras)

    @property
    def found(self) -> devices.Found:
        """The nodes, as `camdock devices` has them."""
        return devices.Found(self.nodes, self.board, has_udev=True, groups={})

    def take(self, given: Iterable[Mapping[str, Any]]) -> None:
        """Fill in what drivers answered to `drivers.formats`."""
        by_path = {node.path: node for node in self.nodes}
        for one in given:
            node = by_path[one["path"]]
            node.name, node.driver, node.captures = one["name"] or node.name, one["driver"], one["captures"]
            self.formats[node.path] = one["formats"]

    def held(self, path: str) -> str:
        """Who holds a device, in words: "pid 812 (guvcview)"; "" for nobody that may be seen."""
        return " and ".join(f"pid {pid} ({name})" for pid, name, _ in self._holders(path))

    def worker(self, path: str) -> int | None:
        """The process id of the Camdock worker that holds a device."""
        return next((pid for pid, _, is_worker in self._holders(path) if is_worker), None)

    def _holders(self, path: str) -> list[tuple[int, str, bool]]:
        # One device has several names: /dev/video0 and links to it.
        real = os.path.realpath(path)
        return next((found for one, found in self.holders.items() if one == path or os.path.realpath(one) == real), [])


def check(looked: Looked) -> list[Check]:
    """The devices, in a line each; who holds them; what hangs."""
    found = looked.found
    if looked.trouble and not looked.nodes:
        return [Check("devices", Status.UNKNOWN, f"devices could not be looked for: {looked.trouble}")]
    if not found.of("video"):
        what = "no /dev/video*: no camera is plugged in, it has no driver, or this container was not given it"
        hint = "`lsusb` and `sudo dmesg` say whether the machine sees it; in a container: `make -s devices`"
        return [Check("devices", Status.WARNING, what, hint, {"nodes": []})]
    lines = [line for node in found.cameras for line in _lines(node, looked)]
    others = len(found.of("video")) - len(found.cameras)
    what = f"{len(found.cameras)} that may be cameras" + (f", {others} other video nodes" if others else "")
    details = {"lines": lines, "nodes": [asdict(node) for node in looked.nodes], "formats": looked.formats,
               "holders": looked.holders}  # fmt: skip
    checks = [Check("devices", Status.OK if found.cameras else Status.WARNING, what, "", details)]
    for path, words in looked.hanging.items():
        hint = "unplug it and plug it in again; where nothing helps, restart the machine: its driver is stuck"
        checks.append(Check("devices", Status.BAD, f"{path} does not answer: {words}", hint))
    if looked.unasked:
        why = next(iter(looked.unasked.values()))
        what = f"{', '.join(looked.unasked)} could not be asked for names and formats: {why}"
        checks.append(Check("devices", Status.UNKNOWN, what, "`camdock doctor --deadline 30` waits longer"))
    for node in found.cameras:
        if not node.may_open:
            checks.append(_closed(node))
    if looked.closed and found.cameras:
        what = f"who holds a device is known of some processes only: {looked.closed} may not be looked into"
        checks.append(Check("holders", Status.UNKNOWN, what, "`sudo` in front of the command sees them all"))
    return checks


def _lines(node: Node, looked: Looked) -> Iterator[str]:
    by = looked.held(node.path)
    yield f"{(node.links or [node.path])[0]}: {node.name or node.driver or 'not asked'}" + (
        f", held by {by}" if by else ""
    )
    for name, sizes in list(looked.formats.get(node.path, {}).items())[:_FORMATS_SHOWN]:
        yield f"  {name} {' '.join(sizes[:_FORMATS_SHOWN])}"


def _closed(node: Node) -> Check:
    """A node that this user may not open: a warning, since another may be configured."""
    what = f"{node.path} may not be opened by this user (uid {os.geteuid()}): mode {node.mode}, group {node.group}"
    if not node.group_may or not node.owner:
        hint = f"`sudo chgrp video {node.path} && sudo chmod 660 {node.path}`; for good with a udev rule"
    else:
        hint = f"`sudo usermod -aG {node.group} $USER`, then log in again"
    return Check("devices", Status.WARNING, what, hint)
