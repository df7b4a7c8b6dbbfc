"""The papers say what the code does: every variable, endpoint, error code, module and the version."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import camdock
from camdock import annotate, api, captures_api, compat, errors, images, metrics, stream
from camdock.backends import BACKENDS
from camdock.captures import Captures
from camdock.config import variables
from camdock.darkroom import Darkroom
from camdock.errors import every_error
from camdock.problems import BY_FRAMEWORK
from camdock.sender import Sender
from camdock.source import KINDS
from tests.unit.rig import Painter, camera_of, no_gate

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "service" / "camdock"
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")

UNDOCUMENTED = {"/favicon.ico", "/web/{file}"}  # what the page and the browser ask for by themselves


def lacking(wanted: set[str], text: str) -> list[str]:
    """Those that do not stand in `text` as a word of their own."""
    return sorted(word for word in wanted if not re.search(rf"(?<![\w/]){re.escape(word)}(?![\w/])", text))


# --- README -----------------------------------------------------------------------------------------------------------


def test_every_variable_stands_in_the_readme() -> None:
    missing = lacking({name for name, _default, _text in variables()}, README)
    assert not missing, "README.md does not document: " + ", ".join(missing)


def test_the_readme_names_no_variable_that_is_not_read() -> None:
    known = {name for name, _default, _text in variables()}
    unknown = sorted(set(re.findall(r"\bCAMDOCK_[A-Z_]+[A-Z]\b", README)) - known)
    assert not unknown, "README.md names variables that config.py does not read: " + ", ".join(unknown)


def test_the_readme_names_what_compose_hands_on() -> None:
    """An .env beside compose.yaml reaches the service with these, and with nothing else."""
    handed_on = set(re.findall(r"- CAMDOCK_[A-Z_]+=\$\{(CAMDOCK_[A-Z_]+)", (ROOT / "compose.yaml").read_text("utf-8")))
    ports = {"CAMDOCK_HOST", "CAMDOCK_PORT"}  # the engine's business
    assert "CAMDOCK_VIEWER_TOKEN" in handed_on
    named, _, _ = README.partition("`compose.yaml` needs no camera")[2].partition("Any other of the")
    assert set(re.findall(r"CAMDOCK_[A-Z_]+[A-Z]", named)) == handed_on | ports


def endpoints(folder: Path) -> set[str]:
    """The path of every route of ours."""
    cameras, sender, abi = {"front": camera_of(folder)}, Sender(send_timeout_s=1), no_gate()
    places, room = images.Places(cameras, Captures(folder), 1), Darkroom(Painter())
    routers = (
        api.router(cameras, sender, abi, "1"),
        stream.router(cameras, sender),
        images.router(places, room, most_pixels=1, send_timeout_s=1),
        annotate.router(places, room, room, most_pixels=1, on=False, endpoint=""),
        metrics.router(cameras, sender, abi, "1"),
        captures_api.router(cameras, Captures(folder), Darkroom(Painter()), "JPG", 95, send_timeout_s=1),
        compat.router(cameras, Captures(folder), "JPG", 95),
        compat.table_router(cameras, sender),
    )
    found = {route.path for router in routers for route in router.routes if isinstance(route, APIRoute)}
    assert {"/", "/stream", "/snapshot", "/metrics", "/captures", "/capture", "/cameras/{name}/settings"} <= found
    same = {path.rstrip("/") or "/" for path in found}  # some are there with a slash at the end, too
    return (same | {"/openapi.json"}) - UNDOCUMENTED


def test_every_endpoint_stands_in_the_readme(tmp_path: Path) -> None:
    # {name}, <name>, NAME, :name: whatever the README writes for a camera's name
    shown = re.sub(r"/(?:\{name\}|<name>|NAME|:name)(?=\W)", "/{name}", README)
    paths = endpoints(tmp_path)
    missing = sorted(path for path in paths if not re.search(rf"(?<![\w}}/.]){re.escape(path)}/?(?![\w/{{.-])", shown))
    assert not missing, "README.md does not document these endpoints: " + ", ".join(missing)


def codes_of_answers() -> Iterator[str]:
    """The code of every problem_response(status, "code", ...) in the package."""
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "problem_response" and len(node.args) > 1:
                code = node.args[1]
                if isinstance(code, ast.Constant):
                    yield str(code.value)


def error_codes() -> set[str]:
    """Every code that an answer can carry: those of the tree that are raised, and those of the answers themselves."""
    tree = set(every_error()) - {errors.CameraError.code, errors.SourceError.code}
    answers = set(codes_of_answers())
    assert {"token_needed", "host_unknown", "another_capture", "not_ready"} <= answers
    return tree | answers | {code for code, _hint in BY_FRAMEWORK.values()}


def test_every_error_code_stands_in_the_readme() -> None:
    missing = lacking(error_codes(), README)
    assert not missing, "README.md does not document these error codes: " + ", ".join(missing)


def test_every_kind_of_source_and_its_options_stand_in_the_readme() -> None:
    missing = [f"{kind}:" for kind in KINDS if not re.search(rf"\b{kind}[:`?]", README)]
    for kind in KINDS.values():
        shown = {name for name, option in kind.options.items() if not option.help.startswith("fault")}
        missing += [f"option {name} ({kind.example})" for name in lacking(shown, README)]
    assert not missing, "README.md does not document: " + ", ".join(missing)


# --- versions ---------------------------------------------------------------------------------------------------------


def test_the_version_stands_in_one_place_and_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" in project["project"]["dynamic"], "pyproject.toml has a version of its own"
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "camdock.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", camdock.__version__)
    headings = re.findall(r"(?m)^## \[?v?(\d+\.\d+\.\d+)", CHANGELOG)
    assert headings, f"CHANGELOG.md has no heading `## {camdock.__version__}`"
    assert headings[0] == camdock.__version__, f"CHANGELOG.md is at {headings[0]}, the package at {camdock.__version__}"


# --- CONTRIBUTING -----------------------------------------------------------------------------------------------------


def section(title: str) -> str:
    """One section of CONTRIBUTING.md."""
    found = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", CONTRIBUTING)
    assert found, f"CONTRIBUTING.md has no section `## {title}`"
    return found[1]


def test_the_map_names_exactly_the_modules_that_are_there() -> None:
    block = re.search(r"(?ms)^    service/camdock/.*?(?=^    \S)", section("The map"))
    assert block, "the map has no block service/camdock/"
    named = set(re.findall(r"(?m)^ {6}(\w+\.py|\w+/)", block[0])) | set(re.findall(r"\b(__\w+__\.py)\b", block[0]))
    there = {file.name for file in PACKAGE.glob("*.py")} - {"__init__.py"}
    there |= {f"{folder.name}/" for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert not there - named, "the map in CONTRIBUTING.md lacks: " + ", ".join(sorted(there - named))
    assert not named - there, "the map in CONTRIBUTING.md names what is not there: " + ", ".join(sorted(named - there))


def test_the_test_folders_in_the_map_are_those_that_are_there() -> None:
    line = re.search(r"(?m)^    tests/ +(.*?)(?:\(|$)", section("The map"))
    assert line, "the map has no line tests/"
    named = set(re.findall(r"(\w+)/", line[1]))
    there = {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir() and any(folder.glob("*.*"))}
    assert named == there - {"__pycache__"}, f"named {sorted(named)}, there are {sorted(there)}"


@pytest.mark.parametrize("cls", sorted(every_error().values(), key=lambda cls: cls.code), ids=lambda cls: cls.code)
def test_the_error_tree_in_contributing_is_the_one_in_the_code(cls: type[errors.CameraError]) -> None:
    line = next((line for line in section("Errors").splitlines() if re.search(rf"\b{cls.__name__}\b", line)), "")
    assert line, f"the error tree in CONTRIBUTING.md lacks {cls.__name__} ({cls.code})"
    if cls not in (errors.CameraError, errors.SourceError):
        assert cls.code in line


def test_every_module_opens_with_what_it_owns_and_where_it_runs() -> None:
    bare = []
    for file in sorted(PACKAGE.rglob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        if not text.splitlines()[:1] or "\nRuns in" not in text:
            bare.append(str(file.relative_to(PACKAGE)))
    assert not bare, "no `Runs in: ...` at the top of: " + ", ".join(bare)


def test_every_backend_has_its_file_and_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for kind, (module, _class_name) in BACKENDS.items():
        assert (PACKAGE / "backends" / f"{module.rpartition('.')[2]}.py").exists()
        assert not KINDS[kind].extra or KINDS[kind].extra in extras
    files = {file.stem for file in (PACKAGE / "backends").glob("*.py")} - {"__init__"}
    assert files == {module.rpartition(".")[2] for module, _class_name in BACKENDS.values()}


def test_every_unit_test_file_is_named_after_what_it_tests() -> None:
    known = {file.stem for file in PACKAGE.rglob("*.py")} | {"papers", "workflows"}
    strange = sorted({file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")} - known)
    assert not strange, f"no module of that name: {strange}"
