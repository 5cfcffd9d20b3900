# SPDX-License-Identifier: GPL-3.0-or-later
"""The custom fields of a target are complete and in range, or the target is refused."""

from __future__ import annotations

from typing import Any

import pytest
from btfleet._config.custom import MAX_NUMBER, Custom, is_expired, parse
from btfleet._config.errors import ConfigError


def test_the_director_says_for_whom_and_until_when() -> None:
    said = {"v": 3, "predicates": [{"host": "gw1"}], "expires": 5, "later": True}
    assert parse(said, director=True) == Custom(3, [{"host": "gw1"}], 5)


@pytest.mark.parametrize("director", [True, False])
@pytest.mark.parametrize("version", [1, MAX_NUMBER])
def test_without_more_it_is_for_everybody_and_for_ever(director: bool, version: int) -> None:
    assert parse({"v": version}, director) == Custom(version, [], 0)


@pytest.mark.parametrize("director", [True, False])
@pytest.mark.parametrize("said", [None, {}, [], "v", {"V": 1}])
def test_a_version_is_required(said: Any, director: bool) -> None:
    with pytest.raises(ConfigError, match=r"^custom\.v is missing"):
        parse(said, director)


@pytest.mark.parametrize("version", [0, -1, 2**63, "1", 1.0, True, None, [1]])
def test_a_version_that_is_none_is_refused(version: object) -> None:
    with pytest.raises(ConfigError, match=r"^custom\.v is .*, needed: a number from 1"):
        parse({"v": version}, director=True)


@pytest.mark.parametrize("expires", [-1, 2**63, "0", 1.5, False, None])
def test_an_expiry_that_is_none_is_refused(expires: object) -> None:
    with pytest.raises(ConfigError, match=r"^custom\.expires is .*, needed: a number from 0"):
        parse({"v": 1, "expires": expires}, director=True)


@pytest.mark.parametrize("field", ["predicates", "expires"])
def test_the_config_repository_may_not_say_what_only_the_director_may(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^custom\.{field} stands in the config repository"):
        parse({"v": 1, field: []}, director=False)


@pytest.mark.parametrize(
    ("expires", "now", "expected"),
    [(0, 0, False), (0, MAX_NUMBER, False), (10, 9, False), (10, 10, True), (10, 11, True)],
)
def test_a_config_expires_at_its_second(expires: int, now: int, expected: bool) -> None:
    assert is_expired(Custom(1, [], expires), now) is expected
