# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets written and read by the traffic maker itself."""

from __future__ import annotations

import struct

import pytest

from tests.integration.nat import sockets
from tests.integration.nat.dialer import parse_answer
from tests.integration.nat.errors import NatError
from tests.integration.nat.flow import Side
from tests.integration.nat.responder import describe


def test_the_checksum_of_an_echo_request() -> None:
    words = struct.unpack("!4H", sockets.echo_request("icmp", 0xFFF0))
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_an_echo_reply_is_known_by_its_id() -> None:
    reply = struct.pack("!BBHHH", 129, 0, 0, 77, 1)
    assert sockets.is_echo_reply(reply, "icmpv6", 77)
    assert not sockets.is_echo_reply(reply, "icmpv6", 78)
    assert not sockets.is_echo_reply(reply, "icmp", 77)
    assert not sockets.is_echo_reply(b"", "icmp", 77)


def test_headers_of_raw_packets_are_removed() -> None:
    header = b"\x45" + bytes(19)
    assert sockets.payload(header + b"text", "ipv4", "253") == b"text"
    assert sockets.payload(b"text", "ipv6", "253") == b"text"
    framed = sockets.framed(b"text", "gre")
    assert sockets.payload(header + framed, "ipv4", "gre") == b"text"
    assert sockets.payload(b"text", "ipv4", "udp") == b"text"


def test_an_answer_is_read_as_the_reply_direction() -> None:
    packet = describe(("fd00::2", 80), ("fd00::9", 4000))
    assert parse_answer(packet) == Side("fd00::2", "fd00::9", (80, 4000))


def test_an_answer_of_somebody_else() -> None:
    with pytest.raises(NatError, match="not ours"):
        parse_answer(b"HTTP/1.1 400 Bad Request\r\n")
