# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the object by its digest, and sends it only where it is missing."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.sending import (
    SendingAction,
    collection_objects,
    digest,
)

_ANY = "any"


class ActionModule(SendingAction):
    """See the module's documentation."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One module run; a second one, after a transfer, where the object was missing."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "_object" in arguments or "_objects" in arguments:
            raise AnsibleActionFail("_object and _objects are set by the action plugin alone")
        if boolean(arguments.get("remote_src", False)) or arguments.get("state") in (
            "unloaded",
            "absent",
        ):
            result.update(self.execute(arguments, task_vars))
            return result
        paths = self._offer(arguments.pop("src", None))
        arguments["_objects"] = {arch: digest(path, "the object") for arch, path in paths.items()}
        try:
            answer = self.execute(arguments, task_vars)
            if answer.pop("needs_object", False):
                path = paths.get(_ANY) or paths[answer["arch"]]
                arguments["_object"] = self.send(path)
                answer = self.execute(arguments, task_vars)
        finally:
            self.clean()
        result.update(answer)
        return result

    def _offer(self, src: str | None) -> dict[str, str]:
        """Object files on the control node, by architecture."""
        if src:
            return {_ANY: self._find_needle("files", src)}
        return collection_objects()
