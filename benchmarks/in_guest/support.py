# SPDX-License-Identifier: GPL-3.0-or-later
"""The support check against bpftool's: as commands, and as a call inside of a process."""

from __future__ import annotations

from btfleet._kernel.host.facts import gather
from btfleet._kernel.host.support import assess

from benchmarks.in_guest import timing


def measure(rounds: int) -> timing.Series:
    """Seconds."""
    return timing.in_turns(
        rounds,
        {
            "check command": timing.command(["btfleet", "check", "--json"]),
            "check call": lambda: timing.seconds(lambda: assess(gather())),
            "bpftool": timing.command(["bpftool", "feature", "probe", "kernel"]),
        },
    )


if __name__ == "__main__":
    timing.answer(lambda options: measure(options["rounds"]))
