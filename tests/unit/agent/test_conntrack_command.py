# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations as a person reads them, and what a person may write."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from btfleet import conntrack_command, flow_text, lookup_command
from btfleet._kernel.conntrack import netns
from btfleet._kernel.conntrack.flow import Flow, decode
from btfleet._kernel.errors import TrackerError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel_access import MASQUERADED, MASQUERADED_V6, PING, Wanted


def flow(wanted: Wanted, state: str = "live") -> Flow:
    key, value = wanted.entries()[0]
    return decode(key, value, state)


# --- what a person writes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[::ffff:192.0.2.1]:80", ("::ffff:192.0.2.1", 80)),
        ("[192.0.2.1]:80", ("192.0.2.1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
    ],
)
def test_an_end_of_a_connection(text: str, expected: tuple[str, int]) -> None:
    assert lookup_command.parse_endpoint(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "192.0.2.1", "192.0.2.1:", ":80", "192.0.2.1:65536", "192.0.2.1:-1", "host:80"),
        *("2001:db8::1:80", "[2001:db8::1]", "[2001:db8::1]80", "[]:80", "192.0.2.1:80 ", "[x]:1"),
        "192.0.2.1:999999",
    ],
)
def test_what_is_no_end_of_a_connection(text: str) -> None:
    with pytest.raises(TrackerError) as caught:
        lookup_command.parse_endpoint(text)
    assert str(caught.value) == (
        f"{text!r} is no address with a port: write 192.0.2.1:80 or [2001:db8::1]:80"
    )


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_end_that_was_printed_can_be_given_back(address: object, port: int) -> None:
    text = flow_text.endpoint(str(address), port)
    assert lookup_command.parse_endpoint(text) == (str(address), port)


def test_a_namespace_by_number_or_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "names", lambda: {4026532000: "blue", 4026532001: "42"})
    assert flow_text.netns_number(None) is None
    assert flow_text.netns_number("4026531840") == 4026531840
    assert flow_text.netns_number("blue") == 4026532000
    assert flow_text.netns_number("42") == 42  # a number is always an inode


@pytest.mark.parametrize("text", ["red", "", "-1", "²", "4026531840 "])
def test_a_namespace_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(netns, "names", lambda: {4026532000: "blue"})
    with pytest.raises(TrackerError, match=r"^no network namespace .*: give an inode number, or a"):
        flow_text.netns_number(text)


# --- what a person reads -------------------------------------------------------------------------


def test_the_columns_of_a_flow() -> None:
    assert flow_text.row(flow(MASQUERADED), {}) == (
        "4026531840",
        "tcp",
        "10.0.0.2:40000 -> 192.0.2.1:80",
        "192.0.2.1:80 -> 203.0.113.1:1024",
        "live",
    )


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert flow_text.row(flow(MASQUERADED_V6), {})[2] == ("[fd00::2]:5353 -> [2001:db8::1]:53")


def test_icmp_has_id_and_type() -> None:
    assert flow_text.row(flow(PING), {})[2:4] == (
        "10.0.0.2 -> 192.0.2.1 id 7 type 8",
        "192.0.2.1 -> 203.0.113.1 id 7 type 0",
    )


def test_names_and_zones_stand_with_the_namespace() -> None:
    zoned = flow(replace(MASQUERADED, zones=(7, 7)))
    assert flow_text.row(zoned, {4026531840: "blue"})[0] == "blue zone 7"


def test_a_closed_flow_says_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 100 * 10**9)
    closed = flow(replace(MASQUERADED, closed_ns=97 * 10**9), "closed")
    assert flow_text.row(closed, {})[-1] == "closed 3 s ago"
    future = flow(replace(MASQUERADED, closed_ns=101 * 10**9), "closed")
    assert flow_text.row(future, {})[-1] == "closed 0 s ago"


def test_a_flow_of_a_namespace_that_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 100 * 10**9)
    key, value = replace(MASQUERADED, created_ns=5, closed_ns=97 * 10**9).entries()[0]
    gone = decode(key, value, "closed", 98 * 10**9)
    assert flow_text.row(gone, {})[-1] == "closed 3 s ago, its namespace is gone"


def test_columns_are_straight() -> None:
    rows: list[tuple[str, ...]] = [("A", "LONG HEAD", "C"), ("aaaa", "b", "c"), ("a", "b", "")]
    assert list(flow_text.aligned(rows)) == [
        "A     LONG HEAD  C",
        "aaaa  b          c",
        "a     b",
    ]


def test_what_came_and_what_went() -> None:
    one, two, three = flow(MASQUERADED), flow(MASQUERADED_V6), flow(PING)
    before, now = dict.fromkeys([one, two]), dict.fromkeys([two, three])
    assert list(conntrack_command.changes(before, now)) == [("+", three), ("-", one)]
    assert list(conntrack_command.changes(now, now)) == []
    assert list(conntrack_command.changes({}, now)) == [("+", two), ("+", three)]


def test_a_successor_with_the_same_tuple_is_another_flow() -> None:
    old = flow(replace(MASQUERADED, created_ns=1))
    new = flow(replace(MASQUERADED, created_ns=2))
    assert [sign for sign, _flow in conntrack_command.changes({old: None}, {new: None})] == [
        "+",
        "-",
    ]
