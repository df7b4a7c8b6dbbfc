"""The modules of role deploy, without a host: packing, judging, naming, and what they say."""

from __future__ import annotations

import errno
import gzip
import hashlib
import importlib
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "ansible" / "roles" / "deploy"


def loaded(name: str, path: Path) -> ModuleType:
    """A file that is no package's, as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# They need Ansible's module of that name and nothing in it. Our own folder ansible/ must not be taken for it.
try:
    importlib.import_module("ansible.module_utils.basic")
except ModuleNotFoundError:
    for name in ("ansible", "ansible.module_utils", "ansible.module_utils.basic"):
        sys.modules[name] = ModuleType(name)
    sys.modules["ansible.module_utils.basic"].AnsibleModule = object  # type: ignore[attr-defined]

# Under other names than the modules have: the release tool, too, is called camdock_release.
common = loaded("ansible.module_utils.camdock_deploy", ROLE / "module_utils" / "camdock_deploy.py")
archive = loaded("module_camdock_archive", ROLE / "library" / "camdock_archive.py")
build = loaded("module_camdock_build", ROLE / "library" / "camdock_build.py")
files = loaded("module_camdock_files", ROLE / "library" / "camdock_files.py")
image = loaded("module_camdock_image", ROLE / "library" / "camdock_image.py")
preflight = loaded("module_camdock_preflight", ROLE / "library" / "camdock_preflight.py")
# Not by its own name: that is the release tool's, whose tests may run in the same process.
release = loaded("library.camdock_release", ROLE / "library" / "camdock_release.py")
source = loaded("module_camdock_source", ROLE / "library" / "camdock_source.py")
token = loaded("module_camdock_token", ROLE / "library" / "camdock_token.py")


# --- the source -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with everything in it that must be left out."""
    root = tmp_path / "project"
    code = root / "service" / "camdock"
    (code / "__pycache__").mkdir(parents=True)
    (root / "docker/pins").mkdir(parents=True)
    for name in source.PAPERS:
        (root / name).write_text(name)
    (root / "docker/pins/picamera2.in").write_text("picamera2\n--no-binary python-prctl  # why\n--no-binary pidng\n")
    (code / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (code / "app.py").write_text("app")
    for left in ("__pycache__/app.cpython-311.pyc", ".app.py.swp", "app.py~", "old.pyc"):
        (code / left).write_text("no")
    return root


def test_the_same_files_give_the_same_archive_whatever_lies_beside_and_whenever(project: Path, tmp_path: Path) -> None:
    first = source.files(project)
    packed = source.pack(first, "1.2.3")
    for file in project.rglob("*"):
        os.utime(file, (1, 1))
    (project / "service" / "camdock" / "app.py").chmod(0o600)
    again = source.files(project)
    assert source.digest(again) == source.digest(first)
    assert source.pack(again, "1.2.3") == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        names = opened.getnames()
        assert {entry.mtime for entry in opened} == {source.MADE}
    assert names == sorted(names)
    assert names == [f"camdock-1.2.3/{name}" for name in
                     ("LICENSE", "README.md", "constraints.txt", "docker/pins/picamera2.in",
                      "docker/pins/picamera2.txt", "pyproject.toml",
                      "service/camdock/__init__.py", "service/camdock/app.py")]  # fmt: skip


@pytest.mark.parametrize("name", ["constraints.txt", "service/camdock/app.py"])
def test_every_file_that_goes_in_counts(project: Path, name: str) -> None:
    before = source.digest(source.files(project))
    (project / name).write_text("other")
    assert source.digest(source.files(project)) != before


def test_a_folder_that_is_not_the_project_is_named(project: Path) -> None:
    (project / "constraints.txt").unlink()
    with pytest.raises(source.SourceMissing, match=r"constraints\.txt is not there"):
        source.files(project)


def test_old_archives_on_the_controller_go(tmp_path: Path) -> None:
    for number in range(5):
        path = source.write(tmp_path, f"camdock-{number}.tar.gz", b"x")
        os.utime(path, (number, number))
    source.write(tmp_path, "camdock-new.tar.gz", b"y")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "camdock-3.tar.gz",
        "camdock-4.tar.gz",
        "camdock-new.tar.gz",
    ]


def test_sources_are_judged_by_the_service_s_own_rules() -> None:
    assert source.judge(ROOT, "synthetic:", "") == ({"camera": "synthetic"}, [])
    assert source.judge(ROOT, "auto", "front=picamera2:0 nest=synthetic:") == (
        {"front": "picamera2", "nest": "synthetic"}, [],
    )  # fmt: skip
    assert source.judge(ROOT, "v4l3:0", "")[1][0].startswith("deploy_source cannot work: ")
    assert source.judge(ROOT, "auto", "Front=v4l2:0")[1][0].startswith("deploy_sources cannot work: ")
    (sentence,) = source.judge(ROOT, "relay:http://user:secret-word@host/?fps=x#fps=x", "")[1]
    assert "secret-word" not in sentence


# --- names and words --------------------------------------------------------------------------------------------------


def test_a_build_s_id_follows_from_all_that_it_is_made_from() -> None:
    first = common.build_of_source("1.0", "a" * 64, ["v4l2", "relay"], "3.13")
    assert first.startswith("1.0-")
    assert first == common.build_of_source("1.0", "a" * 64, ["relay", "v4l2"], "3.13")
    others = [
        common.build_of_source("1.0", "b" * 64, ["v4l2", "relay"], "3.13"),
        common.build_of_source("1.0", "a" * 64, ["v4l2"], "3.13"),
        common.build_of_source("1.0", "a" * 64, ["v4l2", "relay"], "3.11"),
    ]
    assert len({first, *others}) == 4
    assert common.build_of_image("", "c" * 64) == "image-cccccccccccc"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@index/simple/", "https://***@index/simple/"),
        ("relay:http://me:p%40ss@cam/?x=1&token=abc#fps=5", "relay:http://***@cam/?x=1&token=***#fps=5"),
        ("rtsp://me:p@ss'w(rd@cam/live", "rtsp://***@cam/live"),
        ("http://cam/?api_key=abc&user=me&fps=5", "http://cam/?api_key=***&user=***&fps=5"),
        ("mail@example.org, http://host/@path", "mail@example.org, http://host/@path"),
    ],
)
def test_no_login_is_shown(text: str, shown: str) -> None:
    assert common.without_secrets(text) == shown


def test_two_builds_at_once_wait_for_each_other(tmp_path: Path) -> None:
    with (
        common.alone(tmp_path / "lock", 0),
        pytest.raises(common.Busy, match="another play"),
        common.alone(tmp_path / "lock", 0),
    ):
        pass
    with common.alone(tmp_path / "lock", 0):
        pass


def test_a_child_that_outlives_us_keeps_the_lock(tmp_path: Path) -> None:
    with common.alone(tmp_path / "lock", 0) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(common.Busy), common.alone(tmp_path / "lock", 0):
        pass
    child.communicate()
    with common.alone(tmp_path / "lock", 0):
        pass


# --- preflight --------------------------------------------------------------------------------------------------------


def host(**changed: Any) -> Any:
    """A Debian 13 that lacks nothing."""
    usual = {
        "name": "Debian GNU/Linux 13 (trixie)", "id": "debian", "release": "13", "architecture": "amd64",
        "machine": "x86_64", "python": (3, 13), "init": "systemd",
    }  # fmt: skip
    return preflight.Host(**{**usual, **changed})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"id": "debian", "release": "11", "name": "Debian GNU/Linux 11 (bullseye)"}, "runs Debian GNU/Linux 11"),
        ({"id": "", "release": "", "name": "an unknown system"}, "runs an unknown system"),
        ({"architecture": "armhf", "machine": "aarch64"}, "a 32-bit system (armhf) although its processor could"),
        ({"architecture": "armhf", "machine": "armv7l", "id": "raspbian"}, "a 32-bit system (armhf): NumPy"),
        ({"architecture": "riscv64", "machine": "riscv64"}, "a system for riscv64"),
        ({"python": None}, "/usr/bin/python3 does not run"),
        ({"python": (3, 10)}, "is Python 3.10; Camdock needs 3.11 to 3.13"),
        ({"python": (3, 14)}, "is Python 3.14"),
        ({"init": "sh"}, "Process 1 of this host is sh, not systemd"),
    ],
)
def test_what_a_host_lacks_is_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    (said,) = preflight.judge(host(**changed))
    assert sentence in said


@pytest.mark.parametrize(
    "changed",
    [{}, {"release": "12", "python": (3, 11)}, {"architecture": "arm64", "machine": "aarch64"},
     {"id": "ubuntu", "release": "24.04", "python": (3, 12)}],
)  # fmt: skip
def test_hosts_that_lack_nothing_are_not_spoken_of(changed: dict[str, Any]) -> None:
    assert preflight.judge(host(**changed)) == []


def given(**changed: Any) -> dict[str, Any]:
    """The module's parameters, as for a plain native deployment."""
    usual = {"mode": "native", "image": "", "image_archive": "", "source": "auto", "sources": "", "settings": {},
             "port": 8000, "keep": 3, "memory_max": "512M"}  # fmt: skip
    return {**usual, **changed}


DIGEST = f"registry.example.org:5000/camdock@sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"source": "synthetic:", "sources": "a=synthetic:"}, "deploy_source and deploy_sources are both set"),
        ({"settings": {"CAMDOCK_TOKEN": "x"}}, "deploy_settings has CAMDOCK_TOKEN"),
        ({"settings": {"CAMDOCK_LOG_LEVEL": "a\nb"}}, "more than one line"),
        ({"settings": {"camdock_x": "1"}}, "only variables of the service"),
        ({"port": 0}, "deploy_port is 0"),
        ({"keep": 0}, "deploy_keep is 0"),
        ({"memory_max": "plenty"}, "deploy_memory_max is 'plenty'"),
        ({"memory_max": "0M"}, "deploy_memory_max is '0M'"),
        ({"port": 65536}, "deploy_port is 65536"),
        ({"image_archive": "x.tar"}, "deploy_image_archive is set, and deploy_mode is native"),
        ({"mode": "container"}, "is needed in deploy_mode container"),
        ({"mode": "container", "image": DIGEST, "image_archive": "x"}, "are both set"),
        ({"mode": "container", "image": "camdock:latest"}, "names no digest"),
    ],
)
def test_variables_that_contradict_each_other_are_named(changed: dict[str, Any], sentence: str) -> None:
    (said,) = preflight.contradictions(given(**changed))
    assert sentence in said


def test_variables_that_belong_together_are_not_spoken_of() -> None:
    assert preflight.contradictions(given(settings={"CAMDOCK_LINGER_S": 60})) == []
    assert preflight.contradictions(given(mode="container", image=DIGEST)) == []
    assert preflight.contradictions(given(mode="container", image_archive="x.tar")) == []


def test_who_holds_a_port_is_found() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        found = preflight.listeners(port)
        assert list(found) == ["127.0.0.1"]
        assert f"(pid {os.getpid()})" in preflight.holder(found["127.0.0.1"])
        assert preflight.in_the_way("0.0.0.0", found) == found
        assert preflight.in_the_way("127.0.0.1", found) == found
    assert preflight.listeners(port) == {}
    assert preflight.in_the_way("127.0.0.1", {"192.0.2.1": "7"}) == {}
    assert preflight.in_the_way("127.0.0.1", {"::": "7"}) == {"::": "7"}


def test_folders_of_one_disk_count_together(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    free = state.f_bavail * state.f_frsize // 1_000_000
    half = free * 6 // 10
    assert preflight.too_full({tmp_path / "a": half}) == []
    (said,) = preflight.too_full({tmp_path / "a": half, tmp_path / "b" / "c": half})
    assert f"{2 * half} MB are needed" in said
    assert preflight.too_full({tmp_path / "a": half, tmp_path / "b": half}, least_mb=1) == []
    assert len(preflight.too_full({tmp_path: 1}, least_mb=free * 2)) == 1


def test_an_index_that_nobody_answers_at_is_named_without_its_login() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and nobody listens
        index = f"http://me:hidden@127.0.0.1:{unused.getsockname()[1]}/simple"
        (said,) = preflight.not_reached({"mode": "native", "environment": {"PIP_INDEX_URL": index, "NO_PROXY": "*"}})
    assert "http://***@127.0.0.1" in said
    assert "refused" in said
    assert "hidden" not in said
    assert preflight.not_reached({"mode": "native", "environment": {"PIP_NO_INDEX": "1"}}) == []


def test_a_pis_own_camera_wants_the_python_of_its_pins() -> None:
    assert preflight.no_pins_for(host(python=(3, 13))) == []
    (said,) = preflight.no_pins_for(host(python=(3, 11)))
    for word in ("3.13", "3.11", "Raspberry Pi OS trixie", "deploy_mode: container"):
        assert word in said
    small, large = (
        preflight.room_for(
            {"mode": "native", "extras": extras, "root": "/a", "cache": "/b", "environment": {}}, ["gcc"]
        )
        for extras in (["v4l2"], ["picamera2", "v4l2"])
    )
    assert large[Path("/a")] > small[Path("/a")]
    assert large[Path("/usr")] > small[Path("/usr")]


@pytest.mark.parametrize(
    ("image", "address"),
    [
        (DIGEST, "https://registry.example.org:5000/v2/"),
        ("localhost:5000/x@sha256:a", "http://localhost:5000/v2/"),
        ("camdock/camdock@sha256:a", "https://registry-1.docker.io/v2/"),
        ("camdock@sha256:a", "https://registry-1.docker.io/v2/"),
    ],
)
def test_an_image_s_registry(image: str, address: str) -> None:
    assert preflight.registry_of(image) == address


def test_every_reserved_variable_is_one_of_the_service_s() -> None:
    from camdock.config import variables

    assert set(preflight.RESERVED) <= {name for name, _, _ in variables()}


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def to_build(tmp_path: Path, project: Path) -> dict[str, Any]:
    """What the module is given, with a small source."""
    packed = tmp_path / "camdock.tar.gz"
    packed.write_bytes(source.pack(source.files(project), "1.2.3"))
    root = tmp_path / "opt"
    (root / "builds").mkdir(parents=True)
    return {
        "root": str(root), "build": "1.2.3-abc", "version": "1.2.3", "archive": str(packed),
        "extras": ["v4l2", "relay"], "cache": str(tmp_path / "cache"), "environment": {"PIP_INDEX_URL": "https://me:hidden@index/"},
    }  # fmt: skip


def test_numpy_comes_first_and_from_a_wheel_and_the_judgement_before_it_is_complete(to_build: dict[str, Any]) -> None:
    folder = Path(to_build["root"], "builds", "1.2.3-abc")
    seen: list[str] = []

    def runs(command: list[str], variables: dict[str, str], _lock: int) -> tuple[int, str]:
        assert not (folder / "complete").exists()
        assert variables["PIP_INDEX_URL"] == "https://me:hidden@index/"
        assert Path(variables["PIP_CONSTRAINT"]).read_text() == "constraints.txt"
        seen.append(" ".join(command))
        return 0, ""

    build.build(to_build, 0, runs)
    assert "-m venv" in seen[0]
    assert seen[1].endswith("--only-binary=:all: numpy")
    assert "camdock[relay,v4l2] @ file://" in seen[2]
    assert "seal --all" in seen[3]
    assert common.complete(folder) is not None
    assert sorted(one.name for one in folder.iterdir()) == ["complete", "constraints.txt"]


def test_a_pis_own_cameras_bring_their_pins_and_of_apts_packages_libcamera_alone(to_build: dict[str, Any]) -> None:
    folder = Path(to_build["root"], "builds", "1.2.3-abc")
    seen: list[list[str]] = []

    def runs(command: list[str], variables: dict[str, str], _lock: int) -> tuple[int, str]:
        assert Path(variables["PIP_CONSTRAINT"]).name == "picamera2.txt"
        seen.append(command)
        return 0, ""

    build.build({**to_build, "extras": ["picamera2", "relay"]}, 0, runs)
    venv, lend, numpy, camdock, seal = seen
    assert "--system-site-packages" not in venv
    assert build.BINDING in lend[-1]
    assert numpy[-2:] == ["--only-binary=:all:", "numpy"]
    assert camdock[-3:-1] == ["--only-binary=:all:", "--no-binary=camdock,python-prctl,pidng"]
    assert numpy[numpy.index("--constraint") + 1].endswith("/docker/pins/picamera2.txt")
    assert seal[-2:] == ["seal", "--all"]
    assert (folder / "constraints.txt").read_text() == "docker/pins/picamera2.txt"


def test_lending_makes_one_link_and_fails_where_there_is_nothing_to_lend(tmp_path: Path) -> None:
    there = tmp_path / "libcamera"
    there.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-c", build._LEND.format(binding=there)], check=True)
    (link,) = (tmp_path / "venv").glob("lib/python3*/site-packages/libcamera")
    assert link.resolve() == there
    failed = subprocess.run(
        [python, "-c", build._LEND.format(binding=build.BINDING + "-none")], check=False, capture_output=True, text=True
    )
    assert failed.returncode != 0
    assert "apt install python3-libcamera" in build.explained(build.StepFailed("lend it", failed.stderr))


def test_a_python_from_before_filters_unpacks_as_well(
    to_build: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12 has one: its 3.11.2 knows no such argument."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)

    def extractall(self: tarfile.TarFile, path: Path) -> None:
        for member in self:
            self.extract(member, path, filter="fully_trusted") if sys.version_info >= (3, 12) else self.extract(
                member, path
            )

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    build.build(to_build, 0, lambda *_: (0, ""))
    assert (Path(to_build["root"], "builds", "1.2.3-abc") / "constraints.txt").read_text() == "constraints.txt"


@pytest.mark.parametrize("failing", range(4))
def test_a_step_that_fails_leaves_nothing_behind(to_build: dict[str, Any], failing: int) -> None:
    seen: list[list[str]] = []

    def runs(command: list[str], _variables: dict[str, str], _lock: int) -> tuple[int, str]:
        seen.append(command)
        return (1, "OSError: [Errno 28] No space left on device") if len(seen) > failing else (0, "")

    with pytest.raises(build.StepFailed) as failed:
        build.build(to_build, 0, runs)
    assert len(seen) == failing + 1
    assert list(Path(to_build["root"], "builds").iterdir()) == []
    assert build.explained(failed.value).startswith("The disk was full")


def test_each_kind_of_failure_has_its_own_words() -> None:
    assert "do not belong together" in build.explained(build.StepFailed("judge the compiled modules", "breaks"))
    assert "not to be had" in build.explained(
        build.StepFailed("install NumPy", "ERROR: No matching distribution found")
    )
    assert "failed to install NumPy" in build.explained(build.StepFailed("install NumPy", "?"))


def test_half_made_builds_go_and_whole_ones_stay(to_build: dict[str, Any]) -> None:
    builds = Path(to_build["root"], "builds")
    (builds / "whole").mkdir()
    (builds / "whole" / "complete").write_text("{}")
    (builds / "half" / "venv").mkdir(parents=True)
    assert build.remove_half_made(builds.parent) == ["half"]
    assert [one.name for one in builds.iterdir()] == ["whole"]


# --- units ------------------------------------------------------------------------------------------------------------


def test_a_camera_that_is_plugged_in_later_may_be_opened() -> None:
    """By its name the major would be looked up when the service starts: in vain where no driver is loaded yet."""
    unit = (ROLE / "templates" / "camdock.service.native.j2").read_text()
    major = re.search(r"^V4L2_MAJOR = (\d+)", (ROOT / "service/camdock/devices.py").read_text(), re.MULTILINE)
    assert major
    assert f"\nDeviceAllow=char-{major[1]} rw\n" in unit


def test_rollback_takes_as_many_hosts_at_a_time_as_a_deployment() -> None:
    # In a playbook's first play no host's variables are known: the serial of an inventory would be passed over.
    _, back = yaml.safe_load((ROOT / "ansible" / "rollback.yml").read_text())
    _, forth = yaml.safe_load((ROOT / "ansible" / "deploy.yml").read_text())
    assert back["serial"] == forth["serial"]


# --- images -----------------------------------------------------------------------------------------------------------


def saved(folder: Path, *, architecture: str = "amd64", names: int = 1, manifest_first: bool = True) -> Path:
    """A file as docker save makes it."""
    config = json.dumps(
        {"architecture": architecture, "config": {"Labels": {"org.opencontainers.image.version": "1.2"}}}
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    entries = [("manifest.json", json.dumps([{"Config": name, "Layers": []}] * names).encode()), (name, config)]
    path = folder / "image.tar"
    with tarfile.open(path, "w") as packed:
        for entry, content in entries if manifest_first else entries[::-1]:
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("manifest_first", [True, False])
@pytest.mark.parametrize("packed", [False, True])
def test_an_image_archive_is_read_without_an_engine(tmp_path: Path, manifest_first: bool, packed: bool) -> None:
    path = saved(tmp_path, architecture="arm64", manifest_first=manifest_first)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = archive.read(path)
    assert (found["architecture"], found["version"], found["bytes"]) == ("arm64", "1.2", path.stat().st_size)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(found["image"]) == 64


@pytest.mark.parametrize("was_here", [False, True])
def test_a_pulled_image_is_kept_by_our_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_here: bool
) -> None:
    """Its digest's name would keep it after we let it go; where somebody had it before, that name is theirs."""
    reference = f"registry.example.org/camdock@sha256:{'a' * 64}"
    names = {reference} if was_here else set()

    def docker(*words: str, variables: dict[str, str] | None = None) -> tuple[int, str]:
        match words:
            case ("image", "inspect", name):
                return (0, json.dumps([{"Id": "sha256:1", "Architecture": "amd64"}])) if name in names else (1, "")
            case ("pull", *_, name) | ("tag", _, name):
                names.add(name)
            case ("image", "rm", name):
                names.remove(name)
            case _:
                raise AssertionError(words)
        return 0, ""

    monkeypatch.setattr(image, "docker", docker)
    given = {"root": tmp_path, "build": "b", "archive": None, "image": reference, "environment": {}}
    image.make({**given, "architecture": "amd64"})
    assert names == {"camdock-release:b", *([reference] if was_here else [])}


def test_a_file_that_holds_no_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(archive.ArchiveUnusable, match="No such file"):
        archive.read(path)
    path.write_text("no archive")
    with pytest.raises(archive.ArchiveUnusable, match="no whole tar file"):
        archive.read(path)
    whole = saved(tmp_path).read_bytes()
    path.write_bytes(whole[:700])
    with pytest.raises(archive.ArchiveUnusable, match="no whole tar file"):
        archive.read(path)
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(archive.ArchiveUnusable, match=r"no manifest\.json"):
        archive.read(path)
    with pytest.raises(archive.ArchiveUnusable, match="more than one image"):
        archive.read(saved(tmp_path, names=2))


# --- releases ---------------------------------------------------------------------------------------------------------

RELEASE = {
    "build": "1.2.3-0123456789ab", "mode": "native", "version": "1.2.3", "port": 8000, "address": "127.0.0.1",
    "cameras": ["camera"], "gate": "pictures",
    "files": {"camdock.env": 'CAMDOCK_SOURCE="relay:http://me:hidden@cam/"\n', "camdock.service": "[Unit]\n"},
}  # fmt: skip


def test_a_release_is_written_whole_and_found_the_same_again(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    name, texts = release.documents(RELEASE)
    assert name.startswith("1.2.3-0123456-")
    release.write(tmp_path, name, RELEASE["build"], texts)
    folder = tmp_path / "releases" / name
    assert [one.name for one in folder.parent.iterdir()] == [name]
    assert os.readlink(folder / "build") == "../../builds/1.2.3-0123456789ab"
    assert (folder / "camdock.env").stat().st_mode & 0o777 == 0o600
    assert json.loads((folder / "release.json").read_text())["created"] > 0
    assert release.same(release.found_in(folder), texts)
    assert release.differences(release.found_in(folder), texts) == []


def test_a_release_that_somebody_has_changed_by_hand_is_put_right(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    name, texts = release.documents(RELEASE)
    release.write(tmp_path, name, RELEASE["build"], texts)
    folder = tmp_path / "releases" / name
    (folder / "camdock.env").write_text("CAMDOCK_AUTH=off\n")
    assert not release.same(release.found_in(folder), texts)
    release.write(tmp_path, name, RELEASE["build"], texts)
    assert release.same(release.found_in(folder), texts)


def test_a_disk_that_is_full_leaves_no_half_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "releases").mkdir()
    name, texts = release.documents(RELEASE)

    def full(path: Path, *_: object) -> None:
        if path.name == "camdock.service":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(release, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        release.write(tmp_path, name, RELEASE["build"], texts)
    assert list((tmp_path / "releases").iterdir()) == []


@pytest.mark.parametrize("name", ["port", "gate", "cameras", "build", "files"])
def test_whatever_makes_a_release_another_one_changes_its_name_and_is_shown(name: str) -> None:
    other = {"port": 9000, "gate": "live", "cameras": ["a"], "build": "1.2.3-ffffffffffff",
             "files": {**RELEASE["files"], "camdock.service": "[Unit]\nAfter=x\n"}}[name]  # type: ignore[dict-item]  # fmt: skip
    (before, old), (after, new) = release.documents(RELEASE), release.documents({**RELEASE, name: other})
    assert before != after
    assert len(release.differences(old, new)) == 1
    assert not release.same(old, new)


def test_a_diff_shows_no_login() -> None:
    shown = json.dumps(release.differences({}, release.documents(RELEASE)[1]))
    assert "relay:http://***@cam/" in shown
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("put_back", "was taken back: no pictures. old serves again, after 9.0 s without pictures."),
        ("stopped", "nothing serves now"),
        ("down", "NOTHING SERVES"),
        ("refused", "was not confirmed: no pictures."),
    ],
)
def test_how_a_switch_ended_is_one_sentence(outcome: str, words: str) -> None:
    told = {"outcome": outcome, "reason": "no pictures", "previous": "old", "without_pictures_s": 9}
    assert words in release.sentence(told, "new")


# --- the token --------------------------------------------------------------------------------------------------------


def test_a_token_is_made_once_and_kept(tmp_path: Path) -> None:
    path, uid, gid = tmp_path / "token", os.getuid(), os.getgid()
    assert token.ensure(path, uid, gid, check=True) == (True, True)
    assert not path.exists()
    assert token.ensure(path, uid, gid, check=False) == (True, True)
    first = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o400
    assert len(first.strip()) >= 40
    assert token.ensure(path, uid, gid, check=False) == (False, False)
    path.chmod(0o644)
    assert token.ensure(path, uid, gid, check=True) == (False, True)
    assert path.stat().st_mode & 0o777 == 0o644
    assert token.ensure(path, uid, gid, check=False) == (False, True)
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.read_text() == first
    second = tmp_path / "second"
    token.ensure(second, uid, gid, check=False)
    assert second.read_text() != first


@pytest.mark.parametrize("text", ["", "short", "with a space in it", "täglich-gewechselt"])
def test_a_file_without_a_token_is_not_taken_for_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ValueError, match="no token"):
        token.ensure(path, os.getuid(), os.getgid(), check=False)
    assert path.read_text() == text


def test_a_link_is_not_followed_to_a_token(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("0123456789abcdef")
    (tmp_path / "token").symlink_to("real")
    with pytest.raises(ValueError, match="no plain file"):
        token.ensure(tmp_path / "token", os.getuid(), os.getgid(), check=False)


# --- the papers -------------------------------------------------------------------------------------------------------


def test_every_variable_has_its_default_in_both_places() -> None:
    import yaml

    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    for entry in ("main", "preflight"):
        assert {name: one["default"] for name, one in specs[entry]["options"].items()} == defaults
        assert all(one["description"] and one["type"] for one in specs[entry]["options"].values())


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_made_as_asked_and_then_left_alone(tmp_path: Path) -> None:
    folder, mine = tmp_path / "a" / "b", os.getuid()
    assert not files.is_as_asked(folder, mine, 0o750)
    files.have_folder(folder, mine, 0o750)
    assert files.is_as_asked(folder, mine, 0o750)
    folder.chmod(0o777)
    assert not files.is_as_asked(folder, mine, 0o750)
    assert not files.is_as_asked(folder, mine + 1, 0o777)


def test_root_follows_no_link_that_the_service_has_laid(tmp_path: Path) -> None:
    elsewhere, link = tmp_path / "etc", tmp_path / "settings"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError, match="it is no folder"):
        files.is_as_asked(link, 10001, 0o750)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.is_as_asked(tmp_path / "file", 0, 0o755)
