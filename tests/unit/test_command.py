"""The doctor's command line; what it then finds: tests/process/test_doctor.py."""

from __future__ import annotations

import pytest

from camdock.doctor.command import main


@pytest.mark.parametrize("deadline", ["0", "601", "nan", "soon", "-1"])
def test_a_deadline_that_cannot_be_kept_is_refused_with_those_that_can(
    deadline: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--deadline={deadline}"])
    assert ended.value.code == 2
    assert f"argument --deadline: must be 1 to 600 seconds, not {deadline!r}" in capsys.readouterr().err
