# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's report from what its hosts have answered. Pure; all renderers take what `build` gives.

What a host answers is not trusted: of a result only the status and three texts are taken, for
controls that we know, and texts are made into one printable line each.
"""

from __future__ import annotations

import time
from typing import Any, Iterable, Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import catalogue
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import (
    FAIL,
    SEVERITIES,
    STATUSES,
    UNKNOWN,
    Control,
    Finding,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance import heard

SCHEMA = 1

COMPLIANT, NOT_COMPLIANT, UNREACHABLE, FAILED = (
    *("compliant", "not_compliant"),
    *("unreachable", "failed"),
)
# Worst first
HOST_STATUSES = (UNREACHABLE, FAILED, NOT_COMPLIANT, COMPLIANT)
# Statuses of a control that want somebody's attention
BAD = (FAIL, UNKNOWN)

_MAX_TEXT = 1000
_HEARD, _EXPIRED = heard.CONTROL, Control(*catalogue.EXPIRED, heard.CONTROL.check)
CONTROLS = {one.id: one for one in (*catalogue.CONTROLS, _HEARD, _EXPIRED)}


class Threshold(NamedTuple):
    """When the fleet does not pass: more than `percent` of the hosts have a control failed (or
    unknown) of at least `severity`, or gave no answer at all. `severity` None: only the latter.
    """

    severity: str | None = "low"
    percent: float = 0.0

    def counts(self, control: Mapping[str, Any]) -> bool:
        """Whether this result makes its host a bad one."""
        if self.severity is None or control["status"] not in BAD:
            return False
        return SEVERITIES.index(control["severity"]) <= SEVERITIES.index(self.severity)


def line(value: object) -> str:
    """One printable line of a text from a host: no control characters, no orders to terminals."""
    text = " ".join(str(value if value is not None else "").split())[:_MAX_TEXT]
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def host_row(
    name: str, result: Mapping[str, Any] | None, said_by_service: Finding | None = None
) -> dict[str, Any]:
    """A host's part of the report, from its module's result; None if there is none."""
    row: dict[str, Any] = {"host": line(name), "status": FAILED, "message": "", "seconds": None}
    controls: list[dict[str, Any]] = []
    if result is None:
        row["message"] = "it was not asked"
    elif result.get("unreachable"):
        row.update(status=UNREACHABLE, message=line(result.get("msg")))
    elif result.get("failed") or not isinstance(result.get("controls"), list):
        row["message"] = line(result.get("msg")) or "it gave no result"
    else:
        controls = _controls(result["controls"], said_by_service)
        bad = any(one["status"] in BAD for one in controls)
        row["status"] = NOT_COMPLIANT if bad else COMPLIANT
        seconds = result.get("seconds")
        row["seconds"] = seconds if isinstance(seconds, (int, float)) else None
    row["summary"] = catalogue.summary(controls)
    row["controls"] = controls
    return row


def _controls(given: list[Any], said_by_service: Finding | None) -> list[dict[str, Any]]:
    found = {one["id"]: one for one in given if isinstance(one, Mapping) and "id" in one}
    rows = []
    for control in CONTROLS.values():
        if control.id == heard.ID:
            if said_by_service is not None:
                rows.append(_result(control, catalogue.result(control, said_by_service)))
        elif control.id in found:
            rows.append(_result(control, found[control.id]))
        else:
            silent = Finding(UNKNOWN, "", "the host said nothing of it")
            rows.append(_result(control, catalogue.result(control, silent)))
    return rows


def _result(control: Control, given: Mapping[str, Any]) -> dict[str, Any]:
    status, waiver = given.get("status"), given.get("waiver")
    return {
        "id": control.id,
        "severity": control.severity,
        "owner": control.owner,
        "status": status if status in STATUSES else UNKNOWN,
        "expected": line(given.get("expected")),
        "actual": line(given.get("actual")),
        "fix": line(given.get("fix")),
        "waiver": {
            **{key: line(waiver.get(key)) for key in ("owner", "reason", "expires")},
            "expired": bool(waiver.get("expired")),
        }
        if isinstance(waiver, Mapping)
        else None,
    }


def build(
    rows: Iterable[dict[str, Any]],
    threshold: Threshold,
    now: float,
    notes: Iterable[str] = (),
    earlier: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The report. `earlier` are the summaries of former ones, oldest first."""
    hosts = sorted(rows, key=lambda row: (HOST_STATUSES.index(row["status"]), row["host"]))
    bad = [row for row in hosts if is_bad(row, threshold)]
    summary = {
        "generated_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "generated": int(now),
        "hosts": len(hosts),
        **{status: sum(1 for row in hosts if row["status"] == status) for status in HOST_STATUSES},
        "controls": {status: sum(row["summary"][status] for row in hosts) for status in STATUSES},
        "threshold": threshold._asdict(),
        "bad_hosts": len(bad),
        "passed": not hosts or 100 * len(bad) / len(hosts) <= threshold.percent,
    }
    return {
        "schema": SCHEMA,
        "summary": summary,
        "notes": [line(note) for note in notes],
        "controls": _per_control(hosts),
        "hosts": hosts,
        "bad": [row["host"] for row in bad],
        "trend": [*earlier, summary],
    }


def is_bad(row: Mapping[str, Any], threshold: Threshold) -> bool:
    """Whether this host counts against the threshold."""
    if row["status"] in (UNREACHABLE, FAILED):
        return True
    return any(threshold.counts(one) for one in row["controls"])


def _per_control(hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts = {name: dict.fromkeys(STATUSES, 0) for name in CONTROLS}
    bad: dict[str, list[str]] = {name: [] for name in CONTROLS}
    for row in hosts:
        for one in row["controls"]:
            counts[one["id"]][one["status"]] += 1
            if one["status"] in BAD:
                bad[one["id"]].append(row["host"])
    return [
        {
            "id": control.id,
            "title": control.title,
            "severity": control.severity,
            "owner": control.owner,
            "counts": counts[control.id],
            "bad_hosts": bad[control.id],
        }
        for control in CONTROLS.values()
        if any(counts[control.id].values())
    ]


def verdict_line(report: Mapping[str, Any], limit: int = 5) -> str:
    """The verdict in one line, with the first of the hosts that are to blame."""
    summary, threshold = report["summary"], report["summary"]["threshold"]
    total, bad = summary["hosts"], summary["bad_hosts"]
    share = 100 * bad / total if total else 0.0
    severity = threshold["severity"]
    what = f"a control failed or unknown (severity {severity} or worse), or " if severity else ""
    text = f"{bad} of {total} hosts ({share:.1f} %) have {what}no result"
    if not severity:
        text = f"{bad} of {total} hosts ({share:.1f} %) have no result"
    if summary["passed"]:
        return f"{text}; up to {threshold['percent']:g} % may"
    names = set(report["bad"][:limit])
    blamed = [_blame(row) for row in report["hosts"] if row["host"] in names][:limit]
    more = f" and {bad - limit} more" if bad > limit else ""
    return f"{text}, needed: at most {threshold['percent']:g} %: {'; '.join(blamed)}{more}"


def _blame(row: Mapping[str, Any]) -> str:
    if row["status"] in (UNREACHABLE, FAILED):
        return f"{row['host']} ({row['status']})"
    ids = [one["id"] for one in row["controls"] if one["status"] in BAD]
    return f"{row['host']} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"
