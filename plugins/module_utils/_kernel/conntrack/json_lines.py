# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole maps as JSON lines, fast: the text of `flow.to_json`, many flows at a time.

No step of Python code is made for a single entry: a batch is taken apart into columns, and
formatted as one. That is what makes a dump cheaper than `conntrack -L` (docs/benchmarks.md).
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from itertools import chain
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Sequence

from ..bpf import bpf
from .entry import FLAG_ORIG, FLAGS_OFFSET, KEY, VALUE
from .flow import (
    CLOSED_STATE,
    FAMILIES,
    ICMP,
    decode,
    format_address,
    protocol_name,
    to_json,
    zones,
)

# Entries, cut for this purpose: of a key what decides the line's frame (namespace, zone, family,
# protocol) in one piece, and the ends; of a value its times, the ends and the zone
_KEY_CUT, _VALUE_CUT = "8s16s16sHH", "8xQQ16s16sHHH2x"
_KEY_CUTS, _VALUE_CUTS = 5, 7

# How many addresses are kept as text; tables have few different ones, an attack has many
_CACHED_ADDRESSES = 65536
# Smaller batches stay in the processor's cache
_BATCH = 4096


class _Addresses(dict):  # type: ignore[type-arg]
    """Address bytes to text, made once each."""

    def __init__(self, family: int) -> None:
        super().__init__()
        self._family = family

    def __missing__(self, raw: bytes) -> bytes:
        if len(self) >= _CACHED_ADDRESSES:
            self.clear()
        text = self[raw] = format_address(raw, self._family).encode()
        return text


class _Frame(NamedTuple):
    """What lines share that differ in nothing but addresses, ports and times."""

    template: bytes
    addresses: _Addresses
    is_icmp: bool


class _Frames(dict):  # type: ignore[type-arg]
    """What decides a line's frame (a cut of the key, the other direction's zone), to that frame."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self._state = state
        self._addresses = {family: _Addresses(family) for family in FAMILIES}

    def __missing__(self, about: tuple[bytes, int]) -> _Frame:
        netns, zone, family, protocol = struct.unpack("=IHBB", about[0])
        number, direction = zones(zone, about[1])
        direction_text = f'"zone_dir": "{direction}", ' if direction else ""
        if protocol in ICMP:
            ends = '{"src": "%b", "dst": "%b", "id": %d, "type": %d, "code": %d}'
        else:
            ends = '{"src": "%b", "sport": %d, "dst": "%b", "dport": %d}'
        age = ', "closed_seconds_ago": %d' if self._state == CLOSED_STATE else ""
        template = (
            f'{{"netns": {netns}, "zone": {number}, {direction_text}'
            f'"family": "{FAMILIES.get(family, family)}", '
            f'"protocol": "{protocol_name(protocol)}", '
            f'"orig": {ends}, "reply": {ends}, "state": "{self._state}"{age}}}\n'
        )
        addresses = self._addresses.setdefault(family, _Addresses(family))
        frame = self[about] = _Frame(template.encode(), addresses, protocol in ICMP)
        return frame


# Byte to 1 if odd (FLAG_ORIG is bit 0), else 0
_ODD = bytes(number & FLAG_ORIG for number in range(256))

# The cuts of many entries of original directions, a sequence for each cut
_Columns = List[Sequence[Any]]


def of_pieces(pieces: Iterable[bytes], state: str, ended: Mapping[int, int]) -> Iterator[bytes]:
    """All flows of a map, a line each, from what its iterator wrote: entries without a gap."""
    size, cuts = KEY.size + VALUE.size, _KEY_CUTS + _VALUE_CUTS
    lines, rest = _Lines(state, ended), b""
    for piece in pieces:
        run = rest + piece
        whole = len(run) - len(run) % size
        run, rest = run[:whole], run[whole:]
        is_orig = run[KEY.size + FLAGS_OFFSET :: size].translate(_ODD)
        found = _unpack(run, _KEY_CUT + _VALUE_CUT, size, is_orig)
        yield lines.of([found[number::cuts] for number in range(cuts)])


def of_map(fd: int, state: str, ended: Mapping[int, int]) -> Iterator[bytes]:
    """The same by map system calls."""
    lines = _Lines(state, ended)
    for keys, values in bpf.map_batches(fd, bpf.map_info(fd), _BATCH):
        is_orig = values[FLAGS_OFFSET :: VALUE.size].translate(_ODD)
        key = _unpack(keys, _KEY_CUT, KEY.size, is_orig)
        value = _unpack(values, _VALUE_CUT, VALUE.size, is_orig)
        yield lines.of(
            [key[number::_KEY_CUTS] for number in range(_KEY_CUTS)]
            + [value[number::_VALUE_CUTS] for number in range(_VALUE_CUTS)]
        )


def _unpack(records: bytes, cut: str, size: int, is_orig: bytes) -> tuple[Any, ...]:
    """The cuts of all records of original directions, one after the other."""
    layout = is_orig.replace(b"\0", b"%dx" % size).replace(b"\1", cut.encode())
    return struct.Struct(b"=" + layout).unpack_from(records)


class _Lines:
    """Makes lines of columns."""

    def __init__(self, state: str, ended: Mapping[int, int]) -> None:
        self._state = state
        self._ended = ended
        self._frames = _Frames(state)

    def of(self, columns: _Columns) -> bytes:
        """The lines of many flows."""
        about, other_zone = columns[0], columns[-1]
        if not about:
            return b""
        if len(set(about)) == 1 and len(set(other_zone)) == 1:  # most often
            return self._group((about[0], other_zone[0]), columns)
        places = defaultdict(list)
        for place, key in enumerate(zip(about, other_zone)):
            places[key].append(place)
        return b"".join(
            self._group(key, [[column[place] for place in chosen] for column in columns])
            for key, chosen in places.items()
        )

    def _group(self, about: tuple[bytes, int], columns: _Columns) -> bytes:
        """The lines of flows with one frame, by one formatting of them all."""
        ended_ns = self._ended.get(struct.unpack_from("=I", about[0])[0], 0)
        if ended_ns and min(columns[_KEY_CUTS]) <= ended_ns:
            return self._one_by_one(about, columns, ended_ns)
        _about, saddr, daddr, sport, dport, _created, closed, *other, _zone = columns
        frame = self._frames[about]
        text = frame.addresses.__getitem__
        fields: list[Iterable[Any]] = []
        for src, dst, near, far in ((saddr, daddr, sport, dport), other):
            if frame.is_icmp:
                kinds, codes = [port >> 8 for port in far], [port & 0xFF for port in far]
                fields += [map(text, src), map(text, dst), near, kinds, codes]
            else:
                fields += [map(text, src), near, map(text, dst), far]
        if self._state == CLOSED_STATE:
            now = time.monotonic_ns()
            fields.append([max(0, now - closed_ns) // 10**9 for closed_ns in closed])
        lines: bytes = frame.template * len(saddr) % tuple(chain.from_iterable(zip(*fields)))
        return lines

    def _one_by_one(self, about: tuple[bytes, int], columns: _Columns, ended_ns: int) -> bytes:
        """Where some are of a namespace that is gone."""
        lines = []
        for cuts in zip(*columns):
            key = cuts[0] + struct.pack("=16s16sHH", *cuts[1:_KEY_CUTS])
            value = VALUE.pack(0, *cuts[_KEY_CUTS:-1], about[1], FLAG_ORIG, 0)
            lines.append(to_json(decode(key, value, self._state, ended_ns)) + "\n")
        return "".join(lines).encode()
