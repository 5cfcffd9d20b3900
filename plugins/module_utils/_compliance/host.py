# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is read of a host for its verdict: plain data. `gather` fills it, controls read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._config.remote import Effective
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.status import Status
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.facts import Facts
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    State as Releases,
)

from .certificates import Validity
from .clock import Clock
from .file_access import Access
from .units import UnitReading


class Traffic(NamedTuple):
    """Two looks, some time apart. The hits are counted around the flows: whatever changes the
    number of the kernel's flows (root namespace) in between has to have made a program run.
    """

    flows_before: int
    flows_after: int
    hits_before: int
    hits_after: int


@dataclass(frozen=True)
class Tracker:
    """`objects` has what is wrong with each object that is asked for, None if it is sound.

    `denied` and `mount_denied` name pins, and the mount point, whose owner or mode is wrong.
    """

    status: Status = field(default_factory=lambda: Status(None))
    pins: tuple[str, ...] = ()
    spec: Spec | None = None
    effective: Effective | None = None
    allowed: frozenset[str] = frozenset()
    objects: Mapping[str, str | None] = field(default_factory=dict)
    denied: tuple[str, ...] = ()
    mount_denied: str | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True)
class Agent:
    """`answer` is what `btfleet status --json` says of it, `summary` that in short;
    `disagreements` see `config_state`. `certificates` by file.
    """

    installed: bool = False
    restart_due: bool = False
    answer: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    disagreements: tuple[str, ...] = ()
    token_changed_at: float | None = None
    certificates: Mapping[str, tuple[Validity, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """`unread` has, by the part (a field's name), why that part could not be read."""

    now: float
    facts: Facts | None = None
    tracker: Tracker | None = None
    releases: Releases | None = None
    units: Mapping[str, UnitReading] | None = None
    access: tuple[Access, ...] | None = None
    unfinished: tuple[str, ...] | None = None
    agent: Agent | None = None
    clock: Clock | None = None
    unread: Mapping[str, str] = field(default_factory=dict)

    def why(self, part: str) -> str:
        """Why a part is missing."""
        return self.unread.get(part, f"{part} was not read")


def said(agent: Agent) -> dict[str, object]:
    """What the agent says of remote config, as it says it to the config service too."""
    client = agent.answer.get("client") or {}
    return {
        "running": bool(agent.summary.get("running")),
        "host": agent.answer.get("host") or None,
        "root_version": agent.summary.get("root_version", 0),
        "targets_version": agent.summary.get("targets_version", 0),
        "configs": [
            {
                "path": state.get("path"),
                "version": int(state.get("version") or 0),
                "phase": str(state.get("apply_phase", "")).replace("APPLY_PHASE_", ""),
            }
            for state in client.get("config_states") or []
        ],
    }
