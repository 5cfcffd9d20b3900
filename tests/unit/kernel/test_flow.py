# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries become flows, whatever direction, family or protocol they are of, and text."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace

import pytest
from btfleet._kernel.conntrack.flow import (
    PROTOCOLS,
    Flow,
    decode,
    make_key,
    parse_address,
    protocol_name,
    protocol_number,
    to_dict,
    to_json,
)
from btfleet._kernel.errors import TrackerError
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.kernel.wanted_flows import wanted_flows
from tests.unit.kernel_access import MASQUERADED, MASQUERADED_V6, PING, Wanted


def decoded(wanted: Wanted, state: str = "live", netns_ended_ns: int = 0) -> Flow:
    key, value = wanted.entries()[0]
    return decode(key, value, state, netns_ended_ns)


# --- one flow ------------------------------------------------------------------------------------


@given(wanted_flows())
def test_both_directions_of_a_flow_decode_to_the_same(wanted: Wanted) -> None:
    one, other = (decode(key, value, "live") for key, value in wanted.entries())
    assert one == other
    assert one.orig == wanted.orig
    assert one.reply == wanted.reply
    assert (one.netns, one.protocol) == (wanted.netns, wanted.protocol)
    assert (one.created_ns, one.closed_ns) == (wanted.created_ns, wanted.closed_ns)


def test_a_flow_as_json() -> None:
    assert to_dict(decoded(MASQUERADED)) == {
        "netns": 4026531840,
        "zone": 0,
        "family": "ipv4",
        "protocol": "tcp",
        "orig": {"src": "10.0.0.2", "sport": 40000, "dst": "192.0.2.1", "dport": 80},
        "reply": {"src": "192.0.2.1", "sport": 80, "dst": "203.0.113.1", "dport": 1024},
        "state": "live",
    }


def test_an_ipv6_flow_as_json() -> None:
    data = to_dict(decoded(MASQUERADED_V6))
    assert (data["family"], data["protocol"], data["state"]) == ("ipv6", "udp", "live")
    assert data["orig"] == {"src": "fd00::2", "sport": 5353, "dst": "2001:db8::1", "dport": 53}


def test_icmp_has_an_id_a_type_and_a_code_instead_of_ports() -> None:
    data = to_dict(decoded(PING))
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
        data = to_dict(decode(key, value, "live"))
        assert {name: data[name] for name in ("zone", "zone_dir") if name in data} == expected


@pytest.mark.parametrize(
    ("number", "name"),
    [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmpv6"), (132, "sctp"), (255, "255"), (0, "0")],
)
def test_protocols_have_names_or_go_by_number(number: int, name: str) -> None:
    assert protocol_name(number) == name
    assert protocol_number(name) == number
    assert protocol_number(name.upper()) == number
    assert protocol_number(str(number)) == number


def test_protocol_names_are_those_of_the_system() -> None:
    """/etc/protocols has another spelling for one of them."""
    for number, name in PROTOCOLS.items():
        try:
            assert socket.getprotobyname({"icmpv6": "ipv6-icmp"}.get(name, name)) == number
        except OSError:
            pytest.skip("no /etc/protocols on this machine")


@pytest.mark.parametrize("text", ["", "256", "-1", "tcpp", "6.0", "²", "٣", " 6", "99999999999"])
def test_a_protocol_that_is_none(text: str) -> None:
    with pytest.raises(TrackerError, match=r"^protocol is .*, needed: icmp, .* below 256"):
        protocol_number(text)


@given(wanted_flows(), st.sampled_from(["live", "closed"]), st.sampled_from([0, 2**64 - 1]))
def test_the_text_is_the_json_of_the_data(wanted: Wanted, state: str, ended: int) -> None:
    flow = decoded(wanted, state, ended)
    assert json.loads(to_json(flow)) == to_dict(flow)
    assert to_json(flow) == json.dumps(to_dict(flow))


# --- age, and the life of its namespace ----------------------------------------------------------


def test_a_closed_flow_says_how_long_ago_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 100 * 10**9)
    closed = decoded(replace(MASQUERADED, closed_ns=97 * 10**9), "closed")
    assert closed.closed_seconds_ago == 3
    assert to_dict(closed)["closed_seconds_ago"] == 3
    future = decoded(replace(MASQUERADED, closed_ns=101 * 10**9), "closed")
    assert future.closed_seconds_ago == 0
    assert decoded(MASQUERADED).closed_seconds_ago is None
    assert "closed_seconds_ago" not in to_dict(decoded(MASQUERADED))


@pytest.mark.parametrize(
    ("created", "ended", "gone"), [(5, 0, False), (5, 4, False), (5, 5, True), (5, 6, True)]
)
def test_an_entry_from_before_the_end_of_its_namespace_is_none_of_the_next_with_its_number(
    created: int, ended: int, gone: bool
) -> None:
    live = decoded(replace(MASQUERADED, created_ns=created), "live", ended)
    assert (live.netns_gone, live.state) == (gone, "closed" if gone else "live")
    assert to_dict(live).get("netns_gone", False) is gone
    assert live.closed_ns == (ended if gone else 0)
    closed = decoded(replace(MASQUERADED, created_ns=created, closed_ns=7), "closed", ended)
    assert (closed.netns_gone, closed.state, closed.closed_ns) == (gone, "closed", 7)


# --- addresses and keys --------------------------------------------------------------------------


@given(st.binary(min_size=4, max_size=4))
def test_an_ipv4_address_in_ipv6_form_is_the_ipv4_address(raw: bytes) -> None:
    plain = socket.inet_ntoa(raw)
    for text in (f"::ffff:{plain}", f"::FFFF:{raw[:2].hex()}:{raw[2:].hex()}"):
        assert parse_address(text) == parse_address(plain) == (socket.AF_INET, raw)


def test_an_interface_is_no_part_of_an_address() -> None:
    assert parse_address("fe80::1%eth0") == parse_address("fe80::1")


def key_of(flow: Wanted, ends: tuple[str, int, str, int], zone: int = 0) -> bytes:
    return make_key(flow.netns, zone, flow.protocol, *ends)


@given(wanted_flows())
def test_a_made_key_is_the_one_that_the_object_writes(wanted: Wanted) -> None:
    assume(not any(str(end).startswith("::ffff:") for end in wanted.orig + wanted.reply))
    (orig, _value), (reply, _other) = wanted.entries()
    assert key_of(wanted, wanted.orig, wanted.zones[0]) == orig
    assert key_of(wanted, wanted.reply, wanted.zones[1]) == reply


@pytest.mark.parametrize(("src", "dst"), [("10.0.0.2", "fd00::1"), ("fd00::1", "10.0.0.2")])
def test_a_key_of_two_families(src: str, dst: str) -> None:
    with pytest.raises(TrackerError, match="are of two families: a flow has one"):
        make_key(1, 0, 6, src, 1, dst, 2)


@pytest.mark.parametrize("src", ["", "host", "10.0.0.256", "1", "fd00::g"])
def test_a_key_of_what_is_no_address(src: str) -> None:
    with pytest.raises(TrackerError, match="give IPv4 or IPv6 addresses"):
        make_key(1, 0, 6, src, 1, "10.0.0.1", 2)


@pytest.mark.parametrize(
    ("netns", "zone", "protocol", "sport"),
    [(2**32, 0, 6, 1), (-1, 0, 6, 1), (1, 65536, 6, 1), (1, 0, 256, 1), (1, 0, 6, 65536)],
)
def test_a_key_of_numbers_that_do_not_fit(netns: int, zone: int, protocol: int, sport: int) -> None:
    with pytest.raises(TrackerError, match=r"needed are numbers below 2\*\*32, 65536, 256 and"):
        make_key(netns, zone, protocol, "10.0.0.2", sport, "10.0.0.1", 2)
