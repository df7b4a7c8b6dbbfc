"""compose.yaml with a real V4L2 driver: a kernel of its own with `vivid`, Debian's engine, the image of this checkout.

The machine's processor is emulated: its deadlines are minutes where a Raspberry Pi needs seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.tools.cannot import cannot
from tests.tools.enginedisk import engine_disk
from tests.tools.machine import Machine
from tests.tools.parts import Part, timed_parts
from tests.tools.service import Answer, Picture, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("CAMDOCK_IMAGE", "camdock:current")
CAMERA = "/dev/video0"
DRIVER = "/sys/bus/platform/drivers/vivid"
# One picture a second: a camera is then given 5 s for each, and the emulated processor has room.
SMALL = "size=320x180&fps=1"
WITHIN_S = 120.0

# For the emulated processor alone; compose.yaml stays as it is. Each asking for health starts two programs.
SLOWLY = """
services:
  camdock:
    pull_policy: never
    cpus: 2
    environment: [CAMDOCK_OPEN_TIMEOUT_S=100, CAMDOCK_LINGER_S=0]
    healthcheck: {disable: true}
"""

# `!override`: further lines of group_add would be added to compose.yaml's.
NO_GROUP = """
services:
  camdock:
    group_add: !override []
"""

TRY_NODES = """
import json, os, sys
found = {}
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        found[path] = 'opens'
    except OSError as error:
        found[path] = error.strerror
print(json.dumps(found))
"""


class Contained(Service):
    """The service in its container in the machine, asked through a forwarded port."""

    def __init__(self, machine: Machine, port: int) -> None:
        super().__init__({}, Path(), port=port)
        self.machine = machine

    @property
    def log(self) -> str:
        """What the container logged so far."""
        return self.machine.run("cd camdock && docker compose logs --no-color --no-log-prefix").stdout.decode()

    def up(self, *files: str, **variables: str) -> None:
        """`docker compose up` with these further files and variables, as a person types it; waits for the API."""
        given = " ".join(f"{name}='{value}'" for name, value in variables.items())
        chosen = " ".join(f"-f {file}" for file in ("compose.yaml", "slowly.yaml", *files))
        command = f"cd camdock && {given} docker compose {chosen} up --detach --no-build"
        self.machine.done(command, timeout_s=WITHIN_S)
        until(self._answers, WITHIN_S, lambda: f"the service answers; its log:\n{self.log}", every_s=0.5)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/health/live", timeout_s=WITHIN_S).status == 200
        return False

    def get(self, path: str, headers: Mapping[str, str] | None = None, timeout_s: float = WITHIN_S) -> Answer:
        """One GET; a busy emulated processor may take its time."""
        return super().get(path, headers, timeout_s)

    def started(self) -> str:
        """When the container was started, and how often the engine has restarted it."""
        return self.machine.done("docker inspect --format '{{.State.StartedAt}} {{.RestartCount}}' camdock-camdock-1")

    def pictures(self, count: int = 3) -> list[Picture]:
        """So many of a live camera."""
        self.until_state("live", within_s=WITHIN_S)
        with self.stream(timeout_s=WITHIN_S) as viewer:
            return viewer.take(count)


@pytest.fixture(scope="module")
def part(request: pytest.FixtureRequest) -> Part:
    """part(name): says how long what is done within it took."""
    return timed_parts(request.config)


@pytest.fixture(scope="module")
def service(part: Part) -> Iterator[Contained]:
    """compose.yaml, not started yet, in a machine that has a camera and the image."""
    looked = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, text=True)
    if looked.returncode != 0 or os.geteuid() != 0:
        reason = looked.stderr.strip() or "making the disk of an engine takes root"
        cannot(reason)
    with part("disk with the image"):
        disk = engine_disk(IMAGE)
    machine = Machine("trixie-engine", engine_data=disk)
    with part("boot, engine up"):
        machine.__enter__()
    try:
        with part("camera, compose.yaml, a way in"):
            machine.done("modprobe vivid n_devs=1 && udevadm settle")
            machine.copy_in(ROOT / "compose.yaml", "camdock/compose.yaml")
            machine.done("cat >camdock/slowly.yaml", given=SLOWLY.encode())
            machine.done("cat >camdock/no-group.yaml", given=NO_GROUP.encode())
            yielded = Contained(machine, machine.forward(8000))
        yield yielded
    finally:
        machine.__exit__()


def test_a_real_device_gives_pictures_in_an_unprivileged_container(service: Contained, part: Part) -> None:
    with part("compose up"):
        service.up(CAMDOCK_IMAGE=IMAGE, CAMDOCK_SOURCE=f"v4l2:{CAMERA}?{SMALL}")
    with part("pictures"):
        pictures = service.pictures()
    assert service.camera()["device"] == f"vivid ({CAMERA})"
    shown = [Image.open(io.BytesIO(picture.jpeg)).convert("RGB") for picture in pictures]
    assert {picture.size for picture in shown} == {(320, 180)}
    assert len({picture.tobytes() for picture in shown}) == len(shown), "vivid's pictures carry a running clock"
    inside = "docker exec camdock-camdock-1 grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs):' /proc/1/status"
    status = dict(line.split(":\t", 1) for line in service.machine.done(inside).splitlines())
    assert set(status["Uid"].split()).isdisjoint({"0"})
    assert "44" in status["Groups"].split()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_nodes_of_other_drivers_do_not_open_even_for_root_in_there(service: Contained) -> None:
    nodes = [CAMERA, "/dev/media0", "/dev/vda", "/dev/kmsg"]
    command = f"docker exec --interactive --user 0:44 camdock-camdock-1 python - {' '.join(nodes)}"
    found = json.loads(service.machine.done(command, given=TRY_NODES.encode()))
    assert found == {CAMERA: "opens", **dict.fromkeys(nodes[1:], "Operation not permitted")}


def test_unplugged_and_plugged_in_again_it_goes_on(service: Contained, part: Part) -> None:
    service.until_state("live", within_s=WITHIN_S)
    started = service.started()
    with part("unplugged: offline"):
        service.machine.done(f"echo vivid.0 >{DRIVER}/unbind")
        gone = service.until_state("offline", within_s=WITHIN_S)
    assert gone["reason"]["code"] == "source_missing"
    assert service.machine.run(f"test -e {CAMERA}").returncode != 0
    with part("plugged in: pictures"):
        service.machine.done(f"echo vivid.0 >{DRIVER}/bind && udevadm settle")
        assert service.machine.done(f"stat --format %t:%g {CAMERA}").strip() == "51:44", "made anew, for the group"
        service.pictures()
    assert service.camera()["frames"] > gone["frames"]
    assert service.started() == started, "nobody restarted the container"


def test_a_driver_that_says_disconnected_in_the_middle_of_a_stream(service: Contained, part: Part) -> None:
    before = service.until_state("live", within_s=WITHIN_S)
    with part("disconnected, and pictures again"):
        service.machine.done(f"v4l2-ctl --device {CAMERA} --set-ctrl disconnect=1")
        until(
            lambda: service.camera()["restarts"] != before["restarts"], WITHIN_S, lambda: f"noticed; {service.log}", 0.5
        )
        service.pictures()
    assert service.camera()["restarts"]["source_missing"] > before["restarts"].get("source_missing", 0)


def test_without_the_group_it_says_the_line_that_mends_it(service: Contained, part: Part) -> None:
    with part("without the group: denied"):
        service.up("no-group.yaml", CAMDOCK_IMAGE=IMAGE, CAMDOCK_SOURCE=f"v4l2:{CAMERA}?{SMALL}")
        reason = service.until_state("offline", within_s=WITHIN_S)["reason"]
    assert reason["code"] == "source_denied"
    assert CAMERA in reason["message"]
    assert "--group-add 44" in reason["hint"]
    assert 'group_add: ["44"]' in reason["hint"]


def test_with_that_line_opencv_shows_the_same_device(service: Contained, part: Part) -> None:
    with part("with the group, opencv: pictures"):
        service.up(CAMDOCK_IMAGE=IMAGE, CAMDOCK_SOURCE=f"opencv:{CAMERA}?{SMALL}")
        pictures = service.pictures()
    assert Image.open(io.BytesIO(pictures[-1].jpeg)).size == (320, 180)
    assert "OpenCV" in service.camera()["device"]
