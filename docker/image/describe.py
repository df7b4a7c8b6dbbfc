"""Writes what is in an image: `describe.py FOLDER PINS REVISION` gives FOLDER/version.json and FOLDER/sbom.cdx.json.

Runs in: the last steps of an image's build, as the environment's own Python; the library that knows CycloneDX is lent
by an earlier stage. The list holds every Python distribution of the environment and every Debian package. Neither file
has the time of the build in it, nor anything drawn by chance: the same content gives the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from license_expression import ExpressionError, get_spdx_licensing
from packageurl import PackageURL

OWN = "camdock"
SPACE = uuid.UUID("6f1f1f0c-3c27-5b0e-9d5c-0c6a3f6a7f55")  # ours: names made from a content are in it
DPKG = Path("/var/lib/dpkg/status")


def license_of(one: importlib.metadata.Distribution) -> LicenseExpression | DisjunctiveLicense | None:
    """The licence in the distribution's own words: SPDX where it is, else as a name."""
    words = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
    if not words or "\n" in words or len(words) > 100:  # some put the whole text there: the classifier is a name
        named = [line for line in one.metadata.get_all("Classifier") or [] if line.startswith("License ::")]
        words = named[-1].rpartition(" :: ")[2] if named else ""
    if not words:
        return None
    try:
        get_spdx_licensing().parse(words, validate=True)
        return LicenseExpression(words)
    except ExpressionError:
        return DisjunctiveLicense(name=words)


def python_parts() -> Iterator[Component]:
    """Every distribution of this environment."""
    # The environment's own folder alone: the lent library must not appear.
    for one in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        spoken = license_of(one)
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=one.version,
            purl=PackageURL("pypi", None, name, one.version),
            bom_ref=f"pkg:pypi/{name}@{one.version}",
            licenses=[spoken] if spoken else [],
        )


def debian_parts() -> Iterator[Component]:
    """Every installed Debian package."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE))
    for entry in DPKG.read_text().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            # One of them may be ours (libcamera/no-mesa.control): Debian has no package of that name.
            vendor = OWN if fields["Maintainer"].lower() == OWN else "debian"
            purl = PackageURL(
                "deb", vendor, fields["Package"], fields["Version"],
                {"arch": fields["Architecture"], "distro": release["VERSION_CODENAME"]},
            )  # fmt: skip
            yield Component(
                type=ComponentType.LIBRARY,
                name=fields["Package"],
                version=fields["Version"],
                purl=purl,
                bom_ref=purl.to_string(),
            )


def bill() -> str:
    """The bill of materials, CycloneDX 1.6 in JSON."""
    version = importlib.metadata.version(OWN)
    whole = Component(type=ComponentType.CONTAINER, name=OWN, version=version, bom_ref=f"{OWN}@{version}")
    parts = sorted([*python_parts(), *debian_parts()], key=lambda part: str(part.bom_ref))
    document = Bom(components=parts)
    document.metadata.component = whole
    document.register_dependency(whole, parts)
    text = make_outputter(document, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    written = json.loads(text)
    del written["metadata"]["timestamp"], written["serialNumber"]
    content = json.dumps(written, sort_keys=True)
    written["serialNumber"] = f"urn:uuid:{uuid.uuid5(SPACE, content)}"
    return json.dumps(written, sort_keys=True, indent=1) + "\n"


def version(pins: str, revision: str) -> str:
    """What somebody asks an image first, as JSON."""
    about = {
        "camdock": importlib.metadata.version(OWN),
        "revision": revision,
        "pins": pins,
        "python": platform.python_version(),
        "libraries": {
            name: importlib.metadata.version(name)
            for name in ("numpy", "opencv-python-headless", "simplejpeg", "pillow")
        },
    }
    return json.dumps(about, indent=1) + "\n"


if __name__ == "__main__":
    folder, pins, revision = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    folder.joinpath("sbom.cdx.json").write_text(bill())
    folder.joinpath("version.json").write_text(version(pins, revision))
