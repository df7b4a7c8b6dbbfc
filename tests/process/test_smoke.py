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


def test_a_worker_starts_no_thread_for_a_mathematics_that_nobody_asks_of_it(plain: Service) -> None:
    # On a machine with one processor there would be none anyway.
    assert plain.worker().num_threads() == 2, "what takes pictures, and what reads orders"
