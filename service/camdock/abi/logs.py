"""Failures in a text: which of its messages stand together, what they were about, how often they come.

Runs in: any process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from camdock.abi import messages
from camdock.abi.messages import FAILURES, Message
from camdock.abi.tracebacks import Culprit, Frame, Traceback, culprit_of, frame_of, imports

LONGEST_READ = 16_384  # characters of a line: its beginning and its end; no traceback has longer ones
LONGEST_SHOWN = 300  # characters of a message
NEAR = 60  # lines between two messages of one failure: NumPy's own has 10, a traceback seldom more than 40
MOST_TRACEBACKS = 20  # of one failure: those of a service that crashes again and again say the same
MOST_FAILURES = 200  # of one text
SERVICES = 200  # of one log, told apart by the name that docker compose puts in front

ANSI = re.compile(r"\x1b\[[0-9;:?]{0,40}[ -/]{0,4}[@-~]")
SERVICE = re.compile(r"^(\w[\w.-]{0,80})\s{1,60}\| ?")
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|\(most recent call (first)\)")
RAISED = re.compile(r"(?:^|[\s|:\]])[\w.]{0,200}(?:Error|Exception|Warning|Exit|Interrupt)(?::|\s*$)")
RAISES = re.compile(r"\braise \w{1,100}\(")  # a line of code, which the message itself will follow
WARNED_IN = re.compile(r"(\S{1,500}\.py):\d{1,9}: \w{1,60}Warning: ")


@dataclass(slots=True)
class Found:
    """Messages that stand together and mean one failure, while the text is read."""

    failure: str
    message: str
    line: int
    last: int
    told_by: Message
    times: int = 1
    needs: str = ""
    numpy: str = ""
    detail: str = ""
    python: str = ""
    library: str = ""
    tracebacks: list[Traceback] = field(default_factory=list)
    culprit: Culprit = field(default_factory=Culprit)
    crashed: bool = False

    def settle(self) -> None:
        """Take the culprit from the tracebacks: the first that names one, Cython's own words before any other."""
        found = [culprit_of(traceback) for traceback in self.tracebacks]
        named = [culprit for culprit in found if culprit.names]
        # NumPy's own message comes with the traceback of its own making, which ends before the module's own frame.
        self.culprit = named[-1] if named else self.culprit
        prefix = next((culprit.prefix for culprit in [*named, *found] if culprit.prefix), "")
        if not self.culprit.prefix and prefix:
            self.culprit = Culprit(self.culprit.names, prefix, self.culprit.debian)


class _Service:
    """The lines of one service of a log, or of the whole text: what failed in it so far."""

    def __init__(self) -> None:
        self.traceback = Traceback()
        self.open: Found | None = None
        self.waits: Found | None = None  # NumPy's message of which the second line, and the traceback, are to come
        self.done: list[Found] = []

    def read(self, number: int, line: str) -> None:
        # A log has millions of lines that mean nothing here: what is quick to rule out is ruled out first.
        if "most recent call" in line and (found := TRACEBACK.search(line)):
            self.traceback = Traceback(newest_first=found[1] == "first")
            if self.waits is not None:
                self.waits.tracebacks.append(self.traceback)
                self.waits = None
        if "File " in line and (frame := frame_of(line)):
            self.traceback.add(frame)
            return
        if self.waits is not None and not self.waits.numpy and (below := messages.NUMPY_BELOW.match(line)):
            self.waits.numpy = below["numpy"]
            self.waits.message += f" NumPy {below['numpy']}"
        if self.open is not None:
            self._remarks(line)
        if messages.HINT.search(line) and self._message(number, line):
            return
        frames = self.traceback.frames
        if not frames:
            return
        if RAISED.search(line):
            self.traceback = Traceback()
        elif not frames[-1].code and imports(line):
            frames[-1].code = line[:LONGEST_SHOWN]

    def _remarks(self, line: str) -> None:
        """What NumPy says about itself below its message."""
        assert self.open is not None
        if found := messages.NUMPY_IS.search(line):
            self.open.numpy = found["numpy"]
        elif found := messages.PYTHON_IS.search(line):
            self.open.python = found["python"]
        elif self.open.failure == "numpy-broken" and (found := messages.LIBRARY.search(line)):
            self.open.failure = "numpy-linked"
            self.open.library = found["library"]
            self.open.detail = f"The library is {found['library']}."

    def _message(self, number: int, line: str) -> bool:
        for message in messages.MESSAGES:
            found = message.pattern.search(line)
            if found and not RAISES.search(line, 0, found.start()):
                break
        else:
            return False
        meaning = _meaning(message.failure, line, found.groupdict())
        hit = Found(
            meaning.failure,
            _shown(line, found.start()),
            number,
            number,
            message,
            needs=meaning.needs,
            numpy=meaning.numpy,
            detail=meaning.detail,
        )
        if message.leads:
            self.waits = hit
        elif self.traceback.frames:
            hit.tracebacks.append(self.traceback)
        elif warned := WARNED_IN.search(line):
            hit.tracebacks.append(Traceback(frames=[Frame(warned[1], "")]))
        self.traceback = Traceback()
        self._add(hit)
        return True

    def _add(self, hit: Found) -> None:
        group = self.open
        if group is None or hit.line - group.last > NEAR or not _one_failure(group, hit):
            self.close()
            self.open = hit
            return
        if self.waits is hit:
            self.waits = group
        if hit.told_by is group.told_by and not hit.message.startswith("Original error was"):  # NumPy tells it twice
            group.times += 1
        if FAILURES[group.failure].symptom and not FAILURES[hit.failure].symptom:
            group.failure, group.message, group.detail = hit.failure, hit.message, hit.detail
        group.crashed = group.crashed or hit.failure == "crash"
        group.last = hit.line
        group.needs = group.needs or hit.needs
        group.numpy = group.numpy or hit.numpy
        group.detail = group.detail or hit.detail
        group.tracebacks += hit.tracebacks[: MOST_TRACEBACKS - len(group.tracebacks)]

    def close(self) -> None:
        if self.open is None:
            return
        self.open.settle()
        if not self._again(self.open) and len(self.done) < MOST_FAILURES:
            self.done.append(self.open)
        if self.waits is self.open:
            self.waits = None
        self.open = None

    def _again(self, found: Found) -> bool:
        """Whether the same failure was there before: a service that is started again and again."""
        for before in self.done:
            same = before.failure == found.failure or FAILURES[found.failure].symptom
            if same and (not found.culprit.names or before.culprit.names == found.culprit.names):
                before.times += 1
                return True
        return False


def _one_failure(group: Found, hit: Found) -> bool:
    """Whether a message belongs to the failure whose messages stand above it."""
    if group.failure == hit.failure:
        if not (group.tracebacks and hit.tracebacks):
            return True
        before, now = culprit_of(group.tracebacks[-1]), culprit_of(hit.tracebacks[-1])
        return not before.names or not now.names or before.names[0].split(".")[0] == now.names[0].split(".")[0]
    if FAILURES[hit.failure].symptom:
        return True
    if group.failure in ("numpy-broken", "numpy-linked"):
        return hit.failure in ("numpy-broken", "numpy-linked")
    return FAILURES[group.failure].symptom


def _shown(line: str, start: int) -> str:
    """The message without NumPy's advice behind it, and without most of what a log put in front."""
    return line[max(0, start - 80) :].split("Check the section C-API")[0].strip(" .\t")[:LONGEST_SHOWN]


def _meaning(failure: str, line: str, said: dict[str, str | None]) -> messages.Meaning:
    if said.get("wants") and said.get("has"):
        meaning = messages.of_levels(failure, int(said["wants"] or "", 16), int(said["has"] or "", 16))
        named = messages.NEEDS.search(line)
        return messages.Meaning(
            meaning.failure, named["needs"] if named else meaning.needs, meaning.numpy, meaning.detail
        )
    if said.get("type"):
        sizes = messages.EXPECTED.search(line)
        if sizes is None:
            return messages.Meaning("type-size" if str(said["type"]).startswith("numpy.") else "other-type-size")
        raised = "ValueError" in line
        return messages.of_sizes(str(said["type"]), int(sizes["expected"]), int(sizes["got"]), warned=not raised)
    return messages.Meaning(failure, said.get("needs") or "", said.get("numpy") or "")


def _lines(text: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The text's lines, numbered from 1: without colours; those of a traceback inside a line of JSON one by one."""
    for number, raw in enumerate(text, 1):
        line = ANSI.sub("", raw) if "\x1b" in raw else raw
        if line.lstrip()[:1] == "{" and "\\n" in line:
            line = line.replace("\\r", "").replace("\\n", "\n").replace('\\"', '"')
        for part in line.replace("\r", "\n").split("\n"):
            if len(part) > LONGEST_READ:
                part = part[: LONGEST_READ // 2] + " " + part[-LONGEST_READ // 2 :]
            if part.strip():
                yield number, part


def read_failures(text: Iterable[str]) -> list[Found]:
    """The failures in a text's lines, in the order they stand there. Needs memory for one traceback of each service."""
    services: dict[str, _Service] = {"": _Service()}
    for number, line in _lines(text):
        name = ""
        if " | " in line[:160] and (found := SERVICE.match(line)):
            name, line = found[1], line[found.end() :]
        if name not in services:
            if len(services) > SERVICES:
                name = ""
            else:
                services[name] = _Service()
        services[name].read(number, line)
    for service in services.values():
        service.close()
    failures = [failure for service in services.values() for failure in service.done]
    return _named_first(sorted(failures, key=lambda failure: failure.line)[:MOST_FAILURES])


def _named_first(found: list[Found]) -> list[Found]:
    """Without what is only a trace of a failure that stands elsewhere in the text with its culprit."""
    kept: list[Found] = []
    for one in found:
        causes = [
            other
            for other in found
            if other is not one
            and other.culprit.names
            and not FAILURES[other.failure].symptom
            and (other.failure == one.failure or FAILURES[one.failure].symptom)
            and not (one.culprit.names and one.culprit.names[0].split(".")[0] != other.culprit.names[0].split(".")[0])
        ]
        if causes and (not one.culprit.names or FAILURES[one.failure].symptom):
            causes[0].times += one.times
        else:
            kept.append(one)
    return kept
