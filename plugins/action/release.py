# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the release archive by its digest, and sends it only where it is missing."""

from __future__ import annotations

from typing import Any

from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.release_sending import (
    ReleaseAction,
)


class ActionModule(ReleaseAction):
    """See the module's documentation."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One module run; a second one, after a transfer, where the release was missing."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self.arguments()
        if arguments.get("state") == "absent":
            result.update(self.execute(arguments, task_vars))
        else:
            result.update(self.install(arguments, task_vars))
        return result
