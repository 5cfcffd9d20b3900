# SPDX-License-Identifier: GPL-3.0-or-later
"""What is judged on a host, from what was said there. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tests.matrix.rows import Refused, Row, Tracked

# Columns of the table, in their order
COLUMNS = (
    "verdict",
    "tier",
    "lifecycle",
    "BTF",
    "load",
    "oracle",
    "stress",
    "successors",
    "idempotent",
    "repair",
    "cycles",
    "reboot",
    "new kernel",
    "uninstall",
)


@dataclass(frozen=True)
class Cell:
    """One answer. `good` is None where the column does not apply."""

    good: bool | None
    text: str

    @property
    def mark(self) -> str:
        """As it stands in the table."""
        if self.good is None:
            return self.text or "-"
        return self.text if self.good else f"**✗** {self.text}"


NOT_ASKED = Cell(None, "-")


@dataclass(frozen=True)
class Result:
    """A row's end: its cells, and what went wrong (None if nothing did)."""

    name: str
    inputs: str
    kernel: str
    seconds: int
    cells: Mapping[str, Cell]
    trouble: str | None = None

    @property
    def green(self) -> bool:
        """All that was judged is as it should be."""
        return self.trouble is None and all(cell.good is not False for cell in self.cells.values())

    def to_json(self) -> str:
        """A file's text; `from_json` reads it."""
        return json.dumps({**asdict(self), "green": self.green}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The result that was written."""
        data = json.loads(text)
        data.pop("green")
        return cls(**{**data, "cells": {name: Cell(**one) for name, one in data["cells"].items()}})


def equal(found: object, wanted: object) -> Cell:
    """Found, and wanted where that is another thing."""
    good = found == wanted
    return Cell(good, str(found) if good else f"{found}, wanted: {wanted}")


def of_status(
    wanted: Tracked, status: Mapping[str, Any], verdict: Mapping[str, Any]
) -> dict[str, Cell]:
    """What `btfleet status --json` and `btfleet check --json` make of a host that tracks."""
    record = status.get("record") or {}
    loads = {one["result"]: one["count"] for one in status.get("load_results", ())}
    failed = {name: count for name, count in loads.items() if name not in GOOD_LOADS}
    return {
        "verdict": equal(verdict.get("tier"), wanted.tier)
        if verdict.get("tier") != wanted.tier
        else Cell(True, "supported"),
        "tier": equal(record.get("tier"), wanted.tier),
        "lifecycle": equal(record.get("lifecycle"), wanted.lifecycle),
        "BTF": equal(record.get("btf_result"), wanted.btf),
        "load": Cell(not failed and bool(loads), ", ".join(loads) or "nothing was counted")
        if status.get("healthy")
        else Cell(False, "; ".join(status.get("drift", ())) or "nothing is loaded"),
    }


GOOD_LOADS = ("default", "custom", "embedded", "runtime", "netlink")


def of_refusal(row: Row, status: int, output: str) -> dict[str, Cell]:
    """A rollout that has to fail with the reason."""
    if not isinstance(row.gets, Refused):
        raise TypeError(f"{row.name} is not refused")
    if status == 0:
        return {"verdict": Cell(False, f"rolled out, wanted: refused ({row.gets.reason})")}
    # The text is folded where it stands in a block of YAML
    flat = " ".join(output.split())
    found = re.search(row.gets.reason, flat)
    if not found:
        return {"verdict": Cell(False, f"failed without: {row.gets.reason}")}
    return {"verdict": Cell(True, f"refused: {found.group()}")}


def of_compliance(controls: Mapping[str, Mapping[str, Any]], tier: str) -> Cell:
    """What `compliance_info` says of a host after it has got another kernel."""
    failed = [
        f"{name}: {one['actual']}"
        for name, one in controls.items()
        if name.startswith(("kernel.", "tracker.")) and one["status"] == "fail"
    ]
    named = str(controls.get("kernel.tier", {}).get("actual", ""))
    if not failed and named != tier:
        failed = [f"kernel.tier: {named}, wanted: {tier}"]
    return Cell(not failed, "; ".join(failed) or tier)


_RECAP = re.compile(r"ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def of_second_run(status: int, output: str) -> Cell:
    """A second rollout has to change nothing."""
    found = _RECAP.findall(output)
    if status != 0 or len(found) != 1:
        return Cell(False, f"the second run ended with {status}")
    return Cell(True, "yes") if found[0][0] == "0" else Cell(False, f"changed={found[0][0]}")


def of_oracle(status: int, output: str) -> Cell:
    """The maps against `conntrack -L`: of several comparisons, the flows of the largest, and what
    any of them misses or has too much.
    """
    checks = _checks(output)
    if isinstance(checks, Cell):
        return checks
    named = [(one["name"].split(" in the dump")[0], one["detail"]) for one in checks]
    missing = [detail for name, detail in named if name == "missing"]
    extra = [detail for name, detail in named if name == "extra"]
    details = [detail for _name, detail in named if isinstance(detail, dict)]
    flows = [detail["flows"] for detail in details if "flows" in detail]
    if not missing or not extra or not flows:
        return Cell(False, "no flows were compared")
    text = f"{max(flows)} flows, {sum(missing)} missing, {sum(extra)} extra"
    failed = [one["name"] for one in checks if not one["ok"]]
    return Cell(status == 0 and not failed, "; ".join([text, *failed])[:120])


def _checks(output: str) -> list[dict[str, Any]] | Cell:
    """What `python3 -m nat` has looked at, or a bad cell where it has not got that far."""
    start, end = output.find("{\n"), output.rfind("}")
    if start < 0 or end < start:
        last = (output.strip().splitlines() or ["no output"])[-1]
        return Cell(False, last[:120])
    checks: list[dict[str, Any]] = json.loads(output[start : end + 1])["checks"]
    return checks


def of_checks(status: int, output: str) -> Cell:
    """Another command of `python3 -m nat`: how many checks held, or those that did not."""
    checks = _checks(output)
    if isinstance(checks, Cell):
        return checks
    failed = [f"{one['name']}: {one['detail']}" for one in checks if not one["ok"]]
    good = status == 0 and bool(checks) and not failed
    return Cell(good, ("; ".join(failed) or f"{len(checks)} checks")[:120])


def of_cycles(status: int, output: str) -> Cell:
    """Loads and unloads under traffic; a line of JSON for each tier."""
    lines = output.strip().splitlines()
    if status != 0 or not lines:
        return Cell(False, (lines or ["no output"])[-1][:120])
    done = [json.loads(line) for line in lines]
    return Cell(True, ", ".join(f"{one['cycles']} with {one['flows']} flows" for one in done))


def of_traces(status: int, output: str) -> Cell:
    """The host before and after."""
    if status == 0:
        return Cell(True, "clean")
    first = (output.strip().splitlines() or ["no output"])[0]
    return Cell(False, first[:120])


def table(rows: Mapping[str, Row], results: Mapping[str, Result]) -> str:
    """Markdown: a line for each row, those that did not run yet too."""
    lines = [
        f"| row | kernel | {' | '.join(COLUMNS)} | |",
        f"|---|---|{'---|' * len(COLUMNS)}---|",
    ]
    for name, row in rows.items():
        result = results.get(name)
        shown = f"{name} (CI)" if row.ci else name
        if result is None:
            lines.append(f"| {shown} | |{' |' * len(COLUMNS)} not run |")
            continue
        cells = [result.cells.get(column, NOT_ASKED).mark for column in COLUMNS]
        state = "green" if result.green else f"red{': ' if result.trouble else ''}"
        text = f"{state}{result.trouble or ''}".replace("|", "\\|")
        lines.append(f"| {shown} | {result.kernel} | {' | '.join(cells)} | {text} |")
    return "\n".join(lines) + "\n"
