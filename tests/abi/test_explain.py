"""Explaining tracebacks and logs. The texts in data/messages are what Python printed in real environments, recorded."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camdock.abi import explain as command
from camdock.abi.check import Module, Report
from camdock.abi.explain import Explanation, explain
from camdock.abi.messages import FAILURES, HINT, MESSAGES
from camdock.abi.rules import RULES
from tests.abi import made

MESSAGES_DIR = Path(__file__).parent / "data" / "messages"
PYTHON = "/opt/app/venv/bin/python -m pip install"


def recorded(name: str) -> str:
    return (MESSAGES_DIR / f"{name}.txt").read_text()


def only(text: str, environment: Report | None = None) -> Explanation:
    """The one explanation of a text: a failure that is told twice is a mistake too."""
    return only_of(text.splitlines(), environment)


def only_of(lines: list[str], environment: Report | None = None) -> Explanation:
    found = explain(lines, environment)
    assert len(found) == 1, found
    return found[0]


# ------------------------------------------------------------------------------------------ what was really printed

RECORDED = {
    "simplejpeg": ("built-for-1", "simplejpeg._jpeg", f"{PYTHON} 'simplejpeg>=1.7.4'"),
    "opencv": ("built-for-1", "cv2", f"{PYTHON} 'opencv-python-headless>=4.10.0.84'"),
    "opencv-twice": ("built-for-1", "cv2", f"{PYTHON} 'opencv-python-headless>=4.10.0.84'"),
    "debian-bottleneck": ("built-for-1", "bottleneck.move", "python -m pip install 'bottleneck>=1.4.0'"),
    "debian-h5py": ("built-for-1", "h5py._debian_h5py_serial._errors", "python -m pip install 'h5py>=3.11.0'"),
    "fast-histogram": ("built-for-1", "fast_histogram._histogram_core", f"{PYTHON} 'fast-histogram>=0.14'"),
    "numexpr": ("numpy-too-old", "numexpr.interpreter", f"{PYTHON} 'numpy>=1.23,<2'"),
    "soxr": ("built-for-1", "soxr.cysoxr", f"{PYTHON} 'soxr>=0.4.0'"),
    "cftime": ("built-for-1", "cftime._cftime", f"{PYTHON} 'cftime>=1.6.4'"),
    "pandas": ("built-for-1", "pandas._libs.interval", f"{PYTHON} 'pandas>=2.2.2'"),
    "scikit-image": ("built-for-1", "skimage._shared.geometry", f"{PYTHON} 'scikit-image>=0.23.1'"),
    "pykdtree": ("type-size", "pykdtree.kdtree", "python -m pip install 'numpy>=1.22,<2'"),
    "api-version": ("numpy-too-old", "", "python -m pip install 'numpy>=1.23,<2'"),
    "umath": ("built-for-1", "", ""),
    "numba": ("refused", "numba", f"{PYTHON} --upgrade numba"),
    "pickle": ("numpy-moved", "", "python -m pip install 'numpy>=1.26.1,<2'"),
    "numpy-1-of-another-python": ("numpy-broken", "numpy", f"{PYTHON} --force-reinstall --no-deps numpy==1.22.4"),
    "numpy-2-of-another-python": ("numpy-broken", "numpy", f"{PYTHON} --force-reinstall --no-deps numpy==2.0.2"),
    "numpy-without-openblas": ("numpy-linked", "numpy", f"{PYTHON} --force-reinstall --no-deps numpy==1.26.4"),
}


def test_every_recording_is_expected_to_mean_something() -> None:
    assert {path.stem for path in MESSAGES_DIR.glob("*.txt")} == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_failure_is_named_with_its_culprit_and_fix(name: str) -> None:
    found = only(recorded(name))
    assert (found.failure, found.culprit, found.fix) == RECORDED[name]
    assert found.why
    assert found.title


# ----------------------------------------------------------------------------------------------- how logs carry it


def with_compose(text: str, service: str) -> str:
    return "".join(f"{service}-1  | {line}\n" for line in text.splitlines())


CARRIED = {
    "as it is": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "docker compose": lambda text: with_compose(text, "camera"),
    "timestamps": lambda text: "".join(f"2025-05-20T10:11:12.123456789Z {line}\n" for line in text.splitlines()),
    "journald": lambda text: "".join(f"May 20 10:11:12 pi camdock[812]: {line}\n" for line in text.splitlines()),
    "logging": lambda text: "".join(f"2025-05-20 10:11:12,123 ERROR app: {line}\n" for line in text.splitlines()),
    "colours": lambda text: "".join(f"\x1b[33mcamera |\x1b[0m \x1b[1;31m{line}\x1b[0m\n" for line in text.splitlines()),
    "the colours of Python 3.13": lambda text: text.replace('File "', 'File \x1b[35m"').replace(
        '", line', '"\x1b[0m, line'
    ),
    "json-file": lambda text: "".join(
        json.dumps({"log": line + "\n", "stream": "stderr"}) + "\n" for line in text.splitlines()
    ),
    "one JSON record": lambda text: json.dumps({"level": "error", "exc_info": text}) + "\n",
    "kept indentation lost": lambda text: "".join(f"{line.strip()}\n" for line in text.splitlines()),
    "Windows": lambda text: text.replace(
        "/opt/app/venv/lib/python3.11/site-packages/", "C:\\app\\Lib\\site-packages\\"
    ),
}


@pytest.mark.parametrize("name", ["simplejpeg", "opencv", "fast-histogram", "numexpr", "debian-bottleneck", "soxr"])
@pytest.mark.parametrize("carried", CARRIED)
def test_a_log_may_put_anything_around_it(name: str, carried: str) -> None:
    found = only(CARRIED[carried](recorded(name)))
    assert (found.failure, found.culprit) == RECORDED[name][:2]


def test_services_whose_lines_are_interleaved_are_told_apart() -> None:
    one = with_compose(recorded("simplejpeg"), "camera").splitlines()
    other = with_compose(recorded("numexpr"), "worker").splitlines()
    longest = max(len(one), len(other))
    mixed = [lines[i] for i in range(longest) for lines in (one, other) if i < len(lines)]
    assert {found.culprit for found in explain("\n".join(mixed))} == {"simplejpeg._jpeg", "numexpr.interpreter"}


def test_a_crash_loop_is_one_failure_told_how_often() -> None:
    found = only(recorded("simplejpeg") * 50)
    assert (found.times, found.line) == (50, 6)


def test_two_failures_in_one_log_are_two_explanations_in_their_order() -> None:
    found = explain(recorded("opencv") + "some other line\n" * 5 + recorded("numexpr") + recorded("simplejpeg"))
    assert [one.culprit for one in found] == ["cv2", "numexpr.interpreter", "simplejpeg._jpeg"]


def test_a_failure_that_begins_with_numpys_own_message_is_named_below_another() -> None:
    found = explain(recorded("numexpr") + recorded("soxr"))
    assert [one.culprit for one in found] == ["numexpr.interpreter", "soxr.cysoxr"]
    assert "NumPy 2.0.2" in found[1].message


def test_a_log_full_of_different_failures_is_read_in_time_and_bounded() -> None:
    text = recorded("simplejpeg")
    log = "".join(text.replace("simplejpeg", f"thing{number}") for number in range(3000))
    began = time.process_time()
    found = explain(log)
    assert time.process_time() - began < 5
    assert len(found) == 200


def test_a_paste_that_lost_its_line_breaks_is_understood() -> None:
    found = only(" ".join(recorded("opencv").split("Traceback")[0].split()) + " AttributeError: _ARRAY_API not found")
    assert found.failure == "built-for-1"
    assert "NumPy 2.3.1" in found.message


def test_lines_that_overwrite_each_other_are_lines() -> None:
    found = only_of(["pulling 10%\rpulling 100%\r" + recorded("simplejpeg").replace("\n", "\r")])
    assert found.culprit == "simplejpeg._jpeg"


def test_a_failure_far_below_another_lends_it_no_culprit() -> None:
    below = (
        'Traceback (most recent call last):\n  File "/app/main.py", line 1, in <module>\n    import cv2\n'
        "ImportError: numpy.core.multiarray failed to import\n"
    )
    found = explain(recorded("api-version") + "some other line\n" * 100 + below)
    assert [(one.failure, one.culprit) for one in found] == [("numpy-too-old", ""), ("did-not-load", "cv2")]


def test_cythons_own_words_are_believed_before_the_line_that_imports() -> None:
    text = recorded("cftime").replace("from ._cftime import (datetime, real_datetime,", "from .times import now")
    assert only(text).culprit == "cftime._cftime"


def test_cython_code_that_fails_on_first_use_names_its_module() -> None:
    text = (
        'Traceback (most recent call last):\n  File "/app/main.py", line 3, in <module>\n    frame.mean()\n'
        '  File "pandas/_libs/reduction.pyx", line 12, in pandas._libs.reduction.mean\n'
        "ImportError: numpy.core.multiarray failed to import\n"
    )
    assert only(text).culprit == "pandas._libs.reduction"


def test_the_message_is_shown_and_not_the_code_that_raises_it() -> None:
    assert only(recorded("numba")).message == "ImportError: Numba needs NumPy 1.26 or less"


def test_ipython_writes_frames_in_its_own_way() -> None:
    text = (
        "ImportError                               Traceback (most recent call last)\n"
        "Cell In[1], line 1\n----> 1 import cv2\n\n"
        "File ~/venv/lib/python3.11/site-packages/cv2/__init__.py:181\n    176 \n--> 181 bootstrap()\n\n"
        "ImportError: numpy.core.multiarray failed to import\n"
    )
    assert only(text).culprit == "cv2"


def test_an_unrelated_traceback_above_names_no_culprit() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/opt/app/venv/lib/python3.11/site-packages/requests/api.py", line 1, in get\n'
        "    import urllib3\nrequests.exceptions.ConnectionError: refused\n\n" + recorded("api-version")
    )
    assert only(text).culprit == ""


# -------------------------------------------------------------------------------------------------- single messages

LINES = [
    (line, failure)
    for row in (MESSAGES_DIR.parent / "lines.tsv").read_text().splitlines()
    for failure, _, line in [row.partition("\t")]
]


@pytest.mark.parametrize(("line", "failure"), LINES)
def test_a_message_alone_is_known(line: str, failure: str) -> None:
    assert only(line).failure == failure


def test_numbers_are_put_in_releases() -> None:
    found = only("RuntimeError: module compiled against API version 0x10 but this version of numpy is 0xf")
    assert "NumPy 1.23 (0x10)" in found.why
    assert "1.22 (0xf)" in found.why
    assert found.fix == "python -m pip install 'numpy>=1.23,<2'"
    newer = only(
        "module was compiled against NumPy C-API version 0x14 (NumPy 2.3) but the running NumPy has C-API version 0x12"
    )
    assert newer.fix == "python -m pip install 'numpy>=2.3'"


def test_a_type_that_grew_is_harmless() -> None:
    found = only(next(line for line, failure in LINES if failure == "type-grew"))
    assert found.harmless
    assert found.fix == ""


def test_a_type_of_another_package_is_said_not_to_be_numpys() -> None:
    found = only(next(line for line, failure in LINES if failure == "other-type-size"))
    assert "NumPy has no part in it" in found.title
    assert "sklearn.tree._criterion.Criterion" in found.why
    assert found.rule == ""


def test_opencvs_complaint_about_itself_follows_from_the_failure_above_it() -> None:
    recursion = next(line for line, _ in LINES if "recursion is detected" in line) + "\n"
    assert only(recorded("opencv") + recursion).failure == "built-for-1"
    assert only(recursion + "unrelated\n" * 100 + recorded("opencv")).failure == "built-for-1"


def test_a_library_of_the_system_that_numpy_misses_is_named_with_its_package() -> None:
    text = recorded("numpy-without-openblas").replace("libopenblas64_p-r0-0cf96a72.3.23.dev.so", "libopenblas.so.0")
    assert only(text).fix == "apt-get install libopenblas0"


def test_every_message_is_tried_here_and_let_through_by_the_search_that_passes_over_most_lines() -> None:
    texts = [line for line, _ in LINES] + CRASHES + [line for name in RECORDED for line in recorded(name).splitlines()]
    met = {
        next((message.pattern.pattern for message in MESSAGES if message.pattern.search(line)), "")
        for line in texts
        if HINT.search(line)
    }
    assert {message.pattern.pattern for message in MESSAGES} == met - {""}


def test_failures_and_rules_speak_of_the_same_things() -> None:
    assert {message.failure for message in MESSAGES} <= set(FAILURES)
    assert {failure.rule for failure in FAILURES.values()} <= {"", *RULES}


# -------------------------------------------------------------------------------------------------- the environment


def module(name: str, package: str, verdict: str = "breaks", rule: str = "built-for-1") -> Module:
    fix = "" if verdict == "ok" else f"/venv/bin/python -m pip install --upgrade {package.split()[0]}"
    return Module(f"{name.replace('.', '/')}.so", name, verdict, rule, "compiled with 1.x headers", package, fix)  # type: ignore[arg-type]


BROKEN = Report(
    "/venv",
    "2.3.1",
    [
        module("cv2.cv2", "opencv-python-headless 4.8.1.78"),
        module("soxr.cysoxr", "soxr 0.2.7"),
        module("av.frame", "av 14", "ok", "no-numpy"),
    ],
)


def test_the_environment_knows_the_module_the_package_and_the_fix() -> None:
    found = only(recorded("opencv"), BROKEN)
    assert (found.culprit, found.package) == ("cv2.cv2", "opencv-python-headless 4.8.1.78")
    assert found.fix == "/venv/bin/python -m pip install --upgrade opencv-python-headless"
    assert found.evidence == "compiled with 1.x headers"
    assert ": /venv/bin/python -m pip install 'numpy<2' (" in found.alternative


def test_the_environment_names_what_the_text_does_not() -> None:
    found = explain("ImportError: numpy.core.multiarray failed to import", BROKEN)
    assert [one.culprit for one in found] == ["cv2.cv2", "soxr.cysoxr"]
    assert {one.title for one in found} == {FAILURES["built-for-1"].title}


def test_what_is_all_right_in_the_environment_is_not_blamed_on_it() -> None:
    found = only(
        recorded("simplejpeg"), Report("/venv", "2.2.0", [module("simplejpeg._jpeg", "simplejpeg 1.8.2", "ok", "fits")])
    )
    assert "In /venv it is all right now" in found.why


ONE_X = "RuntimeError: module compiled against API version 0x10 but this version of numpy is 0xf"


def test_modules_that_fail_otherwise_are_not_blamed_for_what_the_text_says() -> None:
    too_old = module("numexpr.interpreter", "numexpr 2.10.1", rule="numpy-too-old")
    report = Report("/venv", "1.22.4", [module("odd.one", "odd 1", rule="type-size"), too_old])
    assert [one.culprit for one in explain(ONE_X, report)] == ["numexpr.interpreter"]


def test_a_text_about_another_numpy_than_the_environments_is_explained_by_itself_and_says_so() -> None:
    found = only(ONE_X, BROKEN)
    assert (found.culprit, found.package, found.rule) == ("", "", "numpy-too-old")
    assert found.fix == "python -m pip install 'numpy>=1.23,<2'"
    assert "The text is about NumPy 1.22, and /venv has 2.3.1" in found.why
    # with a name: another environment's numexpr is not this one's
    found = only(recorded("numexpr"), Report("/venv", "2.2.0", [module("numexpr.interpreter", "numexpr 2.8.4")]))
    assert found.fix == f"{PYTHON} 'numpy>=1.23,<2'"
    assert "/venv has 2.2.0" in found.why
    found = only(recorded("simplejpeg"), Report("/venv", "1.26.4", [module("simplejpeg._jpeg", "simplejpeg 1", "ok")]))
    assert "The text is about NumPy 2, and /venv has 1.26.4" in found.why


def test_what_breaks_in_both_environments_is_mended_in_the_one_that_is_here() -> None:
    found = only(recorded("opencv"), Report("/venv", "2.0.2", BROKEN.modules))
    assert found.package == "opencv-python-headless 4.8.1.78"
    assert "The text is about" not in found.why


def test_a_size_that_many_releases_share_contradicts_none_of_them() -> None:
    line = next(line for line, _ in LINES if "numpy.broadcast size changed" in line)
    found = only(line, Report("/venv", "1.22.4", [module("odd.one", "odd 1", rule="type-size")]))
    assert found.culprit == "odd.one"
    assert "The text is about" not in found.why


CRASHES = [
    "systemd[1]: camdock.service: Main process exited, code=dumped, status=11/SEGV",
    "camdock.service: Main process exited, code=exited, status=139/n/a",
    "Segmentation fault (core dumped)",
    "camera-1 exited with code 139",
    "Fatal Python error: Segmentation fault",
    "kernel: [12.3] python3[812]: segfault at 0 ip 00007f9e error 4 in cysoxr.abi3.so[7f9e+1000]",
    "Main process exited, code=dumped, status=11/SEGV, signal 11",
    "subprocess died, returncode: -11",
]


@pytest.mark.parametrize("line", CRASHES)
def test_a_crash_is_explained_only_where_a_module_of_the_environment_accounts_for_it(line: str) -> None:
    broken = Report("/venv", "2.0.2", [module("soxr.cysoxr", "soxr 0.2.7")])
    assert only(line, broken).culprit == "soxr.cysoxr"
    assert explain(line) == []
    assert explain(line, Report("/venv", "2.0.2", [module("soxr.cysoxr", "soxr 0.4.0", "ok", "fits")])) == []


def test_a_crash_after_numpys_own_message_belongs_to_it() -> None:
    found = only(recorded("soxr") + "Segmentation fault (core dumped)\n")
    assert found.culprit == "soxr.cysoxr"
    assert "Then the process crashed." in found.why


def test_faulthandler_lists_the_newest_frame_first() -> None:
    text = (
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f2d12eb4b80 (most recent call first):\n"
        '  File "<frozen importlib._bootstrap_external>", line 1176 in create_module\n'
        '  File "/venv/lib/python3.9/site-packages/soxr/__init__.py", line 9 in <module>\n'
        '  File "/venv/lib/python3.9/site-packages/librosa/core/audio.py", line 9 in <module>\n'
    )
    assert only(text, BROKEN).culprit == "soxr.cysoxr"


# -------------------------------------------------------------------------------------------------- large, hostile


def test_a_log_of_megabytes_takes_a_second_or_two() -> None:
    noise = '192.168.0.17 - - [20/May/2025:10:11:12 +0200] "GET /stream?fps=15 HTTP/1.1" 200 12345 "-" "Mozilla/5.0"\n'
    log = noise * 60_000 + recorded("simplejpeg") + noise * 20_000  # 8 MB
    began = time.process_time()
    found = only(log)
    assert time.process_time() - began < 2
    assert found.line == 60_006


PIECES = (
    *('File "', "a.", "from . import ", "numpy size changed ", "compiled against ABI version 0x1 ", "SystemError: "),
    *("\x1b[", "_API ", "C extension: ", "/site-packages/", "Error", "Traceback (most recent", "{\\n", " | "),
    *("import_module('", "a/a/a/a/site-packages/", "numpy._core.a", "A NumPy version >=1 and <", " ", ": "),
)


@pytest.mark.parametrize("piece", PIECES)
def test_no_line_takes_more_than_linear_time(piece: str) -> None:
    def seconds(length: int) -> float:
        line = piece * (length // len(piece))
        texts = [line, f'File "{line}", line 1, in f\n{line}\n{line}Error: numpy size changed', "x-1 | " + line]
        began = time.process_time()
        for text in texts:
            explain(text)
        return time.process_time() - began

    seconds(1000)
    assert seconds(400_000) < 4


@given(
    st.lists(
        st.sampled_from(
            [
                *(line for line, _ in LINES),
                *recorded("opencv").splitlines(),
                *recorded("soxr").splitlines(),
                *CRASHES,
                "",
                "noise",
            ]
        ),
        max_size=40,
    )
)
def test_messages_in_any_order_are_explained_without_a_failure_of_ours(lines: list[str]) -> None:
    for found in explain(lines, BROKEN):
        assert found.failure in FAILURES
        assert 1 <= found.line <= len(lines)
    explain(lines)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    explain(text, BROKEN)


# ------------------------------------------------------------------------------------------------------ the command


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given_words = parser.parse_args(["explain", *words])
    status: int = given_words.run(given_words)
    return status


def test_the_command_explains_a_file_and_leaves_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(MESSAGES_DIR / "simplejpeg.txt")) == 0
    said = capsys.readouterr().out
    assert "culprit  simplejpeg._jpeg" in said
    assert "pip install 'simplejpeg>=1.7.4'" in said


def test_modules_that_one_message_may_be_about_are_listed_below_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = made.environment(tmp_path / "venv")
    made.numpy(site)
    for name in ("one", "two"):
        made.module(site, f"{name}.cpython-311-x86_64-linux-gnu.so", made.FOR_1, name)
    (tmp_path / "log").write_text("ImportError: numpy.core.multiarray failed to import\n")
    assert run(str(tmp_path / "log"), "--env", str(tmp_path / "venv")) == 0
    said = capsys.readouterr().out
    assert said.count("  message ") == said.count("  why ") == said.count("  or ") == 1
    assert "culprit  one, of one 1.0\n" in said
    assert "culprit  two, of two 1.0\n" in said
    assert said.count("--upgrade") == 2


def test_what_a_terminal_would_obey_is_shown_and_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    osc = "\x1b]0;PWN\x07"
    (tmp_path / "log").write_text(
        f"{osc}{recorded('simplejpeg')}\n{osc}ImportError: {osc}numpy.core.multiarray failed"
        f" to import\n{osc}RuntimeError: {ONE_X}\x9b2J\u202e\n"
    )
    assert run(str(tmp_path / "log")) == 0
    assert run(str(tmp_path / f"{osc}missing")) == 2
    (tmp_path / f"{osc}empty").mkdir()
    (tmp_path / "crash").write_text(CRASHES[0])
    assert run(str(tmp_path / "crash"), "--env", str(tmp_path / f"{osc}empty")) == 1
    said = capsys.readouterr()
    assert "PWN" in said.out
    assert said.err.count("PWN") >= 2
    assert {sign for sign in said.out + said.err if not sign.isprintable()} == {"\n"}


def test_the_command_leaves_with_1_where_nothing_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("all is well\n")
    assert run(str(tmp_path / "log")) == 1
    assert "Looked for" in capsys.readouterr().err


def test_the_command_leaves_with_1_for_a_crash_nothing_accounts_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("Segmentation fault (core dumped)\n")
    (tmp_path / "empty").mkdir()
    assert run(str(tmp_path / "log"), "--env", str(tmp_path / "empty")) == 1
    assert "--env" in capsys.readouterr().err


def test_the_command_leaves_with_2_for_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "missing")) == 2
    assert "missing" in capsys.readouterr().err
    assert run(str(MESSAGES_DIR / "opencv.txt"), "--env", str(tmp_path / "nowhere")) == 2
    assert "nowhere" in capsys.readouterr().err
    assert run(str(tmp_path)) == 2


def test_the_command_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(MESSAGES_DIR / "opencv.txt"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["environment"] is None
    assert [one["culprit"] for one in said["explanations"]] == ["cv2"]
    assert run(str(MESSAGES_DIR / "opencv.txt"), "--json") == 0


def test_a_log_can_be_piped_with_bytes_that_are_no_text() -> None:
    piped = subprocess.run(
        [sys.executable, "-m", "camdock.abi", "explain"],
        input=b"\xff\xfe\x00" + recorded("simplejpeg").encode(),
        capture_output=True,
        timeout=60,
    )
    assert piped.returncode == 0, piped.stderr
    assert b"simplejpeg._jpeg" in piped.stdout


def test_lines_may_come_from_any_iterable() -> None:
    assert explain(io.StringIO(recorded("simplejpeg")))[0].culprit == "simplejpeg._jpeg"
