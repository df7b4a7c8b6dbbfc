"""Camera: owns one worker process, its deadlines, its restarts, the settings.

Runs in: the API process. The frame is the heartbeat: what does not deliver in time is killed and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum
from typing import Any, Protocol

from camdock import wire
from camdock.backoff import Backoff
from camdock.broadcast import Broadcast, Subscriber
from camdock.child import Child
from camdock.darkroom import Darkroom
from camdock.errors import (
    CameraError,
    DriverMissing,
    SourceMissing,
    SourceStalled,
    from_code,
)
from camdock.frame import Frame, Still
from camdock.guard import Guard
from camdock.mistakes import must_not_fail
from camdock.notices import NOTICE_EVERY_S, Notices, Painter, Why
from camdock.orders import Orders
from camdock.rendition import Maker, Renditions
from camdock.settings import Limits, Settings, SettingsFile
from camdock.source import Source
from camdock.undo import Undo
from camdock.wire import Kind, Message

log = logging.getLogger("camdock")

HELLO_WITHIN_S = 20.0  # a Pi Zero needs seconds to import OpenCV
FIRST_FRAME_WITHIN_S = 3.0
SHORTEST_DEADLINE_S = 1.0
UNPROMISED_DEADLINE_S = 5.0  # where nobody says how fast pictures come: another Camdock's notices come once a second
DEADLINE_FRAMES = 5
APPLY_WITHIN_S = 3.0
REST_WITHIN_S = 3.0
ENCODE_WITHIN_S = {"JPG": 2.0, "PNG": 15.0, "TIFF": 15.0}  # of a large picture, on a small machine


class State(StrEnum):
    """What a camera is doing."""

    STARTING = "starting"
    LIVE = "live"
    IDLE = "idle"
    STALLED = "stalled"
    OFFLINE = "offline"


class Hands(Painter, Maker, Protocol):
    """Who works on pixels: Pixels."""


class Rest(Enum):
    """Whether a worker has given its device back because nobody looks."""

    NOT, ASKED, THERE = range(3)


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot of one camera. Ages in seconds, times in Unix seconds, sizes (width, height).

    viewers     all of them; renditions: those of each one in words
    failures    in a row, since the last picture
    sensor      what the sensor said of the newest picture
    """

    name: str
    source: str
    state: State
    since: float
    error: CameraError | None
    device: str
    format: str
    size: tuple[int, int] | None
    fps: float
    fps_promised: float
    seq: int
    age_s: float | None
    viewers: int
    renditions: Mapping[str, int]
    renditions_made: int
    frames: int
    drops: Mapping[str, int]
    restarts: Mapping[str, int]
    failures: int
    pid: int | None
    wanted: Settings
    applied: Settings
    limits: Limits
    sensor: Mapping[str, Any]


@dataclass(slots=True)
class _Session:
    """What is known of the worker that runs now.

    awaited  what it owes, for people; empty means its next picture
    wanted   the settings that were last sent to it; None: it may have others
    settle_frames  pictures that it throws away before a still with settings of its own
    is_told  whether its newest frame came from another Camdock, to say why that one has no picture
    still_s  longer than else it may take to its next picture, because of a still
    """

    worker: Child
    waiting_since: float = 0.0
    awaited: str = ""
    rest: Rest = Rest.NOT
    news: int = logging.INFO  # a camera that is woken every minute does not fill the log
    wanted: Settings | None = None
    exposure_s: float = 0.0
    interval_s: float = 0.0
    settle_frames: int = 0
    is_told: bool = False
    still_s: float = 0.0
    drops: Counter[str] = field(default_factory=Counter)

    def expect(self, within_s: float, awaited: str = "") -> None:
        """It owes its next step within so many seconds."""
        self.waiting_since = time.monotonic()
        self.awaited = awaited
        self.worker.expect(within_s)


class Camera:
    """One configured source: started once, kept going until stopped.

    admit  waits until it is known whether its libraries may be loaded; raises DriverMissing when no worker may be
    """

    def __init__(
        self,
        name: str,
        source: Source,
        settings_file: SettingsFile,
        pixels: Hands,
        conversions: Darkroom,
        guard: Guard,
        admit: Callable[[], Awaitable[None]],
        *,
        open_timeout_s: float = 5.0,
        linger_s: float = 10.0,
    ) -> None:
        self.name = name
        self.source = source
        self.broadcast = Broadcast()
        self._settings_file = settings_file
        self._guard = guard
        self._admit = admit
        self._open_timeout_s = open_timeout_s
        self._linger_s = linger_s
        self._backoff = Backoff()
        self._wanted = Settings()
        self._applied = Settings()
        self._limits = Limits()
        self._sensor: Mapping[str, Any] = {}
        self._resolved: str | None = None  # what `auto` found: an unplugged camera is waited for, not replaced
        self._shown_source = source.redacted
        self._device = self._format = ""
        self._versions: Mapping[str, str] = {}
        self._size: tuple[int, int] | None = None
        self._fps_promised = 0.0
        self._seq = self._frames = 0
        self._drops: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._state, self._since = State.STARTING, time.time()
        self._error: CameraError | None = None
        self._session: _Session | None = None
        self._last_captured_ns: int | None = None
        self._orders = Orders(name, source.scrub)
        self._ordering = asyncio.Lock()  # one order with an answer at a time: stills take turns
        self._undo = Undo(name, settings_file.path.with_name(settings_file.path.name + ".undo"))
        self._moved = asyncio.Event()  # what demand depends on
        self._turned = asyncio.Event()  # set by the next change of state, and replaced
        self.broadcast.on_demand(self._moved.set)
        self._conversions = conversions
        self._notices = Notices(self.broadcast, pixels, self._why, self._publish_notice)
        self.renditions = Renditions(name, self.broadcast, pixels)
        self._tasks: list[asyncio.Task[None]] = []
        self._survivor: Child | None = None
        try:
            self._wanted = settings_file.load()
        except ValueError as error:
            log.warning("%s: %s", name, error)

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: returns at once, the source opens in the background."""
        log.info("%s: source %s", self.name, self.source.redacted)
        self._tasks = [asyncio.create_task(work) for work in (self._run(), self._notices.run(), self._follow_demand())]
        for task in self._tasks:
            task.add_done_callback(must_not_fail(self.name))

    async def stop(self) -> None:
        """End the worker and everything else, within about 3 s."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._survivor is not None:
            self._survivor.abandon()

    async def _run(self) -> None:
        try:
            await self._admit()
        except DriverMissing as error:  # for good: what pip mends is loaded by the next service
            log.warning("%s: not started: its libraries break, see above", self.name)
            self._turn(State.OFFLINE, error)
            return
        while True:
            try:
                await self._serve()
            except CameraError as error:
                self._went_offline(error)
                if self._survivor is not None:
                    await self._outlive(self._survivor)
                await asyncio.sleep(self._backoff.next_s(error))

    async def _serve(self) -> None:
        """One worker from its start to its end; always leaves by a CameraError or by being cancelled."""
        worker = Child("camdock.worker", self.name, self._guard, self._dispatch, self.source.scrub)
        self._session = session = _Session(worker)
        session.expect(HELLO_WITHIN_S, "to load its driver")
        try:
            async with worker:
                await self._order_start(session)
                try:
                    await worker.watch()
                except TimeoutError:
                    raise self._stalled(session) from None
        except CameraError as error:
            self._orders.fail(error)
            raise
        finally:
            self._session = None
            self._drops += session.drops
            self._orders.cancel()
            if worker.survives:
                self._survivor = worker

    async def _order_start(self, session: _Session) -> None:
        session.wanted = self._wanted
        wanted = (self._undo.settings or Settings()).changed(self._wanted.given())
        start = {"source": self._resolved or self.source.text, "first_seq": self._seq + 1}
        await session.worker.send(wire.pack(Kind.START, start | {"wanted": wanted.given()}))

    def _stalled(self, session: _Session) -> SourceStalled:
        waited_s = time.monotonic() - session.waiting_since
        what = (
            f"it took longer than {waited_s:.1f} s {session.awaited}"
            if session.awaited
            else f"no picture for {waited_s:.1f} s"
        )
        return SourceStalled(
            f"{self._device or self.source.redacted}: {what}; its driver process was killed",
            "it is started again by itself; if this repeats, look at the cable, the power supply and `dmesg`",
        )

    async def _outlive(self, survivor: Child) -> None:
        """A worker in uninterruptible sleep survives SIGKILL. Its device is not opened again until it is gone."""
        self._went_offline(
            SourceStalled(
                f"{self._device or self.source.redacted}: the driver process {survivor.pid} cannot be killed: it waits "
                f"in the kernel ({survivor.waits_in()}); the device is not opened again before that ends",
                "unplug the device; if the process stays, only a restart of the machine helps",
            )
        )
        await survivor.gone()
        self._survivor = None
        log.info("%s: driver process %d is gone at last", self.name, survivor.pid)

    # --- what the worker says -------------------------------------------------------------------------------------

    def _dispatch(self, message: Message) -> None:
        session = self._session
        if session is None:
            return  # on its way out
        match message.kind:
            case Kind.FRAME:
                self._on_frame(session, message)
            case Kind.DROPS:
                session.drops = Counter(message.meta["drops"])
            case Kind.HELLO:
                self._note_versions(message.meta.get("versions", {}))
                if session.rest is Rest.THERE:  # `auto` found another camera meanwhile, and takes it
                    session.rest, session.wanted = Rest.NOT, None
                    self._turn(State.STARTING, None)
                session.expect(self._open_timeout_s, "to open")
            case Kind.READY:
                self._on_ready(session, message.meta)
            case Kind.RESTED:
                self._on_rested(session)
            case Kind.APPLIED:
                self._on_applied(session, message)
            case Kind.TAKEN:
                self._on_taken(session, message)
            case Kind.FAILED:
                meta = message.meta
                raise from_code(
                    str(meta["code"]), self.source.scrub(str(meta["message"])), self.source.scrub(str(meta["hint"]))
                )
            case _:
                log.warning("%s: the worker sent %s, which nobody expects", self.name, message.kind.name)

    def _on_ready(self, session: _Session, meta: Mapping[str, Any]) -> None:
        self._device, self._format = str(meta["device"]), str(meta["format"])
        self._size = (meta["size"][0], meta["size"][1])
        self._fps_promised = float(meta["fps"])
        self._limits = Limits.of(meta["limits"])
        self._note_applied(session, meta["applied"])
        self._undo.done()
        session.settle_frames = int(meta["settle_frames"])
        before, self._shown_source = self._shown_source, str(meta["source"])
        if self.is_stand_in and before != self._shown_source:
            log.warning(
                "%s: no camera found, so this is a test card (%s); a camera that appears is taken",
                self.name, self._device,
            )  # fmt: skip
        elif self.source.has_stand_in and not self.is_stand_in:
            self._resolved = self._shown_source
            if before.startswith("synthetic:"):  # which may have refused what the camera can do
                session.wanted = None
                self._moved.set()
        if meta["refused"]:
            log.warning("%s: the kept settings are not used: %s", self.name, meta["refused"])
        session.interval_s = 1 / self._fps_promised if self._fps_promised else 0.0
        first_s = max(FIRST_FRAME_WITHIN_S + session.exposure_s, self._deadline_s(session))
        session.expect(first_s, "to give its first picture")
        log.log(session.news, "%s: open: %s, %dx%d %s", self.name, self._device, *self._size, self._format)

    def _on_frame(self, session: _Session, message: Message) -> None:
        if session.rest is not Rest.NOT:
            return  # it was on its way when the worker was told to rest
        meta = message.meta
        session.is_told = bool(meta.get("notice"))
        if session.is_told:
            self._on_notice(session, message)
            return
        captured_ns = int(meta["captured_ns"])
        now_ns = time.monotonic_ns()
        size = (meta["size"][0], meta["size"][1])
        if "drops" in meta:
            session.drops = Counter(meta["drops"])
        self._seq += 1
        self._frames += 1
        self._size = size
        if self._state is not State.LIVE:
            self._turn(State.LIVE, None)
            self._backoff.reset()
        elif self._last_captured_ns is not None:
            # Smoothed over about 16 frames; a gap counts for at most one second, or one stall hides the rate for long.
            passed = min(1.0 + session.interval_s, max(0.0, (captured_ns - self._last_captured_ns) / 1e9))
            session.interval_s += (passed - session.interval_s) / 16 if session.interval_s else passed
        self._last_captured_ns = captured_ns
        self._sensor = meta.get("sensor", {})
        session.expect(self._deadline_s(session))
        self.broadcast.publish(
            Frame.of(
                message.blob,
                seq=self._seq,
                captured_ns=captured_ns,
                captured_at=time.time() - (now_ns - captured_ns) / 1e9,
                size=size,
            )
        )

    def _on_notice(self, session: _Session, message: Message) -> None:
        """A Camdock elsewhere says why it has no picture. Its words are passed on: it knows more than we do."""
        session.expect(self._deadline_s(session))
        # It may be opening its camera because we look: what waits for a picture here waits as long as it would there.
        if self._state is not State.STARTING or time.time() - self._since > self.opens_within_s:
            self._offline(
                SourceMissing(
                    f"{self._device}: the Camdock there has no picture itself; the one that it sends says why",
                    "look there; pictures come by themselves as soon as it has some",
                )
            )
        self._publish_notice(message.blob, (message.meta["size"][0], message.meta["size"][1]))

    def _deadline_s(self, session: _Session) -> float:
        """The longest wait for a picture: 5 frame times and the exposure, at least 1 s."""
        promised_s = 1 / self._fps_promised if self._fps_promised else 0.0
        shortest_s = SHORTEST_DEADLINE_S if self._fps_promised else UNPROMISED_DEADLINE_S
        frames_s = DEADLINE_FRAMES * max(session.interval_s, promised_s)
        return max(shortest_s, frames_s + session.exposure_s) + session.still_s

    def _on_applied(self, session: _Session, message: Message) -> None:
        if "applied" in message.meta:
            self._limits = Limits.of(message.meta["limits"])
            self._note_applied(session, message.meta["applied"])
        if not self._orders.answered(message) and (error := message.meta.get("error")):
            # Given while it was opening, when nobody knew what it can do.
            log.warning("%s: the kept settings are not used: %s", self.name, self.source.scrub(str(error["message"])))

    def _on_taken(self, session: _Session, message: Message) -> None:
        meta, pictures = message.meta, int(message.meta["pictures"])
        self._seq += pictures
        self._frames += pictures
        self._undo.taken(meta["id"])  # one whose caller left answers too, and may be another one
        if "applied" in meta:  # behind the still, the settings in force back
            self._note_applied(session, meta["applied"])
        if "captured_ns" in meta:
            self._last_captured_ns = int(meta["captured_ns"])
        # Once more the long wait: the next picture may have been begun with the still's exposure.
        session.expect(self._deadline_s(session))
        if self._orders.only(meta["id"]):
            session.still_s = 0.0
        self._orders.answered(Message(message.kind, {**meta, "seq": self._seq}, bytes(message.blob)))

    def _note_versions(self, versions: Mapping[str, str]) -> None:
        """Say with which libraries it is driven; again only where that has changed."""
        if versions and versions != self._versions:
            self._versions = versions
            log.info("%s: driven with %s", self.name, ", ".join(f"{name} {v}" for name, v in versions.items()))

    def _note_applied(self, session: _Session, applied: Mapping[str, Any]) -> None:
        self._applied = Settings(**applied)
        session.exposure_s = (self._applied.exposure_us or 0) / 1e6

    # --- states ---------------------------------------------------------------------------------------------------

    def _turn(self, state: State, error: CameraError | None) -> None:
        if (state, error and error.message) != (self._state, self._error and self._error.message):
            self._state, self._error, self._since = state, error, time.time()
            self._notices.changed()
            self._moved.set()
            self._turned.set()
            self._turned = asyncio.Event()
            if state in (State.LIVE, State.IDLE):
                log.log(self._session.news if self._session else logging.INFO, "%s: %s", self.name, state)

    def _went_offline(self, error: CameraError) -> None:
        self._restarts[error.code] += 1
        self._offline(error)

    def _offline(self, error: CameraError) -> None:
        self._last_captured_ns = None
        before = self._error.message if self._error else None
        self._turn(State.STALLED if isinstance(error, SourceStalled) else State.OFFLINE, error)
        if before != error.message:
            log.warning("%s: %s: %s%s", self.name, error.code, error.message, f" -- {error.hint}" if error.hint else "")

    def _why(self) -> Why | None:
        """What a viewer is told instead of pictures."""
        if self._state in (State.LIVE, State.IDLE) or (self._session and self._session.is_told):
            return None
        error = self._error
        return Why(
            title=f"{self.name}: {self._state}",
            texts=[error.message, error.hint] if error else ["opening " + self.source.redacted],
            since=self._since,
            size=self._size,
            # A camera that opens in time needs no explanation.
            early=self._state is State.STARTING and time.time() - self._since < NOTICE_EVERY_S,
        )

    def _publish_notice(self, jpeg: bytes | bytearray | memoryview, size: tuple[int, int]) -> None:
        self._seq += 1
        self.broadcast.publish(
            Frame.of(
                jpeg, seq=self._seq, captured_ns=time.monotonic_ns(), captured_at=time.time(), size=size, notice=True
            )
        )

    # --- demand ---------------------------------------------------------------------------------------------------

    async def _follow_demand(self) -> None:
        """Have the device given back when nobody has looked for the linger, and taken again when somebody does."""
        while True:
            self._moved.clear()
            session, alone_s, pause_s = self._session, self.broadcast.alone_s, None
            if session and session.rest is Rest.NOT and self._state is State.LIVE and session.wanted != self._wanted:
                session.wanted = self._wanted  # asked for while it was opening
                meta = {"id": self._orders.number(), "wanted": asdict(self._wanted)}
                await session.worker.send(wire.pack(Kind.APPLY, meta))
            if session and session.rest is Rest.THERE and alone_s is None:
                await self._wake(session)
            elif session and session.rest is Rest.NOT and self._state is State.LIVE and self._linger_s:
                if alone_s is not None and alone_s >= self._linger_s:
                    await self._ask_to_rest(session)
                elif alone_s is not None:
                    pause_s = self._linger_s - alone_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._moved.wait()

    async def _ask_to_rest(self, session: _Session) -> None:
        session.rest = Rest.ASKED
        # It may be in the middle of waiting for a picture.
        session.expect(max(REST_WITHIN_S, self._deadline_s(session)), "to give the device back")
        await session.worker.send(wire.pack(Kind.REST, {}))

    def _on_rested(self, session: _Session) -> None:
        session.rest = Rest.THERE
        session.expect(math.inf, "nothing")
        self._drops += session.drops
        session.drops = Counter()
        self._last_captured_ns = None
        self.broadcast.forget()
        self._turn(State.IDLE, None)
        self._moved.set()

    async def _wake(self, session: _Session) -> None:
        session.rest, session.news = Rest.NOT, logging.DEBUG
        session.expect(self._open_timeout_s, "to open")
        self._turn(State.STARTING, None)
        await self._order_start(session)

    # --- for the others -------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What is known now."""
        session = self._session
        live = self._state is State.LIVE
        age_s = None if self._last_captured_ns is None else (time.monotonic_ns() - self._last_captured_ns) / 1e9
        return Status(
            name=self.name,
            source=self._shown_source,
            state=self._state,
            since=self._since,
            error=self._error,
            device=self._device,
            format=self._format,
            size=self._size,
            fps=1 / session.interval_s if live and session and session.interval_s else 0.0,
            fps_promised=self._fps_promised,
            seq=self._seq,
            age_s=age_s,
            viewers=len(self.viewers),
            renditions={str(one.wanted): one.broadcast.viewers for one in self.renditions},
            renditions_made=self.renditions.made,
            frames=self._frames,
            drops=self._drops + session.drops if session else self._drops.copy(),
            restarts=dict(self._restarts),
            failures=self._backoff.failures,
            pid=session.worker.pid if session else None,
            wanted=self._wanted,
            applied=self._applied,
            limits=self._limits,
            sensor=self._sensor,
        )

    @property
    def turned(self) -> asyncio.Event:
        """What the next change of state, or of its reason, will set."""
        return self._turned

    @property
    def viewers(self) -> tuple[Subscriber, ...]:
        """Who looks, at the picture as it is or at a rendition."""
        return self.broadcast.subscribers + self.renditions.subscribers

    @property
    def is_coming(self) -> bool:
        """Whether pictures come by themselves within `opens_within_s`, once somebody looks."""
        resting = self._session is not None and self._session.rest is not Rest.NOT
        return resting or self._state in (State.STARTING, State.IDLE)

    @property
    def opens_within_s(self) -> float:
        """How long a camera that is not live yet may take to its first picture."""
        return self._open_timeout_s + FIRST_FRAME_WITHIN_S

    @property
    def is_stand_in(self) -> bool:
        """Whether the pictures are a test card in the place of a camera that is not there."""
        return self.source.has_stand_in and self._shown_source.startswith("synthetic:")

    @property
    def is_connected(self) -> bool:
        """Whether the camera that is meant gives pictures, or does so as soon as somebody looks."""
        return self.unavailable() is None and not self.is_stand_in

    def unavailable(self) -> CameraError | None:
        """Why there is no picture to be had now; None while live, and while idle: it comes when somebody looks."""
        if self._state in (State.LIVE, State.IDLE):
            return None
        return self._error or SourceStalled(f"{self.name} is still starting", "try again in a moment")

    async def apply(self, changes: Mapping[str, Any]) -> Settings:
        """Change settings: now if the camera is live, at its next start if not, and again after every restart.

        changes  names of Settings with their values
        returns  the applied settings as the device reports them (the wanted ones while there is no device)
        raises   SettingUnsupported, SettingOutOfRange with the limits; SourceStalled when the driver does not answer;
                 StorageFailed when they are in force but could not be kept
        """
        # Nothing is looked at before its turn: behind a still the camera may have been told otherwise, or to rest.
        async with self._ordering:
            wanted = self._wanted.changed(changes)
            session = self._session
            if self._state in (State.LIVE, State.IDLE):
                self._limits.check({name: value for name, value in changes.items() if value is not None}, self.name)
            if self._state is not State.LIVE or session is None or session.rest is not Rest.NOT:
                await self._keep(wanted)
                return wanted
            await self._orders.ask(session.worker, Kind.APPLY, {"wanted": asdict(wanted)}, APPLY_WITHIN_S)
            session.wanted = wanted
            await self._keep(wanted)
            return self._applied

    async def _keep(self, wanted: Settings) -> None:
        self._wanted = wanted
        await asyncio.to_thread(self._settings_file.save, wanted)

    async def still(self, overrides: Settings | None = None, *, still_format: str = "JPG", quality: int = 95) -> Still:
        """One picture at full quality, taken from now on. Wakes a resting camera; stills of one camera take turns.

        overrides     settings for this picture alone: those in force come back, whatever happens
        still_format  JPG, PNG or TIFF; a JPEG that the camera makes itself is kept as it is
        quality       1 to 100, for a JPG that the camera does not make itself
        raises        SettingUnsupported, SettingOutOfRange; the camera's error; SourceStalled when it hangs over it;
                      ImageUnreadable, PictureTookTooLong, TooManyPictures where its JPEG is to be something else
        """
        wanted = overrides or Settings()
        with self.broadcast.subscribe(feed=True):
            async with self._ordering:
                session = await self._awake()
                self._limits.check(wanted.given(), self.name)
                order = self._orders.number()
                if wanted != Settings():
                    await self._undo.keep(self._applied.undoing(wanted), order)
                    if self._session is not session:
                        self._undo.done()
                        raise SourceStalled(f"{self.name}: the driver process ended meanwhile", "try again")
                exposure_s = max(session.exposure_s, (wanted.exposure_us or 0) / 1e6)
                picture_s = max(session.interval_s, exposure_s)
                session.still_s = (session.settle_frames + 2) * picture_s + ENCODE_WITHIN_S[still_format]
                session.expect(self._deadline_s(session), "to take a still")
                meta = {"overrides": wanted.given(), "format": still_format, "quality": quality}
                try:
                    answer = await self._orders.ask(session.worker, Kind.STILL, meta, order=order)
                finally:
                    if wanted != Settings():
                        await self._undo.settle()
                taken, data = answer.meta, bytes(answer.blob)
                if taken["format"] != still_format:  # in its turn too: of those that wait none is in memory
                    with self._conversions.place():
                        data = await self._conversions.process(data, {"format": still_format})
        now_ns = time.monotonic_ns()
        return Still(
            data=data,
            format=still_format,
            size=(taken["size"][0], taken["size"][1]),
            seq=taken["seq"],
            captured_at=time.time() - (now_ns - int(taken["captured_ns"])) / 1e9,
            settings=Settings(**taken["settings"]),
            camera=self.name,
            source=self._shown_source,
            device=self._device,
            quality=taken.get("quality"),
            sensor=taken.get("sensor", {}),
        )

    async def _awake(self) -> _Session:
        """The worker of this camera, giving pictures. Raises why there are none, or SourceStalled."""
        within_s = self.opens_within_s
        try:
            async with asyncio.timeout(within_s):
                while True:
                    session = self._session
                    if session is not None and session.rest is Rest.NOT and self._state is State.LIVE:
                        return session
                    if (error := self.unavailable()) and not self.is_coming:
                        raise error
                    await self.broadcast.published()
        except TimeoutError:
            raise SourceStalled(f"{self.name}: no new picture within {within_s:.0f} s", "try again") from None
