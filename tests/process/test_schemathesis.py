"""Every operation against its own description, with generated requests.

All of it is slow, and `make test` does not even read this file: each of its workers would load Schemathesis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.transport.serialization import Binary

from camdock.images import EXAMPLES
from tests.tools.hostile import FORMATS, honest
from tests.tools.raw import unharmed
from tests.tools.service import Service

pytestmark = pytest.mark.slow

FEW, MANY = 2, 60  # examples of each operation and mode
ANSWERED_WITHIN_S = 5
# What no description tells: what a camera can do, what fits a picture, what goes with what.
REFUSALS = ("setting_out_of_range", "operation_impossible")
TOGETHER = ("one of the three", "give width", "needs width", "encode is the last", "given twice")
OPEN = ("/health", "/login", "/logout", "/api/v1/health/")
# Ten wrong tokens would shut out all that follows; where no token is asked for, anything logs in.
LOGIN = "/login"
TOKEN = "a-token-of-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FRAMES = TypeAdapter(Annotated[int, Field(ge=1, le=10**9)])  # as the service reads ?frames=


@pytest.fixture(scope="module", params=["fuzzed service"])
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that is alive, idle and without a traceback in its log behind everything."""
    with Service({"CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=20"}, tmp_path_factory.mktemp("fuzzed")) as running:
        running.until_state("live")
        running.get("/web/app.js")  # its thread stays
        running.get("/snapshot?width=64")  # and the pixels process
        running.ask("POST", "/images/process?camera=camera")  # and the darkroom's
        with unharmed(running):
            yield running


class Bounded(requests.Session):
    """Sends what is generated as it is, but a stream that would be endless ends behind a few pictures."""

    def send(self, prepared: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """One request, answered in time."""
        parts = urlsplit(str(prepared.url))
        if parts.path.endswith(("/stream", "/video")):
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            asked = [value for name, value in pairs if name == "frames"]
            try:
                count = FRAMES.validate_python(asked[-1]) if asked else 1
            except ValidationError:
                pass  # refused: nothing to bound
            else:
                rest = [pair for pair in pairs if pair[0] != "frames"]
                most = 1 if any(name == "fps" for name, _ in pairs) else 3  # the second may come after 100 s
                query = urlencode([*rest, ("frames", str(min(most, count)))])
                prepared.url = urlunsplit(parts._replace(query=query))
        began = time.monotonic()
        response = super().send(prepared, **{**kwargs, "timeout": ANSWERED_WITHIN_S})
        assert time.monotonic() - began < ANSWERED_WITHIN_S, prepared.url
        return response


for kind, name in FORMATS.items():
    schemathesis.openapi.media_type(f"image/{name}", st.just(honest(kind)))
schemathesis.openapi.format("binary", st.sampled_from([honest(kind) for kind in FORMATS]).map(Binary))
schemathesis.openapi.format("operations", st.lists(st.sampled_from(EXAMPLES[:-1]), max_size=3).map(json.dumps))


def could_be_wrong(operation: Any, *, named: bool = False) -> bool:
    """Whether there is anything in its requests that can be wrong; with `named` its path is given."""
    return bool([*operation.query, *operation.body, *([] if named else operation.path_parameters)])


def keeps_to_its_description(
    operation: Any, mode: GenerationMode, session: requests.Session, overridden: dict[str, Any], examples: int
) -> set[int]:
    """The statuses that one operation answers to generated requests; fails where it answers what it should not."""
    seen = set()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode, **overridden))
    def keeps(case: schemathesis.Case) -> None:
        response = case.call_and_validate(session=session, excluded_checks=[positive_data_acceptance])
        seen.add(response.status_code)
        if response.status_code == 422 and mode.is_positive:
            refusal = response.json()
            assert refusal["code"] in REFUSALS or any(words in refusal["detail"] for words in TOGETHER), response.text

    keeps()
    return seen


@pytest.mark.parametrize("name", [None, "camera"], ids=["any camera", "the camera"])
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.timeout(100)
def test_every_operation_keeps_to_its_description(service: Service, mode: GenerationMode, name: str | None) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    answered: dict[str, set[int]] = {}
    with Bounded() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            named = "{name}" in operation.path
            if operation.path == LOGIN:
                continue
            if name is not None and not named:
                continue
            if mode.is_negative and not could_be_wrong(operation, named=name is not None):
                continue
            overridden = {"path_parameters": {"name": name}} if name else {}
            answered[operation.label] = keeps_to_its_description(operation, mode, session, overridden, MANY)
    wanted = {"positive": {200, 201}, "negative": {422}}[mode.value]
    assert len(answered) >= 3
    for label, seen in answered.items():
        is_anybody = "{filename}" in label or (name is None and "{name}" in label)  # nothing is called as generated
        is_off = label == "POST /images/annotate" and seen <= {403, 422}  # nobody has said CAMDOCK_VISION=on
        assert wanted & seen or is_anybody or is_off, f"{label} never answered {wanted}: {seen}"


@pytest.fixture(scope="module", params=["guarded service"])
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a token."""
    given = {"CAMDOCK_SOURCE": "synthetic:?size=320x240&fps=60", "CAMDOCK_TOKEN": TOKEN}
    with Service(given, tmp_path_factory.mktemp("guarded")) as running:
        assert running.get("/snapshot", headers=BEARER).status == 200
        yield running
        assert "Traceback" not in running.log, running.log[-6000:]


@pytest.mark.timeout(100)
def test_without_a_token_nothing_but_health_and_login_answers(guarded: Service) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{guarded.port}/openapi.json", headers=BEARER)
    paths = schema.raw_schema["paths"].keys()
    refused = set()

    def ask(operation: Any, mode: GenerationMode) -> None:
        @settings(
            max_examples=20, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case: schemathesis.Case) -> None:
            answer = case.call(session=session)
            assert answer.status_code == 401, (operation.label, answer.text)
            refused.add(operation.path)

        asked()

    with Bounded() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            if not operation.path.startswith(OPEN):
                for mode in GenerationMode if could_be_wrong(operation) else (GenerationMode.POSITIVE,):
                    ask(operation, mode)
    open_to_all = {path for path in paths if path.startswith(OPEN)}
    assert refused == paths - open_to_all
    assert open_to_all <= {"/health", "/health/live", "/health/ready", "/login", "/logout", "/api/v1/health/"}


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.timeout(100)
def test_with_a_token_every_operation_keeps_to_its_description(guarded: Service, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{guarded.port}/openapi.json", headers=BEARER)
    seen: set[int] = set()
    with Bounded() as session:
        session.headers.update(BEARER)
        for result in schema.get_all_operations():
            if result.ok().path != LOGIN and (mode.is_positive or could_be_wrong(result.ok())):
                seen |= keeps_to_its_description(result.ok(), mode, session, {}, FEW)
    assert {"positive": 200, "negative": 422}[mode.value] in seen
    assert 401 not in seen
