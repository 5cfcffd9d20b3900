# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as a table, in Markdown."""

from __future__ import annotations

from benchmarks.comparisons import Row

HEADER = ("guest", "what", "against", "ratio", "spread", "ours", "peer's", "aim")


def amount(value: float, unit: str) -> str:
    """A number that a person can read."""
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if unit == "s" else f"{value:.0f} {unit}"


def cells(row: Row) -> tuple[str, ...]:
    """One line's columns."""
    unit = row.comparison.unit
    return (
        row.guest,
        row.comparison.title,
        row.comparison.peer_title,
        f"{row.ratio:.3g}",
        f"{row.lowest:.2g} to {row.highest:.2g}",
        amount(row.ours, unit),
        amount(row.peer, unit),
        row.comparison.aim,
    )


def table(rows: list[Row]) -> str:
    """All rows, columns aligned."""
    lines = [HEADER, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def heading(conditions: dict[str, object]) -> str:
    """Where and when, for above the table."""
    host, guests = conditions["host"], conditions["guests"]
    assert isinstance(host, dict)  # noqa: S101
    assert isinstance(guests, dict)  # noqa: S101
    about = [
        f"{name}: kernel {guest['kernel']}, {guest['accelerator']}, {guest['memory_mb']} MB"
        for name, guest in guests.items()
    ]
    return (
        f"{host['date']}, {host['cpu']}, {host['cpus']} CPUs, load average at the start "
        f"{host['load_average'][0]}; guests: {'; '.join(about)}.\n"
    )
