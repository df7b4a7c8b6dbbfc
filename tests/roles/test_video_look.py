"""What the role video refuses before it changes anything, and why."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "ansible" / "roles" / "video" / "library" / "video_look.py"
ASKED = {"model": "/m", "config_txt": [], "cma_mb": 0, "config_txt_files": [], "marker": "# {mark} ours"}


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module. It needs nothing of Ansible but AnsibleModule, which is not used here."""
    for name in ("ansible", "ansible.module_utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "ansible.module_utils.basic", SimpleNamespace(AnsibleModule=None))
    spec = importlib.util.spec_from_file_location("video_look", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_more_contiguous_memory_than_a_board_can_spare_is_refused(look: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "config.txt"
    config.touch()

    def problems(cma_mb: int, memory_mb: int) -> list[str]:
        said: list[str] = look.config_problems({**ASKED, "cma_mb": cma_mb}, True, str(config), memory_mb)
        return said

    (said,) = problems(256, 427)  # a board of 512 MB, as the kernel sees it
    assert "video_cma_mb: 256" in said
    assert "128 at most" in said
    assert problems(128, 427) == problems(256, 906) == problems(512, 3794) == []


def test_people_whom_only_a_directory_knows_are_told_apart(
    look: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """usermod changes nobody else, and would say so in the middle of the play."""
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n")
    known: Any = {"pi": ("pi", 1000), "ada": ("ada", 20001)}
    monkeypatch.setattr(look, "_passwd", known.get)
    assert look.strangers(["pi"], str(passwd)) == []
    (nobody,) = look.strangers(["pi", "bob"], str(passwd))
    assert "names bob, whom this host does not know" in nobody
    (elsewhere,) = look.strangers(["pi", "ada"], str(passwd))
    assert "ada" in elsewhere
    assert "video_users: []" in elsewhere
