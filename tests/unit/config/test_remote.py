# SPDX-License-Identifier: GPL-3.0-or-later
"""What the poller agent wants is taken as far as Ansible allows it, and not a bit further."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from btfleet._config import remote
from btfleet._config.remote import Answer, Effective, Wanted, WantedRefused
from btfleet._kernel.errors import InvalidSpec
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store
from hypothesis import given
from hypothesis import strategies as st

BASE = Spec("a" * 64, max_entries=4096)
PATH = "btfleet/1/CONNTRACK/edge/no-udp6"
OTHER_PATH = "btfleet/1/CONNTRACK/edge/sizes"
UDP6 = frozenset({"CONNTRACK.udpv6_enabled"})


def content(settings: object, owners: object, request: object = None) -> bytes:
    """wanted.json, with the right number unless another is given."""
    if request is None:
        request = remote.request_of(settings, owners)  # type: ignore[arg-type]
    return json.dumps({"request": request, "settings": settings, "owners": owners}).encode()


NO_UDP6 = content({"udpv6_enabled": False}, {"udpv6_enabled": PATH})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("agent", "etc", "run"):
        (tmp_path / name).mkdir()
    return Store(
        str(tmp_path / "etc" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "agent" / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )


def want(store: Store, raw: bytes = NO_UDP6) -> None:
    Path(store.wanted_path).write_bytes(raw)


# --- the request ---------------------------------------------------------------------------------


def test_the_number_of_a_request_is_the_documented_one() -> None:
    import hashlib  # noqa: PLC0415

    text = f'{{"owners":{{"udpv6_enabled":"{PATH}"}},"settings":{{"udpv6_enabled":false}}}}'
    wanted = remote.parse_wanted(NO_UDP6, "wanted.json")
    assert wanted.request == hashlib.sha256(text.encode()).hexdigest()


def test_a_request_is_read_as_it_was_written() -> None:
    wanted = remote.parse_wanted(NO_UDP6, "wanted.json")
    assert wanted.settings == {"udpv6_enabled": False}
    assert wanted.owners == {"udpv6_enabled": PATH}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "wanted.json"),
        (b"\xff", "wanted.json"),
        (b"[]", "wanted.json is no object of request, settings, owners"),
        (b"{}", "wanted.json is no object of"),
        (NO_UDP6[:-1] + b', "more": 1}', "wanted.json is no object of"),
        (NO_UDP6[:-1] + b', "settings": {}}', "settings"),
        (content([], {}), "needed: an object of settings"),
        (content({}, []), "does not name one owner for each setting"),
        (content({"udpv6_enabled": False}, {}), "does not name one owner for each setting"),
        (content({}, {"udpv6_enabled": PATH}), "does not name one owner for each setting"),
        (content({"magic": 1}, {"magic": PATH}), "unknown setting 'magic'"),
        (content({"btf_path": "/x"}, {"btf_path": PATH}), "unknown setting 'btf_path'"),
        (
            content({"object_sha256": "b" * 64}, {"object_sha256": PATH}),
            "unknown setting 'object_sha256'",
        ),
        (content({"max_entries": 5}, {"max_entries": PATH}), "max_entries is 5, needed"),
        (content({"max_entries": True}, {"max_entries": PATH}), "max_entries is True, needed"),
        (content({"tiers": []}, {"tiers": PATH}), "tiers is empty"),
        (content({"udpv6_enabled": False}, {"udpv6_enabled": "base"}), "the path is 'base'"),
        (content({"udpv6_enabled": False}, {"udpv6_enabled": 7}), "the path is 7"),
        (
            content({"udpv6_enabled": False}, {"udpv6_enabled": "btfleet/1/AGENT/a/b"}),
            "is no config of the product CONNTRACK",
        ),
        (
            content({"udpv6_enabled": False}, {"udpv6_enabled": PATH}, "c" * 64),
            "is not the SHA-256",
        ),
        (content({"udpv6_enabled": False}, {"udpv6_enabled": PATH}, 7), "is not the SHA-256"),
        (b" " * (64 * 1024 + 1), "needed: at most 65536"),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(raw: bytes, message: str) -> None:
    with pytest.raises(WantedRefused) as caught:
        remote.parse_wanted(raw, "wanted.json")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_refusal_has_the_number_of_its_request_if_there_is_one() -> None:
    with pytest.raises(WantedRefused) as caught:
        remote.parse_wanted(content({"magic": 1}, {"magic": PATH}), "it")
    assert caught.value.request == remote.request_of({"magic": 1}, {"magic": PATH})
    with pytest.raises(WantedRefused) as caught:
        remote.parse_wanted(content({}, {}, "nonsense"), "it")
    assert caught.value.request is None


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    with pytest.raises(WantedRefused):
        remote.parse_wanted(raw, "it")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@given(st.sampled_from(remote.KNOWN_KEYS), json_values)
def test_any_value_makes_a_spec_or_is_refused(key: str, value: Any) -> None:
    name = key.split(".")[1]
    try:
        wanted = remote.parse_wanted(content({name: value}, {name: PATH}), "it")
    except WantedRefused:
        return
    made = remote.overlay(BASE, wanted, frozenset(remote.KNOWN_KEYS)).spec
    assert replace(made, **{name: getattr(BASE, name)}) == BASE


# --- what may be overridden ----------------------------------------------------------------------


def test_allowed_keys_are_read() -> None:
    raw = b'{"keys": ["CONNTRACK.udpv6_enabled", "AGENT.log_level"]}'
    assert remote.parse_allowed(raw, "remote.json") == UDP6 | {"AGENT.log_level"}


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "more": 1}', b'{"keys": [1]}'),
        *(b'{"keys": ["udpv6_enabled"]}', b'{"keys": ["CONNTRACK.btf_path"]}'),
        b'{"keys": [], "keys": ["CONNTRACK.udpv6_enabled"]}',
        b'{"keys": [["CONNTRACK.udpv6_enabled"]]}',
    ],
)
def test_a_damaged_list_of_keys_is_no_list(raw: bytes) -> None:
    with pytest.raises(InvalidSpec, match=r"remote\.json"):
        remote.parse_allowed(raw, "remote.json")


def test_keys_are_written_and_read_and_without_any_there_is_no_file(store: Store) -> None:
    assert remote.read_allowed(store) == frozenset()
    remote.write_allowed(store, UDP6)
    assert remote.read_allowed(store) == UDP6
    assert Path(store.remote_path).stat().st_mode & 0o777 == 0o644
    remote.write_allowed(store, [])
    assert not os.path.exists(store.remote_path)
    remote.write_allowed(store, [])


# --- laying it over the base ---------------------------------------------------------------------


def test_an_allowed_setting_is_overridden_and_owned() -> None:
    made = remote.overlay(BASE, remote.parse_wanted(NO_UDP6, "it"), UDP6)
    assert made.spec == replace(BASE, udpv6_enabled=False)
    assert made.owners == {**dict.fromkeys(BASE.to_dict(), "base"), "udpv6_enabled": PATH}
    assert made.reason is None


@pytest.mark.parametrize(
    "allowed",
    [
        frozenset(),
        frozenset({"CONNTRACK.tcpv6_enabled"}),
        frozenset({"udpv6_enabled"}),
        frozenset({"AGENT.udpv6_enabled"}),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(allowed: frozenset[str]) -> None:
    with pytest.raises(WantedRefused, match=f"^{PATH}: it sets udpv6_enabled, which") as caught:
        remote.overlay(BASE, remote.parse_wanted(NO_UDP6, "it"), allowed)
    assert caught.value.request == remote.request_of(
        {"udpv6_enabled": False}, {"udpv6_enabled": PATH}
    )


def test_one_refused_config_refuses_the_request() -> None:
    """It is the agent that leaves a refused config out; half a request is not what it asked for."""
    raw = content(
        {"udpv6_enabled": False, "max_entries": 2048},
        {"udpv6_enabled": PATH, "max_entries": OTHER_PATH},
    )
    with pytest.raises(WantedRefused, match=f"^{OTHER_PATH}: it sets max_entries"):
        remote.overlay(BASE, remote.parse_wanted(raw, "it"), UDP6)


def test_nothing_overridden_is_the_base() -> None:
    made = remote.overlay(BASE, remote.parse_wanted(content({}, {}), "it"), frozenset())
    assert made.spec == BASE
    assert set(made.owners.values()) == {"base"}


def test_the_order_of_tiers_makes_no_other_spec() -> None:
    tiers = list(reversed(BASE.tiers))
    raw = content({"tiers": tiers}, {"tiers": PATH})
    made = remote.overlay(BASE, remote.parse_wanted(raw, "it"), frozenset({"CONNTRACK.tiers"}))
    assert made.spec.fingerprint == BASE.fingerprint


# --- files ---------------------------------------------------------------------------------------


def test_without_a_request_the_base_is_wanted(store: Store) -> None:
    assert remote.effective(store, BASE) == remote.base_alone(BASE)


def test_a_request_over_the_base(store: Store) -> None:
    remote.write_allowed(store, UDP6)
    want(store)
    assert remote.effective(store, BASE).spec == replace(BASE, udpv6_enabled=False)


def test_keys_that_are_about_to_be_written_count_already(store: Store) -> None:
    remote.write_allowed(store, UDP6)
    want(store)
    refused = remote.effective(store, BASE, frozenset())
    assert refused.spec == BASE
    assert refused.reason is not None


def test_a_damaged_list_of_keys_allows_nothing(store: Store) -> None:
    Path(store.remote_path).write_text("{")
    want(store)
    found = remote.effective(store, BASE)
    assert found.spec == BASE
    assert str(found.reason).startswith(store.remote_path)
    assert found.request == remote.request_of({"udpv6_enabled": False}, {"udpv6_enabled": PATH})


def make_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_bytes(NO_UDP6)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_link, "cannot read .* \\(Too many levels of symbolic links\\)"),
        (lambda path: path.mkdir(), "is no plain file"),
        (os.mkfifo, "is no plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot read"),
        (lambda path: path.write_bytes(b" " * 10_000_000), "needed: at most 65536"),
    ],
    ids=["symlink", "folder", "fifo", "device", "endless"],
)
def test_what_lies_in_place_of_the_request_does_no_harm(
    store: Store, make: Callable[[Path], None], message: str
) -> None:
    make(Path(store.wanted_path))
    with pytest.raises(WantedRefused, match=message):
        remote.read_wanted(store)
    assert remote.effective(store, BASE).spec == BASE


def test_an_answer_is_read_as_it_was_written(store: Store) -> None:
    assert remote.read_answer(store) is None
    answer = Answer("b" * 64, "failed", None, "no", 7)
    remote.write_answer(store, answer)
    assert remote.read_answer(store) == answer
    assert Path(store.applied_path).stat().st_mode & 0o777 == 0o644
    assert set(json.loads(Path(store.applied_path).read_text())) == {
        *("request", "state", "fingerprint", "reason", "at")
    }
    remote.forget_answer(store)
    remote.forget_answer(store)
    assert remote.read_answer(store) is None


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_answer_is_none(store: Store, raw: bytes) -> None:
    Path(store.applied_path).write_bytes(raw)
    assert remote.read_answer(store) is None


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, True),
        ({"state": "applied"}, False),
        ({"request": "c" * 64}, False),
        ({"fingerprint": "c" * 64}, False),
        ({"fingerprint": None}, False),
    ],
)
def test_a_load_has_failed_only_for_this_request_and_this_spec(
    change: dict[str, Any], failed: bool
) -> None:
    effective = Effective(BASE, {}, "b" * 64)
    answer = Answer("b" * 64, "failed", BASE.fingerprint, "no", 7)._replace(**change)
    assert remote.has_failed(effective, answer) is failed
    assert not remote.has_failed(effective, None)
    assert not remote.has_failed(replace(effective, request=None), answer._replace(request=None))


# --- owners --------------------------------------------------------------------------------------


def test_owners_of_what_is_in_force() -> None:
    made = remote.overlay(BASE, remote.parse_wanted(NO_UDP6, "it"), UDP6)
    assert remote.owners_in_force(made.spec.to_dict(), BASE, made) == made.owners


def test_owners_that_cannot_be_told_are_not_made_up() -> None:
    """A request that is not in force owns nothing yet, and who set another value is not known."""
    made = remote.overlay(BASE, remote.parse_wanted(NO_UDP6, "it"), UDP6)
    loaded = replace(BASE, max_entries=8192).to_dict()
    owners = remote.owners_in_force(loaded, BASE, made)
    assert owners == {**dict.fromkeys(BASE.to_dict(), "base"), "max_entries": None}
    assert set(remote.owners_in_force(loaded, None, None).values()) == {None}


def test_wanted_is_what_the_contract_says() -> None:
    assert set(Wanted._fields) == {"request", "settings", "owners"}
