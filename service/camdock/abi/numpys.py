"""What each NumPy release promises to modules compiled against it. A new release is a new line here, nothing else.

The numbers are those of NumPy's own headers (numpyconfig.h, ndarraytypes.h, ndarrayobject.h), checked against what
`PyArray_GetNDArrayCVersion`, `PyArray_GetNDArrayCFeatureVersion` and `tp_basicsize` say in the release itself.

Runs in: any process.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

ABI_1 = 0x1000009  # slot 0 of every 1.x since 1.0.1
ABI_2 = 0x2000000

# The types whose size a Cython module compares with the loaded NumPy's, and their size in bytes on 64-bit machines.
TYPES = ("dtype", "ndarray", "flatiter", "broadcast", "ufunc")


@dataclass(frozen=True, slots=True)
class Promise:
    """What a NumPy release promises, from that release until the next line of the table.

    since    (major, minor)
    abi      PyArray_GetNDArrayCVersion(), slot 0 of the C-API table
    feature  PyArray_GetNDArrayCFeatureVersion(), slot 211: grows with what the C-API can do
    floor    feature level that headers of this release compile for by default: the oldest NumPy their modules load on
    sizes    tp_basicsize by type, in bytes, on 64-bit machines
    """

    since: tuple[int, int]
    abi: int
    feature: int
    floor: int
    sizes: dict[str, int]


def _sizes(*sizes: int) -> dict[str, int]:
    return dict(zip(TYPES, sizes, strict=True))


# fmt: off
PROMISES = (
    #       since     abi    feature floor        dtype ndarray flatiter broadcast ufunc
    Promise((1, 7),  ABI_1, 0x07, 0x07, _sizes(96,  80, 2632, 560, 184)),
    Promise((1, 8),  ABI_1, 0x08, 0x08, _sizes(96,  80, 2632, 560, 192)),
    Promise((1, 9),  ABI_1, 0x09, 0x09, _sizes(96,  80, 2632, 560, 192)),
    Promise((1, 10), ABI_1, 0x0A, 0x0A, _sizes(96,  80, 2632, 560, 192)),
    Promise((1, 13), ABI_1, 0x0B, 0x0B, _sizes(96,  80, 2632, 560, 192)),
    Promise((1, 14), ABI_1, 0x0C, 0x0C, _sizes(96,  80, 2632, 560, 192)),
    Promise((1, 16), ABI_1, 0x0D, 0x0D, _sizes(96,  80, 2632, 560, 216)),
    Promise((1, 20), ABI_1, 0x0E, 0x0E, _sizes(96,  88, 2632, 560, 216)),
    Promise((1, 22), ABI_1, 0x0F, 0x0F, _sizes(96,  96, 2632, 560, 232)),
    Promise((1, 23), ABI_1, 0x10, 0x10, _sizes(96,  96, 2632, 560, 232)),
    Promise((1, 25), ABI_1, 0x11, 0x0D, _sizes(96,  96, 2632, 560, 232)),
    Promise((2, 0),  ABI_2, 0x12, 0x0D, _sizes(88,  96, 2632, 816, 232)),
    Promise((2, 1),  ABI_2, 0x13, 0x0E, _sizes(88,  96, 2632, 816, 240)),
    Promise((2, 3),  ABI_2, 0x14, 0x10, _sizes(88,  96, 2632, 816, 240)),
    Promise((2, 4),  ABI_2, 0x15, 0x10, _sizes(88,  96, 2632, 816, 240)),
)
# fmt: on

# Feature levels that headers of 1.x can have compiled in.
LEVELS_1 = range(0x06, 0x12)
# Sizes a module may have been compiled with. Headers of 2.x show it less than there is: the first fields of dtype,
# ndarray without its own end; the smallest is that of a type whose fields are hidden from the module.
SIZES_SEEN = {kind: {promise.sizes[kind] for promise in PROMISES} for kind in TYPES}
SIZES_SEEN["dtype"] |= {32}
SIZES_SEEN["ndarray"] |= {16}
SIZES_SEEN["ufunc"] |= {16, 200, 208, 224}
SIZES_SEEN["flatiter"] |= set(range(56, 2640, 8))
SIZES_SEEN["broadcast"] |= set(range(40, 1200, 8))


class NumPyUnknown(ValueError):
    """The text is no NumPy release that has a line in the table."""


@dataclass(frozen=True, slots=True)
class NumPy:
    """One NumPy release, as a compiled module meets it. `newer`: released after the last line of the table."""

    version: str
    promise: Promise
    newer: bool = False

    @property
    def major(self) -> int:
        return self.promise.since[0]


def numpy_release(version: str) -> NumPy:
    """The NumPy release of that version ("2.2.0", "1.26"). Raises NumPyUnknown."""
    try:
        parsed = Version(version)
    except InvalidVersion as error:
        raise NumPyUnknown(f"{version!r} is not a version of NumPy: write it like 2.2.0") from error
    minor = (parsed.major, parsed.minor)
    known = [promise for promise in PROMISES if promise.since <= minor]
    if not known:
        raise NumPyUnknown(f"NumPy {version} is older than {name(PROMISES[0].feature)}, the oldest that can be judged")
    if parsed.major > PROMISES[-1].since[0]:
        raise NumPyUnknown(
            f"NumPy {version} is of a major version that did not exist when this table was written: update camdock"
        )
    return NumPy(version, known[-1], newer=minor > PROMISES[-1].since)


def name(feature: int) -> str:
    """The NumPy release that brought a feature level: 0x10 is "1.23"."""
    for promise in PROMISES:
        if promise.feature == feature:
            return f"{promise.since[0]}.{promise.since[1]}"
    return f"C-API 0x{feature:x}"


def feature_of(release: str) -> int | None:
    """The feature level of the release that a message names: "1.23" is 0x10; None where it is not in the table."""
    try:
        named = numpy_release(release)
    except NumPyUnknown:
        return None
    return None if named.newer else named.promise.feature
