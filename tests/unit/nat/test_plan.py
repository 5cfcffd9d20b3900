# SPDX-License-Identifier: GPL-3.0-or-later
"""The flows planned: every kind, no tuple twice."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.integration.nat import responder, rules, state, wanted
from tests.integration.nat.errors import NatError
from tests.integration.nat.kinds import KINDS
from tests.integration.nat.sites import FAMILIES, SITES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state out of /run."""
    monkeypatch.setattr(state, "FOLDER", tmp_path / "state")


def where(one: wanted.Wanted) -> tuple[object, ...]:
    """What has to be unique: a tuple in a namespace and zone."""
    group, caller = one.group, one.caller
    address = (caller.netns, one.source, one.port, one.target, group.kind.port)
    return (*address, group.protocol, caller.zone)


def test_every_group_is_planned_and_no_tuple_twice() -> None:
    groups = wanted.groups(KINDS)
    plan = [*wanted.plan(groups, 600), *wanted.plan(groups, 600)]
    assert {one.group for one in plan} == set(groups)
    assert len({where(one) for one in plan}) == len(plan)
    assert sum(one.group.kind.translated for one in plan) >= 1200


def test_ports_run_out_in_one_clear_line() -> None:
    wanted.take_ports("reuse", range(10), 8)
    with pytest.raises(NatError, match="no source ports are left for reuse"):
        wanted.take_ports("reuse", range(10), 3)


def test_callers_share_ports() -> None:
    group = wanted.groups(KINDS)[0]
    first, second = islice(wanted.flows(group, iter(range(5, 9))), 2)
    assert first.port == second.port == 5
    assert first.source != second.source


def test_what_is_skipped_is_not_planned() -> None:
    protocols = {group.protocol for group in wanted.groups(KINDS, {"sctp": "not there"})}
    assert "sctp" not in protocols
    assert {"tcp", "udp", "icmp", "icmpv6", "gre", "253"} <= protocols


def test_no_place_is_listened_on_twice() -> None:
    places = responder.places(wanted.groups(KINDS))
    assert len(places) == len(set(places))


def test_only_the_ipv6_kind_changes_the_upper_half_only() -> None:
    site = next(kind.site for kind in KINDS if kind.name == "nft-snat-upper64")
    assert "fd00:77:3::2 snat to fd00:99:3::2" in rules.nft(site, "ipv6")
    assert rules.nft(site, "ipv4").count("snat to") == 2


def test_every_site_has_rules_in_both_families() -> None:
    for site in SITES:
        for family in FAMILIES:
            assert rules.nft(site, family) or rules.iptables(site, family)
