"""Compiles the test tools that are written in C, once for each version of their source.

Runs in whatever process wants a tool; several may ask at the same time.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = {
    "fakev4l2": ["-shared", "-fPIC", "-ldl", "-lpthread"],
    "fakepixelink": ["-shared", "-fPIC", "-lm"],
    "floor": [],
    "loadclient": ["-lpthread"],
}
SUFFIX = {"fakev4l2": ".so", "fakepixelink": ".so", "floor": "", "loadclient": ""}
COMMON = ["-O2", "-Wall", "-Wextra"]  # not -Werror: a newer gcc has newer warnings


def cache(name: str) -> Path:
    """The folder `.cache/<name>` of the checkout, which git does not see."""
    folder = ROOT / ".cache" / name
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder.parent / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return folder


class ToolMissing(RuntimeError):
    """A tool cannot be built here; the message says what to install."""


def ensure(name: str) -> Path:
    """Path of the compiled tool, compiled now unless this very source has been compiled before.

    name     fakev4l2, fakepixelink, floor or loadclient
    raises   ToolMissing if there is no gcc; RuntimeError with the compiler's words if it refuses
    """
    source = HERE / f"{name}.c"
    flags = [*COMMON, *FLAGS[name]]
    # The source is in the name, so a finished file never goes stale and is never rewritten under a running camera.
    facts = source.read_bytes() + repr((flags, platform.machine(), platform.libc_ver())).encode()
    target = cache("tools") / f"{name}-{hashlib.sha256(facts).hexdigest()[:12]}{SUFFIX[name]}"
    if target.exists():
        return target
    compiler = shutil.which("gcc")
    if compiler is None:
        raise ToolMissing(f"gcc is needed to build {source.name}; on Debian: apt-get install gcc libc6-dev")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        libraries = [flag for flag in flags if flag.startswith("-l")]
        options = [flag for flag in flags if not flag.startswith("-l")]
        command = [compiler, *options, "-o", str(unfinished), str(source), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{source.name} does not compile:\n{done.stderr}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
