"""Frames of Python tracebacks in a text, and the compiled module that their last import was about. Text in, names out.

Runs in: any process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

LAST_FRAMES = 40  # of one traceback: the import that failed is among its last

# `File "/venv/lib/python3.11/site-packages/cv2/__init__.py", line 181, in bootstrap`, anywhere in a line; faulthandler
# leaves the comma out; IPython writes `File ~/venv/…/cv2/__init__.py:181`.
FRAME = re.compile(r'File "([^"\n]{1,1000})", line \d{1,9}(?:,? in ([^\n]{1,300}))?')
IPYTHON_FRAME = re.compile(r"File (~?[^\s\"<>:]{1,1000}\.pyx?):\d{1,9}\b")
FROM_IMPORT = re.compile(r"\bfrom\s{1,8}([.\w]{1,200})\s{1,8}import\s{1,8}\(?\s{0,8}(\w{1,100}|\*)?")
IMPORT = re.compile(r"\bimport\s{1,8}([A-Za-z_][.\w]{0,200})")
IMPORT_MODULE = re.compile(r"\bimport_module\(\s{0,8}[\"']([.\w]{1,200})[\"']")
SITE = re.compile(
    r"^(?:(.{0,1000})/lib(?:64|32)?/python(?:3(?:\.\d{1,3})?)?|.{0,1000})/(site|dist)-packages/(.{1,1000})$"
)
COMPILED = re.compile(r"^([\w.]{1,200}?)(?:\.cpython-[\w.-]{1,100}|\.abi3)?\.(?:so|pyd|pyx|pxd|pyi?)$")


@dataclass(slots=True)
class Frame:
    """One line of a traceback and the code below it: where, in which function, what it was about to do."""

    path: str
    function: str
    code: str = ""


@dataclass(slots=True)
class Traceback:
    """Frames as printed; `newest_first`: faulthandler's order."""

    newest_first: bool = False
    frames: list[Frame] = field(default_factory=list)

    def add(self, frame: Frame) -> None:
        if self.newest_first and len(self.frames) >= LAST_FRAMES:
            return
        self.frames.append(frame)
        del self.frames[:-LAST_FRAMES]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an installed file lies: the environment's folder ("" where the path does not tell), whose it is, its name.

    module  the dotted name of the file: "cv2" for cv2/__init__.py
    """

    prefix: str
    debian: bool
    module: str


@dataclass(frozen=True, slots=True)
class Culprit:
    """What a traceback was importing when it failed.

    names   dotted names, the likeliest first; empty when it does not say
    prefix  the environment it lies in, "/opt/app/venv"; "" where the text does not tell
    debian  its file is in the system's dist-packages: apt's
    """

    names: tuple[str, ...] = ()
    prefix: str = ""
    debian: bool = False

    @property
    def name(self) -> str:
        return self.names[0] if self.names else ""


def frame_of(line: str) -> Frame | None:
    """The frame that a line of a traceback names; None when it names none."""
    if found := FRAME.search(line):
        return Frame(found[1].replace("\\", "/"), (found[2] or "").strip())
    if found := IPYTHON_FRAME.search(line):
        return Frame(found[1], "")
    return None


def imports(line: str) -> bool:
    """Whether a line of code is about to import something."""
    return "import" in line and any(pattern.search(line) for pattern in (FROM_IMPORT, IMPORT, IMPORT_MODULE))


def place_of(path: str) -> Place | None:
    """Where an installed file lies; None for a file outside of site-packages and dist-packages."""
    found = SITE.match(path)
    if found is None:
        return None
    prefix = found[1] or ""
    *folders, name = found[3].split("/")
    plain = COMPILED.match(name)
    parts = [*folders, plain[1] if plain else name]
    if parts[-1] == "__init__":
        parts.pop()
    debian = found[2] == "dist" and prefix == "/usr"
    return Place("" if debian else prefix, debian, ".".join(parts))


def culprit_of(traceback: Traceback) -> Culprit:
    """The module that the deepest import of a traceback was about. Frames of Python's and NumPy's own do not count."""
    frames: Sequence[Frame] = traceback.frames if traceback.newest_first else traceback.frames[::-1]
    names: tuple[str, ...] = ()
    prefix, debian = "", None
    numpy_itself = False
    for frame in frames:
        place = place_of(frame.path)
        top = place.module.split(".")[0] if place else ""
        if not names:
            names = _named(frame, place)
            if top == "numpy" or names[:1] == ("numpy",):
                numpy_itself, names = True, ()
        if place is not None and (not names or top == names[0].split(".")[0]):
            debian = place.debian if debian is None else debian
        if place is not None and place.prefix and not prefix:
            prefix = place.prefix
    if not names and numpy_itself:
        names = ("numpy",)
    return Culprit(names, prefix, bool(debian))


def _named(frame: Frame, place: Place | None) -> tuple[str, ...]:
    if frame.function.startswith("init ") and re.fullmatch(r"[\w.]{1,200}", frame.function[5:]):
        return (frame.function[5:],)  # Cython: `File "simplejpeg/_jpeg.pyx", line 1, in init simplejpeg._jpeg`
    if frame.path.endswith(".pyx"):
        return (frame.path.removesuffix(".pyx").strip("/").replace("/", "."),)
    if place is None and ("importlib" in frame.path or re.search(r"/lib(64)?/python3[\d.]*/", frame.path)):
        return ()
    package = ""
    if place is not None:
        package = place.module if frame.path.endswith("/__init__.py") else place.module.rpartition(".")[0]
    if found := FROM_IMPORT.search(frame.code):
        return _from(found[1], found[2] or "", package)
    if (found := IMPORT_MODULE.search(frame.code)) and not found[1].startswith("."):
        return (found[1],)
    if found := IMPORT.search(frame.code):
        return (found[1],)
    return (place.module,) if place is not None else ()


def _from(module: str, name: str, package: str) -> tuple[str, ...]:
    """`from MODULE import NAME` in a file of that package: the name may be a module of its own, or something in it."""
    dots = len(module) - len(module.lstrip("."))
    rest = module[dots:]
    if dots:
        parts = package.split(".")
        parents = parts[: len(parts) - (dots - 1)]
        base = ".".join([part for part in [*parents, rest] if part])
    else:
        base = rest
    if not base:
        return ()
    inner = f"{base}.{name}" if name and name != "*" else base
    return (inner, base) if dots and not rest else (base, inner)
