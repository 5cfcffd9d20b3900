# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter of the rollout's playbook; the counting is plugin_utils/_rollout/."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._rollout import (
    rollout_progress as counting,
)


def rollout_progress(
    results: list[dict[str, Any]],
    hosts: list[str],
    batch: list[str] | None = None,
    batches: object = "100%",
    budget: object = 0,
    check: bool = False,
) -> dict[str, Any]:
    """See rollout_progress.yml."""
    try:
        now = counting.progress(results, hosts, batch or [], batches, budget)
    except counting.ProgressError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    if batch:
        lines = [counting.batch_line(now, batch)]
    else:
        changes = {
            str(result["host"]): [str(part) for part in result.get("changes") or []]
            for result in results
            if result.get("outcome") == counting.PASSED
        }
        lines = counting.report(now, hosts, changes if check else None)
    return {"go": now.go, "failed": sorted(now.failed), "lines": lines}


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"rollout_progress": rollout_progress}
