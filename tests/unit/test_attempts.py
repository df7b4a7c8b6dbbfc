"""How often somebody may be wrong, and what it costs us to remember."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from camdock import login
from camdock.attempts import ADDRESSES, MOST, WINDOW_S, Attempts, refusal
from camdock.config import Config
from camdock.credentials import Credentials


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_tenth_wrong_token_makes_an_address_wait_and_no_other() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(MOST - 1):
        attempts.was_wrong("10.0.0.1", "Bearer")
        clock.now += 1
    assert attempts.wait_s("10.0.0.1") == 0
    attempts.was_wrong("10.0.0.1", "Basic")
    assert attempts.wait_s("10.0.0.1") == WINDOW_S - (MOST - 1)
    assert attempts.wait_s("10.0.0.2") == 0
    clock.now = 1000 + WINDOW_S
    assert attempts.wait_s("10.0.0.1") == 0
    attempts.was_wrong("10.0.0.1", "Bearer")
    assert attempts.wait_s("10.0.0.1") == 0  # a new window


def test_many_guesses_in_one_request_are_many() -> None:
    attempts = Attempts(Clock())
    attempts.was_wrong("10.0.0.1", "?token=", MOST)
    assert attempts.wait_s("10.0.0.1") == WINDOW_S


def test_one_line_is_logged_for_an_address_and_a_window(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(30):
        attempts.was_wrong("10.0.0.1", "Basic")
        attempts.was_wrong("10.0.0.2", "Bearer")
    assert len(caplog.records) == 2
    assert "10.0.0.1 sent a wrong token (Basic)" in caplog.text
    clock.now += WINDOW_S
    attempts.was_wrong("10.0.0.1", "Basic")
    assert len(caplog.records) == 3


def test_a_bounded_number_of_addresses_is_remembered_the_latest_ones() -> None:
    attempts = Attempts(Clock())
    attempts.was_wrong("early", "Bearer", MOST)
    attempts.was_wrong("busy", "Bearer", MOST)
    for number in range(ADDRESSES - 1):
        attempts.was_wrong(f"10.{number >> 8}.{number & 255}.1", "Bearer")
        if number == ADDRESSES // 2:
            attempts.was_wrong("busy", "Bearer")
    assert attempts.remembered == ADDRESSES
    assert attempts.wait_s("early") == 0
    assert attempts.wait_s("busy") > 0


def test_the_refusal_says_how_long_to_wait() -> None:
    answer = refusal(17)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")


def test_guesses_that_come_together_are_no_more_than_those_that_come_one_by_one() -> None:
    config = Config.model_construct(
        token=SecretStr("secret-token"), viewer_token=None, token_file=None, viewer_token_file=None, auth="on",
        login_days=30.0,
    )  # fmt: skip
    app = FastAPI()
    app.include_router(login.router(Credentials(config), Attempts(Clock())))

    async def guess_together(count: int) -> Counter[int]:
        here = asyncio.Semaphore(0)
        everybody_is_here = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            here.release()
            await everybody_is_here.wait()
            yield b"token=wrong-token"

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            asking = [asyncio.create_task(client.post("/login", content=body())) for _ in range(count)]
            for _ in asking:
                await here.acquire()
            everybody_is_here.set()
            return Counter([(await one).status_code for one in asking])

    assert asyncio.run(guess_together(3 * MOST)) == {401: MOST, 429: 2 * MOST}
