# SPDX-License-Identifier: GPL-3.0-or-later
"""When a host is well, and what counts as getting worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import gate
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.gate import (
    Expected,
    Reading,
    UnitReading,
)

AGENT, APPLY, BOOT = "btfleet-agent.service", "btfleet-apply.service", "btfleet-conntracker.service"
POLLING = {"running": True, "healthy": True, "error": None, "last_success_at": 5}
COUNTERS = {"insert_hits": 100, "delete_hits": 50, "live_full": 2}
WELL = Reading(
    loaded=True,
    fingerprint="f" * 64,
    counters=COUNTERS,
    load_failures=3,
    flows_first={1: 40, 2: 0},
    flows_last={1: 40, 2: 0},
    units={BOOT: UnitReading("active"), AGENT: UnitReading("active", 0, 77), APPLY: UnitReading()},
    agent=POLLING,
)
WITH_AGENT = Expected(agent=True, fingerprint="f" * 64)


def agent(**changed: Any) -> Reading:
    """A host whose agent says something else."""
    return replace(WELL, agent={**POLLING, **changed})


def unit(name: str, reading: UnitReading) -> Reading:
    return replace(WELL, units={**WELL.units, name: reading})


@pytest.mark.parametrize(
    "expected",
    [
        WITH_AGENT,
        Expected(),
        Expected(fingerprint="f" * 64),
        Expected(agent=True, polling=False, configs=False),
    ],
)
def test_a_host_that_is_well(expected: Expected) -> None:
    assert gate.problems(WELL, expected) == []


@pytest.mark.parametrize(
    ("reading", "line"),
    [
        (Reading(), "no tracker is loaded"),
        (
            replace(WELL, drift=("pin link_insert is missing",)),
            "the tracker is not as it was loaded: pin link_insert is missing",
        ),
        (
            replace(WELL, unseen=("network namespaces that are not followed: 3",)),
            "flows are not seen: network namespaces that are not followed: 3",
        ),
        (
            unit(BOOT, UnitReading("failed")),
            f"{BOOT} has failed (`systemctl status {BOOT}` says why)",
        ),
    ],
)
def test_what_is_wrong_with_a_host_without_an_agent(reading: Reading, line: str) -> None:
    assert gate.problems(reading, Expected()) == [line]


@pytest.mark.parametrize(
    ("reading", "line"),
    [
        (unit(AGENT, UnitReading("activating")), f"{AGENT} is activating, not active"),
        (
            unit(AGENT, UnitReading("failed")),
            f"{AGENT} has failed (`systemctl status {AGENT}` says why)",
        ),
        (replace(WELL, units={}), f"{AGENT} is inactive, not active"),
        (replace(WELL, agent=None), "the poller agent does not answer (no reason given)"),
        (agent(running=False, error="gone"), "the poller agent does not answer (gone)"),
        (agent(last_success_at=0), "the poller agent has not reached the config service"),
        (
            agent(last_success_at=0, error="refused"),
            "the poller agent has not reached the config service (refused)",
        ),
        (agent(healthy=False), "the poller agent is not well"),
        (agent(error="expired"), "the poller agent is not well (expired)"),
        (
            replace(WELL, disagreements=("x: version 1 is FAILED (too large)",)),
            "x: version 1 is FAILED (too large)",
        ),
    ],
)
def test_what_is_wrong_with_an_agent(reading: Reading, line: str) -> None:
    assert gate.problems(reading, WITH_AGENT) == [line]
    assert gate.problems(reading, Expected()) == ([line] if "has failed" in line else [])


def test_a_service_that_comes_later_is_not_asked_for() -> None:
    expected = WITH_AGENT._replace(polling=False)
    assert gate.problems(agent(last_success_at=0, healthy=False, error="refused"), expected) == []


def test_on_the_way_back_config_may_fail_as_it_did_before() -> None:
    reading = replace(unit(APPLY, UnitReading("failed")), disagreements=("x is FAILED",))
    assert len(gate.problems(reading, WITH_AGENT)) == 2
    assert gate.problems(reading, WITH_AGENT._replace(configs=False)) == []


def test_another_spec_passes_only_where_remote_config_owns_the_difference() -> None:
    other = replace(WELL, fingerprint="e" * 64)
    line = "the spec in force is eeeeeeeeeeee, asked for was ffffffffffff"
    assert gate.problems(other, WITH_AGENT) == []
    assert gate.problems(replace(other, owners_known=False), WITH_AGENT) == [line]
    assert gate.problems(other, Expected(fingerprint="f" * 64)) == [line]
    assert gate.problems(other, Expected()) == []


# --- over time -----------------------------------------------------------------------------------


def test_a_quiet_host_stays_well() -> None:
    assert gate.worsened(WELL, WELL) == []


def test_errors_of_the_past_are_no_new_ones() -> None:
    assert gate.worsened(WELL, replace(WELL, counters={**COUNTERS, "insert_hits": 900})) == []


@pytest.mark.parametrize("name", gate.ERROR_COUNTERS)
def test_each_counter_of_errors_counts(name: str) -> None:
    later = replace(WELL, counters={**COUNTERS, name: COUNTERS.get(name, 0) + 4})
    assert gate.worsened(WELL, later) == [f"the counter {name} rose by 4"]


def test_every_counter_that_is_named_is_one_of_the_object() -> None:
    from btfleet._kernel.conntrack.layout import COUNTERS as KNOWN  # noqa: PLC0415

    assert {*gate.ERROR_COUNTERS, *gate._HITS} <= set(KNOWN)


def test_a_load_that_failed_meanwhile() -> None:
    assert gate.worsened(WELL, replace(WELL, load_failures=5)) == ["2 loads failed"]


@pytest.mark.parametrize(
    "later",
    [UnitReading("active", 1, 77), UnitReading("active", 0, 78), UnitReading("active", 0, 0)],
)
def test_a_restart_is_seen_by_its_count_or_by_the_process(later: UnitReading) -> None:
    assert gate.worsened(WELL, unit(AGENT, later)) == [
        f"{AGENT} was restarted, or has ended, while it was watched"
    ]


def test_a_unit_that_only_came_is_no_restart() -> None:
    assert gate.worsened(replace(WELL, units={}), WELL) == []
    assert gate.worsened(unit(APPLY, UnitReading()), unit(APPLY, UnitReading("active", 0, 9))) == []


@pytest.mark.parametrize("flows", [{1: 60, 2: 0}, {1: 20, 2: 0}, {1: 34, 2: 6}])
def test_traffic_that_the_programs_do_not_see(flows: dict[int, int]) -> None:
    later = replace(WELL, flows_first=flows)
    moved = sum(abs(count - WELL.flows_last[inode]) for inode, count in flows.items())
    lines = gate.worsened(WELL, later)
    assert lines == (
        [f"the kernel's tables changed by {moved} flows, and the programs saw none"]
        if moved > 10
        else []
    )
    assert gate.worsened(WELL, replace(later, counters={**COUNTERS, "delete_hits": 51})) == []
    assert gate.worsened(WELL, replace(later, counters={**COUNTERS, "insert_hits": 101})) == []


@pytest.mark.parametrize("flows", [{1: 47, 2: 3}, {1: 40}, {1: 40, 2: 0, 3: 500}, {}])
def test_what_is_no_traffic(flows: dict[int, int]) -> None:
    """A few flows on their way; namespaces that came or went."""
    assert gate.worsened(WELL, replace(WELL, flows_first=flows)) == []


def test_the_counts_between_the_two_readings_are_what_is_compared() -> None:
    before = replace(WELL, flows_first={1: 0})
    assert gate.worsened(before, replace(WELL, flows_last={1: 900})) == []
