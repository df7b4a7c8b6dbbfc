"""The wildlife dashboard's contract: its sequence of calls on both sets of pins, and its two cameras on one page.

The real picamera2 and OpenCV on the real libcamera, whose virtual pipeline has the cameras; what only a Pi has is stood
in for by the rig of tests/device/picamera2, which says what that cannot prove. Nothing of either is in the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.device.picamera2.rigged import CAMERAS as CAMERAS_FILE
from tests.device.picamera2.rigged import RIG
from tests.image.conftest import Image, image_named
from tests.image.test_image import pins_of
from tests.tools.containers import Built, Container, context, docker, inspect

pytestmark = [pytest.mark.timeout(600)]

HEADLESS = "/opt/camdock/venv/lib/python3.13/site-packages/camdock/headless"
CAMERAS = """%YAML 1.1
---
"Virtual0":
  supported_formats:
  - {width: 640, height: 480, frame_rates: [30, 60]}
  test_pattern: "lines"
  model: "imx708_front"
"Virtual1":
  supported_formats:
  - {width: 640, height: 480, frame_rates: [30, 60]}
  test_pattern: "bars"
  model: "imx708_nest"
"""

# In the dashboard's order, for each of its cameras, and then both at once.
SEQUENCE = """
from picamera2 import Picamera2
import numpy
import cv2
import importlib.metadata, json

def opened(number):
    camera = Picamera2(camera_num=number)
    camera.configure(camera.create_video_configuration(main={"size": (640, 480), "format": "RGB888"}))
    camera.start()
    return camera

def ended(camera):
    camera.stop()
    camera.close()

shapes, moved = [], []
for number in (0, 1):
    camera = opened(number)
    first, second = camera.capture_array(), camera.capture_array()
    shapes.append([first.shape, str(first.dtype), cv2.cvtColor(first, cv2.COLOR_BGR2GRAY).shape])
    moved.append(bool((first != second).any()))
    ended(camera)
both = [opened(number) for number in (0, 1)]
for _ in range(3):
    for camera in both:
        shapes.append([camera.capture_array().shape, "uint8", [480, 640]])
for camera in both:
    ended(camera)
print(json.dumps({"shapes": shapes, "moved": moved, "numpy": numpy.__version__,
                  "picamera2": importlib.metadata.version("picamera2")}))
"""
# What NumPy and Cython say where a compiled module and NumPy do not fit.
ABI_WORDS = ("numpy.dtype size changed", "binary incompatibility", "_ARRAY_API", "compiled using NumPy", "C header")


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Words for `docker run`: two cameras, and the rig under picamera2."""
    file = tmp_path_factory.mktemp("cameras") / "virtual.yaml"
    file.write_text(CAMERAS)
    file.chmod(0o644)
    file.parent.chmod(0o755)
    return ("--volume", f"{file}:{CAMERAS_FILE}:ro", "--volume", f"{RIG}:/rig:ro")


@pytest.fixture(scope="module")
def image(engine: None) -> Image:
    """The image with the dashboard's pins."""
    return image_named("picamera2")


# Set of pins, Dockerfile, and MB that the whole image may take unpacked.
SETS = [
    ("picamera2", "Dockerfile", 680),
    ("picamera2-newest", "Dockerfile", 680),
    ("picamera2", "Dockerfile.optimized", 500),
]


@pytest.fixture(scope="module", params=SETS, ids=["dashboard", "newest", "dashboard-optimized"])
def built(
    request: pytest.FixtureRequest, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """An image with that set of pins, and the pins. Only the first is one that `make image` has built."""
    pins, dockerfile, most_mb = request.param
    one = Image("other", dockerfile, pins)
    tag = image.tag
    if (pins, dockerfile) != (image.pins, image.dockerfile):
        tag = one.built(context(tmp_path_factory.mktemp("other") / "context")).done().tag
    try:
        assert inspect(tag)["Size"] / 1e6 <= most_mb
        yield tag, pins_of(one)
    finally:
        if tag != image.tag:
            docker("rmi", "--force", tag, check=False)


@pytest.mark.slow
def test_its_sequence_gives_arrays_and_no_word_about_numpys_abi(
    built: tuple[str, dict[str, str]], cameras: tuple[str, ...]
) -> None:
    tag, pins = built
    # The Pi's display library is stood in for by the service's own, which its worker puts there.
    done = docker(
        "run", "--rm", "--read-only", "--cap-drop", "ALL", *cameras, "--env", f"PYTHONPATH=/rig:{HEADLESS}",
        tag, "python", "-c", SEQUENCE, check=False, within_s=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["shapes"] == [[[480, 640, 3], "uint8", [480, 640]]] * 8
    assert found["moved"] == [True, True]
    assert (found["numpy"], found["picamera2"]) == (pins["numpy"], pins["picamera2"])
    assert [word for word in ABI_WORDS if word in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_a_library_that_does_not_fit_would_be_told_from_the_sequence(
    image: Image, cameras: tuple[str, ...], tmp_path: Path
) -> None:
    """The same sequence where the dashboard's failure is really there: an OpenCV made for NumPy 1.x."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image.tag}\nUSER root\nRUN --mount=type=cache,target=/root/.cache/pip env --unset PIP_CONSTRAINT "
        "pip install --no-deps opencv-python-headless==4.8.1.78\nUSER 10001:10001\n"
    )
    broken = Built(tmp_path).done()
    done = docker(
        "run", "--rm", *cameras, "--env", f"PYTHONPATH=/rig:{HEADLESS}", broken.tag, "python", "-c", SEQUENCE,
        check=False, within_s=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert [word for word in ABI_WORDS if word in done.stderr] != []


@pytest.mark.slow
def test_two_cameras_are_on_one_page_on_port_5050(image: Image, cameras: tuple[str, ...]) -> None:
    environment = {
        "CAMDOCK_SOURCES": "front=picamera2:0?size=640x480 nest=picamera2:1?size=640x480",
        "CAMDOCK_PORT": "5050", "CAMDOCK_AUTH": "off", "CAMDOCK_LINGER_S": "0", "PYTHONPATH": "/rig",
    }  # fmt: skip
    hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    with Container(image.tag, *hardened, *cameras, inside=5050, **environment) as container:
        for name in ("front", "nest"):
            container.until_state("live", name)
        assert container.get("/").status == 200
        listed = container.get("/cameras").json()
        assert [one["name"] for one in listed] == ["front", "nest"]
        for name in ("front", "nest"):
            with container.stream(f"/cameras/{name}/stream") as viewer:
                pictures = viewer.take(10)
            assert all(before.jpeg != after.jpeg for before, after in pairwise(pictures)), name
        assert container.get("/health").json()["abi"] == "ok"
        assert container.health() == (0, "healthy; camera connected\n")
        assert not [word for word in ABI_WORDS if word in container.log]


def test_without_any_device_it_starts_and_says_what_is_missing(image: Image) -> None:
    with Container(
        image.tag, "--read-only", "--cap-drop", "ALL", CAMDOCK_SOURCE="picamera2:0", CAMDOCK_AUTH="off",
        CAMDOCK_LINGER_S="0",
    ) as container:  # fmt: skip
        reason = container.until_state("offline")["reason"]
        assert reason["code"] == "source_missing"
        assert "libcamera finds no camera" in reason["message"]
        assert "ribbon cable" in reason["hint"]
        with container.stream() as viewer:
            assert viewer.take(1)[0].jpeg[:2] == b"\xff\xd8", "the picture that says why there is none"
        assert container.health() == (0, "healthy; camera not connected\n")
