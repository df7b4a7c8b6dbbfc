"""What the modules of this role know of dpkg and apt: what is installed, what apt would do, doing it, the undo list.

Runs in: a module's process on the managed host, as root. Standard library only; texts of apt in English (LC_ALL=C).
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
import struct
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

DPKG = "/var/lib/dpkg"
LOCKS = (f"{DPKG}/lock-frontend", f"{DPKG}/lock")
# No question may wait for an answer, and nobody's service is restarted because a library was looked at.
ENVIRONMENT = {
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",
    "APT_LISTCHANGES_FRONTEND": "none",
}
# A host may be set to remove what nobody needs any more, and the camera's stack could be among that.
OPTIONS = (
    "-o", "APT::Install-Recommends=false",  # to remove something must bring in nothing
    "-o", "APT::Get::AutomaticRemove=false", "-o", "APT::Get::Purge=false", "-o", "Dpkg::Use-Pty=0",
)  # fmt: skip

_UNIT, _RECORD = "\x1f", "\x1e"
_FIELDS = (
    "${Package}", "${Architecture}", "${Version}", "${db:Status-Want}", "${db:Status-Status}", "${Provides}",
    "${Pre-Depends}", "${Depends}",
)  # fmt: skip
_GONE = ("config-files", "not-installed")
_WHOLE = ("installed", *_GONE, "triggers-pending", "triggers-awaited")


class Trouble(Exception):
    """Something a person has to mend. The message says what is wrong, with which thing, and what to do."""

    @property
    def sentence(self) -> str:
        """The message, ended by one full stop."""
        return f"{str(self).rstrip('.')}."


@dataclass(frozen=True)
class Package:
    """A package as dpkg knows it.

    name      "python3-numpy"; of a foreign architecture "libc6:i386"
    state     dpkg's word: "installed", "config-files", "half-configured", ...
    held      somebody asked for it to stay as it is (apt-mark hold)
    provides  names that it stands for as well
    needs     what it depends on: each an "or" of names
    """

    name: str
    version: str
    state: str = "installed"
    held: bool = False
    provides: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()

    @property
    def bare(self) -> str:
        """The name without an architecture."""
        return self.name.partition(":")[0]


# ------------------------------------------------------------------------------------------------ asking dpkg and apt


def packages() -> dict[str, Package]:
    """Every package that dpkg knows anything of, by its name."""
    native = _run(["dpkg", "--print-architecture"]).strip()
    text = _run(["dpkg-query", "--show", f"--showformat={_UNIT.join(_FIELDS)}{_RECORD}"])
    found = (_package(record, native) for record in text.split(_RECORD) if record.strip())
    return {one.name: one for one in found}


def _package(record: str, native: str) -> Package:
    name, architecture, version, want, state, provides, before, needs = record.split(_UNIT)
    foreign = f":{architecture}" if architecture not in (native, "all", "") else ""
    clauses = [*names_needed(before), *names_needed(needs)]
    provided = tuple(one for clause in names_needed(provides) for one in clause)
    return Package(name + foreign, version, state, want == "hold", provided, tuple(clauses))


def names_needed(relation: str) -> list[tuple[str, ...]]:
    """The names in a Depends or Provides line: "a (>= 1), b:any | c" is [("a",), ("b", "c")]."""
    clauses = []
    for clause in relation.split(","):
        names = tuple(match[0] for one in clause.split("|") if (match := re.match(r"[^\s:(\[<]+", one.strip())))
        if names:
            clauses.append(names)
    return clauses


def automatic() -> set[str]:
    """The installed packages that apt took as a dependency, and would remove again when nobody needs them."""
    return set(_run(["apt-mark", "showauto"]).split())


def available(names: Collection[str], options: Sequence[str] = ()) -> dict[str, set[str]]:
    """The versions of packages that apt can fetch, by name; none for a name that no source has."""
    found: dict[str, set[str]] = {name: set() for name in names}
    if not names:
        return found
    for line in _run(["apt-cache", *options, "madison", *names]).splitlines():
        name, _, rest = line.partition("|")
        version, _, source = rest.partition("|")
        if name.strip() in found and not source.strip().endswith("Sources"):
            found[name.strip()].add(version.strip())
    return found


def incomplete(known: Mapping[str, Package]) -> set[str]:
    """The packages that an interrupted dpkg has left half-way."""
    half = {one.name for one in known.values() if one.state not in _WHOLE}
    try:
        journal = [name for name in os.listdir(f"{DPKG}/updates") if name.isdigit()]
    except FileNotFoundError:
        journal = []
    for name in journal:
        with open(f"{DPKG}/updates/{name}", encoding="utf-8", errors="replace") as file:
            half.update(re.findall(r"^Package: (\S+)$", file.read(), re.MULTILINE))
    return half


def simulated(words: Sequence[str], options: Sequence[str] = ()) -> tuple[set[str], dict[str, str]]:
    """What apt would do: the names it would remove, and the names it would install or change with their versions.

    Needs no lock and changes nothing. Raises Trouble where apt finds no way.
    """
    done = _ended(["apt-get", "--simulate", *OPTIONS, *options, *words])
    if done.returncode != 0:
        raise Trouble(
            f"apt-get cannot say what `{' '.join(words)}` would do: {complaint(done.stdout)}. "
            "Mend that first (`dpkg --configure -a`, `apt-get --fix-broken install`), then run this again"
        )
    return read_simulation(done.stdout)


def would_go(names: Collection[str]) -> tuple[set[str], dict[str, str]]:
    """The same for a removal of these packages and of all that goes with them.

    apt does not read dpkg's journal: after an interrupted removal it may count packages that are gone already.
    Raises Trouble where apt finds no way.
    """
    going, coming = simulated(["remove", *sorted(names)])
    if going - {*names}:
        # That a package goes too, apt finds out after a look for another way, and what that way would have installed
        # stays on its list (openssh-client, for the h5py that wants MPI). With all of them named it looks for none,
        # and they are named when they are removed.
        going, coming = simulated(["remove", *sorted(going | {*names})])
    return going, coming


def read_simulation(text: str) -> tuple[set[str], dict[str, str]]:
    """The same from apt-get's own lines: "Remv NAME [VERSION]", "Inst NAME [OLD] (NEW ...)"."""
    going = set(re.findall(r"^(?:Remv|Purg) (\S+)", text, re.MULTILINE))
    coming = re.findall(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+)", text, re.MULTILINE)
    return going, dict(coming)


def complaint(text: str) -> str:
    """What apt or dpkg complains of in a log; its last lines where nothing there is marked as a complaint."""
    said = [line[3:].strip() for line in text.splitlines() if line.startswith("E: ")]
    said += [line.strip() for line in text.splitlines() if line.startswith("dpkg: error")]
    return " / ".join(dict.fromkeys(said)) or " / ".join(text.strip().splitlines()[-3:]) or "no word of a reason"


# ---------------------------------------------------------------------------------------------------------- doing it


def wait_for_lock(timeout_s: float) -> None:
    """Wait until no other program holds dpkg's locks. Raises Trouble that names the one that still does."""
    deadline = time.monotonic() + timeout_s
    while (holder := _lock_holder()) is not None:
        if time.monotonic() >= deadline:
            raise Trouble(
                f"another program is installing packages: {holder} has held dpkg's lock for {timeout_s:g} s. "
                "Nothing was changed. Let it finish (or end it), then run this again; purge_lock_timeout_s is the wait"
            )
        time.sleep(0.5)  # the kernel tells nobody when a lock that was only asked about becomes free


def _lock_holder() -> str | None:
    """Who holds one of dpkg's locks, in words; None when they are free."""
    kind = "hhqqi4x"  # struct flock: type, whence, start, len, pid
    for path in LOCKS:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            asked = struct.pack(kind, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            taken, _, _, _, pid = struct.unpack(kind, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        finally:
            os.close(descriptor)
        if taken != fcntl.F_UNLCK:
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                    return f"{file.read().strip()} (process {pid})"
            except OSError:
                return f"process {pid}"
    return None


def mark(kind: str, names: Iterable[str]) -> None:
    """Mark packages "auto" or "manual"."""
    if wanted := sorted(names):
        _run(["apt-mark", kind, *wanted])


def act(words: Sequence[str], lock_timeout_s: float) -> str:
    """Let apt-get or dpkg change the system; returns what it said. Raises Trouble where it fails.

    It has a session of its own and writes to a file: when the play or its connection dies, it still comes to its end,
    and the next run waits for its lock. A pipe would break under it, in the middle of a package.
    """
    program, *rest = words
    if program == "apt-get":
        rest = ["--yes", *OPTIONS, "-o", f"DPkg::Lock::Timeout={lock_timeout_s:g}", *rest]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        done = subprocess.run(
            [program, *rest], check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT}, start_new_session=True,
        )  # fmt: skip
        log.seek(0)
        said = log.read()
    if done.returncode != 0:
        raise Trouble(
            f"`{' '.join(words)}` failed: {complaint(said)}. What was done so far is in the undo list; mend what it "
            "complains of, then run this again"
        )
    return said


def _ended(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip


def _run(words: Sequence[str]) -> str:
    done = _ended(words)
    if done.returncode != 0:
        raise Trouble(f"`{' '.join(words)}` failed: {complaint(done.stdout)}")
    return done.stdout


# ----------------------------------------------------------------------------------------------------- the undo list


@dataclass(frozen=True)
class Removed:
    """A package that was removed, as it was: `mark` is "auto" or "manual"."""

    name: str
    version: str
    mark: str


@dataclass(frozen=True)
class Undo:
    """What it takes to put everything back.

    packages  what was removed
    kept      names of what was marked manual, and had been automatic
    """

    packages: tuple[Removed, ...] = ()
    kept: tuple[str, ...] = ()

    def with_more(self, packages: Collection[Removed], kept: Collection[str]) -> Undo:
        """This and more. Nothing is forgotten; of a package that was there again meanwhile the later state counts."""
        known = {one.name: one for one in self.packages} | {one.name: one for one in packages}
        return Undo(tuple(sorted(known.values(), key=lambda one: one.name)), tuple(sorted({*self.kept, *kept})))

    def text(self) -> str:
        """What stands in the file."""
        return json.dumps({"format": 1, **asdict(self)}, indent=2) + "\n"


def read_undo(path: str) -> Undo:
    """The undo list in a file; an empty one where there is none. Raises Trouble where it cannot be understood."""
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
        if said["format"] != 1:
            raise ValueError(f"its format is {said['format']!r}, which only a later release understands")
        removed = tuple(Removed(one["name"], one["version"], one["mark"]) for one in said["packages"])
        return Undo(removed, tuple(map(str, said["kept"])))
    except FileNotFoundError:
        return Undo()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise Trouble(
            f"{path}, the list of what was removed from this host, cannot be read ({reason}). "
            "It is the only one, so nothing was changed: mend it, or move it away if nothing is to be put back"
        ) from error


def read_text(path: str) -> str:
    """A file's text; "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    """Write a file whole or not at all, on the disk when this returns; anybody may read it. Raises Trouble."""
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, 0o755, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".camdock-", delete=False, encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        _sync(folder)
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}") from error


def remove(path: str) -> None:
    """Remove a file, if it is there, and let the disk know."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    _sync(os.path.dirname(path))


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ----------------------------------------------------------------------------------------------- what would go, and why


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    going  what is to be removed, in the order of the names
    keep   what is installed and must stay, and is automatic now: to be marked manual
    taken  names of `going` that are not on the list, but allowed
    """

    going: tuple[Removed, ...] = ()
    keep: tuple[str, ...] = ()
    taken: tuple[str, ...] = field(default=())


def listed_here(known: Mapping[str, Package], listed: Collection[str]) -> list[str]:
    """The names of those packages of the list that are installed, wholly or half. Raises Trouble for one on hold."""
    here = sorted(one.name for one in known.values() if one.bare in listed and one.state not in _GONE)
    _refuse_held(known, here)
    return here


def _refuse_held(known: Mapping[str, Package], names: Iterable[str]) -> None:
    """Raises Trouble for what is on hold. A simulation takes it all the same; apt, told to ask nobody, then fails."""
    if held := sorted(name for name in names if name in known and known[name].held):
        raise Trouble(
            f"{', '.join(held)}: on hold, so somebody wants to keep it as it is. Nothing was changed. "
            f"If it may go: apt-mark unhold {' '.join(held)}"
        )


def planned(
    known: Mapping[str, Package],
    auto: Collection[str],
    going: Collection[str],
    coming: Mapping[str, str],
    listed: Collection[str],
    keep: Collection[str],
    allowed: Collection[str],
) -> Plan:
    """What apt's simulation amounts to. Raises Trouble where anything would go, or come, that may not.

    going, coming  from the simulation
    listed         names that are to go
    keep           patterns of names that never go, allowed or not
    allowed        further names that may go
    """
    if not going:
        return Plan()
    outside = sorted(name for name in going if _bare(name) not in listed)
    stay = [name for name in outside if _matches(name, keep)]
    refused = [name for name in outside if name not in stay and _bare(name) not in allowed]
    if stay or refused:
        raise Trouble(_refusal(known, going, listed, stay, refused))
    _refuse_held(known, outside)
    if coming:
        names = ", ".join(f"{name} {version}" for name, version in sorted(coming.items()))
        raise Trouble(
            f"Nothing was changed: to remove {', '.join(sorted(going))}, apt would install or change {names}. "
            "Do that by hand if it is wanted (`apt-get remove` with the same names), then run this again"
        )
    removed = tuple(
        Removed(name, known[name].version, "auto" if name in auto else "manual")
        for name in sorted(going)
        if name in known and known[name].state not in _GONE
    )
    kept = tuple(
        sorted(
            name
            for name, one in known.items()
            if one.state == "installed" and _matches(name, keep) and name in auto and name not in going
        )
    )
    return Plan(removed, kept, tuple(outside))


def _refusal(
    known: Mapping[str, Package],
    going: Collection[str],
    listed: Collection[str],
    stay: Sequence[str],
    refused: Sequence[str],
) -> str:
    lines = ["Nothing was changed: with the listed packages apt would take others."]
    for name in [*stay, *refused]:
        version = f" {known[name].version}" if name in known else ""
        lines.append(f"{name}{version}: {why(known, name, going, listed)}.")
    if stay:
        lines.append(f"{', '.join(stay)} is what a camera needs and never goes, allowed or not.")
    if refused:
        lines.append(
            f"If they may go: purge_also_allow: [{', '.join(map(_bare, refused))}]. "
            "If not, leave this host's packages alone: --skip-tags purge."
        )
    return " ".join(lines)


def why(known: Mapping[str, Package], name: str, going: Collection[str], listed: Collection[str]) -> str:
    """Why apt would take a package, in words: the shortest way from it to one of the list, among those that go.

    "it depends on python3-numpy", or "it depends on a, which depends on python3-numpy".
    """
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    for way in ways:  # grows behind itself: breadth first
        for needed in _missed(known, way[-1], going):
            if _bare(needed) in listed:
                return "it depends on " + ", which depends on ".join((*way[1:], needed))
            if needed not in seen:
                seen.add(needed)
                ways.append((*way, needed))
    return "apt found no way to keep it, though it depends on none of them; `apt-get --simulate remove` says more"


def _missed(known: Mapping[str, Package], name: str, going: Collection[str]) -> list[str]:
    """What a package depends on and nothing that stays can stand for; names of packages that go."""
    missed: list[str] = []
    for clause in known[name].needs if name in known else ():
        standing = [one for one in known.values() if one.state == "installed" and {one.bare, *one.provides} & {*clause}]
        if standing and all(one.name in going for one in standing):
            missed += sorted(one.name for one in standing)
    return missed


def _bare(name: str) -> str:
    return name.partition(":")[0]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(_bare(name), pattern) for pattern in patterns)
