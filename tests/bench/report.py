"""The figures as Markdown tables and as JSON.

Runs in: the bench's process.
"""

from collections.abc import Iterable
from typing import Any

from tests.bench.load import Result
from tests.bench.sections import SLOW_BYTES_PER_S, Pace, Row
from tests.tools.frames import SETS

Machine = dict[str, Any]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value < 0 else f"{value:.{digits}f}"


def _pair(result: Result, first: str, second: str, digits: int = 1) -> str:
    return f"{_number(result.get(first), digits)} / {_number(result.get(second), digits)}"


def _ratio(result: Result, other: Result, key: str) -> str:
    mine, theirs = result.get(key, -1), other.get(key, -1)
    return f"{mine / theirs:.2f}" if mine > 0 and theirs > 0 else "-"


def _table(head: list[str], lines: Iterable[list[str]], padded: bool) -> str:
    rows = [head, ["---"] * len(head), *lines]
    if padded:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _fan_out_cells(result: Result, peer: Result) -> list[str]:
    return [
        _number(result.get("cpu_ms_per_frame"), 4),
        _ratio(result, peer, "cpu_ms_per_frame"),
        f"{_number(result.get('fps_per_client'), 1)} ({_number(result.get('fps_min'), 1)})",
        _pair(result, "lat_p50_ms", "lat_p99_ms"),
        _pair(result, "first_p50_ms", "first_p99_ms", 0),
        _number(result.get("srv_cpu_pct"), 1),
        _number(result.get("rss_mb"), 0),
    ]


def _slow_cells(result: Result, peer: Result) -> list[str]:
    return [
        _number(result.get("slow_age_p50_ms"), 0),
        _number(result.get("slow_age_max_ms"), 0),
        _number(result.get("slow_interval_p50_ms"), 0),
        _number(result.get("slow_age_frames"), 1),
        _ratio(result, peer, "slow_age_p50_ms"),
        f"{_number(result.get('fps_per_client'), 1)} ({_number(result.get('fps_min'), 1)})",
    ]


def _health_cells(result: Result, peer: Result) -> list[str]:
    return [
        _pair(result, "get_p50_ms", "get_p99_ms", 2),
        _number(result.get("get_errors"), 0),
        _number(result.get("fps_per_client"), 1),
        _number(result.get("cpu_ms_per_frame"), 4),
    ]


def _rendition_cells(result: Result, peer: Result) -> list[str]:
    return [
        _number(result.get("srv_cpu_pct"), 1),
        _number(result.get("cpu_ms_per_frame"), 4),
        f"{_number(result.get('fps_per_client'), 1)} ({_number(result.get('fps_min'), 1)})",
        f"{_number(result.get('made'), 0)} of {_number(result.get('frames_of_camera'), 0)}",
    ]


FAN_OUT_HEAD = ["CPU ms/frame", "of ustreamer's", "fps (min)", "latency p50 / p99 ms", "first frame p50 / p99 ms",
                "server CPU %", "RSS MB"]  # fmt: skip
HEADS = {
    "fanout": FAN_OUT_HEAD,
    "large": FAN_OUT_HEAD,
    "many": FAN_OUT_HEAD,
    "slow": ["age p50 ms", "age max ms", "its frame time ms", "age in its frame times", "of ustreamer's",
             "fps of the others (min)"],
    "health": ["GET p50 / p99 ms", "errors", "fps", "CPU ms/frame"],
    "rendition": ["server CPU %", "CPU ms/frame", "fps (min)", "made of the camera's frames"],
    "yuyv": ["first byte p50 / p99 ms", "less encoding p50 ms", "fps", "KB"],
}  # fmt: skip
CELLS = {"fanout": _fan_out_cells, "large": _fan_out_cells, "many": _fan_out_cells, "slow": _slow_cells,
         "health": _health_cells, "rendition": _rendition_cells}  # fmt: skip
SIZED = {
    f"{width}x{height}": f"{width}x{height}, {size // 1000} KB per frame" for (width, height), size in SETS.items()
}


def _heading(row: Row) -> str:
    sized = SIZED[row.task.size_text]
    return {
        "slow": f"A viewer that reads {SLOW_BYTES_PER_S // 1000} KB/s, {row.viewers - 1} others beside it ({sized})",
        "health": f"Another request while {row.viewers} watch ({sized})",
        "rendition": f"640x360 {'from' if row.task.size_text != '640x360' else 'as it comes from'} a camera that gives "
        f"{sized}: {row.viewers} viewer{'s' if row.viewers > 1 else ''}",
        "yuyv": f"The camera sends YUYV {row.task.size_text}: from capture to a viewer's first byte",
    }.get(row.section, f"{sized}, {row.viewers} viewer{'s' if row.viewers > 1 else ''}")


def _row_markdown(row: Row, encoding: Result, padded: bool) -> str:
    peer = row.medians("ustreamer")
    lines = []
    for server in row.servers:
        result = row.medians(server.name)
        if not result:
            if server.name in row.errors:
                lines.append([server.title, "failed", *[""] * (len(HEADS[row.section]) - 1)])
            continue
        if row.section == "yuyv":
            extra = result["lat_p50_ms"] - encoding["p50_ms"] if encoding else None
            cells = [_pair(result, "lat_p50_ms", "lat_p99_ms"), _number(extra, 1),
                     _number(result["fps_per_client"], 1), _number(result["jpeg_kb"], 0)]  # fmt: skip
        else:
            cells = CELLS[row.section](result, peer)
        lines.append([server.title, *cells])
    if row.section == "yuyv" and encoding:
        lines.append(["encoding alone", _pair(encoding, "p50_ms", "p99_ms"), "0", "", ""])
    return f"### {_heading(row)}\n\n" + _table(["server", *HEADS[row.section]], lines, padded)


def markdown(machine: Machine, pace: Pace, rows: list[Row], encoding: Result, *, padded: bool) -> str:
    """All tables, under a sentence that says on what they were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['system']}; {versions}. "
        f"Loopback, 30 fps source, medians of {pace.windows} windows of {pace.window_s:g} s each, servers in turns; "
        "compare columns, not machines."
    )
    return (
        "\n\n".join([head, *(_row_markdown(row, encoding, padded) for row in rows if row.windows or row.errors)]) + "\n"
    )


def as_json(machine: Machine, pace: Pace, rows: list[Row], encoding: Result, skipped: dict[str, str]) -> Machine:
    """Everything that was measured, the single windows too."""
    measured = [
        {
            "section": row.section,
            "title": row.title,
            "size": row.task.size_text,
            "format": row.task.format,
            "viewers": row.viewers,
            "median": {name: row.medians(name) for name in row.windows},
            "windows": row.windows,
            "errors": row.errors,
        }
        for row in rows
    ]
    timing = {"windows": pace.windows, "window_s": pace.window_s, "warm_s": pace.warm_s}
    return {"machine": machine, "pace": timing, "encode_alone": encoding, "skipped": skipped, "rows": measured}
