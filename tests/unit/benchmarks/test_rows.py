# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures become rows: means, ratios, how far runs lie apart; what was not measured has none."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks import report, rows
from benchmarks.rows import Comparison, compare

ROW = Comparison("dump", "dump", "ours", "peer", "the peer", aim="less than 1")


def run(**figures: float) -> rows.Run:
    return {"dump": figures}


def test_figures_are_the_means_of_the_runs() -> None:
    row = compare(ROW, [run(ours=99, peer=200), run(ours=101, peer=200)])
    assert row is not None
    assert (row.ours, row.peer, row.ratio) == (100, 200, 0.5)
    assert row.apart == pytest.approx(0.02)


def test_runs_lie_apart_as_far_as_the_side_that_does_more() -> None:
    row = compare(ROW, [run(ours=100, peer=90), run(ours=100, peer=110)])
    assert row is not None
    assert row.apart == pytest.approx(0.2)


def test_what_happens_anyway_is_subtracted() -> None:
    row = compare(
        Comparison("dump", "dump", "ours", "peer", "the peer", "nobody", "nothing"),
        [run(ours=120, peer=300, nobody=100, nothing=100)],
    )
    assert row is not None
    assert (row.ours, row.peer, row.ratio) == (20, 200, 0.1)
    alone = compare(
        Comparison("dump", "dump", "ours", "peer", "the peer", "nobody"),
        [run(ours=120, peer=300, nobody=100)],
    )
    assert alone is not None
    assert (alone.ours, alone.peer) == (20, 300)


def test_what_was_not_measured_has_no_row() -> None:
    assert compare(ROW, [{}]) is None
    assert rows.rows([{}]) == []


def test_a_line_says_instructions_ratio_and_how_far_runs_lie_apart() -> None:
    row = compare(ROW, [run(ours=1_500_000, peer=3_000_000)])
    assert row is not None
    expected = ("dump", "1.5 M", "the peer", "3.0 M", "0.5", "0.0%", "less than 1")
    assert report.cells(row) == expected
    alone = compare(Comparison("dump", "dump", "ours"), [run(ours=2145)])
    assert alone is not None
    assert report.cells(alone) == ("dump", "2,145", "", "", "", "0.0%", "")
    lines = report.table([row, alone]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 4


def test_no_two_comparisons_are_the_same() -> None:
    keys = [(one.measurement, one.ours, one.peer, one.floor) for one in rows.COMPARISONS]
    assert len(set(keys)) == len(keys)


def test_every_measurement_has_a_row_and_a_smallest_size() -> None:
    measured = {one.measurement for one in rows.COMPARISONS}
    assert measured == set(command.FULL) == set(command.SMALLEST)
    for name, options in command.FULL.items():
        assert command.SMALLEST[name].keys() == options.keys()
