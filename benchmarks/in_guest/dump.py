# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of the whole table: ours against `conntrack -L`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from benchmarks.in_guest import tracker, translated_flows
from benchmarks.in_guest.counting import Figures, command

DUMP = ("btfleet", "conntrack", "dump", "--json")
LIST = ("conntrack", "-L")


def check(flows: int, words: Sequence[str]) -> None:
    """Raise RuntimeError unless the dump gives every flow: else there is nothing to compare."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found = done.stdout.count(b"\n")
    if found < flows:
        raise RuntimeError(f"{' '.join(words)} gave {found} lines, needed: {flows}")


def measure(flows: int) -> Figures:
    """Return ns per command."""
    tracker.begin_anew()
    translated_flows.only(flows)
    for words in (DUMP, LIST):  # which warms up as well
        check(flows, words)
    found = {"dump": command(DUMP)(), "conntrack -L": command(LIST)()}
    translated_flows.flush()
    return found
