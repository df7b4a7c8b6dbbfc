"""Every operation against its own description, and requests that no description covers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from pydantic import Field, TypeAdapter, ValidationError
from schemathesis.generation.modes import GenerationMode

from tests.tools.raw import connect, open_files, read_all, request, reset, until_nobody_looks
from tests.tools.service import Service

EXAMPLES = 40  # of each operation and mode
ANSWERED_WITHIN_S = 5
FRAMES = TypeAdapter(Annotated[int, Field(ge=1, le=10**9)])  # as the service reads ?frames=


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that is alive, idle and without a traceback in its log behind everything."""
    with Service({"CAMDOCK_SOURCE": "synthetic:?fps=60"}, tmp_path_factory.mktemp("fuzzed")) as running:
        running.until_state("live")
        running.get("/web/app.js")  # its thread stays
        files = open_files(running)
        worker = running.worker().pid
        yield running
        until_nobody_looks(running, files)
        assert running.worker().pid == worker
        assert running.get("/health").json()["camera_connected"] is True
        assert "Traceback" not in running.log, running.log[-6000:]


class Bounded(requests.Session):
    """Sends what is generated as it is, but a stream that would be endless ends behind a few pictures."""

    def send(self, prepared: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """One request, answered in time."""
        parts = urlsplit(str(prepared.url))
        if parts.path.endswith("/stream"):
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            asked = [value for name, value in pairs if name == "frames"]
            try:
                count = FRAMES.validate_python(asked[-1]) if asked else 1
            except ValidationError:
                pass  # refused: nothing to bound
            else:
                rest = [pair for pair in pairs if pair[0] != "frames"]
                query = urlencode([*rest, ("frames", str(min(3, count)))])
                prepared.url = urlunsplit(parts._replace(query=query))
        began = time.monotonic()
        response = super().send(prepared, **{**kwargs, "timeout": ANSWERED_WITHIN_S})
        assert time.monotonic() - began < ANSWERED_WITHIN_S, prepared.url
        return response


def statuses(operation: Any, mode: GenerationMode, session: requests.Session) -> set[int]:
    """What one operation answers to generated requests; fails where it does not keep to its description."""
    seen = set()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps(case: schemathesis.Case) -> None:
        seen.add(case.call_and_validate(session=session).status_code)

    keeps()
    return seen


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.timeout(100)
def test_every_operation_keeps_to_its_description(service: Service, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    for result in schema.get_all_operations():
        with Bounded() as session:
            try:
                b=time.monotonic()
                print(result.ok().label, statuses(result.ok(), mode, session), time.monotonic()-b)
            except Exception as e:
                print(result.ok().label, "FAILED", type(e), str(e)[:1500])
