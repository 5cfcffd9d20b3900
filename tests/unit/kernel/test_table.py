# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole maps: each flow once, those that a filter lets through."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import table
from btfleet._kernel.conntrack.flow import Flow, decode
from btfleet._kernel.conntrack.table import Filter
from btfleet._kernel.errors import TrackerError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel.wanted_flows import wanted_flows
from tests.unit.kernel_access import (
    MASQUERADED,
    MASQUERADED_V6,
    PING,
    Wanted,
    needs_bpf,
    tracker_map,
)

MAPPED = Wanted(
    orig=("::ffff:10.0.0.2", 5, "2001:db8::1", 53), reply=("2001:db8::1", 53, "2001:db8::2", 5)
)


def decoded(wanted: Wanted) -> Flow:
    key, value = wanted.entries()[0]
    return decode(key, value, "live")


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
        ({"address": "::ffff:10.0.0.2"}, MASQUERADED, True),
        ({"address": "10.0.0.2"}, MAPPED, True),
        ({"address": "::ffff:10.0.0.2"}, MAPPED, True),
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
        assert table.translations(table.flows(fd, "live"), 10) == ([], False)


@needs_bpf
@pytest.mark.parametrize(
    ("limit", "given_count", "more"), [(0, 0, True), (1, 1, True), (3, 3, False), (9, 3, False)]
)
def test_a_limit_says_whether_there_is_more(limit: int, given_count: int, more: bool) -> None:
    with tracker_map() as fd:
        for flow in (MASQUERADED, MASQUERADED_V6, PING):
            flow.write(fd)
        rows, truncated = table.translations(table.flows(fd, "live"), limit)
        assert (len(rows), truncated) == (given_count, more)


@needs_bpf
def test_flows_of_a_namespace_that_is_gone_are_said_to_be_that() -> None:
    with tracker_map() as fd:
        replace(MASQUERADED, created_ns=5).write(fd)
        replace(PING, created_ns=7).write(fd)
        found = list(table.select(bpf.map_entries(fd), "live", None, {MASQUERADED.netns: 6}))
    assert sorted((flow.protocol, flow.state, flow.netns_gone) for flow in found) == [
        (1, "live", False),
        (6, "closed", True),
    ]
