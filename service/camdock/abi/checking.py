"""`camdock abi check`: its arguments, its exit status, and where its report goes.

Runs in: a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator

from camdock.abi.allowed import Allowed, ListInvalid, read_allowed
from camdock.abi.check import Report, check
from camdock.abi.numpys import NumPyUnknown, numpy_release
from camdock.abi.report import WIDTH, Unread, as_json, as_junit, as_sarif, as_table, printable
from camdock.abi.targets import TargetUnreadable

CLEAN, FOUND, UNREADABLE = 0, 1, 2
_FORMATS = ("table", "json", "sarif", "junit")

_EPILOG = """\
a target is
  nothing                        the environment that this runs in
  .venv                          a virtual environment
  /srv/rootfs                    an unpacked root file system, with every Python and environment in it
  lib/                           any folder: what lies in it, judged by the NumPy in it
  cv2.whl  cv2.abi3.so           a wheel, a shared object: these want --numpy
  image.tar  python:3.13-slim    a Docker image: what `docker save` made, or a name that docker knows

verdicts
  breaks           refuses to be imported
  breaks-on-use    can be imported, and refuses (or crashes) when it is first used
  hazard           works, and reads NumPy's arrays wrongly without a message
  unknown          cannot be decided, for the reason given; never said lightly, never instead of ok
  ok               works

exit status
  0  nothing found
  1  a module that breaks, at import or on use; a second NumPy on the path, or one copied over another;
     with --strict also hazard and unknown
  2  a target could not be read; modules use NumPy's C-API and there is no NumPy to judge by; nothing has any of the
     names given with --only; or the arguments make no sense

a list for --allow (TOML; what it names is shown as accepted, and not counted; a reason is required)
  [[allow]]
  package = "soxr"               also: file = "soxr/*.so"
  rule = "unchecked"
  reason = "only gets lists, never arrays"

examples
  camdock abi check
  camdock abi check .venv --numpy 2.3.5
  camdock abi check dist/*.whl --numpy 2.2.0 --strict --allow abi.toml
  camdock abi check /srv/rootfs --sarif --output abi.sarif
  camdock abi check --only cv2 --only simplejpeg --json | jq .modules
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make `check` known to `camdock abi`."""
    parser = subparsers.add_parser(
        "check",
        help="judge every compiled module of an environment, a folder, a wheel, an image",
        description="Judge every compiled module of a target by the NumPy it would meet there. Nothing is imported.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="*", metavar="TARGET", help="what to judge; several are judged one by one")
    parser.add_argument("--numpy", metavar="X.Y.Z", help="judge by this NumPy instead of the target's own")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only what is imported by this name (repeatable)"
    )
    parser.add_argument("--strict", action="store_true", help="hazard and unknown count as well")
    parser.add_argument("--allow", metavar="FILE", help="a list of what is accepted, with a reason each")
    parser.add_argument("--all", action="store_true", help="list what is ok as well (the other formats always do)")
    parser.add_argument("--format", choices=_FORMATS, default="table", help="of the report (default: table)")
    for name in _FORMATS[1:]:
        parser.add_argument(f"--{name}", dest="format", action="store_const", const=name, help=f"--format {name}")
    parser.add_argument("--output", metavar="FILE", help="where the report goes (default, and -: standard output)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Judge, report, and say how it went: 0, 1 or 2."""
    try:
        allowed = read_allowed(given.allow) if given.allow else Allowed()
        if given.numpy is not None:
            numpy_release(given.numpy)
    except (ListInvalid, NumPyUnknown) as error:
        return _complain(str(error))
    results: list[Report | Unread] = []
    status = CLEAN
    for target in given.target or [None]:
        try:
            with _progress(target) as progress:
                results.append(check(target, given.numpy, given.only, progress))
        except TargetUnreadable as error:
            results.append(Unread(target or "the running environment", str(error)))
            status = _complain(str(error))
    reports = [one for one in results if isinstance(one, Report)]
    if (reports or len(results) > 1) and not _write(_rendered(results, allowed, given), given.output):
        return UNREADABLE
    if not reports:
        return status
    status = max(status, _not_judged(reports, given.only, allowed))
    counted = [_count(report, given.strict, allowed) for report in reports]
    status = status or (FOUND if any(counted) else CLEAN)
    for entry in allowed.unused():
        _say(f"{given.allow} allows {entry} ({entry.reason}), and there is no such thing: take it off the list")
    return status


def _not_judged(reports: list[Report], only: list[str], allowed: Allowed) -> int:
    """Say what nobody can have meant: no NumPy to judge by, names that nothing has. UNREADABLE where that is all."""
    status = CLEAN
    for report in reports:
        waiting = [one for one in report.modules if one.rule == "numpy-unknown" and not allowed.module(one)]
        if report.numpy is None and waiting:
            many = f"{len(waiting)} modules that use" if len(waiting) > 1 else "a module that uses"
            status = _complain(f"{report.target} has {many} NumPy's C-API, and no NumPy: name one with --numpy")
        if report.absent:
            _say(f"nothing in {report.target} is imported as {' or '.join(report.absent)}")
        elif only and not report.modules:
            _say(f"{report.target} has no compiled module that is imported as {' or '.join(only)}")
    if only and all(set(report.absent) == set(only) for report in reports):
        return UNREADABLE
    return status


def _count(report: Report, strict: bool, allowed: Allowed) -> int:
    """How many modules and findings make the exit status 1."""
    bad = {"breaks", "breaks-on-use"} | ({"hazard", "unknown"} if strict else set())
    wrong = [one for one in report.modules if one.verdict != "ok" and not allowed.module(one) and one.verdict in bad]
    found = [one for one in report.findings if not allowed.finding(one) and not one.is_note]
    return len(wrong) + len(found)


def _rendered(results: list[Report | Unread], allowed: Allowed, given: argparse.Namespace) -> str:
    if given.format == "json":
        return as_json(results, allowed)
    if given.format == "sarif":
        return as_sarif(results, allowed)
    if given.format == "junit":
        return as_junit(results, allowed)
    to_terminal = given.output in (None, "-") and sys.stdout.isatty()
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, 120) if to_terminal else WIDTH
    colour = to_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return as_table(results, allowed, everything=given.all, colour=colour, width=width)


def _write(text: str, output: str | None) -> bool:
    """To standard output, or to a file: to a plain one whole and at once, never half a report."""
    if output in (None, "-"):
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        return True
    assert output is not None
    text = text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"
    try:
        if _is_replaced(output):
            _replace(os.path.realpath(output), text)
        else:
            with open(output, "a", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        _complain(f"{output} cannot be written: {error.strerror}")
        return False
    return True


def _is_replaced(output: str) -> bool:
    """Is it a plain file, or nothing yet? A pipe, a device and what is open already (/dev/stdout) are written to."""
    if os.path.abspath(output).startswith(("/dev/", "/proc/")):
        return False
    try:
        return stat.S_ISREG(os.stat(output).st_mode)
    except FileNotFoundError:  # also a link to nothing, which then leads to the report
        return True


def _replace(path: str, text: str) -> None:
    """Write a file under another name and rename it. Raises OSError."""
    folder = os.path.dirname(path)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".camdock-abi-", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _progress(target: str | None) -> Iterator[Callable[[int, str], None] | None]:
    """A line on the terminal that says how far it is, gone when it is done."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(count: int, path: str) -> None:
        if count % 16 == 0:
            line = f"{count} files read: {printable(path)}"
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    try:
        if target is not None:
            sys.stderr.write(f"\r\x1b[Kopening {printable(target)}")
            sys.stderr.flush()
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _complain(message: str) -> int:
    _say(message)
    return UNREADABLE


def _say(message: str) -> None:
    print(f"camdock abi: {printable(message)}", file=sys.stderr)
