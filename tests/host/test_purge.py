"""The role purge on real hosts: what is in the way goes, nothing else does, and all of it can come back.

The tests of a class follow each other on one host, in the order in which they stand here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.target import PIP_CACHE, Target, play

pytestmark = pytest.mark.timeout(900)

ROLE = Path(__file__).with_name("purge.yml")
UNDO, PREFERENCES = "/var/lib/camdock-purge/undo.json", "/etc/apt/preferences.d/camdock"
ENVIRONMENT = "/srv/look"
APT = ("python3-numpy", "python3-opencv", "python3-h5py", "python3-bottleneck")
OF_APT = {*APT, "python3-h5py-serial"}
# Packages as Raspberry Pi OS has them, and somebody's program. The first time that this python3-picamera2 is removed,
# the power goes: everything that runs is killed while dpkg is in the middle of it.
POWER_CUT = """#!/bin/sh
if [ "$1" = remove ] && [ -e /var/tmp/power-cut ]; then rm /var/tmp/power-cut; sync; kill -KILL -1; sleep 600; fi
"""
MADE = {
    "python3-libcamera": ("0.5.2-1", "", ""),
    "python3-picamera2": ("0.3.31-1", "python3-libcamera, python3-numpy", POWER_CUT),
    "octo-vision": ("1.0-1", "python3-numpy-abi9", ""),
    "octo-vision-extra": ("1.0-1", "octo-vision", ""),
}


def made(target: Target, name: str) -> None:
    """Build a package into /srv/made, and make that a source that apt could be told of."""
    version, depends, before_removal = MADE[name]
    folder = f"/srv/build/{name}"
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n"
    control += f"Depends: {depends}\n" if depends else ""
    target.put(f"{folder}/DEBIAN/control", control + "Description: made for a test\n")
    target.put(f"{folder}/usr/share/{name}/there", "there\n")
    if before_removal:
        target.put(f"{folder}/DEBIAN/prerm", before_removal)
        target.done(f"chmod 755 {folder}/DEBIAN/prerm")
    target.done(f"mkdir -p /srv/made && dpkg-deb --build --root-owner-group {folder} /srv/made/{name}.deb")
    target.done(
        f"cd /srv/made && {{ dpkg-deb --field {name}.deb; echo Filename: ./{name}.deb; "
        f"echo Size: $(stat --format %s {name}.deb); echo SHA256: $(sha256sum {name}.deb | cut -d' ' -f1); echo; }} "
        ">>Packages"
    )


def installed(target: Target) -> dict[str, tuple[str, str]]:
    """Every installed package: its version, and "auto" or "manual"."""
    auto = set(target.done("apt-mark showauto").split())
    lines = target.done(r"dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n'").splitlines()
    found = (line.split() for line in lines)
    return {
        name: (version, "auto" if name in auto else "manual") for name, version, state in found if state == "installed"
    }


def imported(target: Target, name: str) -> str:
    """What the environment's Python says when it imports a module; "" when that works."""
    ended = target.run(f"{ENVIRONMENT}/bin/python -c 'import {name}'")
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


class TestBookworm:
    """Debian 12, apt's NumPy 1.24 and what was compiled for it, and an environment with NumPy 2 that sees it all."""

    before: dict[str, tuple[str, str]]

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Target]:
        with Target("bookworm", (*APT, "python3-venv"), PIP_CACHE) as target:
            target.done("apt-get update --quiet")
            target.done(f"python3 -m venv --system-site-packages {ENVIRONMENT}")
            target.done(f"{ENVIRONMENT}/bin/pip install --quiet numpy==2.2.0", within_s=300)
            for name in MADE:
                made(target, name)
            target.done("dpkg --install /srv/made/python3-libcamera.deb /srv/made/python3-picamera2.deb")
            target.done("apt-mark auto python3-libcamera")
            yield target

    def test_it_breaks(self, target: Target) -> None:
        assert "_ARRAY_API not found" in imported(target, "bottleneck")
        assert "numpy.dtype size changed, may indicate binary incompatibility. Expected 96" in imported(target, "h5py")
        assert "_ARRAY_API not found" in imported(target, "cv2")

    def test_what_is_not_on_the_list_is_never_taken_and_named_with_its_reason(self, target: Target) -> None:
        target.done("dpkg --install /srv/made/octo-vision.deb /srv/made/octo-vision-extra.deb")
        before = installed(target)
        done = play(ROLE, target, expect=2)
        assert "octo-vision 1.0-1: it depends on python3-numpy." in done.output
        assert "octo-vision-extra 1.0-1: it depends on octo-vision, which depends on python3-numpy." in done.output
        assert "purge_also_allow: [octo-vision, octo-vision-extra]" in done.output
        assert done.recap[target.name]["changed"] == 0
        one = play(ROLE, target, options=("--check", "--diff"), expect=2, purge_also_allow=["octo-vision"])
        assert "octo-vision-extra 1.0-1" in one.output
        assert "octo-vision 1.0-1: it" not in one.output
        assert installed(target) == before
        assert not target.host.file(UNDO).exists
        assert not target.host.file(PREFERENCES).exists

    def test_a_dpkg_that_was_interrupted_is_said(self, target: Target) -> None:
        target.done("dpkg --unpack /srv/made/octo-vision.deb")
        half = play(ROLE, target, expect=2).output
        assert "dpkg was interrupted: octo-vision is half-way" in half
        assert "dpkg --configure -a" in half
        target.done("dpkg --configure -a")

    def test_a_held_lock_is_waited_for_and_its_holder_named(self, target: Target) -> None:
        lock = "f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
        hold = f"import fcntl, signal; {lock}; signal.pause()"
        target.done(f'systemd-run --unit=other --quiet python3 -c "{hold}"')
        allowed = ["octo-vision", "octo-vision-extra"]
        done = play(ROLE, target, expect=2, purge_also_allow=allowed, purge_lock_timeout_s=1)
        assert "another program is installing packages: python3 (process " in done.output
        target.done("systemctl stop other")
        assert not target.host.file(UNDO).exists

    def test_check_says_what_would_go_and_what_that_would_mend(self, target: Target) -> None:
        type(self).before = before = installed(target)
        done = play(
            ROLE, target, options=("--check", "--diff"), purge_environments=[ENVIRONMENT],
            purge_also_allow=["octo-vision", "octo-vision-extra"],
        )  # fmt: skip
        assert done.recap[target.name]["changed"] == 1
        assert "-python3-h5py-serial 3.7.0-8 (auto)" in done.output
        assert "+Package: python3-numpy" in done.output
        for package in ("python3-bottleneck", "python3-h5py-serial", "python3-opencv"):
            assert f"{ENVIRONMENT} (NumPy 2.2.0): would be mended: {package}" in done.output
        assert "BROKEN" not in done.output
        assert installed(target) == before
        assert not target.host.file(UNDO).exists

    def test_killed_in_the_middle_of_a_package_the_undo_list_has_everything(self, target: Target) -> None:
        target.put("/var/tmp/power-cut", "")
        done = play(
            ROLE, target, expect=None, purge_also_allow=["octo-vision", "octo-vision-extra"], purge_ask_abi=False
        )
        assert done.status != 0
        target.until_up()
        assert not target.host.file("/var/tmp/power-cut").exists, "the power never went"
        self.undo_has_everything(target)
        assert "python3-numpy" in installed(target)

    def test_run_again_it_removes_the_list_and_nothing_else(self, target: Target) -> None:
        done = play(
            ROLE, target, purge_environments=[ENVIRONMENT], purge_also_allow=["octo-vision", "octo-vision-extra"]
        )
        gone = self.before.keys() - installed(target).keys()
        assert gone == {*OF_APT, "python3-picamera2", "octo-vision", "octo-vision-extra"}
        self.undo_has_everything(target)
        # dpkg had come to python3-picamera2 when the power went: python3-opencv was there still, the others were not.
        assert f"{ENVIRONMENT} (NumPy 2.2.0): is mended: python3-opencv" in done.output
        assert "BROKEN" not in done.output

    def undo_has_everything(self, target: Target) -> None:
        undo = json.loads(target.done(f"cat {UNDO}"))
        listed = {one["name"]: (one["version"], one["mark"]) for one in undo["packages"]}
        names = {*OF_APT, "python3-picamera2", "octo-vision", "octo-vision-extra"}
        assert listed == {name: self.before[name] for name in names}
        assert undo["kept"] == ["python3-libcamera"]

    def test_the_cameras_stack_is_safe_from_autoremove(self, target: Target) -> None:
        assert installed(target)["python3-libcamera"] == ("0.5.2-1", "manual")
        would = target.done("apt-get --simulate autoremove")
        assert "Remv libopencv-core406" in would, "there is something to take"
        assert "python3-libcamera" not in would

    def test_the_second_run_changes_nothing(self, target: Target) -> None:
        for options in ((), ("--check", "--diff")):
            done = play(ROLE, target, options=options, purge_environments=[ENVIRONMENT])
            assert done.recap[target.name]["changed"] == 0
            assert f"{ENVIRONMENT} (NumPy 2.2.0): nothing is broken" in done.output
        self.undo_has_everything(target)

    def test_apt_does_not_bring_it_back(self, target: Target) -> None:
        for name in ("python3-numpy", "python3-scipy"):
            refused = target.run(f"apt-get --yes install {name}")
            assert refused.returncode != 0
            assert "has no installation candidate" in refused.stderr + refused.stdout
        assert target.done("apt-get --simulate install --yes python3-yaml")

    def test_the_wheels_that_were_shadowed_work_now(self, target: Target) -> None:
        target.done(
            f"{ENVIRONMENT}/bin/pip install --quiet h5py==3.13.0 bottleneck==1.4.2 opencv-python-headless==4.12.0.88",
            within_s=300,
        )
        assert [imported(target, name) for name in ("h5py", "bottleneck", "cv2")] == ["", "", ""]

    def test_restore_says_what_is_not_to_be_had_and_puts_the_rest_back(self, target: Target) -> None:
        check = play("restore.yml", target, options=("--check", "--diff"))
        assert "+python3-numpy=" in check.output
        assert not OF_APT & installed(target).keys()
        done = play("restore.yml", target, expect=2)
        assert "octo-vision 1.0-1 is not to be had any more" in done.output
        have = installed(target)
        assert {name: have.get(name) for name in OF_APT} == {name: self.before[name] for name in OF_APT}
        undo = json.loads(target.done(f"cat {UNDO}"))
        assert {one["name"] for one in undo["packages"]} == {"octo-vision", "octo-vision-extra", "python3-picamera2"}

    def test_restore_again_puts_everything_back_as_it_was_and_then_changes_nothing(self, target: Target) -> None:
        target.put("/etc/apt/sources.list.d/made.list", "deb [trusted=yes] file:/srv/made ./\n")
        assert play("restore.yml", target).recap[target.name]["changed"] == 1
        assert installed(target) == self.before
        assert not target.host.file(UNDO).exists
        assert not target.host.file(PREFERENCES).exists
        for options in ((), ("--check", "--diff")):
            again = play("restore.yml", target, options=options)
            assert again.recap[target.name]["changed"] == 0
            assert "nothing was ever removed here" in again.output


class TestTrixie:
    """Debian 13, bare at first."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Target]:
        with Target("trixie", ("python3-venv",)) as target:
            target.done("apt-get update --quiet")
            yield target

    def test_a_bare_host_gets_the_preferences_and_loses_nothing(self, target: Target) -> None:
        before = installed(target)
        assert play("restore.yml", target).recap[target.name]["changed"] == 0
        check = play(ROLE, target, options=("--check", "--diff"), purge_ask_abi=False)
        assert check.recap[target.name]["changed"] == 1
        assert not target.host.file(PREFERENCES).exists
        assert play(ROLE, target).recap[target.name]["changed"] == 1
        again = play(ROLE, target)
        assert again.recap[target.name]["changed"] == 0
        assert "the system's Python (no NumPy): nothing is broken" in again.output
        assert installed(target) == before
        assert "has no installation candidate" in target.run("apt-get --yes install python3-numpy").stderr

    def test_what_was_installed_later_goes_too_and_comes_back_in_the_current_version(self, target: Target) -> None:
        target.done(f"rm {PREFERENCES}")
        target.done("apt-get install --yes --quiet --no-install-recommends python3-bottleneck", within_s=300)
        before = installed(target)
        done = play(ROLE, target, purge_ask_abi=False)
        assert done.recap[target.name]["changed"] == 1
        assert before.keys() - installed(target).keys() == {"python3-numpy", "python3-numpy-dev", "python3-bottleneck"}
        undo = json.loads(target.done(f"cat {UNDO}"))
        for one in undo["packages"]:
            if one["name"] == "python3-bottleneck":
                one["version"] = "1.0-1"
        target.put(UNDO, json.dumps(undo))
        restored = play("restore.yml", target)
        version, mark = before["python3-bottleneck"]
        assert f"python3-bottleneck comes back as {version}: 1.0-1 is not to be had any more" in restored.output
        assert mark == "manual"
        assert installed(target) == before

    def test_an_undo_list_that_cannot_be_read_stops_everything(self, target: Target) -> None:
        before = installed(target)
        target.put(UNDO, '{"format": 1, "packages": [')
        for playbook in (ROLE, "restore.yml"):
            done = play(playbook, target, expect=2)
            assert f"{UNDO}, the list of what was removed from this host, cannot be read" in done.output
        assert installed(target) == before
        target.done(f"rm {UNDO}")

    def test_bad_variables_are_refused_in_words(self, target: Target) -> None:
        done = play(ROLE, target, expect=2, purge_lock_timeout_s="soon")
        assert "purge_lock_timeout_s" in done.output
        done = play(
            ROLE,
            target,
            expect=2,
            ansible_facts={"pkg_mgr": "dnf", "distribution": "Fedora", "distribution_version": "43"},
        )
        assert "runs Fedora 43, which has no apt" in " ".join(done.output.split())
