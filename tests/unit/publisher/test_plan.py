# SPDX-License-Identifier: GPL-3.0-or-later
"""What is signed anew, and when: decided from plain data, and once for each wish."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import plan
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.errors import (
    PublisherError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.plan import (
    DEFAULTS,
    ROLES,
    RoleState,
    RoleWanted,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
ALL = set(ROLES)


def published(**changes: Any) -> dict[str, RoleState]:
    """A repository as the defaults make it, signed just now; changes by role."""
    state = {}
    for role, wanted in DEFAULTS.items():
        keyids = tuple(f"{role}-{number}" for number in range(wanted.keys))
        state[role] = RoleState(
            version=1,
            expires=plan.expiry(NOW, wanted.days),
            keyids=keyids,
            available=frozenset(keyids),
            threshold=wanted.threshold,
            days=wanted.days,
            rotation=None,
        )._replace(**changes.get(role, {}))
    return state


def converge(
    state: dict[str, RoleState],
    rotation: dict[str, str] | None = None,
    now: datetime = NOW,
    **wanted: RoleWanted,
) -> tuple[plan.Plan, list[str]]:
    return plan.converge("director", state, {**DEFAULTS, **wanted}, rotation or {}, now, 33)


def signed(
    state: dict[str, RoleState],
    rotation: dict[str, str] | None = None,
    now: datetime = NOW,
    **wanted: RoleWanted,
) -> set[str]:
    return set(plan.signed(converge(state, rotation, now, **wanted)[0]))


def test_what_is_as_wanted_is_left_alone() -> None:
    assert signed(published()) == set()


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("root", {"root"}),
        ("targets", {"root", "targets", "snapshot", "timestamp"}),
        ("snapshot", {"root", "snapshot", "timestamp"}),
        ("timestamp", {"root", "timestamp"}),
    ],
)
def test_a_rotation_signs_the_role_and_all_that_vouch_for_it(role: str, expected: set[str]) -> None:
    found, _warnings = converge(published(), {role: "1"})
    assert set(plan.signed(found)) == expected
    assert (found[role].keep, found[role].fresh) == ((), DEFAULTS[role].keys)
    assert found[role].rotation == "1"
    for other in ALL - {role}:
        assert (found[other].keep, found[other].fresh) == (published()[other].keyids, 0)


def test_a_rotation_is_done_once_for_its_id() -> None:
    done = published(targets={"rotation": "1"})
    assert signed(done, {"targets": "1"}) == set()
    assert signed(done, {}) == set()
    assert signed(done, {"targets": "2"}) == ALL


@pytest.mark.parametrize(
    ("role", "days_later", "expected"),
    [
        ("timestamp", 4, set()),
        ("timestamp", 5, {"timestamp"}),
        ("snapshot", 21, {"snapshot", "timestamp"}),
        ("targets", 61, {"targets", "snapshot", "timestamp"}),
        ("root", 245, {"root", "targets", "snapshot", "timestamp"}),
        ("root", 4000, {"root", "targets", "snapshot", "timestamp"}),
    ],
)
def test_a_role_is_renewed_in_the_last_third_of_its_time(
    role: str, days_later: int, expected: set[str]
) -> None:
    found = signed(published(), now=NOW + timedelta(days=days_later))
    assert found == expected
    assert (role in found) == bool(expected)


def test_a_shorter_time_is_signed_now_and_a_longer_one_said_in_the_root() -> None:
    assert signed(published(), snapshot=RoleWanted(1, 1, 5)) == {"root", "snapshot", "timestamp"}
    assert signed(published(), timestamp=RoleWanted(1, 1, 10)) == {"root"}


def test_keys_are_added_and_lost_ones_removed_first() -> None:
    state = published(root={"keyids": ("a", "b", "c"), "available": frozenset({"b", "c"})})
    found, _warnings = converge(state, root=RoleWanted(4, 1, 365))
    assert (found["root"].keep, found["root"].fresh) == (("a", "b", "c"), 1)
    found, _warnings = converge(state, root=RoleWanted(2, 1, 365))
    assert (found["root"].keep, found["root"].fresh) == (("b", "c"), 0)
    assert set(plan.signed(found)) == {"root"}


def test_another_threshold_signs_the_role_with_more_keys() -> None:
    state = published(targets={"keyids": ("a", "b"), "available": frozenset({"a", "b"})})
    assert signed(state, targets=RoleWanted(2, 2, 90)) == ALL


def test_a_lost_key_of_another_role_does_not_stop_its_own_rotation() -> None:
    assert signed(published(targets={"available": frozenset()}), {"targets": "1"}) == ALL


@pytest.mark.parametrize(
    ("state", "rotation", "message"),
    [
        (
            published(root={"available": frozenset()}),
            {"root": "1"},
            "0 of the 1 keys that have to sign director.root are in the key folder, missing are",
        ),
        (published(root={"available": frozenset()}), {"targets": "1"}, "0 of the 1 keys"),
        (
            published(snapshot={"available": frozenset()}),
            {"targets": "1"},
            "0 of the 1 keys that have to sign director.snapshot",
        ),
        (
            published(root={"threshold": 2, "available": frozenset({"root-0"})}),
            {"root": "1"},
            "1 of the 2 keys that have to sign director.root",
        ),
    ],
)
def test_what_cannot_be_signed_is_refused_with_the_cure(
    state: dict[str, RoleState], rotation: dict[str, str], message: str
) -> None:
    with pytest.raises(PublisherError) as caught:
        converge(state, rotation)
    assert str(caught.value).startswith(message)
    cure = "give it new ones (rotate: [director.snapshot])"
    assert (cure in str(caught.value)) == ("snapshot" in message)


def test_a_renewal_without_keys_is_put_off_with_a_warning_and_the_others_are_done() -> None:
    later = NOW + timedelta(days=300)
    fresh = {role: {"expires": plan.expiry(later, DEFAULTS[role].days)} for role in ALL - {"root"}}
    fresh["timestamp"]["expires"] = later + timedelta(hours=5)
    offline = published(root={"available": frozenset()}, **fresh)
    found, warnings = converge(offline, now=later)
    assert plan.signed(found) == ["timestamp"]
    assert len(warnings) == 1
    assert warnings[0].startswith("director.root expires at 2027-06-01T00:00:00+00:00 and was not")


def test_an_expired_role_without_keys_is_refused() -> None:
    with pytest.raises(PublisherError, match=r"director\.root"):
        converge(published(root={"available": frozenset()}), now=NOW + timedelta(days=366))


def test_configs_are_published_without_the_roots_keys() -> None:
    state = published(root={"available": frozenset()})
    assert set(plan.signed(plan.publish("director", state, NOW))) == ALL - {"root"}


def test_configs_are_not_published_under_an_expired_root() -> None:
    with pytest.raises(PublisherError, match=r"^director\.root expired at 2027-06-01"):
        plan.publish("director", published(), NOW + timedelta(days=365))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (RoleWanted(0, 1, 1), "is to have 0 keys"),
        (RoleWanted(17, 1, 1), "is to have 17 keys"),
        (RoleWanted(2, 3, 1), "is to have the threshold 3"),
        (RoleWanted(2, 0, 1), "is to have the threshold 0"),
        (RoleWanted(1, 1, 0), "is to expire after 0 days"),
        (RoleWanted(1, 1, 3651), "is to expire after 3651 days"),
    ],
)
def test_settings_that_cannot_be_are_refused(wanted: RoleWanted, message: str) -> None:
    with pytest.raises(PublisherError, match=f"^director.root {message}"):
        plan.check_wanted("director.root", wanted)


wishes = st.builds(
    lambda keys, threshold, days: RoleWanted(keys, min(keys, threshold), days),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 400),
)


@given(
    st.fixed_dictionaries(dict.fromkeys(ROLES, wishes)),
    st.dictionaries(st.sampled_from(ROLES), st.sampled_from(["1", "2"])),
    st.integers(0, 1000),
)
def test_reaching_a_plan_leaves_nothing_more_to_do(
    wanted: dict[str, RoleWanted], rotation: dict[str, str], days: int
) -> None:
    now = NOW + timedelta(days=days)
    state = published()
    found, _warnings = plan.converge("director", state, wanted, rotation, now, 33)
    reached = {}
    for role, one in found.items():
        keyids = tuple(sorted([*one.keep, *(f"new-{number}" for number in range(one.fresh))]))
        reached[role] = RoleState(
            version=state[role].version + bool(one.reason),
            expires=plan.expiry(now, one.days) if one.reason else state[role].expires,
            keyids=keyids,
            available=frozenset(keyids),
            threshold=one.threshold,
            days=one.days,
            rotation=one.rotation,
        )
        assert len(keyids) == wanted[role].keys
    again, _warnings = plan.converge("director", reached, wanted, rotation, now, 33)
    assert plan.signed(again) == []
