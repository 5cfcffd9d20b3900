# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conntrack's netlink messages: flows out of events and answers, and requests. Pure functions.

Numbers are those of linux/netfilter/nfnetlink_conntrack.h and linux/netlink.h.
"""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple

from .layout import KEY

NETLINK_NETFILTER = 12
# Multicast groups: flows that come, flows that go (linux/netfilter/nfnetlink_compat.h)
GROUP_NEW, GROUP_DESTROY = 1, 3

_SUBSYSTEM = 1 << 8
NEW, _GET, DELETE, COUNT = _SUBSYSTEM, _SUBSYSTEM | 1, _SUBSYSTEM | 2, _SUBSYSTEM | 5
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400

_HEADER = struct.Struct("=IHHII")
# struct nfgenmsg: family, version, resource id
_FAMILY = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_TYPE = 0x3FFF
_BE16 = struct.Struct(">H")
_BE32 = struct.Struct(">I")

_TUPLE_ORIG, _TUPLE_REPLY, _TIMEOUT, _ID, _ZONE = 1, 2, 7, 12, 18
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
_PROTO_NUM, _SRC_PORT, _DST_PORT, _ICMP_ID, _ICMP_TYPE, _ICMP_CODE = range(1, 7)
_ICMPV6_ID, _ICMPV6_TYPE, _ICMPV6_CODE = range(7, 10)

# CTA_STATS_GLOBAL_ENTRIES
_GLOBAL_ENTRIES = 1

_ICMP = (1, 58)
_AF_INET6 = 10
_TCP, _UDP = 6, 17


class Malformed(ValueError):
    """A message that is none of conntrack's."""


class Direction(NamedTuple):
    """One tuple; addresses, ports and zone as in the maps' keys (bpf/conntrack.h)."""

    saddr: bytes
    daddr: bytes
    sport: int
    dport: int
    zone: int


class Flow(NamedTuple):
    """A flow. `cookie` is the kernel's id of it, the same in all its messages."""

    family: int
    protocol: int
    cookie: int
    orig: Direction
    reply: Direction

    @property
    def is_translated(self) -> bool:
        """Whether the reply is not the mirror of the original (as in bpf/conntrack.bpf.c)."""
        orig, reply = self.orig, self.reply
        if orig.saddr != reply.daddr or orig.daddr != reply.saddr:
            return True
        if self.protocol in _ICMP:
            return orig.sport != reply.sport
        return orig.sport != reply.dport or orig.dport != reply.sport

    def is_enabled(self, tcpv6: bool, udpv6: bool) -> bool:
        """Whether the settings want it."""
        if self.family != _AF_INET6:
            return True
        return {_TCP: tcpv6, _UDP: udpv6}.get(self.protocol, True)

    def keys(self, netns: int) -> tuple[bytes, bytes]:
        """The keys of both directions in the maps."""
        return self._key(netns, self.orig), self._key(netns, self.reply)

    def _key(self, netns: int, end: Direction) -> bytes:
        return KEY.pack(netns, end.zone, self.family, self.protocol, *end[:4])


class Message(NamedTuple):
    """`kind` is NEW or DELETE, or COUNT for the answer to `count_request`; `flow` is None where the
    message could not be read, `number` is that of the flows in the namespace.
    """

    kind: int
    flow: Flow | None
    number: int | None = None


# --- reading ------------------------------------------------------------------------------------


def messages(datagram: bytes) -> Iterator[Message]:
    """The flows in a datagram. Raises OSError for an error that the kernel reports."""
    offset, end = 0, len(datagram)
    while offset + _HEADER.size <= end:
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > end:
            yield Message(NEW, None)
            return
        if kind in (NEW, DELETE):
            try:
                yield Message(kind, parse(datagram, offset + _HEADER.size, offset + length))
            except (Malformed, struct.error):
                yield Message(kind, None)
        elif kind == COUNT:
            yield Message(kind, None, _count(datagram, offset + _HEADER.size, offset + length))
        offset += (length + 3) & ~3


def _count(data: bytes, offset: int, end: int) -> int | None:
    """The number of flows in an answer's body, None if it has none."""
    try:
        for kind, start, _stop in _attributes(data, offset + _FAMILY.size, end):
            if kind == _GLOBAL_ENTRIES:
                return int(_BE32.unpack_from(data, start)[0])
    except (Malformed, struct.error):
        pass
    return None


def end_of_answer(datagram: bytes) -> int | None:
    """The errno with which an answer ends here (0: it is complete); None if there is more."""
    offset = 0
    while offset + _HEADER.size + 4 <= len(datagram):
        length, kind = struct.unpack_from("=IH", datagram, offset)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR):
            return -int(struct.unpack_from("=i", datagram, offset + _HEADER.size)[0])
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return None


def parse(data: bytes, offset: int, end: int) -> Flow:
    """The flow in a message's body; raises Malformed or struct.error."""
    family = data[offset]
    cookie = zone = 0
    ends: dict[int, tuple[int, Direction]] = {}
    for kind, start, stop in _attributes(data, offset + _FAMILY.size, end):
        if kind in (_TUPLE_ORIG, _TUPLE_REPLY):
            ends[kind] = _tuple(data, start, stop)
        elif kind == _ID:
            cookie = _BE32.unpack_from(data, start)[0]
        elif kind == _ZONE:
            zone = _BE16.unpack_from(data, start)[0]
    if len(ends) != 2:
        raise Malformed("a direction is missing")
    (protocol, orig), (_same, reply) = ends[_TUPLE_ORIG], ends[_TUPLE_REPLY]
    if zone:
        # A zone of the whole flow; one that holds for one direction stands in that tuple
        orig, reply = orig._replace(zone=zone), reply._replace(zone=zone)
    return Flow(family, protocol, cookie, orig, reply)


def _attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each attribute."""
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise Malformed("an attribute is cut off")
        yield kind & _TYPE, offset + 4, offset + length
        offset += (length + 3) & ~3


def _tuple(data: bytes, offset: int, end: int) -> tuple[int, Direction]:
    """Protocol and direction."""
    saddr = daddr = b""
    protocol = sport = dport = zone = 0
    for kind, start, stop in _attributes(data, offset, end):
        if kind == _TUPLE_IP:
            # The source has the lower number, in either family
            found = sorted(_attributes(data, start, stop))
            if len(found) != 2:
                raise Malformed("an address is missing")
            saddr, daddr = (data[first:last].ljust(16, b"\0") for _kind, first, last in found)
        elif kind == _TUPLE_PROTO:
            protocol, sport, dport = _ports(data, start, stop)
        elif kind == _TUPLE_ZONE:
            zone = _BE16.unpack_from(data, start)[0]
    if len(saddr) != 16 or len(daddr) != 16:
        raise Malformed("no addresses")
    return protocol, Direction(saddr, daddr, sport, dport, zone)


def _ports(data: bytes, offset: int, end: int) -> tuple[int, int, int]:
    """Protocol, and its ports as in the maps' keys."""
    protocol = sport = dport = 0
    for kind, start, _stop in _attributes(data, offset, end):
        if kind == _PROTO_NUM:
            protocol = data[start]
        elif kind in (_SRC_PORT, _ICMP_ID, _ICMPV6_ID):
            sport = _BE16.unpack_from(data, start)[0]
        elif kind == _DST_PORT:
            dport = _BE16.unpack_from(data, start)[0]
        elif kind in (_ICMP_TYPE, _ICMPV6_TYPE):
            dport |= data[start] << 8
        elif kind in (_ICMP_CODE, _ICMPV6_CODE):
            dport |= data[start]
    return protocol, sport, dport


# --- asking -------------------------------------------------------------------------------------


def dump_request() -> bytes:
    """Asks for the whole table of a namespace."""
    return _request(_GET, _REQUEST | _DUMP, 0, b"")


def count_request() -> bytes:
    """Ask for the number of flows in a namespace (IPCTNL_MSG_CT_GET_STATS, 3.6)."""
    return _request(COUNT, _REQUEST, 0, b"")


def get_request(key: bytes) -> bytes:
    """Asks for the one flow that has this key (of either direction)."""
    _netns, zone, family, *_rest = KEY.unpack(key)
    whose = _tuple_of(_TUPLE_ORIG, key) + _attribute(_ZONE, _BE16.pack(zone))
    return _request(_GET, _REQUEST, family, whose)


def create_request(flow: Flow) -> bytes:
    """Ask for a new flow, for a minute; answered also where all is well."""
    orig, reply = flow.keys(0)
    attributes = _tuple_of(_TUPLE_ORIG, orig) + _tuple_of(_TUPLE_REPLY, reply)
    attributes += _attribute(_TIMEOUT, _BE32.pack(60))
    return _request(NEW, _REQUEST | _ACK | _EXCLUSIVE | _CREATE, flow.family, attributes)


def delete_request(flow: Flow) -> bytes:
    """Ask for the end of a flow; answered also where all is well."""
    wanted = _tuple_of(_TUPLE_ORIG, flow.keys(0)[0])
    return _request(DELETE, _REQUEST | _ACK, flow.family, wanted)


def _tuple_of(kind: int, key: bytes) -> bytes:
    """A key's tuple as an attribute."""
    _netns, _zone, family, protocol, saddr, daddr, sport, dport = KEY.unpack(key)
    size, first = (16, 3) if family == _AF_INET6 else (4, 1)
    addresses = _attribute(first, saddr[:size]) + _attribute(first + 1, daddr[:size])
    ports = _attribute(_PROTO_NUM, bytes([protocol]))
    if protocol in _ICMP:
        number = _ICMP_ID if protocol == 1 else _ICMPV6_ID
        ports += _attribute(number, _BE16.pack(sport))
        ports += _attribute(number + 1, bytes([dport >> 8]))
        ports += _attribute(number + 2, bytes([dport & 0xFF]))
    else:
        ports += _attribute(_SRC_PORT, _BE16.pack(sport)) + _attribute(_DST_PORT, _BE16.pack(dport))
    return _nest(kind, _nest(_TUPLE_IP, addresses) + _nest(_TUPLE_PROTO, ports))


def _request(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = _FAMILY.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _attribute(kind: int, payload: bytes) -> bytes:
    raw = _ATTRIBUTE.pack(4 + len(payload), kind) + payload
    return raw.ljust((len(raw) + 3) & ~3, b"\0")


def _nest(kind: int, attributes: bytes) -> bytes:
    return _attribute(kind | _NESTED, attributes)
