# SPDX-License-Identifier: GPL-3.0-or-later
"""The targets of `make fuzz` without its engine: they take their seeds, and edits of them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.json_edits import edited
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


@pytest.fixture(scope="module", params=sorted(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]()


def test_every_seed_does_no_harm_and_is_another_one(target: Target) -> None:
    seeds = target.seeds()
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        target.run(seed)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_edited_seed_does_no_harm(target: Target, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(target.seeds()))
    target.run(edited(seed, data.draw(st.integers(0, 2**32))))


@given(data=st.binary(max_size=60))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_do_no_harm(target: Target, data: bytes) -> None:
    target.run(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_each_process_has_the_same_seeds(name: str) -> None:
    assert TARGETS[name]().seeds() == TARGETS[name]().seeds()


def test_an_edit_leaves_the_words_before_and_the_lines_around() -> None:
    raw = b'root {"a": [1, {"b": "c"}]}\nnot JSON'
    found = {edited(raw, seed) for seed in range(200)}
    assert len(found) > 50
    assert all(each.startswith(b"root ") and each.endswith(b"\nnot JSON") for each in found)
