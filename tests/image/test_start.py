"""How every image starts, answers, is asked how it is, and ends."""

from __future__ import annotations

import io
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image as Picture

from tests.image.conftest import Image
from tests.tools.containers import Container, docker, inspect, variables
from tests.tools.service import until

TOKEN = "a-token-of-eight-or-more"
OPEN = {"CAMDOCK_AUTH": "off", "CAMDOCK_SOURCE": "synthetic:"}


def test_pictures_move_and_the_log_is_clean(service: Container) -> None:
    service.until_state("live")
    health = service.get("/health")
    assert (health.status, health.json()["camera_connected"]) == (200, True)
    with service.stream() as viewer:
        pictures = viewer.take(10)
    for earlier, later in pairwise(pictures):
        assert earlier.jpeg != later.jpeg
    picture = Picture.open(io.BytesIO(pictures[-1].jpeg))
    picture.load()
    assert picture.size == (640, 480)
    small = Picture.open(io.BytesIO(service.get("/snapshot?width=160").body))
    small.load()
    assert small.width == 160, "also the process that touches pixels"
    for word in ("ERROR", "Traceback", "Warning", "A module that was compiled"):
        assert word not in service.log
    warnings = [line for line in service.log.splitlines() if " WARNING " in line]
    assert len(warnings) == 1, "that everybody may look"
    assert "CAMDOCK_AUTH=off" in warnings[0]


def test_the_engine_finds_it_healthy(service: Container) -> None:
    assert service.health() == (0, "healthy; camera connected\n")
    until(
        lambda: inspect(service.name)["State"]["Health"]["Status"] == "healthy",
        60, lambda: f"healthy: {inspect(service.name)['State']['Health']}", 0.2,
    )  # fmt: skip


def test_the_engine_notices_within_a_minute_that_it_is_not_well(image: Image) -> None:
    asked = image.about["Config"]["Healthcheck"]
    seconds = (asked["Interval"] + asked["Timeout"]) * asked["Retries"] / 1e9
    assert 0 < seconds <= 60


def test_no_shell_is_between_the_signals_and_the_service(image: Image, service: Container) -> None:
    config = image.about["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["tini", "--"], ["camdock"])
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    words_of = {pid: words for pid, _, _, words in service.processes()}
    assert words_of[1] == ["tini", "--", "camdock"]
    (below,) = [words_of[pid] for pid, ppid, _, words in service.processes() if ppid == 1 and words[1:2] != ["-P"]]
    assert below[0].startswith("/opt/camdock/venv/bin/python")
    assert below[1:] == ["/opt/camdock/venv/bin/camdock"]


def test_what_a_dead_driver_leaves_behind_is_reaped(service: Container) -> None:
    service.run("sh", "-c", "(setsid sleep 0.3 &) ; exit 0")  # an orphan: its parent is gone before it ends

    def left() -> list[Any]:
        return [one for one in service.processes() if one[2] == "Z" or one[3][:1] == ["sleep"]]

    until(lambda: not left(), 10, lambda: f"the orphan is gone: {left()}")


@pytest.mark.parametrize("variable", ["PORT", "CAMDOCK_PORT"])
def test_the_port_is_the_one_given_and_the_health_check_follows(image: Image, variable: str) -> None:
    with Container(image.tag, inside=9123, **OPEN, **{variable: "9123"}) as container:
        container.until_state("live")
        assert container.health() == (0, "healthy; camera connected\n")
    assert variables(image.about)["CAMDOCK_HOST"] == "0.0.0.0"


@pytest.mark.parametrize("viewers", [0, 5])
def test_sigterm_ends_it_soon_and_well_also_with_streams_open(image: Image, viewers: int) -> None:
    with Container(image.tag, **OPEN) as container, ExitStack() as stack:
        container.until_state("live")
        for _ in range(viewers):
            assert len(stack.enter_context(container.stream()).take(2)) == 2
        status, seconds = container.stop()
        assert (status, seconds < 3) == (0, True), f"{status} after {seconds:.1f} s"
        assert "Traceback" not in container.log


def test_without_a_token_and_without_a_word_about_it_nothing_is_started(image: Image) -> None:
    done = docker("run", "--rm", "--name", Container(image.tag).name, image.tag, check=False)
    assert done.returncode == 2
    for word in ("CAMDOCK_TOKEN", "CAMDOCK_AUTH=off", "openssl rand -hex 16", "nothing was started"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_with_a_token_who_sends_it_may_look_and_the_health_check_needs_none(image: Image) -> None:
    with Container(image.tag, CAMDOCK_TOKEN=TOKEN, CAMDOCK_SOURCE="synthetic:") as container:
        assert container.get("/snapshot").status == 401
        answer = container.get("/snapshot", headers={"Authorization": f"Bearer {TOKEN}"}, timeout_s=20)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
        status, words = container.health()
        assert status == 0, words


def test_a_camera_that_is_not_there_leaves_the_container_healthy(image: Image) -> None:
    with Container(image.tag, CAMDOCK_AUTH="off", CAMDOCK_SOURCE="v4l2:/dev/video0", CAMDOCK_LINGER_S="0") as container:
        assert container.until_state("offline")["reason"]["code"] == "source_missing"
        status, words = container.health()
        assert (status, words.endswith("camera not connected\n")) == (0, True)
        assert container.get("/health/ready").status == 503


def test_the_health_check_tells_a_service_that_does_not_answer(service: Container) -> None:
    words = inspect(service.name)["Config"]["Healthcheck"]["Test"][1:]
    done = docker("exec", "--env", "CAMDOCK_PORT=9", service.name, *words, check=False)
    assert (done.returncode, done.stdout.startswith("not well: ")) == (1, True)
    assert "127.0.0.1:9" in done.stdout


def test_killed_workers_are_replaced_and_leave_nothing_behind(image: Image) -> None:
    with Container(image.tag, **OPEN, CAMDOCK_LINGER_S="0") as container:
        container.until_state("live")
        for _ in range(5):
            (worker,) = container.workers()
            container.run("python", "-c", f"import os; os.kill({worker}, 9)")
            until(lambda killed=worker: container.workers() not in ([], [killed]), 20, "the next worker")
            container.until_state("live")
        found = container.processes()
        assert [one for one in found if one[2] == "Z"] == []
        kinds = [[word for word in words if word.startswith("camdock.")] or words for *_, words in found]
        assert sorted(map(str, kinds)) == sorted({str(kind) for kind in kinds}), "one of each"
        assert len(container.workers()) == 1
