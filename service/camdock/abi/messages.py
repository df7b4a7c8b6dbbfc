"""What NumPy, Cython, OpenCV and others print when a compiled module and NumPy do not fit, and what each message means.

Runs in: any process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from camdock.abi import numpys


@dataclass(frozen=True, slots=True)
class Failure:
    """What a message means.

    rule      the key of rules.RULES that says the same of a file; "" where no file would show it
    title     fits in a table
    why       a sentence or two for a person
    symptom   it follows from something else that failed and is usually printed nearby
    harmless  nothing has to be done about it
    """

    rule: str
    title: str
    why: str
    symptom: bool = False
    harmless: bool = False


# Every failure that explain knows, by the name it has in JSON.
FAILURES: dict[str, Failure] = {
    "built-for-1": Failure(
        "built-for-1",
        "Built for NumPy 1.x, loaded with NumPy 2",
        "NumPy 2.0 changed the layout of its types. A module compiled with the headers of NumPy 1.x refuses to load "
        "with it, or crashes. `pip check` sees nothing: the package does not say for which NumPy it was compiled.",
    ),
    "numpy-too-old": Failure(
        "numpy-too-old",
        "Wants a newer NumPy than the one loaded",
        "The module was compiled to use functions of NumPy's C-API that the loaded NumPy does not have yet.",
    ),
    "type-size": Failure(
        "type-size",
        "A NumPy type is smaller than the module was compiled for",
        "Cython compares the size of NumPy's types with the size it was compiled with, and refuses a smaller one: the "
        "module was compiled for a newer NumPy than the one loaded.",
    ),
    "type-grew": Failure(
        "",
        "A type is larger than the module was compiled for: harmless",
        "Newer releases add fields at the end of a type; a module compiled for the shorter one does not miss them. "
        "Cython warns and goes on.",
        harmless=True,
    ),
    "type-exact": Failure(
        "",
        "A type is not exactly the size the module was compiled for",
        "The module is old enough to insist on the very size it was compiled for, even where a larger one would do.",
    ),
    "other-type-size": Failure(
        "",
        "Two compiled packages do not fit each other; NumPy has no part in it",
        "Cython compares the size of a type of another package with the size it was compiled with. That package was "
        "replaced by another version after this module was compiled.",
    ),
    "did-not-load": Failure(
        "built-for-1",
        "A module could not load NumPy's C-API",
        "The message says only that it failed. The reason is printed above it ('module compiled against', "
        "'_ARRAY_API not found'), or was swallowed; nearly always the module was built for NumPy 1.x, and meets NumPy "
        "2.",
        symptom=True,
    ),
    "did-not-load-2": Failure(
        "numpy-too-old",
        "A module built with NumPy 2 headers could not load NumPy's C-API",
        "The message says only that it failed. The reason is printed above it ('module was compiled against NumPy "
        "C-API version'), or was swallowed: NumPy is older than the module needs, absent, or broken itself.",
        symptom=True,
    ),
    "wrapped": Failure(
        "",
        "A package could not load its compiled modules",
        "The message is the package's own and hides the reason: look for the first failure above it.",
        symptom=True,
    ),
    "numpy-broken": Failure(
        "mixed-numpy",
        "NumPy itself cannot load",
        "NumPy's own compiled modules are missing, are another Python version's, or are mixed with those of another "
        "NumPy: an interrupted upgrade, a folder copied between Pythons, or two installations on one path.",
    ),
    "numpy-linked": Failure(
        "mixed-numpy",
        "NumPy itself cannot load: a library it is linked to is missing",
        "The dynamic linker does not find a library that NumPy's compiled modules need: its own copy was removed, or "
        "the wheel expects the system to have it.",
    ),
    "numpy-moved": Failure(
        "",
        "A pickle or module of NumPy 2 is read with an older NumPy",
        "NumPy 2.0 renamed numpy.core to numpy._core; NumPy 1.26.1 and later know the new name for what pickles need, "
        "older releases do not. Nothing compiled has to change.",
    ),
    "python-api": Failure(
        "",
        "Python code uses a name that NumPy has removed; no compiled module is at fault",
        "The package's Python code is older than the loaded NumPy. This is not the ABI, but the remedy is the same.",
    ),
    "refused": Failure(
        "",
        "A package refuses this NumPy before it loads anything",
        "It checks NumPy's version in Python when it is imported, and says itself which it wants.",
    ),
    "crash": Failure(
        "built-for-1",
        "The process crashed",
        "A module built for NumPy 1.x that does not check what it loads, or goes on after the check failed, reads "
        "NumPy 2's types by the wrong layout. A crash has other causes too: a driver, a full stack, bad memory.",
        symptom=True,
    ),
    "camera": Failure(
        "",
        "picamera2 could not open the camera; NumPy has no part in it",
        "The camera was opened twice in one process (picamera2 before 0.3.37), or there is no /dev/dma_heap: in a "
        "container, pass it in.",
    ),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the failure it means, and how it is found in a line. `leads`: its traceback follows."""

    failure: str
    pattern: re.Pattern[str]
    leads: bool = False


def _message(failure: str, pattern: str, leads: bool = False) -> Message:
    return Message(failure, re.compile(pattern), leads)


# The first that a line matches counts. Quantifiers are bounded and do not nest: a line costs time in its length only.
_NUMBERS = (
    r"0x(?P<wants>[0-9a-f]{1,8}).{0,40}but (?:this version of numpy is|the running NumPy has C-API version) "
    r"0x(?P<has>[0-9a-f]{1,8})"
)
MESSAGES = (
    _message(
        "built-for-1",
        r"compiled using NumPy 1\.x cannot be run in(?:\s{1,8}NumPy (?P<numpy>\d[\w.]{0,30}))?",
        leads=True,
    ),
    _message("built-for-1", r"_(?:ARRAY|UFUNC)_API not found"),
    _message("built-for-1", rf"compiled against ABI version {_NUMBERS}"),
    _message("built-for-1", r"_(?:ARRAY|UFUNC)_API is (?:not PyCapsule object|NULL pointer)"),
    _message("numpy-too-old", rf"compiled against (?:NumPy C-)?API version {_NUMBERS}"),
    _message("type-size", r"(?<![\w.])(?P<type>[\w.]{1,200}) size changed, may indicate binary incompatibility"),
    _message("type-size", r"(?<![\w.])(?P<type>[\w.]{1,200}) has the wrong size, try recompiling"),
    _message("did-not-load-2", r"numpy\._core\.(?:multiarray|umath|_multiarray_umath) failed to import"),
    _message("did-not-load", r"numpy\.core\.(?:multiarray|umath|_multiarray_umath) failed to import"),
    _message("did-not-load", r"Failed to access NumPy (?:array|ufunc) API capsule"),  # rust-numpy
    _message("did-not-load", r"RuntimeError: Numpy is not available"),  # PyTorch, on first use
    _message("numpy-broken", r"No module named '?numpy\._?core\._multiarray_umath'?"),
    _message("numpy-broken", r"Importing the numpy C-extensions failed"),
    _message("numpy-broken", r"Something is wrong with the numpy installation\. While importing we detected an older"),
    _message("numpy-broken", r"you should not try to import numpy from\b"),
    _message("numpy-moved", r"No module named '?numpy\._core(?:\.\w{1,60})?'?"),
    _message("python-api", r"`np\.\w{1,60}` was removed in the NumPy 2\.0 release"),
    _message("python-api", r"module 'numpy(?:\.\w{1,60}){0,3}' has no attribute '\w{1,60}'"),
    _message("refused", r"Numba needs NumPy [\w. ]{1,40}"),
    _message("refused", r"upgrade numpy to >= ?(?P<needs>\d[\w.]{0,20}) to use this pandas version"),
    _message("refused", r"this version of pandas is incompatible with numpy < \d[\w.]{0,20}"),
    _message("refused", r"A NumPy version >=[\w.]{1,20} and <[\w.]{1,20} is required for this version of SciPy"),
    _message("wrapped", r"recursion is detected during loading of \"cv2\" binary extensions"),
    _message("wrapped", r"It seems that scikit-image has not been built correctly"),
    _message("wrapped", r"C extension: .{1,300} not built\. If you want to import pandas from the source"),
    _message("wrapped", r"SystemError: .{1,300} returned (?:a result with an exception set|NULL without setting)"),
    _message("wrapped", r"SystemError: initialization of [\w.]{1,100} (?:failed without raising|raised unreported)"),
    _message("camera", r"'Picamera2' object has no attribute 'allocator'"),
    _message("crash", r"Fatal Python error: Segmentation fault", leads=True),
    _message("crash", r"\bSegmentation fault\b|\bsegfault at [0-9a-f]{1,16}\b|\bSIGSEGV\b"),
    _message("crash", r"\bstatus=(?:11/SEGV|139/)"),  # systemd
    _message("crash", r"\bexit(?:ed with)?(?: (?:code|status))?:? \(?139\b|\bsignal 11\b|\breturn ?code:? -11\b"),
)

# A line that matches one of MESSAGES contains one of these: most lines of a log are passed over by a single search.
HINT = re.compile(
    r"umpy|NumPy|_API |compiled against|size changed|wrong size|SystemError|cv2|scikit-image|not built|allocator"
    r"|egmentation fault|segfault|SIGSEGV|139|signal 11|-11|11/SEGV|`np\."
)

EXPECTED = re.compile(r"Expected (?P<expected>\d{1,9})(?: from C header)?, got (?P<got>\d{1,9})")
NUMPY_BELOW = re.compile(r"^.{0,300}?\bNumPy (?P<numpy>\d[\w.]{0,30}) as it may crash")
NUMPY_IS = re.compile(r"The NumPy version is: \"(?P<numpy>\d[\w.]{0,30})\"")
PYTHON_IS = re.compile(r"The Python version is: Python(?P<version>[\d.]{1,10}) from \"(?P<python>[^\"\n]{1,500})\"")
NEEDS = re.compile(r"\(NumPy (?P<needs>\d[\w.]{0,20})\)")
LIBRARY = re.compile(r"(?P<library>lib[\w.+-]{1,100}): cannot open shared object file")


# System libraries that piwheels' and old wheels of NumPy are linked to, and the Debian package that has them.
LIBRARY_PACKAGES = {
    "libopenblas.so.0": "libopenblas0",
    "libcblas.so.3": "libatlas-base-dev",
    "libf77blas.so.3": "libatlas-base-dev",
    "libgfortran.so.5": "libgfortran5",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """A message whose numbers were understood: a key of FAILURES, and what they say of the NumPy needed and loaded."""

    failure: str
    needs: str = ""
    numpy: str = ""
    detail: str = ""


def of_levels(failure: str, wants: int, has: int) -> Meaning:
    """`module compiled against API version 0x10 but this version of numpy is 0xf`: the numbers are feature levels."""
    if failure == "built-for-1":
        return Meaning(failure)
    needs, numpy = numpys.name(wants), numpys.name(has)
    known = needs[0].isdigit()
    said = f"It wants the C-API of NumPy {needs} (0x{wants:x}); the loaded NumPy has that of {numpy} (0x{has:x})."
    return Meaning(failure, needs if known else "", numpy if numpy[0].isdigit() else "", said)


def of_sizes(type_name: str, expected: int, got: int, warned: bool) -> Meaning:
    """`numpy.dtype size changed ... Expected 96 from C header, got 88 from PyObject`, of any type, in any direction.

    warned  it was a warning, or the kind of the message is not known: the module goes on where the type grew
    """
    grew = "type-grew" if warned else "type-exact"
    package, _, kind = type_name.rpartition(".")
    if package.split(".")[0] != "numpy":
        detail = f"The type is {type_name}: {expected} bytes when the module was compiled, {got} in the one loaded."
        return Meaning("other-type-size" if expected > got else grew, detail=detail)
    if expected <= got:
        return Meaning(grew, detail=f"numpy.{kind}: compiled for {expected} bytes, the loaded NumPy has {got}.")
    if kind == "dtype":  # it shrank once, with 2.0
        return Meaning(
            "built-for-1", detail=f"A dtype of {expected} bytes is that of NumPy 1.x, {got} that of NumPy 2."
        )
    first = next((promise for promise in numpys.PROMISES if promise.sizes.get(kind) == expected), None)
    last = [promise for promise in numpys.PROMISES if promise.sizes.get(kind) == got]
    if first is None or not last:
        return Meaning("type-size", detail=f"numpy.{kind}: compiled for {expected} bytes, the loaded NumPy has {got}.")
    needs = numpys.name(first.feature)
    had = numpys.name(last[-1].feature)
    detail = f"numpy.{kind} has {expected} bytes from NumPy {needs} on; the loaded NumPy has {got}, as {had} had."
    return Meaning("type-size", needs, had, detail)
