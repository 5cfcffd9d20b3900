# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All controls, and the verdict on a host. Pure."""

from __future__ import annotations

from typing import Any

from . import agent_controls, kernel_controls, release_controls, tracker_controls
from .host import Host
from .verdict import (
    FAIL,
    LOW,
    PASS,
    SECURITY,
    STATUSES,
    UNKNOWN,
    WAIVED,
    Control,
    Finding,
    judge,
    listed,
)
from .waivers import Waiver
from .wanted import Wanted

CONTROLS = (
    *kernel_controls.CONTROLS,
    *tracker_controls.CONTROLS,
    *release_controls.CONTROLS,
    *agent_controls.CONTROLS,
)
# It speaks of the waivers themselves, and cannot be waived
EXPIRED = ("waivers.expired", "No waiver has expired", LOW, SECURITY)

CLOCK = "clock.offset"
WAIVABLE = tuple(control.id for control in CONTROLS)


def assess(host: Host, wanted: Wanted, waivers: tuple[Waiver, ...] = ()) -> list[dict[str, Any]]:
    """The result of each control, in the catalogue's order."""
    now = host.now if wanted.control_time is None else wanted.control_time
    mine = [waiver for waiver in waivers if waiver.covers(wanted.host)]
    results = [result(control, control.check(host, wanted)) for control in CONTROLS]
    for one in results:
        waive(one, mine, now)
    expired = Control(*EXPIRED, lambda *_both: _expired(mine, now))
    return [*results, result(expired, expired.check(host, wanted))]


def result(control: Control, finding: Finding) -> dict[str, Any]:
    """The form in which a control's result is reported."""
    return {
        "id": control.id,
        "title": control.title,
        "severity": control.severity,
        "owner": control.owner,
        **finding._asdict(),
        "waiver": None,
    }


def waive(one: dict[str, Any], waivers: list[Waiver], now: float) -> None:
    """Waives a result that is not well, if a waiver for it holds; an expired one is only shown."""
    if one["status"] not in (FAIL, UNKNOWN):
        return
    fitting = [waiver for waiver in waivers if waiver.control == one["id"]]
    if fitting:
        last = max(fitting, key=lambda waiver: waiver.expires)
        one["waiver"] = {**last.to_dict(), "expired": last.has_expired(now)}
        if not last.has_expired(now):
            one["status"] = WAIVED


def _expired(waivers: list[Waiver], now: float) -> Finding:
    over = [
        f"{waiver.control}, since {waiver.expires} ({waiver.owner}: {waiver.reason})"
        for waiver in waivers
        if waiver.has_expired(now)
    ]
    return judge(
        not over,
        "no waiver has expired",
        listed(over) or "none has",
        "take the waiver away, or have its owner renew it (compliance_waivers)",
    )


def settle_clock(results: list[dict[str, Any]], offset: float, limit: float) -> None:
    """Takes back that the clock is wrong, where it took that long to reach the host.

    `offset` is the least one that is possible (`agent_controls.nearest_offset`).
    """
    for one in results:
        if one["id"] == CLOCK and one["status"] in (FAIL, WAIVED) and abs(offset) <= limit:
            actual = f"{agent_controls.offset_text(offset)} at least"
            one.update(status=PASS, actual=actual, fix="", waiver=None)


def summary(results: list[dict[str, Any]]) -> dict[str, int]:
    """How many controls came to which status."""
    return {status: sum(1 for one in results if one["status"] == status) for status in STATUSES}


def is_compliant(results: list[dict[str, Any]]) -> bool:
    """Whether nothing has failed, and nothing that was to be known stayed unknown."""
    return not any(one["status"] in (FAIL, UNKNOWN) for one in results)
