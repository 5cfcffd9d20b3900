# SPDX-License-Identifier: GPL-3.0-or-later
"""Which states a host can return to, and that a damaged file never passes for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import points
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.points import (
    RestorePoint,
    TrackerPoint,
)
from hypothesis import given
from hypothesis import strategies as st

AGENT = {"agent.json": '{"service": "a:1"}', "token": "secret", "ca.pem": "CA"}


def point(release: str | None, digit: str = "a", **more: Any) -> RestorePoint:
    """A host that works."""
    return RestorePoint(release, True, TrackerPoint({"object_sha256": digit * 64}), **more)


A, B, C = point("1-a", "a"), point("2-b", "b", agent=AGENT), point("3-c", "c")
NOTHING = RestorePoint()


def test_what_has_passed_is_the_way_back_and_former_releases_stay() -> None:
    assert points.passed([], A, 2) == [A]
    assert points.passed([A], C, 2) == [C, A]
    assert points.passed([C, A], point("4-d"), 1) == [point("4-d"), C]
    assert points.passed([C, A], point("4-d"), 0) == [point("4-d")]


def test_another_state_of_a_release_replaces_that_one() -> None:
    other = replace(C, agent={"agent.json": "{}"})
    assert points.passed([C, A], other, 2) == [other, A]
    assert points.passed([C, A], A, 2) == [A, C]


def test_a_fresh_host_is_no_state_to_roll_back_to_later() -> None:
    assert points.passed([NOTHING], A, 2) == [A]


def test_secrets_are_kept_for_the_way_back_alone() -> None:
    former = points.passed([B], C, 2)[1]
    assert former.agent == {"agent.json": AGENT["agent.json"]}
    assert "secret" not in points.to_json(points.passed([B], C, 2))
    assert "secret" in points.to_json(points.passed([C], B, 2))


def test_nothing_of_a_secret_is_shown() -> None:
    shown = json.dumps(B.to_public()) + B.describe()
    assert not any(text in shown for text in AGENT.values())
    assert B.to_public()["agent_files"] == ["agent.json", "ca.pem", "token"]


def test_the_release_of_the_way_back_and_all_objects_are_pinned() -> None:
    assert points.pinned_releases([B, A]) == {"2-b"}
    assert points.pinned_releases([NOTHING]) == points.pinned_releases([]) == frozenset()
    assert points.pinned_objects([B, A, NOTHING]) == {"a" * 64, "b" * 64}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (NOTHING, "nothing installed"),
        (A, "release 1-a, object aaaaaaaaaaaa, no poller agent"),
        (B, "release 2-b, object bbbbbbbbbbbb, the poller agent"),
        (RestorePoint("1-a"), "release 1-a, no poller agent"),
        (point(None), "no release, object aaaaaaaaaaaa, no poller agent"),
    ],
)
def test_a_state_in_words(found: RestorePoint, text: str) -> None:
    assert found.describe() == text


# --- choosing ------------------------------------------------------------------------------------

HERE = replace(B, at=7)
RELEASES = ["2-b", "0-z", "1-a"]


def test_the_way_back_is_the_first_point() -> None:
    assert points.choose([A, C], None, RELEASES, HERE) == A


def test_previous_is_the_release_that_last_passed_before_this_one() -> None:
    assert points.choose([HERE, A], "previous", RELEASES, HERE) == A
    # after a failure the way back may be another release than the current one
    assert points.choose([A], "previous", RELEASES, HERE) == A


def test_previous_is_the_newest_other_release_where_no_point_is_known() -> None:
    chosen = points.choose([HERE], "previous", RELEASES, HERE)
    assert (chosen.release, chosen.tracker) == ("0-z", B.tracker)
    assert chosen.agent == {"agent.json": AGENT["agent.json"]}


def test_a_release_brings_what_it_has_passed_with() -> None:
    assert points.choose([HERE, A], "1-a", RELEASES, HERE) == A
    assert points.choose([HERE, A], "0-z", RELEASES, HERE).tracker == B.tracker


@pytest.mark.parametrize(
    ("found", "wanted", "releases", "message"),
    [
        ([], None, RELEASES, "no state that is known to have worked was recorded"),
        ([HERE], "previous", ["2-b"], "there is no release but 2-b: nothing to roll back to"),
        ([HERE, A], "1-x", RELEASES, "the release 1-x is not on the host, kept are: 2-b, 0-z, 1-a"),
        ([HERE], "1-x", [], "the release 1-x is not on the host, kept are: none"),
    ],
)
def test_what_is_not_there_is_said(
    found: list[RestorePoint], wanted: str | None, releases: list[str], message: str
) -> None:
    with pytest.raises(HostError, match=message):
        points.choose(found, wanted, releases, HERE)


# --- text ----------------------------------------------------------------------------------------


def test_points_come_back_as_they_were() -> None:
    found = [
        HERE,
        A,
        NOTHING,
        point(None),
        RestorePoint("1", tracker=TrackerPoint({"object_sha256": "0"}, ("K",), False)),
    ]
    assert points.from_json(points.to_json(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 2, "points": []}',
        '{"format": 1}',
        '{"format": 1, "points": [{}]}',
        "[" * 100000,
    ],
)
def test_a_damaged_file_holds_no_points(text: str) -> None:
    assert points.from_json(text) == []


@pytest.mark.parametrize("field", ["release", "tracker", "agent", "at"])
@given(st.integers() | st.text() | st.lists(st.integers()) | st.booleans() | st.just({"a": 1}))
def test_a_field_of_another_kind_makes_no_point(field: str, value: object) -> None:
    data = json.loads(points.to_json([A]))
    if field == "release" and isinstance(value, str):
        return
    if field == "at" and isinstance(value, int):
        return
    data["points"][0][field] = value
    assert points.from_json(json.dumps(data)) == []
