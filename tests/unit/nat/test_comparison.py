# SPDX-License-Identifier: GPL-3.0-or-later
"""What is missing, extra or only on its way, and what the flows' ends saw."""

from __future__ import annotations

from tests.integration.nat.comparison import OTHER, Witness, compare, judge
from tests.integration.nat.flow import Flow, Side, key_of


def flow(port: int, nat_port: int = 0, zone: int = 0) -> Flow:
    """A masqueraded flow."""
    return Flow(
        7,
        zone,
        "",
        "ipv4",
        "tcp",
        Side("10.0.0.1", "10.0.0.2", (port, 80)),
        Side("10.0.0.2", "10.0.0.9", (80, nat_port or port)),
    )


def test_the_same() -> None:
    flows = {flow(1), flow(2)}
    result = compare(flows, list(flows), flows)
    assert result.ok
    assert result.agreed == flows


def test_missing_and_extra() -> None:
    flows = {flow(1), flow(2)}
    result = compare(flows, [flow(1), flow(3)], flows)
    assert not result.ok
    assert (result.missing, result.extra) == ([flow(2)], [flow(3)])
    assert result.agreed == {flow(1)}


def test_what_comes_or_goes_meanwhile_is_not_judged() -> None:
    before, after = {flow(1), flow(2)}, {flow(1), flow(3)}
    for dumped in ([flow(1)], [flow(1), flow(2)], [flow(1), flow(2), flow(3)]):
        result = compare(before, dumped, after)
        assert result.ok
        assert result.unsettled == [flow(2), flow(3)]


def test_another_translation_is_missing_and_extra() -> None:
    result = compare({flow(1)}, [flow(1, 5000)], {flow(1)})
    assert (result.missing, result.extra) == ([flow(1)], [flow(1, 5000)])


def test_another_zone_is_another_flow() -> None:
    both = {flow(1, zone=11), flow(1, zone=12)}
    assert compare(both, sorted(both), both).ok
    assert compare(both, [flow(1, zone=11)], both).missing == [flow(1, zone=12)]


def test_printed_twice() -> None:
    result = compare({flow(1)}, [flow(1), flow(1)], {flow(1)})
    assert not result.ok
    assert result.twice == [flow(1)]


def test_nothing_is_the_same_as_nothing_but_counts_nothing() -> None:
    assert compare(set(), [], set()).agreed == set()


def test_the_ends_agree() -> None:
    witness = Witness("masquerade", flow(1).reply, True)
    result = judge({key_of(flow(1)): witness}, [flow(1), flow(2)])
    assert result.ok
    assert result.counts == {"masquerade ipv4 tcp": 1, OTHER: 1}


def test_a_flow_that_its_ends_made_is_absent() -> None:
    result = judge({key_of(flow(1)): Witness("masquerade", None, True)}, [])
    assert len(result.absent) == 1
    assert result.counts == {"masquerade ipv4 tcp": 0}


def test_the_ends_saw_another_translation() -> None:
    witness = Witness("masquerade", flow(1, 5000).reply, True)
    result = judge({key_of(flow(1)): witness}, [flow(1)])
    assert not result.ok
    assert len(result.differing) == 1


def test_an_untranslated_flow_must_not_be_there() -> None:
    witnesses = {key_of(flow(1)): Witness("plain", flow(1).reply, False)}
    assert judge(witnesses, []).ok
    assert judge(witnesses, []).untranslated == {"plain ipv4 tcp": 1}
    assert len(judge(witnesses, [flow(1)]).unexpected) == 1
