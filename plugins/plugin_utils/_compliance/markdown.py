# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report in Markdown, for a ticket or a wiki."""

from __future__ import annotations

import html
import re
from typing import Any, Iterable, Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import STATUSES
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance.report import (
    BAD,
    COMPLIANT,
    HOST_STATUSES,
    verdict_line,
)

# What Markdown, or HTML in it, gives a meaning to
_SPECIAL = re.compile(r"([\\`*_{}\[\]()+!|~@:-])")
_SAFE = re.compile(r"[\w ./,;%=?'\"-]*")


def text(value: object) -> str:
    """A cell's text as text."""
    plain = str(value)
    if _SAFE.fullmatch(plain) and "__" not in plain:
        return plain
    return _SPECIAL.sub(r"\\\1", html.escape(plain, quote=False))


def render(report: Mapping[str, Any]) -> str:
    """The overview, all controls, and what is wrong on which host."""
    summary, verdict = report["summary"], "passed" if report["summary"]["passed"] else "failed"
    parts = [
        "# Compliance",
        f"{summary['generated_at']}: **{verdict}**. {text(verdict_line(report))}",
        *(f"> {text(note)}" for note in report["notes"]),
        _table(
            ("hosts", *(one.replace("_", " ") for one in HOST_STATUSES)),
            [(summary["hosts"], *(summary[one] for one in HOST_STATUSES))],
        ),
        "## Controls",
        _table(
            ("control", "what", "severity", "owner", *(one.replace("_", " ") for one in STATUSES)),
            [
                (
                    *(one["id"], one["title"], one["severity"], one["owner"]),
                    *(one["counts"][key] for key in STATUSES),
                )
                for one in report["controls"]
            ],
        ),
    ]
    hosts = [row for row in report["hosts"] if row["status"] != COMPLIANT]
    if hosts:
        rows = [line for row in hosts for line in _host(row)]
        parts += [
            "## Hosts",
            _table(("host", "control", "status", "expected", "found", "fix"), rows),
        ]
    waived = [
        (row["host"], one["id"], *(one["waiver"][key] for key in ("owner", "reason", "expires")))
        for row in report["hosts"]
        for one in row["controls"]
        if one["waiver"]
    ]
    if waived:
        parts += ["## Waivers", _table(("host", "control", "owner", "reason", "until"), waived)]
    return "\n\n".join(parts) + "\n"


def _host(row: Mapping[str, Any]) -> list[tuple[object, ...]]:
    if not row["controls"]:
        return [(row["host"], "", row["status"], "", row["message"], "")]
    return [
        (row["host"], one["id"], one["status"], one["expected"], one["actual"], one["fix"])
        for one in row["controls"]
        if one["status"] in BAD
    ]


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    columns = list(head)
    lines = ["| " + " | ".join(map(text, columns)) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(text, row)) + " |" for row in rows)])
