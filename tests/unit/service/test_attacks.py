# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks by a repository, or by who stands before it: each is named, and nothing moves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from btfleet.service.errors import REASONS, Refused
from btfleet.service.fetch import Limits
from btfleet.service.refresh import Refresher
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata

from tests.unit.service.conftest import Opener
from tests.unit.service.simulator import (
    CONFIG,
    DIRECTOR,
    Repository,
    Simulator,
    later,
    path_of,
    second_name,
)

FIRST = path_of("first")
BOTH = pytest.mark.parametrize("which", [DIRECTOR, CONFIG])


def refuse(refresher: Refresher, reason: str, *words: str) -> str:
    """The refresh is refused for that reason, in one line, with all as it was; the line."""
    assert reason in REASONS
    snapshot, store = refresher.snapshot, refresher._store
    before = store.load()
    with pytest.raises(Refused) as caught:
        refresher.refresh()
    line = str(caught.value)
    assert caught.value.reason == reason, line
    assert line.startswith(reason.replace("_", " "))
    for word in words:
        assert word in line
    assert "\n" not in line
    assert refresher.last_error == line
    assert refresher.snapshot is snapshot
    assert store.load() == before
    assert not store.staging.exists()
    return line


def metadata(simulator: Simulator, which: str, role: str) -> Path:
    """The newest file of a role."""
    repository = simulator.repositories[which]
    version = getattr(repository, role).signed.version
    name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
    return simulator.current / which / name


# --- rollback ----------------------------------------------------------------------------------


@BOTH
def test_an_old_generation_is_a_rollback(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    simulator.publish()
    refresher.refresh()
    old = simulator.folder / "generations" / "1" / which
    shutil.copytree(old, simulator.current / which, dirs_exist_ok=True)
    refuse(refresher, "rollback", which, "timestamp.json", "publish anew")


@BOTH
def test_a_newer_timestamp_that_names_an_older_snapshot_is_a_rollback(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    simulator.publish()
    refresher.refresh()
    repository = simulator.repositories[which]
    repository.snapshot.signed.version = 1
    repository.timestamp.signed.version += 1
    simulator.write()
    refuse(refresher, "rollback", which, "timestamp.json")


@BOTH
def test_a_newer_snapshot_that_names_older_targets_is_a_rollback(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    simulator.publish()
    refresher.refresh()
    repository = simulator.repositories[which]
    repository.change()
    repository.targets.signed.version = 1
    simulator.write()
    refuse(refresher, "rollback", which, "snapshot.json")


def test_a_snapshot_without_the_targets_is_a_rollback(
    simulator: Simulator, refresher: Refresher
) -> None:
    repository = simulator.director
    repository.change()
    del repository.snapshot.signed.meta["targets.json"]
    raw = repository.sign(repository.snapshot, "snapshot")
    named = repository.timestamp.signed.snapshot_meta
    named.version, named.length = repository.snapshot.signed.version, len(raw)
    named.hashes = {"sha256": hashlib.sha256(raw).hexdigest()}
    metadata(simulator, DIRECTOR, "snapshot").write_bytes(raw)
    timestamp = repository.sign(repository.timestamp, "timestamp")
    metadata(simulator, DIRECTOR, "timestamp").write_bytes(timestamp)
    refuse(refresher, "rollback", "missing info for 'targets.json'")


@BOTH
def test_an_old_root_in_a_new_ones_place_is_a_rollback(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    repository = simulator.repositories[which]
    (simulator.current / which / "2.root.json").write_bytes(repository.roots[1])
    refuse(refresher, "rollback", which, "2.root.json")


@BOTH
def test_going_back_to_before_a_rotation_is_refused(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    simulator.repositories[which].rotate("timestamp", "snapshot")
    simulator.publish()
    assert refresher.refresh()
    shutil.rmtree(simulator.current / which)
    old = simulator.folder / "generations" / "1" / which
    shutil.copytree(old, simulator.current / which)
    refuse(refresher, "unsigned", which, "timestamp.json")


# --- freeze ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_metadata_that_have_expired_are_a_freeze(
    simulator: Simulator, refresher: Refresher, which: str, role: str
) -> None:
    repository = simulator.repositories[which]
    getattr(repository, role).signed.expires = later(-1)
    if role == "root":
        repository.next_root()
    simulator.publish()
    refuse(refresher, "freeze", which, f"{role}", "expired", "renew it")


# --- mix and match -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_role_of_another_state_is_mixed(
    simulator: Simulator, refresher: Refresher, which: str, role: str
) -> None:
    old = metadata(simulator, which, role).read_bytes()
    simulator.publish()
    metadata(simulator, which, role).write_bytes(old)
    refuse(refresher, "mix_and_match", which, f"2.{role}.json")


def test_metadata_that_name_only_versions_are_mixed_too(
    simulator: Simulator, refresher: Refresher
) -> None:
    """Without lengths and hashes, which TUF leaves free."""
    repository = simulator.director
    old = metadata(simulator, DIRECTOR, "targets").read_bytes()
    repository.change()
    repository.build()
    meta = repository.snapshot.signed.meta["targets.json"]
    meta.length = meta.hashes = None
    named = repository.timestamp.signed.snapshot_meta
    named.length = named.hashes = None
    for role in ("snapshot", "timestamp"):
        raw = repository.sign(getattr(repository, role), role)
        metadata(simulator, DIRECTOR, role).write_bytes(raw)
    metadata(simulator, DIRECTOR, "targets").write_bytes(old)
    refuse(refresher, "mix_and_match", "2.targets.json")
    metadata(simulator, DIRECTOR, "snapshot").write_bytes(
        (simulator.current / DIRECTOR / "1.snapshot.json").read_bytes()
    )
    refuse(refresher, "mix_and_match", "2.snapshot.json")


def test_the_director_of_another_moment_than_the_config_repository(
    simulator: Simulator, refresher: Refresher
) -> None:
    simulator.put(FIRST, {"udpv6_enabled": True}, version=2)
    simulator.director.change()
    simulator.write()
    shutil.rmtree(simulator.current / CONFIG)
    old = simulator.folder / "generations" / "1" / CONFIG
    shutil.copytree(old, simulator.current / CONFIG)
    refuse(refresher, "mix_and_match", FIRST, "director and config repository disagree")


def other_length(repository: Repository) -> None:
    repository.targets.signed.targets[FIRST].length += 1


def other_hash(repository: Repository) -> None:
    repository.targets.signed.targets[FIRST].hashes["sha256"] = "0" * 64


def more_hashes(repository: Repository) -> None:
    repository.targets.signed.targets[FIRST].hashes["sha512"] = "0" * 128


def other_hashes(repository: Repository) -> None:
    hashes = repository.targets.signed.targets[FIRST].hashes
    hashes["sha512"] = hashes.pop("sha256")


def other_version(repository: Repository) -> None:
    repository.targets.signed.targets[FIRST].unrecognized_fields["custom"]["v"] = 2


def no_target(repository: Repository) -> None:
    del repository.targets.signed.targets[FIRST]


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (other_length, "the lengths are"),
        (other_hash, "the sha256 hashes differ"),
        (more_hashes, "hashed with sha256 and with sha256, sha512"),
        (other_hashes, "hashed with sha256 and with sha512"),
        (other_version, "custom.v is 1 and 2"),
        (no_target, "the config repository lacks it"),
    ],
)
def test_the_config_repository_has_to_confirm_each_target(
    simulator: Simulator, refresher: Refresher, tamper: Callable[[Repository], None], words: str
) -> None:
    tamper(simulator.config)
    simulator.publish()
    refuse(refresher, "mix_and_match", FIRST, words)


@BOTH
def test_targets_that_delegate_are_refused(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    signer = CryptoSigner.generate_ed25519()
    role = DelegatedRole("other", [signer.public_key.keyid], 1, False, paths=["btfleet/*"])
    simulator.repositories[which].targets.signed.delegations = Delegations(
        {signer.public_key.keyid: signer.public_key}, {"other": role}
    )
    simulator.publish()
    refuse(refresher, "delegation", which)


# --- endless data and slow retrieval (over the network: test_https.py) ----------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_without_end(simulator: Simulator, refresher: Refresher, role: str) -> None:
    simulator.publish()
    with metadata(simulator, DIRECTOR, role).open("ab") as stream:
        stream.truncate(1 << 30)  # a hole: 1 GB that takes no room
    refuse(refresher, "endless_data", f"{role}.json")


def test_a_root_without_end(simulator: Simulator, refresher: Refresher) -> None:
    with (simulator.current / DIRECTOR / "2.root.json").open("wb") as stream:
        stream.truncate(1 << 30)
    refuse(refresher, "endless_data", "2.root.json")


def test_a_file_without_end(simulator: Simulator, refresher: Refresher) -> None:
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    for file in (simulator.current / "targets").rglob("*.first"):
        with file.open("ab") as stream:
            stream.truncate(1 << 30)
    refuse(refresher, "endless_data", FIRST.rpartition("/")[0])


def test_a_config_that_is_signed_as_too_long(simulator: Simulator, refresher: Refresher) -> None:
    simulator.put(FIRST, b" " * (64 * 1024 + 1), version=2)
    simulator.publish()
    refuse(refresher, "endless_data", FIRST, "65537 bytes")


def test_all_of_it_is_too_much(opened: Opener) -> None:
    refuse(opened(Limits(total_bytes=1000)), "endless_data", "1000 bytes in one refresh")


def test_a_pipe_in_a_files_place_is_not_waited_for(
    simulator: Simulator, refresher: Refresher
) -> None:
    path = metadata(simulator, DIRECTOR, "timestamp")
    path.unlink()
    os.mkfifo(path)
    refuse(refresher, "unreachable", "is no file")


# --- wrong files -------------------------------------------------------------------------------


def test_another_file_of_the_same_length(simulator: Simulator, refresher: Refresher) -> None:
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    for file in (simulator.current / "targets").rglob("*.first"):
        file.write_bytes(file.read_bytes().replace(b"false", b" true"))
    refuse(refresher, "wrong_hash", "Observed hash")


def test_a_shorter_file(simulator: Simulator, refresher: Refresher) -> None:
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    for file in (simulator.current / "targets").rglob("*.first"):
        file.write_bytes(file.read_bytes()[:-1])
    refuse(refresher, "wrong_hash", "Observed length")


def test_a_file_that_is_missing(simulator: Simulator, refresher: Refresher) -> None:
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    for file in (simulator.current / "targets").rglob("*.first"):
        file.unlink()
    refuse(refresher, "not_found", ".first")


@pytest.mark.parametrize("is_known", [True, False])
def test_an_unknown_algorithm_is_never_taken_for_equal(
    simulator: Simulator, refresher: Refresher, is_known: bool
) -> None:
    """Neither where the file has to be fetched, nor where its SHA-256 is in the store already."""
    if not is_known:
        simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    for repository in simulator.repositories.values():
        simulator.target(repository, FIRST).hashes["whirlpool"] = "00"
    simulator.publish()
    refuse(refresher, "wrong_hash", "Unsupported algorithm 'whirlpool'")


def test_without_sha256_there_is_no_file(simulator: Simulator, refresher: Refresher) -> None:
    for repository in simulator.repositories.values():
        other_hashes(repository)
    simulator.publish()
    refuse(refresher, "wrong_hash", FIRST, "no sha256")


# --- signatures --------------------------------------------------------------------------------


def resign(simulator: Simulator, role: str, signers: list[CryptoSigner]) -> None:
    """The director's newest file of a role, with these signatures only, and who names it."""
    repository = simulator.director
    chain = ["targets", "snapshot", "timestamp"]
    own = repository.signers[role]
    repository.signers[role] = signers
    simulator.write()
    repository.signers[role] = own
    assert role in chain


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("kind", ["nobody", "a stranger", "another role"])
def test_what_is_not_signed_by_its_role(
    simulator: Simulator, refresher: Refresher, role: str, kind: str
) -> None:
    signers = {
        "nobody": [],
        "a stranger": [CryptoSigner.generate_ed25519()],
        "another role": simulator.director.signers["root"],
    }[kind]
    simulator.change()
    resign(simulator, role, signers)
    refuse(refresher, "unsigned", DIRECTOR, f"{role}", "0/1 keys")


@BOTH
def test_a_root_signed_by_a_stranger(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    repository = simulator.repositories[which]
    repository.signers["root"] = [CryptoSigner.generate_ed25519()]
    repository.next_root()
    simulator.publish()
    refuse(refresher, "unsigned", which, "2.root.json")


def test_a_new_root_key_without_the_former_ones_word(
    simulator: Simulator, refresher: Refresher
) -> None:
    director = simulator.director
    director.rotate("root")
    director.sign_root([])
    simulator.publish()
    refuse(refresher, "unsigned", "2.root.json")


def with_threshold_two(repository: Repository) -> list[CryptoSigner]:
    second = CryptoSigner.generate_ed25519()
    repository.root.signed.add_key(second.public_key, "targets")
    repository.root.signed.roles["targets"].threshold = 2
    repository.next_root()
    return [*repository.signers["targets"], second]


def test_a_threshold_has_to_be_met(simulator: Simulator, refresher: Refresher) -> None:
    signers = with_threshold_two(simulator.director)
    simulator.change()
    resign(simulator, "targets", signers[:1])
    refuse(refresher, "unsigned", "1/2 keys")
    resign(simulator, "targets", signers)
    assert refresher.refresh()


def test_one_signature_twice_is_one(simulator: Simulator, refresher: Refresher) -> None:
    with_threshold_two(simulator.director)
    simulator.publish()
    file = metadata(simulator, DIRECTOR, "targets")
    data = json.loads(file.read_bytes())
    data["signatures"] *= 2
    simulator.director.targets = Metadata.from_bytes(file.read_bytes())
    file.write_bytes(json.dumps(data).encode())
    snapshot = simulator.director.snapshot.signed.meta["targets.json"]
    snapshot.length = snapshot.hashes = None
    named = simulator.director.timestamp.signed.snapshot_meta
    named.length = named.hashes = None
    for role in ("snapshot", "timestamp"):
        raw = simulator.director.sign(getattr(simulator.director, role), role)
        metadata(simulator, DIRECTOR, role).write_bytes(raw)
    refuse(refresher, "malformed", "2.targets.json")


def test_one_key_under_two_names_is_one(simulator: Simulator, refresher: Refresher) -> None:
    """python-tuf counts key ids, so the root must not give one key two of them."""
    director = simulator.director
    key = director.signers["targets"][0].public_key
    director.root.signed.add_key(second_name(key, "b" * 64), "targets")
    director.root.signed.roles["targets"].threshold = 2
    director.next_root()
    simulator.change()
    director.build()
    data = json.loads(director.files["2.targets.json"])
    data["signatures"].append({"keyid": "b" * 64, "sig": data["signatures"][0]["sig"]})
    twice: Metadata[Any] = Metadata.from_dict(data)
    director.sign = lambda metadata, role: (  # type: ignore[method-assign]
        twice.to_bytes() if role == "targets" else Repository.sign(director, metadata, role)
    )
    simulator.write()
    refuse(refresher, "unsigned", "role targets counts one key as two")


# --- roots and versions ------------------------------------------------------------------------


@BOTH
def test_a_gap_in_the_chain_of_roots(
    simulator: Simulator, refresher: Refresher, which: str
) -> None:
    """Also where the newest metadata would verify with the old root."""
    repository = simulator.repositories[which]
    repository.next_root()
    repository.next_root()
    simulator.publish()
    (simulator.current / which / "2.root.json").unlink()
    refuse(refresher, "root_gap", which, "2.root.json", "3.root.json is there")


def test_a_gap_that_hides_a_rotation(simulator: Simulator, refresher: Refresher) -> None:
    simulator.director.rotate("timestamp")
    simulator.director.next_root()
    simulator.publish()
    (simulator.current / DIRECTOR / "2.root.json").unlink()
    refuse(refresher, "root_gap", "2.root.json")


def test_a_root_that_skips_a_version(simulator: Simulator, refresher: Refresher) -> None:
    simulator.director.next_root()
    simulator.director.next_root()
    simulator.publish()
    raw = simulator.director.roots[3]
    (simulator.current / DIRECTOR / "2.root.json").write_bytes(raw)
    refuse(refresher, "root_gap", "2.root.json")


def many_roots(repository: Repository, count: int) -> None:
    """So many more, signed once each."""
    for _number in range(count):
        repository.next_root()


def test_256_new_roots_are_taken_and_one_more_is_not(simulator: Simulator, opened: Opener) -> None:
    many_roots(simulator.director, 256)
    simulator.publish()
    refresher = opened()
    assert refresher.refresh()
    assert refresher.snapshot
    assert refresher.snapshot.root_version == 257
    many_roots(simulator.director, 257)
    simulator.publish()
    refuse(refresher, "too_many_roots", "more than 256 roots after version 257")


@BOTH
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_version_that_does_not_fit(
    simulator: Simulator, refresher: Refresher, which: str, role: str
) -> None:
    repository = simulator.repositories[which]
    repository.change()
    getattr(repository, role).signed.version = 2**63
    simulator.write()
    refuse(refresher, "version_range", which, f"{role}.json", str(2**63))


@pytest.mark.parametrize("version", [2.0, 0, -1, "2"])
def test_a_version_that_is_no_whole_number_from_one(
    simulator: Simulator, refresher: Refresher, version: object
) -> None:
    simulator.change()
    simulator.director.timestamp.signed.version = version  # type: ignore[assignment]
    if version == 2.0:  # canonical JSON has no fractions: nobody can sign this
        simulator.director.timestamp.signed.version = 2
        simulator.write()
        file = metadata(simulator, DIRECTOR, "timestamp")
        file.write_bytes(file.read_bytes().replace(b'"version": 2\n', b'"version": 2.0\n'))
        file.write_bytes(file.read_bytes().replace(b'"version":2}', b'"version":2.0}'))
    else:
        simulator.write()
    refuse(refresher, "malformed", "timestamp.json")


def test_fast_forward_is_recovered_from_by_rotation(
    simulator: Simulator, refresher: Refresher
) -> None:
    """Who had the online keys used up the versions; new keys may begin anew."""
    director = simulator.director
    for role in ("targets", "snapshot", "timestamp"):
        getattr(director, role).signed.version = 2**63 - 1
    simulator.write()
    assert refresher.refresh()
    for role in ("targets", "snapshot", "timestamp"):
        getattr(director, role).signed.version = 2
    simulator.write()
    refuse(refresher, "rollback", DIRECTOR)
    director.rotate("targets", "snapshot", "timestamp")
    simulator.write()
    assert refresher.refresh()
    assert refresher.snapshot
    assert refresher.snapshot.targets_version == 2


# --- JSON and content --------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_in_which_a_key_stands_twice(
    simulator: Simulator, refresher: Refresher, which: str, role: str
) -> None:
    """Readers differ in which one they take, while the signature fits the last one."""
    simulator.publish()
    file = metadata(simulator, which, role)
    raw = file.read_bytes()
    at = raw.index(b'"version"', raw.index(b'"signed"'))
    file.write_bytes(raw[:at] + b'"version":7,' + raw[at:])
    if role != "timestamp":
        for above in ("snapshot", "timestamp"):  # whoever names it leaves length and hash out
            if above == role:
                continue
            repository = simulator.repositories[which]
            signed = getattr(repository, above).signed
            meta = signed.snapshot_meta if above == "timestamp" else signed.meta["targets.json"]
            meta.length = meta.hashes = None
            signed_raw = repository.sign(getattr(repository, above), above)
            metadata(simulator, which, above).write_bytes(signed_raw)
    refuse(refresher, "malformed", which, f"{role}.json", "the key 'version' stands twice")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100000, b'{"signed": NaN}', b"1e999"]
)
def test_metadata_that_are_no_metadata(
    simulator: Simulator, refresher: Refresher, raw: bytes
) -> None:
    (simulator.current / DIRECTOR / "2.root.json").write_bytes(raw)
    refuse(refresher, "malformed", "2.root.json")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"udpv6_enabled": true, "udpv6_enabled": false}',
        b'{"udpv6_enabled": 1}',
        b'{"object_sha256": "' + b"0" * 64 + b'"}',
        b"[]",
        b"\xff",
        b"[" * 60000,
    ],
)
def test_a_config_that_is_none_is_refused(
    simulator: Simulator, refresher: Refresher, raw: bytes
) -> None:
    simulator.put(FIRST, raw, version=2)
    simulator.publish()
    refuse(refresher, "content", FIRST)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "btfleet/1/CONNTRACK/../x",
        "btfleet/1/CONNTRACK/all/..",
        "btfleet/1/CONNTRACK/all/a/b",
        "btfleet/1/CONNTRACK//x",
        "btfleet/01/CONNTRACK/all/x",
        "btfleet/1/CONNTRACK/all/x\0",
        "btfleet/1/CONNTRACK/all/%2e%2e",
        "btfleet/1/NONE/all/x",
        "btfleet/2/CONNTRACK/all/x",
    ],
)
def test_paths_that_lead_elsewhere(simulator: Simulator, refresher: Refresher, path: str) -> None:
    for repository in simulator.repositories.values():
        targets = repository.targets.signed.targets
        targets[path] = targets[FIRST]
    simulator.contents.clear()  # nothing of this is written
    simulator.publish()
    refuse(refresher, "path")


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        *((wrong, "custom.v") for wrong in (None, {}, {"v": 0}, {"v": 2**63}, {"v": True})),
        ({"v": 1, "predicates": [{}]}, "predicate 1"),
        ({"v": 1, "expires": -1}, "custom.expires"),
    ],
)
def test_custom_fields_that_are_wrong(
    simulator: Simulator, refresher: Refresher, custom: object, words: str
) -> None:
    simulator.target(simulator.director, FIRST).unrecognized_fields["custom"] = custom
    simulator.publish()
    refuse(refresher, "content", FIRST, words)


# --- what is there before the first refresh -----------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"signed": 1, "signed": 2}', b"\xff"])
def test_a_first_root_that_is_none(opened: Opener, raw: bytes) -> None:
    Path(opened.settings.roots.director).write_bytes(raw)
    with pytest.raises(Refused, match="the first root of the director repository"):
        opened()


def test_a_first_root_of_another_role(simulator: Simulator, opened: Opener) -> None:
    raw = metadata(simulator, DIRECTOR, "timestamp").read_bytes()
    Path(opened.settings.roots.director).write_bytes(raw)
    with pytest.raises(Refused, match="the first root of the director repository"):
        opened()


def test_a_repository_of_somebody_else(opened: Opener, tmp_path: Path) -> None:
    other = Simulator(tmp_path / "repository")
    other.generation = 1
    other.publish()
    refuse(opened(), "unsigned", DIRECTOR, "timestamp")


def test_nothing_was_published(simulator: Simulator, opened: Opener) -> None:
    (simulator.folder / "current").unlink()
    refuse(opened(), "not_found", "current is no folder: publish first")
