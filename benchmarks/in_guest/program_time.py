# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel itself measures a program run to take (kernel.bpf_stats_enabled), by tier."""

from __future__ import annotations

from pathlib import Path

from btfleet._kernel.bpf import bpf
from btfleet._kernel.loader.tracker import Tracker

from benchmarks.in_guest import tiers, timing, translated_flows

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


def totals() -> dict[str, tuple[int, int]]:
    """Run time in ns and number of runs, for each program in force."""
    record = Tracker().read().record
    programs = record["programs"] if record else {}
    found = {}
    for name, number in programs.items():  # type: ignore[attr-defined]
        with bpf.closing(bpf.fd_by_id(bpf.PROG_GET_FD_BY_ID, number)) as fd:
            info = bpf.prog_info(fd)
        found[name] = (info.run_time_ns, info.run_cnt)
    return found


def one_round(tier: str, flows: int) -> dict[str, float]:
    """Nanoseconds a run, insert and delete, of flows that come and go."""
    tiers.load(tier)
    STATISTICS.write_text("1")
    before = totals()
    translated_flows.fill(flows)
    translated_flows.flush()
    after = totals()
    STATISTICS.write_text("0")
    means = {}
    for name, (nanoseconds, runs) in after.items():
        done = runs - before[name][1]
        if done < flows:
            raise RuntimeError(f"program {name} of {tier} ran {done} times, needed: {flows}")
        means[name] = (nanoseconds - before[name][0]) / done
    return means


def measure(rounds: int, flows: int) -> timing.Series:
    """Nanoseconds."""
    translated_flows.flush()
    found: timing.Series = {}
    for number in range(rounds + 1):
        for tier in (tiers.KPROBE, tiers.FENTRY):
            means = one_round(tier, flows)
            for name, mean in means.items() if number else ():  # the first is to warm up
                found.setdefault(f"{name} {tier}", []).append(mean)
    tiers.load()
    return found


if __name__ == "__main__":
    timing.answer(lambda options: measure(options["rounds"], options["flows"]))
