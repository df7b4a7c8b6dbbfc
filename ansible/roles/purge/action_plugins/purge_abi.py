"""The controller's part of purge_abi: takes `camdock abi` to the host as one file, and has the module run it.

Runs in: ansible-playbook. The file is a zip archive of service/camdock/abi and of `packaging`, which Ansible itself
needs and therefore always has here; nothing is installed anywhere for it.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import packaging
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

SERVICE = Path(__file__).resolve().parents[4] / "service"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same sources give the same bytes


def write_tool(path: Path, service: Path = SERVICE) -> None:
    """Write the archive. Raises AnsibleActionFail where the sources are not beside these roles."""
    if not (service / "camdock" / "abi" / "__main__.py").is_file():
        raise AnsibleActionFail(
            f"{service}/camdock/abi is not there, so no host can be asked which libraries break: "
            "run this from a whole copy of Camdock, or say purge_ask_abi: false"
        )
    library = Path(packaging.__file__).parent
    sources = [(service / "camdock" / "__init__.py", service)]
    sources += [(file, service) for file in sorted((service / "camdock" / "abi").rglob("*.py"))]
    sources += [(file, library.parent) for file in sorted(library.rglob("*.py"))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, root in sources:
            archive.writestr(
                zipfile.ZipInfo(str(file.relative_to(root)), _DATE), file.read_bytes(), zipfile.ZIP_DEFLATED
            )


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """Copies the tool into the task's temporary folder on the host, which Ansible removes, and runs the module."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        with tempfile.TemporaryDirectory(prefix="camdock-") as folder:
            tool = Path(folder) / "tool.zip"
            write_tool(tool)
            there = self._connection._shell.join_path(self._make_tmp_path(), "tool.zip")
            self._transfer_file(os.fspath(tool), there)
        self._fixup_perms2((self._connection._shell.tmpdir, there))
        arguments = {**self._task.args, "tool": there}
        result |= self._execute_module(module_name="purge_abi", module_args=arguments, task_vars=task_vars)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result
