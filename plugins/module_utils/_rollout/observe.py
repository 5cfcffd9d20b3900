# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a host for the health gate, and waiting until it is well."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import status
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import (
    agent_state,
    config_state,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.agent_state import (
    StateUnreadable,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host import systemd
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.conntrack import namespaces
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader import telemetry
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release

from . import gate
from .gate import Expected, Reading, UnitReading
from .present import Host

_UNITS = (*release.UNITS, *poller_agent.UNITS)
_SHOWN = ("ActiveState", "NRestarts", "MainPID")
_COUNT_FILE = "/proc/sys/net/netfilter/nf_conntrack_count"
# Seconds between two looks at a host that is not well yet
_PAUSE = 1.0


class _Config(NamedTuple):
    agent: dict[str, Any]
    disagreements: tuple[str, ...]


def read(host: Host, with_agent: bool, now: int | None = None) -> Reading:
    """The host now. Raises TrackerError, HostError, PermissionError."""
    flows = _flows()
    found = status.read(host.tracker.active, host.tracker.store, fill=False)
    config = _config(host, int(time.time()) if now is None else now) if with_agent else None
    record = found.record or {}
    return Reading(
        loaded=found.record is not None,
        drift=found.drift,
        unseen=found.unseen,
        fingerprint=str(record["fingerprint"]) if record else None,
        owners_known=None not in found.owners.values(),
        counters=found.counters,
        load_failures=sum(
            int(str(row["count"]))
            for row in found.load_results
            if row.get("result") in telemetry.FAILURES
        ),
        flows_first=flows,
        flows_last=_flows(),
        units=_units(host),
        agent=config.agent if config else None,
        disagreements=config.disagreements if config else (),
    )


def settle(host: Host, expected: Expected, seconds: float) -> tuple[Reading, list[str]]:
    """Reads until nothing is wrong, for up to `seconds`; the last reading, and what is wrong."""
    deadline = time.monotonic() + seconds
    while True:
        reading = read(host, expected.agent)
        lines = gate.problems(reading, expected)
        if not lines or time.monotonic() >= deadline:
            return reading, lines
        time.sleep(_PAUSE)


def _units(host: Host) -> dict[str, UnitReading]:
    """Those that are installed."""
    if not host.has_systemd:
        return {}
    return {
        name: UnitReading(
            shown.get("ActiveState", "inactive"),
            _number(shown.get("NRestarts")),
            _number(shown.get("MainPID")),
        )
        for name, shown in systemd.show(host.run, _UNITS, _SHOWN).items()
        if os.path.lexists(os.path.join(host.agent.units, name))
    }


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _flows() -> dict[int, int]:
    """The kernel's number of flows in each namespace, by inode number."""
    found = {}
    for number, namespace in namespaces.find().items():
        try:
            found[number] = namespace.run(_count)
        except (OSError, ValueError):  # gone meanwhile, or without conntrack
            continue
    return found


def _count() -> int:
    with open(_COUNT_FILE, encoding="ascii") as stream:
        return int(stream.read())


def _config(host: Host, now: int) -> _Config:
    """The agent's word, and what of the published configs is not in force."""
    settings = agent_state.read_settings(host.agent.file(poller_agent.SETTINGS))
    command = os.path.join(host.releases.current, "bin", "btfleet")
    asked, problem = agent_state.ask(host.run, command)
    agent = config_state.agent_summary(asked, now)
    if problem:
        agent["error"] = problem
    folder = settings.get("state_folder") or host.agent.state
    try:
        stored = agent_state.read_stored(os.path.join(folder, "state.db"))
        configs = config_state.configs(stored, config_state.Host.of(settings), now)
    except (StateUnreadable, ConfigError) as exc:
        return _Config(agent, (str(exc),))
    lines = config_state.disagreements(configs, stored.expired, now)
    return _Config(agent, tuple(lines))
