# SPDX-License-Identifier: GPL-3.0-or-later
"""One look-up and the status, as whole commands: against Python's own start and `conntrack -G`."""

from __future__ import annotations

from benchmarks.in_guest import tracker, translated_flows
from benchmarks.in_guest.counting import Figures, command, in_turns

SRC, SPORT, DST, DPORT = translated_flows.FIRST_AS_ENDS
LOOKUP = ("btfleet", "conntrack", "lookup", f"{SRC}:{SPORT}", f"{DST}:{DPORT}", "--protocol", "udp")

STATUS = ("btfleet", "status")


def measure(flows: int, rounds: int) -> Figures:
    """Return ns per command."""
    tracker.begin_anew()
    empty = in_turns(rounds, {"status, empty": command(STATUS)})
    translated_flows.only(flows)
    found = in_turns(
        rounds,
        {
            "lookup": command(LOOKUP),
            "status": command(STATUS),
            "version": command(("btfleet", "--version")),
            "conntrack -G": command(("conntrack", "-G", *translated_flows.FIRST_AS_OPTIONS)),
            "python": command(("python3", "-IS", "-c", "pass")),
        },
    )
    translated_flows.flush()
    return {**empty, **found}
