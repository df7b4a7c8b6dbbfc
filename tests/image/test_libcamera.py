"""What the image for a Raspberry Pi's own cameras has from Debian, and that nothing else of Debian's gets in.

Pictures through it: test_wildlife_dashboard.py. Here is what needs no camera.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.conftest import Image, image_named
from tests.image.test_image import pins_of
from tests.tools.containers import Built, Container, context, docker

pytestmark = [pytest.mark.timeout(600)]

OPEN = {"CAMDOCK_AUTH": "off", "CAMDOCK_SOURCE": "synthetic:", "CAMDOCK_LINGER_S": "0"}


@pytest.fixture(scope="module")
def image(engine: None) -> Image:
    """The one with the dashboard's pins."""
    return image_named("picamera2")


@pytest.fixture(scope="module")
def inside(image: Image) -> Iterator[Container]:
    """A container of it, to look into."""
    with Container(image.tag, **OPEN) as container:
        yield container


def packages(container: Container) -> dict[str, str]:
    """Version by name, of what dpkg has installed."""
    listed = container.run("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}\t${Package}\t${Version}\n")
    return {name: version for line in listed.stdout.splitlines() for status, name, version in [line.split("\t")]
            if status.startswith("ii")}  # fmt: skip


def test_libcamera_is_debians_from_the_backports_and_its_list_of_cameras_can_be_asked(inside: Container) -> None:
    found = packages(inside)
    for name in ("python3-libcamera", "libcamera-ipa"):
        assert found[name].startswith("0.7."), name
        assert "~bpo13" in found[name], name
    asked = inside.python(
        "import json, libcamera; m = libcamera.CameraManager.singleton(); "
        "print(json.dumps([libcamera.__file__, m.version, len(m.cameras)]))"
    )
    place = "/opt/camdock/venv/lib/python3.13/site-packages/libcamera"
    assert asked == [f"{place}/__init__.py", "v" + found["python3-libcamera"].partition("-")[0], 0]
    assert inside.run("readlink", place).stdout == "/usr/lib/python3/dist-packages/libcamera\n"


def test_every_value_that_the_options_offer_is_known_to_libcamera(inside: Container) -> None:
    asked = inside.python("""
import json, libcamera
from camdock.picamera2controls import HDR, controls_of
from camdock.source import Source
able = {name: (0, 32, 0) for name in ("AwbEnable", "AwbMode", "AfMode", "LensPosition", "HdrMode")}
options = ["awb=" + name for name in "auto incandescent tungsten fluorescent indoor daylight cloudy".split()]
options += ["focus=once", "focus=continuous", "focus=2", *("hdr=" + name for name in HDR)]
found = {}
for one in options:
    controls = controls_of(Source.parse("picamera2:0?" + one).options, able, libcamera.controls, "x")
    assert all(hasattr(libcamera.controls, name) for name in controls), controls
    found[one] = controls
print(json.dumps(found))
""")
    assert asked["awb=daylight"] == {"AwbEnable": True, "AwbMode": 5}
    assert asked["focus=once"] == {"AfMode": 1, "AfTrigger": 0}
    assert asked["focus=2"] == {"AfMode": 0, "LensPosition": 2.0}
    assert asked["hdr=night"] == {"HdrMode": 4}
    assert len({tuple(one.items()) for one in asked.values()}) == len(asked), "no two options mean the same"


def test_nothing_for_a_screen_came_along_and_apt_finds_nothing_amiss(inside: Container) -> None:
    found = packages(inside)
    unwanted = (
        "libllvm",
        "mesa-",
        "libgbm",
        "libegl-mesa",
        "libx11",
        "libwayland",
        "libdrm",
        "qt",
        "libav",
        "python3-",
    )
    ours = {"python3-libcamera", *(f"python3-{name}" for name in ("minimal", "venv", "pip-whl", "setuptools-whl"))}
    assert [name for name in found if name.startswith(unwanted) and name not in ours] == []
    assert "libegl1" in found, "libcamera is linked with it"
    # Both as root would ask, and with nothing that they could write.
    assert inside.run("dpkg", "--audit").stdout == ""
    checked = docker("run", "--rm", "--user", "0", inside.image, "apt-get", "check")
    assert checked.stderr == ""


def test_whoever_wants_mesa_gets_it_from_apt(image: Image, tmp_path: Path) -> None:
    """The empty package in its place gives way by apt's own rules."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image.tag}\nUSER root\nRUN apt-get update && apt-get install --simulate --yes libegl-mesa0\n"
    )
    built = Built(tmp_path).done()
    assert "Remv camdock-no-mesa" in built.log
    assert "Inst libegl-mesa0" in built.log
    assert "Remv libcamera" not in built.log
    assert "~bpo13" not in built.log.partition("Inst ")[2], "nothing but libcamera comes from the backports"


@pytest.mark.slow
def test_what_apt_installs_later_shadows_nothing(image: Image, tmp_path: Path) -> None:
    """The dashboard's failure: what apt had installed beside pip's NumPy, seen by one environment."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image.tag}\nUSER root\n"
        "RUN apt-get update && apt-get install --yes --no-install-recommends python3-numpy python3-pil\n"
        "USER 10001:10001\n"
    )
    built = Built(tmp_path).done()
    with Container(built.tag, **OPEN) as container:
        assert container.run("test", "-d", "/usr/lib/python3/dist-packages/numpy", check=False).returncode == 0
        loaded = container.python(
            "import json, cv2, numpy, PIL, simplejpeg, libcamera\n"
            "print(json.dumps({m.__name__: [m.__file__, m.__version__] for m in (cv2, numpy, PIL, simplejpeg)}))"
        )
        assert all(file.startswith("/opt/camdock/venv/") for file, _ in loaded.values())
        assert loaded["numpy"][1] == pins_of(image)["numpy"]
        container.until_state("live")
        assert container.get("/health").json()["abi"] == "ok"
        assert ", sealed (" in container.log, "nothing that is imported has changed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("python3 -m venv /opt/camdock/venv", "python3 -m venv --system-site-packages /opt/camdock/venv",
         "everything in /usr/lib/python3/dist-packages can be imported"),
        (" && /opt/camdock/bin/lend.sh /opt/camdock/venv", "", "lends nothing, not "),
    ],
    ids=["all-of-debian-is-visible", "libcamera-is-not-visible"],
)  # fmt: skip
def test_an_environment_that_sees_more_or_less_than_libcamera_is_no_image(
    image: Image, tmp_path: Path, before: str, after: str, reason: str
) -> None:
    folder = context(tmp_path / "context")
    file = folder / image.dockerfile
    assert file.read_text().count(before) == 1
    file.write_text(file.read_text().replace(before, after))
    built = image.built(folder)
    assert (built.status != 0, built.is_there) == (True, False)
    assert reason in built.log
    assert "This image is not built" in built.log


def test_the_bill_of_materials_does_not_call_our_package_debians(inside: Container) -> None:
    bill = json.loads(inside.run("cat", "/opt/camdock/sbom.cdx.json").stdout)
    told = {one["name"]: one["purl"] for one in bill["components"]}
    assert told["camdock-no-mesa"].startswith("pkg:deb/camdock/camdock-no-mesa@1")
    assert told["python3-libcamera"].startswith("pkg:deb/debian/python3-libcamera@0.7.")
    assert told["picamera2"] == "pkg:pypi/picamera2@0.3.27"


# --- a Raspberry Pi's machine -----------------------------------------------------------------------------------------

AARCH64 = 183  # e_machine, ELF for the Arm 64-bit architecture
# As root, with the image's own words for apt; what another machine's dpkg would configure is only unpacked.
FETCH = """
set -e
dpkg --add-architecture arm64
apt-get -qq update
wanted='python3-libcamera:arm64=0.7.* libcamera-ipa:arm64=0.7.* libcamera0.7:arm64'
apt-get -qq --simulate --no-install-recommends install $wanted >/out/installs
cd /out
apt-get -qq -o APT::Sandbox::User=root download $wanted
for package in *.deb; do dpkg-deb --extract "$package" root; done
chmod -R a+rX .
"""


@pytest.mark.slow
def test_debians_packages_for_arm64_fit_by_reading_and_have_every_pis_cameras(image: Image, tmp_path: Path) -> None:
    """The wheels of both sets are judged for it by `make plan`; nothing of it is run here."""
    fetched = docker("run", "--rm", "--user", "0", "--volume", f"{tmp_path}:/out", image.tag, "sh", "-c", FETCH,
                     within_s=400)  # fmt: skip
    assert fetched.returncode == 0
    assert "Conf python3-libcamera:arm64 (0.7." in (tmp_path / "installs").read_text()
    root = tmp_path / "root"
    looked = subprocess.run(
        [sys.executable, "-m", "camdock.abi", "check", "--strict", "--json", str(root)],
        check=True, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    answer = json.loads(looked.stdout)
    assert answer["findings"] == []
    assert [(one["module"], one["verdict"], one["rule"]) for one in answer["modules"]] == [
        ("libcamera._libcamera", "ok", "no-numpy")
    ], "it never touches NumPy: no version of it matters"
    libraries = [file for file in root.rglob("*.so*") if file.is_file() and file.suffix != ".sign"]
    machines = {file.name: struct.unpack_from("<H", file.read_bytes(), 18)[0] for file in libraries}
    assert set(machines.values()) == {AARCH64}
    assert "_libcamera.cpython-313-aarch64-linux-gnu.so" in machines
    # vc4: up to the Pi 4; pisp: the Pi 5.
    assert {"ipa_rpi_vc4.so", "ipa_rpi_pisp.so"} <= set(machines)
