# SPDX-License-Identifier: GPL-3.0-or-later
"""A tracked flow, and whether it is translated."""

from __future__ import annotations

import socket
from typing import NamedTuple

PROTOCOLS = {
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "sctp": 132,
    "dccp": 33,
    "gre": 47,
    "icmp": 1,
    "icmpv6": 58,
}
NAMES = {number: name for name, number in PROTOCOLS.items()}
ICMP = ("icmp", "icmpv6")


class Side(NamedTuple):
    """One direction: `l4` is (sport, dport), or for ICMP (id, type, code)."""

    src: str
    dst: str
    l4: tuple[int, ...]


class Flow(NamedTuple):
    """A flow as conntrack knows it; `zone_dir` is '', 'orig' or 'reply'."""

    netns: int
    zone: int
    zone_dir: str
    family: str
    protocol: str
    orig: Side
    reply: Side

    def __str__(self) -> str:
        zone = f" zone {self.zone}{self.zone_dir and ' ' + self.zone_dir}" if self.zone else ""
        return (
            f"netns {self.netns}{zone} {self.protocol} {side_text(self.orig, self.protocol)}"
            f" | reply {side_text(self.reply, self.protocol)}"
        )


class Key(NamedTuple):
    """What identifies a flow: everything but its reply."""

    netns: int
    zone: int
    zone_dir: str
    family: str
    protocol: str
    orig: Side


def key_of(flow: Flow) -> Key:
    """The flow without its translation."""
    return Key(*flow[:6])


def side_text(side: Side, protocol: str) -> str:
    """A direction for a person."""
    if protocol in ICMP:
        ident, kind, code = side.l4
        return f"{side.src} -> {side.dst} id {ident} type {kind} code {code}"
    return f"{side.src}.{side.l4[0]} -> {side.dst}.{side.l4[1]}"


def canonical(family: str, address: str) -> str:
    """The address as inet_ntop writes it; ValueError if it is none."""
    number = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    try:
        return socket.inet_ntop(number, socket.inet_pton(number, address))
    except OSError as error:
        raise ValueError(f"{address!r} is not an {family} address") from error


def is_translated(flow: Flow) -> bool:
    """True if the reply is not simply the original turned round."""
    orig, reply = flow.orig, flow.reply
    if (reply.src, reply.dst) != (orig.dst, orig.src):
        return True
    if flow.protocol in ICMP:
        return orig.l4[0] != reply.l4[0]
    return orig.l4 != reply.l4[::-1]


def protocol_name(number: int) -> str:
    """The name in the dump: a known name, else the number as a string."""
    return NAMES.get(number, str(number))
