# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared with what. A ratio is ours divided by the peer's: below 1, we take less."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

from benchmarks.guest import Series


@dataclass(frozen=True)
class Comparison:
    """One row; `ours` and `peer` are names of series of one measurement."""

    measurement: str
    title: str
    ours: str
    peer: str
    peer_title: str
    unit: str = "s"
    aim: str = ""


@dataclass(frozen=True)
class Row:
    """A comparison's result on one guest: medians, and the ratio's median and spread by round."""

    guest: str
    comparison: Comparison
    ours: float
    peer: float
    ratio: float
    lowest: float
    highest: float

    def to_dict(self) -> dict[str, object]:
        """Plain data, as in JSON."""
        return asdict(self)


ROLLOUT = "ping module, as many runs"
BPFTOOL = "bpftool feature probe kernel"
LOADALL = "bpftool prog loadall"
NOBODY = "no tracker"
FLOOR = "python3 -IS -c pass"

COMPARISONS = (
    Comparison("support", "btfleet check --json", "check command", "bpftool", BPFTOOL),
    Comparison("support", "the check inside of a process", "check call", "bpftool", BPFTOOL),
    Comparison(
        "dump", "dump to /dev/null", "dump", "conntrack -L", "conntrack -L", aim="0.33 or less"
    ),
    Comparison(
        "dump",
        "dump to a file",
        "dump to file",
        "conntrack -L to file",
        "conntrack -L",
        aim="0.33 or less",
    ),
    Comparison(
        "dump", "dump of the large table", "dump of many", "conntrack -L of many", "conntrack -L"
    ),
    Comparison(
        "dump",
        "peak memory, large table",
        "memory of many",
        "memory",
        "peak memory, small table",
        unit="kB",
        aim="bounded",
    ),
    Comparison(
        "dump", "start of the command (--version)", "btfleet --version", "python3 -IS", FLOOR
    ),
    Comparison("lookup", "look-up as a command", "lookup command", "conntrack -G", "conntrack -G"),
    Comparison("lookup", "look-up as a command", "lookup command", "python3 -IS", FLOOR),
    Comparison("lookup", "look-up in a process", "lookup call", "conntrack -G", "conntrack -G"),
    Comparison(
        "program_time", "insert, fentry", "insert core/fentry", "insert core/kprobe", "kprobe", "ns"
    ),
    Comparison(
        "program_time", "delete, fentry", "delete core/fentry", "delete core/kprobe", "kprobe", "ns"
    ),
    *(
        Comparison("connections", f"{title}, {name}", f"{what}, {name}", f"{what}, nobody", NOBODY)
        for what, title in (
            ("udp", "new UDP flows"),
            ("tcp", "TCP connections"),
            ("flush", "conntrack -F"),
        )
        for name in ("kprobe", "fentry", "conntrack -E")
    ),
    Comparison("load", "load, empty table", "load", "bpftool prog loadall", LOADALL),
    Comparison("load", "swap, empty table", "swap", "bpftool prog loadall", LOADALL),
    Comparison(
        "load",
        "load with take-in",
        "load, full table",
        "conntrack -L, full table",
        "conntrack -L",
    ),
    Comparison("load", "load with take-in", "load, full table", "load", "load, empty table"),
    Comparison("load", "swap, full table", "swap, full table", "swap", "swap, empty table"),
    Comparison(
        "rollout", "rollout without a change", "rollout", "pings", ROLLOUT, aim="less than 2"
    ),
)


def compare(guest: str, comparison: Comparison, series: Series) -> Row | None:
    """A row; None if the measurement was made without it."""
    if comparison.ours not in series or comparison.peer not in series:
        return None
    ours, peer = series[comparison.ours], series[comparison.peer]
    ratios = [mine / theirs for mine, theirs in zip(ours, peer)]
    return Row(
        guest,
        comparison,
        statistics.median(ours),
        statistics.median(peer),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def rows(results: dict[str, dict[str, Series]]) -> list[Row]:
    """All rows of series by guest and measurement."""
    found = [
        compare(guest, comparison, measurements[comparison.measurement])
        for comparison in COMPARISONS
        for guest, measurements in results.items()
        if comparison.measurement in measurements
    ]
    return [row for row in found if row]
