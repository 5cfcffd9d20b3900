# SPDX-License-Identifier: GPL-3.0-or-later
"""A config's path has one form and one spelling, and leads nowhere else."""

from __future__ import annotations

import re

import pytest
from btfleet._config.errors import ConfigError
from btfleet._config.paths import MAX_ORG, MAX_SEGMENT, ConfigPath, check_segment, parse
from hypothesis import given
from hypothesis import strategies as st

segments = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True).filter(
    lambda text: text not in (".", "..")
)


@given(st.integers(0, MAX_ORG), segments, segments, segments)
def test_what_is_put_together_is_taken_apart_again(
    org: int, product: str, config_id: str, name: str
) -> None:
    path = ConfigPath(org, product, config_id, name)
    assert parse(str(path)) == path


@given(st.text() | st.lists(segments).map("/".join) | st.binary() | st.none() | st.integers())
def test_anything_is_a_path_or_refused_in_one_line(text: object) -> None:
    try:
        path = parse(text)
    except ConfigError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017  (both ends are right)
        assert len(str(exc)) < 500  # noqa: PT017
    else:
        assert str(path) == text


@pytest.mark.parametrize(
    "text",
    [
        "btfleet/1/CONNTRACK/../x",
        "btfleet/1/CONNTRACK/./x",
        "btfleet/1/CONNTRACK/a/..",
        "btfleet/1/../CONNTRACK/a/b",
        "../btfleet/1/CONNTRACK/a/b",
        "/btfleet/1/CONNTRACK/a/b",
        "btfleet/1/CONNTRACK/a/b/",
        "btfleet/1/CONNTRACK/a/b/c",
        "btfleet/1/CONNTRACK//b",
        "btfleet/1/CONNTRACK/a",
        "btfleet/1/CONNTRACK/a/b\n",
        "btfleet/1/CONNTRACK/a/b\0",
        "btfleet/1/CONNTRACK/a%2f/b",
        "btfleet/1/CONNTRACK/a\\b/c",
        "btfleet/1/CONNTRACK/\u00e4/b",
        "BTFLEET/1/CONNTRACK/a/b",
        "datadog/1/CONNTRACK/a/b",
        "btfleet/01/CONNTRACK/a/b",
        "btfleet/-1/CONNTRACK/a/b",
        "btfleet/\u0661/CONNTRACK/a/b",
        "btfleet/9223372036854775808/CONNTRACK/a/b",
        "btfleet//CONNTRACK/a/b",
        "",
    ],
)
def test_a_path_that_leads_elsewhere_or_has_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("btfleet/<org>") + "|needed: 1 to 128"):
        parse(text)


def test_a_segment_fits_into_a_file_name_with_its_digest() -> None:
    assert len(f"{'0' * 64}.{check_segment('name', 'x' * MAX_SEGMENT)}.json") < 255
    with pytest.raises(ConfigError, match=r"^name is 'xxx"):
        check_segment("name", "x" * (MAX_SEGMENT + 1))
