"""Hostile input, made by a fuzzer that watches which code each input reaches: ELF files, wheels, images, records, logs.

    python -m tests.abi.fuzz --seconds 60 [--only NAME]

Every input ends in a verdict or in a clear error, within 5 s and 300 MB, and nothing is written outside of the
temporary folder, started or connected to. What breaks that is kept in ~/.cache/camdock/fuzz ($CAMDOCK_TEST_CACHE/fuzz)
beside the inputs that reached something new; a test in test_hostile.py keeps it from coming back.

Where atheris has no wheel (it has for x86-64 only) the same inputs are made by chance alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from tests.abi import mutations

GUIDED = importlib.util.find_spec("atheris") is not None
NAMES = ("elf", "wheel", "image", "folder", "explain")
WEIGHTS = {"elf": 4, "wheel": 2, "image": 2, "folder": 3, "explain": 1}
LONGEST_S = 5
MOST_MB = 240  # more than at the start: 300 with Python itself
KEPT = Path(os.environ.get("CAMDOCK_TEST_CACHE") or Path.home() / ".cache" / "camdock") / "fuzz"
FIELDS = {"elf": mutations.elf_fields, "wheel": mutations.zip_fields, "image": mutations.tar_fields}
_STARTED = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "socket.connect", "ctypes.dlopen")
_CHANGING = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.truncate")


class Broken(Exception):
    """What an input must never do, and this one did."""


class Watch:
    """Sees what the process does to the machine, and how much memory it takes."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.seen: list[str] = []
        self._least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _STARTED:
            self.seen.append(f"{event} {arguments!r}")
        elif event in _CHANGING or (event == "open" and self._writes(arguments)):
            path = arguments[0]
            if isinstance(path, int):
                return
            name = os.fsdecode(path)  # type: ignore[arg-type]
            inside = os.path.realpath(name).startswith(self.scratch + "/")
            relative = not os.path.isabs(name)
            if not inside and not (relative and event in ("os.remove", "os.rmdir")):  # rmtree goes by descriptors
                self.seen.append(f"{event} {arguments!r}")

    @staticmethod
    def _writes(arguments: tuple[object, ...]) -> bool:
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    def judge(self) -> None:
        if self.seen:
            raise Broken(f"reached outside: {self.seen}")
        most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._least) >> 10
        if most > MOST_MB:
            raise Broken(f"took {most} MB")


# ------------------------------------------------------------------------------------------------- the harnesses


def harness(name: str, scratch: str) -> Callable[[bytes], None]:
    """The function that takes one input. What it uses is imported here, where a fuzzer can watch it."""
    from camdock.abi import facts, report, rules
    from camdock.abi.check import Report, check, judge_target
    from camdock.abi.explain import explain
    from camdock.abi.layout import plain_folder, root_system, virtual_environment
    from camdock.abi.numpys import numpy_release
    from camdock.abi.targets import Target, TargetUnreadable
    from camdock.abi.tree import ListedTree

    numpys = [numpy_release(version) for version in ("1.19.5", "1.26.4", "2.2.0", "2.4.6")]
    verdicts = ("ok", "breaks", "breaks-on-use", "hazard", "unknown")
    modules = seeds("elf")
    known = Report("t", "2.2.0", [])

    def judged(found: Report) -> None:
        for module in found.modules:
            if module.verdict not in verdicts or module.rule not in rules.RULES:
                raise Broken(f"no verdict: {module}")
        json.loads(report.as_json([found]))
        report.as_table([found], everything=True, colour=False, width=100)
        if len(found.modules) % 4 == 3:  # they take longer than the reading
            report.as_sarif([found])
            ElementTree.fromstring(report.as_junit([found]))

    def elf(data: bytes) -> None:
        with contextlib.suppress(facts.Unreadable):
            read = facts.read_facts(data)
            if read is not None:
                for numpy in numpys:
                    if rules.judge(read, [read], numpy).verdict not in verdicts:
                        raise Broken("no verdict")

    def file(data: bytes, suffix: str) -> None:
        path = Path(scratch, f"in{suffix}")
        path.write_bytes(data)
        with contextlib.suppress(TargetUnreadable):
            judged(check(str(path), "2.2.0"))
        if os.listdir(scratch) != [path.name]:
            raise Broken(f"left behind: {os.listdir(scratch)}")

    def folder(data: bytes) -> None:
        tree = MemoryTree("t")
        for record in data.split(b"\x1e"):
            head, _, content = record.partition(b"\n")
            path, _, target = head.decode("utf-8", "surrogateescape").partition(" -> ")
            path = "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
            if content[:1] == b"@" and content[1:2].isdigit():
                content = modules[int(content[1:2]) % len(modules)]
            if path:
                tree.add(path, "link" if target else "file", target)
                tree.contents[path] = content
        with contextlib.suppress(TargetUnreadable):
            virtual = virtual_environment(tree, "venv", "/venv/bin/python")
            for environments in (root_system(tree), plain_folder(tree), [virtual] if virtual else []):
                judged(judge_target(Target("t", tree, environments)))

    class MemoryTree(ListedTree):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.contents: dict[str, bytes] = {}

        @contextlib.contextmanager
        def load(self, real: str) -> Iterator[bytes]:
            if real not in self.contents:
                raise facts.Unreadable("is not there")
            yield self.contents[real]

    def text(data: bytes) -> None:
        for explanation in explain(data.decode("utf-8", "replace"), known):
            if not explanation.why or len(explanation.message) > 1000:
                raise Broken(f"explains nothing: {explanation}")

    return {
        "elf": elf,
        "wheel": lambda data: file(data, ".whl"),
        "image": lambda data: file(data, ".tar"),
        "folder": folder,
        "explain": text,
    }[name]


def seeds(name: str) -> list[bytes]:
    from tests.abi import examples

    return examples.SEEDS[name]()


def mutated(name: str, data: bytes, seed: int) -> bytes:
    if name in FIELDS and seed % 4:
        return mutations.changed(data, seed, FIELDS[name])
    return mutations.repeated(data, seed)


# ---------------------------------------------------------------------------------------------------- running one


def inside(name: str, seconds: float) -> None:
    """Fuzz with one harness, in a process of its own."""
    corpus = KEPT / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    findings = KEPT / name / "findings"
    findings.mkdir(exist_ok=True)
    own = seeds(name)  # made before anything is watched: it takes a compiler
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder, "watched")
        scratch = Path(folder, "scratch")
        watched.mkdir()
        scratch.mkdir()
        for number, seed in enumerate(own):
            (corpus / f"seed{number}").write_bytes(seed)
        os.chdir(watched)
        tempfile.tempdir = str(scratch)
        if GUIDED:
            guided(name, str(scratch), corpus, findings, seconds)
        else:
            by_chance(name, str(scratch), [path.read_bytes() for path in corpus.iterdir()], findings, seconds)


def guided(name: str, scratch: str, corpus: Path, findings: Path, seconds: float) -> None:
    import atheris

    with atheris.instrument_imports(include=["camdock.abi", "elftools"]):
        take = harness(name, scratch)
    watch = Watch(os.path.realpath(scratch))

    def one(data: bytes) -> None:
        take(data)
        watch.judge()

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        if seed % 3 == 0:
            return bytes(atheris.Mutate(data, most))
        return mutated(name, data, seed // 3)[:most]

    options = [f"-max_total_time={int(seconds)}", f"-timeout={LONGEST_S}", "-rss_limit_mb=2048", "-print_final_stats=1"]
    options += ["-max_len=65536", "-len_control=0", f"-artifact_prefix={findings}/", "-verbosity=1", str(corpus)]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutator)
    atheris.Fuzz()


def by_chance(name: str, scratch: str, inputs: list[bytes], findings: Path, seconds: float) -> None:
    take = harness(name, scratch)
    watch = Watch(os.path.realpath(scratch))
    chance = random.Random()
    ends = time.monotonic() + seconds
    count = 0
    while time.monotonic() < ends:
        data = chance.choice(inputs)
        for _ in range(chance.randrange(1, 4)):
            data = mutated(name, data, chance.getrandbits(32))
        count += 1
        kept = findings / "running"
        kept.write_bytes(data)  # whatever kills this process is found there
        watch.seen.clear()
        signal.alarm(LONGEST_S)
        take(data)
        signal.alarm(0)
        watch.judge()
        kept.unlink()
    print(f"#{count} DONE", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------- the command


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the reading of compiled modules and what they come in.")
    parser.add_argument("--seconds", type=float, default=60, help="of all harnesses together (default: 60)")
    parser.add_argument("--only", choices=NAMES, help="one harness")
    parser.add_argument("--inside", choices=NAMES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        inside(given.inside, given.seconds)
        return 0
    names = [given.only] if given.only else list(NAMES)
    whole = sum(WEIGHTS[name] for name in names)
    failed = False
    for name in names:
        share = given.seconds * WEIGHTS[name] / whole
        command = [sys.executable, "-m", "tests.abi.fuzz", "--inside", name, "--seconds", str(share)]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=share + 120)
        runs = re.findall(r"^#(\d+)\s+DONE(?:\s+cov: (\d+))?", done.stderr, re.MULTILINE)
        count, edges = runs[-1] if runs else ("?", "")
        reached = f", {edges} edges" if edges else ""
        print(f"{name:8} {count} inputs in {time.monotonic() - began:.0f} s{reached}", flush=True)
        if done.returncode:
            failed = True
            print(f"{name} FAILED; its input is the newest in {KEPT / name / 'findings'}\n{done.stderr[-6000:]}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
