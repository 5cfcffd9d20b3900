# SPDX-License-Identifier: GPL-3.0-or-later
"""Every effective value has one owner, and remote config decides only what it may."""

from __future__ import annotations

from btfleet._config.catalogue import KEYS
from btfleet._config.merge import merge
from hypothesis import given
from hypothesis import strategies as st

A, B = "btfleet/1/AGENT/a/x", "btfleet/1/AGENT/b/x"
Configs = dict[str, dict[str, object]]
ALLOWED = ["AGENT.log_level", "AGENT.metrics", "CONNTRACK.max_entries"]


def test_without_configs_the_base_owns_all() -> None:
    assert merge("AGENT", {"metrics": True}, {}, ALLOWED) == (
        {"metrics": True},
        {"metrics": "base"},
        {},
    )


def test_a_config_overrides_the_base_and_may_add_to_it() -> None:
    found = merge(
        "AGENT", {"metrics": True}, {A: {"metrics": False, "log_level": "debug"}}, ALLOWED
    )
    assert found.values == {"metrics": False, "log_level": "debug"}
    assert found.owners == {"metrics": A, "log_level": A}


def test_the_greater_path_wins_key_by_key() -> None:
    configs: Configs = {
        B: {"log_level": "error"},
        A: {"log_level": "debug", "metrics": False},
    }
    found = merge("AGENT", {}, configs, ALLOWED)
    assert found.values == {"log_level": "error", "metrics": False}
    assert found.owners == {"log_level": B, "metrics": A}


def test_paths_are_compared_as_plain_strings() -> None:
    ten, nine = "btfleet/1/AGENT/10/x", "btfleet/1/AGENT/9/x"
    found = merge("AGENT", {}, {nine: {"metrics": True}, ten: {"metrics": False}}, ALLOWED)
    assert found.owners == {"metrics": nine}


def test_a_config_that_sets_what_is_not_allowed_is_refused_as_a_whole() -> None:
    configs: Configs = {
        B: {"metrics": False, "poll_interval_seconds": 1},
        A: {"log_level": "debug"},
    }
    found = merge("AGENT", {"metrics": True}, configs, ALLOWED)
    assert found.values == {"metrics": True, "log_level": "debug"}
    assert found.owners == {"metrics": "base", "log_level": A}
    assert list(found.refused) == [B]
    assert found.refused[B].startswith("it sets poll_interval_seconds, which remote config may not")


def test_what_is_allowed_for_one_product_is_not_for_another() -> None:
    found = merge("AGENT", {}, {A: {"max_entries": 1}}, ALLOWED)
    assert (found.values, list(found.refused)) == ({}, [A])


settings = st.dictionaries(st.sampled_from(KEYS["AGENT"]), st.integers(0, 3))


@given(
    settings,
    st.dictionaries(st.sampled_from([A, B, "btfleet/1/AGENT/c/x"]), settings),
    st.sets(st.sampled_from([f"AGENT.{key}" for key in KEYS["AGENT"]])),
)
def test_each_value_is_its_owners_and_the_base_is_never_changed(
    base: dict[str, object], configs: dict[str, dict[str, object]], allowed: set[str]
) -> None:
    before = dict(base)
    found = merge("AGENT", base, configs, allowed)
    assert base == before
    assert set(found.values) == set(found.owners)
    assert not set(found.refused) & set(found.owners.values())
    for key, owner in found.owners.items():
        source = base if owner == "base" else configs[owner]
        assert found.values[key] == source[key]
        assert owner == "base" or f"AGENT.{key}" in allowed
