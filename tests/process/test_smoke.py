"""The main job: pictures over HTTP."""

from __future__ import annotations

from tests.tools.service import Service


def test_pictures_move_and_are_numbered(plain: Service) -> None:
    with plain.stream() as viewer:
        pictures = viewer.take(10)
    assert len({picture.jpeg for picture in pictures}) == 10
    stamps = [float(picture.headers["x-timestamp"]) for picture in pictures]
    assert stamps == sorted(stamps)
    assert plain.get("/health").json()["camera_connected"] is True
