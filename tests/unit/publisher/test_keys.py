# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys are encrypted, for their owner alone, and open only with their passphrase."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.errors import (
    PublisherError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.keys import (
    VARIABLE,
    KeyFolder,
    Passphrases,
    passphrases,
)
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.unit.publisher.places import PASSPHRASE, Place, config


def test_every_key_is_encrypted_and_for_its_owner_alone(place: Place) -> None:
    files = [path for path in place.keys.rglob("*") if path.is_file()]
    pems = [path for path in files if path.suffix == ".pem"]
    assert len(pems) == 10
    for path in pems:
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
        load_pem_private_key(path.read_bytes(), PASSPHRASE.encode())
    for path in [place.keys, *place.keys.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_repositories_share_no_key(place: Place) -> None:
    names = [path.name for path in place.keys.rglob("*.pem")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", [".", "director.targets", "published.json"])
def test_a_key_folder_that_is_open_to_others_is_refused(place: Place, path: str) -> None:
    (place.keys / path).chmod(0o750)
    with pytest.raises(PublisherError, match=r"is open to others than its owner \(mode 0750\)"):
        place.publish(config())


@pytest.mark.parametrize("check", [True, False])
def test_a_wrong_passphrase_is_refused_and_nothing_changes(place: Place, check: bool) -> None:
    before = place.tree()
    wrong = "wrong horse"
    with pytest.raises(PublisherError, match=r"does not open: give the passphrase that it was"):
        place.publish(config(), check=check, passphrase=wrong)
    assert place.tree() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no passphrase for the keys of"),
        ("short", "the passphrase for the keys of .* is too short"),
    ],
)
def test_without_a_passphrase_nothing_is_made(empty: Place, text: str | None, message: str) -> None:
    with pytest.raises(PublisherError, match=f"^{message}"):
        empty.converge(passphrase=text)
    assert not empty.keys.exists()
    assert not empty.current.exists()


def test_a_key_file_that_is_not_encrypted_is_refused(place: Place) -> None:
    path = place.key_files("director.targets")[0]
    key = load_pem_private_key(path.read_bytes(), PASSPHRASE.encode())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(PublisherError, match="is not encrypted: encrypt it"):
        place.publish(config())


def encrypted_other_key() -> bytes:
    return generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode())
    )


def test_a_key_file_that_holds_another_key_is_refused(place: Place) -> None:
    path = place.key_files("director.targets")[0]
    path.write_bytes(place.key_files("config.targets")[0].read_bytes())
    with pytest.raises(PublisherError, match="is not the private key of"):
        place.publish(config())
    path.write_bytes(encrypted_other_key())
    with pytest.raises(PublisherError, match="is not the private key of"):
        place.publish(config())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"])
def test_a_damaged_key_file_is_refused(place: Place, content: bytes) -> None:
    place.key_files("director.targets")[0].write_bytes(content)
    with pytest.raises(PublisherError, match="does not open"):
        place.publish(config())


def test_a_lost_key_is_named_with_the_cure_and_the_cure_works(place: Place) -> None:
    path = place.key_files("config.targets")[0]
    path.unlink()
    with pytest.raises(PublisherError, match=rf"missing are {path.stem[:12]}: .*config\.targets\]"):
        place.publish(config())
    place.converge(rotate=("config.targets",), rotation_id="1")
    assert place.publish(config()).changed


def test_a_role_may_have_a_passphrase_of_its_own(empty: Place) -> None:
    publisher = empty.publisher()
    secrets = Passphrases(PASSPHRASE, {"director.root": "kept in the safe"})
    folder = KeyFolder(str(empty.keys), secrets)
    signer = folder.create("director", "root")
    folder.open("director", "root", signer.public_key)
    with pytest.raises(PublisherError, match="does not open"):
        publisher.keys.open("director", "root", signer.public_key)


def test_the_passphrase_comes_from_the_parameter_the_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from the file\nsecond line\n")
    file.chmod(0o600)
    monkeypatch.setenv(VARIABLE, "from the environment")
    assert passphrases("from the parameter", str(file), None).common == "from the parameter"
    assert passphrases(None, str(file), None).common == "from the file"
    assert passphrases(None, None, None).common == "from the environment"
    monkeypatch.delenv(VARIABLE)
    assert passphrases(None, None, None).common is None


def test_a_passphrase_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from the file")
    file.chmod(0o640)
    with pytest.raises(PublisherError, match=rf"chmod 600 {re.escape(str(file))}$"):
        passphrases(None, str(file), None)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_passphrase_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "passphrase"
    if content:
        file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(PublisherError, match=r"^cannot read the passphrase file"):
        passphrases(None, str(file), None)


def test_a_passphrase_for_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PublisherError, match=r"^passphrases names 'director\.rot', known are"):
        passphrases(None, None, {"director.rot": "x"})
