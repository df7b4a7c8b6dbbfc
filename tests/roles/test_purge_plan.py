"""What the role purge decides: what may go, why apt would take more, what is put back, what that mended."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROLE = Path(__file__).parents[2] / "ansible" / "roles" / "purge"


def loaded(path: str) -> ModuleType:
    """One of the role's files, which Ansible loads in a way of its own."""
    name = f"purge_role_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, ROLE / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


apt = loaded("module_utils/purge_apt.py")
mended = loaded("filter_plugins/purge_mended.py").purge_mended
LISTED = {"python3-numpy", "python3-h5py", "python3-h5py-serial", "python3-picamera2"}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules by their names. They need nothing of Ansible but AnsibleModule, which is not used here."""
    for name, stand_in in (
        ("ansible", ModuleType("ansible")),
        ("ansible.module_utils", ModuleType("ansible.module_utils")),
        ("ansible.module_utils.basic", SimpleNamespace(AnsibleModule=None)),
        ("ansible.module_utils.purge_apt", apt),
    ):
        monkeypatch.setitem(sys.modules, name, stand_in)
    return lambda name: loaded(f"library/{name}.py")


def known(*packages: Any) -> dict[str, Any]:
    return {one.name: one for one in packages}


def package(name: str, needs: str = "", provides: tuple[str, ...] = (), **more: Any) -> Any:
    return apt.Package(name, "1.0", needs=tuple(apt.names_needed(needs)), provides=provides, **more)


HOST = known(
    package("python3-numpy", provides=("python3-numpy-abi9",)),
    package("python3-h5py", "python3-h5py-serial | python3-h5py-mpi"),
    package("python3-h5py-serial", "python3-numpy (>= 1:1.22.0), python3:any, libc6 (>= 2.14)"),
    package("python3-libcamera"),
    package("octo", "python3-numpy-abi9, python3"),
    package("octo-extra", "octo [amd64]"),
    package("either", "python3-numpy | python3"),
    package("python3"),
)


def planned(going: set[str], *, host: dict[str, Any] = HOST, coming: Any = None, **more: Any) -> Any:
    given = {"auto": set(), "coming": coming or {}, "listed": LISTED, "keep": ["python3-libcamera"], "allowed": ()}
    return apt.planned(host, going=going, **{**given, **more})


def test_what_is_listed_goes_with_its_version_and_mark() -> None:
    plan = planned({"python3-h5py", "python3-numpy"}, auto={"python3-numpy", "python3-libcamera"})
    assert plan.going == (
        apt.Removed("python3-h5py", "1.0", "manual"),
        apt.Removed("python3-numpy", "1.0", "auto"),
    )
    assert plan.keep == ("python3-libcamera",)
    assert plan.taken == ()


def test_what_stays_is_marked_only_where_it_is_automatic_and_something_goes() -> None:
    assert planned({"python3-numpy"}).keep == ()
    assert planned(set(), auto={"python3-libcamera"}).keep == ()


def test_what_is_not_listed_is_refused_with_the_way_from_it_to_the_list() -> None:
    with pytest.raises(apt.Trouble) as refused:
        planned({"python3-numpy", "octo", "octo-extra"})
    said = str(refused.value)
    assert said.startswith("Nothing was changed")
    assert "octo 1.0: it depends on python3-numpy." in said
    assert "octo-extra 1.0: it depends on octo, which depends on python3-numpy." in said
    assert "purge_also_allow: [octo, octo-extra]" in said
    with pytest.raises(apt.Trouble, match=r"octo-extra 1\.0") as refused:
        planned({"python3-numpy", "octo", "octo-extra"}, allowed=["octo"])
    assert "octo 1.0: " not in str(refused.value)
    plan = planned({"python3-numpy", "octo", "octo-extra"}, allowed=["octo", "octo-extra"])
    assert plan.taken == ("octo", "octo-extra")
    assert {one.name for one in plan.going} == {"python3-numpy", "octo", "octo-extra"}


def test_what_a_camera_needs_is_refused_even_if_allowed_or_listed_by_a_pattern() -> None:
    for allowed in (["python3-libcamera"], []):
        with pytest.raises(apt.Trouble, match="python3-libcamera is what a camera needs and never goes") as refused:
            planned({"python3-numpy", "python3-libcamera"}, allowed=allowed)
        assert "purge_also_allow" not in str(refused.value), "that would not help"


def test_an_alternative_that_stays_is_no_reason() -> None:
    assert "found no way to keep it" in apt.why(HOST, "either", {"python3-numpy", "either"}, LISTED)
    assert apt.why(HOST, "octo", {"python3-numpy", "octo"}, LISTED) == "it depends on python3-numpy"


def test_what_apt_would_install_instead_is_refused() -> None:
    with pytest.raises(apt.Trouble, match=r"apt would install or change python3-h5py-mpi 3\.7"):
        planned({"python3-h5py-serial"}, coming={"python3-h5py-mpi": "3.7"})


def test_what_apt_weighs_and_drops_on_the_way_to_a_removal_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """apt's answers on Debian 12: it tries the h5py that wants MPI, and leaves on its list what that needs."""
    asked: list[list[str]] = []
    answers = {
        ("python3-numpy",): ({"python3-numpy", "python3-h5py"}, {"libfido2-1": "1.12.0-2+b1"}),
        ("python3-h5py", "python3-numpy"): ({"python3-numpy", "python3-h5py"}, {}),
    }

    def simulated(words: list[str]) -> Any:
        asked.append(words)
        return answers[tuple(words[1:])]

    monkeypatch.setattr(apt, "simulated", simulated)
    assert apt.would_go(["python3-numpy"]) == ({"python3-numpy", "python3-h5py"}, {})
    assert apt.would_go(["python3-h5py", "python3-numpy"]) == ({"python3-numpy", "python3-h5py"}, {})
    assert len(asked) == 3, "it is asked once more only where more goes than was named"
    assert {words[0] for words in asked} == {"remove"}


def test_what_apt_still_counts_and_dpkg_has_removed_already_is_not_to_be_removed() -> None:
    host = HOST | known(apt.Package("python3-h5py", "", state="not-installed"))
    assert [one.name for one in planned({"python3-numpy", "python3-h5py"}, host=host).going] == ["python3-numpy"]


def test_a_foreign_architecture_belongs_to_the_same_name() -> None:
    host = known(package("python3-numpy:armhf"))
    (one,) = planned({"python3-numpy:armhf"}, host=host).going
    assert one.name == "python3-numpy:armhf"
    assert apt.listed_here(host, LISTED) == ["python3-numpy:armhf"]


def test_only_what_is_installed_is_asked_for_and_a_hold_is_respected() -> None:
    host = known(
        package("python3-numpy", state="half-installed"),
        package("python3-h5py", state="config-files"),
        package("python3-picamera2"),
        package("python3"),
    )
    assert apt.listed_here(host, LISTED) == ["python3-numpy", "python3-picamera2"]
    with pytest.raises(apt.Trouble, match=r"python3-numpy: on hold.*apt-mark unhold python3-numpy"):
        apt.listed_here(known(package("python3-numpy", held=True)), LISTED)
    assert apt.listed_here(known(package("python3", held=True)), LISTED) == []


def test_what_may_go_and_is_on_hold_stays() -> None:
    host = known(package("python3-numpy"), package("octo", "python3-numpy", held=True))
    with pytest.raises(apt.Trouble, match=r"octo: on hold.*Nothing was changed.*apt-mark unhold octo"):
        planned({"python3-numpy", "octo"}, host=host, allowed=["octo"])


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", ["purge_packages", "purge_restore"])
def test_another_program_that_installs_is_waited_for_before_anything_is_judged(
    modules: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, check: bool
) -> None:
    module = modules(name)

    def holds(timeout_s: float) -> None:
        raise apt.Trouble(f"waited for {timeout_s:g} s")

    monkeypatch.setattr(module, "wait_for_lock", holds)
    # What dpkg looks like while somebody else is in the middle of it.
    monkeypatch.setattr(module, "packages", lambda: known(package("linux-image", state="unpacked")))
    undo, preferences = (str(tmp_path / file) for file in ("undo.json", "preferences"))
    wanted = {"packages": [], "keep": [], "also_allow": [], "undo": undo, "preferences": preferences}
    with pytest.raises(apt.Trouble, match="waited for 7 s"):
        module.run({**wanted, "lock_timeout_s": 7}, check=check)


def test_apts_own_lines_are_read() -> None:
    going, coming = apt.read_simulation(
        "The following packages will be REMOVED:\n  python3-h5py\n"
        "Remv python3-h5py [3.7.0-8]\nRemv libc6:i386 [2.36] [python3-numpy:amd64 ]\nPurg old [1]\n"
        "Inst new (1:2.0-1 Debian:12/stable [amd64])\nInst more [1.0] (1.1 Debian:12/stable [all]) []\n"
        "Conf new (1:2.0-1)\n"
    )
    assert going == {"python3-h5py", "libc6:i386", "old"}
    assert coming == {"new": "1:2.0-1", "more": "1.1"}


def test_a_complaint_is_apts_own_words() -> None:
    assert apt.complaint("Reading...\nE: Unmet dependencies.\nE: Unmet dependencies.\n") == "Unmet dependencies."
    assert apt.complaint("") == "no word of a reason"


def test_the_undo_list_grows_and_never_forgets(tmp_path: Path) -> None:
    file = str(tmp_path / "deep" / "undo.json")
    assert apt.read_undo(file) == apt.Undo()
    first = apt.Undo().with_more([apt.Removed("b", "1", "auto"), apt.Removed("a", "1", "manual")], ["camera"])
    second = first.with_more([apt.Removed("b", "2", "manual"), apt.Removed("c", "1", "auto")], [])
    apt.write(file, second.text())
    again = apt.read_undo(file)
    assert again == second
    assert [(one.name, one.version, one.mark) for one in again.packages] == [
        ("a", "1", "manual"),
        ("b", "2", "manual"),
        ("c", "1", "auto"),
    ]
    assert again.kept == ("camera",)
    assert os.stat(file).st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path / "deep") == ["undo.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2, "packages": [], "kept": []}', '{"format": 1, "packages": [{"name": "a"}]}']
)
def test_an_undo_list_that_cannot_be_understood_is_never_written_over(text: str, tmp_path: Path) -> None:
    file = tmp_path / "undo.json"
    file.write_text(text)
    with pytest.raises(apt.Trouble, match="cannot be read"):
        apt.read_undo(str(file))
    assert file.read_text() == text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "undo.json"
    file.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(apt.Trouble, match=r"undo\.json cannot be written: No space left"):
        apt.write(str(file), "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["undo.json"]


def test_dpkgs_journal_says_who_is_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "DPKG", str(tmp_path))
    host = known(package("a", state="half-configured"), package("b"), package("c", state="triggers-pending"))
    assert apt.incomplete(host) == {"a"}
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates" / "0001").write_text("Package: b\nStatus: deinstall ok half-installed\n")
    (tmp_path / "updates" / "tmp.i").write_text("Package: c\n")
    assert apt.incomplete(host) == {"a", "b"}


def test_a_held_lock_is_told_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    monkeypatch.setattr(apt, "LOCKS", (str(lock), str(tmp_path / "none")))
    apt.wait_for_lock(0)
    held = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", held, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(apt.Trouble, match=rf"process {holder.pid}\) has held dpkg's lock for 0 s"):
            apt.wait_for_lock(0)
        holder.communicate("\n")
    with lock.open("w") as own:
        fcntl.lockf(own, fcntl.LOCK_EX)
        apt.wait_for_lock(0)  # one's own is no obstacle: asking takes nothing


# ------------------------------------------------------------------------------------------------------ putting back


def test_exact_versions_are_asked_for_where_they_are_to_be_had(modules: Any) -> None:
    restore = modules("purge_restore")
    missing = [apt.Removed("a", "1", "auto"), apt.Removed("b", "1", "auto"), apt.Removed("c", "1", "auto")]
    words, lost = restore.request(missing, {"a": {"1", "2"}, "b": {"2"}, "c": set()})
    assert words == ["a=1", "b"]
    assert lost == ["c"]


def test_versions_are_given_up_together_where_apt_does_not_agree(modules: Any) -> None:
    restore = modules("purge_restore")
    asked: list[list[str]] = []

    def ask(words: list[str]) -> tuple[set[str], dict[str, str]]:
        asked.append(words)
        if any("=" in word for word in words):
            raise apt.Trouble("no")
        return set(), {}

    assert restore.agreed(["a=1", "b"], ask) == ["a", "b"]
    assert asked == [["a=1", "b"], ["a", "b"]]
    assert restore.agreed([], ask) == []

    def never(_: list[str]) -> tuple[set[str], dict[str, str]]:
        raise apt.Trouble("not at all")

    with pytest.raises(apt.Trouble, match="not at all"):
        restore.agreed(["a"], never)


def test_a_cameras_stack_is_automatic_again_only_when_all_that_needs_it_is_back(
    modules: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise `apt autoremove` would take it before the rest can be put back."""
    restore = modules("purge_restore")
    file = tmp_path / "undo.json"
    file.write_text(apt.Undo((apt.Removed("python3-picamera2", "1", "manual"),), ("python3-libcamera",)).text())
    marked: list[tuple[str, set[str]]] = []
    sources: dict[str, set[str]] = {"python3-picamera2": set()}
    host = known(package("python3-libcamera"))
    for name, stand_in in {
        "wait_for_lock": lambda _: None,
        "packages": lambda: host,
        "automatic": set,
        "available": lambda *_: sources,
        "act": lambda *_: host.update(known(package("python3-picamera2"))) if sources["python3-picamera2"] else None,
        "simulated": lambda *_: (set(), {}),
        "mark": lambda kind, names: marked.append((kind, set(names))),
    }.items():
        monkeypatch.setattr(restore, name, stand_in)
    wanted = {"undo": str(file), "preferences": str(tmp_path / "preferences"), "lock_timeout_s": 0}
    assert restore.run(wanted, check=False)["lost"] == ["python3-picamera2"]
    assert ("auto", {"python3-libcamera"}) not in marked
    assert apt.read_undo(str(file)).kept == ("python3-libcamera",)
    sources["python3-picamera2"] = {"1"}
    assert restore.run(wanted, check=False)["lost"] == []
    assert ("auto", {"python3-libcamera"}) in marked
    assert not file.exists()


# ------------------------------------------------------------------------------------------------- before and after


def answer(*targets: dict[str, Any], why_not: str = "") -> dict[str, Any]:
    return {"why_not": why_not, "targets": list(targets)}


def judged(*broken: tuple[str, str, str], target: str = "/srv/look", error: str = "") -> dict[str, Any]:
    lines = [{"package": owner, "what": what, "because": "1.x", "fix": fix} for owner, what, fix in broken]
    return {"target": target, "numpy": "2.2.0", "error": error, "broken": lines}


H5PY = ("python3-h5py-serial 3.7.0-8 (dpkg)", "h5py.h5 cannot be imported", "")
SOXR = ("soxr 0.3", "soxr gives wrong data", "pip install 'soxr>=0.4.0'")
HIDDEN = ("", "NumPy 1.24.2 in /usr/lib (python3-numpy 1:1.24.2-1 (dpkg)) is hidden", "")


def test_what_was_mended_is_told_apart_from_what_is_broken_still() -> None:
    assert mended(answer(judged(H5PY, SOXR)), answer(judged(SOXR))) == [
        "/srv/look (NumPy 2.2.0): is mended: python3-h5py-serial 3.7.0-8 (dpkg): h5py.h5 cannot be imported (1.x)",
        "/srv/look (NumPy 2.2.0): BROKEN still: soxr 0.3: soxr gives wrong data (1.x)",
        "    to mend it: pip install 'soxr>=0.4.0'",
    ]
    assert mended(answer(judged()), answer(judged())) == ["/srv/look (NumPy 2.2.0): nothing is broken"]


def test_in_check_mode_it_says_what_would_be() -> None:
    lines = mended(answer(judged(H5PY, SOXR, HIDDEN)), None, ["python3-h5py-serial", "python3-numpy"])
    assert [line.partition(": ")[2].partition(":")[0] for line in lines[:3]] == [
        "would be mended",
        "would be mended",
        "BROKEN",
    ]
    assert len(lines) == 4
    assert "python3-h5py-serial" in lines[0]
    assert "is hidden" in lines[1]


def test_what_could_not_be_asked_is_said() -> None:
    assert mended(answer(why_not="no network"), None) == ["camdock abi check could not be asked: no network"]
    lines = mended(answer(judged()), answer(judged(error="/srv/look is not there")))
    assert lines == ["/srv/look: /srv/look is not there"]


def test_a_report_is_shortened_to_one_line_for_a_package(modules: Any) -> None:
    one = {"verdict": "breaks", "package": "a 1", "fix": "f", "evidence": "e", "rule": "built-for-1"}
    said = {
        "target": "t",
        "numpy": "2.2.0",
        "modules": [*({**one, "module": f"a.m{n}"} for n in range(4)), {**one, "module": "b", "verdict": "ok"}],
        "findings": [
            {"rule": "second-numpy", "message": "two", "fix": ""},
            {"rule": "link-outside", "message": "only a note", "fix": ""},
        ],
    }
    short = modules("purge_abi").summary(said)
    assert [line["what"] for line in short["broken"]] == ["a.m0, a.m1 and 2 more cannot be imported", "two"]


def test_environments_are_found_once(modules: Any, tmp_path: Path) -> None:
    venv = tmp_path / "builds" / "1.0-abc" / "venv"
    venv.mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    (tmp_path / "link").symlink_to(venv)
    found = modules("purge_abi").environments([str(tmp_path / "link"), "/none"], [str(tmp_path / "builds")])
    assert found == [str(tmp_path / "link"), "/none"]


# --------------------------------------------------------------------------------------------------------- the data


def test_every_package_of_the_list_has_a_reason_and_none_of_them_is_to_stay(modules: Any) -> None:
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    names = [one["name"] for one in data["purge_packages"]]
    assert len(names) == len(set(names))
    assert all(one["reason"] and "\n" not in one["reason"] for one in data["purge_packages"])
    assert not [name for name in names if apt._matches(name, data["purge_keep"])]
    text = modules("purge_packages").preferences(data["purge_packages"])
    assert text.count("Pin-Priority: -1\n") == len(names)
    assert json.dumps(names) == json.dumps([line[9:] for line in text.splitlines() if line.startswith("Package: ")])
