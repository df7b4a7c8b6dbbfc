"""How hypothesis runs here: the same examples every time, nothing kept, no deadline on a busy machine.

`make test` tries fewer of them; `make verify` runs what hypothesis finds examples for once more, with all.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", settings.get_profile("unit"), max_examples=40)


def pytest_configure(config: pytest.Config) -> None:
    """Before the first test file is read: a test takes the settings that are loaded then."""
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "unit")
