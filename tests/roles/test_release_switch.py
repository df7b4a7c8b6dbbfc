"""A switch ends confirmed or with the old release back, wherever it is cut off; recover finishes what was cut off."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.roles.release import FILES, Noting, errors, gate, make_release, store, switch, unit

OLD, NEW = "old", "new"


class Cut(BaseException):
    """The power goes, or SIGKILL comes: nothing of the program runs any more."""


class Host:
    """A root with two releases; `passes` says which of them pass the gate."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, first: bool = False) -> None:
        self.root, self.passes = root, {OLD, NEW}
        self.looked: list[str] = []
        for created, name in enumerate((OLD, NEW)):
            make_release(root, name, created)
        self.store, self.systemd = store.Store(root), Noting(root)
        self.during: Callable[[], None] = lambda: None

        def pass_within(self_: gate.Gate, appear_s: float, watch_s: float, darkness: gate.Darkness) -> None:
            name = self_.release.id
            self.looked.append(f"{name} {self_.kind} {appear_s:g} {watch_s:g}")
            assert self.systemd.runs == name, "what is looked at is what was started"
            self.during()
            if name not in self.passes:
                raise errors.Failed(f"{name} shows nothing")

        monkeypatch.setattr(gate.Gate, "pass_within", pass_within)
        if not first:
            assert self.switcher.switch(OLD, switch.Asked()).outcome == "confirmed"
            self.systemd.said.clear()
            self.looked.clear()

    @property
    def switcher(self) -> switch.Switcher:
        """The tool, started again."""
        return switch.Switcher(store.Store(self.root), self.systemd, self.root / "token")

    def is_settled(self, name: str | None) -> None:
        """This release is current, confirmed and runs, and nothing is left of any switch."""
        assert self.store.current_id() == name
        assert self.systemd.runs == name
        assert self.store.unconfirmed() is None
        assert [one.name for one in self.root.iterdir() if "switch" in one.name or one.name.startswith(".")] == []
        assert name is None or self.store.confirmed_ids()[-1] == name


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    handlers = {number: signal.getsignal(number) for number in errors.ENDING}
    yield Host(tmp_path, monkeypatch)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_release_that_passes_is_confirmed(host: Host) -> None:
    outcome = host.switcher.switch(NEW, switch.Asked(3, 4))
    assert (outcome.outcome, outcome.release, outcome.previous, outcome.status) == ("confirmed", NEW, OLD, 0)
    assert host.looked == ["new pictures 3 4"]
    host.is_settled(NEW)
    assert host.systemd.said == ["stop", "start", "reload"], "the units are the same: read anew when nobody waits"


def test_another_unit_is_read_before_the_start(host: Host) -> None:
    (host.store.releases / NEW / store.UNIT).write_text("[Service]\n#other\n")
    host.switcher.switch(NEW, switch.Asked())
    assert host.systemd.said == ["stop", "reload", "start"]


def test_a_release_that_does_not_pass_is_put_back(host: Host) -> None:
    host.passes = {OLD}
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert (outcome.outcome, outcome.reason, outcome.status) == ("put_back", "new shows nothing", 1)
    assert outcome.log == ["a line"]
    host.is_settled(OLD)


def test_when_neither_serves_it_is_said_and_the_old_one_stays(host: Host) -> None:
    host.passes = set()
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert (outcome.outcome, outcome.status) == ("down", 1)
    assert outcome.reason == "new shows nothing; old: old shows nothing"
    assert "NOTHING SERVES" in str(outcome)
    host.is_settled(OLD)


def test_an_old_release_that_nobody_can_read_any_more_keeps_no_new_one_out(host: Host) -> None:
    (host.store.releases / OLD / "release.json").write_text("")
    host.passes = set()
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert outcome.outcome == "down"
    assert f"{OLD}/release.json cannot be read" in outcome.reason
    assert host.systemd.runs == OLD, "it may serve all the same"
    assert host.switcher.recover(is_boot=False).outcome == "unchanged"
    host.passes = {NEW}
    assert host.switcher.switch(NEW, switch.Asked()).outcome == "confirmed"
    host.is_settled(NEW)


def test_a_first_release_that_does_not_pass_leaves_the_host_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch, first=True)
    host.passes = set()
    assert host.switcher.switch(NEW, switch.Asked()).outcome == "stopped"
    assert host.looked == ["new pictures 60 30"], "nobody goes without pictures for a first one"
    host.is_settled(None)
    assert list((tmp_path / "units").rglob("*.service")) == []


def test_what_runs_already_is_only_looked_at(host: Host) -> None:
    assert host.switcher.switch(OLD, switch.Asked(gate="live")).outcome == "unchanged"
    assert host.looked == ["old live 8 30"]
    assert host.systemd.said == []


def test_an_unconfirmed_switch_stands_in_the_way_of_the_next(host: Host) -> None:
    host.store.begin(host.store.release(NEW), is_rollback=False)
    with pytest.raises(errors.Refused, match="recover"):
        host.switcher.switch(NEW, switch.Asked())


def test_without_a_release_before_there_is_no_rollback(host: Host) -> None:
    with pytest.raises(errors.Refused, match="there is no release before old"):
        host.switcher.rollback(switch.Asked())
    host.switcher.switch(NEW, switch.Asked())
    host.passes = {NEW}
    outcome = host.switcher.rollback(switch.Asked())
    assert (outcome.outcome, outcome.release, outcome.previous) == ("put_back", OLD, NEW)
    host.is_settled(NEW)
    assert host.store.previous_id() == OLD


@pytest.mark.parametrize("number", errors.ENDING)
def test_a_signal_puts_back_once_something_was_changed(host: Host, number: signal.Signals) -> None:
    def handler(got: int, _: object) -> None:
        raise errors.Interrupted(f"interrupted by {signal.Signals(got).name}")

    signal.signal(number, handler)
    host.during = lambda: signal.raise_signal(number) if host.systemd.runs == NEW else None
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert (outcome.outcome, outcome.reason) == ("put_back", f"interrupted by {number.name}")
    host.is_settled(OLD)
    signal.raise_signal(number)  # while it puts back, and afterwards, nothing gets in between


def test_a_signal_that_comes_with_the_confirmation_is_too_late(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(*_: object) -> None:
        raise errors.Interrupted("too early")

    real = store.Store.confirm

    def confirm(self: store.Store) -> None:
        signal.raise_signal(signal.SIGTERM)
        real(self)

    signal.signal(signal.SIGTERM, handler)
    monkeypatch.setattr(store.Store, "confirm", confirm)
    assert host.switcher.switch(NEW, switch.Asked()).outcome == "confirmed"
    signal.raise_signal(signal.SIGTERM)
    host.is_settled(NEW)


def test_a_signal_between_a_failure_and_the_way_back_does_not_stop_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.passes = {OLD}
    real, raised = switch.say, []

    def say(text: str) -> None:
        if "shows nothing" in text and not raised:
            raised.append(text)
            raise errors.Interrupted("interrupted by SIGTERM")
        real(text)

    monkeypatch.setattr(switch, "say", say)
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert (outcome.outcome, outcome.reason) == ("put_back", "interrupted by SIGTERM")
    host.is_settled(OLD)


def test_a_confirmation_that_cannot_be_written_down_puts_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: store.Store) -> None:
        raise OSError(errno.EIO, "Input/output error", "history.json")

    monkeypatch.setattr(store.Store, "confirm", fails)
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert (outcome.outcome, outcome.reason) == ("put_back", "history.json: Input/output error")
    host.is_settled(OLD)


def test_a_machine_that_shuts_down_gets_its_link_back_and_no_start(host: Host) -> None:
    host.passes, host.during = {OLD}, lambda: setattr(host.systemd, "shuts_down", True)
    outcome = host.switcher.switch(NEW, switch.Asked())
    assert outcome.outcome == "put_back"
    assert "shuts down" in outcome.reason
    assert host.store.current_id() == OLD
    assert host.systemd.runs is None
    assert host.store.unconfirmed() is not None, "the next boot finishes it"
    host.systemd.shuts_down = False
    assert host.switcher.recover(is_boot=True).outcome == "put_back"
    host.is_settled(OLD)


# --- cut off anywhere -----------------------------------------------------------------------------------------------

STEPS = [(os, name) for name in ("fsync", "rename", "replace", "unlink", "symlink")] + [
    (Noting, name) for name in ("stop", "start", "reload", "install", "uninstall")
]


def cut_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let so many steps happen that a disk or systemd would see; before the next one everything ends."""
    left = iter(range(steps))

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            if next(left, None) is None:
                raise Cut
            return real(*given, **more)

        return call

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("is_boot", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_wherever_a_switch_is_cut_off_recover_leaves_a_host_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool, passes: bool, is_boot: bool
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    before = None if first else OLD
    ends, steps = set(), 0
    while True:
        root = tmp_path / str(steps)
        with monkeypatch.context() as patch:
            host = Host(root, patch, first=first)
            if not passes:
                host.passes = {OLD}
            with patch.context() as cutting:
                cut_after(cutting, steps)
                try:
                    host.switcher.switch(NEW, switch.Asked())
                except Cut:
                    is_cut = True
                else:
                    is_cut = False
            if is_boot:
                host.systemd.runs = None  # systemd starts what `current` names, once recover is done
            host.switcher.recover(is_boot=is_boot)
            if is_boot and host.store.current_id():
                host.systemd.start()
            host.is_settled(host.store.current_id())
            ends.add(host.store.current_id())
            assert host.store.current_id() in ({before, NEW} if passes else {before}), steps
        steps += 1
        if not is_cut:
            break
    assert steps > 10, "there were steps to be cut between"
    assert ends == ({before, NEW} if passes else {before})


@pytest.mark.parametrize("is_boot", [False, True])
def test_a_recover_that_is_cut_off_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_boot: bool
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    steps, is_cut = 0, True
    while is_cut:
        with monkeypatch.context() as patch:
            host = Host(tmp_path / str(steps), patch)
            host.store.begin(host.store.release(NEW), is_rollback=False)
            host.store.point_at(host.store.release(NEW))
            host.systemd.start()
            with patch.context() as cutting:
                cut_after(cutting, steps)
                try:
                    host.switcher.recover(is_boot=is_boot)
                    is_cut = False
                except Cut:
                    pass
            if is_boot:
                host.systemd.runs = None
            host.switcher.recover(is_boot=is_boot)
            if is_boot:
                host.systemd.start()
            host.is_settled(OLD)
            steps += 1
    assert steps > 4


# --- the command line -----------------------------------------------------------------------------------------------


def command(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IB", FILES / "camdock-release", *map(str, words)],
        capture_output=True, text=True, timeout=20, check=False, **more,
    )  # fmt: skip


def test_the_command_answers_in_words_or_in_json(host: Host) -> None:
    told = command("status", "--root", host.root)
    assert told.returncode == 0
    assert told.stdout.startswith("current: old\nprevious: none\n  old  1.2  native  1970-01-01 ")
    assert "new  1.2  native" in told.stdout
    as_json = json.loads(command("status", "--root", host.root, "--json").stdout)
    assert [one["id"] for one in as_json["releases"] if one["confirmed"]] == [OLD]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("switch", "nothing"), 2, "there is no release nothing; there are: old, new"),
        pytest.param(("rollback",), 2, "there is no release before old to go back to", marks=pytest.mark.slow),
        pytest.param(("switch", "new", "--appear", "-1"), 2, "seconds, from 0 to 3600", marks=pytest.mark.slow),
        (("switch", "new", "--appear", "nan"), 2, "seconds, from 0 to 3600"),
        (("prune", "--keep", "0"), 2, "a whole number of 1 or more"),
        pytest.param(("switch",), 2, "ID", marks=pytest.mark.slow),
        (("recover",), 0, ""),
    ],
)
def test_wrong_use_is_refused_in_a_sentence(host: Host, words: tuple[str, ...], status: int, said: str) -> None:
    done = command(*words, "--root", host.root)
    assert done.returncode == status, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches() -> None:
    told = command("--help").stdout
    for word in (
        "status",
        "switch",
        "rollback",
        "recover",
        "gate",
        "prune",
        "systemd-run",
        "exit status",
        "history.json",
    ):
        assert word in told


def test_who_reads_may_be_gone(host: Host) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-IB", FILES / "camdock-release", "prune", "--root", host.root],
        stdout=writing, stderr=writing, timeout=20, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0


def test_the_unit_is_wanted_by_what_its_release_says_and_by_nothing_else(tmp_path: Path) -> None:
    systemd = unit.Systemd(tmp_path, tmp_path / "units")
    (tmp_path / "units").mkdir()

    def wanted() -> set[str]:
        return {one.name for one in (tmp_path / "units").glob("*.wants") if (one / "camdock.service").is_symlink()}

    systemd.install("[Service]\n[Install]\nWantedBy=multi-user.target docker.service\n")
    assert wanted() == {"multi-user.target.wants", "docker.service.wants"}
    systemd.install("[Install]\nWantedBy=multi-user.target\n")
    assert wanted() == {"multi-user.target.wants"}
    systemd.uninstall()
    assert wanted() == set()
    assert not systemd.unit_file.is_symlink()
