"""`camdock abi check`, as it is typed: exit status, streams, files."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from camdock.abi.__main__ import main
from tests.abi import made

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """NumPy 2.2.0, and one module for each verdict that is asked for with `put`."""
    made.numpy(tmp_path / "site", "2.2.0")
    return tmp_path / "site"


def put(folder: Path, **modules: str) -> None:
    for name, trace in modules.items():
        made.module(folder, f"{name}.so", trace, f"the-{name}")


def run(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "camdock.abi", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def test_the_exit_status_says_how_it_went(folder: Path) -> None:
    target = str(folder)
    put(folder, new=made.FOR_2, plain=made.NONE)
    assert main(["check", target]) == 0
    assert main(["check", target, "--numpy", "1.22"]) == 1
    put(folder, careless=made.UNCHECKED)
    assert main(["check", target]) == 0, "a hazard counts when it is asked for"
    assert main(["check", target, "--strict"]) == 1
    put(folder, old=made.FOR_1)
    assert main(["check", target]) == 1
    assert main(["check", target, "--only", "new"]) == 0
    assert main(["check", f"{target}/nowhere"]) == 2
    assert main(["check", target, f"{target}/nowhere"]) == 2
    assert main(["check", target, "--numpy", "two"]) == 2


def test_a_second_numpy_is_a_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.numpy(folder, "2.2.0", recorded="1.26.4")
    assert main(["check", str(folder)]) == 1
    assert "FINDING: a NumPy copied over another" in capsys.readouterr().out


def test_an_unknown_counts_when_asked(folder: Path) -> None:
    made.write(folder / "bad.abi3.so", "no module")
    assert main(["check", str(folder)]) == 0
    assert main(["check", str(folder), "--strict"]) == 1


def test_without_a_numpy_to_judge_by_it_says_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, plain=made.NONE)
    assert main(["check", str(tmp_path)]) == 0, "it does not use NumPy"
    put(tmp_path, old=made.FOR_1)
    capsys.readouterr()
    assert main(["check", str(tmp_path), "--json"]) == 2
    told = capsys.readouterr()
    assert "a module that uses NumPy's C-API, and no NumPy: name one with --numpy" in told.err
    assert len(json.loads(told.out)["modules"]) == 2, "the report is there all the same"
    assert main(["check", str(tmp_path), "--numpy", "1.26.4"]) == 0
    allowed = made.write(tmp_path / "abi.toml", '[[allow]]\nrule = "numpy-unknown"\nreason = "comes later"\n')
    assert main(["check", str(tmp_path), "--strict", "--allow", str(allowed)]) == 0


def test_names_of_which_nothing_is_there_are_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, new=made.FOR_2)
    made.write(folder / "pure/__init__.py")
    assert main(["check", str(folder), "--only", "nwe", "--only", "x", "--json"]) == 2
    told = capsys.readouterr()
    assert "is imported as nwe or x" in told.err
    assert json.loads(told.out)["modules"] == []
    assert main(["check", str(folder), "--only", "nwe", "--only", "new"]) == 0
    assert "is imported as nwe\n" in capsys.readouterr().err
    assert main(["check", str(folder), "--only", "pure"]) == 0, "it is installed, and has nothing compiled"
    assert main(["check", str(folder), str(folder / "pure"), "--only", "new"]) == 0, "one of the targets has it"


def test_json_has_the_shape_for_as_many_targets_as_were_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{folder}/nowhere", str(folder), "--json"]) == 2
    first, second = json.loads(capsys.readouterr().out)["targets"]
    assert list(first) == ["target", "error"]
    assert (first["target"], "is not there" in first["error"]) == (f"{folder}/nowhere", True)
    assert (second["target"], second["numpy"]) == (str(folder), "2.2.0")
    assert main(["check", "/nowhere", "/neither", "--json"]) == 2
    assert [one["target"] for one in json.loads(capsys.readouterr().out)["targets"]] == ["/nowhere", "/neither"]


def test_what_is_no_plain_file_is_written_to_and_stays(folder: Path, tmp_path: Path) -> None:
    pipe, link, real = tmp_path / "pipe", tmp_path / "link.json", tmp_path / "kept/real.json"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        assert main(["check", str(folder), "--json", "--output", str(pipe)]) == 0
        assert json.loads(reader.communicate(timeout=60)[0])["numpy"] == "2.2.0"
    assert pipe.is_fifo()
    real.parent.mkdir()
    link.symlink_to("kept/real.json")
    for _ in range(2):  # before it is there, and after
        assert main(["check", str(folder), "--json", "--output", str(link)]) == 0
        assert link.is_symlink()
        assert json.loads(real.read_text())["numpy"] == "2.2.0"
    # As /dev/stdout leads there; not /dev/null and the like, which a mistake would take from the whole machine.
    with open(tmp_path / "log", "a") as log:
        log.write("kept\n")
        log.flush()
        command = [sys.executable, "-m", "camdock.abi", "check", str(folder), "--output", "/proc/self/fd/1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
        assert subprocess.run(command, stdout=log, env=environment, timeout=60).returncode == 0
    assert (tmp_path / "log").read_text().split()[:4] == ["kept", f"{folder}:", "judged", "by"]


@pytest.mark.parametrize("options", [[], pytest.param(["--json", "--all"], marks=pytest.mark.slow)])
def test_a_full_disk_is_said(folder: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "camdock.abi", "check", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (2, "camdock abi: No space left on device\n")


def test_what_is_allowed_is_not_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, careless=made.UNCHECKED, old=made.FOR_1)
    allowed = tmp_path / "abi.toml"

    def status(text: str) -> int:
        allowed.write_text(text)
        capsys.readouterr()
        return main(["check", str(folder), "--strict", "--allow", str(allowed)])

    one = '[[allow]]\npackage = "The_Careless"\nreason = "no arrays"\n'
    assert status(one) == 1, "the other is still there"
    assert status(one + '[[allow]]\nfile = "o*.so"\nrule = "built-for-1"\nreason = "never imported"\n') == 0
    shown = capsys.readouterr().out
    assert "careless" in shown, "it is shown all the same"
    assert "accepted: never imported" in shown
    assert status(one + '[[allow]]\npackage = "absent"\nreason = "x"\n') == 1
    assert "allows package 'absent'" in capsys.readouterr().err

    for text, words in {
        '[[allow]]\npackage = "the-careless"\n': "no reason",
        '[[allow]]\npackage = "the-careless"\nreason = " "\n': "says something",
        '[[allow]]\nreason = "because"\n': "everything",
        '[[allow]]\nrule = "uncheked"\nreason = "x"\n': "no rule 'uncheked'",
        '[[allow]]\npakage = "x"\nreason = "x"\n': "'pakage' is not known",
        '[[alow]]\nreason = "x"\n': "[[allow]] and nothing else",
        "allow = 3\n": "[[allow]] and nothing else",
        "[[allow": "no TOML",
    }.items():
        assert status(text) == 2, text
        assert words in capsys.readouterr().err, text
    allowed.unlink()
    assert main(["check", str(folder), "--allow", str(allowed)]) == 2


def test_a_report_goes_whole_to_its_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, old=made.FOR_1)
    out = made.write(tmp_path / "out/report.json", "what was there before")
    assert main(["check", str(folder), "--json", "--output", str(out)]) == 1
    assert capsys.readouterr().out == ""
    assert json.loads(out.read_text())["modules"][0]["module"] == "old"
    assert [path.name for path in out.parent.iterdir()] == ["report.json"]
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert main(["check", str(folder), "--json", "--output", str(tmp_path / "none/report.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["check", str(folder), "--junit", "--output", "-"]) == 1
    assert capsys.readouterr().out.startswith("<?xml")


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_a_reader_that_leaves_early_is_no_error(folder: Path) -> None:
    put(folder, old=made.FOR_1)
    line = f"{sys.executable} -m camdock.abi check {folder} --json --all | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_a_terminated_check_leaves_nothing_behind(tmp_path: Path) -> None:
    """It waits for an image from a `docker` that never ends, and is terminated as soon as its folder is there."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    started = tmp_path / "started"
    os.mkfifo(started)
    command = made.write(tmp_path / "bin/docker", f"#!/bin/sh\necho >{started}\nexec sleep 60\n")
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "service"),
        "TMPDIR": str(temporary),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
    }
    with subprocess.Popen([sys.executable, "-m", "camdock.abi", "check", "image"], env=environment) as process:
        started.read_text()
        assert len(list(temporary.iterdir())) == 1
        process.terminate()
        assert process.wait(timeout=60) == 128 + 15
    assert list(temporary.iterdir()) == []


def test_no_colour_and_no_progress_reach_a_pipe(folder: Path) -> None:
    put(folder, old=made.FOR_1)
    done = run("check", folder)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "fix: python3 -m pip install" in done.stdout


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_terminal_gets_colour_unless_it_is_unwanted(folder: Path, plain: bool) -> None:
    put(folder, old=made.FOR_1)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "service"), "TERM": "xterm", "NO_COLOR": "1" if plain else ""}
    command = [sys.executable, "-m", "camdock.abi", "check", str(folder)]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            seen += piece
        assert process.wait(timeout=60) == 1
    os.close(ours)
    assert (b"\x1b[31;1mBREAKS" in seen) is not plain


def test_nothing_of_the_target_is_imported(folder: Path, tmp_path: Path) -> None:
    """The running environment, with a `numpy` on its path that would leave a trace, and the current folder beside."""
    witness = tmp_path / "was-imported"
    made.write(folder / "numpy/__init__.py", f"open({str(witness)!r}, 'w')")
    made.write(folder / "sitecustomize.py", "")
    put(folder, old=made.FOR_1)
    elsewhere = tmp_path / "elsewhere"
    made.module(elsewhere, "stray.so", made.FOR_1)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT / 'service'}"}
    done = subprocess.run(
        [sys.executable, "-m", "camdock.abi", "check", "--json", "--only", "old", "--only", "stray"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=elsewhere,
        timeout=100,
    )
    said = json.loads(done.stdout)
    assert said["numpy"] == "2.2.0"
    names = {module["module"]: module["verdict"] for module in said["modules"]}
    assert names["old"] == "breaks"
    assert "stray" not in names, "the current folder is not part of the environment"
    assert not witness.exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["--help"], "check"), (["check", "--help"], "breaks-on-use")):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        assert words in text
        assert "examples" in text
    for arguments in ([], ["chek"], ["check", "--format", "yaml"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
