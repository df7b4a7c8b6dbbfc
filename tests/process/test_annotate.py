"""Google Cloud Vision through Google's own client library, against an endpoint here that speaks its protocol."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from tests.tools.service import Service

CORNERS = [{"x": 0.25, "y": 0.5}, {"x": 0.75, "y": 0.5}, {"x": 0.75, "y": 1}, {"x": 0.25, "y": 1}]
# As Google writes it, https://cloud.google.com/vision/docs/reference/rest/v1/AnnotateImageResponse; its own client
# sends the features by their numbers, google/cloud/vision/v1/image_annotator.proto.
SEEN = {
    4: {"labelAnnotations": [{"mid": "/m/015p6", "description": "Bird", "score": 0.9751}]},
    5: {"textAnnotations": [{"locale": "en", "description": "NEST 4"}, {"description": "NEST"}]},
    19: {
        "localizedObjectAnnotations": [
            {"name": "Animal", "score": 0.5, "boundingPoly": {"normalizedVertices": CORNERS}}
        ]
    },
    1: {
        "faceAnnotations": [
            {"detectionConfidence": 0.75, "boundingPoly": {"vertices": [{"x": 400}, {"x": 800, "y": 600}]}}
        ]
    },
}


class Cloud(ThreadingHTTPServer):
    """The endpoint. asked: every request's JSON; refusal: what it answers instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[dict[str, Any]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None


class Answering(BaseHTTPRequestHandler):
    """One request."""

    server: Cloud

    def do_POST(self) -> None:
        """images:annotate, of one picture."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path.partition("?")[0] == "/v1/images:annotate"
        self.server.asked.append(body)
        seen: dict[str, Any] = {}
        for feature in body["requests"][0]["features"]:
            seen |= SEEN[feature["type"]]
        status, answer = self.server.refusal or (200, {"responses": [seen]})
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is to be printed."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=["annotating service"])
def service(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    given = {
        "CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=20",
        "CAMDOCK_VISION": "on",
        "CAMDOCK_VISION_ENDPOINT": f"http://127.0.0.1:{cloud.server_port}",
    }
    with Service(given, tmp_path_factory.mktemp("annotating")) as running:
        running.until_state("live")
        yield running


@pytest.fixture(autouse=True)
def afresh(cloud: Cloud) -> None:
    cloud.asked.clear()
    cloud.refusal = None


def test_a_picture_goes_out_small_and_without_metadata_and_what_is_seen_comes_back(
    service: Service, cloud: Cloud
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where we live"
    file = io.BytesIO()
    Image.new("RGB", (3200, 2400), "olive").save(file, "JPEG", exif=exif)
    features = "&".join(f"feature={name}" for name in ("labels", "text", "objects", "faces"))
    answer = service.ask(
        "POST", f"/images/annotate?{features}&most=3", file.getvalue(), {"Content-Type": "image/jpeg"}, timeout_s=30
    )
    assert answer.status == 200, answer.body
    assert answer.json() == {
        "labels": [{"name": "Bird", "score": 0.9751}],
        "text": "NEST 4",
        "objects": [{"name": "Animal", "score": 0.5, "box": [0.25, 0.5, 0.75, 1.0]}],
        "faces": [{"score": 0.75, "box": [0.25, 0.0, 0.5, 0.5]}],
    }
    (asked,) = cloud.asked[0]["requests"]
    assert {(one["type"], one["maxResults"]) for one in asked["features"]} == {(name, 3) for name in SEEN}
    sent = base64.b64decode(asked["image"]["content"])
    assert b"where we live" not in sent
    with Image.open(io.BytesIO(sent)) as image:
        assert (image.format, image.size) == ("JPEG", (1600, 1200))


def test_a_camera_may_be_named_and_only_what_is_asked_for_is_answered(service: Service, cloud: Cloud) -> None:
    answer = service.ask("POST", "/images/annotate?camera=camera", timeout_s=30)
    assert (answer.status, answer.json()) == (200, {"labels": [{"name": "Bird", "score": 0.9751}]})
    nobody = service.ask("POST", "/images/annotate")
    assert (nobody.status, nobody.json()["code"]) == (422, "request_invalid")
    assert len(cloud.asked) == 1


def test_googles_refusal_is_told_in_its_own_words(service: Service, cloud: Cloud) -> None:
    cloud.refusal = (403, {"error": {"code": 403, "message": "billing is not enabled", "status": "PERMISSION_DENIED"}})
    answer = service.ask("POST", "/images/annotate?camera=camera", timeout_s=30)
    assert (answer.status, answer.json()["code"]) == (503, "vision_failed")
    assert "billing is not enabled" in answer.json()["detail"]
    cloud.refusal = (200, {"responses": [{"error": {"code": 3, "message": "Bad image data."}}]})
    answer = service.ask("POST", "/images/annotate?camera=camera", timeout_s=30)
    assert (answer.status, answer.json()["code"]) == (503, "vision_failed")
    assert "Bad image data." in answer.json()["detail"]


def test_no_picture_leaves_a_machine_whose_operator_has_not_said_so(plain: Service) -> None:
    answer = plain.ask("POST", "/images/annotate?camera=camera")
    assert (answer.status, answer.json()["code"]) == (403, "vision_off")
    assert "CAMDOCK_VISION=on" in answer.json()["hint"]
