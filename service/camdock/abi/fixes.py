"""What to type to mend a verdict: data about packages, and a command for each rule.

Runs in: any process.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

from packaging.version import InvalidVersion, Version

from camdock.abi.numpys import NumPyUnknown, numpy_release
from camdock.abi.owners import Owner

# The first release of each package whose wheels are built with the headers of NumPy 2, so that they load on 1.x and
# 2.x alike. Each line was read from that release's wheel and the one before it, which carries the headers of 1.x.
# None: no release was ever built for NumPy 2.
FIRST_FOR_2: dict[str, str | None] = {
    "astropy": "6.1.0",
    "blis": "1.0.0",
    "blosc2": "2.6.0",
    "bottleneck": "1.4.0",
    "cftime": "1.6.4",
    "fast-histogram": "0.14",
    "fpzip": "1.2.4",
    "gensim": "4.4.0",
    "h5py": "3.11.0",
    "hdbscan": "0.8.38.post1",
    "matplotlib": "3.8.4",
    "ml-dtypes": "0.4.0",
    "netcdf4": "1.7.1.post1",
    "numba": "0.60.0",
    "numcodecs": "0.13.0",
    "numexpr": "2.10.0",
    "onnxruntime": "1.19.0",
    "opencv-contrib-python": "4.10.0.84",
    "opencv-contrib-python-headless": "4.10.0.84",
    "opencv-python": "4.10.0.84",
    "opencv-python-headless": "4.10.0.84",
    "pandas": "2.2.2",
    "pyarrow": "16.0.0",
    "pyerfa": "2.0.1.3",
    "pyfftw": "0.14.0",
    "pykdtree": "1.3.12",
    "pywavelets": "1.6.0",
    "rasterio": "1.3.10",
    "rawpy": "0.22.0",
    "scikit-image": "0.23.1",
    "scikit-learn": "1.4.2",
    "scipy": "1.13.0",
    "shapely": "2.0.4",
    "simplejpeg": "1.7.4",
    "soxr": "0.4.0",
    "spacy": "3.8.2",
    "statsmodels": "0.14.2",
    "tables": "3.10.0",
    "tflite-runtime": None,  # 2.14.0, its last: ai-edge-litert goes on from there
}

# Names that a rule of python3-NAME gives wrongly: Debian's and the one it has on PyPI.
DPKG_TO_PIP = {
    "python3-opencv": "opencv-python-headless",
    "python3-h5py-serial": "h5py",
    "python3-h5py-mpi": "h5py",
    "python3-sklearn-lib": "scikit-learn",
    "python3-skimage-lib": "scikit-image",
    "python3-pandas-lib": "pandas",
    "python3-tables-lib": "tables",
    "python3-pywt": "pywavelets",
    "python3-pil": "pillow",
    "python3-pygame-sdl2": "pygame",
    "python3-gdal": "gdal",
}

# Packages whose import name is another: the owner of a file that only a traceback names.
IMPORT_TO_PIP = {
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "pywt": "pywavelets",
    "PIL": "pillow",
    "netCDF4": "netcdf4",
    "tflite_runtime": "tflite-runtime",
    "fast_histogram": "fast-histogram",
    "soxr_ext": "soxr",
}

_HOLDS = "'numpy<2'"
_ALL_ON_1 = "everything else must then load on 1.x too"
_WANTS_2 = ("built-for-1", "type-size", "unchecked")


def fix_for(rule: str, owner: Owner | None, numpy: str | None, needs: str, python: str) -> str:
    """The command that mends a module; "" when there is nothing to mend, or no command that would.

    rule    a key of rules.RULES
    owner   who owns the module; None where nobody does
    numpy   the NumPy it was judged by, "2.2.0"; None where there is none
    needs   the oldest NumPy it loads on, "1.23"; "" where it does not say
    python  the interpreter that the command is for: a path, or "python"
    returns one line for a shell; what else it asks for is a comment behind it
    """
    major = _major(numpy)
    if numpy is not None and not _is_version(numpy):
        numpy = None  # a file's own words
    if owner is not None and not owner.is_named:
        return ""
    if rule == "mixed-numpy":
        return _pip(python, "--force-reinstall", "--no-deps", f"numpy=={numpy}" if numpy else "numpy")
    if rule == "unreadable":
        return _again(owner, python)
    if rule == "numpy-too-old" or (rule == "type-size" and major == 1):
        return _newer_numpy(owner, major, needs, python)
    if rule in _WANTS_2:
        return _newer_package(owner, numpy, major, python)
    return ""


def newer(owner: Owner, python: str) -> str:
    """The command that fetches the newest release of a package for an interpreter; "" where its name is none."""
    return _by_name(owner, python, "--upgrade")


def alternative_for(rule: str, numpy: str | None, python: str, fix: str = "") -> str:
    """Another way to mend it, in words; "" where there is none. Same words as fix_for.

    fix  the command that it is the other way to, whose interpreter it takes then
    """
    if rule not in _WANTS_2 or _major(numpy) == 1 or _HOLDS in fix:
        return ""
    before, pip, _ = fix.partition(" -m pip ")
    hold = f"{before}{pip}install {_HOLDS}" if pip else _pip(python, "numpy<2")
    return f"hold NumPy instead: {hold} ({_ALL_ON_1}: check again)"


def pip_name(owner: Owner) -> str:
    """What pip calls a package: python3-bottleneck is "bottleneck", python3-opencv "opencv-python-headless"."""
    if owner.kind != "dpkg":
        return canonical(owner.name)
    name = owner.name.split(":")[0]
    return DPKG_TO_PIP.get(name) or canonical(re.sub(r"^(python3?|libpython3?)-", "", name))


def canonical(name: str) -> str:
    """A package's name as the index writes it (PEP 503): "fast_histogram" is "fast-histogram"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _newer_package(owner: Owner | None, numpy: str | None, major: int | None, python: str) -> str:
    if owner is None:  # nobody to upgrade: a file somebody compiled
        return _hold(python)
    if owner.kind == "conda":
        return f"conda update --yes {shlex.quote(owner.name)}"
    if owner.kind == "dpkg" and _is_the_systems(python):
        # Whatever shadows apt's NumPy for the system's own interpreter came from pip, and apt's packages follow it.
        return f"PIP_BREAK_SYSTEM_PACKAGES=1 {shlex.quote(python)} -m pip uninstall --yes numpy"
    name = pip_name(owner)
    if name in FIRST_FOR_2:
        first = FIRST_FOR_2[name]
        if first is None:
            return _hold(python)
        if owner.kind == "dpkg" or _older(owner.version, first):
            return _pip(python, f"{name}>={first}")
        # Its wheel would load: this copy was compiled on some machine with an older NumPy, and pip keeps such wheels.
        return _pip(python, "--force-reinstall", "--no-deps", "--no-cache-dir", f"{name}>={first}")
    if owner.kind == "dpkg":
        # apt's copy is outside this environment: pip leaves it alone, and must not take it for the newest there is.
        # NumPy is named because --ignore-installed would otherwise fetch its newest as a dependency.
        return _by_name(owner, python, "--ignore-installed", *([f"numpy=={numpy}"] if numpy else []))
    return newer(owner, python)


def _by_name(owner: Owner, python: str, *options: str) -> str:
    name = pip_name(owner)  # without Debian's prefix it need not be a name of pip's any more
    return _pip(python, *options, name) if owner.is_named and Owner(name, "", "pip").is_named else ""


def _hold(python: str) -> str:
    """NumPy 1.x back: good for the module that wants it, and seldom looked at for what it does to the others."""
    return f"{_pip(python, 'numpy<2')}  # {_ALL_ON_1}: check again"


def _newer_numpy(owner: Owner | None, major: int | None, needs: str, python: str) -> str:
    if needs:
        # From 1.x to another 1.x: 2.x would break what else is compiled for 1.x.
        below = ",<2" if major == 1 and _older(needs, "2") else ""
        return _pip(python, f"numpy>={needs}{below}")
    if owner is not None and owner.kind == "pip" and owner.version:
        return _pip(python, f"{canonical(owner.name)}<{owner.version}")
    return _pip(python, "--upgrade", "numpy<2" if major == 1 else "numpy")


def _again(owner: Owner | None, python: str) -> str:
    if owner is None:
        return ""
    if owner.kind == "dpkg":
        return f"apt-get install --reinstall {shlex.quote(owner.name)}"
    if owner.kind == "conda":
        return f"conda install --yes --force-reinstall {shlex.quote(owner.name)}"
    version = f"=={owner.version}" if owner.version else ""
    return _pip(python, "--force-reinstall", "--no-deps", f"{canonical(owner.name)}{version}")


def _pip(python: str, *arguments: str) -> str:
    # Debian's pip refuses to touch the system's environment unless told; what is mended here is in it already.
    allowed = "PIP_BREAK_SYSTEM_PACKAGES=1 " if _is_the_systems(python) else ""
    return f"{allowed}{shlex.quote(python)} -m pip install " + " ".join(shlex.quote(word) for word in arguments)


def _is_the_systems(python: str) -> bool:
    path = PurePosixPath(python)
    return str(path.parent) in ("/usr/bin", "/bin") and path.name.startswith("python")


def _major(numpy: str | None) -> int | None:
    if numpy is None:
        return None
    try:
        return numpy_release(numpy).major
    except NumPyUnknown:
        return None


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _older(version: str, than: str) -> bool:
    try:
        return Version(version) < Version(than)
    except InvalidVersion:
        return True
