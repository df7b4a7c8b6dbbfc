"""PixeLINK's library and their pixelinkWrapper over it: loaded, and asked which cameras there are.

Runs in: the worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from camdock.errors import DriverMissing, SourceFailed

LIBRARY = "libPxLApi.so"
SDK_HINT = (
    "install the PixeLINK SDK for Linux, so that `ldconfig -p` or LD_LIBRARY_PATH knows libPxLApi.so, "
    "and `pip install 'camdock[pixelink]'`"
)
GONE = {
    "ApiNoCameraError", "ApiNoDeviceError", "ApiCameraUnknownError", "ApiNoSerialNumberError",
    "ApiInvalidSerialNumberError",
}  # fmt: skip


@contextlib.contextmanager
def _without_wmic() -> Iterator[None]:
    """Answer for the program `wmic` where there is none: newer Windows has removed it.

    pixelinkWrapper up to 1.4.1 asks it for the library's version while it is imported, only to warn of an old one.
    """
    real = subprocess.check_output

    def check_output(command: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return real(command, *arguments, **options)
        except FileNotFoundError:
            if not (isinstance(command, list) and command[:1] == ["wmic"]):
                raise
            return b"Version \r\r\n99.99.99.99 \r\r\n"

    subprocess.check_output = check_output  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.check_output = real


def import_wrapper() -> Any:
    """pixelinkWrapper's PxLApi, whose import loads the vendor's library. Leaves `subprocess` as it was."""
    importlib.invalidate_caches()  # it may have been installed since we looked last
    with _without_wmic():
        from pixelinkWrapper import PxLApi

        return PxLApi


def load() -> Any:
    """The PxLApi class over the vendor's library. Raises DriverMissing with what is lacking."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DriverMissing(f"the PixeLINK SDK does not load: {error}", SDK_HINT) from error
    # The wrapper looks for the library's version with `find $PIXELINK_SDK_LIB`: unset, that is the current folder, and
    # what it does not find there ends its import with a ValueError.
    os.environ.setdefault("PIXELINK_SDK_LIB", str(_loaded_from().parent))
    try:
        return import_wrapper()
    except ImportError as error:
        raise DriverMissing(f"the library for pixelink: does not load: {error}", SDK_HINT) from error
    except (OSError, ValueError, IndexError, AttributeError, subprocess.CalledProcessError) as error:
        raise DriverMissing(
            f"pixelinkWrapper does not fit this PixeLINK SDK: {error}",
            "set PIXELINK_SDK_LIB to the folder with libPxLApi.so.VERSION, and take an SDK and a wrapper of one age",
        ) from error


def _loaded_from() -> Path:
    """The file that the library was loaded from, links followed."""
    for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
        path = Path(line[line.find("/") :])
        if "/" in line and path.name.startswith("libPxLApi"):
            return path
    return Path(LIBRARY)


def serials(api: Any) -> list[int]:
    """The serial numbers of all cameras that are there, in the SDK's order. Raises SourceFailed."""
    found = api.getNumberCameras()
    if not api.apiSuccess(found[0]):
        if name_of(api, found[0]) in GONE | {"ApiNoCameraAvailableError"}:
            return []
        raise SourceFailed(f"the PixeLINK SDK cannot look for cameras: {name_of(api, found[0])}", "`dmesg` says more")
    return [int(one.CameraSerialNum) for one in found[1]]


def name_of(api: Any, code: int) -> str:
    """What the SDK calls a code: ApiNoCameraError."""
    return next(
        (name for name, value in vars(api.ReturnCode).items() if value == code), f"error {code & 0xFFFFFFFF:#x}"
    )


def absent(api: Any, serial: int | None) -> str:
    """Why there is no such camera, for people; empty when there is."""
    there = serials(api)
    if there if serial is None else serial in there:
        return ""
    others = f"; there is {', '.join(map(str, there))}" if there else ""
    return "no PixeLINK camera found" if serial is None else f"no PixeLINK camera {serial} found{others}"
