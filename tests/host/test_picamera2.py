"""deploy.yml natively for a Raspberry Pi's own camera: Debian's libcamera, the pins for picamera2, pictures, no cable.

The host is a container: the stand-ins of the device tests (tests/device/picamera2/rig) are its camera, its memory and
its image processor. What they cannot prove, and a Pi's kernel and device tree, stays unproved here too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.device.picamera2.rigged import CAMERAS, RIG
from tests.host.conftest import Figure
from tests.host.deploying import USUAL, ask, pictures, token_of
from tests.tools.containers import ROOT
from tests.tools.service import until
from tests.tools.target import PIP_CACHE, Target, play

pytestmark = pytest.mark.timeout(1200)

SOURCE = "picamera2:imx_virtual?size=640x480"
BACKPORTS = ROOT / "docker/image/libcamera/backports.sources"
WITH_RIG = "/etc/systemd/system/camdock.service.d/rig.conf"
# These say to the role video that this is a Pi, and where its libcamera comes from.
PI = {
    "video_device_tree_model": "/fake/model",
    "video_config_txt_files": ["/fake/config.txt"],
    "video_apt_release": "trixie-backports",
}
GIVEN = {**USUAL, **PI, "deploy_source": SOURCE}
PYTHON = "/opt/camdock/current/build/venv/bin/python -P"
_VERSIONS = """
import importlib.metadata as m, json
print(json.dumps({one.name.lower().replace("_", "-"): one.version for one in m.distributions()}))
"""


@pytest.fixture(scope="module")
def pi(figure_of_module: list[str]) -> Iterator[Target]:
    """A host that has been deployed to once, with a camera on what stands for its cable."""
    with Target("trixie", options=PIP_CACHE) as target:
        target.put("/fake/model", "Raspberry Pi 4 Model B Rev 1.5\0")
        target.put("/fake/config.txt", "camera_auto_detect=1\n")
        target.put("/etc/apt/sources.list.d/backports.sources", BACKPORTS.read_text())
        for file in RIG.glob("*.py"):
            target.put(f"/rig/{file.name}", file.read_text())
        target.put(CAMERAS, (RIG / "virtual.yaml").read_text())
        target.put(WITH_RIG, "[Service]\nEnvironment=PYTHONPATH=/rig\n")
        figure_of_module.append(f"{play('deploy.yml', target, **GIVEN).seconds:.0f} s")
        yield target


@pytest.fixture(scope="module")
def figure_of_module() -> list[str]:
    """What the fixture measured, for the test that says it."""
    return []


def reason(target: Target) -> str:
    """Why its camera gives no picture, as the service tells it."""
    status, body = ask(target, "/snapshot", token_of(target))
    return body.decode() if status == 503 else ""


def test_a_bare_host_serves_moving_pictures_of_the_cable_after_one_play(
    pi: Target, figure: Figure, figure_of_module: list[str]
) -> None:
    figure(f"deployed in {figure_of_module[0]}")
    assert len(set(pictures(pi, token_of(pi)))) > 1
    (camera,) = json.loads(ask(pi, "/cameras", token_of(pi))[1])
    assert (camera["state"], "imx_virtual" in json.dumps(camera)) == ("live", True)


def test_its_environment_is_the_one_of_the_pins_and_fits_numpy(pi: Target) -> None:
    installed = json.loads(pi.done(f"{PYTHON} -c '{_VERSIONS}'", user="camdock"))
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "docker/pins/picamera2.txt").read_text(), re.MULTILINE))
    assert {"picamera2", "numpy", "simplejpeg", "python-prctl", "pidng"} <= installed.keys()
    strangers = installed.keys() - {name.lower() for name in pins} - {"camdock", "pip"}
    assert strangers == set()
    assert {name: installed[name] for name in installed.keys() - {"camdock", "pip"}} == {
        name.lower(): version for name, version in pins.items() if name.lower() in installed
    }
    pi.done(f"{PYTHON} -m camdock abi check --strict", user="camdock")
    assert "sealed" in pi.done("journalctl --unit camdock --output cat")


def test_libcamera_is_apts_and_nothing_else_of_apts_is_seen(pi: Target) -> None:
    where = pi.done(f"{PYTHON} -c 'import libcamera; print(libcamera.__file__)'", user="camdock")
    assert pi.done(f"realpath {where}").startswith("/usr/lib/python3/dist-packages/libcamera/")
    assert "0.7." in pi.done("dpkg-query --show --showformat '${Version}' python3-libcamera")
    paths = json.loads(pi.done(f"{PYTHON} -c 'import json, sys; print(json.dumps(sys.path))'", user="camdock"))
    assert not [one for one in paths if "dist-packages" in one]


def test_without_a_camera_on_the_cable_it_says_where_to_look(pi: Target) -> None:
    pi.done(f"rm {CAMERAS} {WITH_RIG} && systemctl daemon-reload && systemctl restart camdock")
    until(lambda: "source_missing" in reason(pi), 30, lambda: reason(pi) or pi.log)
    said = json.loads(reason(pi))
    assert "libcamera finds no camera" in said["detail"]
    assert "ribbon cable" in said["hint"]
    assert ask(pi, "/health/live")[0] == 200
