# SPDX-License-Identifier: GPL-3.0-or-later
"""A spec takes what is in range, refuses the rest in one line, and has one fingerprint a wish."""

from __future__ import annotations

import json
from typing import Any

import pytest
from btfleet._kernel.errors import InvalidSpec
from btfleet._kernel.spec import DEFAULT_TIERS, MAX_ENTRIES, MIN_ENTRIES, TIERS, Spec
from hypothesis import given, settings
from hypothesis import strategies as st

SHA = "a" * 64

specs = st.builds(
    Spec,
    object_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    tcpv6_enabled=st.booleans(),
    udpv6_enabled=st.booleans(),
    max_entries=st.integers(MIN_ENTRIES, MAX_ENTRIES),
    closed_entries=st.integers(MIN_ENTRIES, MAX_ENTRIES),
    tiers=st.sampled_from([TIERS, TIERS[:1], TIERS[1:]]),
    allow_fentry_deadlock=st.booleans(),
    btf_path=st.none() | st.text().map(lambda text: "/" + text),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def refusal(**settings: Any) -> str:
    with pytest.raises(InvalidSpec) as caught:
        Spec.from_dict({"object_sha256": SHA, **settings})
    return str(caught.value)


@pytest.mark.parametrize("name", ["max_entries", "closed_entries"])
@pytest.mark.parametrize("value", [1024, 1025, 16777215, 16777216])
def test_sizes_in_range_are_taken(name: str, value: int) -> None:
    assert Spec.from_dict({"object_sha256": SHA, name: value}).to_dict()[name] == value


@pytest.mark.parametrize("name", ["max_entries", "closed_entries"])
@pytest.mark.parametrize("value", [1023, 16777217, 0, -1, 2**64])
def test_sizes_out_of_range_are_refused(name: str, value: int) -> None:
    assert refusal(**{name: value}) == (
        f"{name} is {value}, needed: a number from 1024 to 16777216"
    )


@pytest.mark.parametrize("name", ["max_entries", "closed_entries"])
@pytest.mark.parametrize("value", ["4096", 4096.0, True, None, [4096], float("nan")])
def test_sizes_of_another_type_are_refused(name: str, value: object) -> None:
    assert refusal(**{name: value}) == f"{name} is {value!r}, needed: a whole number"


@pytest.mark.parametrize("name", ["tcpv6_enabled", "udpv6_enabled", "allow_fentry_deadlock"])
@pytest.mark.parametrize("value", ["yes", 1, 0, None, []])
def test_switches_are_true_or_false_and_nothing_else(name: str, value: object) -> None:
    assert refusal(**{name: value}) == f"{name} is {value!r}, needed: true or false"


@pytest.mark.parametrize("value", ["", "a" * 63, "a" * 65, "A" * 64, SHA + "\n", "g" * 64, 5, None])
def test_a_digest_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(InvalidSpec, match="needed: 64 lower-case hex digits"):
        Spec.from_dict({"object_sha256": value})


def test_a_missing_digest_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"^object_sha256 is missing, needed: 64 lower-case"):
        Spec.from_dict({})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "tiers is empty"),
        ("core/kprobe", "tiers is 'core/kprobe', needed: a list of tiers"),
        (None, "tiers is None, needed: a list of tiers"),
        (["core/kprobe", "core/magic"], "tiers holds 'core/magic'"),
        ([["core/kprobe"]], r"tiers holds \['core/kprobe'\]"),
        ([None], "tiers holds None"),
        ([{}], r"tiers holds \{\}"),
    ],
)
def test_tiers_that_are_none_are_refused(value: object, expected: str) -> None:
    with pytest.raises(InvalidSpec, match=f"^{expected}"):
        Spec.from_dict({"object_sha256": SHA, "tiers": value})


@pytest.mark.parametrize("value", ["", "boot/btf", 5, True, ["/boot/btf"]])
def test_a_btf_path_that_is_not_absolute_is_refused(value: object) -> None:
    assert refusal(btf_path=value) == f"btf_path is {value!r}, needed: an absolute path"


def test_an_unknown_setting_is_named_with_those_that_are_known() -> None:
    message = refusal(max_entry=4096)
    assert "unknown setting 'max_entry'" in message
    assert "max_entries" in message


@pytest.mark.parametrize("data", [None, 5, "text", [1], True])
def test_anything_but_an_object_of_settings_is_refused(data: object) -> None:
    with pytest.raises(InvalidSpec, match="needed: an object of settings"):
        Spec.from_dict(data)


@pytest.mark.parametrize(
    "tiers",
    [
        list(DEFAULT_TIERS),
        list(reversed(DEFAULT_TIERS)),
        (*reversed(DEFAULT_TIERS), DEFAULT_TIERS[1]),
    ],
)
def test_the_order_of_tiers_does_not_matter(tiers: object) -> None:
    spec = Spec.from_dict({"object_sha256": SHA, "tiers": tiers})
    assert spec.tiers == DEFAULT_TIERS
    assert spec.fingerprint == Spec(SHA).fingerprint


def test_netlink_has_to_be_asked_for_by_name() -> None:
    assert "netlink" not in Spec(SHA).tiers
    spec = Spec.from_dict({"object_sha256": SHA, "tiers": ["netlink", "core/kprobe"]})
    assert spec.tiers == ("core/kprobe", "netlink")


def test_the_fingerprint_never_changes_by_itself() -> None:
    """A new release that computes another one would reload every host of a fleet."""
    settings = {
        "object_sha256": "0123456789abcdef" * 4,
        "tcpv6_enabled": True,
        "udpv6_enabled": False,
        "max_entries": 4096,
        "closed_entries": 2048,
        "tiers": ["core/kprobe"],
        "allow_fentry_deadlock": False,
        "btf_path": "/boot/vmlinux.btf",
    }
    assert Spec.from_dict(settings).fingerprint == (
        "c1d203adfa0ddb57eb5a2b0dbcfed1e79a0d6f354c639162477bffed35c2c8ba"
    )
    assert Spec(SHA, tiers=("core/fentry", "core/kprobe")).fingerprint == (
        "b0c73985a660693560658ddabce57079bfacded372d1ecf0751725556f31b4eb"
    )


@given(specs, specs)
def test_fingerprints_are_equal_exactly_for_equal_specs(one: Spec, other: Spec) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)


@given(specs)
def test_json_gives_the_spec_back(spec: Spec) -> None:
    again = Spec.from_json(spec.to_json(), "spec.json")
    assert again == spec
    assert again.fingerprint == spec.fingerprint
    assert json.loads(spec.to_json()) == spec.to_dict()


@pytest.mark.parametrize("text", ["", "{", "nonsense", "{'a': 1}", '{"a": 1,}', "\0", "[" * 200000])
def test_text_that_is_not_json_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Spec.from_json(text, "/etc/btfleet/spec.json")
    assert str(caught.value).startswith("/etc/btfleet/spec.json is not JSON (")
    assert "\n" not in str(caught.value)


@given(st.text() | json_values.map(json.dumps))
def test_text_of_any_kind_is_a_spec_or_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Spec.from_json(text, "spec.json")
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from(sorted(Spec(SHA).to_dict())) | st.text(max_size=3), json_values)
)
def test_settings_of_any_kind_are_a_spec_or_refused_in_one_line(data: dict[str, object]) -> None:
    try:
        spec = Spec.from_dict({"object_sha256": SHA, **data})
    except InvalidSpec as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017  (both ends are right)
    else:
        assert MIN_ENTRIES <= spec.max_entries <= MAX_ENTRIES
        assert set(spec.tiers) <= set(TIERS)
