# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is held against: what the caller asks for, limits, and the fixes that name it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, NamedTuple


class Limits(NamedTuple):
    """Where a number stops being good. Percentages are of the whole."""

    live_fill_percent: float = 80.0
    closed_fill_percent: float = 95.0
    lost_percent: float = 0.1
    missed_percent: float = 0.1
    poll_age_seconds: int = 300
    token_days: int = 365
    certificate_days: int = 30
    clock_seconds: float = 5.0


@dataclass(frozen=True)
class Wanted:
    """None stands for what the caller did not say, which is then not held against the host.

    `release` is the name of the release without dependencies; `objects` has the digest of the
    object by architecture; `settings` those of the base; `remote_keys` what remote config may
    override; `control_time` the control node's clock just before the host was asked.
    """

    host: str = "HOST"
    release: str | None = None
    objects: Mapping[str, str] = field(default_factory=dict)
    boot: bool = True
    agent: bool | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    remote_keys: tuple[str, ...] | None = None
    keep: int = 2
    time_sync: bool = True
    control_time: float | None = None
    limits: Limits = field(default_factory=Limits)

    def rollout(self, what: str = "") -> str:
        """The playbook that brings the host to what is asked for."""
        return f"ansible-playbook btfleet.conntrack.rollout --limit {self.host}{what}"
