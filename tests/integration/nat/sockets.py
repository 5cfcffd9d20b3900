# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets of every protocol, and what their packets look like."""

from __future__ import annotations

import resource
import socket
import struct

from . import netns
from .flow import PROTOCOLS
from .wanted import is_stream

FAMILY = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, so the port is free at once
GRE_HEADER = b"\x00\x00\x08\x00"  # version 0, no key, carrying IPv4


def make(name: str, family: str, protocol: str) -> socket.socket:
    """A non-blocking socket in a namespace."""
    netns.enter(name)
    if protocol in ("tcp", "sctp"):
        kind = socket.SOCK_STREAM
    elif protocol == "udp":
        kind = socket.SOCK_DGRAM
    else:
        kind = socket.SOCK_RAW
    number = PROTOCOLS[protocol] if protocol in PROTOCOLS else int(protocol)
    made = socket.socket(FAMILY[family], kind, number)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_stream(protocol):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return made


def allow_many() -> None:
    """As many open sockets as the kernel lets us have."""
    _soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def is_raw(protocol: str) -> bool:
    """True if we write the transport header ourselves."""
    return protocol in ("gre", "icmp", "icmpv6") or protocol.isdigit()


def payload(packet: bytes, family: str, protocol: str) -> bytes:
    """What follows the headers that a raw socket hands over."""
    if is_raw(protocol) and family == "ipv4":
        packet = packet[(packet[0] & 0x0F) * 4 :]
    return packet.removeprefix(GRE_HEADER) if protocol == "gre" else packet


def framed(text: bytes, protocol: str) -> bytes:
    """A message as it is sent."""
    return GRE_HEADER + text if protocol == "gre" else text


def echo_request(protocol: str, ident: int) -> bytes:
    """An ICMP echo request; the kernel fills in the checksum for IPv6 only."""
    kind = 8 if protocol == "icmp" else 128
    packet = struct.pack("!BBHHH", kind, 0, 0, ident, 1)
    if protocol == "icmpv6":
        return packet
    total = sum(struct.unpack("!4H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", kind, 0, ~total & 0xFFFF, ident, 1)


def is_echo_reply(packet: bytes, protocol: str, ident: int) -> bool:
    """True if the packet answers our echo request."""
    if len(packet) < 8:
        return False
    kind, _code, _checksum, its_ident, _number = struct.unpack("!BBHHH", packet[:8])
    return bool(kind == (0 if protocol == "icmp" else 129) and its_ident == ident)
