# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user says becomes the agent's files, or one line that says what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import agent_files
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from btfleet.poller.settings import Settings, parse

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
ROOT = '{"signatures": [], "signed": {"_type": "root"}}'
TOKEN = "0123456789abcdef"  # noqa: S105
NEEDED = {"host": "edge1", "service": "config.example.org:8443"}
ALL = {
    **NEEDED,
    "client_certificate": "/etc/pki/host.pem",
    "client_key": "/etc/pki/host.key",
    "groups": ["edge"],
    "labels": {"site": "ber1"},
    "log_level": "debug",
    "metrics": False,
    "metrics_listen": "",
    "org": 7,
    "poll_interval_seconds": 30,
    "products": ["CONNTRACK"],
    "tls_server_name": "config",
}


def test_what_nobody_said_is_left_to_the_agent() -> None:
    raw = agent_files.settings({**NEEDED, "log_level": None, "state": "present"})
    assert json.loads(raw) == NEEDED
    assert parse(raw, "it") == Settings(NEEDED["host"], NEEDED["service"])


def test_the_agent_takes_every_option() -> None:
    assert set(ALL) == set(agent_files.OPTIONS)
    taken = parse(agent_files.settings(ALL), "it")
    for name, value in ALL.items():
        found = getattr(taken, name)
        assert (list(found) if isinstance(found, tuple) else found) == value


def test_the_same_options_give_the_same_bytes() -> None:
    assert agent_files.settings(dict(reversed(ALL.items()))) == agent_files.settings(ALL)


@pytest.mark.parametrize("name", ["host", "service"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_needed_is_named(name: str, value: str | None) -> None:
    with pytest.raises(HostError, match=f"^{name} is missing, needed for state present$"):
        agent_files.settings({**NEEDED, name: value})


def test_files_that_were_given_are_written_and_others_stay() -> None:
    made = agent_files.contents(NEEDED, TOKEN + "\n", CA, ROOT)
    assert made["token"] == TOKEN.encode() + b"\n"
    assert made["ca.pem"] == CA.encode()
    assert made["director-root.json"] == ROOT.encode()
    kept = agent_files.contents(NEEDED, None, None, None)
    assert [name for name, content in kept.items() if content is None] == [
        *("token", "ca.pem", "director-root.json")
    ]


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 4097, "with a space in it", "ümläut-ümläut-ü"]
)
def test_a_token_that_cannot_be_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(HostError, match=r"^token has \d+ characters") as caught:
        agent_files.contents(NEEDED, token, None, None)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("ca", "message"),
    [
        (CA + "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----", "a private key"),
        ("-----BEGIN EC PRIVATE KEY-----\nsecret", "a private key"),
        ("", "no PEM certificate"),
        ("MIIB", "no PEM certificate"),
        ("-----BEGIN CERTIFICATE-----", "no PEM certificate"),
    ],
)
def test_a_ca_that_is_none_is_refused(ca: str, message: str) -> None:
    with pytest.raises(HostError, match=f"^ca holds {message}") as caught:
        agent_files.contents(NEEDED, None, ca, None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "root",
    [
        *("", "{}", "[]", '{"signed": []}', '{"signed": {"_type": "targets"}}'),
        '{"signed": {"_type": "root", "_type": "root"}}',
    ],
)
def test_a_root_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(HostError, match="director_root") as caught:
        agent_files.contents(NEEDED, None, None, root)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bundle_of_certificates_is_a_ca() -> None:
    made = agent_files.contents(NEEDED, None, "# our CA\n" + CA + CA, None)
    assert made["ca.pem"] is not None


def test_what_the_agent_does_not_take_is_its_own_to_say() -> None:
    odd: dict[str, Any] = {**NEEDED, "service": "no-port"}
    assert agent_files.settings(odd)
