"""The gate at start, with a small program in place of the check: what it answers, and what follows from it.

The real check on a real environment that breaks: tests/process/test_abi_gate.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from camdock import gate
from camdock.auth import Gate
from camdock.config import Config
from camdock.errors import DriverMissing
from camdock.gate import Abi, AbiGate, CheckFailed, Report
from camdock.guard import Guard
from camdock.installed import Seal
from camdock.pixels import LOADS
from camdock.pixelsworker import OPERATIONS
from tests.unit.rig import app_of, ask, camera_of, live_camera

NAMES = ("numpy", "simplejpeg", "cv2")
FITS: dict[str, Any] = {"numpy": "2.4.6", "modules": [], "findings": []}


def module(file: str, name: str, verdict: str = "breaks", **more: str) -> dict[str, str]:
    """One module as the check reports it."""
    package = f"{name.partition('.')[0]} 1.7.2"
    known = {"file": file, "module": name, "verdict": verdict, "rule": "built-for-1", "evidence": "dtype 96 > 88"}
    return {**known, "package": package, "fix": f"pip install '{package.split()[0]}>=1.7.4'", **more}


JPEG = module("simplejpeg/_jpeg.cpython-311-x86_64-linux-gnu.so", "simplejpeg._jpeg")


def found(*modules: dict[str, str], findings: tuple[dict[str, str], ...] = ()) -> dict[str, Any]:
    """The check's whole answer."""
    return {**FITS, "modules": list(modules), "findings": list(findings)}


class StandIn:
    """A program in place of the check: writes down that it ran and with which words, then answers as told."""

    def __init__(self, folder: Path, answer: Any, *, then: str = "") -> None:
        self.folder, self.runs = folder, folder / "runs"
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.program = folder / "check.py"
        self.program.write_text(
            f"import os, sys, time\nopen({str(self.runs)!r}, 'a').write(repr(sys.argv[1:]) + '\\n')\n"
            f"sys.stdout.write({text!r})\nsys.stdout.flush()\n{then}\n"
        )
        self.cache = folder / "cache" / "abi.json"

    def gate(self, names: tuple[str, ...] = NAMES, *, enabled: bool = True) -> AbiGate:
        """A gate that asks this program."""
        command = (sys.executable, "-I", str(self.program))
        return AbiGate(names, Guard(), self.cache, enabled=enabled, command=command)

    @property
    def asked(self) -> list[str]:
        """The words of every run."""
        return self.runs.read_text().splitlines() if self.runs.exists() else []


async def opened(abi: AbiGate) -> AbiGate:
    """Started, and done with all it does."""
    abi.start()
    if abi._task is not None:
        await abi._task
    abi._guard.stop()
    return abi


def after(abi: AbiGate) -> AbiGate:
    """The same, from outside the event loop."""
    return asyncio.run(opened(abi))


def refused(abi: AbiGate, *loads: str) -> str:
    """What somebody who loads these is told; "" when he is let through."""
    try:
        asyncio.run(abi.admit(loads))
    except DriverMissing as error:
        return f"{error.message} -- {error.hint}"
    return ""


# --- what it says -----------------------------------------------------------------------------------------------------


def test_what_fits_is_let_through_and_the_check_was_asked_for_exactly_these_names(tmp_path: Path) -> None:
    check = StandIn(tmp_path, found(module("cv2/cv2.abi3.so", "cv2.cv2", "ok")))
    abi = after(check.gate())
    assert (abi.state, abi.broken(), refused(abi, *NAMES)) == (Abi.OK, None, "")
    assert check.asked == ["['--only', 'cv2', '--only', 'numpy', '--only', 'simplejpeg']"]


@pytest.mark.parametrize(("verdict", "says"), [
    ("breaks", "does not load"), ("breaks-on-use", "breaks when it is used"), ("hazard", "wrong data")
])  # fmt: skip
def test_only_who_loads_the_broken_library_is_refused_and_is_told_the_fix(
    tmp_path: Path, verdict: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    abi = after(StandIn(tmp_path, found({**JPEG, "verdict": verdict}), then="sys.exit(1)").gate())
    assert abi.state is Abi.BROKEN
    assert refused(abi, "cv2", "numpy") == ""
    told = refused(abi, "simplejpeg", "numpy")
    assert says in told
    for part in ("simplejpeg 1.7.2", "NumPy 2.4.6", "dtype 96 > 88", "pip install 'simplejpeg>=1.7.4'", "restart"):
        assert part in told
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "pip install 'simplejpeg>=1.7.4'" in errors[0]


def test_a_module_that_belongs_to_no_name_is_held_against_all(tmp_path: Path) -> None:
    abi = after(StandIn(tmp_path, found(module("strange.so", "strange"))).gate())
    assert refused(abi, "cv2")
    assert refused(abi, "simplejpeg")


@pytest.mark.parametrize("file", ["simplejpeg.libs/libjpeg-1.so.8", "lib/python3.11/site-packages/simplejpeg/x.so"])
def test_a_library_beside_a_package_is_held_against_that_package(tmp_path: Path, file: str) -> None:
    abi = after(StandIn(tmp_path, found({**JPEG, "file": file, "module": "libjpeg-1.so.8"})).gate())
    assert refused(abi, "simplejpeg")
    assert not refused(abi, "cv2")


def test_many_modules_of_one_package_are_one_sentence_with_every_fix_once(tmp_path: Path) -> None:
    modules = [module(f"cv2/{n}.so", f"cv2.m{n}", fix="pip install cv2") for n in range(40)]
    abi = after(StandIn(tmp_path, found(*modules, JPEG)).gate())
    error = abi.broken()
    assert error is not None
    assert "39 more" in error.message
    assert "simplejpeg" in error.message
    assert error.hint.count("pip install cv2") == 1
    assert error.hint.count("pip install 'simplejpeg") == 1


def test_what_cannot_be_judged_is_let_through_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finding = {"rule": "second-numpy", "message": "two copies of NumPy", "fix": "pip uninstall numpy"}
    answer = found(module("cv2/cv2.so", "cv2.cv2", "unknown", evidence="arm"), findings=(finding,))
    abi = after(StandIn(tmp_path, answer).gate())
    assert (abi.state, refused(abi, *NAMES)) == (Abi.UNKNOWN, "")
    assert "1 modules could not be judged" in caplog.text
    assert "two copies of NumPy -- pip uninstall numpy" in caplog.text


def test_a_report_that_says_nothing_could_be_judged_is_a_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Status 2: none of the libraries is installed, or there is no NumPy."""
    abi = after(StandIn(tmp_path, found(), then="sys.exit(2)").gate())
    assert abi.state is Abi.OK
    unknown = module("cv2/cv2.so", "cv2.cv2", "unknown", evidence="no NumPy")
    (tmp_path / "cache/abi.json").unlink()
    abi = after(StandIn(tmp_path, found(unknown), then="sys.exit(2)").gate())
    assert abi.state is Abi.UNKNOWN
    assert "the first is cv2.cv2: no NumPy" in caplog.text


def test_names_from_files_cannot_forge_lines_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    after(StandIn(tmp_path, found({**JPEG, "package": "x 1\n2026 ERROR forged\x1b[2J", "evidence": "y" * 9000})).gate())
    assert len(caplog.records) == 1
    assert "\n" not in caplog.text.strip()
    assert "\x1b" not in caplog.text
    assert len(caplog.text) < 3000


# --- when there is no answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "then", "says"),
    [
        pytest.param("", "sys.exit('camdock abi: no such target')", None, marks=pytest.mark.slow),
        ("", "sys.stderr.write('cannot read\\n'); sys.exit(2)", "status 2: cannot read"),
        ("{}", "os.kill(os.getpid(), 11)", "status -11"),
        ("no JSON", "", "did not answer JSON"),
        pytest.param("{}", "", "something else than agreed", marks=pytest.mark.slow),
        pytest.param("[]", "", "something else than agreed", marks=pytest.mark.slow),
        ('{"numpy": null, "modules": [{"verdict": "breaks"}], "findings": []}', "", "something else than agreed"),
        pytest.param(
            '{"numpy": 3, "modules": [], "findings": []}', "", "something else than agreed", marks=pytest.mark.slow
        ),
    ],
)
def test_a_check_that_fails_is_said_lets_everybody_through_and_is_asked_again(
    tmp_path: Path, answer: str, then: str, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    check = StandIn(tmp_path, answer, then=then)
    abi = after(check.gate())
    assert (abi.state, refused(abi, *NAMES)) == (Abi.UNKNOWN, "")
    assert "the cameras are started anyway" in caplog.text
    assert (says or "did not answer JSON") in caplog.text
    after(check.gate())
    assert len(check.asked) == 2, "a failure is not kept"


def test_a_check_that_hangs_is_killed_with_its_children(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "CHECK_WITHIN_S", 1.5)
    child = tmp_path / "child"
    then = (
        "import subprocess\nsleeping = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(child)!r}, 'w').write(str(sleeping.pid))\nsleeping.wait()"
    )
    began = time.monotonic()
    abi = after(StandIn(tmp_path, FITS, then=then).gate())
    assert time.monotonic() - began < 15
    assert (abi.state, refused(abi, *NAMES)) == (Abi.UNKNOWN, "")
    assert "took longer than 1.5 s" in caplog.text
    state = subprocess.run(["ps", "-o", "state=", "-p", child.read_text()], capture_output=True, text=True).stdout
    assert state.strip() in ("", "Z"), "its child lives on"


def test_stopping_ends_a_check_that_still_runs(tmp_path: Path) -> None:
    check = StandIn(tmp_path, "", then=f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")

    async def stopped() -> AbiGate:
        abi = check.gate()
        abi.start()
        waiting = asyncio.create_task(abi.admit(["numpy"]))
        async with asyncio.timeout(20):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                assert not waiting.done()
                await asyncio.sleep(0.01)
        assert abi.state is Abi.CHECKING
        await abi.stop()
        abi._guard.stop()
        await waiting
        return abi

    asyncio.run(stopped())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [FITS, found(JPEG, module("cv2/cv2.so", "cv2.cv2", "ok"))], ids=["fits", "breaks"])
def test_the_second_start_starts_no_process(tmp_path: Path, answer: dict[str, Any]) -> None:
    check = StandIn(tmp_path, answer)
    first, second = after(check.gate()), after(check.gate())
    assert len(check.asked) == 1
    assert first.state is second.state
    assert refused(first, "simplejpeg") == refused(second, "simplejpeg")
    after(check.gate(("cv2",)))
    assert len(check.asked) == 2, "other names are another question"


def test_what_changes_is_judged_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    check = StandIn(tmp_path, FITS)
    after(check.gate())
    (tmp_path / "simplejpeg").mkdir()
    (tmp_path / "simplejpeg" / "_jpeg.so").touch()
    after(check.gate())
    assert len(check.asked) == 2


def test_a_kept_answer_that_is_not_as_agreed_is_asked_for_again(tmp_path: Path) -> None:
    check = StandIn(tmp_path, found(JPEG))
    after(check.gate())
    kept = json.loads(check.cache.read_text())
    kept["answers"] = {key: {"numpy": "2.0", "modules": "none", "findings": []} for key in kept["answers"]}
    check.cache.write_text(json.dumps(kept))
    assert after(check.gate()).state is Abi.BROKEN
    assert len(check.asked) == 2


def test_a_sealed_environment_asks_nobody_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="camdock")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.syspath_prepend(str(tmp_path))
    check = StandIn(tmp_path, found(JPEG))  # what would be answered
    Seal.of(NAMES, "2.4.6").write()
    abi = after(check.gate())
    assert (abi.state, refused(abi, *NAMES), check.asked, check.cache.exists()) == (Abi.OK, "", [], False)
    assert "NumPy 2.4.6 and what is built for it, sealed" in caplog.text
    (tmp_path / "simplejpeg").mkdir()
    (tmp_path / "simplejpeg" / "_jpeg.so").touch()
    assert after(check.gate()).state is Abi.BROKEN
    assert len(check.asked) == 1
    assert "since this environment was sealed" in caplog.text


def test_names_that_the_seal_does_not_cover_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    check = StandIn(tmp_path, found(JPEG))
    Seal.of(NAMES[:2], "2.4.6").write()
    assert after(check.gate()).state is Abi.BROKEN
    assert len(check.asked) == 1


# --- what follows -----------------------------------------------------------------------------------------------------


def test_switched_off_it_asks_nobody_and_lets_everybody_through(tmp_path: Path) -> None:
    check = StandIn(tmp_path, found(JPEG))
    abi = after(check.gate(enabled=False))
    assert (abi.state, refused(abi, *NAMES), check.asked) == (Abi.OFF, "", [])


def test_every_state_and_the_fix_reach_the_answers(tmp_path: Path) -> None:
    camera, _worker = live_camera(tmp_path)
    waiting = AbiGate(NAMES, Guard())
    for abi in (waiting, after(StandIn(tmp_path, FITS).gate())):
        served = app_of(camera, abi=abi)
        assert ask(served, "/health").json()["abi"] == abi.state
        assert ask(served, "/health/ready").status_code == 200
        assert f'camdock_abi{{state="{abi.state}"}} 1.0' in ask(served, "/metrics").text
    broken = after(StandIn(tmp_path, found(JPEG)).gate(("simplejpeg",)))
    served = app_of(camera, abi=broken)
    assert ask(served, "/health").json()["abi"] == "broken"
    assert ask(served, "/health/live").status_code == 200
    stranger = ask(served, "/health/ready")
    assert (stranger.status_code, stranger.json()["code"]) == (503, "abi_broken")
    assert "simplejpeg" not in stranger.text
    served = app_of(camera, abi=broken)
    served.add_middleware(Gate, config=Config())  # on loopback everybody may look
    problem = ask(served, "/health/ready")
    assert problem.headers["content-type"] == "application/problem+json"
    assert (problem.status_code, problem.json()["code"]) == (503, "abi_broken")
    assert "simplejpeg 1.7.2 does not load with NumPy 2.4.6" in problem.json()["detail"]
    assert "pip install 'simplejpeg>=1.7.4'" in problem.json()["hint"]


def test_a_camera_that_is_refused_goes_offline_for_good_with_the_fix(tmp_path: Path) -> None:
    broken = after(StandIn(tmp_path, found(JPEG)).gate())

    async def refuse() -> None:
        camera = camera_of(tmp_path)
        camera._admit = lambda: broken.admit(["simplejpeg"])
        async with asyncio.timeout(10):
            await camera._run()  # it ends: no backoff, no next worker
        status = camera.status()
        assert (status.state, status.pid, status.restarts) == ("offline", None, {})
        assert status.error is not None
        assert (status.error.code, status.error.retry) == ("driver_missing", False)
        assert "pip install" in status.error.hint

    asyncio.run(refuse())


def test_the_report_refuses_what_is_no_report() -> None:
    for document in (None, [], {}, {"numpy": "2", "modules": [{}], "findings": []}, {**FITS, "findings": [{}]}):
        with pytest.raises(CheckFailed):
            Report.of(document, NAMES)


def test_every_operation_on_pixels_says_what_it_loads() -> None:
    assert set(LOADS) == set(OPERATIONS) - {"load"}
