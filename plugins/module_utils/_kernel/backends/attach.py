# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each tier attaches, in which order: data.

The delete program comes first and the insert programs last, so that an entry whose end would be
missed is never written. Of a pair, the program at a function's entry comes before the one at its
return, which needs what that has noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Collection, Mapping

from ..bpf.libbpf import BpfObject
from ..conntrack.record_map import LINK
from ..host import symbols
from ..spec import RUNTIME


@dataclass(frozen=True)
class Probe:
    """A program and the function that it sits on. `by_symbol` is for kprobes, which take the
    function's real name on this kernel; others are attached as their section says.
    """

    role: str
    program: str
    function: str
    by_symbol: bool = False
    at_return: bool = False

    @property
    def pin(self) -> str:
        """The name of its link."""
        return LINK + self.role

    def attach(self, obj: BpfObject, found: Mapping[str, str | None]) -> int:
        """Attaches it; the link's descriptor. `found` has the functions' real names."""
        symbol = found[self.function] if self.by_symbol else None
        return obj.attach(self.program, symbol, self.at_return)


# The delete program for each function that it can sit on, and the end of a namespace
_FENTRY_OTHERS = (
    Probe("delete", "fentry_delete", symbols.DELETE),
    Probe("delete", "fentry_delete_expectations", symbols.REMOVE_EXPECTATIONS),
    Probe("netns_end", "fentry_netns_end", symbols.NETNS_ENDS[0]),
    Probe("netns_end", "fentry_ns_end", symbols.NETNS_ENDS[1]),
)
_KPROBE_OTHERS = (
    Probe("delete", "kprobe_delete", symbols.DELETE, by_symbol=True),
    Probe(
        *("delete", "kprobe_delete_expectations", symbols.REMOVE_EXPECTATIONS),
        by_symbol=True,
    ),
    Probe("netns_end", "kprobe_netns_end", symbols.NETNS_ENDS[0], by_symbol=True),
    Probe("netns_end", "kprobe_ns_end", symbols.NETNS_ENDS[1], by_symbol=True),
)
# The insert programs of each tier
_INSERTS = {
    "core/fentry": (Probe("insert", "fentry_insert", symbols.INSERT),),
    "core/kprobe": (Probe("insert", "kprobe_insert", symbols.INSERT, by_symbol=True),),
    "core/fexit": (
        Probe("insert_check", "fexit_check_insert", symbols.CHECK_INSERT),
        Probe("insert_confirm", "fexit_confirm", symbols.CONFIRM),
    ),
    "core/kretprobe": (
        Probe("note_check", "kprobe_check_insert", symbols.CHECK_INSERT, by_symbol=True),
        Probe("note_confirm", "kprobe_confirm", symbols.CONFIRM, by_symbol=True),
        Probe(
            *("insert_check", "kretprobe_check_insert", symbols.CHECK_INSERT),
            by_symbol=True,
            at_return=True,
        ),
        Probe(
            *("insert_confirm", "kretprobe_confirm", symbols.CONFIRM),
            by_symbol=True,
            at_return=True,
        ),
    ),
}
# What takes in the flows that exist, by whether kprobes can be made. It is detached again.
SEED = Probe("seed", "kprobe_seed", symbols.SEED, by_symbol=True)
SEED_WITHOUT_KPROBES = Probe("seed", "fentry_seed", symbols.SEED)
_ALL = (
    *(probe for probes in _INSERTS.values() for probe in probes),
    *(*_FENTRY_OTHERS, *_KPROBE_OTHERS, SEED, SEED_WITHOUT_KPROBES),
)
PROGRAMS = sorted({probe.program for probe in _ALL})


def probes_of(
    tier: str, functions: Collection[str], found: Mapping[str, str | None]
) -> tuple[Probe, ...]:
    """What a tier attaches on a kernel where it can attach to `functions`.

    `found` has their real names on this kernel.
    """
    if tier == RUNTIME:  # without BTF there are but kprobes
        tier = "core/kprobe" if found.get(symbols.INSERT) else "core/kretprobe"
    others = _FENTRY_OTHERS if tier in ("core/fentry", "core/fexit") else _KPROBE_OTHERS
    chosen = [probe for probe in others if probe.function in functions]
    return (*chosen, *_INSERTS[tier])
