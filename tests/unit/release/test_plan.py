# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases there are after a switch, and that a second run finds nothing to do."""

from __future__ import annotations

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import Unit
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    RECONCILE,
    TIMER,
    UNIT,
    ReleaseError,
    State,
)
from hypothesis import given
from hypothesis import strategies as st

DIGESTS = {UNIT: "digest", TIMER: "timer", RECONCILE: "reconcile"}
DONE = {
    "command": True,
    "unit": "digest",
    "unit_enabled": True,
    "unit_active": True,
    "timer": Unit("timer", enabled=True, active=True),
    "reconcile": "reconcile",
}


def state(*releases: str, current: str | None = None) -> State:
    return State(releases=releases, current=current)


@pytest.mark.parametrize(
    ("now", "name", "keep", "releases"),
    [
        (state(), "1", 2, ("1",)),
        (state("1", current="1"), "1", 2, ("1",)),
        (state("1", current="1"), "2", 2, ("2", "1")),
        (state("2", "1", current="2"), "3", 2, ("3", "2", "1")),
        (state("3", "2", "1", current="3"), "4", 2, ("4", "3", "2")),
        (state("3", "2", "1", current="3"), "4", 1, ("4", "3")),
        (state("3", "2", "1", current="3"), "4", 0, ("4",)),
        # the one in use so far is kept before newer ones
        (state("3", "2", "1", current="1"), "4", 1, ("4", "1")),
        # back to an older one
        (state("3", "2", "1", current="3"), "1", 2, ("3", "2", "1")),
        (state("3", "2", "1", current="3"), "1", 1, ("3", "1")),
        # unpacked, but never switched to
        (state("2", "1", current="1"), "2", 2, ("2", "1")),
        (state("1"), "1", 2, ("1",)),
        # the link was broken
        (state("2", "1"), "2", 2, ("2", "1")),
    ],
)
def test_the_releases_after_a_switch(
    now: State, name: str, keep: int, releases: tuple[str, ...]
) -> None:
    after = release.plan(now, name, keep, DIGESTS)
    assert after == State(releases=releases, current=name, **DONE)  # type: ignore[arg-type]


names = st.lists(st.sampled_from("123456"), unique=True)


@given(names, st.sampled_from("123456"), st.integers(0, 3), st.none() | st.sampled_from("123456"))
def test_what_was_reached_stays_as_it_is(
    releases: list[str], name: str, keep: int, current: str | None
) -> None:
    now = State(releases=tuple(releases), current=current if current in releases else None)
    after = release.plan(now, name, keep, DIGESTS)
    assert release.plan(after, name, keep, DIGESTS) == after
    assert len(after.releases) <= keep + 1
    assert name in after.releases


def test_the_unit_stays_where_the_release_is_not_unpacked_yet() -> None:
    """In check mode nothing is unpacked, so the new unit cannot be known."""
    now = State(releases=("1",), current="1", unit="old")
    assert release.plan(now, "2", 2, {}).unit == "old"
    assert release.plan(now, "2", 2, {UNIT: "new"}).unit == "new"


@pytest.mark.parametrize("version", ["0.1.0", "1", "1.2.3rc1", "1.0+local", "1!2.0"])
def test_a_release_is_named_after_version_and_digest(version: str) -> None:
    assert release.release_name(version, "0123456789abcdef" * 4) == f"{version}-0123456789ab"


@pytest.mark.parametrize("version", ["", "../1", "1/2", ".1", "-1", "1 2", "1\n", "ä"])
def test_what_cannot_be_a_version_is_refused(version: str) -> None:
    with pytest.raises(ReleaseError, match=r"^version is .*, needed: letters, digits and "):
        release.release_name(version, "a" * 64)


def test_a_diff_shows_all_of_it() -> None:
    assert State(("1",), "1", **DONE).to_dict() == {  # type: ignore[arg-type]
        "releases": ["1"],
        "current": "1",
        **DONE,
        "timer": {"active": True, "enabled": True, "file": "timer"},
    }


def test_a_release_without_a_timer_has_none_when_it_is_current() -> None:
    now = release.plan(State(releases=("1",)), "1", 2, DIGESTS)
    assert release.plan(now, "0", 2, {}).timer == now.timer
    after = release.plan(now, "0", 2, {UNIT: "old", TIMER: None, RECONCILE: None})
    assert (after.unit, after.timer, after.reconcile) == ("old", Unit(), None)


def test_without_the_boot_unit_there_is_no_timer_either() -> None:
    now = release.plan(State(releases=("1",)), "1", 2, DIGESTS)
    after = release.without_boot_unit(now)
    assert (after.unit, after.timer, after.reconcile) == (None, Unit(), None)
    assert release.plan(State(), "1", 2, DIGESTS, boot=False).timer == Unit()
