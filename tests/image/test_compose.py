"""compose.yaml on a real engine: from a fresh clone to pictures, hardened, gone again; `make up`, `make devices`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from camdock.devices import Found, Node, compose
from camdock.source import parse_sources
from tests.image.compose import IMAGE, UP_S, Project, clone, plain_environment
from tests.image.conftest import cannot
from tests.tools import build
from tests.tools.containers import ROOT, docker, inspect, new_name
from tests.tools.service import Viewer, free_port, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# What a container may open in any engine: the rules that the engine itself gives. 1: null, zero, full, random, urandom;
# 5: tty, console, ptmx; 136: terminals.
HARMLESS = re.compile(r"/dev/(null|zero|full|random|urandom|tty|console|ptmx|pts/\w+|stdin|stdout|stderr|fd/\d+)")

TRY_EVERY_NODE = """
import json, os, stat
found = {}
for folder, _, names in os.walk('/dev'):
    for name in names:
        path = os.path.join(folder, name)
        try:
            if not (stat.S_ISCHR(os.lstat(path).st_mode) or stat.S_ISBLK(os.lstat(path).st_mode)):
                continue
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
            found[path] = 0
        except OSError as error:
            found[path] = error.errno
print(json.dumps(found))
"""
EPERM, ENXIO, ENODEV, EACCES = 1, 6, 19, 13


@pytest.fixture(scope="module", autouse=True)
def engine(engine: None) -> None:
    """A Docker engine with Compose v2."""
    looked = subprocess.run([str(ROOT / "docker/up.sh"), "--check"], capture_output=True, text=True, check=False)
    if looked.returncode != 0:
        cannot(looked.stderr)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone."""
    return clone(tmp_path_factory.mktemp("clone") / "camdock")


@contextlib.contextmanager
def started(project: Project) -> Iterator[Project]:
    """The project, up and healthy; gone with its volumes at the end."""
    try:
        project.up()
        yield project
    finally:
        project.down("--volumes", "--timeout", "0")


@pytest.fixture(scope="module")
def running(checkout: Path) -> Iterator[Project]:
    """One that several tests look at and leave as it is."""
    with started(Project(checkout, "shared")) as project:
        yield project


def on_a_pi(checkout: Path) -> Project:
    """What a Raspberry Pi's own cameras need in addition, with an image of its own."""
    return Project(checkout, "pi", {"CAMDOCK_IMAGE": f"{IMAGE}-pi"}, files=("compose.pi.yaml",))


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of one request through the published port; `body` is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of one GET."""
    return ask(port, "GET", path, **headers)


# --- row 1 ------------------------------------------------------------------------------------------------------------


def test_a_fresh_clone_is_up_and_healthy_gives_pictures_and_leaves_nothing(tmp_path: Path) -> None:
    project = Project(clone(tmp_path / "camdock"), "fresh")
    try:
        project.up()
        assert project.inspect()["State"]["Health"]["Status"] == "healthy"
        with Viewer(project.port, "/stream", 10, {}) as viewer:
            pictures = viewer.take(30)
        assert len(pictures) == 30
        assert all(one.jpeg[:2] == b"\xff\xd8" and one.jpeg[-2:] == b"\xff\xd9" for one in pictures)
        assert len({one.jpeg for one in pictures}) == 30, "they move"
        assert project.left_behind()["containers"], "what the next lines look at is found while it is there"
        assert project.left_behind()["networks"]
        project.down()
        assert project.left_behind() == {"containers": "", "networks": ""}
    finally:
        project.down("--volumes", "--timeout", "0")


# --- what is given ----------------------------------------------------------------------------------------------------


def test_compose_finds_nothing_to_say_about_the_files(checkout: Path) -> None:
    service = Project(checkout, "plain").config()["services"]["camdock"]
    assert "privileged" not in service
    assert "devices" not in service
    pi = on_a_pi(checkout).config()["services"]["camdock"]
    assert "privileged" not in pi
    assert "/run/udev" in {volume["source"] for volume in pi["volumes"]}
    assert (service["build"]["args"]["PINS"], pi["build"]["args"]["PINS"]) == ("current", "picamera2")
    assert pi["environment"]["CAMDOCK_SOURCE"] == "picamera2:0"


def test_the_dashboards_two_cameras_and_its_port_are_two_lines_of_env(checkout: Path, tmp_path: Path) -> None:
    """As docs/raspberry-pi.md has them, word for word."""
    page = (ROOT / "docs/raspberry-pi.md").read_text()
    (tmp_path / ".env").write_text("".join(re.findall(r"^    (CAMDOCK_(?:SOURCES|PORT)=.*\n)", page, re.MULTILINE)))
    for file in ("compose.yaml", "compose.pi.yaml"):
        (tmp_path / file).write_text((checkout / file).read_text())
    read = subprocess.run(
        ["docker", "compose", "-f", "compose.yaml", "-f", "compose.pi.yaml", "config", "--format", "json"],
        cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert read.stderr == ""
    service = json.loads(read.stdout)["services"]["camdock"]
    assert service["image"] == "camdock:picamera2"
    assert [(one["host_ip"], one["published"]) for one in service["ports"]] == [("127.0.0.1", "5050")]
    sources = parse_sources(service["environment"]["CAMDOCK_SOURCES"])
    assert {name: (one.kind, one.target) for name, one in sources.items()} == {
        "front": ("picamera2", "0"), "nest": ("picamera2", "1"),
    }  # fmt: skip
    assert service["environment"]["CAMDOCK_SOURCE"] == "", "the one camera is none of theirs"


def environment_of(checkout: Path, **variables: str) -> dict[str, str]:
    """The container's environment as these variables make it."""
    project = Project(checkout, "read", variables)
    found: dict[str, str] = project.config()["services"]["camdock"]["environment"]
    return found


def test_only_loopback_is_published_and_only_there_no_token_is_asked_for(checkout: Path) -> None:
    (port,) = Project(checkout, "read").config()["services"]["camdock"]["ports"]
    assert port["host_ip"] == "127.0.0.1"
    assert environment_of(checkout)["CAMDOCK_AUTH"] == "off"
    assert "CAMDOCK_AUTH" not in environment_of(checkout, CAMDOCK_HOST="0.0.0.0")
    assert "CAMDOCK_AUTH" not in environment_of(checkout, CAMDOCK_TOKEN="0123456789")
    assert "CAMDOCK_AUTH" not in environment_of(checkout, CAMDOCK_HOST="0.0.0.0", CAMDOCK_TOKEN="0123456789")


def test_every_variable_that_the_container_is_given_is_one_that_is_read(checkout: Path) -> None:
    from camdock.config import variables

    known = {name for name, _default, _text in variables()}
    assert set(environment_of(checkout)) <= known


def test_a_variable_reaches_the_service_as_it_was_written(checkout: Path) -> None:
    odd = "front=synthetic:?label=a&b c$d nest=relay:http://host/?action=stream#fps=5"
    found = environment_of(checkout, CAMDOCK_SOURCES=odd)["CAMDOCK_SOURCES"]
    assert found.replace("$$", "$") == odd


def test_opened_to_the_network_without_a_token_nothing_is_served_and_the_log_says_why(checkout: Path) -> None:
    project = Project(checkout, "open", {"CAMDOCK_HOST": "0.0.0.0"})
    try:
        assert project.run("up", "--detach", "--wait", within_s=900).returncode != 0
        assert "opens the cameras to the network, so nothing was started" in project.log
        with pytest.raises((OSError, http.client.HTTPException)):
            get(project.port, "/health")
    finally:
        project.down("--volumes", "--timeout", "0")


def test_with_a_token_it_is_asked_for_and_any_name_is_served(checkout: Path) -> None:
    opened = {"CAMDOCK_HOST": "0.0.0.0", "CAMDOCK_TOKEN": "a-long-secret"}
    with started(Project(checkout, "token", opened)) as project:
        assert get(project.port, "/snapshot")[0] == 401
        assert get(project.port, "/snapshot?token=a-long-secret", Host="camera.lan")[0] == 200


def test_a_page_under_a_name_of_its_own_cannot_look_at_the_camera(running: Project) -> None:
    assert get(running.port, "/snapshot", Host="evil.example")[0] == 421
    assert get(running.port, "/snapshot", Host=f"localhost:{running.port}")[0] == 200


# --- hardened ---------------------------------------------------------------------------------------------------------


def test_the_process_has_no_right_that_it_was_not_given(running: Project) -> None:
    said = running.inside("sh", "-c", "cat /proc/1/status; id")
    status = dict(re.findall(r"(?m)^(\w+):\s*(.*)$", said))
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["10001"] * 4
    assert set(status["Groups"].split()) <= {"10001", "44"}
    host = running.inspect()["HostConfig"]
    assert host["Privileged"] is False
    assert host["ReadonlyRootfs"] is True
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (512 << 20, 10**9, 512)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}


def test_nothing_can_be_written_but_what_is_meant_to_be(running: Project) -> None:
    writable = running.inside(
        "sh", "-c",
        "for at in / /dev /etc /opt/camdock /var/lib/camdock /run /tmp /dev/shm /var/lib/camdock/settings "
        "/var/lib/camdock/captures; do if touch $at/probe 2>/dev/null; then rm $at/probe; echo $at; fi; done",
    ).split()  # fmt: skip
    assert writable == ["/tmp", "/dev/shm", "/var/lib/camdock/settings", "/var/lib/camdock/captures"]
    assert "noexec" in running.inside("sh", "-c", "grep ' /tmp ' /proc/mounts")


def test_the_hosts_shared_memory_is_not_the_containers(running: Project) -> None:
    name = f"camdock-probe-{os.getpid()}"
    mine = Path("/dev/shm") / name
    mine.write_text("of the host")
    try:
        assert name not in running.inside("ls", "/dev/shm")
        running.inside("touch", f"/dev/shm/{name}-inside")
        assert not Path(f"/dev/shm/{name}-inside").exists()
    finally:
        mine.unlink()


@contextlib.contextmanager
def node(name: str, major: int, minor: int, *, group: int, mode: int, block: bool = False) -> Iterator[str]:
    """A device node in this machine's /dev, as if it had been plugged in now. No driver stands behind it."""
    path = f"/dev/{name}"
    os.mknod(path, stat.S_IFBLK if block else stat.S_IFCHR, os.makedev(major, minor))
    try:
        os.chmod(path, mode)
        os.chown(path, 0, group)
        yield path
    finally:
        os.unlink(path)


@pytest.fixture
def as_root() -> None:
    """Device nodes can only be made by root."""
    if os.geteuid() != 0:
        cannot("device nodes can only be made by root")


@pytest.mark.usefixtures("as_root")
def test_a_camera_plugged_in_later_opens_and_nothing_else_does(running: Project) -> None:
    # The kernel asks the control group first, then looks for a driver: "no such device" means that it may be opened.
    mine = f"camdock-{os.getpid()}"
    with (
        node(f"{mine}-camera", 81, 250, group=44, mode=0o660) as camera,
        node(f"{mine}-closed", 81, 251, group=0, mode=0o660) as closed,
        node(f"{mine}-input", 13, 250, group=44, mode=0o666) as keyboard,
        node(f"{mine}-disk", 8, 250, group=44, mode=0o666, block=True) as disk,
    ):
        found: dict[str, int] = json.loads(running.inside("python", "-c", TRY_EVERY_NODE))
    assert found[camera] in (ENXIO, ENODEV)
    assert found[closed] == EACCES, "a camera of another group"
    assert found[keyboard] == EPERM
    assert found[disk] == EPERM
    opened = {path for path, error in found.items() if error not in (EPERM, EACCES)} - {camera}
    strange = {path for path in opened if not HARMLESS.fullmatch(path) and not path.startswith("/dev/video")}
    assert not strange, f"the container can open {strange}"


@pytest.mark.usefixtures("as_root")
def test_the_wide_rule_for_a_pi_opens_what_the_group_may_and_no_disk_memory_or_keyboard(checkout: Path) -> None:
    mine = f"camdock-{os.getpid()}"
    with started(on_a_pi(checkout)) as project:
        with (
            node(f"{mine}-media", 250, 250, group=44, mode=0o660) as media,
            node(f"{mine}-input", 13, 250, group=104, mode=0o660) as keyboard,
            node(f"{mine}-disk", 8, 250, group=6, mode=0o660, block=True) as disk,
        ):
            found: dict[str, int] = json.loads(project.inside("python", "-c", TRY_EVERY_NODE))
        assert found[media] in (ENXIO, ENODEV)
        assert found[keyboard] == found[disk] == EACCES
        for path in ("/dev/mem", "/dev/kmsg", "/dev/tty1", "/dev/vda", "/dev/sda", "/dev/loop0", "/dev/loop-control"):
            assert found.get(path, EACCES) in (EACCES, EPERM), path
        for path, error in found.items():
            if error not in (EPERM, EACCES):
                status = os.stat(path) if os.path.exists(path) else None
                may = status is None or status.st_mode & 0o006 == 0o006 or status.st_gid == 44
                assert may, f"{path} was opened and neither everybody nor the group video may"


# --- its life ---------------------------------------------------------------------------------------------------------


def test_it_stops_in_time_with_a_stream_open_and_keeps_its_settings(checkout: Path) -> None:
    with started(Project(checkout, "life")) as project:
        assert ask(project.port, "PUT", "/cameras/camera/settings", {"exposure_us": 12345})[0] == 200
        with Viewer(project.port, "/stream", 10, {}) as viewer:
            viewer.take(3)
            began = time.monotonic()
            assert project.run("stop").returncode == 0
            took = time.monotonic() - began
        assert took < 3, f"{took:.1f} s"
        assert project.inspect()["State"]["ExitCode"] == 0, project.log
        project.down()
        project.up()
        assert json.loads(get(project.port, "/cameras/camera/settings")[1])["wanted"]["exposure_us"] == 12345


# --- this machine's lines ---------------------------------------------------------------------------------------------


def devices(checkout: Path, *arguments: str) -> str:
    """`make -s devices` in the clone."""
    done = subprocess.run(
        ["make", "-s", "devices", f"ARGS={' '.join(arguments)}"],
        cwd=checkout, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "/dev/video" in done.stderr, "it says what was found, or that nothing was"
    return done.stdout


def test_the_printed_override_is_read_by_itself_and_the_service_is_well_with_it(tmp_path: Path) -> None:
    folder = clone(tmp_path / "camdock")
    (folder / "compose.override.yaml").write_text(devices(folder))
    project = Project(folder, "override")
    service = project.config()["services"]["camdock"]
    written = yaml.safe_load((folder / "compose.override.yaml").read_text("utf-8"))["services"]["camdock"]
    for key, entries in written.items():
        assert key == "volumes" or set(entries) <= set(service[key])
    with started(project):
        assert get(project.port, "/snapshot")[0] == 200
    status = subprocess.run(["git", "status", "--short"], cwd=folder, capture_output=True, text=True, check=True)
    assert status.stdout == "", "a file of this machine alone is none of git's"


def test_a_pis_override_is_clean_beside_compose_yaml(tmp_path: Path) -> None:
    folder = clone(tmp_path / "camdock")
    found = Found(
        [
            Node("/dev/video0", "video", 81, 0, 44, "video", "660", driver="unicam"),
            Node("/dev/media0", "media", 237, 0, 44, "video", "660"),
            Node("/dev/dma_heap/system", "dma_heap", 251, 1, 44, "video", "660"),
        ],
        "Raspberry Pi 5 Model B Rev 1.0", True, {"video": 44, "render": 992},
    )  # fmt: skip
    (folder / "compose.override.yaml").write_text(compose(found))
    service = Project(folder, "override").config()["services"]["camdock"]
    assert service["device_cgroup_rules"] == ["c 81:* rw", "c 237:* rw", "c 251:* rw"]
    assert service["group_add"] == ["44", "992"]
    assert {volume["source"] for volume in service["volumes"]} == {"/dev", "settings", "captures", "/run/udev"}


def test_the_printed_run_command_runs(running: Project) -> None:
    name, port = new_name("run"), free_port()
    command = devices(running.folder, "--run")
    for old, new in (
        ("--name camdock ", f"--name {name} "), ("127.0.0.1:8000:", f"127.0.0.1:{port}:"),
        ("camdock_settings", f"{name}-settings"), ("camdock_captures", f"{name}-captures"), ("camdock:current", IMAGE),
    ):  # fmt: skip
        assert old in command
        command = command.replace(old, new)
    try:
        subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60)

        def healthy() -> bool:
            return bool(inspect(name)["State"]["Health"]["Status"] == "healthy")

        until(healthy, 60, lambda: docker("logs", name).stderr)
        assert get(port, "/snapshot")[0] == 200
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
        docker("volume", "rm", f"{name}-settings", f"{name}-captures")


# --- make up ----------------------------------------------------------------------------------------------------------


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    """`docker/up.sh --check` on this machine."""
    return subprocess.run(
        [str(ROOT / "docker/up.sh"), "--check"], env=plain_environment(**environment),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def check_on(image: str, *options: str) -> str:
    """What it says on another system: a container of that image, with these options of `docker run`."""
    done = subprocess.run(
        ["docker", "run", "--rm", "--volume", f"{ROOT}:/src:ro", *options, image, "/src/docker/up.sh", "--check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ("debian:bookworm-slim", "curl -fsSL https://get.docker.com | sudo sh"),
        ("debian:trixie-slim", "sudo apt install docker.io docker-cli docker-compose docker-buildx"),
    ],
)
def test_where_docker_is_missing_the_line_for_this_system_is_said(image: str, line: str) -> None:
    said = check_on(image)
    assert "Docker is not installed" in said
    assert line in said


@pytest.mark.parametrize(
    ("os_release", "line"),
    [
        ('ID=raspbian\nVERSION_ID="12"\n', "curl -fsSL https://get.docker.com | sudo sh"),
        ('ID=raspbian\nVERSION_ID="13"\n', "sudo apt install docker.io docker-cli docker-compose docker-buildx"),
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "sudo apt install docker.io docker-compose-v2 docker-buildx"),
        ('ID=plan9\n', "https://docs.docker.com/engine/install"),
    ],
)  # fmt: skip
def test_other_systems_have_their_own_line(tmp_path: Path, os_release: str, line: str) -> None:
    (tmp_path / "os-release").write_text(os_release)
    assert line in check_on("debian:trixie-slim", "--volume", f"{tmp_path}/os-release:/etc/os-release:ro")


def client() -> list[str]:
    """Options that put this machine's docker command into a container, with nothing else of it."""
    binary = os.path.realpath(
        subprocess.run(["which", "docker"], capture_output=True, text=True, check=True).stdout.strip()
    )
    return ["--volume", f"{binary}:/usr/bin/docker:ro"]


def test_an_engine_that_does_not_answer_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    dead = check(DOCKER_HOST=f"unix://{tmp_path}/nowhere.sock")
    assert dead.returncode == 1
    assert f"no Docker engine answers at DOCKER_HOST=unix://{tmp_path}/nowhere.sock" in dead.stderr
    assert "unset DOCKER_HOST" in dead.stderr
    only_client = check_on("debian:trixie-slim", *client())
    assert "the docker command is here, and no engine" in only_client
    assert "sudo apt install docker.io" in only_client
    stopped = check_on("debian:trixie-slim", *client(), "--volume", "/bin/true:/usr/sbin/dockerd:ro")
    assert "its engine does not run" in stopped
    assert "sudo systemctl enable --now docker" in stopped


def test_who_may_not_use_the_engine_is_told_the_group() -> None:
    socket = ["--volume", "/var/run/docker.sock:/var/run/docker.sock"]
    said = check_on("debian:trixie-slim", *client(), *socket, "--user", "12345:12345")
    assert "may not use it" in said
    assert "sudo usermod -aG docker" in said


def test_an_engine_without_compose_v2_is_told_what_to_install() -> None:
    socket = ["--volume", "/var/run/docker.sock:/var/run/docker.sock"]
    said = check_on("debian:bookworm-slim", *client(), *socket)
    assert "docker compose is not installed" in said
    assert "get.docker.com" in said


def test_make_up_says_where_the_pictures_are_and_ctrl_c_ends_it(checkout: Path, tmp_path: Path) -> None:
    project = Project(checkout, "make")
    said = tmp_path / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            ["make", "-s", "up", "HOST=localhost", f"PORT={project.port}", "SOURCE=synthetic:?label=made&fps=20"],
            cwd=checkout, env={**project.variables, "COMPOSE_PROJECT_NAME": project.name},
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        address = f"== Pictures on http://127.0.0.1:{project.port} "
        until(lambda: address in said.read_text("utf-8", "replace"), UP_S, lambda: said.read_text("utf-8", "replace"))
        assert b"made&fps=20" in get(project.port, "/health")[1]
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
        assert project.inspect()["State"]["Running"] is False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        project.down("--volumes", "--timeout", "0")


# --- row 7 ------------------------------------------------------------------------------------------------------------


def peak_bytes(project: Project) -> int:
    """The most memory that the container has had, as the kernel counted it."""
    where = "cat /sys/fs/cgroup/memory.peak 2>/dev/null || cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    return int(project.inside("sh", "-c", where))


def test_fifty_viewers_get_every_picture_within_512_mb_and_one_processor(
    running: Project, record_property: Any
) -> None:
    """For 30 s; CAMDOCK_TEST_VIEWERS_S=120 takes two minutes. On a quiet machine: 30 pictures a second to each."""
    seconds = float(os.environ.get("CAMDOCK_TEST_VIEWERS_S", "30"))
    before = running.inspect()
    (network,) = before["NetworkSettings"]["Networks"].values()
    # Straight to the container: docker-proxy, which loopback goes through, would copy 50 streams on the same cores.
    done = subprocess.run(
        [
            str(build.ensure("loadclient")), "-u", f"{network['IPAddress']}:8000/stream",
            "-n", "50", "-w", "3", "-t", str(seconds), "-p", str(before["State"]["Pid"]),
            "-A", f"Host: localhost:{running.port}\r\n",
        ],
        capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr}\n{running.log}"
    result = json.loads(done.stdout)
    after = running.inspect()
    peak_mb = peak_bytes(running) / 2**20
    print(f"{seconds:g} s, 50 viewers: {result}, peak {peak_mb:.0f} MB", file=sys.stderr)
    record_property("row 7", {**result, "peak_mb": peak_mb})
    assert after["State"]["OOMKilled"] is False
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"], "the same start"
    assert after["RestartCount"] == 0
    assert running.inspect()["HostConfig"]["Memory"] == 512 << 20
    assert peak_mb < 512
    assert result["eof"] == result["bad"] == result["no_first"] == 0
    # The figure is printed; what is asserted leaves room for a machine that others use too.
    assert result["fps_per_client"] >= 25, result
    assert result["fps_min"] >= 20, f"nobody is left behind: {result}"
    restarts = json.loads(get(running.port, "/cameras/camera")[1])["restarts"]
    assert restarts == {}, "the camera's process neither"
