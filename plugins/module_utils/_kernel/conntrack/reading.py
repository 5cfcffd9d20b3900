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
from . import json_lines as json_lines_of
from . import table
from .entry import CLOSED, KEY, LIVE, NETNS_ENDED, NETNS_KEY, NETNS_VALUE, VALUE
from .flow import CLOSED_STATE, LIVE_STATE, Flow
from .table import Filter

MAPS = {LIVE_STATE: LIVE, CLOSED_STATE: CLOSED}
# Pins of the iterators, each by the map that it walks
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


def ended(pins: Pins) -> dict[int, int]:
    """When (ns) the last namespace ended that had a number, for those that one has had."""
    fd = pins.open(NETNS_ENDED, bpf.RDONLY)
    if fd is None:  # as an older release has loaded it
        return {}
    entries = _map_entries(fd)
    return {NETNS_KEY.unpack(key)[0]: NETNS_VALUE.unpack(value)[0] for key, value in entries}


def flows(pins: Pins, state: str, wanted: Filter | None = None) -> Iterator[Flow]:
    """The flows of a state that `wanted` lets through; raises LoaderError if none is loaded."""
    return table.select(entries(pins, MAPS[state]), state, wanted, ended(pins))


def json_lines(pins: Pins, state: str) -> Iterator[bytes]:
    """All flows of a state as JSON objects, a line each, many lines at a time."""
    name = MAPS[state]
    gone = ended(pins)
    pieces = _read_pin(pins, ENTRIES[name])
    if pieces is not None:
        return json_lines_of.of_pieces(pieces, state, gone)
    return _map_lines(pins.open_map(name), state, gone)


def _map_lines(fd: int, state: str, gone: dict[int, int]) -> Iterator[bytes]:
    with bpf.closing(fd):
        yield from json_lines_of.of_map(fd, state, gone)
