# SPDX-License-Identifier: GPL-3.0-or-later
"""The failure budget over all batches, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.btfleet.conntrack.plugins.filter.rollout_progress import rollout_progress
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._rollout import (
    rollout_progress as counting,
)
from hypothesis import given
from hypothesis import strategies as st

HOSTS = ["a", "b", "c", "d", "e"]


def passed(*hosts: str) -> list[dict[str, Any]]:
    return [{"host": host, "outcome": "passed", "reason": None} for host in hosts]


def failed(*hosts: str) -> list[dict[str, Any]]:
    return [{"host": host, "outcome": "failed", "reason": f"{host} is broken"} for host in hosts]


@pytest.mark.parametrize(
    ("count", "batches", "sizes"),
    [
        (1, [1, "100%"], [1]),
        (5, [1, "100%"], [1, 4]),
        (5, [1, 2], [1, 2, 2]),
        (5, 2, [2, 2, 1]),
        (5, "40%", [2, 2, 1]),
        (5, ["10%"], [1] * 5),
        (100, [1, "10%", "50%", "100%"], [1, 10, 50, 39]),
        (0, [1], []),
    ],
)
def test_batches_are_those_of_the_keyword_serial(
    count: int, batches: object, sizes: list[int]
) -> None:
    hosts = [f"h{number}" for number in range(count)]
    parts = counting.split(hosts, batches)
    assert list(map(len, parts)) == sizes
    assert [host for part in parts for host in part] == hosts


@given(
    st.integers(1, 60),
    st.lists(st.integers(1, 30) | st.integers(1, 100).map("{}%".format), min_size=1, max_size=4),
)
def test_batches_are_ansibles_own(count: int, batches: list[Any]) -> None:
    """Its executor has no function for it alone, but one for a size."""
    from ansible.utils.helpers import pct_to_int  # noqa: PLC0415

    parts = counting.split([str(number) for number in range(count)], batches)
    for place, part in enumerate(parts[:-1]):
        assert len(part) == pct_to_int(batches[min(place, len(batches) - 1)], count)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("conntracker_batches", {"batches": ["x"]}),
        ("conntracker_batches", {"batches": []}),
        ("conntracker_batches", {"batches": "[1, 2]"}),
        ("conntracker_batches", {"batches": [-1]}),
        ("conntracker_batches", {"batches": [True]}),
        ("conntracker_failure_budget", {"budget": "many"}),
        ("conntracker_failure_budget", {"budget": -1}),
        ("conntracker_failure_budget", {"budget": "101%"}),
        ("conntracker_failure_budget", {"budget": None}),
    ],
)
def test_a_wrong_variable_is_named(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match=f"^{name} is .*, needed: "):
        rollout_progress([], HOSTS, ["a"], **arguments)


def go(results: list[dict[str, Any]], batch: list[str], budget: object) -> bool:
    return bool(rollout_progress(results, HOSTS, batch, [1, 2, 2], budget)["go"])


def test_the_first_batch_always_begins() -> None:
    assert go([], ["a"], 0)


def test_a_canary_that_failed_stops_it_whatever_the_budget() -> None:
    assert not go(failed("a"), ["b", "c"], 5)
    assert not go(failed("a") + passed("b", "c"), ["d", "e"], "100%")


def test_the_budget_counts_over_all_batches() -> None:
    results = passed("a") + failed("b", "c")
    assert not go(results, ["d", "e"], 0)
    assert not go(results, ["d", "e"], 1)
    assert go(results, ["d", "e"], 2)
    assert go(results, ["d", "e"], "40%")
    assert not go(results, ["d", "e"], "39%")


def test_a_host_that_left_no_result_is_one_that_failed() -> None:
    assert not go(passed("a", "b"), ["d", "e"], 0)
    assert not go([], ["b", "c"], 0)


def test_hosts_of_the_batch_that_comes_now_do_not_count() -> None:
    assert go(passed("a") + failed("c"), ["b", "c"], 0)


def test_the_line_of_a_batch() -> None:
    found = rollout_progress(passed("a") + failed("b"), HOSTS, ["d", "e"], [1, 2, 2], "20%")
    assert found["lines"] == ["batch 3 of 3: d, e; 1 of 5 done, 2 failed (budget 1)"]
    assert found["failed"] == ["b", "c"]


def report(results: list[dict[str, Any]], budget: object = 0) -> list[str]:
    lines = rollout_progress(results, HOSTS, [], [1, 2, 2], budget)["lines"]
    assert isinstance(lines, list)
    return lines


def test_the_report_of_a_rollout_that_is_through() -> None:
    assert report(passed(*HOSTS)) == ["the rollout is through; 5 of 5 done, 0 failed (budget 0)"]
    assert report(passed("a", "b", "c", "d") + failed("e"), 1) == [
        "the rollout is through; 4 of 5 done, 1 failed (budget 1)",
        "failed: e: e is broken",
    ]


def test_the_report_says_why_it_stopped_and_who_was_spared() -> None:
    assert report(failed("a"), 3) == [
        "the rollout stopped after batch 1 of 3: a canary failed; 0 of 5 done, 1 failed (budget 3)",
        "failed: a: a is broken",
        "untouched: b, c, d, e",
    ]
    assert report(passed("a", "c") + failed("b")) == [
        (
            "the rollout stopped after batch 2 of 3: the failure budget is used up; "
            "2 of 5 done, 1 failed (budget 0)"
        ),
        "failed: b: b is broken",
        "untouched: d, e",
    ]


def test_the_report_of_one_that_never_began() -> None:
    assert report([])[0] == "the rollout has not begun; 0 of 5 done, 0 failed (budget 0)"


def test_names_of_many_hosts_are_cut() -> None:
    hosts = [f"h{number}" for number in range(500)]
    line = rollout_progress(passed(*hosts[:50]), hosts, hosts[50:], [50, "100%"])["lines"][0]
    assert line == (
        "batch 2 of 2: h50, h51, h52, h53, h54, h55, h56, h57, h58, h59 and 440 more; "
        "50 of 500 done, 0 failed (budget 0)"
    )


def test_a_check_says_so_and_what_would_change_where() -> None:
    results = [
        {"host": "a", "outcome": "passed", "changes": ["tracker", "release"]},
        {"host": "b", "outcome": "passed", "changes": []},
        {"host": "c", "outcome": "passed", "changes": ["tracker", "release"]},
    ]
    found = rollout_progress([*results, *failed("d")], HOSTS[:4], [], "100%", 1, check=True)
    assert found["lines"] == [
        "the check is through; 3 of 4 done, 1 failed (budget 1); nothing was changed",
        "would change (tracker, release): a, c",
        "as asked for: b",
        "failed: d: d is broken",
    ]


def test_a_check_that_stopped_is_no_rollout_either() -> None:
    found = rollout_progress(failed("a"), HOSTS, [], [1, 2, 2], 3, check=True)
    assert found["lines"][0].startswith("the check stopped after batch 1 of 3: a canary failed")
