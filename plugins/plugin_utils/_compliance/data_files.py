# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as files for programs: JSON, CSV and JUnit XML."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Iterator, Mapping
from xml.etree import ElementTree

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import (
    FAIL,
    NOT_APPLICABLE,
    PASS,
    UNKNOWN,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance.report import (
    FAILED,
    UNREACHABLE,
)

CSV_COLUMNS = (
    *("host", "host_status", "control", "title", "severity", "owner", "status", "expected"),
    *("actual", "fix", "waiver_owner", "waiver_reason", "waiver_expires"),
)
# What a spreadsheet takes for the start of a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def as_json(report: Mapping[str, Any]) -> str:
    """One object. Its first line has the summary, so that later runs need not read all of it."""
    head = json.dumps({"schema": report["schema"], "summary": report["summary"]})
    rest = {key: report[key] for key in ("notes", "controls", "bad")}
    hosts = ",\n".join(json.dumps(row) for row in report["hosts"])
    return f'{head[:-1]},\n{json.dumps(rest)[1:-1]},\n"hosts": [\n{hosts}\n]}}\n'


def summary_of_json(first_line: str) -> dict[str, Any]:
    """The summary in a report's first line; raises ValueError if it is none."""
    data = json.loads(first_line.rstrip().rstrip(",") + "}")
    if not isinstance(data, dict) or not isinstance(data.get("summary"), dict):
        raise ValueError("no summary")
    summary: dict[str, Any] = data["summary"]
    return summary


def as_csv(report: Mapping[str, Any]) -> str:
    """A line for each control of each host, and one for each host that gave no result."""
    titles = {one["id"]: one["title"] for one in report["controls"]}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in report["hosts"]:
        writer.writerows([harmless(cell) for cell in cells] for cells in _csv_rows(row, titles))
    return stream.getvalue()


def _csv_rows(row: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[list[str]]:
    start = [row["host"], row["status"]]
    if not row["controls"]:
        yield [*start, "", "", "", "", row["status"], "", row["message"], "", "", "", ""]
    for one in row["controls"]:
        waiver = one["waiver"] or {}
        yield [
            *start,
            *(one["id"], titles[one["id"]], one["severity"], one["owner"]),
            *(one["status"], one["expected"], one["actual"], one["fix"]),
            *(waiver.get(key, "") for key in ("owner", "reason", "expires")),
        ]


def harmless(cell: str) -> str:
    """The cell as text for a spreadsheet, which would work out what looks like a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def as_junit(report: Mapping[str, Any]) -> str:
    """A test suite a host, a test a control."""
    summary = report["summary"]
    root = ElementTree.Element(
        "testsuites",
        name="btfleet compliance",
        tests=str(sum(max(len(row["controls"]), 1) for row in report["hosts"])),
        failures=str(summary["controls"][FAIL]),
        errors=str(summary["controls"][UNKNOWN] + summary[UNREACHABLE] + summary[FAILED]),
        timestamp=summary["generated_at"],
    )
    for row in report["hosts"]:
        _suite(root, row, report)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(root: ElementTree.Element, row: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    counts = row["summary"]
    lost = 0 if row["controls"] else 1
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=row["host"],
        tests=str(max(len(row["controls"]), 1)),
        failures=str(counts[FAIL]),
        errors=str(counts[UNKNOWN] + lost),
        skipped=str(counts["waived"] + counts[NOT_APPLICABLE]),
        time=str(row["seconds"] or 0),
        timestamp=report["summary"]["generated_at"].rstrip("Z"),
    )
    if lost:
        case = ElementTree.SubElement(suite, "testcase", classname=row["host"], name="result")
        ElementTree.SubElement(case, "error", type=row["status"], message=row["message"])
    for one in row["controls"]:
        case = ElementTree.SubElement(suite, "testcase", classname=row["host"], name=one["id"])
        if one["status"] == PASS:
            continue
        tag = {FAIL: "failure", UNKNOWN: "error"}.get(one["status"], "skipped")
        message = f"expected: {one['expected']}; found: {one['actual']}"
        if one["waiver"]:
            waiver = one["waiver"]
            message += f"; waiver until {waiver['expires']} ({waiver['owner']}: {waiver['reason']})"
        part = ElementTree.SubElement(case, tag, message=message)
        if tag != "skipped":
            part.set("type", one["severity"])
            part.text = one["fix"]
