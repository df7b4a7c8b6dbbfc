"""GET /metrics for Prometheus: reads the owners when scraped, keeps nothing itself.

Runs in: the API process.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from camdock.camera import Camera, State
from camdock.problems import documented
from camdock.sender import Sender


class Owners(Collector):
    """Turns the statuses of the cameras into metrics."""

    def __init__(self, cameras: dict[str, Camera], sender: Sender, version: str) -> None:
        self._cameras = cameras
        self._sender = sender
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        yield InfoMetricFamily("camdock", "The running service", {"version": self._version})
        frames = CounterMetricFamily("camdock_frames", "Pictures that a camera gave", labels=["camera"])
        drops = CounterMetricFamily("camdock_dropped_frames", "Pictures thrown away", labels=["camera", "reason"])
        restarts = CounterMetricFamily(
            "camdock_worker_restarts", "Restarts of the driver process, by error code", labels=["camera", "reason"]
        )
        viewers = GaugeMetricFamily("camdock_viewers", "Connected viewers", labels=["camera"])
        age = GaugeMetricFamily("camdock_frame_age_seconds", "Age of the newest picture", labels=["camera"])
        fps = GaugeMetricFamily("camdock_frames_per_second", "Rate of the camera, measured", labels=["camera"])
        state = GaugeMetricFamily("camdock_camera_state", "1 for the state a camera is in", labels=["camera", "state"])
        for name, camera in self._cameras.items():
            status = camera.status()
            frames.add_metric([name], status.frames)
            viewers.add_metric([name], status.viewers)
            fps.add_metric([name], status.fps)
            if status.age_s is not None:
                age.add_metric([name], status.age_s)
            for reason, count in status.drops.items():
                drops.add_metric([name, reason], count)
            for reason, count in status.restarts.items():
                restarts.add_metric([name, reason], count)
            for one in State:
                state.add_metric([name, one.value], float(one is status.state))
        yield from (frames, drops, restarts, viewers, age, fps, state)
        yield CounterMetricFamily(
            "camdock_stuck_viewers",
            "Viewers dropped because they took nothing for too long",
            self._sender.dropped_stuck,
        )


def router(cameras: dict[str, Camera], sender: Sender, version: str) -> APIRouter:
    """The one path."""
    routes = APIRouter(tags=["health"])
    registry = CollectorRegistry()
    registry.register(Owners(cameras, sender, version))

    @routes.get(
        "/metrics", summary="Figures for Prometheus", response_class=Response,
        responses={
            200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(),
        },
    )  # fmt: skip
    async def metrics() -> Response:
        """Frames, drops, restarts by reason, viewers, age of the picture, state: per camera."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes
