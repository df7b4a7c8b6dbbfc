"""What every test run needs: no garbage collector while tests are collected, and tests that share kept together."""

from __future__ import annotations

import gc
from typing import Any

import pytest

# Each pytest process imports everything and makes 2,000 tests: millions of objects that stay to the end. The collector
# would walk through them again and again, a quarter of the time that this takes.
gc.disable()


def pytest_collection_finish() -> None:
    """What is there now stays; only what the tests make is looked through from here on."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Ours for a plain `-n`, where `--dist` says nothing else."""
    if config.getoption("dist") != "load":
        return None
    from tests.tools.together import Together

    return Together(config, log)
