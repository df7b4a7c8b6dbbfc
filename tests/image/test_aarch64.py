"""The wheels of every image for aarch64, imported under emulation on request: CAMDOCK_TEST_ALL=1, root, Debian.

Without emulation they are judged by `camdock abi plan`, in `make verify`. Nothing of the foreign Debian is run but its
Python: the packages are unpacked, not configured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.conftest import IMAGES, Image, cannot
from tests.image.test_image import COMPILED, pins_of
from tests.tools.containers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import warnings
warnings.simplefilter("error")
import json, platform, cv2, numpy, PIL, PIL.Image, simplejpeg
jpeg = simplejpeg.encode_jpeg(numpy.full((48, 64, 3), 200, numpy.uint8), colorspace="BGR")
back = cv2.imdecode(numpy.frombuffer(jpeg, numpy.uint8), cv2.IMREAD_COLOR)
found = {"machine": platform.machine(), "shape": back.shape, "mean": round(float(back.mean()))}
for module in (cv2, numpy, PIL, simplejpeg):
    found[module.__name__] = module.__version__
print(json.dumps(found))
"""


@pytest.mark.parametrize("image", [IMAGES["current"], IMAGES["numpy1"]], ids=lambda image: image.name)
def test_everything_compiled_imports_on_aarch64(image: Image, tmp_path: Path) -> None:
    if os.getuid() != 0:
        cannot("unpacking another machine's Debian takes root")
    subprocess.run([ROOT / "tests/testbed/packages.sh", "mmdebstrap", "qemu-user-static"], check=True)
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        cannot("qemu-aarch64-static is missing: apt install qemu-user-static")
    release, version = ("bookworm", "311") if image.pins == "numpy1" else ("trixie", "313")
    root, tree = tmp_path / "root", tmp_path / "tree"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=extract", "--arch=arm64", "--include=python3,libstdc++6", release, root],
        check=True, timeout=300,
    )  # fmt: skip
    if not (root / "lib").exists():  # base-files' own script would make it
        (root / "lib").symlink_to("usr/lib")
    glibc = [f"manylinux{name}_aarch64" for name in ("2014", "_2_17", "_2_28")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", tree,
         *(word for one in glibc for word in ("--platform", one)), "--python-version", version,
         "--implementation", "cp", *(word for abi in (f"cp{version}", "abi3", "none") for word in ("--abi", abi)),
         "--only-binary=:all:", "--no-deps", *COMPILED],
        env={**os.environ, "PIP_CONSTRAINT": str(image.constraints)}, check=True, timeout=300,
    )  # fmt: skip
    python = root / f"usr/bin/python3.{version[1:]}"
    done = subprocess.run(
        [str(emulator), "-L", root, python, "-I", "-c", SCRIPT, tree],
        check=False, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found = json.loads(done.stdout)
    assert (found["machine"], found["shape"], found["mean"]) == ("aarch64", [48, 64, 3], 200)
    pins = pins_of(image)
    assert (found["numpy"], found["PIL"], found["simplejpeg"]) == tuple(
        pins[name] for name in ("numpy", "pillow", "simplejpeg")
    )
    assert pins["opencv-python-headless"].startswith(found["cv2"] + ".")
