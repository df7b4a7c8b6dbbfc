"""Google Cloud Vision, through Google's own client library: what it sees in a picture.

Runs in: a pixels process of its own. It decodes nothing: the picture was decoded, shrunk and written anew elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from camdock.errors import DriverMissing, VisionFailed
from camdock.frame import jpeg_size

Size = tuple[int, int]

# Our names of what can be asked for, and Google's.
FEATURES = {
    "labels": "LABEL_DETECTION",
    "text": "TEXT_DETECTION",
    "objects": "OBJECT_LOCALIZATION",
    "faces": "FACE_DETECTION",
}
ANSWERED_WITHIN_S = 20.0


def annotate(picture: bytes, features: Sequence[str], most: int, endpoint: str) -> bytes:
    """What Google sees in a picture, as JSON.

    picture   a JPEG
    features  names in FEATURES
    most      answers of each kind, at most
    endpoint  "": Google's own; a host name: another of Google's; "http://host:port": one that asks for no credentials
    returns   {"labels": [{"name", "score"}], "text": "...", "objects": [{"name", "score", "box"}], "faces": [{"score",
              "box"}]}, those that were asked for; score 0 to 1, box [left, top, right, bottom] as shares of the picture
    raises    DriverMissing without the library; VisionFailed where Google refuses or cannot be reached
    source    https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate
    """
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import vision
    except ImportError as error:
        raise DriverMissing(
            f"Google's client library cannot be loaded: {error}", "pip install 'camdock[vision]'"
        ) from error
    wanted = [{"type_": getattr(vision.Feature.Type, FEATURES[name]), "max_results": most} for name in features]
    try:
        answer = _client(endpoint).annotate_image(
            {"image": {"content": picture}, "features": wanted}, timeout=ANSWERED_WITHIN_S
        )
    except GoogleAuthError as error:
        raise VisionFailed(
            f"Google's credentials cannot be used: {error}",
            "set GOOGLE_APPLICATION_CREDENTIALS to a service account's file",
        ) from error
    except (GoogleAPIError, OSError) as error:
        raise VisionFailed(
            f"Google Cloud Vision did not answer: {error}", "the message is Google's; try again"
        ) from error
    if answer.error.message:
        raise VisionFailed(
            f"Google Cloud Vision refused the picture: {answer.error.message}", "the message is Google's"
        )
    size = jpeg_size(picture) or (1, 1)
    return json.dumps({name: _SHAPES[name](answer, size) for name in features}).encode()


def _client(endpoint: str) -> Any:
    """REST, not gRPC: it goes through every proxy that a site may have, and starts no threads."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorRestTransport

    if endpoint.startswith("http://"):
        host = endpoint.removeprefix("http://").rstrip("/")
        nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
        transport = ImageAnnotatorRestTransport(host=host, url_scheme="http", credentials=nobody)
        return vision.ImageAnnotatorClient(transport=transport)
    options = {"api_endpoint": endpoint} if endpoint else None
    return vision.ImageAnnotatorClient(transport="rest", client_options=options)


def _labels(answer: Any, _size: Size) -> list[dict[str, Any]]:
    return [{"name": one.description, "score": round(one.score, 4)} for one in answer.label_annotations]


def _text(answer: Any, _size: Size) -> str:
    """The first annotation is the whole text, the others its words."""
    return str(answer.text_annotations[0].description) if answer.text_annotations else ""


def _objects(answer: Any, _size: Size) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "score": round(one.score, 4),
            "box": _box([(corner.x, corner.y) for corner in one.bounding_poly.normalized_vertices]),
        }
        for one in answer.localized_object_annotations
    ]


def _faces(answer: Any, size: Size) -> list[dict[str, Any]]:
    """Google has their corners in pixels."""
    width, height = size
    return [
        {
            "score": round(one.detection_confidence, 4),
            "box": _box([(corner.x / width, corner.y / height) for corner in one.bounding_poly.vertices]),
        }
        for one in answer.face_annotations
    ]


def _box(corners: Sequence[tuple[float, float]]) -> list[float]:
    """[left, top, right, bottom] around some corners."""
    across, down = zip(*corners, strict=True) if corners else ((0.0,), (0.0,))
    return [round(side, 4) for side in (min(across), min(down), max(across), max(down))]


_SHAPES = {"labels": _labels, "text": _text, "objects": _objects, "faces": _faces}
