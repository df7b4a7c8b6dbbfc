"""Deployed to a host with a kernel of its own: V4L2 pictures, through a reboot, without the driver, and its faults."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.host.vm.conftest import CAMERA, WITHIN_S, Deployed, Part
from tests.tools.machine import Machine
from tests.tools.service import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DRIVER = "/sys/bus/platform/drivers/vivid"
# What the driver can be told to get wrong; whether it happens while pictures come, or at the next opening.
WHILE_STREAMING = (
    "inject_v4l2_buf_flag_error",
    "inject_vidioc_qbuf_error",
    "inject_fatal_streaming_error",
    "disconnect",
)
AT_OPENING = ("inject_vidioc_reqbufs_error", "inject_vidioc_streamon_error")


def press(machine: Machine, *buttons: str) -> None:
    """Press these of the driver's buttons, in this order."""
    asked = " ".join(f"--set-ctrl {button}=1" for button in buttons)
    machine.done(f"v4l2-ctl --device {CAMERA} {asked}", timeout_s=WITHIN_S)


def test_after_the_play_there_are_real_pictures_and_the_groups(service: Deployed, machine: Machine) -> None:
    pictures = service.pictures(3)
    assert service.camera()["device"] == f"vivid ({CAMERA})"
    shown = [Image.open(io.BytesIO(picture.jpeg)).convert("RGB") for picture in pictures]
    assert {picture.size for picture in shown} == {(320, 180)}
    assert len({picture.tobytes() for picture in shown}) == len(shown), "vivid's pictures carry a running clock"
    pid = machine.done("systemctl show --property MainPID --value camdock").strip()
    status = dict(line.split(":\t", 1) for line in machine.done(f"cat /proc/{pid}/status").splitlines())
    assert set(status["Uid"].split()) == {"10001"}
    assert "44" in status["Groups"].split()
    assert machine.done("stat --format %g:%a /dev/video4 /dev/media0 /dev/dma_heap/*").split() == ["44:660"] * 3


@pytest.mark.parametrize("button", WHILE_STREAMING + AT_OPENING)
def test_pictures_return_after_each_fault_of_the_driver(
    service: Deployed, machine: Machine, part: Part, button: str
) -> None:
    before, process = service.until_state("live", within_s=WITHIN_S), service.process()
    # The driver forgets a fault when the stream that it was meant for ends: what belongs to an opening needs one.
    with part(button):
        press(machine, button, *(["disconnect"] if button in AT_OPENING else []))

        def noticed() -> bool:
            now = service.camera()
            return bool(now["restarts"] != before["restarts"] or now["drops"] != before["drops"])

        until(noticed, WITHIN_S, lambda: f"{button} is noticed: {service.camera()}; {service.log}", 0.5)
        service.pictures()
    assert service.camera()["frames"] > before["frames"]
    assert service.process() == process, "nobody restarted the service"


def test_without_the_driver_and_back(service: Deployed, machine: Machine, part: Part) -> None:
    before, process = service.until_state("live", within_s=WITHIN_S), service.process()
    with part("modprobe -r vivid: offline"):
        # As when the cable is pulled: a module whose device is open cannot be unloaded.
        machine.done(f"for one in {DRIVER}/vivid.*; do basename $one >{DRIVER}/unbind; done", timeout_s=WITHIN_S)
        gone = service.until_state("offline", within_s=WITHIN_S)
        until(lambda: machine.run("modprobe -r vivid").returncode == 0, WITHIN_S, "the driver is unloaded", 0.5)
    assert gone["reason"]["code"] == "source_missing"
    assert machine.run(f"test -e {CAMERA}").returncode != 0
    with part("modprobe vivid: pictures"):
        machine.done("modprobe vivid && udevadm settle", timeout_s=WITHIN_S)
        assert machine.done(f"stat --format %g:%a {CAMERA}").strip() == "44:660", "made anew, for the group"
        service.pictures()
    assert service.camera()["frames"] > before["frames"]
    assert service.process() == process, "nobody restarted the service"


def test_it_survives_a_reboot(service: Deployed, machine: Machine, part: Part) -> None:
    with part("reboot: pictures"):
        machine.reboot()
        service.find()
        service.pictures()
    machine.done(f"exec 3<>{CAMERA}", user="pi")  # logged in anew
    assert service.process().split()[-1] == "NRestarts=0"
