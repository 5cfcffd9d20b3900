# SPDX-License-Identifier: GPL-3.0-or-later
"""Fills the kernel's conntrack table with translated flows, fast, by raw ctnetlink messages."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink_conntrack.h: subsystem CTNETLINK << 8 | message
NEW, DELETE = 1 << 8, 1 << 8 | 2
REQUEST, ACK, EXCL, CREATE = 0x1, 0x4, 0x200, 0x400
NESTED = 0x8000
# enum ctattr_type
TUPLE_ORIG, TUPLE_REPLY, NAT_SRC, TIMEOUT = 1, 2, 6, 7
UDP = 17

MESSAGES_A_CALL = 200
NAT_ADDRESS = "203.0.113.1"
FIRST_PORT, PORTS = 1024, 60000

NETFILTER = Path("/proc/sys/net/netfilter")


def attribute(kind: int, data: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def direction(kind: int, src: bytes, sport: int, dst: bytes, dport: int) -> bytes:
    """CTA_TUPLE_ORIG or CTA_TUPLE_REPLY of a UDP flow."""
    addresses = attribute(1, src) + attribute(2, dst)
    protocol = (
        attribute(1, bytes([UDP]))
        + attribute(2, struct.pack(">H", sport))
        + attribute(3, struct.pack(">H", dport))
    )
    parts = attribute(1 | NESTED, addresses) + attribute(2 | NESTED, protocol)
    return attribute(kind | NESTED, parts)


def message(src: bytes, sport: int, dst: bytes, dport: int, is_translated: bool = True) -> bytes:
    """IPCTNL_MSG_CT_NEW of a flow; the kernel is to translate its source to NAT_ADDRESS, or not."""
    nat = socket.inet_aton(NAT_ADDRESS)
    body = (
        struct.pack(">BBH", socket.AF_INET, 0, 0)
        + direction(TUPLE_ORIG, src, sport, dst, dport)
        + direction(TUPLE_REPLY, dst, dport, src, sport)
        + (
            attribute(NAT_SRC | NESTED, attribute(1, nat) + attribute(2, nat))
            if is_translated
            else b""
        )
        + attribute(TIMEOUT, struct.pack(">I", 86400))
    )
    return struct.pack("=IHHII", len(body) + 16, NEW, REQUEST | CREATE | EXCL, 0, 0) + body


def messages(count: int, is_translated: bool = True) -> Iterator[bytes]:
    """Distinct flows: one message is built, then its source port and destination are changed."""
    marker = (b"\x0a\x63\x01\x02", 0xA1A2, b"\xc6\x12\xfe\xfd", 0xB1B2)
    template = message(*marker, is_translated)
    ports = _places(template, struct.pack(">H", marker[1]))
    targets = _places(template, marker[2])
    for number in range(count):
        made = bytearray(template)
        for place in ports:
            struct.pack_into(">H", made, place, FIRST_PORT + number % PORTS)
        for place in targets:  # 198.18.0.0/15, for benchmarks
            struct.pack_into(">I", made, place, 0xC6120001 + number // PORTS)
        yield bytes(made)


def _places(text: bytes, part: bytes) -> list[int]:
    return [place for place in range(len(text)) if text.startswith(part, place)]


def fill(count: int, is_translated: bool = True) -> None:
    """Adds `count` flows to this namespace; raises RuntimeError if some are missing."""
    make_room(count)
    before = table_size()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        waiting: list[bytes] = []
        for made in messages(count, is_translated):
            waiting.append(made)
            if len(waiting) == MESSAGES_A_CALL:
                netlink.send(b"".join(waiting))
                waiting.clear()
        if waiting:
            netlink.send(b"".join(waiting))
    if table_size() - before < count:
        raise RuntimeError(f"only {table_size() - before} of {count} flows are in the table")


def make_room(count: int) -> None:
    """A table, and a hash, that hold that many."""
    limit = NETFILTER / "nf_conntrack_max"
    if int(limit.read_text()) < count * 5 // 4:
        limit.write_text(str(count * 2))
        Path("/sys/module/nf_conntrack/parameters/hashsize").write_text(str(count))


def table_size() -> int:
    """How many flows this namespace has."""
    return int((NETFILTER / "nf_conntrack_count").read_text())


def only(count: int) -> None:
    """Exactly these flows, and no others."""
    flush()
    fill(count)


def flush() -> None:
    """An empty table."""
    subprocess.run(["conntrack", "-F"], stderr=subprocess.DEVNULL, check=True)


# The first flow that fill() makes, as options of conntrack and as ends of a btfleet look-up
FIRST_AS_OPTIONS = (
    *("-p", "udp", "-s", "10.99.1.2", "-d", "198.18.0.1"),
    *("--sport", "1024", "--dport", "45490"),
)
FIRST_AS_ENDS = ("10.99.1.2", 1024, "198.18.0.1", 45490)
