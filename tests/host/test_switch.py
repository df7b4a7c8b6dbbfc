"""The switch from one release to another, native: what goes wrong on the way costs seconds, never the old release."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.host.conftest import Figure
from tests.host.switching import GOOD, TOKEN, TOOL, Deployed, Outsider, is_short, unit
from tests.tools.service import until
from tests.tools.target import PIP_CACHE, Target, play

pytestmark = pytest.mark.timeout(900)
HANGING = "synthetic:?hang_open=1"
WAY_BACK = f"--property=ExecStopPost='{TOOL} recover --quiet'"


@pytest.fixture(scope="module")
def bare() -> Iterator[Deployed]:
    """A host with one build and no release yet."""
    with Target("trixie", packages=("python3-venv",), options=PIP_CACHE) as target:
        host = Deployed(target)
        host.build_native()
        yield host


@pytest.fixture
def host(bare: Deployed) -> Iterator[Deployed]:
    """A host on which the release `steady` serves; afterwards nothing of a switch may be left over."""
    bare.target.run("systemctl stop camdock-switch.service")
    bare.target.done("rm -rf /opt/camdock/releases/*/")
    bare.release("steady")
    with contextlib.suppress(AssertionError):  # what a failed test has left
        bare.tool("recover")
    if bare.target.run("readlink /opt/camdock/current").stdout.strip() != "releases/steady":
        bare.target.done("rm -f /opt/camdock/current")
        bare.tool("switch steady --watch 0")
    bare.tool("gate --watch 0")
    yield bare
    assert bare.target.run("ls -A /opt/camdock").stdout.split() == [
        ".lock", "bin", "builds", "current", "history.json", "releases",
    ]  # fmt: skip


def serves(host: Deployed, name: str) -> None:
    """The release is current, runs, and its camera gives pictures."""
    assert host.current == name
    assert host.tool("gate --watch 0")["outcome"] == "passed"


def in_unit(host: Deployed, words: str) -> None:
    """Start the tool as the role does, by a caller who may be gone a moment later."""
    host.target.done(
        f"systemd-run --unit=camdock-switch --collect --wait --pipe --quiet {WAY_BACK} {TOOL} {words} --json "
        ">/dev/null 2>&1 </dev/null & disown"
    )


def over(host: Deployed) -> bool:
    """Whether nobody switches any more."""
    return host.target.run("systemctl is-active camdock-switch.service").stdout.strip() in ("inactive", "failed")


# --- the first release ----------------------------------------------------------------------------------------------


def test_a_first_release_that_fails_leaves_nothing_behind(bare: Deployed) -> None:
    bare.release("first", "synthetic:?nonsense=1")
    told = bare.tool("switch first --watch 0 --appear 60", expect=1)
    assert told["outcome"] == "stopped"
    assert "no option 'nonsense'" in "\n".join(told["log"])
    assert bare.target.run("readlink /opt/camdock/current").returncode == 1
    assert bare.target.run("ls -d /etc/systemd/system/camdock.service").returncode != 0
    assert bare.target.run("systemctl is-active camdock.service").stdout.strip() == "inactive"
    assert bare.tool("recover")["outcome"] == "unchanged"


# --- what goes well -------------------------------------------------------------------------------------------------


def test_a_viewer_misses_less_than_three_seconds_of_a_good_switch(host: Deployed, figure: Figure) -> None:
    gaps = []
    for name in ("next", "next-but-one", "third"):  # the machine may be busy: the best of three, and at least one
        host.release(name)
        with Outsider(host.target.address) as viewer:
            told = host.tool(f"switch {name} --watch 1")
            assert told["outcome"] == "confirmed"
            came = len(viewer.times)
            until(lambda came=came, viewer=viewer: len(viewer.times) > came, 60, "pictures go on")
        gaps.append(viewer.longest_gap())
        assert told["without_pictures_s"] > gaps[-1] / 2, "what the tool says is what a viewer sees"
        if gaps[-1] < 3:
            break
    figure(f"without pictures for {', '.join(f'{gap:.2f}' for gap in gaps)} s")
    assert is_short(host, min(gaps), 3)
    serves(host, name)
    status = host.tool("status")
    assert status["current"] == name
    assert status["unconfirmed"] is None
    assert host.target.done("systemctl show --property NeedDaemonReload --value camdock.service") == "no"


def test_a_rollback_goes_back_one_release_and_the_next_one_further(host: Deployed) -> None:
    for name in ("second", "third"):
        host.release(name)
        host.tool(f"switch {name} --watch 0")
    assert host.tool("rollback --watch 0")["release"] == "second"
    assert host.tool("rollback --watch 0")["release"] == "steady"
    serves(host, "steady")
    assert host.tool("status")["previous"] is None


def test_a_switch_to_what_runs_already_restarts_nothing(host: Deployed) -> None:
    before = host.main_pid
    assert host.tool("switch steady --watch 0")["outcome"] == "unchanged"
    assert host.main_pid == before


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "spoil", "reason", "within_s"),
    [
        pytest.param(GOOD, "rm -rf /opt/camdock/builds/bad/venv", "exit status 203", 12, id="no-program"),
        pytest.param(GOOD, "echo garbage >/opt/camdock/releases/bad/camdock.service", "systemd", 12, id="no-unit"),
        pytest.param("synthetic:?nonsense=1", "", "exit status 2", 12, id="does-not-start"),
        pytest.param("opencv:0", "", "camera: ", 12, id="driver-missing"),
        pytest.param(HANGING, "", "after 8 s: camera: it is st", 15, id="no-pictures"),
        pytest.param("synthetic:?hang_after=1", "", "camera: it", 15, id="one-picture"),
    ],
)
def test_a_release_that_gives_no_pictures_is_taken_back(
    host: Deployed, source: str, spoil: str, reason: str, within_s: float, figure: Figure
) -> None:
    host.target.done(
        "rm -rf /opt/camdock/builds/bad && mkdir /opt/camdock/builds/bad && touch /opt/camdock/builds/bad/complete"
    )
    if not spoil.startswith("rm"):
        host.target.done("ln -s ../b1/venv /opt/camdock/builds/bad/venv")
    host.release("bad", source, build="bad")
    if spoil:
        host.target.done(spoil)
    with Outsider(host.target.address) as viewer:
        told = host.tool(f"switch bad --appear {8 if 'after 8 s' in reason else 60}", expect=1)
        came = len(viewer.times)
        until(lambda: len(viewer.times) > came, 60, "pictures are back")
    assert told["outcome"] == "put_back"
    assert reason in told["reason"]
    assert told["log"], "why is in the service's own log"
    serves(host, "steady")
    figure(f"without pictures for {viewer.longest_gap():.2f} s")
    assert is_short(host, viewer.longest_gap(), within_s)
    each = "for pid in $(pgrep -u camdock); do tr '\\0' '\\n' </proc/$pid/environ | grep ^INVOCATION_ID; done"
    assert len(set(host.target.done(each).splitlines())) == 1, "nothing of it is left"


@pytest.mark.parametrize(
    ("source", "unit_text", "reason"),
    [
        pytest.param(
            GOOD,
            unit("native").replace("TimeoutStartSec", "RuntimeMaxSec=20\nTimeoutStartSec"),
            "the service",
            id="service",
        ),
        pytest.param(GOOD + "&crash_after=400", None, "its driver process ended", id="driver"),
    ],
)
def test_a_release_that_dies_after_twenty_seconds_is_taken_back(
    host: Deployed, source: str, unit_text: str | None, reason: str, figure: Figure
) -> None:
    host.release("mayfly", source, unit_text=unit_text)
    with Outsider(host.target.address) as viewer:
        told = host.tool("switch mayfly --appear 60", expect=1)
        came = len(viewer.times)
        until(lambda: len(viewer.times) > came, 60, "pictures are back")
    assert told["outcome"] == "put_back"
    assert reason in told["reason"]
    serves(host, "steady")
    figure(f"without pictures for {viewer.longest_gap():.2f} s")
    assert is_short(host, viewer.longest_gap(), 15)


def test_the_old_release_that_does_not_serve_either_is_said_loudly(host: Deployed) -> None:
    host.target.done("sed -i 's/^CAMDOCK_SOURCE=.*/CAMDOCK_SOURCE=nonsense:/' /opt/camdock/releases/steady/camdock.env")
    host.release("bad", "synthetic:?nonsense=1")
    told = host.tool("switch bad --appear 60", expect=1)
    assert told["outcome"] == "down"
    log = "\n".join(told["log"])
    assert "no option 'nonsense'" in log
    assert "no kind of source called 'nonsense'" in log
    host.release("mended")
    assert host.tool("switch mended --watch 0")["outcome"] == "confirmed"


# --- killed, cut off, full ------------------------------------------------------------------------------------------


def test_a_switch_goes_on_when_its_caller_is_killed(host: Deployed) -> None:
    for name, source, then in (("good", GOOD, "good"), ("bad", HANGING, "good")):
        host.release(name, source)
        in_unit(host, f"switch {name} --watch 3" + (" --appear 60" if name == "good" else ""))
        until(lambda name=name: host.current == name, 20, "the switch is under way", 0.02)
        host.target.done("pkill --signal KILL --exact systemd-run")
        until(lambda: over(host), 60, "it has come to its end")
        serves(host, then)
    assert [one["confirmed"] for one in host.tool("status")["releases"] if one["id"] in ("good", "bad")] == [
        True,
        False,
    ]


@pytest.mark.parametrize("how", ["reboot", "power_cut"])
def test_a_reboot_in_the_middle_puts_the_old_release_back_before_the_service_starts(host: Deployed, how: str) -> None:
    host.release("tried", HANGING)
    in_unit(host, "switch tried --appear 60")
    until(lambda: host.current == "tried" and host.main_pid != "0", 20, "it is being tried", 0.02)

    def starts() -> int:  # a container's boots look like one to the journal
        return host.target.done("journalctl --unit camdock.service --output cat").count("source " + HANGING)

    before = until(starts, 60, "it has said so")
    getattr(host.target, how)()
    until(lambda: host.target.run("systemctl is-active camdock.service").stdout.strip() == "active", 30, "it is up")
    host.tool("gate --watch 0")
    serves(host, "steady")
    assert starts() == before, "what was never confirmed was not even started"
    assert host.tool("status")["unconfirmed"] is None


STATES = {
    "journal written": "[ -e switch.json ]",
    "old one stopped": "[ -e switch.json ] && ! systemctl --quiet is-active camdock.service",
    "link changed": "[ $(readlink current) = releases/tried ]",
    "in the gate": "[ $(readlink current) = releases/tried ] && systemctl --quiet is-active camdock.service",
    "put back": 'grep -q tried switch.json && [ -n "$SEEN" ] && [ $(readlink current) = releases/steady ]',
}


@pytest.mark.parametrize("state", STATES)
def test_whenever_the_tool_is_killed_recover_brings_the_old_release_back(host: Deployed, state: str) -> None:
    host.release("tried", HANGING)
    appear_s = 1 if state == "put back" else 60
    told = host.target.done(
        f"cd /opt/camdock; {TOOL} switch tried --appear {appear_s} --watch 0 >/dev/null 2>&1 & pid=$!; "
        "cd /opt/camdock; SEEN=; "
        f"while kill -0 $pid 2>/dev/null; do [ $(readlink current) = releases/tried ] && SEEN=1; "
        f"if {STATES[state]}; then kill -KILL $pid; wait $pid; echo killed; exit 0; fi; done; echo 'it was over'"
    )
    if told == "killed":
        journal = json.loads(host.target.run("cat /opt/camdock/switch.json").stdout or "{}")
        assert host.tool("recover")["outcome"] == ("put_back" if journal else "unchanged")
    else:
        assert state == "put back", "that moment is short: it may pass unseen"
    serves(host, "steady")
    assert host.tool("recover")["outcome"] == "unchanged"


def test_a_tool_that_is_killed_in_its_unit_is_followed_by_the_way_back(host: Deployed) -> None:
    host.release("tried", HANGING)
    in_unit(host, "switch tried --appear 60")
    until(lambda: host.current == "tried", 20, "it is being tried", 0.02)
    host.target.done("systemctl kill --kill-whom=main --signal=KILL camdock-switch.service")
    until(lambda: over(host), 60, "the unit has come to its end")
    serves(host, "steady")


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_a_signal_during_the_gate_puts_the_old_release_back(host: Deployed, signal: str) -> None:
    host.release("tried")
    told = host.target.done(
        f"cd /opt/camdock; set -m; {TOOL} switch tried --appear 60 --watch 60 --json >/tmp/told & pid=$!; "
        "until [ $(readlink current) = releases/tried ] && systemctl --quiet is-active camdock; do :; done; "
        f"kill -{signal} $pid; wait $pid; echo $?; cat /tmp/told"
    )
    code, _, answer = told.partition("\n")
    assert code == "1"
    assert json.loads(answer)["reason"] == f"interrupted by SIG{signal}"
    serves(host, "steady")


def test_a_full_disk_changes_nothing_and_stops_no_confirmation(host: Deployed) -> None:
    # The same folder on a file system of 1 MB; the builds stay where they are.
    host.release("next")
    host.target.done(
        "mkdir -p /mnt/small && mount -t tmpfs -o size=1m none /mnt/small && cd /opt/camdock && "
        "cp -a .lock bin releases current history.json /mnt/small && mkdir /mnt/small/builds && "
        "mount --bind builds /mnt/small/builds && mount --rbind /mnt/small /opt/camdock"
    )
    fill = "dd if=/dev/zero of=/opt/camdock/filler bs=4k 2>/dev/null; true"
    try:
        host.target.done(fill)
        before = host.main_pid
        told = host.tool("switch next --watch 0", expect=1)
        assert told["outcome"] == "refused"
        assert "the file system of /opt/camdock is full: 0.0 MB" in told["reason"]
        assert host.main_pid == before
        serves(host, "steady")
        host.target.done("rm /opt/camdock/filler")
        in_unit(host, "switch next --appear 60 --watch 4")
        until(lambda: host.current == "next", 20, "it is being tried", 0.02)
        host.target.done(fill)
        until(lambda: over(host), 60, "it has come to its end")
        assert [one["confirmed"] for one in host.tool("status")["releases"]] == [True, True]
        serves(host, "next")
        host.target.done("rm /opt/camdock/filler")
        assert host.tool("rollback --watch 0")["release"] == "steady"
    finally:
        host.target.run("systemctl stop camdock; umount -l /opt/camdock /mnt/small; systemctl start camdock")


# --- the unit -------------------------------------------------------------------------------------------------------


def test_the_service_can_do_little_beside_serving(host: Deployed) -> None:
    host.target.done("systemd-analyze security --threshold=20 --no-pager camdock.service")  # 2.0 of 10
    assert host.target.run("systemd-analyze verify /etc/systemd/system/camdock.service").stderr == ""
    pid = host.main_pid
    status = host.target.done(f"cat /proc/{pid}/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "Uid:\t10001" in status
    inside = f"nsenter --target {pid} --mount setpriv --reuid 10001 --regid 10001 --clear-groups"
    for path in ("/opt/camdock/current/camdock.env", "/etc/camdock/token", "/usr/lib/tried", "/home/tried"):
        assert host.target.run(f"{inside} sh -c 'echo >>{path}'").returncode != 0, path
    host.target.done(f"{inside} sh -c 'echo >/var/lib/camdock/captures/tried && rm /var/lib/camdock/captures/tried'")
    assert TOKEN not in host.target.done(
        "systemctl show camdock.service; systemctl cat camdock.service; ps axww -o args"
    )


def test_no_worker_survives_a_stop_not_even_one_that_hears_nothing(host: Deployed) -> None:
    host.release("deaf", GOOD + "&hang_after=60", gate="live")
    host.tool("switch deaf --watch 0")
    with contextlib.suppress(AssertionError, TimeoutError), Outsider(host.target.address):
        until(lambda: host.camera()["state"] in ("stalled", "offline"), 15, "its driver hangs")
    host.target.done("systemctl stop camdock.service", within_s=30)
    assert host.target.run("pgrep -u camdock").stdout == ""
    host.target.done("systemctl start camdock.service")


def test_a_host_whose_camera_is_missing_is_never_given_up_on(host: Deployed) -> None:
    host.target.done("touch /var/lib/camdock/gone")
    host.release("waiting", "synthetic:?fps=20&gone=/var/lib/camdock/gone", gate="live")
    assert host.tool("switch waiting --watch 2")["outcome"] == "confirmed"
    assert host.camera()["reason"]["code"] == "source_missing"
    for _ in range(6):  # more than systemd puts up with by default
        pid = host.main_pid
        host.target.done(f"kill -KILL {pid}")
        until(lambda pid=pid: host.main_pid not in ("0", pid), 20, "it is started again")
    host.target.done("rm /var/lib/camdock/gone")
    assert host.tool("gate --gate pictures --watch 0")["outcome"] == "passed"


def test_a_service_that_is_stuck_is_restarted_by_the_watchdog(host: Deployed) -> None:
    host.release("watched", unit_text=unit("native").replace("WatchdogSec=20", "WatchdogSec=2"))
    host.tool("switch watched --watch 0")
    pid = host.main_pid
    host.target.done(f"kill -STOP {pid}")
    until(lambda: host.main_pid not in ("0", pid), 30, "it was replaced")
    assert "watchdog" in host.target.done("journalctl --unit camdock.service --lines 30 --output cat").lower()


# --- by playbook ----------------------------------------------------------------------------------------------------


def test_rollback_yml_goes_back_and_says_so(host: Deployed) -> None:
    name = host.target.name
    refused = play("rollback.yml", host.target, expect=2)
    assert "There is no release before steady" in refused.output
    host.release("second")
    host.tool("switch second --watch 0")
    tried = play("rollback.yml", host.target, options=("--check", "--diff"))
    assert "Would go back from second to steady" in tried.output
    assert tried.recap[name]["changed"] == 1
    serves(host, "second")
    done = play("rollback.yml", host.target, deploy_watch_s=0, deploy_appear_s=60)
    assert "Going back from second to steady" in done.output
    assert "steady serves again" in done.output
    assert done.recap[name]["changed"] == 1
    serves(host, "steady")


def test_rollback_yml_fails_with_the_log_when_the_older_release_does_not_serve(host: Deployed) -> None:
    host.release("second")
    host.tool("switch second --watch 0")
    host.target.done("sed -i 's/^CAMDOCK_SOURCE=.*/CAMDOCK_SOURCE=nonsense:/' /opt/camdock/releases/steady/camdock.env")
    failed = play("rollback.yml", host.target, expect=2)
    assert "no kind of source called" in failed.output
    assert TOKEN not in failed.output
    serves(host, "second")
    assert host.tool("status")["previous"] == "steady"
