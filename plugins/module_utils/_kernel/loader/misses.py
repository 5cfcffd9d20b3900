# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the kernel passed over a program, which it does while another one runs on that CPU.

The kernel counts that in two places: in a program's info (recursion_misses: 5.12 for fentry, 6.7
for kprobes), and for kprobes that are hit inside of another kprobe in their link's info (missed,
6.7). Asking takes privileges, so whoever has them saves the numbers among the object's counters,
where the agent finds them.
"""

from __future__ import annotations

import struct

from ..bpf import bpf
from ..conntrack import record_map
from ..conntrack.layout import COUNTERS, MISSES, possible_cpus


def counter_of(role: str) -> str | None:
    """The counter for a program's misses; None for one that nothing is lost with."""
    # insert, and insert_confirm and the like where there are several; a note is half an insert
    kind = "insert" if role.startswith("note_") else role
    return next((name for name in MISSES if kind.startswith(name[: -len("_missed")])), None)


def read(record: dict[str, object] | None) -> dict[str, int]:
    """All misses since the programs were loaded; nothing without the privilege to ask."""
    found: dict[str, int] = {}
    links = record_map.numbers(record or {}, "links")
    for role, program in record_map.probe_roles(record or {}).items():
        name = counter_of(role)
        # No link is known of one that a process holds: kernels that do not count its misses
        link = links.get(record_map.LINK + role)
        try:
            if name is not None:
                found[name] = found.get(name, 0) + _of_program(program) + _of_link(link)
        except OSError:
            continue
    return found


def _of_program(number: int) -> int:
    with bpf.closing(bpf.fd_by_id(bpf.PROG_GET_FD_BY_ID, number)) as fd:
        return bpf.prog_info(fd).recursion_misses


def _of_link(number: int | None) -> int:
    if number is None:
        return 0
    with bpf.closing(bpf.fd_by_id(bpf.LINK_GET_FD_BY_ID, number)) as fd:
        return bpf.link_info(fd).missed


def save(counters_fd: int, found: dict[str, int]) -> None:
    """Write what `read` gave among the counters."""
    for name, number in found.items():
        each_cpu = struct.pack("=Q", number).ljust(8 * possible_cpus(), b"\0")
        bpf.map_update(counters_fd, struct.pack("=I", COUNTERS.index(name)), each_cpu)
