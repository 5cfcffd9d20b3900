# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of `btfleet conntrack dump --json`, strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.nat.dump_text import DumpError, parse
from tests.integration.nat.flow import Flow, Side

TCP: dict[str, Any] = {
    "netns": 4026531840,
    "zone": 0,
    "family": "ipv4",
    "protocol": "tcp",
    "orig": {"src": "10.0.0.1", "sport": 1, "dst": "10.0.0.2", "dport": 2},
    "reply": {"src": "10.0.0.2", "sport": 2, "dst": "10.0.0.9", "dport": 1},
    "state": "live",
}
ICMP: dict[str, Any] = {
    "netns": 5,
    "zone": 21,
    "zone_dir": "orig",
    "family": "ipv6",
    "protocol": "icmpv6",
    "orig": {"src": "fd00::1", "dst": "fd00::2", "id": 9, "type": 128, "code": 0},
    "reply": {"src": "fd00::2", "dst": "fd00::3", "id": 9, "type": 129, "code": 0},
    "state": "closed",
}


def test_flows_by_state() -> None:
    flows = parse(json.dumps(TCP) + "\n" + json.dumps(ICMP) + "\n")
    assert flows["live"] == [
        Flow(
            4026531840,
            0,
            "",
            "ipv4",
            "tcp",
            Side("10.0.0.1", "10.0.0.2", (1, 2)),
            Side("10.0.0.2", "10.0.0.9", (2, 1)),
        )
    ]
    assert flows["closed"][0].zone_dir == "orig"
    assert flows["closed"][0].orig.l4 == (9, 128, 0)


def test_a_state_that_was_not_asked_for() -> None:
    with pytest.raises(DumpError, match="'closed' was not asked for"):
        parse(json.dumps(ICMP), ("live",))


def test_a_protocol_by_number() -> None:
    flows = parse(json.dumps({**TCP, "protocol": "253"}))
    assert flows["live"][0].protocol == "253"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "6"}, "unknown protocol '6'"),
        ({"protocol": "TCP"}, "unknown protocol 'TCP'"),
        ({"family": "inet"}, "unknown family 'inet'"),
        ({"zone_dir": ""}, "unknown zone_dir ''"),
        ({"zone": "0"}, "'0' is not a number"),
        ({"orig": {"src": "10.0.0.1", "sport": 1, "dst": "10.0.0.2"}}, "no field 'dport'"),
        ({"orig": {**TCP["orig"], "src": "::1"}}, "is not an ipv4 address"),
        ({"reply": {**TCP["reply"], "dst": "10.0.0.1"}}, "not translated"),
    ],
)
def test_one_clear_line_for_a_wrong_field(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DumpError, match=reason) as caught:
        parse(json.dumps({**TCP, **change}))
    assert str(caught.value).startswith("line 1 of the dump: ")


def test_an_address_in_another_form() -> None:
    long = {**ICMP, "orig": {**ICMP["orig"], "src": "fd00:0::1"}}
    with pytest.raises(DumpError, match="not in its usual form"):
        parse(json.dumps(long))


@pytest.mark.parametrize("line", ["[]", "netns 5", ""])
def test_not_an_object(line: str) -> None:
    with pytest.raises(DumpError, match="line 1"):
        parse(line + "\n")
