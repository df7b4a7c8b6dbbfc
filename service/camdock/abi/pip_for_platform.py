"""Run with the interpreter that has pip: `python pip_for_platform.py MARKERS ARGUMENT...` is `pip ARGUMENT...` with the
markers' environment replaced by that JSON object.

pip chooses wheels for the platform it is told, but evaluates environment markers for the machine it runs on
(https://github.com/pypa/pip/issues/11664). So the environment is replaced before pip loads anything else; the report
that pip writes carries it, and wheels.py checks that it is the one asked for. `pip install` up to at least 23.2 also
compares a package's Requires-Python with the Python it runs on, where `pip download` takes the one it is told.

--only-binary does not hold for a requirement with an address, which any wheel's metadata may name (`x @ file:///...`):
pip would fetch that source and run its build to learn its metadata. So what is no wheel is refused, unfetched.

Runs in: a process of its own, of any interpreter that has pip; imports nothing of Camdock.
"""

import json
import sys
from typing import Any

from pip._vendor.packaging import markers

_environment = {**markers.default_environment(), **json.loads(sys.argv[1])}
markers.default_environment = lambda: dict(_environment)

from pip._internal.cli.main import main  # noqa: E402  after the markers
from pip._internal.cli.req_command import RequirementCommand  # noqa: E402
from pip._internal.exceptions import InstallationError  # noqa: E402
from pip._internal.operations.prepare import RequirementPreparer  # noqa: E402

_make_resolver: Any = vars(RequirementCommand)["make_resolver"].__func__  # the function below the classmethod


def _for_that_python(cls: type, *arguments: Any, **named: Any) -> Any:
    named["py_version_info"] = tuple(map(int, _environment["python_version"].split(".")))
    return _make_resolver(cls, *arguments, **named)


RequirementCommand.make_resolver = classmethod(_for_that_python)  # type: ignore[assignment,method-assign]

_prepare: Any = RequirementPreparer.prepare_linked_requirement


def _wheels_only(self: Any, requirement: Any, *arguments: Any, **named: Any) -> Any:
    if not requirement.link.is_wheel:
        raise InstallationError(f"{requirement} is no wheel: building it would run its code, so it is not fetched")
    return _prepare(self, requirement, *arguments, **named)


RequirementPreparer.prepare_linked_requirement = _wheels_only  # type: ignore[assignment,method-assign]

sys.exit(main(sys.argv[2:]))
