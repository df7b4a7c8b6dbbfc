"""The page of `camdock --help`: all that can be given, readable in a terminal of 80 columns."""

from __future__ import annotations

import pytest

from camdock.config import Config, names_of
from camdock.source import KINDS
from camdock.usage import epilog


def shown(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> str:
    """The page in a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    return epilog()


def flat(text: str) -> str:
    """With single spaces, whatever lines it was broken into."""
    return " ".join(text.split())


@pytest.mark.parametrize("columns", [40, 80, 100, 120, 300])
def test_no_line_is_wider_than_the_terminal_or_than_eyes_like(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    widest = max(map(len, shown(monkeypatch, columns).splitlines()))
    assert widest <= min(max(columns, 80), 120)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(("kind", "known"), KINDS.items())
def test_every_option_is_told_with_what_it_means_and_may_be(
    monkeypatch: pytest.MonkeyPatch, kind: str, known: object, columns: int
) -> None:
    page = flat(shown(monkeypatch, columns))
    sources, _, behind = page.partition(" options of several sources")
    shared, _, faults = behind.partition(" faults of synthetic:")
    faults = faults.partition(" environment")[0]
    own = sources.partition(f" {KINDS[kind].example} ")[2]
    for other in KINDS.values():
        own = own.partition(f" {other.example} {flat(other.help)} ")[0] if other is not KINDS[kind] else own
    assert known is KINDS[kind]
    assert own.startswith(KINDS[kind].help)
    listed = own.partition("options below: ")[2].split()
    for name, option in KINDS[kind].options.items():
        values = f" ({option.values})" if option.values and not option.is_fault else ""
        line = f"{name}= {option.help.removeprefix('fault: ')}{values}"
        assert line in (faults if option.is_fault else shared if name in listed else own), line
        assert not option.is_fault or line not in sources + shared, "a fault among what people want"


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("awb", "(auto, incandescent, tungsten, fluorescent, indoor, daylight, cloudy)"),
        ("hdr", "(off, single, multi, night)"),
        ("encoder", "(auto, software, hardware)"),
        ("focus", "once, continuous, or dioptres"),
        ("format", "(MJPG, JPEG, YUYV, UYVY, NV12, YU12, YV12, GREY, RGB3, BGR3)"),
        ("exposure_us", "(1 to 3600000000)"),
    ],
)
def test_values_that_were_known_from_errors_alone_are_told(
    monkeypatch: pytest.MonkeyPatch, option: str, values: str
) -> None:
    page = flat(shown(monkeypatch))
    assert any(values in rest[:200] for rest in page.split(f" {option}= ")[1:])


def test_every_variable_is_told_with_its_other_name_its_words_and_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    page = flat(shown(monkeypatch).partition("\nenvironment: ")[2])
    assert "`.env`" in page
    for field, info in Config.model_fields.items():
        assert f"{' or '.join(names_of(field))} " in page
        assert flat(info.description or "?") in page
    for words in ("debug, info, warning, error", "JPG, PNG, TIFF", "(default 8000)", "(default 0)"):
        assert words in page
    assert "default False" not in page


def test_the_commands_are_told_in_an_order_in_which_they_make_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = shown(monkeypatch).partition("\n\n")[0].splitlines()
    named = [line.split()[1] for line in commands if line.startswith("  camdock ")]
    assert named == ["[SOURCE]", "devices", "doctor", "abi", "seal"], "seal speaks of what abi judges"
