"""Compiled modules and the places they are installed to, made for a test: each carries the traces of its maker only."""

import functools
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

# What compilers of modules leave behind: the traces that the rules are about.
NONE = ""
FOR_1 = "module compiled against API version 0x%x but this version of numpy is 0x%x"
FOR_2 = "module was compiled against NumPy C-API version 0x%x (NumPy 1.23) but the running NumPy has C-API version 0x%x"
UNCHECKED = "pybind11 numpy support requires numpy >= 1.7"

# As `import_array` does, from headers of 1.20 where it is 1.x: it asks for the ABI, and then for the feature level.
_SOURCE = """
extern void PyErr_SetString(const char *, const char *);
extern void **PyImport_ImportModule(const char *);
{head} {{
    void **api = PyImport_ImportModule("numpy.core._multiarray_umath");
    if (((unsigned (*)(void))api[0])() != {abi}) PyErr_SetString("_ARRAY_API", "another ABI");
    if (((unsigned (*)(void))api[211])() < 0xe) PyErr_SetString("_ARRAY_API", "{trace}");
    return 0;
}}
"""


@functools.cache
def compiled(
    trace: str = NONE, name: str | None = "m", needed: tuple[str, ...] = (), soname: str = "", *, calls: bool = True
) -> bytes:
    """A shared object: the module `name`, or a plain library (None), linked to the libraries in `needed`.

    calls  it also calls them; a module is often linked to libraries that it never calls
    """
    compiler = shutil.which("gcc")
    assert compiler, "gcc is needed: `make testbed` installs it"
    head = f"void *PyInit_{name}(void)" if name else f"void *{_function(soname)}(void)"
    text = _SOURCE.format(head=head, trace=trace, abi="0x1000009" if trace == FOR_1 else "0x2000000")
    if not trace:
        text = f"{head} {{ return 0; }}"
    if calls:
        text = "".join(f"extern void *{_function(library)}(void);\n" for library in needed) + text
        text = text.replace("return 0;", "".join(f"{_function(library)}(); " for library in needed) + "return 0;")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "m.c").write_text(text)
        for library in needed:
            (folder / "l.c").write_text("")
            _gcc(compiler, folder, "l.c", library, f"-Wl,-soname,{library}")
        options = [f"-l:{library}" for library in needed]
        _gcc(compiler, folder, "m.c", "m.so", "-L.", "-Wl,--no-as-needed", *options, f"-Wl,-soname,{soname or 'm.so'}")
        return (folder / "m.so").read_bytes()


def _function(soname: str) -> str:
    return re.sub(r"\W", "_", soname or "library")


def _gcc(compiler: str, folder: Path, source: str, output: str, *options: str) -> None:
    command = [compiler, "-O1", "-shared", "-fPIC", "-nostdlib", "-o", output, source, *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def write(path: Path, content: bytes | str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numpy(site: Path, version: str = "2.2.0", recorded: str | None = None, *, text: str | None = None) -> None:
    """A copy of NumPy, as far as it can be told by its files."""
    write(site / "numpy/__init__.py")
    write(site / "numpy/version.py", f'version = "{version}"\n__version__ = version\n' if text is None else text)
    write(site / "numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", compiled(NONE, "_multiarray_umath"))
    package(site, "numpy", recorded or version, ["numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so"])


def package(site: Path, name: str, version: str, files: Iterable[str]) -> None:
    """The records of an installed package."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    write(folder / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: another\n")
    write(folder / "RECORD", "".join(f"{file},,\n" for file in files))


def module(site: Path, file: str, trace: str, owner: str = "", version: str = "1.0") -> None:
    """One module below a folder of the path, owned by a package."""
    write(site / file, compiled(trace, file.rpartition("/")[2].partition(".")[0]))
    if owner:
        package(site, owner, version, [file])


def environment(folder: Path, home: str = "/usr/bin", *, system: bool = False, python: str = "3.11") -> Path:
    """A virtual environment; returns its site-packages."""
    text = f"home = {home}\ninclude-system-site-packages = {str(system).lower()}\nversion = {python}.2\n"
    write(folder / "pyvenv.cfg", text)
    site = folder / f"lib/python{python}/site-packages"
    site.mkdir(parents=True)
    return site


def dpkg(root: Path, package: str, version: str, files: Iterable[str]) -> None:
    """dpkg's records of a package in a root file system."""
    lines = "".join(f"/{file}\n" for file in files)
    write(root / f"var/lib/dpkg/info/{package}.list", lines)
    status = root / "var/lib/dpkg/status"
    known = status.read_text() if status.exists() else ""
    name = package.partition(":")[0]
    stanza = f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nDescription: x\n y\n\n"
    write(status, known + stanza)


def wheel(path: Path, files: Mapping[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def tarred(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def layer_of(folder: Path) -> bytes:
    """A layer that adds everything in a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, str(path.relative_to(folder)), recursive=False)
    return out.getvalue()


def docker_archive(path: Path, *layers: bytes, variables: Iterable[str] = (), packed: bool = False) -> Path:
    """What `docker save` writes: the manifest last, as it does."""
    members = []
    names = []
    for layer in layers:
        content = gzip.compress(layer, 1) if packed else layer
        names.append(f"blobs/sha256/{hashlib.sha256(content).hexdigest()}")
        members.append(member(names[-1], content))
    members.append(member("blobs/sha256/config", json.dumps({"config": {"Env": list(variables)}}).encode()))
    manifest = [{"Config": "blobs/sha256/config", "RepoTags": ["made:latest"], "Layers": names}]
    members.append(member("manifest.json", json.dumps(manifest).encode()))
    path.write_bytes(tarred(members))
    return path


def oci_layout(folder: Path, *layers: bytes) -> Path:
    """An OCI layout, with an attestation beside the image, as BuildKit writes it."""

    def blob(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        write(folder / "blobs/sha256" / digest, content)
        return f"sha256:{digest}"

    config = blob(b'{"config": {}}')
    image = {"config": {"digest": config}, "layers": [{"digest": blob(gzip.compress(layer))} for layer in layers]}
    manifest = blob(json.dumps(image).encode())
    other = blob(b'{"layers": []}')
    entries = [
        {"digest": manifest, "platform": {"architecture": "amd64", "os": "linux"}},
        {"digest": other, "platform": {"architecture": "unknown", "os": "unknown"}},
    ]
    write(folder / "index.json", json.dumps({"schemaVersion": 2, "manifests": entries}))
    write(folder / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    return folder


def everything_below(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(where, name), folder) for where, _, names in os.walk(folder) for name in names}
