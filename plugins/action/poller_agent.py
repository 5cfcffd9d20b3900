# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the release with its dependencies, and brings the files of the control node along."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.release_sending import (
    ReleaseAction,
)

# Options that name a text file on the control node
_FILES = ("ca", "director_root")


class ActionModule(ReleaseAction):
    """See the module's documentation."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One module run; a second one, after a transfer, where the release was missing."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self.arguments()
        if any(f"_{name}" in arguments for name in _FILES):
            raise AnsibleActionFail("_ca and _director_root are set by the action plugin alone")
        if arguments.get("state") == "absent":
            result.update(self.execute(arguments, task_vars))
            return result
        arguments.setdefault("host", task_vars.get("inventory_hostname"))
        for name in _FILES:
            path = arguments.pop(name, None)
            if path:
                arguments[f"_{name}"] = self.read_text(str(path), name)
        result.update(self.install(arguments, task_vars))
        return result
