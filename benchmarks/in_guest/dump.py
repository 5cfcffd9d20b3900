# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of the whole table: ours against `conntrack -L`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from benchmarks.in_guest import tiers, timing, translated_flows

DUMP = ("btfleet", "conntrack", "dump", "--json")
LIST = ("conntrack", "-L")
FILE = "/root/btfleet-bench/dump"


def check(flows: int, words: Sequence[str]) -> None:
    """A dump has to give every flow, or there is nothing to compare."""
    found = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.stdout and (chunk := process.stdout.read(1 << 20)):
            found += chunk.count(b"\n")
    if found != flows:
        raise RuntimeError(f"{' '.join(words)} gave {found} lines, needed: {flows}")


def measure(rounds: int, flows: int, many: int) -> timing.Series:
    """Seconds, and kB of memory."""
    tiers.load()
    translated_flows.only(flows)
    for words in (DUMP, LIST):
        check(flows, words)
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
    if many:  # once each: under emulation this takes minutes
        tiers.load(max_entries=many * 2 + 4096)
        translated_flows.only(many)
        found["dump of many"] = [timing.seconds(lambda: check(many, DUMP))]
        found["conntrack -L of many"] = [timing.seconds(lambda: check(many, LIST))]
        found["memory of many"] = [timing.peak_memory(DUMP)]
        translated_flows.flush()
        tiers.load()
    return found


if __name__ == "__main__":
    timing.answer(lambda options: measure(options["rounds"], options["flows"], options["many"]))
