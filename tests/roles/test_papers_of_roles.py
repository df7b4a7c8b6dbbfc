"""The roles' papers: every variable is named, described, typed and given the same default wherever it appears."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
ROLES = sorted(path.name for path in (ANSIBLE / "roles").iterdir() if path.is_dir())
TYPES = {
    "str": str, "bool": bool, "int": int, "float": (int, float), "list": list, "dict": dict, "path": str, "raw": object,
}  # fmt: skip


@functools.cache
def read(role: str, file: str) -> Any:
    """A file of a role; nobody changes what comes out."""
    return yaml.safe_load((ANSIBLE / "roles" / role / file).read_text("utf-8")) or {}


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


@pytest.fixture(scope="module")
def describe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("describe", ANSIBLE / "describe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_three_roles_are_there() -> None:
    assert ROLES == ["deploy", "purge", "video"]


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_a_default_and_a_description(role: str) -> None:
    defaults, described = read(role, "defaults/main.yml"), options(role)
    assert set(defaults) == {name for name, option in described.items() if not option.get("required")}
    for name, option in described.items():
        assert name.startswith(f"{role}_"), name
        assert option["description"], name
        assert option["type"] in TYPES, name
        if isinstance(option["description"], list):
            assert all(isinstance(one, str) for one in option["description"]), f"{name}: a colon made a mapping of it"


@pytest.mark.parametrize("role", ROLES)
def test_a_default_is_the_same_in_both_files_and_of_its_type(role: str) -> None:
    defaults = read(role, "defaults/main.yml")
    for name, option in options(role).items():
        if name not in defaults:
            continue
        value = defaults[name]
        if isinstance(value, str) and "{{" in value:
            assert "default" not in option, f"{name} is worked out: say so in its description, not as a default"
            continue
        assert option["default"] == value, name
        assert isinstance(value, TYPES[option["type"]]), name
        assert not (option["type"] == "int" and isinstance(value, bool)), name
        if choices := option.get("choices"):
            assert set(value if isinstance(value, list) else [value]) <= set(choices), name


@pytest.mark.parametrize("role", ROLES)
def test_preflight_is_told_the_same_and_changes_nothing(role: str) -> None:
    specs = read(role, "meta/argument_specs.yml")["argument_specs"]
    assert specs["preflight"]["options"] == specs["main"]["options"]
    text = (ANSIBLE / "roles" / role / "tasks" / "preflight.yml").read_text("utf-8")
    modules = "copy|template|file|apt|user|group|systemd\\w*|lineinfile|blockinfile"
    changing = re.findall(rf"^\s*ansible\.builtin\.({modules}):", text, re.MULTILINE)
    assert not changing


@pytest.mark.parametrize("role", ROLES)
def test_no_variable_is_used_that_nobody_has_described(role: str) -> None:
    folder = ANSIBLE / "roles" / role
    known = set(options(role))
    for file in folder.glob("vars/*.yml"):
        known |= set(re.findall(rf"^\s*({role}_\w+):", file.read_text("utf-8"), re.MULTILINE))
    used: dict[str, str] = {}
    for file in [*folder.glob("tasks/*.yml"), *folder.glob("handlers/*.yml"), *folder.glob("templates/*")]:
        text = file.read_text("utf-8")
        known |= set(re.findall(rf"^\s*(?:register:\s*|(?:- )?)({role}_\w+)(?::|\s*$)", text, re.MULTILINE))
        known |= set(re.findall(rf"(?:register|loop_var|index_var):\s*({role}_\w+)", text))
        known |= set(re.findall(rf"{{%-?\s*(?:set|for)\s+({role}_\w+)", text))
        known |= {file.stem for file in folder.glob("*/*.py")}  # modules and filters
        for name in re.findall(rf"(?<![\w./'-])({role}_[a-z]\w*)", text):
            used.setdefault(name, file.name)
    assert {name: file for name, file in used.items() if name not in known} == {}


def test_the_readmes_are_what_the_specifications_say(describe: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main(["--check"]) == 0, capsys.readouterr().err


def test_a_changed_specification_is_noticed_and_written(
    describe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = {
        "argument_specs": {
            "main": {
                "short_description": "Tries",
                "options": {
                    "try_it": {"type": "list", "elements": "str", "default": ["a|b"], "description": "One | two"}
                },
            },
            "preflight": {"short_description": "Looks", "options": {}},
        }
    }
    (tmp_path / "try/meta").mkdir(parents=True)
    (tmp_path / "try/meta/argument_specs.yml").write_text(yaml.safe_dump(specs))
    monkeypatch.setattr(describe, "ROLES", tmp_path)
    assert describe.main(["--check"]) == 1
    assert not (tmp_path / "try/README.md").exists()
    assert describe.main([]) == 0
    text = (tmp_path / "try/README.md").read_text()
    assert "| `try_it` | list of str | `[a\\|b]` | One \\| two |" in text
    assert "- `preflight`: Looks" in text
    assert describe.main(["--check"]) == 0
    assert [path.name for path in (tmp_path / "try").iterdir() if path.is_file()] == ["README.md"]


def test_the_example_inventory_names_only_variables_that_exist() -> None:
    known = {name for role in ROLES for name in options(role)}
    named = set(
        re.findall(
            r"^[\s#]*((?:deploy|purge|video)_\w+):", (ANSIBLE / "inventory.example.yml").read_text(), re.MULTILINE
        )
    )
    assert named
    assert named <= known


def test_two_roles_that_see_to_the_services_user_want_the_same_of_it() -> None:
    """Otherwise each changes back what the other has done, in every play, and fails while the service runs."""
    wanted = []
    for role, file in (("video", "join.yml"), ("deploy", "main.yml")):
        known = {**read(role, "defaults/main.yml"), **read(role, "vars/main.yml")}

        def plain(value: Any, known: dict[str, Any] = known) -> Any:
            name = re.fullmatch(r"\{\{ (\w+) \}\}", value) if isinstance(value, str) else None
            return known[name.group(1)] if name else value

        tasks = read(role, f"tasks/{file}")
        (user,) = (task["ansible.builtin.user"] for task in tasks if "uid" in task.get("ansible.builtin.user", {}))
        wanted.append({name: plain(value) for name, value in user.items() if name not in ("groups", "append")})
    assert wanted[0] == wanted[1]
