"""Settings, what a camera can do, and the file that outlives the service."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from camdock.errors import SettingOutOfRange, SettingUnsupported, StorageFailed, StorageFull
from camdock.settings import Limits, Settings, SettingsFile

ALL = Limits(exposure_us=(10, 2_000_000), gain=(1.0, 16.0), auto_exposure=True)

# --- Settings ---------------------------------------------------------------------------------------------------------


def test_whoever_sets_an_exposure_turns_auto_exposure_off() -> None:
    assert Settings(auto_exposure=True).changed({"exposure_us": 500}) == Settings(500, None, False)


def test_who_says_both_gets_both() -> None:
    assert Settings().changed({"exposure_us": 500, "auto_exposure": True}) == Settings(500, None, True)


def test_auto_exposure_forgets_the_exposure_that_was_set() -> None:
    assert Settings(500, 2.0, False).changed({"auto_exposure": True}) == Settings(None, 2.0, True)


def test_a_gain_leaves_everything_else_as_it_is() -> None:
    assert Settings(500, 2.0, False).changed({"gain": 3.0}) == Settings(500, 3.0, False)
    assert Settings(None, 2.0, True).changed({"gain": 3.0}) == Settings(None, 3.0, True)


def test_none_takes_a_setting_back() -> None:
    assert Settings(500, 2.0, False).changed({"exposure_us": None}) == Settings(None, 2.0, False)


def test_only_what_is_set_is_given() -> None:
    assert Settings(gain=0.0, auto_exposure=False).given() == {"gain": 0.0, "auto_exposure": False}
    assert Settings().given() == {}


# --- Limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"exposure_us": 10}, {"exposure_us": 2_000_000}, {"gain": 1.0}, {"gain": 16.0}, {"auto_exposure": False}, {}],
)
def test_both_ends_of_a_limit_are_allowed(changes: dict[str, Any]) -> None:
    ALL.check(changes, "front")


@pytest.mark.parametrize(
    ("changes", "says", "limits"),
    [
        ({"exposure_us": 9}, "exposure_us=9 lies outside what front can do", "from 10 to 2000000"),
        ({"exposure_us": 2_000_001}, "exposure_us=2000001 lies", "from 10 to 2000000"),
        ({"gain": 0.99}, "gain=0.99 lies", "from 1.0 to 16.0"),
        ({"gain": float("nan")}, "gain=nan lies", "from 1.0 to 16.0"),
    ],
)
def test_a_value_outside_is_refused_with_the_exact_limits(changes: dict[str, Any], says: str, limits: str) -> None:
    with pytest.raises(SettingOutOfRange) as caught:
        ALL.check(changes, "front")
    assert says in caught.value.message
    assert caught.value.hint == limits


def test_a_setting_that_is_not_there_is_refused_and_the_others_are_named() -> None:
    with pytest.raises(SettingUnsupported) as caught:
        Limits(gain=(1.0, 2.0), auto_exposure=True).check({"exposure_us": 100}, "front")
    assert caught.value.message == "front has no setting exposure_us"
    assert caught.value.hint == "it has gain, auto_exposure"


def test_a_camera_without_settings_says_so() -> None:
    with pytest.raises(SettingUnsupported) as caught:
        Limits().check({"auto_exposure": False}, "front")
    assert caught.value.hint == "it has none that can be set"


def test_what_is_not_asked_for_is_not_checked() -> None:
    Limits().check({"exposure_us": None, "gain": None, "auto_exposure": None}, "front")


def test_limits_come_back_from_json_as_they_were() -> None:
    for limits in (ALL, Limits(), Limits(gain=(0.5, 2.0))):
        raw = json.loads(
            json.dumps({"exposure_us": limits.exposure_us, "gain": limits.gain, "auto_exposure": limits.auto_exposure})
        )
        assert Limits.of(raw) == limits
    assert Limits.of({}) == Limits()


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(), Settings(500, 2.5, False), Settings(None, None, True)])
def test_what_was_saved_is_loaded(tmp_path: Path, settings: Settings) -> None:
    file = SettingsFile(tmp_path / "new" / "folder" / "front.json")
    assert file.load() == Settings()
    file.save(settings)
    assert file.load() == settings
    assert SettingsFile(file.path).load() == settings


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xff", b"", b'{"gain": '])
def test_a_file_that_cannot_be_read_is_reported_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "front.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="delete it to start from the camera's own settings") as caught:
        SettingsFile(path).load()
    assert str(path) in str(caught.value)


def test_a_folder_in_its_place_is_reported_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        SettingsFile(tmp_path).load()


@pytest.mark.parametrize(
    ("raw", "settings"),
    [
        ([1, 2], Settings()),
        ("text", Settings()),
        ({"exposure_us": "500", "gain": 2.0}, Settings(gain=2.0)),
        ({"exposure_us": 5.5, "gain": 2}, Settings(gain=2)),
        ({"exposure_us": True, "gain": True, "auto_exposure": True}, Settings(auto_exposure=True)),
        ({"auto_exposure": 1, "exposure_us": 500}, Settings(exposure_us=500)),
        ({"of_a_later_version": 1, "gain": 2.0}, Settings(gain=2.0)),
        ({"gain": None, "exposure_us": 500}, Settings(exposure_us=500)),
    ],
)
def test_what_is_no_setting_in_a_file_is_passed_over(tmp_path: Path, raw: object, settings: Settings) -> None:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(raw))
    assert SettingsFile(path).load() == settings


def _failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", ["os.fsync", "os.fdopen", "pathlib.Path.replace", "tempfile.mkstemp", "json.dump"])
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageFailed),
        (errno.EROFS, StorageFailed),
        (errno.EACCES, StorageFailed),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, error: type[StorageFailed]
) -> None:
    file = SettingsFile(tmp_path / "front.json")
    file.save(Settings(500))
    before = file.path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(step, _failing(number))
        with pytest.raises(StorageFailed) as caught:
            file.save(Settings(700))
    assert type(caught.value) is error
    assert str(file.path) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.hint == ("free some space" if error is StorageFull else caught.value.hint)
    assert "CAMDOCK_STATE_DIR" in caught.value.hint or error is StorageFull
    assert file.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["front.json"]


def test_a_folder_that_cannot_be_made_is_storage_that_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed) as caught:
        SettingsFile(tmp_path / "file" / "front.json").save(Settings())
    assert type(caught.value) is StorageFailed


def test_the_content_is_synced_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    SettingsFile(tmp_path / "front.json").save(Settings(500))
    assert steps == ["file", "rename", "folder"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "front.json")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        file.save(Settings(number + 1))
    assert len(os.listdir("/proc/self/fd")) == before
