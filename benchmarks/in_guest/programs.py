# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tracker's programs cost per flow, as the kernel counts it (kernel.bpf_stats_enabled)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.in_guest import tracker, translated_flows
from benchmarks.in_guest.counting import Figures

# The fewest that a spec can ask for
CLOSED = 1024
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


def totals(numbers: list[int]) -> tuple[int, int]:
    """Return the run time in ns and the number of runs, of these programs together."""
    found = [each for each in tracker.all_programs() if each["id"] in numbers]
    return (
        sum(each.get("run_time_ns", 0) for each in found),
        sum(each.get("run_cnt", 0) for each in found),
    )


def per_flow(numbers: list[int], flows: int, action: Callable[[], object]) -> float:
    """Return the ns that the programs run per flow, while one thing happens to each flow."""
    before, runs_before = totals(numbers)
    STATISTICS.write_text("1")
    action()
    STATISTICS.write_text("0")
    after, runs = totals(numbers)
    if runs - runs_before < flows:
        raise RuntimeError(f"the programs ran {runs - runs_before} times, needed: {flows}")
    return (after - before) / flows


def insert_and_delete(numbers: list[int], flows: int, is_translated: bool) -> tuple[float, float]:
    """Return the ns of the programs per flow: of its insertion and of its end."""
    translated_flows.flush()
    insert = per_flow(numbers, flows, lambda: translated_flows.fill(flows, is_translated))
    entries, needed = tracker.live_entries(), 2 * flows * is_translated
    if entries < needed:
        raise RuntimeError(f"the map has {entries} entries, needed: {needed}")
    return insert, per_flow(numbers, flows, translated_flows.flush)


def measure(flows: int) -> Figures:
    """Return ns per flow, by tier: its insertion and its end, translated and not.

    And its end after as many closed flows as are kept, as it is on a host for long.
    """
    found: Figures = {}
    translated_flows.flush()
    for tier, name in ((tracker.KPROBE, "kprobe"), (tracker.FENTRY, "fentry")):
        # A delete's cost depends on how full the map of closed flows is
        tracker.unload()
        tracker.load(tier)
        numbers = tracker.programs()
        translated_flows.only(flows // 10)  # to warm up
        for kind, is_translated in (("", True), (" of an untranslated flow", False)):
            insert, delete = insert_and_delete(numbers, flows, is_translated)
            found[f"insert{kind}, {name}"] = insert
            found[f"delete{kind}, {name}"] = delete
        tracker.load(tier, closed_entries=CLOSED)
        numbers = tracker.programs()
        translated_flows.only(CLOSED)
        found[f"delete after many, {name}"] = insert_and_delete(numbers, flows, True)[1]
    return found
