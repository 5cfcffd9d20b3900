# SPDX-License-Identifier: GPL-3.0-or-later
"""What a config may set is what its product takes, with the checks of the spec itself."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from btfleet._config.catalogue import (
    KEYS,
    MAX_CONTENT,
    PRODUCTS,
    check_content,
    check_product,
    check_settings,
)
from btfleet._config.errors import ConfigError
from btfleet._kernel.spec import Spec
from hypothesis import given
from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def test_conntrack_takes_what_the_spec_has_but_for_files_of_one_host() -> None:
    assert set(KEYS["CONNTRACK"]) == {field.name for field in fields(Spec)} - {
        "object_sha256",
        "btf_path",
    }


@pytest.mark.parametrize(
    ("product", "settings"),
    [
        ("CONNTRACK", {}),
        ("CONNTRACK", {"udpv6_enabled": False, "max_entries": 4096}),
        ("AGENT", {}),
        ("AGENT", {"poll_interval_seconds": 1, "log_level": "debug", "metrics": False}),
        ("AGENT", {"poll_interval_seconds": 3600}),
    ],
)
def test_good_settings_are_taken_and_nothing_is_added(
    product: str, settings: dict[str, Any]
) -> None:
    assert check_content(product, json.dumps(settings).encode()) == settings


def test_the_order_of_tiers_does_not_matter() -> None:
    tiers = ["core/kprobe", "core/fentry"]
    assert check_settings("CONNTRACK", {"tiers": tiers})["tiers"] == ["core/fentry", "core/kprobe"]


@pytest.mark.parametrize(
    ("product", "raw", "message"),
    [
        ("CONNTRACK", b'{"max_entries": 1}', "max_entries is 1, needed"),
        ("CONNTRACK", b'{"max_entries": 4194305}', "max_entries is 4194305, a config may"),
        ("CONNTRACK", b'{"closed_entries": 16777216}', "closed_entries is 16777216, a config"),
        ("CONNTRACK", b'{"udpv6_enabled": "no"}', "udpv6_enabled is 'no', needed"),
        ("CONNTRACK", b'{"tiers": []}', "tiers is empty"),
        ("CONNTRACK", b'{"btf_path": "/x"}', "unknown setting 'btf_path'"),
        ("CONNTRACK", b'{"object_sha256": "00"}', "unknown setting 'object_sha256'"),
        ("CONNTRACK", b'{"metrics": true}', "unknown setting 'metrics'"),
        ("CONNTRACK", b"[]", "the content of a CONNTRACK config is a list"),
        ("CONNTRACK", b"null", "the content of a CONNTRACK config is a NoneType"),
        ("CONNTRACK", b"{", "the CONNTRACK config is not valid JSON"),
        ("CONNTRACK", b'{"tiers": [], "tiers": []}', "the CONNTRACK config is not valid JSON"),
        ("AGENT", b'{"poll_interval_seconds": 0}', "poll_interval_seconds is 0, needed"),
        ("AGENT", b'{"poll_interval_seconds": 3601}', "poll_interval_seconds is 3601"),
        ("AGENT", b'{"poll_interval_seconds": 1.5}', "poll_interval_seconds is 1.5"),
        ("AGENT", b'{"poll_interval_seconds": true}', "poll_interval_seconds is True"),
        ("AGENT", b'{"log_level": "trace"}', "log_level is 'trace', needed: one of debug"),
        ("AGENT", b'{"log_level": ["info"]}', "log_level is ['info']"),
        ("AGENT", b'{"metrics": 1}', "metrics is 1, needed: true or false"),
        ("AGENT", b'{"max_entries": 4096}', "unknown setting 'max_entries'"),
    ],
)
def test_what_a_host_would_refuse_is_refused(product: str, raw: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_content(product, raw)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("product", ["OTHER", "agent", "", None, 1])
def test_a_product_that_does_not_exist_is_named_with_those_that_do(product: object) -> None:
    with pytest.raises(ConfigError, match=r"^product is .*, known are: AGENT, CONNTRACK$"):
        check_product(product)


def test_a_content_is_not_looked_at_where_there_is_no_such_product() -> None:
    with pytest.raises(ConfigError) as excinfo:
        check_content("a\nb", b"not JSON")
    assert str(excinfo.value).startswith("product is 'a\\nb', known are: ")


def test_a_content_has_a_largest_size() -> None:
    with pytest.raises(ConfigError, match=f"needed: at most {MAX_CONTENT}$"):
        check_content("AGENT", b"{}" + b" " * MAX_CONTENT)


@given(
    st.sampled_from(PRODUCTS),
    json_values
    | st.dictionaries(st.sampled_from([*KEYS["AGENT"], *KEYS["CONNTRACK"]]), json_values),
)
def test_settings_of_any_kind_are_taken_or_refused_in_one_line(product: str, data: object) -> None:
    try:
        settings = check_settings(product, data)
    except ConfigError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017  (both ends are right)
    else:
        assert isinstance(data, dict)
        assert set(settings) == set(data)
