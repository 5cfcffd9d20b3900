# SPDX-License-Identifier: GPL-3.0-or-later
"""What a thing costs, by this guest's clock: under icount each ns of it is an instruction."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

Figures = dict[str, float]


def in_turns(rounds: int, actions: Mapping[str, Callable[[], float]]) -> Figures:
    """Return the median by action: each once to warm up, then all of them `rounds` times."""
    for action in actions.values():
        action()
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _round in range(rounds):
        for name, action in actions.items():
            found[name].append(action())
    return {name: statistics.median(values) for name, values in found.items()}


def busy(action: Callable[[], object]) -> int:
    """Return the ns of a call that never waits: what the kernel does for it beside it included."""
    started = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - started


def command(words: Sequence[str]) -> Callable[[], float]:
    """Return a command as an action: the ns that it had a processor, its children included.

    Not from its start to its end: it may wait, for a grace period of the kernel or for the disk.
    Its output goes nowhere. Raises CalledProcessError.
    """

    def run() -> float:
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, words)
        return (usage.ru_utime + usage.ru_stime) * 1e9

    return run


def processor_time(pid: int) -> int:
    """Return the ns that another process had a processor until now."""
    # clock_getcpuclockid(3): the complement of the process's number, and "by the scheduler"
    return time.clock_gettime_ns(~pid << 3 | 2)
