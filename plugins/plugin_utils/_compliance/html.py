# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import os
from typing import Any, Mapping

import jinja2
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import (
    SEVERITIES,
    STATUSES,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance.report import (
    BAD,
    HOST_STATUSES,
    verdict_line,
)

_TEMPLATE = "report.html.j2"
# Of the chart, in its own units
_WIDTH, _HEIGHT = 600, 120


def render(report: Mapping[str, Any]) -> str:
    """The page. Every text is escaped by Jinja."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(os.path.realpath(__file__))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        report=report,
        controls=sorted(report["controls"], key=_worst_first),
        summary=report["summary"],
        verdict=verdict_line(report),
        statuses=STATUSES,
        host_statuses=HOST_STATUSES,
        bad=BAD,
        ranks={name: rank for rank, name in enumerate(SEVERITIES)},
        host_ranks={name: rank for rank, name in enumerate(HOST_STATUSES)},
        trend=trend(report["trend"]),
        width=_WIDTH,
        height=_HEIGHT,
    )


def _worst_first(one: Mapping[str, Any]) -> tuple[int, ...]:
    return (*(-one["counts"][status] for status in BAD), SEVERITIES.index(one["severity"]))


def trend(summaries: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points of the chart, oldest first: share of compliant hosts, and where that is drawn."""
    points = []
    for number, one in enumerate(summaries):
        share = 100 * one["compliant"] / one["hosts"] if one["hosts"] else 0.0
        points.append(
            {
                "when": one["generated_at"],
                "hosts": one["hosts"],
                "compliant": one["compliant"],
                "lost": one["unreachable"] + one["failed"],
                "share": share,
                "x": round(_WIDTH * (number + 0.5) / len(summaries), 1),
                "y": round(_HEIGHT * (1 - share / 100), 1),
            }
        )
    return points
