# SPDX-License-Identifier: GPL-3.0-or-later
"""Series become rows: medians, ratios by round, and nothing for what was not measured."""

from __future__ import annotations

from benchmarks import comparisons, report
from benchmarks.comparisons import Comparison, compare

ROW = Comparison("dump", "dump", "ours", "peer", "the peer", aim="less than 1")


def test_a_ratio_is_of_the_same_round() -> None:
    row = compare("guest", ROW, {"ours": [1.0, 20.0, 3.0], "peer": [2.0, 40.0, 3.0]})
    assert row is not None
    assert (row.ratio, row.lowest, row.highest) == (0.5, 0.5, 1.0)
    assert (row.ours, row.peer) == (3.0, 3.0)


def test_what_was_not_measured_has_no_row() -> None:
    assert compare("guest", ROW, {"ours": [1.0]}) is None
    assert comparisons.rows({"guest": {}}) == []


def test_a_line_says_what_ratio_and_spread() -> None:
    row = compare("guest", ROW, {"ours": [0.002, 0.004], "peer": [0.004, 0.004]})
    assert row is not None
    assert report.cells(row) == (
        *("guest", "dump", "the peer", "0.75"),
        *("0.5 to 1", "3 ms", "4 ms", "less than 1"),
    )
    lines = report.table([row]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 3


def test_no_two_comparisons_are_the_same() -> None:
    keys = [(one.measurement, one.ours, one.peer) for one in comparisons.COMPARISONS]
    assert len(set(keys)) == len(keys)
