# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of a fleet, as the module gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import (
    catalogue,
    waivers,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.host import Host
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance import report

from tests.unit.compliance.hosts import HOST, NOW, WANTED

# What a host could say to whoever reads a report
NASTY = (
    "=cmd|'/C calc'!A0 <script>alert(1)</script> \"a\" | `b` \x1b[31m\n]]> & __x__ {{ 7*7 }} \u202e"
)

AWAY = {"unreachable": True, "msg": "Failed to connect to the host via ssh: timed out"}
BROKEN = {"failed": True, "msg": "no permission: run this task as root (become: true)"}


def answer(host: Host = HOST, *given: dict[str, Any]) -> dict[str, Any]:
    """A module's result."""
    parsed = waivers.parse(given, catalogue.WAIVABLE)
    return {"controls": catalogue.assess(host, WANTED, parsed), "seconds": 0.25, "agent": {}}


STOPPED = replace(HOST, unfinished=("/etc/btfleet/.btfleet-x",))
NASTY_HOST = replace(HOST, unfinished=(NASTY,))
WAIVER = {
    "control": "files.unfinished",
    "owner": "jane@example.org",
    "reason": "-1+1",
    "expires": "2030-12-31",
}

FLEET: dict[str, dict[str, Any] | None] = {
    "gw1": answer(),
    "gw2": answer(STOPPED),
    "gw3": answer(NASTY_HOST),
    "gw4": answer(STOPPED, WAIVER),
    "gw5": dict(AWAY),
    "gw6": dict(BROKEN),
    "gw7": None,
}


def built(
    fleet: dict[str, dict[str, Any] | None] | None = None,
    threshold: report.Threshold | None = None,
    earlier: list[dict[str, Any]] | None = None,
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The report on a fleet."""
    rows = [report.host_row(name, one) for name, one in (fleet or FLEET).items()]
    return report.build(rows, threshold or report.Threshold(), NOW, notes, earlier or ())
