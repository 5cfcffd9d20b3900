# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries become flows, whatever direction, family or protocol they are of."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import replace
from typing import Any

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import table
from btfleet._kernel.conntrack.table import Filter, Flow
from btfleet._kernel.errors import TrackerError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel_access import (
    MASQUERADED,
    MASQUERADED_V6,
    PING,
    Wanted,
    needs_bpf,
    tracker_map,
)

ports = st.integers(0, 65535)
v4 = st.binary(min_size=4, max_size=4).map(socket.inet_ntoa)
v6 = (
    st.binary(min_size=16, max_size=16)
    | st.binary(min_size=4, max_size=4).map(lambda end: bytes(10) + b"\xff\xff" + end)
    | st.binary(min_size=4, max_size=4).map(lambda end: bytes(12) + end)
).map(lambda raw: socket.inet_ntop(socket.AF_INET6, raw))


@st.composite
def wanted_flows(draw: st.DrawFn) -> Wanted:
    addresses = draw(st.sampled_from([v4, v6]))
    end = st.tuples(addresses, ports, addresses, ports)
    return Wanted(
        orig=draw(end),
        reply=draw(end),
        protocol=draw(st.integers(0, 255)),
        netns=draw(st.integers(0, 2**32 - 1)),
        zones=draw(
            st.tuples(ports, st.just(0))
            | st.tuples(st.just(0), ports)
            | ports.map(lambda zone: (zone, zone))
        ),
        ct=draw(st.integers(0, 2**64 - 1)),
        created_ns=draw(st.integers(0, 2**64 - 1)),
        closed_ns=draw(st.integers(0, 2**64 - 1)),
    )


def decoded(wanted: Wanted, state: str = "live") -> Flow:
    key, value = wanted.entries()[0]
    return table.decode(key, value, state)


# --- one flow ------------------------------------------------------------------------------------


@given(wanted_flows())
def test_both_directions_of_a_flow_decode_to_the_same(wanted: Wanted) -> None:
    one, other = (table.decode(key, value, "live") for key, value in wanted.entries())
    assert one == other
    assert one.orig == wanted.orig
    assert one.reply == wanted.reply
    assert (one.netns, one.protocol) == (wanted.netns, wanted.protocol)
    assert (one.created_ns, one.closed_ns) == (wanted.created_ns, wanted.closed_ns)


def test_a_flow_as_json() -> None:
    assert table.to_dict(decoded(MASQUERADED)) == {
        "netns": 4026531840,
        "zone": 0,
        "family": "ipv4",
        "protocol": "tcp",
        "orig": {"src": "10.0.0.2", "sport": 40000, "dst": "192.0.2.1", "dport": 80},
        "reply": {"src": "192.0.2.1", "sport": 80, "dst": "203.0.113.1", "dport": 1024},
        "state": "live",
    }


def test_an_ipv6_flow_as_json() -> None:
    data = table.to_dict(decoded(MASQUERADED_V6, "closed"))
    assert (data["family"], data["protocol"], data["state"]) == ("ipv6", "udp", "closed")
    assert data["orig"] == {"src": "fd00::2", "sport": 5353, "dst": "2001:db8::1", "dport": 53}


def test_icmp_has_an_id_a_type_and_a_code_instead_of_ports() -> None:
    data = table.to_dict(decoded(PING))
    assert data["protocol"] == "icmp"
    assert data["orig"] == {"src": "10.0.0.2", "dst": "192.0.2.1", "id": 7, "type": 8, "code": 0}
    assert data["reply"] == {
        "src": "192.0.2.1",
        "dst": "203.0.113.1",
        "id": 7,
        "type": 0,
        "code": 0,
    }


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ((0, 0), {"zone": 0}),
        ((7, 7), {"zone": 7}),
        ((7, 0), {"zone": 7, "zone_dir": "orig"}),
        ((0, 7), {"zone": 7, "zone_dir": "reply"}),
    ],
)
def test_a_zone_of_one_direction_says_which(
    zones: tuple[int, int], expected: dict[str, object]
) -> None:
    for key, value in replace(MASQUERADED, zones=zones).entries():
        data = table.to_dict(table.decode(key, value, "live"))
        assert {name: data[name] for name in ("zone", "zone_dir") if name in data} == expected


@pytest.mark.parametrize(
    ("number", "name"),
    [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmpv6"), (132, "sctp"), (255, "255"), (0, "0")],
)
def test_protocols_have_names_or_go_by_number(number: int, name: str) -> None:
    assert table.protocol_name(number) == name
    assert table.protocol_number(name) == number
    assert table.protocol_number(name.upper()) == number
    assert table.protocol_number(str(number)) == number


def test_protocol_names_are_those_of_the_system() -> None:
    """/etc/protocols has another spelling for one of them."""
    for number, name in table.PROTOCOLS.items():
        try:
            assert socket.getprotobyname({"icmpv6": "ipv6-icmp"}.get(name, name)) == number
        except OSError:
            pytest.skip("no /etc/protocols on this machine")


@pytest.mark.parametrize("text", ["", "256", "-1", "tcpp", "6.0", "²", "٣", " 6", "99999999999"])
def test_a_protocol_that_is_none(text: str) -> None:
    with pytest.raises(TrackerError, match=r"^protocol is .*, needed: icmp, .* below 256"):
        table.protocol_number(text)


# --- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "flow", "expected"),
    [
        ({}, MASQUERADED, True),
        ({"netns": 4026531840}, MASQUERADED, True),
        ({"netns": 1}, MASQUERADED, False),
        ({"address": "10.0.0.2"}, MASQUERADED, True),
        ({"address": "203.0.113.1"}, MASQUERADED, True),
        ({"address": "192.0.2.1"}, MASQUERADED, True),
        ({"address": "10.0.0.3"}, MASQUERADED, False),
        ({"address": "FD00:0:0::2"}, MASQUERADED_V6, True),
        ({"port": 80}, MASQUERADED, True),
        ({"port": 1024}, MASQUERADED, True),
        ({"port": 81}, MASQUERADED, False),
        ({"port": 7}, PING, False),
        ({"port": 0}, PING, False),
        ({"address": "10.0.0.2"}, PING, True),
        ({"protocol": "tcp"}, MASQUERADED, True),
        ({"protocol": "17"}, MASQUERADED, False),
        ({"protocol": "udp", "port": 53, "address": "fd00::2"}, MASQUERADED_V6, True),
        ({"protocol": "udp", "port": 54, "address": "fd00::2"}, MASQUERADED_V6, False),
    ],
)
def test_a_filter_matches_either_end_either_way(
    settings: dict[str, Any], flow: Wanted, expected: bool
) -> None:
    wanted = Filter.parse(**settings)
    assert wanted.matches(decoded(flow)) is expected
    assert wanted.is_empty is (not settings)


@given(wanted_flows(), st.integers(0, 3))
def test_a_flow_is_found_by_each_address_however_it_is_written(wanted: Wanted, end: int) -> None:
    address = (wanted.orig + wanted.reply)[end * 2]
    flow = decoded(wanted)
    for text in (str(address), str(ipaddress.ip_address(address)).upper()):
        assert Filter.parse(address=text).matches(flow)
    if ":" in str(address):
        assert Filter.parse(address=ipaddress.IPv6Address(address).exploded).matches(flow)


@pytest.mark.parametrize("address", ["", "10.0.0", "10.0.0.256", "host", "fd00::2::1", "1.2.3.4/8"])
def test_a_filter_of_what_is_no_address(address: str) -> None:
    with pytest.raises(TrackerError, match=r"^address is .*, needed: an IPv4 or IPv6 address"):
        Filter.parse(address=address)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_filter_of_what_is_no_port(port: int) -> None:
    with pytest.raises(TrackerError, match=f"^port is {port}, needed: a number from 0 to 65535"):
        Filter.parse(port=port)


# --- maps ----------------------------------------------------------------------------------------


def flow_number(number: int) -> Wanted:
    return replace(MASQUERADED, orig=("10.0.0.2", number, "192.0.2.1", 80), ct=number + 1)


@needs_bpf
def test_each_flow_of_a_map_comes_once() -> None:
    with tracker_map() as fd:
        for number in range(300):
            flow = flow_number(number)
            flow = replace(flow, reply=(*flow.reply[:3], 1024 + number))
            flow.write(fd)
        assert sorted(flow.orig[1] for flow in table.flows(fd, "live")) == list(range(300))


@needs_bpf
def test_an_empty_map_has_no_flows() -> None:
    with tracker_map() as fd:
        assert list(table.flows(fd, "live")) == []
        assert list(table.json_lines(fd, "live")) == []
        assert table.translations({"live": bpf.map_entries(fd)}, Filter(), 10) == ([], False)


@needs_bpf
@pytest.mark.parametrize(
    ("limit", "given_count", "more"), [(0, 0, True), (1, 1, True), (3, 3, False), (9, 3, False)]
)
def test_a_limit_says_whether_there_is_more(limit: int, given_count: int, more: bool) -> None:
    with tracker_map() as fd:
        for flow in (MASQUERADED, MASQUERADED_V6, PING):
            flow.write(fd)
        rows, truncated = table.translations({"live": bpf.map_entries(fd)}, Filter(), limit)
        assert (len(rows), truncated) == (given_count, more)


@needs_bpf
def test_translations_of_several_maps_are_filtered_together() -> None:
    with tracker_map() as live, tracker_map() as closed:
        MASQUERADED.write(live)
        MASQUERADED_V6.write(live)
        PING.write(closed)
        maps = {"live": bpf.map_entries(live), "closed": bpf.map_entries(closed)}
        rows, more = table.translations(maps, Filter.parse(address="10.0.0.2"), 2)
    assert [(row["protocol"], row["state"]) for row in rows] == [
        ("tcp", "live"),
        ("icmp", "closed"),
    ]
    assert not more


@needs_bpf
@given(st.lists(wanted_flows(), max_size=12))
def test_json_lines_are_the_flows_as_json(flows: list[Wanted]) -> None:
    with tracker_map() as fd:
        for flow in flows:
            flow.write(fd)
        lines = b"".join(table.json_lines(fd, "live")).decode()
        expected = [json.dumps(table.to_dict(flow)) + "\n" for flow in table.flows(fd, "live")]
    assert sorted(lines.splitlines(keepends=True)) == sorted(expected)


@needs_bpf
@pytest.mark.parametrize("family", [0, 1, 255])
def test_an_unknown_family_goes_by_its_number_in_both_forms(family: int) -> None:
    key, value = MASQUERADED_V6.entries()[0]
    key = key[:6] + bytes([family]) + key[7:]
    with tracker_map() as fd:
        bpf.map_update(fd, key, value)
        (line,) = table.json_lines(fd, "closed")
        (flow,) = table.flows(fd, "closed")
    assert json.loads(line) == table.to_dict(flow)
    assert json.loads(line)["family"] == str(family)


@needs_bpf
def test_text_of_addresses_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_CACHED_ADDRESSES", 3)
    with tracker_map() as fd:
        for number in range(50):
            flow = replace(MASQUERADED, orig=(f"10.0.0.{number}", 1, "192.0.2.1", 80))
            replace(flow, reply=("192.0.2.1", 80, "203.0.113.1", number)).write(fd)
        lines = b"".join(table.json_lines(fd, "live")).decode().splitlines()
    assert {json.loads(line)["orig"]["src"] for line in lines} == {
        f"10.0.0.{number}" for number in range(50)
    }


# --- look-up -------------------------------------------------------------------------------------


def key_of(flow: Wanted, ends: tuple[str, int, str, int], zone: int = 0) -> bytes:
    return table.make_key(flow.netns, zone, flow.protocol, *ends)


@given(wanted_flows())
def test_a_made_key_is_the_one_that_the_object_writes(wanted: Wanted) -> None:
    (orig, _value), (reply, _other) = wanted.entries()
    assert key_of(wanted, wanted.orig, wanted.zones[0]) == orig
    assert key_of(wanted, wanted.reply, wanted.zones[1]) == reply


@needs_bpf
def test_a_look_up_finds_either_direction_and_live_before_closed() -> None:
    with tracker_map() as live, tracker_map() as closed:
        maps = {"live": live, "closed": closed}
        assert table.lookup(maps, key_of(MASQUERADED, MASQUERADED.orig)) is None
        replace(MASQUERADED, closed_ns=5).write(closed)
        for ends in (MASQUERADED.orig, MASQUERADED.reply):
            found = table.lookup(maps, key_of(MASQUERADED, ends))
            assert found is not None
            assert (found.state, found.closed_ns, found.orig) == ("closed", 5, MASQUERADED.orig)
        successor = replace(MASQUERADED, reply=("192.0.2.1", 80, "203.0.113.1", 2048))
        successor.write(live)
        found = table.lookup(maps, key_of(MASQUERADED, MASQUERADED.orig))
        assert found is not None
        assert (found.state, found.reply) == ("live", successor.reply)
        assert table.lookup(maps, key_of(MASQUERADED, MASQUERADED.orig, zone=1)) is None


@pytest.mark.parametrize(("src", "dst"), [("10.0.0.2", "fd00::1"), ("fd00::1", "10.0.0.2")])
def test_a_key_of_two_families(src: str, dst: str) -> None:
    with pytest.raises(TrackerError, match="are of two families: a flow has one"):
        table.make_key(1, 0, 6, src, 1, dst, 2)


@pytest.mark.parametrize("src", ["", "host", "10.0.0.256", "1", "fd00::g"])
def test_a_key_of_what_is_no_address(src: str) -> None:
    with pytest.raises(TrackerError, match="give IPv4 or IPv6 addresses"):
        table.make_key(1, 0, 6, src, 1, "10.0.0.1", 2)


@pytest.mark.parametrize(
    ("netns", "zone", "protocol", "sport"),
    [(2**32, 0, 6, 1), (-1, 0, 6, 1), (1, 65536, 6, 1), (1, 0, 256, 1), (1, 0, 6, 65536)],
)
def test_a_key_of_numbers_that_do_not_fit(netns: int, zone: int, protocol: int, sport: int) -> None:
    with pytest.raises(TrackerError, match=r"needed are numbers below 2\*\*32, 65536, 256 and"):
        table.make_key(netns, zone, protocol, "10.0.0.2", sport, "10.0.0.1", 2)
