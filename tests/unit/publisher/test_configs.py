# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for is checked as a host would, and changes only what differs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import configs
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.publisher.places import config, path_of


def change(
    before: configs.Change | None, *entries: dict[str, Any], version: int, exclusive: bool = False
) -> configs.Change:
    director, other = (before.director, before.config) if before else ({}, {})
    return configs.change(director, other, configs.wanted(entries, 1, exclusive), version)


def version_of(found: configs.Change, name: str = "x") -> int:
    custom = found.director[path_of(name)].custom
    assert found.config[path_of(name)].custom == {"v": custom["v"]}
    version: int = custom["v"]
    return version


def test_the_version_rises_with_the_content_and_with_nothing_else() -> None:
    first = change(None, config(), version=2)
    assert (first.published, version_of(first)) == ([path_of()], 2)
    same = change(first, config(), version=3)
    assert (same.published, same.director, same.config) == ([], first.director, first.config)
    for_one = change(first, config(predicates=[{"host": "gw1"}]), version=3)
    assert (for_one.published, version_of(for_one)) == ([path_of()], 2)
    assert for_one.config == first.config
    other = change(for_one, config(content={"max_entries": 4096}), version=4)
    assert version_of(other) == 4


def test_the_version_rises_over_a_withdrawal() -> None:
    first = change(None, config(), version=2)
    gone = change(first, {**config(), "state": "absent"}, version=3)
    assert (gone.withdrawn, gone.director, gone.config) == ([path_of()], {}, {})
    again = change(gone, config(), version=4)
    assert version_of(again) == 4


def test_what_is_not_there_is_not_withdrawn() -> None:
    assert change(None, {**config(), "state": "absent"}, version=2).withdrawn == []


def test_others_go_only_if_that_is_asked_for() -> None:
    two = change(None, config("x"), config("y"), version=2)
    assert set(change(two, config("x"), version=3).director) == {path_of("x"), path_of("y")}
    one = change(two, config("x"), version=3, exclusive=True)
    assert (list(one.director), list(one.config)) == ([path_of("x")], [path_of("x")])
    assert one.withdrawn == [path_of("y")]
    assert change(one, version=4, exclusive=True).withdrawn == [path_of("x")]


def test_equal_content_has_equal_bytes_however_it_is_written() -> None:
    one = change(None, config(content={"max_entries": 4096, "udpv6_enabled": True}), version=2)
    other = change(one, config(content={"udpv6_enabled": True, "max_entries": 4096}), version=3)
    assert other.published == []


def test_what_a_predicate_does_not_set_is_left_out() -> None:
    found = change(
        None, config(predicates=[{"host": None, "group": "edge", "labels": None}]), version=2
    )
    assert found.director[path_of()].custom["predicates"] == [{"group": "edge"}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (config(content={"max_entries": 1}), f"{path_of()}: max_entries is 1, needed"),
        (config(content={"unknown": 1}), f"{path_of()}: unknown setting 'unknown'"),
        (config(content=None), f"{path_of()}: content is missing"),
        (config(content={"max_entries": float("nan")}), f"{path_of()}: the content is no JSON"),
        (config(content={"max_entries": {1}}), f"{path_of()}: the content is no JSON"),
        (
            config(product="AGENT", content={"log_level": "loud"}),
            "btfleet/1/AGENT/edge/x: log_level is 'loud', needed",
        ),
        (config(product="OTHER"), "product is 'OTHER', known are"),
        (config(id=".."), "id is '..', needed"),
        (config(id="a/b"), "id is 'a/b', needed"),
        (config(name="../x"), "name is '../x', needed"),
        (config(name=""), "name is '', needed"),
        (config(name="x\n"), "name is 'x\\n', needed"),
        (config(predicates=[{}]), f"{path_of()}: predicate 1 sets nothing"),
        (config(predicates=[{"host": None}]), f"{path_of()}: predicate 1 sets nothing"),
        (config(predicates=["gw1"]), f"{path_of()}: predicate 1 is 'gw1', needed"),
        (config(expires="tomorrow"), f"{path_of()}: expires is 'tomorrow', needed"),
    ],
)
def test_what_a_host_would_refuse_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.wanted([entry], 1, exclusive=False)
    assert str(caught.value).startswith(message)


def test_a_path_that_is_asked_for_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"^{path_of()} stands twice"):
        configs.wanted([config(), {**config(), "state": "absent"}], 1, exclusive=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("1798761600", 1798761600),
        ("2027-01-01", 1798761600),
        ("2027-01-01T00:00:00Z", 1798761600),
        ("2027-01-01T01:00:00+01:00", 1798761600),
        ("2027-01-01 00:00:00+00:00", 1798761600),
    ],
)
def test_an_expiry_is_a_date_a_time_or_seconds(text: str | None, seconds: int) -> None:
    assert configs.parse_expires(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-01T00:00:00",
        "2027-13-01",
        "01.01.2027",
        "-1",
        "1.5",
        "9" * 19,
        "9" * 20,
        "1960-01-01",
    ],
)
def test_an_expiry_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^expires is .*, needed: a date"):
        configs.parse_expires(text)


@given(st.text(max_size=30))
def test_an_expiry_of_any_kind_is_taken_or_refused_in_one_line(text: str) -> None:
    try:
        assert configs.parse_expires(text) >= 0
    except ConfigError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017  (both ends are right)
