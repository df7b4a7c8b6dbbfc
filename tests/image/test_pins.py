"""What breaks on NumPy does not become an image; where it does behind our back, no camera is started on it.

Every build here is a real one, with one pin made wrong. simplejpeg 1.7.2, of the line for NumPy 1.x, exists up to
CPython 3.12: it is tried on the older Debian, with the pins of today. OpenCV's wheels fit every Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.image.conftest import IMAGES, Image, image_named
from tests.tools.containers import Built, Container, context, docker, inspect
from tests.tools.service import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OLD_OPENCV = "opencv-python-headless==4.8.1.78"


def spoil(file: Path, name: str, version: str) -> None:
    """Pin another version."""
    lines = file.read_text().splitlines()
    spoiled = [f"{name}=={version}" if line.startswith(f"{name}==") else line for line in lines]
    assert spoiled != lines
    file.write_text("\n".join(spoiled) + "\n")


def refused(built: Built, *words: str) -> None:
    """There is no image, and the log says why, and what to do."""
    assert built.status != 0, built.log
    assert not built.is_there
    for word in ("BREAKS when it is imported", *words, "This image is not built"):
        assert word in built.log, f"{word!r} is not in\n{built.log}"


# --- at build ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["current", "optimized"])
def test_an_opencv_for_numpy_1_beside_numpy_2_stops_the_build(engine: None, name: str, tmp_path: Path) -> None:
    folder = context(tmp_path / "context")
    spoil(folder / "constraints.txt", *OLD_OPENCV.split("=="))
    built = image_named(name).built(folder)
    refused(
        built,
        "opencv-python-headless 4.8.1.78",
        "built for NumPy 1.x, this is 2.x",
        "fix: ",
        "opencv-python-headless>=",
    )


def test_a_simplejpeg_for_numpy_1_beside_numpy_2_stops_the_build(engine: None, tmp_path: Path) -> None:
    folder = context(tmp_path / "context")
    older = folder / "docker/pins/numpy1.txt"
    older.write_text((folder / "constraints.txt").read_text())
    older.with_suffix(".in").write_text("")
    spoil(older, "simplejpeg", "1.7.2")
    refused(image_named("numpy1").built(folder), "simplejpeg 1.7.2: simplejpeg._jpeg", "fix: ", "'simplejpeg>=1.7.4'")


def test_a_pin_that_is_missing_stops_the_build(engine: None, tmp_path: Path) -> None:
    """pip would take the newest, another one every week."""
    folder = context(tmp_path / "context")
    pins = folder / "constraints.txt"
    pins.write_text("\n".join(line for line in pins.read_text().splitlines() if not line.startswith("annotated-doc==")))
    built = image_named("current").built(folder)
    assert (built.status != 0, built.is_there) == (True, False)
    assert "annotated-doc" in built.log
    assert "is installed and has no pin" in built.log


def test_a_library_that_is_not_there_stops_the_build_and_is_named(engine: None, tmp_path: Path) -> None:
    """Versions and ABI are right: only loading it shows."""
    image_named("current")
    folder = context(tmp_path / "context")
    file = folder / "Dockerfile"
    before, proof, behind = file.read_text().partition("ARG REVISION=")
    file.write_text(
        before + "RUN rm /opt/camdock/venv/lib/python3*/site-packages/opencv*.libs/libavcodec*\n" + proof + behind
    )
    built = Built(folder)
    assert (built.status != 0, built.is_there) == (True, False)
    assert "not as it should be: libavcodec" in built.log
    assert "This image is not built" in built.log
    assert "Traceback" not in built.log


def test_a_set_of_pins_that_does_not_exist_is_named_with_those_there_are(engine: None, tmp_path: Path) -> None:
    folder = context(tmp_path / "context")
    # Debian's stages are named like the sets, so a wrong name ends before anything runs, unless it is an image's.
    for file in ("Dockerfile", "Dockerfile.optimized"):
        (folder / file).write_text((folder / file).read_text().replace(" AS numpy1", " AS numpy3"))
        built = Built(folder, dockerfile=file, PINS="numpy3")
        assert (built.status != 0, built.is_there) == (True, False)
        assert (
            "There is no set of pins 'numpy3'; PINS is one of current, numpy1, picamera2, picamera2-newest" in built.log
        )


# --- behind our back: derived images ----------------------------------------------------------------------------------


def derived(image: Image, folder: Path, *lines: str) -> Built:
    """An image that somebody made from ours."""
    folder.mkdir(exist_ok=True)
    text = [f"FROM {image.tag}", "USER root", *lines, "USER 10001:10001"]
    (folder / "Dockerfile").write_text("\n".join(text) + "\n")
    return Built(folder)


def starts_no_camera(built: Built, package: str, fix: str) -> None:
    """The service runs and says what breaks and what to type; the camera that needs it is never started."""
    quick = ("--health-interval", "1s", "--health-retries", "1", "--health-start-period", "0s")
    sources = "front=opencv:/nowhere.mp4 nest=synthetic:"
    with Container(built.tag, *quick, CAMDOCK_AUTH="off", CAMDOCK_SOURCES=sources, CAMDOCK_LINGER_S="0") as container:
        until(lambda: container.get("/health").json()["abi"] != "checking", 60, "it is known")
        assert container.get("/health").json()["abi"] == "broken"
        assert container.get("/health/live").status == 200
        ready = container.get("/health/ready")
        problem = ready.json()
        assert (ready.status, problem["code"]) == (503, "abi_broken")
        assert package in problem["detail"]
        assert fix in problem["hint"]
        front = container.until_state("offline", "front")
        assert (front["reason"]["code"], front["restarts"]) == ("driver_missing", {})
        assert fix in front["reason"]["hint"]
        container.until_state("live", "nest")
        workers = [words for *_, words in container.processes() if "camdock.worker" in words]
        assert ["nest" in words for words in workers] == [True]
        until(
            lambda: inspect(container.name)["State"]["Health"]["Status"] == "unhealthy",
            60, lambda: f"unhealthy: {inspect(container.name)['State']['Health']}", 0.2,
        )  # fmt: skip
        assert "a library breaks with the installed NumPy" in container.health()[1]
        errors = [line for line in container.log.splitlines() if " ERROR " in line]
        assert len(errors) == 1
        assert fix in errors[0]
        assert "since this environment was sealed" in container.log


def test_pip_keeps_the_pins_in_a_derived_image(engine: None, tmp_path: Path) -> None:
    image = image_named("numpy1")
    asked = derived(image, tmp_path / "asked", "RUN pip install --upgrade 'numpy>=2'")
    assert (asked.status != 0, asked.is_there) == (True, False)
    assert "The user requested (constraint) numpy==1.26.4" in asked.log
    eager = derived(image, tmp_path / "eager", "RUN pip install --upgrade --upgrade-strategy eager numpy").done()
    says = docker("run", "--rm", eager.tag, "python", "-c", "import numpy; print(numpy.__version__)")
    assert says.stdout == "1.26.4\n"


def test_an_eager_upgrade_in_a_derived_image_starts_no_camera(engine: None, tmp_path: Path) -> None:
    built = derived(
        image_named("numpy1"), tmp_path / "derived",
        "RUN --mount=type=cache,target=/root/.cache/pip "
        "env --unset PIP_CONSTRAINT pip install --upgrade --upgrade-strategy eager numpy",
    ).done()  # fmt: skip
    starts_no_camera(built, "opencv-python-headless 4.8.1.78", "opencv-python-headless>=")


@pytest.mark.parametrize("name", [name for name, image in IMAGES.items() if image.pins == "current"])
def test_one_compiled_file_replaced_in_a_derived_image_starts_no_camera(
    engine: None, name: str, tmp_path: Path
) -> None:
    image = image_named(name)
    folder = tmp_path / "derived"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "-d", folder, OLD_OPENCV],
        env={name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}, check=True, timeout=300,
    )  # fmt: skip
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        (folder / "cv2.abi3.so").write_bytes(archive.read("cv2/cv2.abi3.so"))
    wheel.unlink()
    there = docker(
        "run", "--rm", image.tag, "sh", "-c", "echo /opt/camdock/venv/lib/python3*/site-packages/cv2/cv2.abi3.so"
    )
    built = derived(image, folder, f"COPY cv2.abi3.so {there.stdout.strip()}").done()
    starts_no_camera(built, "opencv-python-headless", "opencv-python-headless")
