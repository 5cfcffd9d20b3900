# SPDX-License-Identifier: GPL-3.0-or-later
"""Conntrack's messages: laid out here by the kernel's headers, and whatever else may come."""

from __future__ import annotations

import socket
import struct

import pytest
from btfleet._kernel.conntrack import ctnetlink
from btfleet._kernel.conntrack.ctnetlink import DELETE, NEW, Flow
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel_access import MASQUERADED, MASQUERADED_V6, PING, Wanted

MASQUERADED_GRE = Wanted(
    orig=("10.0.0.2", 5, "192.0.2.1", 6), reply=("192.0.2.1", 6, "203.0.113.1", 5), protocol=47
)


def attribute(kind: int, payload: bytes) -> bytes:
    raw = struct.pack("<HH", 4 + len(payload), kind) + payload
    return raw + bytes(-len(raw) % 4)


def ends(wanted: Wanted, end: tuple[str, int, str, int], zone: int | None) -> bytes:
    src, sport, dst, dport = end
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    first = 3 if family == socket.AF_INET6 else 1
    ip = attribute(first, socket.inet_pton(family, src))
    ip += attribute(first + 1, socket.inet_pton(family, dst))
    proto = attribute(1, bytes([wanted.protocol]))
    if wanted.protocol == 1:
        proto += attribute(4, struct.pack(">H", sport))
        proto += attribute(5, bytes([dport >> 8])) + attribute(6, bytes([dport & 0xFF]))
    else:
        proto += attribute(2, struct.pack(">H", sport)) + attribute(3, struct.pack(">H", dport))
    made = attribute(0x8001, ip) + attribute(0x8002, proto)
    return made + (attribute(3, struct.pack(">H", zone)) if zone else b"")


def message(wanted: Wanted, kind: int = NEW, zone: int = 0, orig_zone: int = 0) -> bytes:
    body = struct.pack("<BBH", wanted.family, 0, 0)
    body += attribute(0x8001, ends(wanted, wanted.orig, orig_zone))
    body += attribute(0x8002, ends(wanted, wanted.reply, None))
    body += attribute(3, bytes(4)) + attribute(12, struct.pack(">I", 0xC0FFEE))
    body += attribute(18, struct.pack(">H", zone)) if zone else b""
    return struct.pack("<IHHII", 16 + len(body), kind, 0, 0, 0) + body


def only(datagram: bytes) -> Flow:
    ((_kind, flow, _number),) = ctnetlink.messages(datagram)
    assert flow is not None
    return flow


@pytest.mark.parametrize("wanted", [MASQUERADED, MASQUERADED_V6, PING, MASQUERADED_GRE])
def test_a_flow_has_the_keys_that_the_maps_use(wanted: Wanted) -> None:
    flow = only(message(wanted))
    assert flow.keys(wanted.netns) == tuple(key for key, _value in wanted.entries())
    assert flow.cookie == 0xC0FFEE
    assert flow.is_translated


def test_zones_of_the_whole_flow_and_of_one_direction() -> None:
    both = only(message(MASQUERADED, zone=7))
    assert (both.orig.zone, both.reply.zone) == (7, 7)
    one = only(message(MASQUERADED, orig_zone=7))
    assert (one.orig.zone, one.reply.zone) == (7, 0)


@pytest.mark.parametrize(
    "reply",
    [("192.0.2.1", 80, "10.0.0.2", 40000), ("192.0.2.1", 80, "10.0.0.2", 40001)],
)
def test_a_reply_that_mirrors_is_no_translation(reply: tuple[str, int, str, int]) -> None:
    flow = only(message(Wanted(orig=MASQUERADED.orig, reply=reply)))
    assert flow.is_translated == (reply[3] != 40000)


def test_only_the_id_of_a_ping_can_be_translated() -> None:
    orig, reply = ("10.0.0.2", 7, "192.0.2.1", 8 << 8), ("192.0.2.1", 7, "10.0.0.2", 0)
    assert not only(message(Wanted(orig=orig, reply=reply, protocol=1))).is_translated


def test_several_messages_of_a_datagram() -> None:
    found = list(ctnetlink.messages(message(MASQUERADED) + message(PING, DELETE)))
    assert [kind for kind, _flow, _number in found] == [NEW, DELETE]


def test_settings_switch_ipv6_protocols_off() -> None:
    udp6 = only(message(MASQUERADED_V6))
    assert udp6.is_enabled(tcpv6=False, udpv6=True)
    assert not udp6.is_enabled(tcpv6=True, udpv6=False)
    assert only(message(MASQUERADED)).is_enabled(tcpv6=False, udpv6=False)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_crash(datagram: bytes) -> None:
    list(ctnetlink.messages(datagram))
    ctnetlink.end_of_answer(datagram)


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_message_is_a_flow_or_none(place: int, value: int) -> None:
    raw = bytearray(message(MASQUERADED_V6, orig_zone=3))
    raw[place % len(raw)] = value
    list(ctnetlink.messages(bytes(raw)))


@given(st.integers(16, 300))
def test_a_message_that_is_cut_off_is_counted_as_unread(size: int) -> None:
    raw = message(MASQUERADED)
    if size < len(raw):
        assert [flow for _kind, flow, _number in ctnetlink.messages(raw[:size])] == [None]


def test_the_end_of_an_answer() -> None:
    done = struct.pack("<IHHIIi", 20, 3, 0, 0, 0, 0)
    refused = struct.pack("<IHHIIi", 36, 2, 0, 0, 0, -2) + bytes(16)
    assert ctnetlink.end_of_answer(message(MASQUERADED)) is None
    assert ctnetlink.end_of_answer(message(MASQUERADED) + done) == 0
    assert ctnetlink.end_of_answer(refused) == 2


def test_the_number_of_flows_is_asked_for_and_read() -> None:
    # struct nlmsghdr with IPCTNL_MSG_CT_GET_STATS, struct nfgenmsg; CTA_STATS_GLOBAL_ENTRIES
    assert ctnetlink.count_request() == struct.pack("<IHHIIBBH", 20, 0x105, 1, 1, 0, 0, 0, 0)
    body = bytes(4) + struct.pack("<HH", 8, 1) + struct.pack(">I", 4711)
    answer = struct.pack("<IHHII", 16 + len(body), 0x105, 0, 1, 0) + body
    assert list(ctnetlink.messages(answer)) == [(ctnetlink.COUNT, None, 4711)]
    without = struct.pack("<IHHII", 20, 0x105, 0, 1, 0) + bytes(4)
    assert list(ctnetlink.messages(without)) == [(ctnetlink.COUNT, None, None)]
