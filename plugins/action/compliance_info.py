# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says to the module what hosts have to have: the collection's release and object, and the time."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import (
    agent_controls,
    catalogue,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.wanted import Limits
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.object_choice import (
    ANY,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.release_sending import (
    ReleaseAction,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.sending import (
    collection_objects,
    digest,
)


class ActionModule(ReleaseAction):
    """See the module's documentation. Nothing is sent."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One module run."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self.arguments()
        if "_objects" in arguments:
            raise AnsibleActionFail("_objects is set by the action plugin alone")
        version, sha256, _path = self.offered(arguments.pop("src", None))
        own = arguments.pop("object", None)
        paths = {ANY: self._find_needle("files", own)} if own else collection_objects()
        objects = {arch: digest(path, "the object") for arch, path in paths.items()}
        arguments.update(_version=version, _sha256=sha256, _objects=objects)
        arguments.setdefault("host", task_vars.get("inventory_hostname"))
        # Last, so that the host's clock is compared with what it is now
        asked = time.time()
        own_time = arguments.setdefault("control_time", asked) is asked
        result.update(self.execute(arguments, task_vars))
        if "controls" in result:
            result["answered_at"] = time.time()
            if own_time:
                self._settle_clock(result, asked, arguments)
        return result

    def _settle_clock(
        self, result: dict[str, Any], asked: float, arguments: dict[str, Any]
    ) -> None:
        latest = result["answered_at"] - result["seconds"]
        offset = agent_controls.nearest_offset(result["host_time"], asked, latest)
        thresholds = arguments.get("thresholds") or {}
        limit = float(thresholds.get("clock_seconds", Limits().clock_seconds))
        catalogue.settle_clock(result["controls"], offset, limit)
        result["summary"] = catalogue.summary(result["controls"])
        result["compliant"] = catalogue.is_compliant(result["controls"])
