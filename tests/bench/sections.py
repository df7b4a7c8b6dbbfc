"""What is measured: each section is a list of rows, each row the same load on every server, in turns.

Runs in: the bench's process.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench import encode, load
from tests.bench.load import Result
from tests.bench.servers import (
    CAMDOCK,
    CONDITION,
    FLOOR,
    THREADS,
    USTREAMER,
    USTREAMER_ONE_WORKER,
    Running,
    Server,
    Task,
    frames_for,
)

SMALL = Task((640, 480))
LARGE = Task((1280, 720))
RAW = Task((1280, 720), "YUYV")
BIG, MIDDLE, RENDITION = Task((1920, 1080)), Task((640, 360)), "/stream?width=640&height=360"
EVERYONE = (CAMDOCK, USTREAMER, CONDITION, THREADS)
AND_THE_FLOOR = (*EVERYONE, FLOOR)
SLOW_BYTES_PER_S = 600_000
NORMAL_BESIDE_SLOW = 10
# The kernel takes 2.5 to 4 MB of a viewer who reads 1.2 MB/s less than comes: after this time its age is at its height.
SLOW_WARM_S = 6.0


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    windows: int = 3
    window_s: float = 3.0
    warm_s: float = 1.5


@dataclass
class Row:
    """One load on all servers. After `measure`: the windows of each, and their medians."""

    section: str
    title: str
    task: Task
    servers: tuple[Server, ...]
    once: Callable[[Running, Pace], Result]
    viewers: int = 1
    windows: dict[str, list[Result]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.section}/{self.title}"

    def medians(self, server: str) -> Result:
        """The median of every figure over the server's windows; empty if there are none."""
        results = self.windows.get(server, [])
        numeric = [key for key, value in results[0].items() if isinstance(value, int | float)] if results else []
        return {key: statistics.median(result[key] for result in results) for key in numeric}

    def turns(self, pace: Pace, chosen: frozenset[str]) -> list[Server]:
        """Whose window comes when. A B C, A B C: a machine that grows slower or busier does so for all of them."""
        return [
            server
            for window in range(pace.windows)
            for server in self.servers
            if server.name in chosen and window < (server.windows or pace.windows)
        ]

    def measure(self, pace: Pace, chosen: frozenset[str], progress: "Progress") -> None:
        """All of them; a server that failed once is not asked again."""
        folder = frames_for(self.task)
        for server in self.turns(pace, chosen):
            progress.step()
            if server.name in self.errors:
                continue
            begun = time.monotonic()
            try:
                with Running(server, self.task, folder) as running:
                    result = self.once(running, pace)
            except RuntimeError as error:
                self.errors[server.name] = str(error)
                progress.say(f"{self.key:22} {server.name:13} FAILED: {error}")
                continue
            result["load_1min"] = os.getloadavg()[0]
            self.windows.setdefault(server.name, []).append(result)
            took = time.monotonic() - begun
            progress.say(f"{self.key:22} {server.name:13} {_brief(result)}  ({took:.0f} s)")


class Progress:
    """Tells how much is done and how long the rest may take, a line a window."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.began = time.monotonic()

    def step(self) -> None:
        """The next window begins."""
        self.done += 1

    def say(self, line: str) -> None:
        """A line about the window that has just ended."""
        left_s = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        shown = f"[{self.done}/{self.total}, {left_s // 60:.0f}:{left_s % 60:02.0f} left]"
        print(f"{shown:22} {line}", file=sys.stderr, flush=True)


def _brief(result: Result) -> str:
    shown = {
        "cpu_ms_per_frame": "{:.4f} ms/frame", "fps_per_client": "{:.1f} fps", "lat_p50_ms": "p50 {:.1f} ms",
        "lat_p99_ms": "p99 {:.1f} ms", "slow_age_p50_ms": "slow age {:.0f} ms", "get_p99_ms": "GET p99 {:.1f} ms",
    }  # fmt: skip
    return ", ".join(text.format(result[key]) for key, text in shown.items() if key in result)


def _fan_out(section: str, task: Task, count: int, servers: tuple[Server, ...] = AND_THE_FLOOR) -> Row:
    def once(running: Running, pace: Pace) -> Result:
        return load.viewers(running, count, warm_s=pace.warm_s + count / 500, window_s=pace.window_s)

    return Row(section, f"N={count}", task, servers, once, viewers=count)


def _slow(servers: tuple[Server, ...]) -> Row:
    def once(running: Running, pace: Pace) -> Result:
        result = load.viewers(
            running, NORMAL_BESIDE_SLOW + 1, warm_s=SLOW_WARM_S, window_s=pace.window_s, slow=1,
            slow_bytes_per_s=SLOW_BYTES_PER_S,
        )  # fmt: skip
        interval = result["slow_interval_p50_ms"]
        result["slow_age_frames"] = result["slow_age_p50_ms"] / interval if interval > 0 else -1.0
        return result

    return Row("slow", "600 KB/s", SMALL, servers, once, viewers=NORMAL_BESIDE_SLOW + 1)


def _health(count: int, servers: tuple[Server, ...]) -> Row:
    def once(running: Running, pace: Pace) -> Result:
        return load.viewers(
            running, count, warm_s=pace.warm_s + count / 500, window_s=pace.window_s, other_request=True
        )

    return Row("health", f"N={count}", SMALL, servers, once, viewers=count)


def _rendition(count: int, task: Task, path: str) -> Row:
    def once(running: Running, pace: Pace) -> Result:
        result = load.viewers(running, count, warm_s=pace.warm_s + count / 500, window_s=pace.window_s, path=path)
        figures = running.figures()
        result["frames_of_camera"] = figures["camdock_frames_total"]
        result["made"] = figures["camdock_rendition_frames_total"]
        return result

    title = f"N={count}" + ("" if "?" in path else " as it is")
    return Row("rendition", title, task, (CAMDOCK,), once, viewers=count)


def _raw(servers: tuple[Server, ...]) -> Row:
    def once(running: Running, pace: Pace) -> Result:
        return encode.first_byte(running, warm_s=min(pace.warm_s, 1.0), window_s=pace.window_s)

    return Row("yuyv", "1280x720", RAW, servers, once)


SECTIONS = ("fanout", "large", "many", "slow", "health", "rendition", "yuyv", "pictures")


def rows(only: frozenset[str], short: bool) -> list[Row]:
    """The rows of these sections; short: those that show in a minute that nothing is nonsense."""
    pair = (CAMDOCK, USTREAMER)
    raw_servers = (CAMDOCK, USTREAMER, USTREAMER_ONE_WORKER, CONDITION, THREADS)
    if short:
        every = [
            _fan_out("fanout", SMALL, 50, EVERYONE),
            _fan_out("large", LARGE, 10, pair),
            _slow((CAMDOCK,)),
            _health(50, pair),
            _rendition(20, BIG, RENDITION),
            _raw(pair),
        ]
    else:
        every = [_fan_out("fanout", SMALL, count) for count in (1, 10, 50, 200)]
        every += [_fan_out("large", LARGE, count) for count in (1, 10, 50, 200)]
        every += [_fan_out("many", SMALL, 1000), _fan_out("many", LARGE, 1000)]
        every += [_slow(EVERYONE), _health(200, EVERYONE)]
        every += [_rendition(1, BIG, RENDITION), _rendition(200, BIG, RENDITION), _rendition(200, MIDDLE, "/stream")]
        every += [_raw(raw_servers)]
    return [row for row in every if row.section in only]
