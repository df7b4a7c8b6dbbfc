"""What all tests on Ansible targets need: an engine, and the journal of the targets where a test fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.tools.cannot import cannot
from tests.tools.containers import docker, remove_all
from tests.tools.target import Target


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[None]:
    """A Docker engine; afterwards nothing of these tests is left on it but the images of the targets."""
    if shutil.which("docker") is None or docker("version", check=False).returncode != 0:
        cannot("no Docker engine answers: make testbed")
    remove_all()
    yield
    remove_all()


Figure = Callable[[str], None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """figure("a gap of 1.2 s"): stands below the results, whichever process the test ran in."""
    return lambda text: request.node.user_properties.append(("figure", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests measured."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for kind, text in report.user_properties if report.when == "call" else ():
            if kind == "figure":
                terminalreporter.write_line(f"-- {report.nodeid.rpartition('/')[2]}: {text}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, what its targets have logged belongs to the report."""
    report = yield
    if report.failed:
        report.sections += [(f"journal of {one.name}", one.log) for one in Target.alive]
    return report
