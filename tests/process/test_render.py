"""render.yaml: what Render's documentation says of each field, and the real service in exactly its environment.

Nothing here was deployed; the addresses beside the facts are where they were read, in November 2026.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import yaml

from camdock.config import Config
from tests.tools.service import Service, free_port, until

SHORTEST_PATIENCE_S = 3  # between SIGTERM and the end, streams and all

ROOT = Path(__file__).resolve().parents[2]
BLUEPRINT = yaml.safe_load((ROOT / "render.yaml").read_text("utf-8"))

# https://render.com/docs/blueprint-spec: the fields of a web service that is built from a Dockerfile. What Render does
# not know makes it refuse the whole file.
FIELDS = {
    "name", "type", "runtime", "plan", "previews", "region", "repo", "branch", "autoDeployTrigger", "domains",
    "healthCheckPath", "maxShutdownDelaySeconds", "preDeployCommand", "dockerCommand", "dockerfilePath",
    "dockerContext", "registryCredential", "numInstances", "scaling", "buildFilter", "rootDir", "disk", "envVars",
}  # fmt: skip
PLANS = {"free", "starter", "standard", "pro", "pro plus", "pro max", "pro ultra"}
REGIONS = {"oregon", "ohio", "virginia", "frankfurt", "singapore"}

# https://render.com/docs/blueprint-spec#setting-environment-variables: generateValue makes "a base64-encoded 256-bit
# value". This one has each of the characters that mean something else in an address.
GENERATED = base64.b64encode(b"\xfb\xef\xbe\xff\xff\xff" + bytes(range(26))).decode()

# https://render.com/docs/environment-variables: what Render itself sets, beside PORT (10000 unless changed).
RENDERS = {"RENDER": "true", "RENDER_SERVICE_TYPE": "web", "RENDER_EXTERNAL_HOSTNAME": "camdock.onrender.com"}


@pytest.fixture(scope="module")
def web() -> dict[str, Any]:
    """The one service of the blueprint."""
    (service,) = BLUEPRINT["services"]
    assert isinstance(service, dict)
    return service


def environment(web: dict[str, Any]) -> dict[str, str]:
    """What Render puts into the container: the blueprint's variables, and its own. PORT is the test's to choose."""
    made = {v["key"]: GENERATED if v.get("generateValue") else v["value"] for v in web["envVars"]}
    return {**made, **RENDERS}


# --- the form ---------------------------------------------------------------------------------------------------------


def test_every_field_is_one_that_render_knows(web: dict[str, Any]) -> None:
    assert set(BLUEPRINT) == {"services"}
    assert set(web) <= FIELDS
    assert web["type"] == "web"
    assert web["runtime"] == "docker"
    assert re.fullmatch(r"[a-z][a-z0-9-]*", web["name"])  # it becomes NAME.onrender.com
    assert web["plan"] in PLANS
    assert web["region"] in REGIONS


def test_the_image_is_built_from_a_file_that_is_there(web: dict[str, Any]) -> None:
    # "relative to the repo root", both of them; the Dockerfiles copy from the repository's root.
    assert (ROOT / web["dockerfilePath"]).is_file()
    assert (ROOT / web["dockerContext"]).resolve() == ROOT


def test_a_commit_is_deployed_only_behind_green_checks(web: dict[str, Any]) -> None:
    # https://render.com/docs/blueprint-spec#autodeploytrigger: commit, checksPass or off; `autoDeploy` is the old name.
    assert web["autoDeployTrigger"] == "checksPass"
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    # YAML 1.1 takes the key `on` for true. Without a check on the branch's commits Render would wait for nothing.
    assert "main" in workflow[True]["push"]["branches"]


def test_the_token_is_made_by_render_and_nothing_secret_is_in_the_file(web: dict[str, Any]) -> None:
    variables = {v["key"]: v for v in web["envVars"]}
    assert variables["CAMDOCK_TOKEN"] == {"key": "CAMDOCK_TOKEN", "generateValue": True}
    assert "CAMDOCK_AUTH" not in variables


def test_what_a_person_sets_in_the_dashboard_survives_the_next_sync(web: dict[str, Any]) -> None:
    # https://render.com/docs/blueprint-spec#setting-environment-variables: what the file lists is written over,
    # "Render preserves existing environment variables, even if you omit them".
    listed = {v["key"] for v in web["envVars"]}
    assert not listed & {"CAMDOCK_SOURCE", "CAMDOCK_SOURCES", "CAMDOCK_ALLOWED_HOSTS", "CAMDOCK_LOG_LEVEL"}
    # PORT is Render's to choose, and CAMDOCK_PORT would win over it.
    assert not listed & {"PORT", "CAMDOCK_PORT"}


def test_every_variable_is_one_that_the_service_reads(web: dict[str, Any]) -> None:
    known = {f"CAMDOCK_{name.upper()}" for name in Config.model_fields}
    assert {v["key"] for v in web["envVars"]} <= known


# --- the service in that environment ----------------------------------------------------------------------------------


def deploy(web: dict[str, Any], folder: Path, **dashboard: str) -> Service:
    """The service as Render starts it, PORT included, with what a person sets in the dashboard."""
    port = free_port()
    # An empty variable counts as absent: what the rig sets must not be what makes this work.
    unset = {"CAMDOCK_PORT": "", "CAMDOCK_LINGER_S": ""}
    return Service({**unset, "PORT": str(port), **environment(web), **dashboard}, folder, port=port)


@pytest.fixture(scope="module", params=["deployed service"])
def deployed(web: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Running, with nothing set in the dashboard; it must end before Render loses patience."""
    with deploy(web, tmp_path_factory.mktemp("deployed")) as service:
        yield service
        with service.stream(headers={"Authorization": f"Bearer {GENERATED}"}) as viewer:
            assert viewer.take(1)
            took_s = service.stop()
    assert took_s < SHORTEST_PATIENCE_S


def test_the_health_check_is_answered_without_the_token(web: dict[str, Any], deployed: Service) -> None:
    # https://render.com/docs/health-checks: GET with the service's host name in Host; 2xx or 3xx within 5 s is healthy.
    answer = deployed.get(web["healthCheckPath"], {"Host": RENDERS["RENDER_EXTERNAL_HOSTNAME"]}, timeout_s=5)
    assert (answer.status, answer.json()) == (200, {"status": "alive"})


def test_the_service_listens_where_renders_proxy_reaches_it(deployed: Service) -> None:
    # https://render.com/docs/web-services#port-binding: "must bind to a port on host 0.0.0.0"; PORT says which.
    listening = [c.laddr for c in psutil.Process(deployed.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert listening == [("0.0.0.0", deployed.port)]


def test_pictures_are_for_who_has_the_token_that_render_made(deployed: Service) -> None:
    for without in ("/stream", "/snapshot", "/cameras", "/stream?token=", "/stream?token=" + quote(GENERATED[:-2])):
        answer = deployed.get(without)
        assert (answer.status, answer.json()["code"]) == (401, "token_needed"), without
    bearer = {"Authorization": f"Bearer {GENERATED}"}
    # In an address it should be quoted; people paste it as it is.
    for path, headers in (
        ("/stream", bearer),
        (f"/stream?token={quote(GENERATED, safe='')}", {}),
        (f"/stream?token={GENERATED}", {}),
    ):
        with deployed.stream(path, headers=headers) as viewer:
            (picture,) = viewer.take(1)
        assert picture.jpeg.startswith(b"\xff\xd8"), path


@pytest.mark.slow
def test_a_relayed_camera_that_is_away_restarts_nothing(web: dict[str, Any], tmp_path: Path) -> None:
    # https://render.com/docs/health-checks: after 60 s without a 2xx the service is restarted.
    with deploy(web, tmp_path, CAMDOCK_SOURCE=f"relay:http://127.0.0.1:{free_port()}/stream") as service:

        def offline() -> bool:
            camera = service.get("/cameras/camera", {"Authorization": f"Bearer {GENERATED}"}).json()
            return bool(camera["state"] == "offline")

        until(offline, 15, lambda: service.log)
        assert service.get("/health/ready").status == 503, "the one that must not be asked here"
        assert service.get(web["healthCheckPath"]).status == 200


def test_render_waits_as_long_as_the_service_may_take_to_end(web: dict[str, Any]) -> None:
    # https://render.com/docs/blueprint-spec#maxshutdowndelayseconds: 1 to 300, SIGKILL behind it.
    assert SHORTEST_PATIENCE_S <= web["maxShutdownDelaySeconds"] <= 300
