"""The command line: `camdock` runs the service, `camdock abi` judges compiled modules, `camdock seal` keeps the answer,
`camdock devices` prints what a container needs for this machine's cameras, `camdock doctor` says what is wrong here.

Runs in: the API process, or one of its own. `python -m camdock` is the same. Imports no part before it is asked for:
the base install has no service, `camdock abi` must work where the service's libraries are broken, and `camdock devices`
where nothing is installed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

import camdock

EXIT_NOT_INSTALLED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status. 2 where the service's libraries are not installed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["abi"]:
        from camdock.abi.__main__ import main as abi

        return abi(given[1:])
    if given[:1] == ["devices"]:
        from camdock.devices import main as devices

        return devices(given[1:])
    if given[:1] == ["doctor"]:
        if sys.version_info < (3, 11):  # noqa: UP036 - a clone may lie on any machine
            print("camdock doctor: needs Python 3.11 or newer: `make setup` says how to have one", file=sys.stderr)
            return EXIT_NOT_INSTALLED
        from camdock.doctor.command import main as doctor

        return doctor(given[1:])
    if given == ["--version"]:
        print(f"camdock {camdock.__version__}")
        return 0
    try:
        if given[:1] == ["seal"]:
            from camdock.seal import main as seal

            return seal(given[1:])
        gc.disable()  # nothing of what is imported goes away again; serve.py switches it on when all is there
        from camdock.serve import main as serve

        return serve(given)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "camdock":
            raise
        print(
            f"camdock: the camera service needs {error.name}, which is not installed: "
            "pip install 'camdock[service]' (camdock abi works without it: camdock abi --help)",
            file=sys.stderr,
        )
        return EXIT_NOT_INSTALLED


if __name__ == "__main__":
    sys.exit(main())
