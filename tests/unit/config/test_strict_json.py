# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON is taken only if every reader takes it the same way, and only up to a bound."""

from __future__ import annotations

import json

import pytest
from btfleet._config import strict_json
from btfleet._config.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

# surrogates are no characters
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(values, st.booleans())
def test_what_json_writes_is_read_back(value: object, escaped: bool) -> None:
    raw = json.dumps(value, ensure_ascii=escaped).encode()
    assert strict_json.loads(raw, "it") == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_bytes_of_any_kind_are_json_or_refused_in_one_line(raw: bytes) -> None:
    try:
        value = strict_json.loads(raw, "it")
    except ConfigError as exc:
        assert str(exc).startswith("it ")  # noqa: PT017  (both ends are right)
        assert len(str(exc).splitlines()) == 1  # noqa: PT017
    else:
        assert json.loads(raw) == value


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": 1, "a": 1}', "the key 'a' stands twice"),
        (b'{"x": [{"b": 1, "c": 2, "b": 3}]}', "the key 'b' stands twice"),
        (b'{"\\u0061": 1, "a": 2}', "the key 'a' stands twice"),
        (b"NaN", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"1e999", "is out of range"),
        (b"9" * 21, "more than 20 digits"),
        (b"-" + b"9" * 100000, "more than 20 digits"),
        (b'"\\ud800"', "is no Unicode"),
        (b'{"\\udc00": 1}', "is no Unicode"),
        (b"[" * 33 + b"]" * 33, "more than 32 levels"),
        (b"[" * 500000, "more than 32 levels"),
        (b"\xff", "is not UTF-8"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"{} {}", "Extra data"),
        (b"", "Expecting value"),
        (b"{'a': 1}", "Expecting property name"),
    ],
)
def test_json_that_readers_may_take_differently_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        strict_json.loads(raw, "the file")
    assert str(caught.value).startswith("the file ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_limit_is_the_last_size_that_is_taken() -> None:
    assert strict_json.loads(b"[1]", "it", limit=3) == [1]
    with pytest.raises(ConfigError, match=r"^it has 4 bytes, needed: at most 3$"):
        strict_json.loads(b"[10]", "it", limit=3)


def test_as_many_levels_as_are_allowed_are_taken() -> None:
    for inside in (b"", b'"a"', b"1"):
        deepest = b"[" * 32 + inside + b"]" * 32
        assert json.dumps(strict_json.loads(deepest, "it")).encode() == deepest
