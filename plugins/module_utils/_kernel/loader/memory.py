# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory that maps take, asked for before it is taken.

The kernel takes all of a hash map's entries when it makes the map, and says ENOMEM, or kills
somebody, where there is too little.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from typing import Collection, Iterator, NamedTuple

from ..conntrack import layout
from ..conntrack.layout import COUNTERS_MAP, SHAPES, possible_cpus
from ..errors import LoaderError
from ..spec import Spec

# kernel/bpf/hashtab.c: struct htab_elem before its key, struct bucket; key and value are padded
# to 8 bytes each
_ELEMENT, _BUCKET = 48, 16
# struct bpf_htab; its counters, locks and spare elements on each CPU
_MAP, _PER_CPU = 1024, 256
# What is left to others
_LEFT = 0.1
# 5.11: maps count against the memory cgroup of the process that makes them
_COUNTED_FROM = (5, 11)
_MB = 10**6

_CGROUPS = "/sys/fs/cgroup"


class Room(NamedTuple):
    """Bytes that can be had, and what says so."""

    available: int
    source: str


# --- deciding -----------------------------------------------------------------------------------


def sizes(spec: Spec) -> dict[str, int]:
    """The maps of a spec: name to number of entries."""
    return layout.sizes(spec.max_entries, spec.closed_entries)


def map_bytes(name: str, entries: int, cpus: int) -> int:
    """What a new map of this name takes: never less than the kernel's own figure (the line
    `memlock` in the fdinfo of its descriptor), and at most 2 kB and 256 bytes per CPU more.
    """
    shape = SHAPES[name]
    padded = [(size + 7) & ~7 for size in (shape.key_size, shape.value_size)]
    if name == COUNTERS_MAP:
        return _MAP + entries * (padded[1] * cpus + 8)
    buckets = 1 << (entries - 1).bit_length()
    return entries * (_ELEMENT + sum(padded)) + buckets * _BUCKET + _MAP + cpus * _PER_CPU


def needed(spec: Spec, kept: Collection[str], cpus: int) -> int:
    """What a load of `spec` takes while it replaces what runs. `kept` are the maps that it goes on
    using; others of what runs go only when it is done, so all that is new comes on top.
    """
    return sum(
        map_bytes(name, entries, cpus) for name, entries in sizes(spec).items() if name not in kept
    )


def refusal(bytes_needed: int, rooms: list[Room]) -> str | None:
    """Why so much cannot be had, None if it can."""
    for room in sorted(rooms):
        if bytes_needed > room.available * (1 - _LEFT):
            return (
                f"the maps need {bytes_needed / _MB:.0f} MB, there are "
                f"{room.available / _MB:.0f} MB ({room.source}), of which a tenth is left to "
                "others: lower max_entries or closed_entries, or give more memory; "
                "nothing was changed"
            )
    return None


def available_of(meminfo: str) -> int:
    """MemAvailable in /proc/meminfo, in bytes; raises ValueError."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if match is None:
        raise ValueError("no MemAvailable")
    return int(match.group(1)) * 1024


def folders_of(cgroup: str) -> list[tuple[str, bool]]:
    """The caller's memory cgroup in /proc/self/cgroup, and all above it: folders below
    /sys/fs/cgroup, and whether they are of version 2.
    """
    found = []
    for line in cgroup.splitlines():
        _number, controllers, path = line.split(":", 2)
        is_v2 = not controllers
        if not is_v2 and "memory" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part]
        root = _CGROUPS if is_v2 else f"{_CGROUPS}/memory"
        found += [("/".join([root, *parts[:count]]), is_v2) for count in range(len(parts), -1, -1)]
    return found


def is_counted(release: str) -> bool:
    """Whether a kernel of this release counts maps against a memory cgroup."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return match is not None and tuple(map(int, match.groups())) >= _COUNTED_FROM


# --- reading ------------------------------------------------------------------------------------


def require(spec: Spec, kept: Collection[str]) -> None:
    """Raise LoaderError, in one line, where the maps of a load do not fit into memory."""
    why = refusal(needed(spec, kept, possible_cpus()), list(_rooms()))
    if why:
        raise LoaderError(why)


def _rooms() -> Iterator[Room]:
    with contextlib.suppress(OSError, ValueError):  # the kernel's own refusal has to do
        yield Room(available_of(_read("/proc/meminfo")), "MemAvailable")
    if not is_counted(platform.release()):
        return
    for folder, is_v2 in folders_of(_read("/proc/self/cgroup")):
        names = ("max", "current") if is_v2 else ("limit_in_bytes", "usage_in_bytes")
        try:
            limit, used = (_read(os.path.join(folder, f"memory.{name}")) for name in names)
            if limit.strip() != "max":
                cache = _cache_of(_read(os.path.join(folder, "memory.stat")), is_v2)
                yield Room(max(int(limit) - int(used) + cache, 0), f"cgroup {folder}")
        except (OSError, ValueError):  # not there, as the root has no limit, or out of sight
            continue


def _cache_of(stat: str, is_v2: bool) -> int:
    """Of what a cgroup uses, what it would give back: cached files, in bytes."""
    prefix = "" if is_v2 else "total_"
    rows = dict(line.split(" ", 1) for line in stat.splitlines())
    return sum(int(rows.get(f"{prefix}{name}_file", 0)) for name in ("inactive", "active"))


def _read(path: str) -> str:
    with open(path, encoding="ascii") as stream:
        return stream.read()
