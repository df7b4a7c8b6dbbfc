"""The table of NumPy releases, beside what NumPy says of itself."""

import ctypes
import json
import subprocess
import sys

import pytest

from camdock.abi.numpys import ABI_1, ABI_2, PROMISES, TYPES, NumPyUnknown, feature_of, name, numpy_release

# What NumPy answers at run time: slots 0 and 211 of its C-API, and the sizes of its types.
ASK = """
import ctypes, json, sys
import numpy
core = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]
capsule = ctypes.pythonapi.PyCapsule_GetPointer
capsule.restype, capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
slots = ctypes.cast(capsule(core._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
ask = lambda slot: ctypes.CFUNCTYPE(ctypes.c_uint)(slots[slot])()
types = {"dtype": numpy.dtype, "ndarray": numpy.ndarray, "flatiter": numpy.flatiter, "broadcast": numpy.broadcast,
         "ufunc": numpy.ufunc}
print(json.dumps([numpy.__version__, ask(0), ask(211), {k: t.__basicsize__ for k, t in types.items()}]))
"""


def said_by_numpy(python: str = sys.executable, **environment: str) -> tuple[str, int, int, dict[str, int]]:
    answer = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True, env=environment or None)
    return tuple(json.loads(answer.stdout))


def test_the_installed_numpy_is_what_the_table_says() -> None:
    version, abi, feature, sizes = said_by_numpy()
    promise = numpy_release(version).promise
    assert (promise.abi, promise.feature, promise.sizes) == (abi, feature, sizes)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="one Python for which NumPy 1.23 to 2.4 have wheels")
@pytest.mark.parametrize(
    "version", ["1.23.5", "1.24.4", "1.25.2", "1.26.4", "2.0.2", "2.1.3", "2.2.0", "2.3.1", "2.4.6"]
)
def test_every_numpy_that_installs_is_what_the_table_says(version: str, tmp_path, without_constraints) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path, f"numpy=={version}"],
        check=True, env=without_constraints,
    )  # fmt: skip
    said, abi, feature, sizes = said_by_numpy(PYTHONPATH=str(tmp_path))
    promise = numpy_release(version).promise
    assert (said, promise.abi, promise.feature, promise.sizes) == (version, abi, feature, sizes)


def test_a_release_belongs_to_the_last_line_that_is_not_newer() -> None:
    assert numpy_release("1.21.6").promise.since == (1, 20)
    assert numpy_release("2.2.0rc1").promise.since == (2, 1)
    assert numpy_release("1.26").promise.sizes["dtype"] == 96
    assert numpy_release("2.0.2").promise.sizes["dtype"] == 88


def test_a_release_newer_than_the_table_is_taken_for_the_last_and_says_so() -> None:
    newest = PROMISES[-1]
    newer = numpy_release(f"{newest.since[0]}.{newest.since[1] + 1}.0")
    assert newer.newer
    assert newer.promise is newest
    assert not numpy_release(f"{newest.since[0]}.{newest.since[1]}.9").newer


@pytest.mark.parametrize("text", ["", "two", "1.6.2", "0.9", "3.0.0", "9999999999.1", "2.2.0 ; rm"])
def test_what_is_no_release_is_said(text: str) -> None:
    with pytest.raises(NumPyUnknown):
        numpy_release(text)


def test_levels_have_the_name_of_the_release_that_brought_them() -> None:
    assert [name(level) for level in (0x0D, 0x10, 0x13)] == ["1.16", "1.23", "2.1"]
    assert name(0x99) == "C-API 0x99"
    newer = f"{PROMISES[-1].since[0]}.{PROMISES[-1].since[1] + 1}"
    assert (feature_of("1.23"), feature_of("2.2"), feature_of("7.1"), feature_of(newer)) == (0x10, 0x13, None, None)


def test_the_table_is_in_order_and_whole() -> None:
    assert [promise.since for promise in PROMISES] == sorted(promise.since for promise in PROMISES)
    assert [promise.feature for promise in PROMISES] == sorted({promise.feature for promise in PROMISES})
    assert all(tuple(promise.sizes) == TYPES for promise in PROMISES)
    assert {promise.abi for promise in PROMISES} == {ABI_1, ABI_2}
    assert ctypes.sizeof(ctypes.c_void_p) == 8  # the sizes are those of 64-bit machines
