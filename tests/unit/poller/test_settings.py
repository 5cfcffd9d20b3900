# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: everything that is wrong is one line that names the setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from btfleet.poller import settings
from btfleet.poller.errors import SettingsError
from btfleet.poller.settings import Settings, parse, split_address
from hypothesis import given
from hypothesis import strategies as st

LEAST = {"host": "gw1", "service": "config.example.org:8443"}


def parsed(**other: Any) -> Settings:
    return parse(json.dumps({**LEAST, **other}).encode(), "agent.json")


def test_host_and_service_are_enough() -> None:
    assert parsed() == Settings("gw1", "config.example.org:8443")


def test_defaults_are_those_of_the_contract(checkout: Path) -> None:
    contract = (checkout / "docs/remote-config.md").read_text()
    section = contract.split("## Settings of the agent")[1].split("## Settings of the config")[0]
    for name, value in vars(parsed()).items():
        assert f"`{name}`" in section
        if isinstance(value, (str, int)) and value and name not in LEAST and value is not True:
            assert str(value) in section


def test_lists_and_labels() -> None:
    facts = parsed(groups=["edge", "core"], labels={"site": "b", "empty": ""}).facts
    assert (facts.host, facts.groups) == ("gw1", frozenset({"edge", "core"}))
    assert facts.labels == {"site": "b", "empty": ""}


def each(name: str, *values: Any) -> list[tuple[str, Any]]:
    """A setting with each of its wrong values."""
    return [(name, value) for value in values]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *each("host", "", 1, None, "x" * 257),
        *each("service", "x", "x:", ":1", "x:0", "x:65536", "a b:1", "x:1:2"),
        *each("ca", "", "relative", "/a\0", 1),
        *each("tls_server_name", None, "x" * 254),
        ("org", -1),
        ("org", True),
        *each("groups", "edge", [""], [1], None),
        *each("labels", [], {"a": 1}, {"": "x"}),
        *each("products", ["LATER"], ["AGENT", "AGENT"], "AGENT"),
        *each("poll_interval_seconds", 0, 3601, 5.0, "5", True),
        *each("log_level", "INFO", "trace", 1),
        ("metrics", 1),
        *each("metrics_listen", "9463", "x:y", None),
        *each("socket", "", "/" + "x" * 107),
        ("state_folder", "state"),
        ("client_key", "key.pem"),
        ("later", 1),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(**{name: value})
    assert name in str(caught.value)
    assert "agent.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["client_key", "client_certificate"])
def test_half_a_client_certificate_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="both or none"):
        parsed(**{name: "/etc/btfleet/x.pem"})


@pytest.mark.parametrize("name", ["host", "service"])
def test_what_is_required_is_missed(name: str) -> None:
    data = {key: value for key, value in LEAST.items() if key != name}
    with pytest.raises(SettingsError, match=f"{name} is missing"):
        parse(json.dumps(data).encode(), "agent.json")


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b'{"host":"a","host":"b"}', b"[" * 10**5])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(SettingsError, match=r"agent\.json"):
        parse(raw, "agent.json")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_line(raw: bytes) -> None:
    with pytest.raises(SettingsError):
        parse(raw, "agent.json")


def test_a_file_that_is_missing_or_endless_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        settings.load(str(tmp_path / "agent.json"))
    (tmp_path / "agent.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match="more than"):
        settings.load(str(tmp_path / "agent.json"))


def test_addresses() -> None:
    assert split_address("127.0.0.1:9463") == ("127.0.0.1", 9463)
    assert split_address("[2001:db8::1]:80") == ("2001:db8::1", 80)
