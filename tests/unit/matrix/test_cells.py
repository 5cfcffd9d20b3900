# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host said becomes a green cell, or a red one with the reason."""

from __future__ import annotations

import contextlib
import io

import pytest

from lab.catalogue import HOSTS
from tests.integration.nat.report import Report
from tests.matrix import cells
from tests.matrix.cells import COLUMNS, Cell, Result
from tests.matrix.rows import ROWS, Refused, Row, Tracked

WANTED = Tracked("core/kprobe", "held")
TRACKED = Row("old", "debian12-k510", WANTED)
REFUSED = Row("locked", "debian12", Refused("kernel lockdown is confidentiality"))
STATUS = {
    "record": {"tier": "core/kprobe", "lifecycle": "held", "btf_result": "default"},
    "healthy": True,
    "load_results": [{"result": "default", "count": 1}],
}


def test_every_row_names_a_host_of_the_lab_and_itself() -> None:
    for name, row in ROWS.items():
        assert row.name == name
        assert row.host in HOSTS


def test_a_host_that_is_as_wanted_is_green() -> None:
    found = cells.of_status(WANTED, STATUS, {"tier": "core/kprobe"})
    assert all(cell.good for cell in found.values())
    assert set(found) < set(COLUMNS)


@pytest.mark.parametrize(
    ("column", "status", "verdict"),
    [
        ("tier", {"record": {**STATUS["record"], "tier": "core/fexit"}}, {}),  # type: ignore[dict-item]
        ("lifecycle", {"record": {**STATUS["record"], "lifecycle": "pinned"}}, {}),  # type: ignore[dict-item]
        ("BTF", {"record": {**STATUS["record"], "btf_result": "custom"}}, {}),  # type: ignore[dict-item]
        ("load", {"load_results": [{"result": "verifier", "count": 1}]}, {}),
        ("load", {"healthy": False, "drift": ["pin x is missing"]}, {}),
        ("verdict", {}, {"tier": "core/fentry"}),
    ],
)
def test_anything_else_makes_its_own_column_red(
    column: str, status: dict[str, object], verdict: dict[str, object]
) -> None:
    found = cells.of_status(WANTED, {**STATUS, **status}, {"tier": "core/kprobe", **verdict})
    assert [name for name, cell in found.items() if not cell.good] == [column]


def test_a_refusal_has_to_say_why() -> None:
    folded = "fatal: ...\n    msg: 'kernel lockdown is\n      confidentiality, which'"
    assert cells.of_refusal(REFUSED, 2, folded)["verdict"].good
    assert not cells.of_refusal(REFUSED, 2, "something else")["verdict"].good
    assert not cells.of_refusal(REFUSED, 0, folded)["verdict"].good


RECAP = "old : ok=14 changed={} unreachable=0 failed=0"


def test_a_second_run_changes_nothing() -> None:
    assert cells.of_second_run(0, RECAP.format(0)).good
    assert cells.of_second_run(0, RECAP.format(1)) == Cell(False, "changed=1")
    assert not cells.of_second_run(2, RECAP.format(0)).good
    assert not cells.of_second_run(0, "").good


def nat_report(*comparisons: tuple[int, int, int]) -> str:
    """What `python3 -m nat` prints: flows, missing and extra ones of each comparison."""
    report = Report()
    report.add("traffic", True, {"seconds": 0.7})
    for flows, missing, extra in comparisons:
        report.nothing("missing in the dump", ["a flow"] * missing)
        report.nothing("extra in the dump", ["a flow"] * extra)
        report.add("at least 20 flows compared", flows >= 20, {"flows": flows})
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        report.finish()
    return said.getvalue()


def test_the_oracle_has_to_have_looked_at_flows() -> None:
    good = cells.of_oracle(0, nat_report((31, 0, 0), (240, 0, 0)))
    assert good == Cell(True, "240 flows, 0 missing, 0 extra")
    assert not cells.of_oracle(0, "").good
    assert not cells.of_oracle(0, nat_report()).good
    assert cells.of_oracle(1, "a\nno such command\n") == Cell(False, "no such command")
    assert not cells.of_oracle(1, nat_report((240, 0, 0))).good


def test_other_checks_are_counted_or_named() -> None:
    report = Report()
    report.add("one", True)
    report.nothing("two", [])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        report.finish()
        report.nothing("live but not in conntrack", ["a flow"] * 3)
    assert cells.of_checks(0, said.getvalue()) == Cell(True, "2 checks")
    assert not cells.of_checks(1, said.getvalue()).good
    with contextlib.redirect_stdout(said := io.StringIO()):
        report.finish()
    assert cells.of_checks(1, said.getvalue()) == Cell(False, "live but not in conntrack: 3")
    assert cells.of_checks(1, "no such command") == Cell(False, "no such command")


def test_what_the_oracle_misses_is_counted() -> None:
    bad = cells.of_oracle(1, nat_report((31, 0, 2), (240, 3, 0)))
    assert bad.good is False
    assert bad.text.startswith("240 flows, 3 missing, 2 extra; extra in the dump")


def test_what_is_left_on_a_host_is_named() -> None:
    assert cells.of_traces(0, "9 things").good
    assert cells.of_traces(1, "files: new: /x\nmore") == Cell(False, "files: new: /x")


def a_result(**changed: object) -> Result:
    values = {
        "name": "old",
        "inputs": "0f",
        "kernel": "5.10.0",
        "seconds": 9,
        "cells": {"tier": Cell(True, "core/kprobe")},
        **changed,
    }
    return Result(**values)  # type: ignore[arg-type]


def test_a_result_survives_its_file() -> None:
    assert Result.from_json(a_result().to_json()) == a_result()


def test_the_table_has_a_line_for_each_row_also_for_those_that_did_not_run() -> None:
    red = a_result(cells={"tier": Cell(False, "none")}, trouble="it ended | badly")
    text = cells.table({"old": TRACKED, "locked": REFUSED}, {"old": red})
    head, _rule, first, second = text.splitlines()
    assert head.count("|") == first.count("|") - first.count("\\|") == second.count("|")
    assert "**✗** none" in first
    assert first.endswith("| red: it ended \\| badly |")
    assert second.endswith("| not run |")


CONTROLS = {
    "kernel.tier": {"status": "pass", "actual": "core/fentry"},
    "tracker.attached": {"status": "pass", "actual": "two programs"},
    "host.clock": {"status": "fail", "actual": "off"},
}


def test_compliance_has_to_name_the_tier_and_to_find_kernel_and_tracker_well() -> None:
    assert cells.of_compliance(CONTROLS, "core/fentry") == Cell(True, "core/fentry")
    other = cells.of_compliance(CONTROLS, "core/kprobe")
    assert other == Cell(False, "kernel.tier: core/fentry, wanted: core/kprobe")
    broken = {**CONTROLS, "tracker.attached": {"status": "fail", "actual": "none runs"}}
    assert cells.of_compliance(broken, "core/fentry") == Cell(False, "tracker.attached: none runs")


def test_a_row_with_another_kernel_says_what_it_gets_there() -> None:
    for row in ROWS.values():
        assert bool(row.new_kernel) == (row.then is not None)
        assert not row.new_kernel or row.new_kernel in HOSTS
