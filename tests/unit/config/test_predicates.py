# SPDX-License-Identifier: GPL-3.0-or-later
"""A config is for the hosts that any of its predicates matches in full, and for no other."""

from __future__ import annotations

from typing import Any

import pytest
from btfleet._config.errors import ConfigError
from btfleet._config.predicates import MAX_PREDICATES, HostFacts, check, matches
from hypothesis import given, settings
from hypothesis import strategies as st

GW1 = HostFacts("gw1", frozenset({"edge", "all"}), {"site": "fra", "rack": "1"})

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "predicates",
    [
        [],
        [{"host": "gw1"}],
        [{"group": "edge"}],
        [{"labels": {"site": "fra"}}],
        [{"labels": {"site": "fra", "rack": "1"}}],
        [{"host": "gw1", "group": "all", "labels": {"rack": "1"}}],
        [{"host": "gw1", "group": "", "labels": {}}],
        [{"host": "gw2"}, {"host": "gw1"}],
    ],
)
def test_a_config_is_for_the_host(predicates: list[Any]) -> None:
    assert matches(check(predicates), GW1) is True


@pytest.mark.parametrize(
    "predicates",
    [
        [{"host": "gw2"}],
        [{"host": "gw"}],
        [{"host": "GW1"}],
        [{"host": "gw1", "group": "core"}],
        [{"host": "gw2", "group": "edge"}],
        [{"labels": {"site": "ams"}}],
        [{"labels": {"site": ""}}],
        [{"labels": {"colour": "red"}}],
        [{"labels": {"colour": ""}}],
        [{"labels": {"site": "fra", "rack": "2"}}],
        [{"host": "gw1", "group": "edge", "labels": {"site": "ams"}}],
        [{"host": "gw2"}, {"group": "core"}],
    ],
)
def test_a_config_is_not_for_the_host(predicates: list[Any]) -> None:
    assert matches(check(predicates), GW1) is False


@pytest.mark.parametrize(
    ("predicates", "message"),
    [
        ({}, "predicates are {}, needed: a list"),
        (None, "predicates are None, needed: a list"),
        ("host", "predicates are 'host', needed: a list"),
        (["gw1"], "predicate 1 is 'gw1', needed: an object"),
        ([{"host": "a"}, {"hosts": "b"}], "predicate 2 has the unknown field 'hosts'"),
        ([{"host": 1}], "host of predicate 1 is 1, needed: text"),
        ([{"host": None}], "host of predicate 1 is None, needed: text"),
        ([{"group": ["a"]}], "group of predicate 1 is ['a'], needed: text"),
        ([{"host": "x" * 257}], "host of predicate 1 is 'xxx"),
        ([{"labels": ["a"]}], "labels of predicate 1 are ['a'], needed: an object"),
        ([{"labels": {"a": 1}}], "the label 'a' of predicate 1 is 1, needed: text"),
        ([{"labels": {"": "x"}}], "labels of predicate 1 have an empty name"),
        ([{"labels": {str(n): "" for n in range(65)}}], "labels of predicate 1 are {'0'"),
        ([{}], "predicate 1 sets nothing"),
        ([{"host": "", "labels": {}}], "predicate 1 sets nothing"),
        ([{"host": "a"}] * (MAX_PREDICATES + 1), "1001 predicates, needed: at most 1000"),
    ],
)
def test_predicates_that_are_none_are_refused(predicates: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(predicates)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 400


@settings(max_examples=50)
@given(json_values | st.lists(st.dictionaries(st.sampled_from(["host", "labels"]), json_values)))
def test_predicates_of_any_kind_can_be_matched_or_are_refused_in_one_line(data: object) -> None:
    try:
        predicates = check(data)
    except ConfigError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017  (both ends are right)
    else:
        assert matches(predicates, GW1) in (True, False)
