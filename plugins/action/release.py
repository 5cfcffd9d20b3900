# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the release archive by its digest, and sends it only where it is missing."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.plugin_utils.sending import (
    FILES,
    SendingAction,
    digest,
)

_ARCHIVE = re.compile(r"btfleet-(.+)\.tar\.gz")


class ActionModule(SendingAction):
    """See the module's documentation."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One module run; a second one, after a transfer, where the release was missing."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state") == "absent":
            result.update(self.execute(arguments, task_vars))
            return result
        path = self._archive(arguments.pop("src", None))
        match = _ARCHIVE.fullmatch(os.path.basename(path))
        if match is None:
            raise AnsibleActionFail(f"{path} is not named btfleet-<version>.tar.gz")
        arguments.update(_version=match.group(1), _sha256=digest(path, "the release archive"))
        try:
            answer = self.execute(arguments, task_vars)
            if answer.pop("needs_archive", False):
                arguments["_archive"] = self.send(path)
                answer = self.execute(arguments, task_vars)
        finally:
            self.clean()
        result.update(answer)
        return result

    def _archive(self, src: str | None) -> str:
        if src:
            return str(self._find_needle("files", src))
        names = sorted(os.listdir(FILES)) if os.path.isdir(FILES) else []
        found = [name for name in names if _ARCHIVE.fullmatch(name)]
        if len(found) != 1:
            raise AnsibleActionFail(
                f"the collection has {len(found)} release archives in {FILES}, needed: one: run "
                "`make release` in a checkout, or install the built collection"
            )
        return os.path.join(FILES, found[0])
