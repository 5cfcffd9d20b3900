# SPDX-License-Identifier: GPL-3.0-or-later
"""Listings captured from conntrack 1.4.7, read into flows."""

from __future__ import annotations

import pytest

from tests.integration.nat.conntrack_text import parse, parse_line, translated
from tests.integration.nat.flow import Flow, Side, is_translated

MASQUERADE = (
    "ipv4     2 icmp     1 3598 src=10.77.9.2 dst=10.78.9.2 type=8 code=0 id=20084"
    " src=10.78.9.2 dst=10.78.9.1 type=0 code=0 id=20084 mark=0 zone=12 use=1"
)
ORIGINAL_ZONE = (
    "ipv6     10 tcp      6 431998 ESTABLISHED src=fd00:77:10::2 dst=fd00:78:10::2 sport=20091"
    " dport=5041 zone-orig=21 src=fd00:78:10::2 dst=fd00:78:10::1 sport=5041 dport=20091"
    " [ASSURED] mark=1 use=1"
)
UPPER_64 = (
    "ipv6     10 udp      17 3598 src=fd00:77:3::2 dst=fd00:78:3::2 sport=20029 dport=5012"
    " src=fd00:78:3::2 dst=fd00:99:3::2 sport=5012 dport=20029 mark=0 use=1"
)
PLAIN = (
    "ipv4     2 tcp      6 599 ESTABLISHED src=10.1.0.2 dst=10.1.0.3 sport=1001 dport=80"
    " [UNREPLIED] src=10.1.0.3 dst=10.1.0.2 sport=80 dport=1001 zone-reply=6 mark=0 use=1"
    " id=2207164332"
)
ICMP_6_WITH_ENTRY_ID = (
    "ipv6     10 icmpv6   58 3599 src=fd00:77:1::3 dst=fd00:78:1::2 type=128 code=0 id=20006"
    " src=fd00:78:1::2 dst=fd00:78:1::1 type=129 code=0 id=25151 mark=0 use=1 id=1439556295"
)
GRE = (
    "ipv4     2 gre      47 599 src=10.1.0.2 dst=10.1.0.3 srckey=0x1 dstkey=0x2 [UNREPLIED]"
    " src=10.1.0.3 dst=10.1.0.2 srckey=0x2 dstkey=0x1 mark=0 use=1"
)
UNKNOWN = (
    "ipv4     2 unknown  253 3598 src=10.77.1.2 dst=10.78.1.2 src=10.78.1.2 dst=10.78.1.1"
    " mark=0 use=1"
)


def test_icmp_in_a_zone() -> None:
    assert parse_line(MASQUERADE, 7) == Flow(
        7,
        12,
        "",
        "ipv4",
        "icmp",
        Side("10.77.9.2", "10.78.9.2", (20084, 8, 0)),
        Side("10.78.9.2", "10.78.9.1", (20084, 0, 0)),
    )


def test_zone_of_one_direction() -> None:
    flow = parse_line(ORIGINAL_ZONE, 7)
    assert (flow.zone, flow.zone_dir) == (21, "orig")
    assert flow.orig == Side("fd00:77:10::2", "fd00:78:10::2", (20091, 5041))
    assert flow.reply == Side("fd00:78:10::2", "fd00:78:10::1", (5041, 20091))
    plain = parse_line(PLAIN, 7)
    assert (plain.zone, plain.zone_dir) == (6, "reply")


def test_the_entry_id_is_not_taken_for_the_icmp_id() -> None:
    flow = parse_line(ICMP_6_WITH_ENTRY_ID, 7)
    assert flow.protocol == "icmpv6"
    assert (flow.orig.l4, flow.reply.l4) == ((20006, 128, 0), (25151, 129, 0))


def test_protocols_without_ports() -> None:
    assert parse_line(GRE, 7).orig.l4 == (1, 2)
    unknown = parse_line(UNKNOWN, 7)
    assert (unknown.protocol, unknown.orig.l4) == ("253", (0, 0))


@pytest.mark.parametrize("line", [MASQUERADE, ORIGINAL_ZONE, UPPER_64, UNKNOWN])
def test_translated(line: str) -> None:
    assert is_translated(parse_line(line, 7))


@pytest.mark.parametrize("line", [PLAIN, GRE])
def test_not_translated(line: str) -> None:
    assert not is_translated(parse_line(line, 7))


def test_an_icmp_id_alone_is_a_translation() -> None:
    mirror = (
        "ipv4 2 icmp 1 9 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=5"
        " src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id={}"
    )
    assert not is_translated(parse_line(mirror.format(5), 7))
    assert is_translated(parse_line(mirror.format(6), 7))


def test_a_port_alone_is_a_translation() -> None:
    assert is_translated(parse_line(PLAIN.replace("sport=80 ", "sport=81 "), 7))


def test_a_listing() -> None:
    flows = parse("\n".join((MASQUERADE, PLAIN, UPPER_64, "")), 7)
    assert len(flows) == 3
    assert translated(flows) == {flows[0], flows[2]}


@pytest.mark.parametrize(
    "line",
    [
        "conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.",
        "ipv4 2 tcp 6 599 src=10.1.0.2 dst=10.1.0.3 sport=1 dport=2",
        MASQUERADE.replace("dst=10.78.9.1 ", ""),
        MASQUERADE.replace("10.78.9.1", "10.78.9"),
    ],
)
def test_what_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"conntrack line|two directions|no 'dst'|address"):
        parse_line(line, 7)
