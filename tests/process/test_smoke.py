"""The main job: pictures over HTTP."""

from __future__ import annotations

from tests.process.conftest import StartService


def test_pictures_move_and_are_numbered(start: StartService) -> None:
    service = start("synthetic:")
    with service.stream() as viewer:
        pictures = viewer.take(10)
    assert len({picture.jpeg for picture in pictures}) == 10
    stamps = [float(picture.headers["x-timestamp"]) for picture in pictures]
    assert stamps == sorted(stamps)
    assert service.get("/health").json()["camera_connected"] is True
