# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of the whole table: ours against `conntrack -L`."""

from __future__ import annotations

import subprocess

from benchmarks.in_guest import tiers, timing, translated_flows

DUMP = ("btfleet", "conntrack", "dump", "--json")
LIST = ("conntrack", "-L")
FILE = "/root/btfleet-bench/dump"


def check(flows: int) -> None:
    """Both have to give every flow, or there is nothing to compare."""
    for words in (DUMP, LIST):
        found = subprocess.run(words, capture_output=True, check=True).stdout.count(b"\n")
        if found != flows:
            raise RuntimeError(f"{' '.join(words)} gave {found} lines, needed: {flows}")


def measure(rounds: int, flows: int, many: int) -> timing.Series:
    """Seconds, and kB of memory."""
    tiers.load()
    translated_flows.only(flows)
    check(flows)
    found = timing.in_turns(
        rounds,
        {
            "dump": timing.command(DUMP),
            "dump to file": timing.command(DUMP, FILE),
            "conntrack -L": timing.command(LIST),
            "conntrack -L to file": timing.command(LIST, FILE),
            "btfleet --version": timing.command(["btfleet", "--version"]),
            "python3 -IS": timing.command(["python3", "-IS", "-c", "pass"]),
        },
    )
    found["memory"] = [timing.peak_memory(DUMP)]
    found["memory of conntrack -L"] = [timing.peak_memory(LIST)]
    translated_flows.flush()
    if many:
        tiers.load(max_entries=many * 2 + 4096)
        translated_flows.only(many)
        check(many)
        found |= timing.in_turns(
            1, {"dump of many": timing.command(DUMP), "conntrack -L of many": timing.command(LIST)}
        )
        found["memory of many"] = [timing.peak_memory(DUMP)]
        translated_flows.flush()
        tiers.load()
    return found


if __name__ == "__main__":
    timing.answer(lambda options: measure(options["rounds"], options["flows"], options["many"]))
