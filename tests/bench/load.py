"""One window of viewers on one running server, as `loadclient` measures it.

Runs in: the bench's process; the viewers are a process of their own.
"""

import json
import subprocess
from typing import Any

from tests.bench.servers import Running
from tests.tools import build

Result = dict[str, Any]


def viewers(
    running: Running,
    count: int,
    *,
    warm_s: float,
    window_s: float,
    slow: int = 0,
    slow_bytes_per_s: int = 0,
    other_request: bool = False,
    path: str = "/stream",
) -> Result:
    """What loadclient printed: see the end of `loadclient.c` for the keys.

    count            viewers, the slow ones among them
    other_request    also GET the server's small page every 20 ms
    raises           RuntimeError if the client failed
    """
    command = [
        str(build.ensure("loadclient")), "-u", f"{running.address}{path}", "-n", str(count),
        "-w", str(warm_s), "-t", str(window_s), "-p", str(running.pid), "-L", running.server.name,
    ]  # fmt: skip
    if slow:
        command += ["-s", str(slow), "-r", str(slow_bytes_per_s)]
    if other_request:
        command += ["-g", running.server.small_path]
    limit = 30 + warm_s + window_s + count / 100
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the viewers of {running.server.name} did not come to an end") from None
    if done.returncode != 0:
        raise RuntimeError(f"the viewers of {running.server.name} failed: {done.stderr.strip()}\n{running.log_end()}")
    result: Result = json.loads(done.stdout)
    return result
