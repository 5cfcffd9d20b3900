# SPDX-License-Identifier: GPL-3.0-or-later
"""Waivers waive until their day is over, and then say that it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import (
    catalogue,
    waivers,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.host import Host
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.waivers import (
    InvalidWaiver,
)

from tests.unit.compliance.hosts import HOST, NOW, WANTED

STOPPED = replace(HOST, unfinished=("/etc/btfleet/.btfleet-x",))
TODAY, YESTERDAY = "2027-01-15", "2027-01-14"  # NOW is 08:00 that day


def given(**changes: Any) -> dict[str, Any]:
    return {
        "control": "files.unfinished",
        "owner": "jane@example.org",
        "reason": "before the move",
        "expires": TODAY,
        **changes,
    }


def assess(host: Host, *many: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parsed = waivers.parse(many, catalogue.WAIVABLE)
    return {one["id"]: one for one in catalogue.assess(host, WANTED, parsed)}


def test_a_waiver_waives_what_has_failed_and_says_who_and_why() -> None:
    found = assess(STOPPED, given())["files.unfinished"]
    assert found["status"] == "waived"
    assert found["waiver"] == {**given(), "hosts": [], "expired": False}
    assert found["actual"] == "/etc/btfleet/.btfleet-x"


def test_a_waiver_holds_through_its_last_day() -> None:
    one = waivers.parse([given()], catalogue.WAIVABLE)[0]
    assert not one.has_expired(NOW)
    midnight = NOW - NOW % 86400 + 86400
    assert not one.has_expired(midnight - 1)
    assert one.has_expired(midnight)


def test_an_expired_waiver_does_not_waive_and_is_reported() -> None:
    found = assess(STOPPED, given(expires=YESTERDAY))
    assert found["files.unfinished"]["status"] == "fail"
    assert found["files.unfinished"]["waiver"]["expired"] is True
    assert found["waivers.expired"]["status"] == "fail"
    assert "jane@example.org: before the move" in found["waivers.expired"]["actual"]


def test_an_expired_waiver_is_reported_where_its_control_passes_too() -> None:
    found = assess(HOST, given(expires=YESTERDAY))
    assert found["files.unfinished"]["status"] == "pass"
    assert found["waivers.expired"]["status"] == "fail"


def test_the_renewed_of_two_waivers_counts() -> None:
    found = assess(STOPPED, given(expires=YESTERDAY), given())
    assert found["files.unfinished"]["status"] == "waived"


def test_unknown_can_be_waived_and_what_passes_is_left_alone() -> None:
    blind = replace(HOST, clock=None)
    found = assess(blind, given(control="clock.synchronised"), given(control="tracker.pins"))
    assert found["clock.synchronised"]["status"] == "waived"
    assert (found["tracker.pins"]["status"], found["tracker.pins"]["waiver"]) == ("pass", None)


@pytest.mark.parametrize(
    ("hosts", "status"),
    [(["gw1"], "waived"), (["gw*"], "waived"), (["gw2", "edge*"], "fail"), ([], "waived")],
)
def test_a_waiver_is_for_the_hosts_that_it_names(hosts: list[str], status: str) -> None:
    assert assess(STOPPED, given(hosts=hosts))["files.unfinished"]["status"] == status


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": "tracker.magic"}, r"waiver 1 is for 'tracker.magic', which is no control"),
        ({"control": "waivers.expired"}, r"no control that can be waived"),
        ({"expires": "next year"}, r"waiver 1 \(for files.unfinished\) expires 'next year'"),
        ({"expires": "2027-02-30"}, r"needed: a date as 2030-12-31"),
        ({"reason": " "}, r"waiver 1 has no reason"),
        ({"owner": None}, r"waiver 1 has no owner"),
    ],
)
def test_a_waiver_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWaiver, match=message):
        waivers.parse([given(**changes)], catalogue.WAIVABLE)


def test_a_waiver_expires_by_the_control_nodes_clock() -> None:
    parsed = waivers.parse([given()], catalogue.WAIVABLE)
    late = replace(STOPPED, now=NOW + 10 * 86400)
    found = {one["id"]: one["status"] for one in catalogue.assess(late, WANTED, parsed)}
    assert found["files.unfinished"] == "waived"
