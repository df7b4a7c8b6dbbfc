"""What docker/monitoring gives an operator: Debian's Prometheus scrapes the service, with our config and our rules."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.process.conftest import StartService
from tests.tools.packages import needed
from tests.tools.service import Service, free_port, until

pytestmark = [pytest.mark.slow, needed("prometheus"), needed("promtool")]

MONITORING = Path(__file__).resolve().parents[2] / "docker" / "monitoring"
TOKEN = "correct-horse-battery"
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
CHOICES = [choice for choice in DASHBOARD["templating"]["list"] if choice["type"] == "query"]
QUIET = {"Restarts of the driver's process, by reason", "Pictures thrown away, by reason"}  # nothing of it happened


def filled_in(query: str) -> str:
    """A query of the dashboard as Grafana sends it with everything chosen."""
    ready = query.replace("$__rate_interval", "4s").replace("$instance", ".+").replace("$camera", ".+")
    assert "$" not in ready, f"a variable that is not known here: {ready}"
    return ready


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of everything that an operator gets from us."""
    for rule in RULES:
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", filled_in(target["expr"])


def names_in(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    bare = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:camdock|process)_\w+|\bup\b", bare))


@dataclass
class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    port: int

    def ask(self, path: str, **parameters: str) -> tuple[int, Any]:
        """(status, what the JSON says) of GET /api/v1/PATH."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def query(self, expression: str) -> list[Any]:
        """The samples of an expression now; fails when Prometheus does not understand it."""
        status, answer = self.ask("query", query=expression)
        assert (status, answer["status"]) == (200, "success"), f"{expression}: {answer}"
        found: list[Any] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression that has one sample; 0 without any."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else 0.0

    def target(self) -> dict[str, Any]:
        """What it knows of its one target: health, lastError; nothing before it answers itself."""
        with suppress(OSError, http.client.HTTPException, ValueError):
            status, answer = self.ask("targets", state="active")
            if status == 200 and answer["data"]["activeTargets"]:
                target: dict[str, Any] = answer["data"]["activeTargets"][0]
                return target
        return {}


@contextmanager
def prometheus(folder: Path, service: Service, token: str | None = None) -> Iterator[Prometheus]:
    """The shipped config with another target, shorter intervals, and what it says for a token taken at its word."""
    config = (MONITORING / "prometheus.yml").read_text("utf-8")
    config, targets = re.subn(r"127\.0\.0\.1:8000", f"127.0.0.1:{service.port}", config)
    config, intervals = re.subn(r"_interval: 15s", "_interval: 1s", config)
    assert (targets, intervals) == (1, 2)
    if token is not None:
        config, lines = re.subn(r"# (authorization: .*)", r"\1", config)
        assert lines == 1
        (folder / "camdock.token").write_text(token + "\n")
    (folder / "prometheus.yml").write_text(config)
    (folder / "alerts.yml").write_text((MONITORING / "alerts.yml").read_text("utf-8"))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    log = folder / "prometheus.log"
    with log.open("wb") as out, subprocess.Popen(command, cwd=folder, stdout=out, stderr=out) as process:
        try:
            running = Prometheus(port)

            def scraped() -> bool:
                assert process.poll() is None, f"it ended:\n{log.read_text()}"
                return bool(running.target().get("lastScrape", "0001") > "0002")

            until(scraped, 60, lambda: f"Prometheus scrapes the service; its log:\n{log.read_text()}")
            yield running
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


@dataclass
class Bed:
    """One service with a camera that is watched and one that rests, and the Prometheus that scrapes it."""

    service: Service
    prometheus: Prometheus


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Started once; the watched camera is live, the other idle, and Prometheus has seen both so."""
    folder = tmp_path_factory.mktemp("monitoring")
    environment = {"CAMDOCK_SOURCES": "front=synthetic:?fps=20 nest=synthetic:?fps=20", "CAMDOCK_LINGER_S": "1"}
    with ExitStack() as stack:
        service = stack.enter_context(Service(environment, folder))
        viewer = stack.enter_context(service.stream("/cameras/front/stream"))
        over = threading.Event()

        def look() -> None:
            for _picture in viewer:
                if over.is_set():
                    return

        looks = threading.Thread(target=look)
        looks.start()
        stack.callback(looks.join)
        stack.callback(over.set)
        service.until_state("idle", "nest")
        running = stack.enter_context(prometheus(folder, service))
        until(lambda: running.target()["health"] == "up", 20, lambda: f"the target is up: {running.target()}")
        idle = 'camdock_camera_state{camera="nest", state="idle"}'
        until(lambda: running.value(idle) == 1, 20, "Prometheus knows that the camera rests")
        until(lambda: running.query("rate(camdock_frames_total[4s])"), 20, "Prometheus has scraped twice")
        yield Bed(service, running)


# --- the files by themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["check rules alerts.yml", "check config prometheus.yml", "test rules alerts_test.yml"]
)
def test_promtool_approves(what: str) -> None:
    ran = subprocess.run(["promtool", *what.split()], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_says_what_is_wrong_and_what_to_do_and_is_tried() -> None:
    tried = yaml.safe_load((MONITORING / "alerts_test.yml").read_text("utf-8"))["tests"]
    fired = {
        name
        for test in tried
        for query in test["promql_expr_test"]
        for sample in query["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "action"} == set(rule["annotations"]), rule["alert"]


def test_the_dashboard_lets_grafana_ask_for_its_data_source() -> None:
    chosen = {choice["name"]: choice["type"] for choice in DASHBOARD["templating"]["list"]}
    assert chosen == {"datasource": "datasource", "instance": "query", "camera": "query"}
    assert DASHBOARD["id"] is None, "an import must not name an id of another Grafana"
    for asks in (*PANELS, *CHOICES, *(target for panel in PANELS for target in panel["targets"])):
        assert asks["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, asks
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


def test_the_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


# --- with a running service -------------------------------------------------------------------------------------------


def test_the_service_has_every_metric_that_is_asked_for(bed: Bed) -> None:
    text = bed.service.get("/metrics").body.decode()
    known = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")} | {"up"}
    queries = [*expressions(), *((f"choice {choice['name']}", choice["definition"]) for choice in CHOICES)]
    for where, expression in queries:
        assert names_in(expression), f"{where} asks for nothing of ours: {expression}"
        assert names_in(expression) <= known, f"{where}: {sorted(names_in(expression) - known)}"


def test_prometheus_sees_the_pictures_come(bed: Bed) -> None:
    frames = 'camdock_frames_total{job="camdock", camera="front"}'
    before = bed.prometheus.value(frames)
    until(lambda: bed.prometheus.value(frames) > before > 0, 20, "the count of pictures grows")


def test_prometheus_has_our_rules_and_evaluates_them(bed: Bed) -> None:
    def evaluated() -> bool:
        _, answer = bed.prometheus.ask("rules")
        rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        assert [rule["name"] for rule in rules] == [rule["alert"] for rule in RULES]
        assert all(rule.get("lastError", "") == "" for rule in rules), rules
        return all(rule["health"] == "ok" for rule in rules)

    until(evaluated, 20, "every rule was evaluated")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_no_alert_has_anything_to_say_of_a_watched_camera_and_one_that_rests(bed: Bed, rule: dict[str, Any]) -> None:
    if rule["alert"] == "CamdockStorageNearlyFull" and bed.prometheus.value("camdock_storage_free_bytes") < 1e9:
        pytest.skip("the disk of this machine is nearly full")
    assert bed.prometheus.query(rule["expr"]) == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_has_data(bed: Bed, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        found = bed.prometheus.query(filled_in(target["expr"]))
        assert found or panel["title"] in QUIET, target["expr"]
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for sample in found:
            assert shown <= set(sample["metric"]), f"the legend wants {shown}, there are {sample['metric']}"


def test_the_state_panel_shows_the_states_by_their_names(bed: Bed) -> None:
    panel = next(panel for panel in PANELS if panel["title"] == "State")
    words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    found = bed.prometheus.query(filled_in(panel["targets"][0]["expr"]))
    shown = {sample["metric"]["camera"]: words[sample["value"][1]]["text"] for sample in found}
    assert shown == {"front": "live", "nest": "idle"}


def test_the_figures_on_the_dashboard_are_the_services(bed: Bed) -> None:
    def figures(title: str) -> dict[str, float]:
        panel = next(panel for panel in PANELS if panel["title"] == title and panel["type"] == "timeseries")
        found = bed.prometheus.query(filled_in(panel["targets"][0]["expr"]))
        return {sample["metric"]["camera"]: float(sample["value"][1]) for sample in found}

    assert figures("Viewers") == {"front": 1, "nest": 0}
    rates = figures("Pictures per second")
    assert 0 < rates["front"] < 30, "20 are promised; a busy machine gives fewer"
    assert rates["nest"] == 0
    ages = figures("Age of the newest picture")
    assert set(ages) == {"front"}, "only of a camera that is live"
    assert 0 <= ages["front"] < 2


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice["name"])
def test_the_dashboard_offers_services_and_cameras(bed: Bed, choice: dict[str, Any]) -> None:
    asked = re.fullmatch(r"label_values\((.*), (\w+)\)", choice["definition"])
    assert asked, choice["definition"]
    assert choice["query"]["query"] == choice["definition"]
    status, answer = bed.prometheus.ask(f"label/{asked[2]}/values", **{"match[]": filled_in(asked[1])})
    assert status == 200, answer
    offered = {"instance": [f"127.0.0.1:{bed.service.port}"], "camera": ["front", "nest"]}
    assert answer["data"] == offered[choice["name"]]


# --- with a token -----------------------------------------------------------------------------------------------------


def test_a_service_with_a_token_is_scraped_with_the_token_file_of_the_config(
    start: StartService, tmp_path: Path
) -> None:
    service = start("synthetic:?fps=20", CAMDOCK_TOKEN=TOKEN)
    with prometheus(tmp_path, service, TOKEN) as running:
        until(lambda: running.target()["health"] == "up", 20, lambda: f"the target is up: {running.target()}")
        until(lambda: running.value("camdock_frames_total") > 0, 20, "pictures are counted")


def test_a_service_with_a_token_is_down_for_a_config_without_it(start: StartService, tmp_path: Path) -> None:
    service = start("synthetic:?fps=20", CAMDOCK_TOKEN=TOKEN)
    with prometheus(tmp_path, service) as running:
        target = running.target()
        assert target["health"] == "down"
        assert "401" in target["lastError"]
        down = next(rule["expr"] for rule in RULES if rule["alert"] == "CamdockDown")
        until(lambda: running.query(down), 20, "the rule sees it down")
