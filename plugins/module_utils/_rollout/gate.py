# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health gate: whether a host is well after a rollout, and stays so. Pure.

One reading has to be as it should be; and from one to a later one nothing may have got worse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.poller_agent import APPLY
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.poller_agent import (
    UNIT as AGENT_UNIT,
)

# Each of them is a flow that was not taken in, or one whose end was missed
ERROR_COUNTERS = (
    "insert_read_failed",
    "live_full",
    "live_update_failed",
    "delete_read_failed",
    "closed_update_failed",
    "insert_missed",
    "delete_missed",
)
_HITS = ("insert_hits", "delete_hits")

# The kernel's count of flows has some in it that are not in its table yet, or not any more
_FLOWS_IN_BETWEEN = 10


class UnitReading(NamedTuple):
    """`state` is systemd's ActiveState; `restarts` and `process` change when it is restarted."""

    state: str = "inactive"
    restarts: int = 0
    process: int = 0


@dataclass(frozen=True)
class Reading:
    """A host at one moment.

    `flows_first` and `flows_last` have the kernel's number of flows by namespace, from before and
    after the rest was read. `load_failures` counts failed loads, `agent` is
    `config_state.agent_summary`, `disagreements` are lines of `config_state.disagreements`,
    `unseen` those of `kernel.status`.
    """

    loaded: bool = False
    drift: tuple[str, ...] = ()
    fingerprint: str | None = None
    owners_known: bool = True
    counters: Mapping[str, int] = field(default_factory=dict)
    load_failures: int = 0
    flows_first: Mapping[int, int] = field(default_factory=dict)
    flows_last: Mapping[int, int] = field(default_factory=dict)
    units: Mapping[str, UnitReading] = field(default_factory=dict)
    agent: Mapping[str, Any] | None = None
    disagreements: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


class Expected(NamedTuple):
    """What a rollout asked for. `fingerprint` None stands for any spec, `polling` says whether the
    agent has to have reached the config service, `configs` whether what is published for the host
    has to be in force.
    """

    agent: bool = False
    polling: bool = True
    fingerprint: str | None = None
    configs: bool = True


def problems(now: Reading, expected: Expected) -> list[str]:
    """A line for each thing that is not as it should be."""
    lines = _tracker(now, expected) + [f"flows are not seen: {line}" for line in now.unseen]
    lines += [
        f"{name} has failed (`systemctl status {name}` says why)"
        for name, unit in now.units.items()
        if unit.state == "failed" and (expected.configs or name != APPLY)
    ]
    return lines + _agent(now, expected)


def _tracker(now: Reading, expected: Expected) -> list[str]:
    if now.drift:
        return [f"the tracker is not as it was loaded: {line}" for line in now.drift]
    if not now.loaded:
        return ["no tracker is loaded"]
    if expected.fingerprint in (None, now.fingerprint):
        return []
    # The agent may have asked for another spec since; then each value has its owner
    if expected.agent and now.owners_known:
        return []
    found, wanted = str(now.fingerprint)[:12], str(expected.fingerprint)[:12]
    return [f"the spec in force is {found}, asked for was {wanted}"]


def _agent(now: Reading, expected: Expected) -> list[str]:
    if not expected.agent:
        return []
    unit = now.units.get(AGENT_UNIT, UnitReading())
    if unit.state not in ("active", "failed"):
        return [f"{AGENT_UNIT} is {unit.state}, not active"]
    if unit.state == "failed":  # said already
        return []
    agent = now.agent or {}
    if not agent.get("running"):
        return [f"the poller agent does not answer ({agent.get('error') or 'no reason given'})"]
    lines = list(now.disagreements) if expected.configs else []
    if not expected.polling:
        return lines
    if not agent.get("last_success_at"):
        lines.append(f"the poller agent has not reached the config service{_because(agent)}")
    elif agent.get("error") or not agent.get("healthy"):
        lines.append(f"the poller agent is not well{_because(agent)}")
    return lines


def _because(agent: Mapping[str, Any]) -> str:
    return f" ({agent['error']})" if agent.get("error") else ""


def worsened(before: Reading, after: Reading) -> list[str]:
    """A line for each thing that happened between two readings and should not have."""
    lines = []
    for name, unit in after.units.items():
        earlier = before.units.get(name, unit)
        if unit.restarts > earlier.restarts or (
            earlier.process and unit.process != earlier.process
        ):
            lines.append(f"{name} was restarted, or has ended, while it was watched")
    for name in ERROR_COUNTERS:
        more = after.counters.get(name, 0) - before.counters.get(name, 0)
        if more > 0:
            lines.append(f"the counter {name} rose by {more}")
    failures = after.load_failures - before.load_failures
    if failures > 0:
        lines.append(f"{failures} loads failed")
    moved = _moved(before, after)
    if moved > _FLOWS_IN_BETWEEN and _hits(before) == _hits(after):
        lines.append(f"the kernel's tables changed by {moved} flows, and the programs saw none")
    return lines


def _moved(before: Reading, after: Reading) -> int:
    """How many flows came, or went, at the least: in namespaces that are there all the time.

    What lies between these two counts lies between the two readings of the counters, too.
    """
    return sum(
        abs(after.flows_first[namespace] - count)
        for namespace, count in before.flows_last.items()
        if namespace in after.flows_first
    )


def _hits(reading: Reading) -> int:
    return sum(reading.counters.get(name, 0) for name in _HITS)
