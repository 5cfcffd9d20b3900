# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as a table for a terminal."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance.report import (
    BAD,
    COMPLIANT,
    FAILED,
    HOST_STATUSES,
    UNREACHABLE,
    verdict_line,
)

_HOSTS = 40


def render(report: Mapping[str, Any]) -> str:
    """The overview, the controls that are not well, and the hosts that are not."""
    summary = report["summary"]
    counts = ", ".join(f"{summary[one]} {one.replace('_', ' ')}" for one in HOST_STATUSES)
    lines = [f"Compliance of {summary['hosts']} hosts, {summary['generated_at']}: {counts}", ""]
    controls = [one for one in report["controls"] if any(one["counts"][key] for key in BAD)]
    if controls:
        head = ("control", "severity", "owner", "fail", "unknown", "waived")
        rows = [
            (
                *(one["id"], one["severity"], one["owner"]),
                *(str(one["counts"][key]) for key in (*BAD, "waived")),
            )
            for one in controls
        ]
        lines += [*_aligned([head, *rows]), ""]
    hosts = [row for row in report["hosts"] if row["status"] != COMPLIANT]
    rows = [line for row in hosts[:_HOSTS] for line in _host(row)]
    if rows:
        lines += [*_aligned([("host", "control", "found", "fix"), *rows]), ""]
    if len(hosts) > _HOSTS:
        lines += [f"{len(hosts) - _HOSTS} more hosts are in the report files", ""]
    lines += [f"note: {note}" for note in report["notes"]]
    verdict = "passed" if summary["passed"] else "FAILED"
    return "\n".join([*lines, f"{verdict}: {verdict_line(report)}"])


def _host(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    if row["status"] in (UNREACHABLE, FAILED):
        return [(row["host"], row["status"], _cut(row["message"], 60), "")]
    return [
        (row["host"], one["id"], _cut(one["actual"], 60), _cut(one["fix"], 90))
        for one in row["controls"]
        if one["status"] in BAD
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
