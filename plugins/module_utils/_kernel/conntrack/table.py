# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations out of whole maps: dump and filter.

A map holds both directions of a flow; a dump gives each flow once, from its original direction.
"""

from __future__ import annotations

from itertools import islice
from types import MappingProxyType
from typing import Iterable, Iterator, Mapping, NamedTuple, Tuple

from ..bpf import bpf
from ..errors import TrackerError
from .entry import FLAG_ORIG, FLAGS_OFFSET, KEY
from .flow import ICMP, Flow, decode, format_address, parse_address, protocol_number, to_dict


class Filter(NamedTuple):
    """Which flows are wanted; None means any. Address and port match either end, either way."""

    netns: int | None = None
    address: str | None = None
    port: int | None = None
    protocol: int | None = None

    @classmethod
    def parse(
        cls,
        netns: int | None = None,
        address: str | None = None,
        port: int | None = None,
        protocol: str | None = None,
    ) -> Filter:
        """Checks what a user gave; raises TrackerError."""
        if address is not None:
            try:
                family, packed = parse_address(address)
            except ValueError:
                raise TrackerError(
                    f"address is {address!r}, needed: an IPv4 or IPv6 address"
                ) from None
            address = format_address(packed, family)  # written as flows have it
        if port is not None and not 0 <= port <= 65535:
            raise TrackerError(f"port is {port}, needed: a number from 0 to 65535")
        number = None if protocol is None else protocol_number(protocol)
        return cls(netns=netns, address=address, port=port, protocol=number)

    @property
    def is_empty(self) -> bool:
        """Whether it lets everything through."""
        return self == Filter()

    def matches(self, flow: Flow) -> bool:
        """Whether the flow is wanted."""
        if self.netns is not None and flow.netns != self.netns:
            return False
        if self.protocol is not None and flow.protocol != self.protocol:
            return False
        ends = flow.orig + flow.reply
        if self.address is not None and not self._is_among(ends[::2]):
            return False
        if self.port is None:
            return True
        return flow.protocol not in ICMP and self.port in ends[1::2]

    def _is_among(self, addresses: tuple[object, ...]) -> bool:
        # An IPv6 flow may have the IPv4 address in IPv6 form on the wire
        return self.address in addresses or f"::ffff:{self.address}" in addresses


# (key, value) pairs of a map
Entries = Iterable[Tuple[bytes, bytes]]


def flows(fd: int, state: str, wanted: Filter | None = None) -> Iterator[Flow]:
    """The flows of a map that `wanted` lets through, in the map's order."""
    return select(bpf.map_entries(fd), state, wanted)


def select(
    entries: Entries,
    state: str,
    wanted: Filter | None = None,
    ended: Mapping[int, int] = MappingProxyType({}),
) -> Iterator[Flow]:
    """The same from a map's entries, however they were read (see `reading`).

    `ended` has when the last namespace ended that had a number.
    """
    wanted = wanted or Filter()
    for key, value in entries:
        if value[FLAGS_OFFSET] & FLAG_ORIG:
            flow = decode(key, value, state, ended.get(KEY.unpack(key)[0], 0))
            if wanted.matches(flow):
                yield flow


def translations(found: Iterable[Flow], limit: int) -> tuple[list[dict[str, object]], bool]:
    """Up to `limit` flows as plain data, and whether there are more."""
    rows = [to_dict(flow) for flow in islice(found, limit + 1)]
    return rows[:limit], len(rows) > limit
