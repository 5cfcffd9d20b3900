# SPDX-License-Identifier: GPL-3.0-or-later
"""python-tuf's own client, over HTTP, follows whatever the publisher does to both repositories."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import (
    plan,
    repository,
    verification,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.plan import REPOSITORIES
from tuf.api.exceptions import BadVersionNumberError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from tests.unit.publisher.places import Client, Place, client_of, config, path_of, served

ROLES = [
    f"{name}.{role}"
    for name in REPOSITORIES
    for role in ("root", "targets", "snapshot", "timestamp")
]
TWO_OF_THREE = [{"name": f"{name}.root", "keys": 3, "threshold": 2} for name in REPOSITORIES]
BOTH_TARGETS = ("director.targets", "config.targets")
NO_UDP6 = b'{"udpv6_enabled":false}\n'


def newest_root(place: Place, name: str) -> Metadata[Root]:
    versions = [int(path.name.split(".")[0]) for path in (place.current / name).glob("*.root.json")]
    return Metadata[Root].from_file(str(place.current / name / f"{max(versions)}.root.json"))


def test_new_repositories_are_taken(client: Client) -> None:
    for name in REPOSITORIES:
        assert client.read(name).get_targetinfo(path_of()) is None


def test_what_is_published_arrives_and_what_is_withdrawn_goes(place: Place, client: Client) -> None:
    place.publish(config())
    assert client.fetch(path_of()) == NO_UDP6
    place.publish(config(content={"max_entries": 4096}), config("y"))
    assert client.fetch(path_of()) == b'{"max_entries":4096}\n'
    assert client.fetch(path_of("y")) == NO_UDP6
    place.publish({**config(), "state": "absent"})
    assert client.fetch(path_of()) is None
    assert client.fetch(path_of("y")) == NO_UDP6


def test_both_repositories_say_the_same_but_for_whom_a_config_is(
    place: Place, client: Client
) -> None:
    place.publish(config(predicates=[{"labels": {"site": "edge"}}], expires="2100-01-01"))
    director = client.read("director").get_targetinfo(path_of())
    other = client.read("config").get_targetinfo(path_of())
    assert director
    assert other
    assert (director.length, director.hashes) == (other.length, other.hashes)
    assert list(director.hashes) == ["sha256"]
    assert other.custom == {"v": 2}
    assert director.custom == {
        "v": 2,
        "predicates": [{"labels": {"site": "edge"}}],
        "expires": 4102444800,
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_client_follows_the_rotation_of_any_role(place: Place, client: Client, role: str) -> None:
    place.publish(config())
    assert client.fetch(path_of()) == NO_UDP6
    before = place.key_files(role)
    assert place.converge(rotate=(role,), rotation_id="1").changed
    assert not set(before) & set(place.key_files(role))
    assert len(before) == len(place.key_files(role))
    assert client.fetch(path_of()) == NO_UDP6
    place.publish(config("y"))
    assert client.fetch(path_of("y")) == NO_UDP6


def test_a_client_that_was_away_for_all_rotations_catches_up(place: Place, client: Client) -> None:
    place.publish(config())
    for number in range(3):
        place.converge(rotate=tuple(ROLES), rotation_id=f"{number}")
    assert newest_root(place, "director").signed.version == 4
    assert client.fetch(path_of()) == NO_UDP6


def test_a_root_with_a_threshold_is_rotated_by_the_old_keys_and_the_new_ones(
    place: Place, client: Client
) -> None:
    place.converge(*TWO_OF_THREE)
    old = newest_root(place, "director")
    assert old.signed.roles["root"].threshold == 2
    client.read("director")
    place.converge(*TWO_OF_THREE, rotate=("director.root",), rotation_id="1")
    new = newest_root(place, "director")
    assert not set(old.signed.roles["root"].keyids) & set(new.signed.roles["root"].keyids)
    for root in (old, new):  # each of them alone is convinced
        root.signed.verify_delegate("root", new.signed_bytes, new.signatures)
    client.read("director")


def test_one_lost_root_key_of_three_does_not_stop_a_rotation(place: Place, client: Client) -> None:
    place.converge(*TWO_OF_THREE)
    place.key_files("director.root")[1].unlink()
    place.converge(*TWO_OF_THREE, rotate=("director.root",), rotation_id="1")
    assert len(place.key_files("director.root")) == 3
    client.read("director")


def test_what_is_about_to_expire_is_renewed_and_nothing_else(empty: Place, tmp_path: Path) -> None:
    five_days_ago = datetime.now(timezone.utc) - timedelta(days=5)
    before = empty.converge(now=five_days_ago).repositories
    with served(empty.root) as url:
        client = client_of(empty, url, tmp_path / "client")
        for name in REPOSITORIES:
            client.read(name)
        after = empty.converge().repositories
        for name in REPOSITORIES:
            versions = {role: one["version"] for role, one in after[name].items()}
            assert versions == {"root": 1, "targets": 1, "snapshot": 1, "timestamp": 2}
            assert after[name]["timestamp"]["expires"] > before[name]["timestamp"]["expires"]
            client.read(name)
        assert not empty.converge().changed


def test_what_has_expired_is_renewed(
    empty: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # nobody could have published this
        patch.setattr(verification, "check_new", lambda *_arguments: None)
        empty.converge(now=datetime.now(timezone.utc) - timedelta(days=3000))
    with served(empty.root) as url:
        client = client_of(empty, url, tmp_path / "client")
        with pytest.raises(RepositoryError, match="expired"):
            client.read("director")
        empty.converge()
        for name in REPOSITORIES:
            client.read(name)


def test_after_a_fast_forward_with_stolen_keys_a_rotation_recovers_every_client(
    place: Place, client: Client, tmp_path: Path
) -> None:
    far = 2**40
    stolen = tmp_path / "stolen"
    shutil.copytree(place.root, stolen, symlinks=True)
    signer = place.publisher().keys.open
    root = newest_root(place, "director").signed
    folder = stolen / "current" / "director"
    snapshot = Metadata[Snapshot].from_file(str(folder / "1.snapshot.json"))
    snapshot.signed.version = far
    snapshot.sign(signer("director", "snapshot", root.keys[root.roles["snapshot"].keyids[0]]))
    (folder / f"{far}.snapshot.json").write_bytes(snapshot.to_bytes())
    timestamp = Metadata[Timestamp].from_file(str(folder / "timestamp.json"))
    timestamp.signed.version = far
    timestamp.signed.snapshot_meta = MetaFile(far)
    timestamp.sign(signer("director", "timestamp", root.keys[root.roles["timestamp"].keyids[0]]))
    (folder / "timestamp.json").unlink()
    (folder / "timestamp.json").write_bytes(timestamp.to_bytes())
    with served(stolen) as url:
        Client(url, client.memory, client.first_roots).read("director")

    place.publish(config())
    with pytest.raises(BadVersionNumberError):
        client.read("director")
    place.converge(rotate=("director.snapshot", "director.timestamp"), rotation_id="stolen")
    assert client.fetch(path_of()) == NO_UDP6


def test_more_roots_than_a_client_takes_at_once_are_taken_in_two_goes(
    place: Place, client: Client
) -> None:
    present = place.publisher()._read()
    assert present
    director = present.generation.repositories["director"]
    steps = plan.unchanged(present.states["director"])
    steps["root"] = steps["root"]._replace(reason="one more")
    signers = place.publisher()._signers("director", present, steps)
    for version in range(2, 301):
        director = repository.sign(director, steps, signers, {}, {}, 1, datetime.now(timezone.utc))
        (place.current / "director" / f"{version}.root.json").write_bytes(director.raw["root"])
    place.converge(rotate=("director.timestamp",), rotation_id="1")
    assert newest_root(place, "director").signed.version == 301
    with pytest.raises(RepositoryError):
        client.read("director")
    client.read("director")


def test_a_reader_half_way_through_a_generation_finds_the_rest_after_the_next(
    place: Place, client: Client
) -> None:
    place.publish(config())
    before = {path.relative_to(place.root) for path in place.current.rglob("*") if path.is_file()}
    files = {path.relative_to(place.root) for path in (place.root / "targets").rglob("*.x")}
    place.publish(config(content={"max_entries": 4096}))
    for path in before | files:
        assert (place.root / path).is_file(), path
    client.read("director")


def test_former_generations_and_their_files_go_in_the_end(place: Place) -> None:
    for number in range(8):
        place.publish(config(content={"max_entries": 2000 + number}), keep=2)
    kept = sorted(int(path.name) for path in (place.root / "generations").iterdir())
    assert kept == [7, 8, 9]
    assert len(list((place.root / "targets").rglob("*.x"))) <= 5
    assert not (place.current / "config" / "1.targets.json").exists()
    place.publish(exclusive=True, keep=2)
    for number in range(5):
        place.converge(rotate=BOTH_TARGETS, rotation_id=f"{number}", keep=2)
    assert not any((place.root / "targets").glob("*"))


def test_nothing_private_is_served(place: Place, client: Client) -> None:
    place.publish(config())
    for path in place.root.rglob("*"):
        if path.is_file():
            assert b"PRIVATE" not in path.read_bytes()
    updater = client.read("director")
    with pytest.raises(DownloadHTTPError):
        updater._fetcher.download_bytes(f"{client.url}/../keys/published.json", 10000)
