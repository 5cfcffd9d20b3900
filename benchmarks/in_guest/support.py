# SPDX-License-Identifier: GPL-3.0-or-later
"""The support check against bpftool's, as whole commands."""

from __future__ import annotations

from benchmarks.in_guest.counting import Figures, command, in_turns


def measure(rounds: int) -> Figures:
    """Return ns per command."""
    return in_turns(
        rounds,
        {
            "check": command(("btfleet", "check", "--json")),
            "bpftool": command(("bpftool", "feature", "probe", "kernel")),
        },
    )
