"""`camdock doctor` from its command line: everything looked at, side by side, within one deadline.

Runs in: the doctor's process.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from camdock.doctor import cameras, configuration, libraries, machine, nodes, pi, places
from camdock.doctor.answer import Answer
from camdock.doctor.asking import ask
from camdock.doctor.configuration import Known
from camdock.doctor.nodes import Looked
from camdock.doctor.report import Check, Status, as_json, as_text, worst
from camdock.guard import Guard
from camdock.source import Source, SourceInvalid

DEADLINE_S = 7.0  # and at most 2 s more for what cannot be killed: done within 10 s, whatever hangs
HEALTH_SHARE = 0.1  # of all the time: what each step of asking /health may take; at least a second
NODE_WITHIN_S, NODE_SHARE = 2.0, 0.1  # what one driver may take to tell its formats, at least, and of all the time
LOADING = 2  # back ends that are loaded at once: each takes tens of megabytes

_EPILOG = """what is looked at, by the names of --json
  configuration  what cannot be used of the CAMDOCK_ variables, and what is probably a slip of the pen
  token          the file of CAMDOCK_TOKEN_FILE: readable, good, for the right eyes alone
  devices        video nodes, their formats, who holds them, whether this user may open them
  holders        how many processes could not be looked into
  camera.NAME    every configured camera, really opened for one picture in a process of its own; not while a running
                 Camdock has it. camera.NAME.backends: for opencv: by each of OpenCV's video back ends
  backend.KIND   the libraries of the other kinds of source: do they load; opencv.NAME: OpenCV's video back ends
  abi            do compiled libraries fit the installed NumPy (camdock abi --help)
  disk.NAME      the folders that are written to: is there room, may this user write
  port           free, held by whom, or Camdock itself
  user, kernel, versions, container, engine

Nothing is changed, and nothing that hangs is waited for: each part runs in a child process that is killed in time. One
that survives even that is named. A camera's light may go on for a moment.

exit status
  0  nothing is wrong (there may be warnings, and what could not be found out)
  1  something is wrong; the last lines say what, and which command mends it
  2  a mistake on the command line

examples
  camdock doctor                                     with the configuration of this environment
  camdock doctor --source 'v4l2:/dev/video0?fps=30'  that source alone
  camdock doctor --json | jq -r '.checks[] | select(.status == "bad") | .what, .hint'
  sudo systemd-run --pipe --uid=camdock -p EnvironmentFile=/opt/camdock/current/camdock.env \\
    --setenv=CAMDOCK_TOKEN_FILE=/etc/camdock/token --setenv=CAMDOCK_STATE_DIR=/var/lib/camdock/settings \\
    /opt/camdock/current/build/venv/bin/camdock doctor                      as the deployed service sees it
  docker compose exec camdock camdock doctor         inside the container
"""


class Doctor:
    """One examination: what was looked at so far, and until when all of it must be done.

    source  this one alone, without the configuration
    told    called with what is still waited for, whenever that changes
    """

    def __init__(self, source: Source | None, deadline_s: float, told: Callable[[list[str]], None]) -> None:
        self._source = source
        self._told = told
        self._deadline_s = deadline_s
        self._until = time.monotonic() + deadline_s
        self._guard = Guard()
        self._checks: list[Check] = []
        self._waiting: list[str] = []
        self._cameras: list[str] = []
        self._loading = asyncio.Semaphore(LOADING)

    async def run(self) -> list[Check]:
        """Look at everything; returns the checks in a fixed order, the cameras' first."""
        try:
            await self._run()
        finally:
            self._guard.stop()
        order = ("configuration", "token", "camera", "picamera2", "devices", "holders", "user", "abi", "backend",
                 "opencv", "disk", "port", "kernel", "container", "engine", "versions")  # fmt: skip

        def place(check: Check) -> tuple[int, int]:
            noun, _, rest = check.name.partition(".")
            camera = rest.partition(".")[0]
            return order.index(noun), self._cameras.index(camera) if noun == "camera" else 0

        return sorted(self._checks, key=place)

    async def _run(self) -> None:
        here = asyncio.create_task(self._part("this machine", self._machine()))
        known = await self._part("the configuration", self._configuration())
        self._cameras = list(known.cameras)
        used = {source.kind for source in known.cameras.values()}
        idle = libraries.idle_kinds(used)
        video_backends = libraries.VIDEO_BACKENDS
        if self._source is not None:
            idle, video_backends = [], ()
        port = asyncio.create_task(self._part("the port", self._port(known)))
        looked = asyncio.create_task(self._part("devices", self._devices(known)))
        await asyncio.gather(
            here,
            port,
            looked,
            self._part("the NumPy ABI", self._abi(known)),
            *(self._part(f"disk ({name})", self._folder(name, path)) for name, path in known.folders.items()),
            *(
                self._part(f"camera {name}", self._camera(name, source, known, port, looked))
                for name, source in known.cameras.items()
            ),
            *([self._part("picamera2", self._picamera2())] if used & {"picamera2"} else []),
            *(self._part(f"back end {kind}", self._backend(kind)) for kind in idle),
            *(self._part(f"OpenCV with {name}", self._video_backend(name)) for name in video_backends),
        )

    async def _part(self, what: str, work: Awaitable[Any]) -> Any:
        self._waiting.append(what)
        self._told(self._waiting)
        try:
            return await work
        finally:
            self._waiting.remove(what)
            self._told(self._waiting)

    async def _ask(self, errand: str, arguments: Mapping[str, Any], share: float = 1.0) -> Answer:
        now = time.monotonic()
        return await ask(errand, arguments, self._guard, now + (self._until - now) * share)

    async def _configuration(self) -> Known:
        if self._source is not None:
            return Known({"camera": self._source}, abi_cache=os.environ.get("CAMDOCK_ABI_CACHE", ""))
        answer = await self._ask("configuration", {}, 0.5)  # where it hangs, the rest is looked at all the same
        self._checks += configuration.check(answer)
        return Known.of(answer)

    async def _machine(self) -> None:
        self._checks += machine.checks(await self._ask("machine", {}))

    async def _port(self, known: Known) -> Any:
        if not known.port:
            return None
        asked = {"host": known.host, "port": known.port, "token": known.token, "tls": known.tls}
        # Every camera waits for it. A stranger that does not answer is to be told from a machine that is slow.
        asked["within_s"] = max(1.0, HEALTH_SHARE * self._deadline_s)
        answer = await self._ask("port", asked, 0.3)
        self._checks.append(places.check_port(known, answer))
        return answer.given[-1]["health"] if answer.given else None

    async def _devices(self, known: Known) -> Looked:
        """Find the nodes, also those that are configured; then ask each, going on behind one that hangs."""
        looked = Looked.of(await self._ask("nodes", {"also": list(known.paths.values())}, 0.5))
        now = time.monotonic()
        left_s = self._until - now  # of which the cameras want some
        each_s = max(NODE_WITHIN_S, NODE_SHARE * self._deadline_s)
        waiting = looked.to_ask()
        while waiting:
            # Whoever is asked gets the whole of its time, or it cannot be said to hang; nobody is once half is over.
            within_s = left_s * 0.8 if time.monotonic() < now + left_s * 0.5 else 0.0
            answer = await ask("formats", {"paths": waiting}, self._guard, now + within_s, each_s)
            looked.take(answer.given[1:])  # the first one says that it is about to begin
            waiting = waiting[len(answer.given[1:]) :]
            if not answer.trouble or not answer.given or (answer.hung and answer.waited_s < each_s):
                break  # all were asked, or none was given the time that it may take
            looked.hanging[waiting.pop(0)] = answer.stuck or answer.trouble  # here it hung, or its process died
        looked.unasked = dict.fromkeys(waiting, answer.trouble if waiting else "")
        self._checks += nodes.check(looked)
        return looked

    async def _abi(self, known: Known) -> None:
        names = libraries.names_of(known.cameras.values())
        answer = await self._ask("abi", {"names": names, "cache": known.abi_cache})
        self._checks.append(libraries.check_abi(answer, enabled=known.abi == "check"))

    async def _folder(self, name: str, path: str) -> None:
        answer = await self._ask("folder", {"path": path}) if path else Answer()
        self._checks.append(places.check_folder(name, path, answer))

    async def _camera(
        self, name: str, source: Source, known: Known, port: Awaitable[Any], looked: Awaitable[Looked]
    ) -> None:
        path, health = known.paths.get(name, ""), await port
        there = await looked if path or source.kind == "auto" else Looked()  # others need not wait for devices
        self._checks += await cameras.check(name, source, path, health, there, self._guard, self._until)

    async def _backend(self, kind: str) -> None:
        async with self._loading:
            answer = await self._ask("backend", {"kind": kind})
        self._checks.append(libraries.check_backend(kind, answer))

    async def _picamera2(self) -> None:
        self._checks += pi.checks(await self._ask("picamera2", {}))

    async def _video_backend(self, name: str) -> None:
        async with self._loading:
            answer = await self._ask("video_backend", {"name": name})
        if check := libraries.check_video_backend(name, answer):
            self._checks.append(check)


def _told(waiting: list[str]) -> None:
    """Progress, on one line that is written over."""
    text = f"looking at {', '.join(waiting)} ..." if waiting else ""
    sys.stderr.write(f"\r\x1b[K{text[:100]}")
    sys.stderr.flush()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"must be 1 to 600 seconds, not {text!r}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camdock doctor",
        description="Say what is wrong on this machine, and which command mends it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", metavar="SOURCE", help="examine this source alone, whatever is configured")
    parser.add_argument("--json", action="store_true", help="for programs: checks with name, status (ok, warning, bad, "
                        "unknown), what, hint, details")  # fmt: skip
    parser.add_argument("--deadline", metavar="S", type=_seconds, default=DEADLINE_S,
                        help=f"seconds for all of it, 1 to 600 ({DEADLINE_S:g})")  # fmt: skip
    return parser


def main(arguments: Sequence[str]) -> int:
    """Examine and report; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        source = Source.parse(given.source) if given.source is not None else None
    except SourceInvalid as error:
        parser.error(f"--source: {error}")
    # What children write to their log is no part of the report; its last line is, where it tells of a death.
    logging.getLogger("camdock").addHandler(logging.NullHandler())
    logging.getLogger("camdock").propagate = False
    began = time.monotonic()

    async def examine() -> list[Check]:
        told = _told if sys.stderr.isatty() else lambda _waiting: None
        return await Doctor(source, given.deadline, told).run()

    try:
        checks = asyncio.run(examine())
    except KeyboardInterrupt:
        return 130
    took_s = time.monotonic() - began
    sys.stdout.write(as_json(checks, took_s) + "\n" if given.json else as_text(checks, took_s))
    sys.stdout.flush()
    return 1 if worst(checks) is Status.BAD else 0
