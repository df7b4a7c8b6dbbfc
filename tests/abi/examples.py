"""Small real modules, and wheels, images, folders and logs around them: what hostile input is made from.

data/modules holds what no compiler here makes: modules for aarch64, from sources/ with `aarch64-linux-gnu-gcc -Os
-shared -fPIC -nostdlib -s -Wl,-z,max-page-size=4096 -Wl,-z,noseparate-code` (phases.c with NumPy's headers of 2.x,
sizes.c; with -DLEVELS it is levels).
"""

from __future__ import annotations

import functools
import lzma
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.abi import made

HERE = Path(__file__).parent
_SITE = "venv/lib/python3.11/site-packages"


@functools.cache
def module(*options: str) -> bytes:
    """sources/sizes.c for this machine, or with -m32 for its 32-bit relative."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/m.so"
        command = [
            "gcc",
            "-Os",
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-s",
            "-o",
            out,
            HERE / "sources" / "sizes.c",
            *options,
        ]
        subprocess.run(command, check=True, capture_output=True)
        return Path(out).read_bytes()


@functools.cache
def kept(name: str) -> bytes:
    return lzma.decompress((HERE / "data" / "modules" / f"{name}.so.xz").read_bytes())


def modules() -> list[bytes]:
    own = [
        made.compiled(made.FOR_2),
        made.compiled(made.FOR_1),
        made.compiled(made.UNCHECKED),
        made.compiled(name=None),
    ]
    kinds = [(), ("-DLEVELS",), ("-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=4096"), *_more()]
    return [
        *own,
        *(module(*kind) for kind in kinds),
        *(kept(f"{name}-aarch64") for name in ("phases", "sizes", "levels")),
    ]


def _more() -> list[tuple[str, ...]]:
    import platform

    return [("-m32",)] if platform.machine() == "x86_64" else []


def wheels() -> list[bytes]:
    info = {"t-1.0.dist-info/METADATA": "Name: t\nVersion: 1.0\n\n", "t-1.0.dist-info/RECORD": "t/a.so,sha256=x,1\n"}
    first, second = kept("levels-aarch64"), kept("phases-aarch64")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w.whl")
        return [
            made.wheel(path, {**info, "t/a.so": first, "t-1.0.data/platlib/b.so": second}).read_bytes(),
            made.wheel(path, {**info, "t/a.so": first}, zipfile.ZIP_STORED).read_bytes(),
            made.wheel(path, {**info, "t/a.so": first}, zipfile.ZIP_LZMA).read_bytes(),
            made.wheel(
                path, {"numpy/__init__.py": "", "numpy/version.py": "version = '2.2.0'", "m.so": second}
            ).read_bytes(),
        ]


def images() -> list[bytes]:
    site = "usr/lib/python3/dist-packages"
    base = [
        made.member("etc/debian_version", b"12"),
        made.member("usr/lib/python3.11/os.py"),
        made.member(f"{site}/numpy/__init__.py"),
        made.member(f"{site}/numpy/version.py", b"version = '1.24.2'"),
        made.member(f"{site}/m.cpython-311-x86_64-linux-gnu.so", kept("levels-aarch64")),
        made.member("lib", type=b"2", linkname="usr/lib"),
    ]
    over = [
        made.member(f"{site}/.wh.m.cpython-311-x86_64-linux-gnu.so"),
        made.member("usr/local/.wh..wh..opq"),
        made.member(f"{site}/n.so", kept("phases-aarch64")),
        made.member(f"{site}/o.so", type=b"1", linkname=f"{site}/n.so"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "i.tar")
        layers = made.tarred(base), made.tarred(over)
        plain = made.docker_archive(path, *layers, variables=["PYTHONPATH=/opt/x"]).read_bytes()
        packed = made.docker_archive(path, *layers, packed=True).read_bytes()
        oci = made.layer_of(made.oci_layout(Path(folder, "oci"), *layers))
        return [plain, packed, oci]


def folders() -> list[bytes]:
    """Records "path\\ncontent" (a link: "path -> target"), apart by \\x1e; content "@3" is the fourth of `modules`."""
    own = "usr/lib/python3/dist-packages"
    tag = "cpython-311-x86_64-linux-gnu.so"
    files = {
        "venv/pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.11.2\n",
        f"{_SITE}/numpy/__init__.py": "",
        f"{_SITE}/numpy/version.py": 'version = "2.2.0"\n',
        f"{_SITE}/numpy-2.2.0.dist-info/METADATA": "Name: numpy\nVersion: 2.2.0\n\n",
        f"{_SITE}/numpy-2.2.0.dist-info/RECORD": f"numpy/_core/u.{tag},sha256=x,1\n",
        f"{_SITE}/numpy/_core/u.{tag}": "@3",
        f"{_SITE}/x.pth": "/opt/more\nimport __editable___t_finder\n../x\n# c\n",
        f"{_SITE}/t-1.0.dist-info/METADATA": "Name: t\nVersion: 1.0\n\n",
        f"{_SITE}/t-1.0.dist-info/RECORD": f't/a.{tag},,\n"t/b.so",,\n../../../bin/t,,\n',
        f"{_SITE}/t/a.{tag}": "@1",
        f"{_SITE}/t/b.so": "@4",
        "opt/more/c.abi3.so": "@2",
    }
    system = {
        "etc/debian_version": "12",
        "usr/lib/python3.11/os.py": "",
        f"{own}/numpy/__init__.py": "",
        f"{own}/numpy/_version.py": '{"version": "1.24.2"}',
        f"{own}/numpy-1.24.2.egg-info": "Name: numpy\nVersion: 1.24.2\n",
        f"{own}/d.{tag}": "@5",
        "lib -> usr/lib": "",
        "var/lib/dpkg/status": "Package: python3-d\nVersion: 1.0-1\nDescription: x\n y\n\n",
        "var/lib/dpkg/info/python3-d.list": f"/.\n/usr\n/{own}/d.{tag}\n",
        "opt/conda/conda-meta/e.json": '{"name": "e", "version": "1", "files": ["lib/python3.12/site-packages/e.so"]}',
        "opt/conda/lib/python3.12/site-packages/e.so": "@0",
    }
    return [_records(files), _records(system), _records({**system, **files})]


def _records(files: dict[str, str]) -> bytes:
    return b"\x1e".join(f"{path}\n{content}".encode() for path, content in files.items())


def logs() -> list[bytes]:
    return [path.read_bytes() for path in sorted((HERE / "data" / "messages").iterdir())]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "elf": modules,
    "wheel": wheels,
    "image": images,
    "folder": folders,
    "explain": logs,
}
