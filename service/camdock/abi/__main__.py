"""The command line of the ABI tool: `camdock abi`, or `python -m camdock.abi`.

Runs in: a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from camdock import __version__
from camdock.abi import checking

# Modules that have a command: each defines add_parser(subparsers), which sets `run` to a function from the parsed
# arguments to the exit status. Only the one that is asked for is imported, unless help needs them all.
COMMANDS = {
    "check": "camdock.abi.checking",
    "explain": "camdock.abi.explain",
    "plan": "camdock.abi.plan",
    "upgrade": "camdock.abi.upgrade",
}

_EPILOG = """\
exit status: 0 clean, 1 something was found, 2 something could not be read or judged (each command's --help says more)

examples:
  camdock abi check                              the Python environment that this runs in
  camdock abi check .venv --numpy 2.2.0          would it still work with that NumPy?
  camdock abi check cv2.whl --numpy 2.2.0        a wheel that nobody has installed yet
  python app.py 2>&1 | camdock abi explain       what that traceback means, and what to type
"""


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camdock abi",
        description="Knows which compiled Python modules break with a NumPy, without importing or running any of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"camdock abi {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        if command in COMMANDS and command != name:
            continue
        if module == checking.__name__:
            checking.add_parser(subparsers)
        elif find_spec(module) is not None:
            importlib.import_module(module).add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 clean, 1 findings, 2 could not read (also: wrong arguments)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _parser(words[0] if words else None).parse_args(words)
    # Terminated, it still removes its temporary folder.
    with contextlib.suppress(ValueError):  # not in the main thread: then it is not ours to decide
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        status: int = given.run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk behind standard output
        print(f"camdock abi: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return checking.UNREADABLE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
