# SPDX-License-Identifier: GPL-3.0-or-later
"""The table's rows: what is compared with what. A ratio is ours divided by the peer's."""

from __future__ import annotations

from dataclasses import dataclass

# Figures by measurement and name, in instructions: those of one run
Run = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Comparison:
    """One row; `ours`, `peer` and `floor` are names of figures of one measurement.

    What happens without them, `floor` and `peer_floor`, is subtracted.
    """

    measurement: str
    title: str
    ours: str
    peer: str = ""
    peer_title: str = ""
    floor: str = ""
    peer_floor: str = ""
    aim: str = ""


@dataclass(frozen=True)
class Row:
    """A comparison's figures, each the mean of the runs.

    `apart` is how far the runs lie apart, as a share of the mean: the larger of both sides'.
    """

    comparison: Comparison
    ours: float
    peer: float | None
    apart: float

    @property
    def ratio(self) -> float | None:
        """Ours per the peer's."""
        return None if self.peer is None else self.ours / self.peer


FEATURES = "bpftool feature probe kernel"
LOADALL = "bpftool prog loadall"
PYTHON = "python3 -IS -c pass"
FLOWS = "20,000 flows"

COMPARISONS = (
    *(
        Comparison("programs", f"{title}, {tier}", f"{what}, {tier}", aim=aim)
        for what, title, aim in (
            ("insert", "insert, translated flow", "1,850 or less"),
            ("delete", "delete, translated flow", "2,900 or less"),
            ("delete after many", "delete, closed flows at their limit", ""),
            ("insert of an untranslated flow", "insert, untranslated flow", ""),
            ("delete of an untranslated flow", "delete, untranslated flow", ""),
        )
        for tier in ("kprobe", "fentry")
    ),
    *(
        Comparison(
            "flows",
            f"{title}, what {tier} adds",
            f"{what}, {tier}",
            f"{what}, conntrack -E",
            "what conntrack -E adds",
            f"{what}, nobody",
            f"{what}, nobody",
        )
        for what, title in (("new", "a new UDP flow"), ("end", "its end"))
        for tier in ("kprobe", "fentry")
    ),
    *(
        Comparison("flows", f"{title}, nobody watching", f"{what}, nobody")
        for what, title in (("new", "a new UDP flow"), ("end", "its end"))
    ),
    Comparison(
        "dump", f"dump of {FLOWS}", "dump", "conntrack -L", "conntrack -L", aim="0.7 or less"
    ),
    Comparison("lookup", "look-up", "lookup", "python", PYTHON, aim="2.2 or less"),
    Comparison("lookup", "look-up", "lookup", "conntrack -G", "conntrack -G"),
    Comparison(
        "lookup", "status, empty table", "status, empty", "python", PYTHON, aim="2.2 or less"
    ),
    Comparison("lookup", f"status, {FLOWS}", "status", "python", PYTHON),
    Comparison("lookup", "btfleet --version", "version", "python", PYTHON),
    Comparison("support", "btfleet check --json", "check", "bpftool", FEATURES),
    Comparison("load", "load, empty table", "load", "bpftool", LOADALL),
    Comparison("load", "swap, empty table", "swap", "bpftool", LOADALL),
    Comparison(
        "load",
        "what 10,000 flows add to a load",
        "load, with flows",
        "conntrack -L, with flows",
        "conntrack -L",
        floor="load",
    ),
    Comparison("load", "swap with 10,000 flows", "swap, with flows", "swap", "swap, empty table"),
)


def difference(figures: dict[str, float], name: str, floor: str) -> float:
    """A figure, less the floor's if there is one."""
    return figures[name] - (figures[floor] if floor else 0)


def apart(figures: list[float]) -> float:
    """How far figures lie apart, as a share of their mean."""
    return (max(figures) - min(figures)) * len(figures) / sum(figures)


def compare(comparison: Comparison, runs: list[Run]) -> Row | None:
    """Return a row, None if the measurement was not made."""
    if any(comparison.measurement not in run for run in runs):
        return None
    measured = [run[comparison.measurement] for run in runs]
    ours = [difference(figures, comparison.ours, comparison.floor) for figures in measured]
    mean = sum(ours) / len(ours)
    if not comparison.peer:
        return Row(comparison, mean, None, apart(ours))
    peer = [difference(figures, comparison.peer, comparison.peer_floor) for figures in measured]
    return Row(comparison, mean, sum(peer) / len(peer), max(apart(ours), apart(peer)))


def rows(runs: list[Run]) -> list[Row]:
    """Return all rows of some runs."""
    found = (compare(comparison, runs) for comparison in COMPARISONS)
    return [row for row in found if row]
