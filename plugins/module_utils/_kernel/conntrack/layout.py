# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maps' binary layout: the same numbers as bpf/conntrack.h, which says what they mean."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..bpf import bpf
from .entry import (
    CLOSED,
    COUNTERS_MAP,
    FLAG_ORIG,
    FLAG_SEEDED,
    FLAGS_OFFSET,
    GENERATION_OFFSET,
    KEY,
    LIVE,
    NETNS_ENDED,
    NETNS_KEY,
    NETNS_VALUE,
    VALUE,
)

# Those of `entry` are given on
__all__ = [
    "CLOSED",
    "COUNTERS_MAP",
    "FLAGS_OFFSET",
    "FLAG_ORIG",
    "FLAG_SEEDED",
    "GENERATION_OFFSET",
    "KEY",
    "LIVE",
    "NETNS_ENDED",
    "NETNS_KEY",
    "NETNS_VALUE",
    "VALUE",
]

NETNS_ENDED_ENTRIES = 16384

# struct conntrack_load: copy_since_ns, stale_before_ns, generation
LOAD = struct.Struct("=QQQ")

# The object's variable has_closed
HAS_CLOSED = struct.Struct("=Q")

# enum conntrack_counter, in order
COUNTERS = (
    "insert_hits",
    "insert_untranslated",
    "insert_disabled",
    "insert_read_failed",
    "inserted",
    "live_full",
    "live_update_failed",
    "delete_hits",
    "delete_read_failed",
    "deleted",
    "delete_successor",
    "closed_update_failed",
    "seed_hits",
    "seeded",
    "superseded",
    "netns_end_failed",
    "insert_missed",
    "delete_missed",
    "netns_end_missed",
)
# Those of them that are written by user space (see loader/misses.py)
MISSES = COUNTERS[-3:]


class MapShape(NamedTuple):
    """What a pinned map has to look like to be one of ours."""

    type: int
    key_size: int
    value_size: int


SHAPES = {
    LIVE: MapShape(bpf.HASH, KEY.size, VALUE.size),
    CLOSED: MapShape(bpf.LRU_HASH, KEY.size, VALUE.size),
    COUNTERS_MAP: MapShape(bpf.PERCPU_ARRAY, 4, 8),
    NETNS_ENDED: MapShape(bpf.LRU_HASH, NETNS_KEY.size, NETNS_VALUE.size),
}


def sizes(max_entries: int, closed_entries: int) -> dict[str, int]:
    """How many entries each map has, with these settings of a spec."""
    return {
        LIVE: max_entries,
        CLOSED: closed_entries,
        COUNTERS_MAP: len(COUNTERS),
        NETNS_ENDED: NETNS_ENDED_ENTRIES,
    }


def possible_cpus() -> int:
    """How many slots a per-CPU value has (/sys/devices/system/cpu/possible)."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as stream:
        return int(stream.read().strip().replace("-", ",").split(",")[-1]) + 1


def read_counters(fd: int) -> dict[str, int]:
    """The counters, each summed over all CPUs."""
    size = 8 * possible_cpus()
    result = {}
    for index, name in enumerate(COUNTERS):
        raw = bpf.map_lookup(fd, struct.pack("=I", index), size) or b""
        result[name] = sum(struct.unpack(f"={len(raw) // 8}Q", raw))
    return result


def is_stale(value: bytes, generation: int, start_ns: int) -> bool:
    """Whether a dump that began at `start_ns` has not come by this entry, though it is older.

    One that a dump wrote is, whatever its time says: it was seen by an earlier one.
    """
    if value[GENERATION_OFFSET] == generation:
        return False
    return bool(value[FLAGS_OFFSET] & FLAG_SEEDED) or VALUE.unpack(value)[1] < start_ns
