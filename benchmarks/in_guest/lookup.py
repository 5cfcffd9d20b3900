# SPDX-License-Identifier: GPL-3.0-or-later
"""One look-up: as a command against `conntrack -G`, and inside of a running process."""

from __future__ import annotations

from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import netns, table
from btfleet._kernel.conntrack.layout import CLOSED, LIVE

from benchmarks.in_guest import tiers, timing, translated_flows

CALLS = 2000


def calls() -> float:
    """Seconds a call, key and maps ready."""
    pins = Pins()
    maps = {"live": pins.open_map(LIVE), "closed": pins.open_map(CLOSED)}
    src, sport, dst, dport = translated_flows.FIRST_AS_ENDS
    key = table.make_key(netns.own(), 0, translated_flows.UDP, src, sport, dst, dport)
    if table.lookup(maps, key) is None:
        raise RuntimeError("the flow that is looked up is not there")

    def many() -> None:
        for _call in range(CALLS):
            table.lookup(maps, key)

    return timing.seconds(many) / CALLS


def measure(rounds: int, flows: int) -> timing.Series:
    """Seconds."""
    tiers.load()
    translated_flows.only(flows)
    src, sport, dst, dport = translated_flows.FIRST_AS_ENDS
    ours = ["btfleet", "conntrack", "lookup", f"{src}:{sport}", f"{dst}:{dport}"]
    found = timing.in_turns(
        rounds,
        {
            "lookup command": timing.command([*ours, "--protocol", "udp"]),
            "lookup call": calls,
            "conntrack -G": timing.command(["conntrack", "-G", *translated_flows.FIRST_AS_OPTIONS]),
            "python3 -IS": timing.command(["python3", "-IS", "-c", "pass"]),
        },
    )
    translated_flows.flush()
    return found


if __name__ == "__main__":
    timing.answer(lambda options: measure(options["rounds"], options["flows"]))
