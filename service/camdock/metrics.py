"""GET /metrics for Prometheus: reads the owners when scraped, keeps nothing itself.

Runs in: the API process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from camdock.camera import Camera, State
from camdock.gate import Abi, AbiGate
from camdock.problems import documented
from camdock.sender import Sender

ASK_WITHIN_S = 0.5  # a scrape has 10 s by default, and says more than this one figure


class Storage:
    """The file system of a folder. One on a network may never answer: it is asked in a thread, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked: Future[os.statvfs_result | None] | None = None

    async def ask(self) -> os.statvfs_result | None:
        """What it says of itself; None where it cannot be asked, and where it does not answer in time."""
        if self._asked is None or self._asked.done():
            asked: Future[os.statvfs_result | None] = Future()
            # A daemon, unlike the threads of asyncio: one that hangs does not keep the service from ending.
            threading.Thread(target=lambda: asked.set_result(self._statvfs()), daemon=True).start()
            self._asked = asked
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_WITHIN_S):
                return await asyncio.shield(asyncio.wrap_future(self._asked))
        return None

    def _statvfs(self) -> os.statvfs_result | None:
        """Of the folder, or of the one in which it will be made: it is there once settings were kept."""
        with contextlib.suppress(OSError):
            for folder in (self._folder, *self._folder.parents):
                with contextlib.suppress(FileNotFoundError):
                    return os.statvfs(folder)
        return None


def usage_of(pid: int) -> tuple[float, int] | None:
    """CPU seconds and resident bytes of a process; None when it is gone. source: proc_pid_stat(5)"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # behind the name, which may hold anything: from the third on
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


class Owners(Collector):
    """Turns what the owners say into metrics: one scrape.

    storage  what the file system of the state folder says of itself; None leaves its figures out
    """

    def __init__(
        self,
        cameras: dict[str, Camera],
        sender: Sender,
        abi: AbiGate,
        version: str,
        storage: os.statvfs_result | None = None,
    ) -> None:
        self._cameras = cameras
        self._sender = sender
        self._abi = abi
        self._version = version
        self._storage = storage

    def collect(self) -> Iterator[Metric]:
        """Every metric, of every camera."""
        yield InfoMetricFamily("camdock", "The running service", {"version": self._version})
        frames = CounterMetricFamily("camdock_frames", "Pictures that a camera gave", labels=["camera"])
        drops = CounterMetricFamily("camdock_dropped_frames", "Pictures thrown away", labels=["camera", "reason"])
        restarts = CounterMetricFamily(
            "camdock_worker_restarts", "Restarts of the driver process, by error code", labels=["camera", "reason"]
        )
        failures = GaugeMetricFamily(
            "camdock_consecutive_failures", "Failures in a row since the last picture", labels=["camera"]
        )
        viewers = GaugeMetricFamily("camdock_viewers", "Connected viewers", labels=["camera"])
        made = CounterMetricFamily(
            "camdock_rendition_frames", "Pictures decoded and encoded anew for renditions", labels=["camera"]
        )
        age = GaugeMetricFamily("camdock_frame_age_seconds", "Age of the newest picture", labels=["camera"])
        fps = GaugeMetricFamily("camdock_frames_per_second", "Rate of the camera, measured", labels=["camera"])
        state = GaugeMetricFamily("camdock_camera_state", "1 for the state a camera is in", labels=["camera", "state"])
        cpu = CounterMetricFamily(
            "camdock_worker_cpu_seconds", "Processor time of the driver process that runs now", labels=["camera"]
        )
        memory = GaugeMetricFamily(
            "camdock_worker_resident_memory_bytes", "Resident memory of the driver process", labels=["camera"]
        )
        for name, camera in self._cameras.items():
            status = camera.status()
            frames.add_metric([name], status.frames)
            failures.add_metric([name], status.failures)
            viewers.add_metric([name], status.viewers)
            made.add_metric([name], status.renditions_made)
            fps.add_metric([name], status.fps)
            if status.age_s is not None:
                age.add_metric([name], status.age_s)
            for reason, count in status.drops.items():
                drops.add_metric([name, reason], count)
            for reason, count in status.restarts.items():
                restarts.add_metric([name, reason], count)
            for one in State:
                state.add_metric([name, one.value], float(one is status.state))
            if status.pid is not None and (usage := usage_of(status.pid)):
                cpu.add_metric([name], usage[0])
                memory.add_metric([name], usage[1])
        yield from (frames, drops, restarts, failures, viewers, made, age, fps, state, cpu, memory)
        yield CounterMetricFamily(
            "camdock_stuck_viewers",
            "Viewers dropped because they took nothing for too long",
            self._sender.dropped_stuck,
        )
        abi = GaugeMetricFamily(
            "camdock_abi", "1 for what is known of the libraries and the installed NumPy", labels=["state"]
        )
        for known in Abi:
            abi.add_metric([known.value], float(known is self._abi.state))
        yield abi
        if self._storage is not None:
            block, free, size = self._storage.f_frsize, self._storage.f_bavail, self._storage.f_blocks
            yield GaugeMetricFamily("camdock_storage_free_bytes", "Room left for the state folder", free * block)
            yield GaugeMetricFamily(
                "camdock_storage_size_bytes", "Size of the state folder's file system", size * block
            )
        yield from ProcessCollector(registry=None).collect()  # process_...: this process, as every exporter names it


def router(
    cameras: dict[str, Camera], sender: Sender, abi: AbiGate, version: str, state_dir: Path | None = None
) -> APIRouter:
    """The one path. `state_dir` is the folder whose room is told; without one nothing is said of it."""
    routes = APIRouter(tags=["health"])
    storage = Storage(state_dir) if state_dir else None

    @routes.get(
        "/metrics", summary="Figures for Prometheus", response_class=Response,
        responses={
            200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(),
        },
    )  # fmt: skip
    async def metrics() -> Response:
        """Per camera: frames, drops, restarts by reason, viewers, age, state, its process; and the service's own."""
        owners = Owners(cameras, sender, abi, version, await storage.ask() if storage else None)
        return Response(generate_latest(owners), media_type=CONTENT_TYPE_LATEST)

    return routes
