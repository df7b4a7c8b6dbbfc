"""From capture to the first byte at a viewer when the server has to encode, beside the time that encoding takes alone.

Runs in: the bench's process. The camera writes down when each frame was captured (FAKEV4L2_CLOCK) and draws the frame's
number into the picture; the number is read from the JPEG that arrived. Both clocks are this machine's monotonic one.
"""

import mmap
import socket
import statistics
import struct
import time

import cv2
import numpy as np
import simplejpeg

from tests.bench.load import Result
from tests.bench.servers import Running, Task, frames_for
from tests.tools import frames

CLOCK_SLOTS = 4096
QUALITY = 80


def _length(head: bytes) -> int | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return None


def _pictures(connection: socket.socket, until: float) -> list[tuple[int, bytes]]:
    """(monotonic ns of the first byte, JPEG) of every whole picture until then."""
    seen: list[tuple[int, bytes]] = []
    pending = b""
    arrived = 0
    need: int | None = None
    while time.monotonic() < until:
        received = connection.recv(1 << 18)
        now = time.monotonic_ns()
        if not received:
            break
        pending += received
        while True:
            if need is None:
                head, empty_line, rest = pending.partition(b"\r\n\r\n")
                if not empty_line:
                    break
                if _length(head) is None:  # the response's own head
                    pending = rest
                    continue
                if not rest:  # the head came alone: the picture's first byte is still under way
                    break
                need, pending, arrived = _length(head), rest, now
            assert need is not None
            if len(pending) < need:
                break
            seen.append((arrived, pending[:need]))
            pending, need = pending[need:], None
    return seen


def first_byte(running: Running, *, warm_s: float, window_s: float) -> Result:
    """Latencies of one viewer of a server whose camera sends raw pictures, in ms.

    raises  RuntimeError if nothing came
    """
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(f"GET /stream HTTP/1.1\r\nHost: {running.address}\r\n\r\n".encode())
        begun = time.monotonic()
        try:
            pictures = _pictures(connection, begun + warm_s + window_s)
        except TimeoutError:
            pictures = []
    with running.clock.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as clock:
        table = clock[:]
    latencies: list[float] = []
    numbers: list[int] = []
    for arrived, jpeg in pictures:
        if arrived < (begun + warm_s) * 1e9:
            continue
        number = frames.read_number(jpeg)
        slot = number % CLOCK_SLOTS * 16
        if slot + 16 > len(table):
            continue  # a placeholder, not a picture of the camera
        seq, captured = struct.unpack_from("<QQ", table, slot)
        if seq == number:
            latencies.append((arrived - captured) / 1e6)
            numbers.append(number)
    if not latencies:
        raise RuntimeError(f"{running.server.name} sent no picture of the camera\n{running.log_end()}")
    ordered = sorted(latencies)
    return {
        "label": running.server.name,
        "frames": len(ordered),
        "fps_per_client": len(set(numbers)) / window_s,
        "lat_p50_ms": statistics.median(ordered),
        "lat_p99_ms": ordered[int(0.99 * (len(ordered) - 1))],
        "jpeg_kb": statistics.mean(len(jpeg) for _, jpeg in pictures) / 1000,
    }


def alone(task: Task, rounds: int = 60) -> Result:
    """Time from a YUYV picture in memory to its JPEG, in ms: nothing else than the encoder, nobody else running."""
    width, height = task.size
    file = sorted((frames_for(task) / task.size_text).glob("*.ppm"))[0]
    picture = cv2.imread(str(file))
    assert picture is not None
    ycrcb = cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)
    yuyv = np.empty((height, width, 2), np.uint8)
    yuyv[..., 0] = ycrcb[..., 0]
    yuyv[:, 0::2, 1] = ycrcb[:, 0::2, 2]
    yuyv[:, 1::2, 1] = ycrcb[:, 0::2, 1]
    times: list[float] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        y = np.ascontiguousarray(yuyv[..., 0])
        u = np.ascontiguousarray(yuyv[:, 0::2, 1])
        v = np.ascontiguousarray(yuyv[:, 1::2, 1])
        simplejpeg.encode_jpeg_yuv_planes(y, u, v, QUALITY, fastdct=True)
        times.append((time.perf_counter() - begun) * 1e3)
        time.sleep(1 / task.fps - 0.005)  # at the camera's pace: a core that never rests is a faster one
    return {"label": "encode", "p50_ms": statistics.median(times), "p99_ms": sorted(times)[int(0.99 * (rounds - 1))]}
