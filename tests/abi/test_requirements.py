"""What is asked for and what is pinned: files read, files rewritten."""

import os
import textwrap

import pytest

from camdock.abi.requirements import (
    FileUnusable,
    read_constraints,
    read_wanted,
    replace_file,
    rewritten,
)

PROJECT = """
[project]
name = "camdock"
dependencies = ["packaging"]
[project.optional-dependencies]
service = ["numpy", "uvloop; platform_machine == 'x86_64'"]
opencv = ["camdock[service]", "opencv-python-headless"]
All_of-it = ["camdock[opencv]"]
lint = ["ruff"]
"""

PINS = """\
# The pins.

numpy==2.2.0        # ABI line 2.x
Simple_JPEG==1.8.2

# web
fastapi==0.104.1    # wants starlette<0.28
  # and not only that
starlette==0.27.0

# tests
pytest==9.2.0; python_version < "4"  # a story
"""


def write(folder, name, text):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def names(wanted):
    return [str(requirement) for requirement, _ in wanted.requirements]


def test_a_project_wants_its_dependencies_and_every_extra_once(tmp_path):
    path = write(tmp_path, "pyproject.toml", PROJECT)
    assert names(read_wanted(str(path))) == [
        "packaging", "numpy", 'uvloop; platform_machine == "x86_64"', "opencv-python-headless", "ruff",
    ]  # fmt: skip


def test_an_extra_brings_those_it_names(tmp_path):
    path = write(tmp_path, "pyproject.toml", PROJECT)
    assert "ruff" not in names(read_wanted(f"{path}[all-of-it]"))
    assert "opencv-python-headless" in names(read_wanted(f"{path}[all.of_it]"))
    assert names(read_wanted(f"{path}[]")) == ["packaging"]


def test_an_extra_that_is_not_there_is_said_with_those_that_are(tmp_path):
    path = write(tmp_path, "pyproject.toml", PROJECT)
    with pytest.raises(FileUnusable, match="no extra 'server'; it has all-of-it, lint, opencv, service"):
        read_wanted(f"{path}[server]")


def test_a_requirements_file_may_name_another_and_what_is_built_from_source(tmp_path):
    write(tmp_path, "more.in", "pillow<11 # why\n")
    path = write(tmp_path, "all.in", "-r more.in\nnumpy>=1.21,<2\n--no-binary Python_PRCTL  # never touches NumPy\n")
    wanted = read_wanted(str(path))
    assert names(wanted) == ["pillow<11", "numpy<2,>=1.21"]
    assert [origin for _, origin in wanted.requirements] == ["more.in", "all.in"]
    assert wanted.from_source == {"python-prctl": "never touches NumPy"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--no-binary python-prctl", "say why"),
        ("--index-url https://example.org", "is not understood here"),
        ("numpy=>2", "is no requirement"),
        ("evil @ file:///srv/evil", "names an address: .*; write evil==VERSION"),
        ("file:///srv/evil", "is no requirement"),
        ("-r some.in", "leads back to a file that is being read"),
        (f"numpy; {'(' * 3000}os_name == 'posix'{')' * 3000}", "is no requirement"),
    ],
)
def test_a_line_that_is_not_understood_is_named(tmp_path, line, said):
    path = write(tmp_path, "some.in", f"pillow\n{line}\n")
    with pytest.raises(FileUnusable, match=rf"some\.in line 2: .*{said}"):
        read_wanted(str(path))


def test_files_that_name_each_other_in_a_circle_are_refused_and_one_named_twice_is_not(tmp_path):
    write(tmp_path, "base.in", "numpy\n")
    write(tmp_path, "a.in", "-r base.in\n-r b.in\n")
    path = write(tmp_path, "b.in", "-r base.in\npillow\n")
    assert names(read_wanted(str(tmp_path / "a.in"))) == ["numpy", "numpy", "pillow"]
    path.write_text("-r base.in\n-r ../" + tmp_path.name + "/a.in\n")
    with pytest.raises(FileUnusable, match=r"b\.in line 2: .*leads back to a file that is being read"):
        read_wanted(str(tmp_path / "a.in"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dependencies = 5", r"dependencies in \[project\] must be a list of requirements"),
        ('dependencies = "numpy"', r"dependencies in \[project\] must be a list of requirements"),
        ("dependencies = [1]", "each a string"),
        ('optional-dependencies = ["a"]', r"\[project.optional-dependencies\] must be a table"),
        ("optional-dependencies.web = 5", r"optional-dependencies\.web in \[project\] must be a list"),
        ('optional-dependencies.web = "uvicorn"', r"optional-dependencies\.web in \[project\] must be a list"),
        ('dependencies = ["evil @ git+https://example.org/evil"]', "names an address"),
        (f"dependencies = {'[' * 5000}{']' * 5000}", "is no TOML"),
    ],
)
def test_a_project_of_another_shape_is_refused(tmp_path, text, said):
    path = write(tmp_path, "pyproject.toml", f"[project]\n{text}\n")
    with pytest.raises(FileUnusable, match=rf"pyproject\.toml.*{said}"):
        read_wanted(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("numpy>=2", "line 1: 'numpy>=2' does not pin one version; write numpy==VERSION"),
        ("numpy==2.*", "does not pin one version"),
        ("numpy", "does not pin one version"),
        ("numpy==2.0\nNumPy==2.1", "line 2: numpy is pinned a second time; line 1"),
        ("-r other.txt", "only pins"),
        ("# nothing", "pins nothing"),
    ],
)
def test_constraints_that_do_not_pin_are_refused(tmp_path, text, said):
    with pytest.raises(FileUnusable, match=said.replace("*", r"\*")):
        read_constraints(write(tmp_path, "c.txt", text))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileUnusable, match=r"absent\.txt cannot be read: No such file"):
        read_constraints(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileUnusable, match="is no text"):
        read_constraints(tmp_path / "binary.txt")


def test_a_rewritten_file_keeps_everything_but_the_versions(tmp_path):
    constraints = read_constraints(write(tmp_path, "c.txt", PINS))
    assert rewritten(constraints, constraints.versions, {}) == PINS
    moved = {**constraints.versions, "numpy": "2.10.12", "fastapi": "1.0", "pytest": "10.0"}
    assert rewritten(constraints, moved, {}) == PINS.replace("numpy==2.2.0        #", "numpy==2.10.12      #").replace(
        "fastapi==0.104.1    #", "fastapi==1.0        #"
    ).replace('pytest==9.2.0; python_version < "4"  #', 'pytest==10.0; python_version < "4"   #')


def test_a_pin_that_outgrows_its_column_keeps_two_spaces(tmp_path):
    constraints = read_constraints(write(tmp_path, "c.txt", "numpy==2.2.0  # story\n"))
    assert rewritten(constraints, {"numpy": "2.2.0.post11"}, {}) == "numpy==2.2.0.post11  # story\n"


def test_a_new_pin_goes_where_the_package_is_that_wants_it(tmp_path):
    constraints = read_constraints(write(tmp_path, "c.txt", PINS))
    text = rewritten(
        constraints,
        {**constraints.versions, "annotated-doc": "0.0.7", "orphan": "1.0"},
        {"annotated-doc": {"fastapi", "other"}},
    )
    assert "starlette==0.27.0\nannotated-doc==0.0.7  # fastapi, other\n\n# tests" in text
    assert text.endswith("# a story\norphan==1.0\n")


def test_a_pin_that_nothing_needs_goes_and_its_neighbours_stay(tmp_path):
    constraints = read_constraints(write(tmp_path, "c.txt", PINS))
    versions = {name: version for name, version in constraints.versions.items() if name != "starlette"}
    assert rewritten(constraints, versions, {}) == PINS.replace("starlette==0.27.0\n", "")


def test_a_replaced_file_keeps_its_permissions_and_leaves_nothing_beside_it(tmp_path):
    path = write(tmp_path, "c.txt", "old")
    path.chmod(0o640)
    replace_file(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["c.txt"]
