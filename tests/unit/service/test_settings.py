# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings and tokens: strict, and each error names the key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from btfleet.service import tokens
from btfleet.service.certificates import read_pair
from btfleet.service.errors import SettingsError
from btfleet.service.settings import Roots, Settings, Tls, parse, read, split_address
from btfleet.service.tokens import Identity, TokenFile, token_of

from tests.unit.service.certificates import Authority

LEAST: dict[str, Any] = {
    "repository": "/srv/btfleet",
    "roots": {"director": "/etc/d.json", "config": "/etc/c.json"},
    "tls": {"certificate": "/etc/s.pem", "key": "/etc/s.key"},
}
HASH = "a" * 64


def test_the_least_that_has_to_be_given() -> None:
    assert parse(LEAST, "file") == Settings(
        "/srv/btfleet", Roots("/etc/d.json", "/etc/c.json"), Tls("/etc/s.pem", "/etc/s.key")
    )


def test_defaults_are_the_contracts(checkout: Path) -> None:
    text = (checkout / "docs/remote-config.md").read_text()
    table = text.partition("## Settings of the config service")[2]
    settings = parse(LEAST, "file")
    keys = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(keys) == set(vars(settings))
    for key in ("listen", "tokens", "state_folder", "metrics_listen"):
        assert str(getattr(settings, key)) in table


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"listne": 1}, "unknown setting 'listne', known are: client_ttl_seconds"),
        ({"listen": 8443}, "listen is 8443, needed: HOST:PORT"),
        ({"listen": "::1:8443"}, "needed: HOST:PORT, an IPv6 address in brackets"),
        ({"listen": "host:65536"}, "needed: HOST:PORT"),
        ({"metrics_listen": "x"}, "metrics_listen is 'x'"),
        ({"repository": "srv"}, "needed: a folder's absolute path, or https://"),
        ({"repository": "http://host/"}, "needed: a folder's absolute path, or https://"),
        ({"repository": "https://"}, "needed: a folder's absolute path, or https://"),
        ({"repository": "https://u:p@host"}, "needed: a folder's absolute path, or https://"),
        ({"repository": "https://host:x"}, "needed: a folder's absolute path, or https://"),
        ({"repository_ca": "/ca.pem"}, "repository_ca is set and the repository is a folder"),
        ({"roots": {"director": "/d"}}, "roots: config is missing"),
        ({"roots": {"director": "/d", "config": "/c", "x": "/x"}}, "unknown setting 'x'"),
        ({"roots": []}, "roots is a list"),
        ({"tls": {"certificate": "/c", "key": "k"}}, "tls: key is 'k', needed: an absolute path"),
        ({"tokens": "/a\0b"}, "tokens is"),
        ({"org": True}, "org is True, needed: a whole number"),
        ({"org": -1}, "org is -1, needed: a number from 0"),
        ({"refresh_interval_seconds": 4}, "needed: a number from 5 to 86400"),
        ({"client_ttl_seconds": 3601}, "needed: a number from 5 to 3600"),
        ({"suggested_interval_seconds": 1.5}, "needed: a whole number"),
        ({"enabled": "yes"}, "enabled is 'yes', needed: true or false"),
        ({"reflection": 0}, "reflection is 0, needed: true or false"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({**LEAST, **change}, "file")
    assert str(caught.value).startswith("file: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", LEAST)
def test_what_is_missing_is_named(key: str) -> None:
    with pytest.raises(SettingsError, match=f"file: {key} is missing, and has no default"):
        parse({name: value for name, value in LEAST.items() if name != key}, "file")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"org": 1, "org": 2}', b"\xff"])
def test_a_file_that_holds_no_settings(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(raw)
    with pytest.raises(SettingsError, match=r"settings\.json"):
        read(str(path))
    with pytest.raises(SettingsError, match=r"cannot read .* put it there"):
        read(str(tmp_path / "none"))


def test_addresses_are_split() -> None:
    assert split_address("[::]:8443") == ("::", 8443)
    assert split_address("host:1") == ("host", 1)


def test_tokens_belong_to_hosts_and_operators() -> None:
    data = {"hosts": {"h1": [HASH, "b" * 64], "h2": []}, "operators": {"h1": ["c" * 64]}}
    assert tokens.parse(data, "file") == {
        HASH: Identity("host", "h1"),
        "b" * 64: Identity("host", "h1"),
        "c" * 64: Identity("operator", "h1"),
    }
    assert tokens.parse({}, "file") == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "file is a list"),
        ({"host": {}}, "unknown key 'host', known are: hosts, operators"),
        ({"hosts": []}, "hosts is no object"),
        ({"hosts": {"h1": HASH}}, "hosts.h1 is no list"),
        ({"hosts": {"": [HASH]}}, "hosts. is no list"),
        ({"hosts": {"h1": [1]}}, "hosts.h1 holds something that is no SHA-256 hash"),
        ({"hosts": {"h1": [HASH.upper()]}}, "64 lower-case hex digits"),
        ({"hosts": {"h1": [HASH], "h2": [HASH]}}, "hosts.h2 has a token of host h1 too"),
        ({"hosts": {"h1": [HASH]}, "operators": {"h1": [HASH]}}, "operators.h1 has a token of"),
    ],
)
def test_tokens_that_are_wrong_are_named(data: object, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tokens.parse(data, "file")
    assert words in str(caught.value)


def test_a_token_that_stands_where_its_hash_should_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        tokens.parse({"hosts": {"h1": ["the-secret-itself"]}}, "file")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc ", "abc"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Basic abc", ""),
        ("abc", ""),
        (b"Bearer abc", ""),
        ("Bearer " + "x" * 1025, ""),
    ],
)
def test_the_token_in_a_header(header: object, token: str) -> None:
    assert token_of(header) == token


def test_a_tokens_file_is_read_again_when_it_is_another_one(tmp_path: Path) -> None:
    path, said = tmp_path / "tokens.json", list[object]()

    def write(text: str) -> None:
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)

    def hashed(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()

    write(json.dumps({"hosts": {"h1": [hashed("one")]}}))
    file = TokenFile(str(path), said.append)
    assert file.identify("one") == ("host", "h1")
    file.reload_if_changed()
    assert said == []
    write(json.dumps({"hosts": {"h1": [hashed("two")]}}))
    file.reload_if_changed()
    assert (file.identify("one"), file.identify("two")) == (None, ("host", "h1"))
    write("{")
    file.reload_if_changed()
    file.reload_if_changed()
    path.unlink()
    file.reload_if_changed()
    assert file.identify("two") == ("host", "h1")
    assert said[0] is None
    assert "not valid JSON" in str(said[1])
    assert "cannot read" in str(said[2])
    assert len(said) == 3


def pair(tmp_path: Path) -> Tls:
    tls = Tls(str(tmp_path / "s.pem"), str(tmp_path / "s.key"))
    Authority().write(Path(tls.certificate), Path(tls.key))
    return tls


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tls = pair(tmp_path)
    Path(tls.key).chmod(0o644)
    with pytest.raises(SettingsError, match="open to everybody: chmod o="):
        read_pair(tls)
    Path(tls.key).chmod(0o640)
    assert read_pair(tls).expires > 0


def test_tls_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    tls = pair(tmp_path)
    with pytest.raises(SettingsError, match=r"s\.key holds no PEM certificate"):
        read_pair(tls._replace(certificate=tls.key))
    with pytest.raises(SettingsError, match=r"s\.key holds no PEM certificate"):
        read_pair(tls._replace(client_ca=tls.key))
    Path(tls.key).write_bytes(b"nothing")
    with pytest.raises(SettingsError, match="no PEM private key without a password"):
        read_pair(tls)
    Path(tls.key).write_bytes(Authority().issue()[1])
    with pytest.raises(SettingsError, match="is not the key of the first certificate"):
        read_pair(tls)
    with pytest.raises(SettingsError, match="cannot read"):
        read_pair(tls._replace(certificate="/nonexistent"))
