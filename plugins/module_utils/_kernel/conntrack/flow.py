# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A translation: out of an entry of the maps, as plain data, and the key to look it up by.

A look-up's time is that of its imports, so this file and what it imports stay small.
"""

from __future__ import annotations

import struct
import time

# socket brings enum and selectors along
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from ..errors import TrackerError
from .entry import FLAG_ORIG, KEY, VALUE

LIVE_STATE, CLOSED_STATE = "live", "closed"

# IANA numbers; other protocols go by their number
PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}
ICMP = (1, 58)
_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
FAMILIES = {AF_INET: "ipv4", AF_INET6: "ipv6"}
# An IPv4 address as a socket for both families has it
_MAPPED = bytes(10) + b"\xff\xff"


class Flow:
    """One translation. Addresses as text, ports in host order (ICMP: see bpf/conntrack.h), times of
    CLOCK_MONOTONIC. `netns_gone`: of a namespace that is there no more, whoever has its number now.
    """

    __slots__ = (
        *("netns", "zone", "zone_dir", "family", "protocol", "orig", "reply"),
        *("state", "created_ns", "closed_ns", "netns_gone"),
    )

    def __init__(
        self,
        netns: int,
        zone: int,
        zone_dir: str | None,
        family: int,
        protocol: int,
        orig: tuple[str, int, str, int],
        reply: tuple[str, int, str, int],
        state: str,
        created_ns: int,
        closed_ns: int,
        netns_gone: bool = False,
    ) -> None:
        self.netns = netns
        self.zone = zone
        self.zone_dir = zone_dir
        self.family = family
        self.protocol = protocol
        self.orig = orig
        self.reply = reply
        self.state = state
        self.created_ns = created_ns
        self.closed_ns = closed_ns
        self.netns_gone = netns_gone

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flow) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    @property
    def closed_seconds_ago(self) -> int | None:
        """How long ago it ended, None while it lives."""
        if self.state == LIVE_STATE:
            return None
        return max(0, time.monotonic_ns() - self.closed_ns) // 10**9


def protocol_name(number: int) -> str:
    """The name that we print for a protocol."""
    return PROTOCOLS.get(number, str(number))


def protocol_number(text: str) -> int:
    """The number for a name or a number; raises TrackerError."""
    name = text.lower()
    if name in _NUMBERS:
        return _NUMBERS[name]
    if name.isascii() and name.isdigit() and int(name) < 256:
        return int(name)
    raise TrackerError(f"protocol is {text!r}, needed: {', '.join(_NUMBERS)} or a number below 256")


def format_address(raw: bytes, family: int) -> str:
    """The text of an address of the maps."""
    if family == AF_INET:
        return inet_ntop(AF_INET, raw[:4])
    return inet_ntop(AF_INET6, raw)


def parse_address(text: str) -> tuple[int, bytes]:
    """Family and bytes; raises ValueError.

    An IPv4 address in IPv6 form (::ffff:192.0.2.1) is the IPv4 address, which the flow has. An
    interface (fe80::1%eth0) is no part of the address.
    """
    try:
        if ":" not in text:
            return AF_INET, inet_pton(AF_INET, text)
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except OSError:
        raise ValueError(text) from None
    if packed.startswith(_MAPPED):
        return AF_INET, packed[len(_MAPPED) :]
    return AF_INET6, packed


def zones(orig: int, reply: int) -> tuple[int, str | None]:
    """A flow's zone, and the direction that it holds for if not for both."""
    if orig == reply:
        return orig, None
    return (orig, "orig") if orig else (reply, "reply")


def decode(key: bytes, value: bytes, state: str, netns_ended_ns: int = 0) -> Flow:
    """A flow from an entry of either direction, in the map of the flows in that state.

    `netns_ended_ns` is when the last namespace ended that had its number (0: none has): an entry
    from before that is none of a live flow.
    """
    netns, zone, family, protocol, saddr, daddr, sport, dport = KEY.unpack(key)
    other = VALUE.unpack(value)
    near = (format_address(saddr, family), sport, format_address(daddr, family), dport)
    far = (format_address(other[3], family), other[5], format_address(other[4], family), other[6])
    gone = netns_ended_ns > 0 and other[1] <= netns_ended_ns
    is_orig = bool(other[8] & FLAG_ORIG)
    orig_zone, reply_zone = (zone, other[7]) if is_orig else (other[7], zone)
    number, direction = zones(orig_zone, reply_zone)
    return Flow(
        netns=netns,
        zone=number,
        zone_dir=direction,
        family=family,
        protocol=protocol,
        orig=near if is_orig else far,
        reply=far if is_orig else near,
        state=CLOSED_STATE if gone else state,
        created_ns=other[1],
        closed_ns=(other[2] or netns_ended_ns) if gone else other[2],
        netns_gone=gone,
    )


def _tuple_dict(protocol: int, data: tuple[str, int, str, int]) -> dict[str, object]:
    src, sport, dst, dport = data
    if protocol in ICMP:
        return {"src": src, "dst": dst, "id": sport, "type": dport >> 8, "code": dport & 0xFF}
    return {"src": src, "sport": sport, "dst": dst, "dport": dport}


def to_dict(flow: Flow) -> dict[str, object]:
    """The JSON form of a flow. A closed one says how long ago it ended."""
    data: dict[str, object] = {"netns": flow.netns, "zone": flow.zone}
    if flow.zone_dir:
        data["zone_dir"] = flow.zone_dir
    data["family"] = FAMILIES.get(flow.family, str(flow.family))
    data["protocol"] = protocol_name(flow.protocol)
    data["orig"] = _tuple_dict(flow.protocol, flow.orig)
    data["reply"] = _tuple_dict(flow.protocol, flow.reply)
    data["state"] = flow.state
    if flow.state == CLOSED_STATE:
        data["closed_seconds_ago"] = flow.closed_seconds_ago
    if flow.netns_gone:
        data["netns_gone"] = True
    return data


def to_json(flow: Flow) -> str:
    """The same as text. None of it has to be escaped, which spares a look-up the json module."""
    return str(to_dict(flow)).replace("'", '"').replace(": True", ": true")


def make_key(
    netns: int, zone: int, protocol: int, src: str, sport: int, dst: str, dport: int
) -> bytes:
    """The key of one direction; raises TrackerError for what cannot be one."""
    try:
        (family, saddr), (other_family, daddr) = parse_address(src), parse_address(dst)
    except ValueError as exc:
        raise TrackerError(f"{str(exc)!r} is no address: give IPv4 or IPv6 addresses") from None
    if family != other_family:
        raise TrackerError(f"{src} and {dst} are of two families: a flow has one")
    try:
        return KEY.pack(
            *(netns, zone, family, protocol),
            *(saddr, daddr, sport, dport),
        )
    except struct.error:
        raise TrackerError(
            f"namespace {netns}, zone {zone}, protocol {protocol}, ports {sport} and {dport}: "
            "needed are numbers below 2**32, 65536, 256 and 65536"
        ) from None
