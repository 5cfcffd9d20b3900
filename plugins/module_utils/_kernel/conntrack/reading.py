# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole maps, read through the tracker's pinned iterators, or by map system calls without them.

Iterators come first: while a map system call works, the kernel passes over the kprobe programs
of that CPU, and a flow that an interrupt inserts there would be missed.
"""

from __future__ import annotations

import os
from typing import Iterator

from ..bpf import bpf
from ..bpf.bpffs import Pins
from . import table
from .layout import CLOSED, KEY, LIVE, VALUE

MAPS = {table.LIVE_STATE: LIVE, table.CLOSED_STATE: CLOSED}
# Pins of the iterators, each by the map that it walks: as lines of JSON, and as raw entries
DUMPS = {LIVE: "dump_live", CLOSED: "dump_closed"}
ENTRIES = {LIVE: "entries_live", CLOSED: "entries_closed"}


def _read_pin(pins: Pins, name: str) -> Iterator[bytes] | None:
    try:
        fd = os.open(pins.path(name), os.O_RDONLY)
    except FileNotFoundError:
        return None
    return _read_and_close(fd)


def _read_and_close(fd: int) -> Iterator[bytes]:
    with bpf.closing(fd):
        yield from bpf.read_iterator(fd)


def entries(pins: Pins, name: str) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a map; raises LoaderError if no tracker is loaded."""
    pieces = _read_pin(pins, ENTRIES[name])
    if pieces is not None:
        return bpf.split_entries(pieces, KEY.size, VALUE.size)
    return _map_entries(pins.open_map(name))


def _map_entries(fd: int) -> Iterator[tuple[bytes, bytes]]:
    with bpf.closing(fd):
        yield from bpf.map_entries(fd)


def fill(pins: Pins, name: str) -> int:
    """How many entries a map holds; raises LoaderError if no tracker is loaded."""
    pieces = _read_pin(pins, ENTRIES[name])
    if pieces is not None:
        return sum(map(len, pieces)) // (KEY.size + VALUE.size)
    with bpf.closing(pins.open_map(name)) as fd:
        return bpf.map_fill(fd, bpf.map_info(fd))


def json_lines(pins: Pins, state: str) -> Iterator[bytes]:
    """All flows of a state as JSON objects, a line each, many lines at a time."""
    pieces = _read_pin(pins, DUMPS[MAPS[state]])
    if pieces is not None:
        return pieces
    return _map_lines(pins.open_map(MAPS[state]), state)


def _map_lines(fd: int, state: str) -> Iterator[bytes]:
    with bpf.closing(fd):
        yield from table.json_lines(fd, state)
