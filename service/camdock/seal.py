"""`camdock seal`: have every compiled library judged once, and keep with the environment that all of it fits.

Runs in: a process of its own, where an image or a release is built. Imports nothing of what is judged.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence

from camdock.gate import CHECK
from camdock.installed import Seal
from camdock.pixels import LOADS
from camdock.source import KINDS

EXIT_CANNOT_KEEP = 2
_EPILOG = """The service then starts its cameras without reading those libraries again: in this environment, and in an
image that it is packed into. A file counts by its size and by the second in which its content last changed; whatever is
installed, removed or edited later breaks the seal, and the service judges for itself, as it does without one.

exit status
  0  sealed
  1  something breaks, or cannot be judged; any older seal is removed
  2  the seal cannot be written
"""


def main(arguments: Sequence[str]) -> int:
    """Judge and seal; returns the exit status: 1 when a library does not fit, 2 when the seal cannot be written."""
    parser = argparse.ArgumentParser(
        prog="camdock seal",
        description="Judge all compiled libraries that a camera may load, and keep the answer with this environment.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="judge every compiled file of the environment, used or not")
    given = parser.parse_args(arguments)
    names = {name for loads in (*(kind.loads for kind in KINDS.values()), *LOADS.values()) for name in loads}
    try:
        Seal.path().unlink(missing_ok=True)
        # Before the check: a change while it reads breaks the seal.
        seal = Seal.of(names, importlib.metadata.version("numpy"))
        check = [word for word in CHECK if word != "--json"]
        only = [] if given.all else [word for name in sorted(names) for word in ("--only", name)]
        judged = subprocess.run([*check, "--strict", *only], check=False)
        if judged.returncode != 0:
            print("camdock seal: not sealed, for the reason above", file=sys.stderr)
            return 1
        seal.write()
    except importlib.metadata.PackageNotFoundError:
        print("camdock seal: not sealed: NumPy is not installed here", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"camdock seal: not sealed: {error}", file=sys.stderr)
        return EXIT_CANNOT_KEEP
    print(f"Sealed: {Seal.path()}")
    return 0
