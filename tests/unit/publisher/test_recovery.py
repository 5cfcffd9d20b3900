# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else did to the published folder is never signed; two publishers lose nothing."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import verification
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.errors import (
    PublisherError,
)
from tuf.api.metadata import Metadata, Targets

from tests.unit.publisher.places import Client, Place, config, path_of


def test_an_unchanged_run_changes_nothing_to_the_byte(place: Place) -> None:
    place.publish(config(), config("y"))
    before = place.tree()
    assert not place.converge().changed
    assert not place.publish(config(), config("y")).changed
    assert not place.publish(config(), config("y"), exclusive=True).changed
    assert not place.publish({**config("z"), "state": "absent"}).changed
    assert place.tree() == before


def test_a_check_changes_nothing_and_foretells_the_run(empty: Place) -> None:
    foretold = empty.converge(check=True)
    assert foretold.changed
    assert not empty.folder.exists()
    empty.converge()
    before = empty.tree()
    foretold = empty.converge(check=True, rotate=("director.root",), rotation_id="1")
    configs = empty.publish(config(), check=True)
    assert empty.tree() == before
    done = empty.converge(rotate=("director.root",), rotation_id="1")
    for outcome in (foretold, done):
        assert outcome.changed
        roles = outcome.repositories["director"]
        assert {role: one["version"] for role, one in roles.items()} == {
            "root": 2,
            "targets": 1,
            "snapshot": 1,
            "timestamp": 1,
        }
        assert outcome.generation == 2
    assert foretold.after["director"]["root"]["keys"] == ["a new key", "a new key"]
    assert empty.publish(config()).configs == configs.configs


def newest(place: Place, name: str, role: str) -> Path:
    files = (place.current / name).glob(f"*.{role}.json")
    return max(files, key=lambda path: int(path.name.split(".")[0]))


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # generations share files
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["director", "config"])
@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "gone", "other"])
def test_metadata_that_is_not_what_was_published_is_never_signed_again(
    place: Place, name: str, role: str, damage: str
) -> None:
    place.publish(config())
    path = place.current / name / "timestamp.json"
    if role != "timestamp":
        path = newest(place, name, role)
    data = json.loads(path.read_bytes())
    data["signed"]["expires"] = "2099-01-01T00:00:00Z"
    if damage == "gone":
        path.unlink()
    else:
        content = {
            "changed": json.dumps(data).encode(),
            "cut": path.read_bytes()[:-20],
            "empty": b"",
            "other": (place.current / "config" / "1.targets.json").read_bytes(),
        }[damage]
        replace(path, content)
    before = place.tree()
    for act in (lambda: place.publish(config("y")), place.converge):
        with pytest.raises(PublisherError) as caught:
            act()
        assert "back from the backup" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert place.tree() == before


def test_a_target_that_was_smuggled_in_is_not_signed(place: Place) -> None:
    place.publish(config())
    path = newest(place, "director", "targets")
    metadata = Metadata[Targets].from_file(str(path))
    metadata.signed.targets[path_of()].unrecognized_fields["custom"]["predicates"] = []
    replace(path, metadata.to_bytes())
    with pytest.raises(PublisherError, match=r"^director in .* is not what was published"):
        place.publish(config("y"))


def test_an_older_generation_in_place_of_the_newest_is_refused(place: Place) -> None:
    place.publish(config())
    place.publish({**config(), "state": "absent"})
    place.current.unlink()
    place.current.symlink_to("generations/2")
    with pytest.raises(PublisherError, match=r"has version 2, but 3 was published: put the newest"):
        place.publish(config("y"))


@pytest.mark.parametrize("target", ["/tmp", "generations/../../x", "generations/0", "x"])  # noqa: S108
def test_a_current_that_leads_elsewhere_is_refused(place: Place, target: str) -> None:
    place.current.unlink()
    place.current.symlink_to(target)
    with pytest.raises(PublisherError, match=r"current leads to .*, needed: generations/<n>"):
        place.converge()


def test_a_current_that_is_no_link_is_refused(empty: Place) -> None:
    empty.current.mkdir(parents=True)
    with pytest.raises(PublisherError, match="current is not a link"):
        empty.converge()


def test_a_lost_link_is_not_taken_for_a_new_beginning(place: Place) -> None:
    place.current.unlink()
    with pytest.raises(PublisherError, match="was published before, but its link current is gone"):
        place.converge()


def test_keys_of_another_place_are_refused(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    other.converge()
    shutil.rmtree(place.keys)
    with pytest.raises(PublisherError, match="the key folder does not know of it"):
        place.converge()
    shutil.copytree(other.keys, place.keys)
    with pytest.raises(PublisherError, match="is not what was published"):
        place.converge()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"versions": 1}'])
def test_a_damaged_memory_of_what_was_published_is_refused(place: Place, content: bytes) -> None:
    (place.keys / "published.json").write_bytes(content)
    with pytest.raises(PublisherError, match=r"published\.json is damaged"):
        place.converge()


def test_a_damaged_root_in_the_middle_of_the_chain_is_found_before_it_is_published(
    place: Place,
) -> None:
    for number in range(2):
        place.converge(rotate=("director.root",), rotation_id=f"{number}")
    replace(place.current / "director" / "2.root.json", b"{}")
    with pytest.raises(PublisherError, match=r"^clients would refuse director"):
        place.publish(config())
    assert place.publisher().generations.current_number() == 3


@pytest.mark.parametrize("content", [None, b"", b"something else"])
def test_a_damaged_file_of_a_config_is_found_and_mended_by_publishing_it_again(
    place: Place, client: Client, content: bytes | None
) -> None:
    place.publish(config(), config("y"))
    file = next((place.root / "targets").rglob("*.x"))
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PublisherError, match=f"^the published file of {path_of()} is missing or"):
        place.publish(config("y", content={"max_entries": 4096}))
    again = place.publish(config())
    assert (again.changed, again.generation) == (True, 2)
    assert client.fetch(path_of()) == b'{"udpv6_enabled":false}\n'
    assert not place.publish(config()).changed


def test_folders_that_lie_in_each_other_are_refused(empty: Place) -> None:
    for path, keys in (("a", "a/keys"), ("a/published", "a"), ("a", "a")):
        publisher = empty.publisher()
        publisher = type(publisher)(
            type(publisher.generations)(str(empty.folder / path), 3),
            type(publisher.keys)(str(empty.folder / keys), publisher.keys.passphrases),
        )
        with pytest.raises(PublisherError, match="lie in each other"):
            publisher.publish([], False, datetime.now(timezone.utc))


def test_publishing_without_repositories_says_what_to_do(empty: Place) -> None:
    with pytest.raises(PublisherError, match=r"make them with the module config_repository$"):
        empty.publish(config(), check=True)


def test_an_org_cannot_change(place: Place) -> None:
    with pytest.raises(PublisherError, match=r"^the repositories are for org 1, asked for: 2"):
        place.converge(org=2)


def test_a_rotation_needs_an_id(place: Place) -> None:
    with pytest.raises(PublisherError, match=r"^rotate is given without rotation_id"):
        place.converge(rotate=("director.root",))


def test_targets_that_clients_would_not_take_for_their_size_are_not_published(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verification._LIMITS, "targets", 1000)
    with pytest.raises(PublisherError, match="clients take at most 1000: withdraw configs"):
        place.publish(*(config(f"c{number}") for number in range(10)))
    assert place.publisher().generations.current_number() == 1
    assert place.publish(config()).changed


def test_two_publishers_at_once_lose_no_config(place: Place, client: Client) -> None:
    failures: list[BaseException] = []

    def publish(prefix: str) -> None:
        try:
            for number in range(5):
                place.publish(config(f"{prefix}{number}"))
        except BaseException as exc:  # noqa: BLE001  (shown below)
            failures.append(exc)

    threads = [threading.Thread(target=publish, args=(prefix,)) for prefix in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    updater = client.read("director")
    for prefix in "abc":
        for number in range(5):
            assert updater.get_targetinfo(path_of(f"{prefix}{number}"))
    assert place.publisher().generations.current_number() == 16


def test_removing_leaves_nothing_and_the_next_run_begins_anew(place: Place) -> None:
    place.publish(config())
    before = place.tree()
    assert place.publisher(check=True).remove()
    assert place.tree() == before
    assert place.publisher().remove()
    assert not place.root.exists()
    assert not place.keys.exists()
    assert not place.publisher().remove()
    assert place.converge().generation == 1


def test_other_peoples_files_are_never_removed(place: Place) -> None:
    for folder in (place.root, place.keys):
        (folder / "notes.txt").write_text("mine")
        (folder / "notes.txt").chmod(0o600)
    place.publisher().remove()
    assert [path.name for path in place.root.iterdir()] == ["notes.txt"]
    assert [path.name for path in place.keys.iterdir()] == ["notes.txt"]
