"""Pi: what picamera2 and libcamera say of themselves, where a camera is driven by them, and what they would meet here.

Runs in: the doctor's process. What looks and loads is `picamera2` in drivers.py, in an errand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camdock.doctor.answer import Answer
from camdock.doctor.report import Check, Status

SYMPTOM = "'Picamera2' object has no attribute 'allocator'"


def checks(answer: Answer) -> list[Check]:
    """The installed copies, whether they load together, and the one message of picamera2 that has three causes."""
    if not answer.given:
        status = Status.UNKNOWN if answer.hung else Status.BAD
        return [Check("picamera2", status, f"could not be looked at: {answer.stuck or answer.trouble}")]
    facts: dict[str, Any] = {}
    for given in answer.given:
        facts |= given
    return [_copies(facts), _library(facts, answer), _allocator(facts)]


def _copies(facts: Mapping[str, Any]) -> Check:
    if facts["several"]:
        what = "; ".join(facts["several"])
        hint = "`pip uninstall picamera2` in the virtual environment, or `sudo apt remove python3-picamera2`: keep one"
        return Check("picamera2.copies", Status.WARNING, what, hint, facts)
    if not facts["copies"]["picamera2"]:
        return Check("picamera2.copies", Status.BAD, "picamera2 is not installed", facts["install"], facts)
    if not facts["copies"]["libcamera"]:
        return Check("picamera2.copies", Status.BAD, "libcamera's Python binding is not there", facts["install"], facts)
    words = [f"{name} {found[0]}" for name, found in facts["copies"].items()]
    return Check("picamera2.copies", Status.OK, "; ".join(words), "", facts)


def _library(facts: Mapping[str, Any], answer: Answer) -> Check:
    if "message" not in facts:
        what = f"picamera2 does not load: {answer.stuck or answer.trouble}"
        return Check("picamera2.library", Status.UNKNOWN if answer.hung else Status.BAD, what)
    if facts["message"]:
        return Check("picamera2.library", Status.BAD, facts["message"], facts["hint"])
    both = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return Check("picamera2.library", Status.OK, f"{both} load together")


def _allocator(facts: Mapping[str, Any]) -> Check:
    """Each cause of that message, as far as it is one here."""
    name = "picamera2.allocator"
    if facts["is_too_old"]:
        what = f"{SYMPTOM}: picamera2 {facts['version']} makes it in configure(), which fails first with this libcamera"
        return Check(name, Status.BAD, what, "`pip install 'picamera2>=0.3.17,<0.4'`")
    if not facts["heaps"]:
        what = f"{SYMPTOM}: there is no {facts['heap_folder']}, where picamera2 takes the memory for its pictures"
        hint = "in a container: compose.pi.yaml; on the machine itself: a Raspberry Pi kernel makes it"
        return Check(name, Status.BAD, what, hint)
    if not any(facts["heaps"].values()):
        what = f"{SYMPTOM}: {', '.join(facts['heaps'])} may not be opened by this user"
        return Check(name, Status.BAD, what, "`sudo usermod -aG video USER`, then start the service anew")
    if facts["dies_of_two"]:
        what = (
            f"picamera2 {facts['version']} would say {SYMPTOM} where one process opens a camera twice; Camdock opens "
            "it once for each worker, and a worker that gives no pictures is started again"
        )
        return Check(name, Status.OK, what, "picamera2 0.3.37 has mended it")
    return Check(name, Status.OK, "there is memory for its pictures")
