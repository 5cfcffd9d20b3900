# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as a table, in Markdown."""

from __future__ import annotations

from benchmarks.rows import Row

HEADER = ("what", "instructions", "against", "its instructions", "ratio", "runs apart", "aim")


def amount(value: float | None) -> str:
    """A number of instructions that a person can read."""
    if value is None:
        return ""
    return f"{value / 1e6:,.1f} M" if abs(value) >= 1e6 else f"{value:,.0f}"


def cells(row: Row) -> tuple[str, ...]:
    """One line's columns."""
    return (
        row.comparison.title,
        amount(row.ours),
        row.comparison.peer_title,
        amount(row.peer),
        "" if row.ratio is None else f"{row.ratio:.3g}",
        f"{row.apart:.1%}",
        row.comparison.aim,
    )


def table(rows: list[Row]) -> str:
    """All rows, columns aligned."""
    lines = [HEADER, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"
