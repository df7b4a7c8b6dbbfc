"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import camdock_release
from camdock_release.disk import full
from camdock_release.errors import ENDING, Failed, Interrupted, Refused, say
from camdock_release.prune import prune
from camdock_release.store import Store
from camdock_release.switch import CONFIRMED, NOT_CONFIRMED, USAGE, Asked, Outcome, Switcher
from camdock_release.unit import Systemd

EPILOG = """\
exit status:
  0  done: confirmed; for recover and prune also: nothing to do
  1  not so: the release was put back, or does not serve; nothing was changed; what `gate` asks for is not there
  2  usage, an unknown or unfinished release, or another camdock-release is at work

A switch that is started like this goes on when the one who started it is gone, and is put back when it is killed:
  systemd-run --unit=camdock-switch --collect --wait --pipe --quiet \\
    --property=ExecStopPost='/opt/camdock/bin/camdock-release recover --quiet' \\
    /opt/camdock/bin/camdock-release switch ID --json

what is where, below --root:
  releases/ID/   release.json, camdock.env, camdock.service, compose.yaml, build -> ../../builds/ID
  builds/ID/     native: venv/; in any case `complete`, written last: a build without it is removed by prune
  current        -> releases/ID, what runs
  switch.json    a switch that is not confirmed yet      history.json    confirmed releases, the newest last

release.json: id, build, mode (native or container), version, created (Unix seconds), port, cameras (names), gate, and,
where CAMDOCK_HOST in camdock.env is not the address on this host (in a container), address.
"""


def status(store: Store) -> dict[str, Any]:
    """What there is."""
    confirmed = store.confirmed_ids()
    return {
        "current": store.current_id(),
        "previous": store.previous_id(),
        "unconfirmed": store.unconfirmed(),
        "releases": [
            {
                "id": one.id, "created": one.created, "mode": one.mode, "version": one.version, "build": one.build,
                "confirmed": one.id in confirmed,
            }
            for one in store.all()
        ],
    }  # fmt: skip


def status_text(told: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"current: {told['current'] or 'none'}", f"previous: {told['previous'] or 'none'}"]
    if journal := told["unconfirmed"]:
        lines.append(f"NOT CONFIRMED: the switch from {journal['from'] or 'nothing'} to {journal['to']}")
    for one in told["releases"]:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["created"]))
        lines.append(
            f"  {one['id']}  {one['version']}  {one['mode']}  {made}"
            + ("" if one["confirmed"] else "  never confirmed")
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camdock-release",
        description=camdock_release.__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, default=Path("/opt/camdock"), help="where the releases are; %(default)s")
    common.add_argument("--token-file", type=Path, default=Path("/etc/camdock/token"), help="%(default)s")
    common.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    common.add_argument("--quiet", action="store_true", help="nothing on stdout")
    look = argparse.ArgumentParser(add_help=False)
    look.add_argument("--appear", type=_seconds, default=8.0, help="seconds to wait for pictures that move; 8")
    look.add_argument("--watch", type=_seconds, default=30.0, help="seconds to watch them then; 30")
    look.add_argument(
        "--gate", choices=("pictures", "live", "off"),
        help="pictures: of every camera; live: that the service answers; off: that it runs; else what the release says",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("status", parents=[common], help="what there is, what runs, what is not confirmed")
    switch = verbs.add_parser(
        "switch", parents=[common, look], help="go to a release; put the one before back when it gives no pictures"
    )
    switch.add_argument("id", metavar="ID", help="a folder of releases/")
    verbs.add_parser("rollback", parents=[common, look], help="go to the release before the current one")
    recover = verbs.add_parser("recover", parents=[common], help="put back a switch that was never confirmed")
    recover.add_argument("--boot", action="store_true", help="before the service is started: do not wait for it")
    verbs.add_parser("gate", parents=[common, look], help="only look: does the current release give pictures?")
    pruned = verbs.add_parser("prune", parents=[common], help="remove old releases, and builds that nothing needs")
    pruned.add_argument("--keep", type=int, default=3, help="so many releases stay; current and previous always; 3")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("seconds, from 0 to 3600")
    return value


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}")


def _run(given: argparse.Namespace) -> tuple[int, Any, str]:
    """The exit status, the result as JSON, and in words."""
    store, systemd = Store(given.root), Systemd(given.root)
    switcher = Switcher(store, systemd, given.token_file)
    if given.verb == "status":
        told = status(store)
        return CONFIRMED, told, status_text(told)
    asked = Asked(given.appear, given.watch, given.gate) if "appear" in given else Asked()
    if given.verb == "gate":
        try:
            warnings = switcher.gate(asked)
        except Failed as error:
            return NOT_CONFIRMED, {"outcome": "failed", "reason": str(error), "warnings": []}, str(error)
        words = "\n".join(["passed", *(f"warning: {one}" for one in warnings)])
        return CONFIRMED, {"outcome": "passed", "reason": "", "warnings": warnings}, words
    with store.locked():
        if given.verb == "prune":
            removed = prune(store, given.keep)
            lines = [f"{kind} removed: {', '.join(names) or 'none'}" for kind, names in removed.items()]
            return CONFIRMED, removed, "\n".join(lines)
        actions: dict[str, Callable[[], Outcome]] = {
            "switch": lambda: switcher.switch(given.id, asked),
            "rollback": lambda: switcher.rollback(asked),
            "recover": lambda: switcher.recover(is_boot=given.boot),
        }
        outcome = actions[given.verb]()
    result = outcome.status
    if given.verb == "recover" and outcome.outcome in ("put_back", "stopped"):
        result = CONFIRMED
    return result, dict(vars(outcome)), str(outcome)


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; returns the exit status."""
    given = _parser().parse_args(arguments)
    for number in ENDING:
        signal.signal(number, _interrupt)
    try:
        result, told, words = _run(given)
    except Refused as error:
        say(str(error))
        result, told, words = USAGE, {"outcome": "refused", "reason": str(error)}, ""
    except Interrupted as error:
        say(f"{error}; nothing was changed")
        result, told, words = NOT_CONFIRMED, {"outcome": "refused", "reason": str(error)}, ""
    except OSError as error:
        say(full(error, given.root))
        result, told, words = NOT_CONFIRMED, {"outcome": "refused", "reason": full(error, given.root)}, ""
    text = json.dumps(told) if given.json else words
    if text and not given.quiet:
        with contextlib.suppress(OSError):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    with contextlib.suppress(OSError):  # whoever read it may be gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return result
