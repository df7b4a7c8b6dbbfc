"""What a picture costs from YUV420 planes, beside the two ways that people know: processor time, taken in turn."""

from __future__ import annotations

from statistics import median

import pytest

from tests.device.picamera2.rigged import RIG, UNPRIVILEGED, mounts
from tests.tools.containers import ROOT, docker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PHOTOGRAPHS = ("astronaut", "coffee", "rocket")
WAYS = ("planes", "imencode", "example")
FRAMES = 150


def cost(image: str, way: str, photograph: str) -> tuple[int, int]:
    """(nanoseconds of processor time, bytes) of one picture."""
    done = docker(
        "run", "--rm", "--network", "none", *UNPRIVILEGED, *mounts(),
        "--volume", f"{ROOT}/tests/tools/photographs/{photograph}.jpg:/photograph.jpg:ro",
        "--env", "PYTHONPATH=/rig", "--env", "CAMDOCK_RIG_PICTURE=/photograph.jpg",
        image, "python", f"/rig/{(RIG / 'cost.py').name}", way, FRAMES,
    )  # fmt: skip
    spent, size = done.stdout.split()
    return int(spent), int(size)


def test_planes_cost_less_than_an_rgb_array_and_imencode(image: str) -> None:
    spent: dict[str, list[int]] = {way: [] for way in WAYS}
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for photograph in PHOTOGRAPHS:
        for way in WAYS:  # in turn, so that a machine that is busy for a while is so for all of them
            nanoseconds, size = cost(image, way, photograph)
            spent[way].append(nanoseconds)
            ratios[way].append(spent["planes"][-1] / nanoseconds)
            print(f"{photograph}, {way}: {nanoseconds / 1e6:.2f} ms, {size} bytes")
    for way in WAYS[1:]:
        print(f"planes beside {way}: {median(ratios[way]):.2f} of its processor time ({sorted(ratios[way])})")
    # The same JPEG at the same quality; its entropy coding is most of the work, and nobody is spared that.
    assert median(ratios["imencode"]) < 1.0
