"""Programs of the system that some tests need: absent, such a test is skipped with the reason; under CI it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(program: str) -> pytest.MarkDecorator:
    """Skip a test on a machine without `program`; never under CI, where its absence is an error of the machine."""
    missing = shutil.which(program) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{program} is not installed: make testbed")
