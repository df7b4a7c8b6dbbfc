"""Cameras: each source really opened, by a worker as Camera starts it, for one picture.

Runs in: the doctor's process; the worker is the child.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from camdock import wire
from camdock.child import Child
from camdock.doctor.asking import survivor
from camdock.doctor.libraries import VIDEO_BACKENDS
from camdock.doctor.nodes import Looked
from camdock.doctor.report import Check, Status
from camdock.errors import CameraError, SourceBusy, SourceMissing, SourceStalled, from_code
from camdock.guard import Guard
from camdock.source import Source
from camdock.wire import Kind, Message

HOLDING = ("live", "starting", "stalled")  # the states in which a service has its device, or is about to
LOADED_WITHIN_S = 3.0  # a process starts and loads a driver, on a slow and busy machine
_STEPS = {
    "": "its driver's library did not load",
    "loaded": "opening it did not come back",
    "open": "it is open, and gives no picture",
}


class _Seen(Exception):
    """One picture came."""


@dataclass
class Try:
    """One attempt.

    error  why there is no picture; None when one came
    stuck  the worker could not even be killed: its process id, and where in the kernel it sleeps
    early  there was not time enough to tell anything: how little
    """

    step: str = ""
    opened: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0
    took_s: float = 0.0
    error: CameraError | None = None
    stuck: str = ""
    early: str = ""


async def attempt(source: Source, guard: Guard, until: float) -> Try:
    """Open a source for one picture and give it back. Never raises, and returns at most 2 s after `until`."""
    tried, began = Try(), time.monotonic()
    if until <= began:
        return Try(early="no time was left to open it")

    def on_message(message: Message) -> None:
        match message.kind:
            case Kind.HELLO:
                tried.step = "loaded"
            case Kind.READY:
                tried.step, tried.opened = "open", dict(message.meta)
            case Kind.FRAME:
                tried.bytes = len(message.blob)
                raise _Seen
            case Kind.FAILED:
                raise from_code(*(str(message.meta[name]) for name in ("code", "message", "hint")))

    child = Child("camdock.worker", "doctor", guard, on_message, source.scrub)
    try:
        async with child:
            child.expect(until - began)
            order = {"source": source.text, "first_seq": 1, "wanted": {}}
            await child.send(wire.pack(Kind.START, order))
            try:
                await child.watch()
            except TimeoutError as error:
                if not tried.step and until - began < LOADED_WITHIN_S:
                    tried.early = f"its driver's library was not loaded within {until - began:.1f} s"
                raise SourceStalled(f"no picture within {until - began:.1f} s: {_STEPS[tried.step]}") from error
    except _Seen:
        pass
    except CameraError as error:
        tried.error = error
    tried.took_s = time.monotonic() - began
    tried.stuck = survivor(child)
    return tried


def told(name: str, source: Source, health: Any) -> dict[str, Any]:
    """What the Camdock on the port says of this camera; {} where it has none such.

    One that is chosen when it is opened (`auto`) is told by what it has become: only its name is the same.
    """
    for camera in (health or {}).get("cameras") or ():
        if camera.get("source") == source.redacted or (camera.get("name") == name and source.has_stand_in):
            return dict(camera)
    return {}


def occupied(name: str, source: Source, path: str, health: Any, looked: Looked) -> str:
    """Why a source is not to be opened: a running Camdock has it; "" where it may be opened."""
    # `auto` would take the first camera, and nobody can say here whether that one is free of the other's choice.
    paths = [node.path for node in looked.nodes] if source.kind == "auto" else [path] if path else []
    if pid := next(filter(None, map(looked.worker, paths)), None):
        return f"a running Camdock has it (its worker is pid {pid})"
    state = told(name, source, health).get("state")
    return f"the Camdock on this port has it, {state}" if state in HOLDING else ""


async def check(
    name: str, source: Source, path: str, health: Any, looked: Looked, guard: Guard, until: float
) -> list[Check]:
    """One camera: in use, hanging, or tried; for `opencv:` its video back ends too."""
    label, shown = f"camera.{name}", source.redacted
    if holder := occupied(name, source, path, health, looked):
        return [_running(label, source, holder, told(name, source, health))]
    for hanging, why in looked.hanging.items():
        if hanging == path or source.kind == "auto":  # which would open it
            what = f"{shown} was not opened: {hanging} does not answer ({why})"
            return [Check(label, Status.BAD, what, "unplug it and plug it in again, or restart the machine")]
    # `opencv:` may want a second one behind this: some of the time is kept for it.
    half = (until - time.monotonic()) * 0.6
    tried = await attempt(source, guard, time.monotonic() + half if source.kind == "opencv" else until)
    checks = [_of(label, source, path, tried, looked)]
    if source.kind == "opencv" and not tried.stuck and not isinstance(tried.error, SourceMissing):
        checks += await _each(label, source, tried, is_device=bool(path), guard=guard, until=until)
    return checks


def _running(label: str, source: Source, holder: str, mine: Mapping[str, Any]) -> Check:
    what = f"{source.redacted} was not opened: {holder}"
    if reason := mine.get("reason"):
        return Check(label, Status.BAD, f"{what}: {reason.get('message', '')}", reason.get("hint", ""), mine)
    return Check(label, Status.OK, what, "", mine)


def _of(label: str, source: Source, path: str, tried: Try, looked: Looked) -> Check:
    details: dict[str, Any] = {"source": source.redacted, "took_s": round(tried.took_s, 2), "step": tried.step}
    if tried.stuck:
        what = f"{source.redacted}: {tried.stuck}"
        return Check(
            label, Status.BAD, what, "unplug the device; where that does not help, restart the machine", details
        )
    if tried.early:
        what = f"{source.redacted} was not tried: {tried.early}"
        return Check(label, Status.UNKNOWN, what, "`camdock doctor --deadline 30` waits longer", details)
    held = looked.held(path) if path else ""
    if error := tried.error:
        details["code"] = error.code
        what, hint = source.scrub(error.message), source.scrub(error.hint)
        if isinstance(error, SourceBusy) and held and held not in what:
            what += f": {held} has it open"
        elif held and held not in what:
            what += f" ({held} has it open)"
        shown = what if source.redacted in what else f"{source.redacted}: {what}"
        if isinstance(error, SourceStalled):
            hint = (
                "unplug it, plug it in again; a slow one: `camdock doctor --deadline 30`, `CAMDOCK_OPEN_TIMEOUT_S=20`"
            )
        if path and isinstance(error, SourceMissing) and (others := looked.names()):
            hint += f"; this machine has {others}"
        return Check(label, Status.BAD, shown, hint, details)
    opened = tried.opened
    details["opened"] = {name: opened.get(name) for name in ("source", "device", "size", "fps", "format", "refused")}
    width, height = opened["size"]
    what = (
        f"{opened['device']} gives pictures: {width}x{height} {opened['format']}, the first after {tried.took_s:.1f} s"
    )
    if held:
        what += f"; {held} has it open too"
    if source.kind == "auto" and str(opened["source"]).startswith("synthetic:"):
        what = "no camera was found, so the test card is served"
        return Check(label, Status.WARNING, what, "plug one in: it is taken by itself; or name one in CAMDOCK_SOURCE",
                     details)  # fmt: skip
    return Check(label, Status.OK, what, "", details)


async def _each(label: str, source: Source, tried: Try, *, is_device: bool, guard: Guard, until: float) -> list[Check]:
    """The same target by each of OpenCV's video back ends, each in a worker of its own."""
    trials: Mapping[str, Source] = {name: _with_backend(source, name.lower()) for name in VIDEO_BACKENDS}
    results: dict[str, Try] = {}
    if is_device:  # which only one of them can have at a time
        for place, (name, one) in enumerate(trials.items()):
            left = until - time.monotonic()
            results[name] = await attempt(one, guard, time.monotonic() + left / (len(trials) - place))
            if results[name].stuck:
                break
    else:
        done = await asyncio.gather(*(attempt(one, guard, until) for one in trials.values()))
        results = dict(zip(trials, done, strict=True))
    lines = [
        f"{name}: {one.stuck or one.early or source.scrub(str(one.error or 'gives pictures'))}"
        for name, one in results.items()
    ]
    able = [name.lower() for name, one in results.items() if not (one.error or one.stuck or one.early)]
    what = f"OpenCV's video back ends that give its pictures: {', '.join(able) or 'none'}"
    hint = f"`backend={able[0]}` among the options of the source" if able and tried.error else ""
    status = Status.WARNING if hint else Status.OK if able else Status.UNKNOWN
    return [Check(f"{label}.backends", status, what, hint, {"lines": lines, "able": able})]


def _with_backend(source: Source, backend: str) -> Source:
    mark = "#" if "://" in source.target else "?"
    target, _, query = source.text.partition(mark)
    kept = [pair for pair in query.split("&") if pair and not pair.startswith("backend=")]
    text = f"{target}{mark}{'&'.join([*kept, f'backend={backend}'])}"
    return dataclasses.replace(source, text=text, options={**source.options, "backend": backend})
