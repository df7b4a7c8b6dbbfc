"""Stops an image's build unless what is installed is what was pinned, and fits NumPy: by reading it, then by importing.

Runs in: the last steps of an image's build, as the environment's own Python. Ends with status 1 and the explanation, or
prints one line.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

CONSTRAINTS = Path("/opt/camdock/constraints.txt")
# What is imported for real, by the name of its pin. Where picamera2 is pinned: what its own import needs. picamera2
# itself wants the Pi's display library (pykms), which only the process of its camera stands in for.
IMPORTED = {
    "opencv-python-headless": "cv2",
    "simplejpeg": "simplejpeg",
    "pillow": "PIL.Image",
    "av": "av",
    "libarchive-c": "libarchive",
    "pidng": "pidng.core",
    "python-prctl": "prctl",
    "v4l2-python3": "v4l2",
    "videodev2": "videodev2",
    "openexr": "OpenEXR",
}
# What an image with picamera2 has from Debian and from nobody else; lend.sh links it.
BINDING = "libcamera"
DEBIAN = Path("/usr/lib/python3/dist-packages")
OWN = "camdock"


def canonical(name: str) -> str:
    """A project's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> dict[str, str]:
    """Version by name, from a constraints file."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", text, re.MULTILINE)
    return {canonical(name): version for name, version in lines}


def not_as_pinned(pins: dict[str, str]) -> list[str]:
    """What is installed here in another version than pinned, or without a pin. pip came with the environment."""
    wrong = []
    for one in importlib.metadata.distributions():
        name = canonical(one.metadata["Name"])
        if name in (OWN, "pip"):
            continue
        if name not in pins:
            wrong.append(f"{name} {one.version} is installed and has no pin")
        elif one.version != pins[name]:
            wrong.append(f"{name} {one.version} is installed, pinned is {pins[name]}")
    return sorted(wrong)


def wrongly_loaded(pins: dict[str, str]) -> list[str]:
    """What the imports themselves show: NumPy's version and file, and every compiled module beside it."""
    wrong = []
    warnings.simplefilter("error")
    numpy = importlib.import_module("numpy")
    if numpy.__version__ != pins["numpy"]:
        wrong.append(f"numpy says it is {numpy.__version__}, pinned is {pins['numpy']}")
    if not Path(numpy.__file__).is_relative_to(sys.prefix):
        wrong.append(f"numpy comes from {numpy.__file__}, not from {sys.prefix}")
    for project, name in IMPORTED.items():
        if project in pins:
            module = importlib.import_module(name)
            if not Path(module.__file__ or "").resolve().is_relative_to(sys.prefix):
                wrong.append(f"{name} comes from {module.__file__}, not from {sys.prefix}")
    return wrong


def wrongly_lent(pins: dict[str, str]) -> list[str]:
    """What this environment sees of Debian's packages beyond libcamera's binding, and whether that one loads."""
    wrong = [f"everything in {place} can be imported" for place in sys.path if place.endswith("dist-packages")]
    packages = Path(sysconfig.get_path("purelib"))
    links = {link.name: link.resolve() for link in packages.iterdir() if link.is_symlink()}
    due = {BINDING: DEBIAN / BINDING} if "picamera2" in pins else {}
    if links != due:
        wrong.append(f"{packages} lends {links or 'nothing'}, not {due or 'nothing'}")
    elif due:
        importlib.import_module(BINDING)
    return wrong


def not_loading() -> list[str]:
    """Every compiled file that the system's loader refuses, in its words: cut off, or without a library it needs."""
    wrong = []
    for file in sorted(Path(sysconfig.get_path("platlib")).rglob("*.so*")):
        try:
            ctypes.CDLL(str(file))
        except OSError as error:
            wrong.append(str(error))
    return wrong


def main() -> int:
    """Prove it; returns the exit status."""
    pins = pinned(CONSTRAINTS.read_text())
    # What breaks is explained by the reading, so it comes before anything that breaks when it is imported.
    # The seal keeps the answer, so that a start need not read those files again.
    judged = subprocess.run([sys.executable, "-P", "-m", "camdock", "seal", "--all"], check=False)
    wrong = not_as_pinned(pins)
    if judged.returncode == 0 and not wrong:
        try:
            wrong = wrongly_loaded(pins) + wrongly_lent(pins)
        except ImportError as error:
            wrong = [str(error)]
        wrong += not_loading()
    for line in wrong:
        print(f"not as it should be: {line}", file=sys.stderr)
    if wrong or judged.returncode:
        print("This image is not built: what is in it would not work, for the reason above.", file=sys.stderr)
        return 1
    print(f"Proved: NumPy {pins['numpy']} and everything that was compiled for it, by reading and by importing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
