# SPDX-License-Identifier: GPL-3.0-or-later
"""The flows that are to be made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from . import netns, state
from .comparison import Witness
from .errors import NatError
from .flow import Key, Side
from .kinds import BY_NAME, STREAMS, WITHOUT_PORTS, Caller, Kind

# Source ports by use, so that no two uses ever share a tuple.
TRAFFIC, REUSE, CHURN = range(20000, 30000), range(30000, 35000), range(35000, 60000)


class Group(NamedTuple):
    """One kind in one family and protocol."""

    kind: Kind
    family: str
    protocol: str

    @property
    def label(self) -> str:
        """Its name in reports."""
        return f"{self.kind.name} {self.family} {self.protocol}"


class Wanted(NamedTuple):
    """One flow: `port` is the source port, or the ICMP id."""

    group: Group
    caller: Caller
    port: int

    @property
    def source(self) -> str:
        """The address it starts from."""
        kind, caller = self.group.kind, self.caller
        return kind.site.address(self.group.family, caller.network, caller.host)

    @property
    def target(self) -> str:
        """The address it calls."""
        return self.group.kind.target(self.group.family)

    @property
    def key(self) -> Key:
        """How the router's conntrack knows it."""
        kind, family, protocol = self.group
        if protocol.startswith("icmp"):
            l4: tuple[int, ...] = (self.port, 8 if family == "ipv4" else 128, 0)
        elif protocol in WITHOUT_PORTS:
            l4 = (0, 0)
        else:
            l4 = (self.port, kind.port)
        orig = Side(self.source, self.target, l4)
        inode = netns.inode(kind.site.router)
        return Key(inode, self.caller.zone, self.caller.zone_dir, family, protocol, orig)


class Made(NamedTuple):
    """A flow that was answered; `reply` is what the answering end saw."""

    wanted: Wanted
    reply: Side | None
    is_repeated: bool  # its packet was sent again, and a copy may be on its way still

    def record(self) -> list[object]:
        """For a file."""
        return [self.wanted.group.kind.name, self.wanted.key, self.reply]


def groups(kinds: Iterable[Kind], skipped: Iterable[str] = ()) -> list[Group]:
    """Every kind in each of its families and protocols."""
    without = set(skipped)
    return [
        Group(kind, family, icmp_name(protocol, family))
        for kind in kinds
        for family in kind.families
        for protocol in kind.protocols
        if protocol not in without
    ]


def icmp_name(protocol: str, family: str) -> str:
    """ICMP has a protocol of its own in each family."""
    return "icmpv6" if protocol == "icmp" and family == "ipv6" else protocol


def flows(group: Group, ports: Iterator[int]) -> Iterator[Wanted]:
    """Endless flows of a group; its callers take turns and share their ports."""
    if group.protocol in WITHOUT_PORTS:
        yield Wanted(group, group.kind.callers[0], 0)
        return
    for port in ports:
        for caller in group.kind.callers:
            yield Wanted(group, caller, port)


def take_ports(name: str, among: range, count: int) -> Iterator[int]:
    """Source ports that were not used before in this run."""
    used: int = state.load(f"ports-{name}", 0)
    if used + count > len(among):
        raise NatError(f"no source ports are left for {name}: run 'down' and 'up' first")
    state.save(f"ports-{name}", used + count)
    return iter(among[used : used + count])


def plan(all_groups: list[Group], total: int) -> list[Wanted]:
    """About `total` translated flows over all the groups, and some that are not translated."""
    many = [group for group in all_groups if group.protocol not in WITHOUT_PORTS]
    translated = sum(group.kind.translated for group in many)
    each = -(-total // max(translated, 1))
    ports = take_ports("traffic", TRAFFIC, each * len(many))
    first = state.load("traffic-runs", 0) == 0
    wanted = []
    for group in all_groups:
        if group in many:
            own = islice(ports, each)
            wanted += list(islice(flows(group, own), each))
        elif first:
            wanted += list(flows(group, ports))
    state.save("traffic-runs", state.load("traffic-runs", 0) + 1)
    return wanted


def is_stream(protocol: str) -> bool:
    """True if both ends have a connection."""
    return protocol in STREAMS


def witnesses(records: Iterable[list[Any]]) -> dict[Key, Witness]:
    """The flows recorded; a later use of a tuple takes the place of an earlier."""
    found: dict[Key, Witness] = {}
    for name, key, reply in records:
        kind = BY_NAME[name]
        *first, orig = key
        found[Key._make([*first, side(orig)])] = Witness(
            kind.name, side(reply) if reply else None, kind.translated
        )
    return found


def side(value: Any) -> Side:
    """A direction read from JSON."""
    src, dst, l4 = value
    return Side(src, dst, tuple(l4))
