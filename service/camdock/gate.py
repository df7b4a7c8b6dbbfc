"""AbiGate: no process is started whose libraries would break with the installed NumPy.

Runs in: the API process. The check is `camdock abi check` in a process of its own: it reads the compiled files, and
nothing of it is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from camdock.errors import DriverMissing
from camdock.guard import Guard
from camdock.installed import Answers, Seal, fingerprint
from camdock.mistakes import must_not_fail

log = logging.getLogger("camdock")

CHECK_WITHIN_S = 20.0
LONGEST_TEXT = 1000  # of one name, evidence or fix
# -P, here and where workers are started: what lies in the folder that the service is started in is not imported.
CHECK = (sys.executable, "-P", "-m", "camdock.abi", "check", "--json")
NO_FIX = "install versions that belong together, as constraints.txt names them"
# What each verdict means to somebody who waits for pictures. What is in here keeps a process from being started.
BREAKING = {
    "breaks": "does not load with",
    "breaks-on-use": "loads, and breaks when it is used, with",
    "hazard": "gives wrong data, without a message, with",
}


class Abi(StrEnum):
    """What is known of the compiled libraries that the configured cameras need.

    CHECKING  nothing yet: the cameras wait for it
    UNKNOWN   not all of it could be judged, or the check failed: the cameras were started all the same
    OFF       CAMDOCK_ABI=off
    """

    CHECKING = "checking"
    OK = "ok"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    OFF = "off"


class CheckFailed(Exception):
    """There is no answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Module:
    """One compiled module that is not `ok`, as the check reports it.

    name     the import name it belongs to; "" when that is none of those asked for
    package  who owns it, with its version
    """

    name: str
    module: str
    verdict: str
    evidence: str
    package: str
    fix: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the check says. `findings`: things about the environment as a whole, as (message, fix)."""

    numpy: str
    modules: tuple[Module, ...]
    findings: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, document: Any, names: Collection[str]) -> Report:
        """Read the check's JSON; raises CheckFailed when it is not as agreed."""
        try:
            modules = tuple(_module(one, names) for one in document["modules"] if one["verdict"] != "ok")
            findings = tuple((_clean(one["message"]), _clean(one["fix"])) for one in document["findings"])
            return cls(_clean(document["numpy"] or ""), modules, findings)
        except (LookupError, TypeError, AttributeError) as error:
            raise CheckFailed(f"the check answered something else than agreed: {error!r}") from error

    def breaking(self, loads: Collection[str] | None = None) -> DriverMissing | None:
        """What keeps a process that loads these libraries from being started, with the fix; None: nothing.

        loads  import names; None: all that were asked for. A module that belongs to none of them counts for all.
        """
        found: dict[str, list[Module]] = {}
        for one in self.modules:
            if one.verdict in BREAKING and (loads is None or not one.name or one.name in loads):
                found.setdefault(one.package or one.name or one.module, []).append(one)
        if not found:
            return None
        texts = [
            f"{owner} {BREAKING[modules[0].verdict]} NumPy {self.numpy}: {modules[0].module}: {modules[0].evidence}"
            + (f" (and {len(modules) - 1} more of its modules)" if len(modules) > 1 else "")
            for owner, modules in found.items()
        ]
        fixes = dict.fromkeys(f"`{one.fix}`" if one.fix else NO_FIX for modules in found.values() for one in modules)
        return DriverMissing("; ".join(texts), ", ".join(fixes) + ", then restart Camdock")


def _clean(text: str) -> str:
    """One line of printable text: names and evidence come out of files that anybody may have written."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:LONGEST_TEXT]


def _module(one: Mapping[str, str], names: Collection[str]) -> Module:
    # A library beside a package (simplejpeg.libs/...) has no import name: its folder says whose it is.
    stems = [part.partition(".")[0] for part in (one["module"], *one["file"].split("/"))]
    name = next((stem for stem in stems if stem in names), "")
    texts = [_clean(one[key]) for key in ("module", "verdict", "evidence", "package", "fix")]
    return Module(name, *texts)


class AbiGate:
    """Asked before a process is started: `await admit(...)`.

    names    every import name that anybody here may load
    cache    the file that keeps the answers; None: none is kept
    command  the check, which is given `--only NAME` for every name
    """

    def __init__(
        self,
        names: Collection[str],
        guard: Guard,
        cache: Path | None = None,
        *,
        enabled: bool = True,
        command: Sequence[str] = CHECK,
    ) -> None:
        self._names = sorted(names)
        self._guard = guard
        self._answers = Answers(cache)
        self._command = [*command, *(word for name in self._names for word in ("--only", name))]
        self._report: Report | None = None
        self._task: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()
        self.state = Abi.CHECKING if enabled else Abi.OFF
        if not enabled:
            self._answered.set()

    def start(self) -> None:
        """Begin to find out; returns at once."""
        if self.state is Abi.CHECKING:
            self._task = asyncio.create_task(self._find_out())
            self._task.add_done_callback(must_not_fail("abi"))

    async def stop(self) -> None:
        """End a check that still runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def admit(self, loads: Collection[str]) -> None:
        """Wait until it is known whether these libraries break. Raises DriverMissing, with the fix, when they do.

        The answer stays the same: what pip mends is loaded by the next service, not by this one.
        """
        await self._answered.wait()
        if self._report is not None and (error := self._report.breaking(loads)):
            raise error

    def broken(self) -> DriverMissing | None:
        """Everything that breaks; None when nothing does, and while that is not known."""
        return self._report.breaking() if self._report is not None else None

    # --- finding out ----------------------------------------------------------------------------------------------

    async def _find_out(self) -> None:
        began = time.monotonic()
        try:
            if seal := await asyncio.to_thread(Seal.whole, self._names):
                self._report = Report(seal.numpy, (), ())
                self._tell(self._report, time.monotonic() - began, "sealed")
                return
            key = await asyncio.to_thread(fingerprint, self._names)
            document = await asyncio.to_thread(self._answers.get, key)
            with contextlib.suppress(CheckFailed):
                self._report = Report.of(document, self._names)
            known = self._report is not None
            if self._report is None:
                document = await self._check()
                self._report = Report.of(document, self._names)
            self._tell(self._report, time.monotonic() - began, "known from before" if known else "read")
        except (CheckFailed, OSError) as error:
            log.warning("abi: not checked, the cameras are started anyway: %s", error)
            return
        finally:
            if self.state is Abi.CHECKING:
                self.state = Abi.UNKNOWN
            self._answered.set()
        if not known:
            troubles = [one for one in document["modules"] if one["verdict"] != "ok"]
            await asyncio.to_thread(self._answers.put, key, {**document, "modules": troubles})

    async def _check(self) -> Any:
        """The check's JSON. Raises CheckFailed, OSError."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._guard.hold(process.pid)
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                output, log_of_it = await process.communicate()
        except TimeoutError:
            raise CheckFailed(f"the check took longer than {CHECK_WITHIN_S:g} s and was killed") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            self._guard.let_go(process.pid)
        # Status 2 with a report: there is no NumPy to judge by, or nothing that was asked for is installed.
        if process.returncode not in (0, 1) and not (process.returncode == 2 and output):
            words = log_of_it.decode("utf-8", "replace").strip().splitlines()
            raise CheckFailed(f"the check ended with status {process.returncode}: {_clean((words or ['no word'])[-1])}")
        try:
            return json.loads(output)
        except ValueError as error:
            raise CheckFailed(f"the check did not answer JSON: {error}") from error

    def _tell(self, report: Report, took_s: float, how: str) -> None:
        """Say in the log what was found and how, and set the state by it."""
        for message, fix in report.findings:
            log.warning("abi: %s%s", message, f" -- {fix}" if fix else "")
        unknown = [one for one in report.modules if one.verdict not in BREAKING]
        if unknown:
            first = f"{unknown[0].module}: {unknown[0].evidence}"
            log.warning("abi: %d modules could not be judged; the first is %s", len(unknown), first)
        if error := report.breaking():
            self.state = Abi.BROKEN
            log.error("abi: %s -- %s", error.message, error.hint)
            return
        self.state = Abi.UNKNOWN if unknown else Abi.OK
        log.info("abi: %s: NumPy %s and what is built for it, %s (%.3f s)", self.state, report.numpy, how, took_s)
