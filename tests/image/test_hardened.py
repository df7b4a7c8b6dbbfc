"""Every image with nothing that may be written, no capability, no new privileges, and a user that nobody knows."""

from __future__ import annotations

import http.client
import re
import shutil
from pathlib import Path

import pytest

from tests.image.conftest import Image
from tests.tools import certificate
from tests.tools.containers import Container, docker, new_name

HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
OPEN = {"CAMDOCK_AUTH": "off", "CAMDOCK_SOURCE": "synthetic:", "CAMDOCK_LINGER_S": "0"}


def test_it_works_for_an_unknown_user_who_may_write_nowhere_and_says_what_it_cannot_keep(image: Image) -> None:
    with Container(image.tag, *HARDENED, "--user", "12345", **OPEN) as container:
        container.until_state("live")
        status = dict(re.findall(r"^(\w+):\s*(.*)$", container.run("cat", "/proc/1/status").stdout, re.MULTILINE))
        assert status["Uid"].split() == ["12345"] * 4
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert container.run("touch", "/opt/camdock/x", "/var/lib/camdock/settings/x", check=False).returncode != 0

        with container.stream() as viewer:
            assert len({one.jpeg for one in viewer.take(10)}) == 10
        assert container.get("/snapshot?width=160").status == 200
        assert container.health() == (0, "healthy; camera connected\n")
        assert container.get("/health").json()["abi"] == "ok"
        assert ", sealed (" in container.log

        worker = container.workers()
        answer = container.ask("PUT", "/cameras/camera/settings", {"gain": 2.0})
        assert (answer.status, answer.json()["code"]) == (507, "storage_failed")
        assert "/var/lib/camdock/settings" in answer.json()["detail"]
        assert answer.json()["hint"]
        assert container.get("/health/ready").status == 200
        assert container.workers() == worker, "the camera goes on"
        assert "Traceback" not in container.log
        assert container.stop()[0] == 0


def test_settings_in_a_volume_outlive_the_container(image: Image) -> None:
    volume = new_name("settings")
    mounted = ("--mount", f"type=volume,source={volume},target=/var/lib/camdock/settings")
    try:
        with Container(image.tag, *HARDENED, *mounted, **OPEN) as container:
            container.until_state("live")
            kept = container.ask("PUT", "/cameras/camera/settings", {"gain": 2.0})
            assert kept.status == 200, kept.body
            container.stop()
        with Container(image.tag, *HARDENED, *mounted, **OPEN) as container:
            container.until_state("live")
            assert container.get("/cameras/camera/settings").json()["wanted"]["gain"] == 2.0
    finally:
        docker("volume", "rm", "--force", volume, check=False)


def test_with_a_certificate_it_speaks_tls_and_its_health_check_does_too(image: Image, tmp_path: Path) -> None:
    made = certificate.shared()
    for file in (made.cert, made.key):
        shutil.copy(file, tmp_path)
        (tmp_path / file.name).chmod(0o444)  # the container's user is nobody here
    tmp_path.chmod(0o755)
    mounted = ("--mount", f"type=bind,source={tmp_path},target=/etc/camdock/tls,readonly")
    paths = {
        "CAMDOCK_TLS_CERT": f"/etc/camdock/tls/{made.cert.name}",
        "CAMDOCK_TLS_KEY": f"/etc/camdock/tls/{made.key.name}",
    }
    secured = Container(image.tag, *HARDENED, *mounted, **OPEN, **paths)
    secured.tls = made.client()
    with secured as container:
        container.until_state("live")
        assert container.get("/snapshot").body[:2] == b"\xff\xd8"
        assert container.health() == (0, "healthy; camera connected\n")
        container.tls = None
        with pytest.raises((OSError, http.client.HTTPException)):
            container.get("/health")
