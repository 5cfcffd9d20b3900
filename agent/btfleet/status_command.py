# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet status`: what the kernel holds, compared with what was loaded; and the poller agent."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from btfleet import __version__, agent_status
from btfleet._config.status import Status, read

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from btfleet.quick import StatusOptions

UNHEALTHY, AGENT_NOT_WELL = 1, 5


def run(options: argparse.Namespace | StatusOptions) -> int:
    """Exit code 0 if all is well, 1 if the tracker is not, 5 if it is and the agent is not."""
    status = read()
    agent = agent_status.read()
    problems = agent_status.problems(agent)
    if options.json:
        print(json.dumps({**status.to_dict(), "agent": agent, "agent_problems": problems}))
    else:
        now = int(time.time())
        for line in describe(status, now) + agent_status.describe(agent, now):
            print(line)
    return exit_code(status, problems)


def exit_code(status: Status, agent_problems: list[str]) -> int:
    """Return the command's exit code; the tracker's state counts before the agent's."""
    if not status.healthy:
        return UNHEALTHY
    return AGENT_NOT_WELL if agent_problems else 0


def describe(status: Status, now: int) -> list[str]:
    """The lines for a person."""
    lines = [f"btfleet {__version__}"]
    record = status.record
    if record is None:
        lines.append("tracker   not loaded")
    else:
        age = agent_status.age(now - int(str(record["loaded_at"])))
        state = "NOT as loaded" if status.drift else "as loaded"
        lines.append(
            f"tracker   {state}: tier {record['tier']}, {record['lifecycle']}, "
            + (f"BTF from {record['btf_source']}, " if record["btf_source"] else "")
            + f"for {age}"
        )
        if status.degraded:
            lines.append(f"degraded  {status.degraded}")
        lines += [f"repaired  {text}" for text in _reconciled(status.reconciled, now)]
        lines += [f"followed  {text}" for text in _follower(status.follower)]
        if status.holder:
            lines.append(f"held      by process {status.holder}: this kernel cannot pin links")
        lines.append(f"spec      {str(record['fingerprint'])[:12]} {_settings(record['spec'])}")
    lines += [f"drift     {text}" for text in status.drift]
    lines += [f"unseen    {text}" for text in status.unseen]
    for name, entries in status.maps.items():
        share = 100 * entries["entries"] / max(entries["max_entries"], 1)
        lines.append(
            f"map       {name}: {entries['entries']} of {entries['max_entries']} entries "
            f"({share:.1f} %)"
        )
    shown = {name: value for name, value in status.counters.items() if value}
    if status.counters:
        text = ", ".join(f"{name} {value}" for name, value in shown.items())
        lines.append(f"counters  {text or 'all zero'}")
    return lines


def _follower(found: dict[str, int | bool] | None) -> list[str]:
    """How the process that follows conntrack events does."""
    if found is None or not found["alive"]:
        return []  # a line of drift says so
    parts = [
        f"by process {found['pid']}: {found['namespaces']} namespaces",
        f"{found['unfollowed']} not followed" if found["unfollowed"] else "",
        f"{found['no_events']} without events (such as {found['silent_inode']})"
        if found["no_events"]
        else "",
        f"{found['events']} events",
        f"{found['overruns']} overruns, made good" if found["overruns"] else "",
        f"{found['comparisons']} comparisons with the kernel's table",
        f"{found['repaired']} entries repaired" if found["repaired"] else "",
    ]
    return [", ".join(filter(None, parts))]


def _reconciled(found: dict[str, Any] | None, now: int) -> list[str]:
    """What the last reconciliation found, where there was one since the load."""
    if found is None or not found["runs"]:
        return []
    text = (
        f"{agent_status.age(now - found['at'])} ago ({found['why']}): {found['added']} entries "
        f"added, {found['removed']} removed"
    )
    if found["runs"] > 1:
        text += f"; {found['added_ever']} and {found['removed_ever']} by all {found['runs']}"
    return [text, *([f"failed: {found['error']}"] if found["error"] else [])]


def _settings(spec: object) -> str:
    if not isinstance(spec, dict):
        return ""
    names = ("tcpv6_enabled", "udpv6_enabled", "max_entries", "closed_entries")
    return ", ".join(f"{name} {json.dumps(spec.get(name))}" for name in names)
