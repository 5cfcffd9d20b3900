# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending a file to a host only when the module there says that it lacks it.

A run that changes nothing is one module run and no transfer.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

_COLLECTION = Path(__file__).resolve().parents[3]
FILES = str(_COLLECTION / "roles" / "conntracker" / "files")

_OBJECT = re.compile(r"conntrack-([a-z0-9_]+)\.bpf\.o")


def collection_objects() -> dict[str, str]:
    """The collection's object files, by architecture; raises AnsibleActionFail without any."""
    names = os.listdir(FILES) if os.path.isdir(FILES) else []
    found = {match.group(1): name for name in names if (match := _OBJECT.fullmatch(name))}
    if not found:
        raise AnsibleActionFail(
            f"the collection has no object in {FILES}: run `make object` in a checkout, or "
            "install the built collection"
        )
    return {arch: os.path.join(FILES, name) for arch, name in found.items()}


def digest(path: str, what: str) -> str:
    """SHA-256 of a file on the control node; AnsibleActionFail with one line if unreadable."""
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError as exc:
        raise AnsibleActionFail(
            f"cannot read {what} {path} on the control node ({exc.strerror})"
        ) from exc


class SendingAction(ActionBase):
    """An action whose module may ask for a file."""

    TRANSFERS_FILES = True

    def execute(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Runs the module."""
        result: dict[str, Any] = self._execute_module(
            module_name=self._task.action, module_args=arguments, task_vars=task_vars
        )
        return result

    def send(self, path: str) -> str:
        """Puts a file into the task's temporary folder on the host; its path there."""
        self._make_tmp_path()
        remote = self._connection._shell.join_path(
            self._connection._shell.tmpdir, os.path.basename(path)
        )
        self._transfer_file(path, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return str(remote)

    def clean(self) -> None:
        """Removes the temporary folder."""
        if not self._task.async_val:
            self._remove_tmp_path(self._connection._shell.tmpdir)
