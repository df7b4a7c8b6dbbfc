"""The error tree: what HOUSE and README promise of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from camdock import errors
from camdock.errors import CameraError, SourceFailed, every_error, from_code

# A row of the tree that opens errors.py: class, code, HTTP status (inherited from the row above when blank), retry.
_ROW = re.compile(r"[│├└─ ]*(\w+) +(\w+)(?: +(\d{3}))?(?: +(yes|no))?")


def _drawn() -> dict[str, tuple[str, str | None, str | None]]:
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if (match := _ROW.match(line)) and match[1] in vars(errors) and "_" in match[2]:
            found[match[1]] = (match[2], match[3], match[4])
    return found


def _concrete() -> list[type[CameraError]]:
    return [cls for cls in every_error().values() if cls not in (CameraError, errors.SourceError)]


def test_the_tree_drawn_at_the_top_is_the_tree_in_the_code() -> None:
    drawn = _drawn()
    assert {cls.__name__ for cls in _concrete()} == set(drawn)
    for name, (code, status, retry) in drawn.items():
        cls = getattr(errors, name)
        assert cls.code == code
        assert status is None or cls.http_status == int(status), name
        if issubclass(cls, errors.SourceError):
            assert cls.http_status == 503, name
            assert cls.retry is (retry == "yes"), name


def test_no_two_errors_share_a_code() -> None:
    def below(cls: type[CameraError]) -> list[type[CameraError]]:
        return [cls] + [found for child in cls.__subclasses__() for found in below(child)]

    assert len(every_error()) == len(below(CameraError))


@pytest.mark.parametrize("cls", every_error().values(), ids=lambda cls: cls.__name__)
def test_an_error_survives_the_wire(cls: type[CameraError]) -> None:
    back = from_code(cls.code, "/dev/video0 is held by pid 812", "stop it")
    assert type(back) is cls
    assert (back.message, back.hint) == ("/dev/video0 is held by pid 812", "stop it")
    assert str(back) == "/dev/video0 is held by pid 812"


def test_a_code_of_another_version_is_a_failure_of_the_source() -> None:
    assert type(from_code("made_up_later", "what?")) is SourceFailed


def test_every_code_and_summary_is_one_that_programs_and_people_can_read() -> None:
    for code, cls in every_error().items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", code)
        assert cls.summary
        assert 400 <= cls.http_status < 600
    summaries = [cls.summary for cls in every_error().values()]
    assert len(set(summaries)) == len(summaries)


def _is_empty(hint: ast.expr | None) -> bool:
    if isinstance(hint, ast.IfExp):
        return _is_empty(hint.body) or _is_empty(hint.orelse)
    return hint is None or (isinstance(hint, ast.Constant) and not hint.value)


def _without_a_hint(text: str) -> list[int]:
    """The lines of a module on which an error of the tree or a problem document is made that says not what to do."""
    place = {cls.__name__: 1 for cls in every_error().values()} | {"problem_response": 4}
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and (name := getattr(node.func, "id", "")) in place:
            named = next((one.value for one in node.keywords if one.arg == "hint"), None)
            hint = node.args[place[name]] if len(node.args) > place[name] else named
            if _is_empty(hint) and not any(isinstance(one, ast.Starred) for one in node.args):
                found.append(node.lineno)
    return found


def test_whatever_goes_wrong_has_a_hint() -> None:
    package = Path(errors.__file__).parent
    files = [file for file in package.rglob("*.py") if "doctor" not in file.parts]  # which has hints of its own
    lacking = [f"{file.relative_to(package)}:{line}" for file in files for line in _without_a_hint(file.read_text())]
    assert not lacking, "no hint at " + ", ".join(lacking)
    assert _without_a_hint('SourceBusy("x")\nSourceBusy("x", "")\nSourceBusy("x", "y" if z else "")') == [1, 2, 3]
    assert _without_a_hint('problem_response(412, "a", "b", "c")\nproblem_response(1, "a", "b", "c", "d")') == [1]


def test_only_what_a_person_must_do_is_not_tried_again() -> None:
    assert {cls.code for cls in every_error().values() if not cls.retry} == {"source_denied", "driver_missing"}
