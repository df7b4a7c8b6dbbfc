"""`python -m tests.bench`: Camdock and its peers on one camera, in one run. Wants a quiet machine.

Runs in: a process of its own, which has no other threads; servers and viewers are processes below it.
"""

import argparse
import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.bench import encode, machine, pictures, report
from tests.bench.sections import AND_THE_FLOOR, RAW, SECTIONS, Pace, Progress, Row, rows
from tests.bench.servers import USTREAMER_ONE_WORKER
from tests.tools import build

SERVERS = (*AND_THE_FLOOR, USTREAMER_ONE_WORKER)


def _names(known: tuple[str, ...]) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        given = frozenset(filter(None, text.split(",")))
        if unknown := given - frozenset(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
        return given

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    servers = tuple(server.name for server in SERVERS)
    parser.add_argument("--short", action="store_true", help="under a minute, for CI: fails only if frames do not come")
    parser.add_argument("--only", type=_names(SECTIONS), default=frozenset(SECTIONS), help=",".join(SECTIONS))
    parser.add_argument("--servers", type=_names(servers), default=frozenset(servers), help=",".join(servers))
    parser.add_argument("--windows", type=int, help="windows of each row and server; the medians are shown")
    parser.add_argument("--seconds", type=float, help="length of a window")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", action="store_true", help="tables for pasting: no padding")
    return parser.parse_args()


def _end(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: the `with` blocks end their servers."""
    raise KeyboardInterrupt


def _nonsense(measured: list[Row]) -> list[str]:
    """What cannot be: a server that failed, or gave no frames."""
    found = [f"{row.key}: {name}: {error.splitlines()[0]}" for row in measured for name, error in row.errors.items()]
    for row in measured:
        for name in row.windows:
            if row.medians(name)["frames"] < 1:
                found.append(f"{row.key}: {name} delivered no frames")
    return found


def main() -> int:
    """Measure, print, save; 1 if something was nonsense, 2 if nothing could run."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand viewers, and servers inherit it
    usual = Pace(1, 2.0, 1.0) if given.short else Pace()
    pace = Pace(given.windows or usual.windows, given.seconds or usual.window_s, usual.warm_s)
    try:
        build.ensure("fakev4l2")
        build.ensure("loadclient")
    except build.ToolMissing as error:
        print(f"tests.bench: {error}", file=sys.stderr)
        return 2
    skipped = {
        server.name: reason for server in SERVERS if server.name in given.servers and (reason := server.missing())
    }
    for name, reason in skipped.items():
        print(f"{name}: skipped, {reason}", file=sys.stderr)
    chosen = given.servers - skipped.keys()
    planned = rows(given.only, given.short)
    facts = machine.facts()
    if facts["cores"] == 1 or float(str(facts["load_before"])) > 0.5:
        print(f"not a quiet machine: load {facts['load_before']:.2f}, {facts['cores']} cores", file=sys.stderr)
    measured: list[Row] = []
    encoding: dict[str, object] = {}
    sent: dict[str, object] = {}
    interrupted = False
    progress = Progress(sum(len(row.turns(pace, chosen)) for row in planned))
    try:
        for row in planned:
            measured.append(row)
            row.measure(pace, chosen, progress)
            if row.section == "yuyv":
                encoding = encode.alone(RAW)
        if "pictures" in given.only and "camdock" in chosen:
            sent = pictures.beside_opencv(1 if given.short else 5)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: what follows is incomplete", file=sys.stderr)
    if given.json:
        everything = report.as_json(facts, pace, measured, encoding, skipped)
        given.json.write_text(json.dumps(everything | {"pictures": sent}, indent=1) + "\n")
    print(report.markdown(facts, pace, measured, encoding, padded=not given.markdown), end="")
    if sent:
        print("\n" + pictures.markdown(sent), end="")
    if interrupted:
        return 130
    wrong = _nonsense(measured)
    if sent and float(str(sent["cpu_ms"])) > pictures.MOST_RATIO * float(str(sent["bare_cpu_ms"])):
        wrong.append(f"pictures: more than {pictures.MOST_RATIO} times the processor time of the bare calls")
    for line in wrong:
        print(f"tests.bench: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
