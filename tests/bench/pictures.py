"""A 12-megapixel JPEG to 640 wide, eight at once: what the service takes for one, beside the bare calls of OpenCV.

Runs in: the bench's process; the service is a process below it. Processor time is of the service with all its children.
"""

import http.client
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import cv2
import numpy as np
import psutil

from tests.bench.load import Result
from tests.bench.sections import SMALL
from tests.bench.servers import CAMDOCK, Running, frames_for
from tests.tools.frames import PHOTOGRAPHS
from tests.tools.service import Viewer

AT_ONCE = 8
SIZE, WIDTH, QUALITY = (4000, 3000), 640, 90
MOST_RATIO = 1.15  # of the bare calls' processor time


def photograph() -> bytes:
    """A JPEG of 12 megapixels, 2 MB: a photograph made larger, with the noise of a sensor."""
    small = cv2.imread(str(PHOTOGRAPHS / "coffee.jpg"))
    assert small is not None
    pixels = cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(1).normal(0, 4, pixels.shape)
    noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def bare(picture: bytes) -> bytes:
    """The calls that somebody writes who has OpenCV."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    height = round(pixels.shape[0] * WIDTH / pixels.shape[1])
    smaller = cv2.resize(pixels, (WIDTH, height), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def _tree_cpu_s(pid: int) -> float:
    api = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (api, *api.children(recursive=True)))


def _send(port: int, picture: bytes) -> bytes:
    operations = [{"op": "resize", "width": WIDTH}, {"op": "encode", "quality": QUALITY}]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    query = urlencode({"operations": json.dumps(operations)})
    connection.request("POST", f"/images/process?{query}", picture, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"camdock answered {response.status}: {body[:200]!r}")
    return body


def _timed(work: Callable[[], object], count: int, cpu_s: Callable[[], float]) -> tuple[float, float]:
    """(CPU ms, wall ms) of one of `count`, eight of them at a time."""
    before, began = cpu_s(), time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(work) for _ in range(count)]:
            done.result()
    return (cpu_s() - before) / count * 1e3, (time.perf_counter() - began) / count * 1e3


def beside_opencv(rounds: int) -> Result:
    """Medians of so many rounds in turns, and the rate of a stream meanwhile. Raises RuntimeError."""
    picture = photograph()
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    stamps: list[float] = []
    over = threading.Event()
    with Running(CAMDOCK, SMALL, frames_for(SMALL)) as running:

        def look() -> None:
            with Viewer(running.port, "/stream?width=320", 10, {}) as viewer:
                for one in itertools.takewhile(lambda _: not over.is_set(), viewer):
                    stamps.append(one.arrived)

        _send(running.port, picture)  # its process is there
        looking = threading.Thread(target=look)
        looking.start()
        try:
            for _ in range(rounds):
                theirs.append(_timed(lambda: bare(picture), 2 * AT_ONCE, time.process_time))
                del stamps[:]
                ours.append(_timed(lambda: _send(running.port, picture), 2 * AT_ONCE, lambda: _tree_cpu_s(running.pid)))
                rate = (len(stamps) - 1) / (stamps[-1] - stamps[0]) if len(stamps) > 1 else 0.0
        finally:
            over.set()
            looking.join()
    medians = [statistics.median(column) for rows in (ours, theirs) for column in zip(*rows, strict=True)]
    return dict(zip(("cpu_ms", "wall_ms", "bare_cpu_ms", "bare_wall_ms"), medians, strict=True)) | {"fps_beside": rate}


def markdown(result: Result) -> str:
    """One paragraph and one table, with the ratios."""
    cpu, wall = result["cpu_ms"] / result["bare_cpu_ms"], result["wall_ms"] / result["bare_wall_ms"]
    return (
        f"### {SIZE[0]}x{SIZE[1]} JPEG, decoded, {WIDTH} wide, encoded; {AT_ONCE} at once\n\n"
        "| | CPU ms a picture | ms a picture |\n| --- | --- | --- |\n"
        f"| Camdock, with a stream and its rendition | {result['cpu_ms']:.1f} | {result['wall_ms']:.1f} |\n"
        f"| the bare calls of OpenCV, all cores | {result['bare_cpu_ms']:.1f} | {result['bare_wall_ms']:.1f} |\n"
        f"| ratio | {cpu:.2f} | {wall:.2f} |\n\n"
        f"A 320 wide rendition of a 30 fps camera meanwhile: {result['fps_beside']:.1f} fps.\n"
    )
