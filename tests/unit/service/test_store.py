# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: all or nothing, every root, only files in use, and what a disk can do to it."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from btfleet.service.errors import Refused, StoreError
from btfleet.service.refresh import Refresher
from btfleet.service.store import Store

from tests.unit.service.conftest import Opener
from tests.unit.service.simulator import Simulator, path_of
from tests.unit.service.test_attacks import FIRST, refuse


def version(refresher: Refresher) -> int:
    assert refresher.snapshot
    return refresher.snapshot.targets_version


def sql(opened: Opener, statement: str) -> list[tuple[object, ...]]:
    """Run by somebody else, while the service is down."""
    opened.close()
    with closing(sqlite3.connect(Path(opened.settings.state_folder) / "store.db")) as database:
        found = database.execute(statement).fetchall()
        database.commit()
    return found


def test_a_restart_serves_what_was_stored_before_any_refresh(
    simulator: Simulator, refresher: Refresher, opened: Opener
) -> None:
    assert version(refresher) == 1
    simulator.publish()
    refresher.refresh()
    again = opened()
    assert version(again) == 2
    assert again.refreshed_at == 0
    assert not again.refresh()


def test_nothing_is_written_where_nothing_has_changed(refresher: Refresher, opened: Opener) -> None:
    before = os.stat(opened.store.path) if opened.store else None
    wal = Path(opened.settings.state_folder) / "store.db-wal"
    size = wal.stat().st_size
    assert not refresher.refresh()
    assert opened.store
    assert before
    assert os.stat(opened.store.path).st_mtime_ns == before.st_mtime_ns
    assert wal.stat().st_size == size


def test_every_root_is_kept_and_only_files_in_use(
    simulator: Simulator, refresher: Refresher, opened: Opener
) -> None:
    for _rotation in range(3):
        simulator.director.rotate("root", "timestamp")
        simulator.publish()
        refresher.refresh()
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.put(path_of("second"), {"tcpv6_enabled": False})
    simulator.publish()
    refresher.refresh()
    assert opened.store
    stored = opened.store.load()
    assert dict(stored.chains["director"].roots) == simulator.director.roots
    assert list(stored.files.values()) == [b'{"tcpv6_enabled": false}']
    simulator.remove(FIRST)
    simulator.remove(path_of("second"))
    simulator.publish()
    refresher.refresh()
    assert opened.store.load().files == {}


def test_nobody_else_can_read_it(refresher: Refresher, opened: Opener) -> None:
    assert refresher.snapshot
    folder = Path(opened.settings.state_folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "store.db").stat().st_mode) == 0o600


def test_two_services_cannot_share_it(refresher: Refresher, opened: Opener) -> None:
    assert refresher.snapshot
    with pytest.raises(StoreError, match="another config service runs"):
        Store(opened.settings.state_folder)


@pytest.mark.parametrize("content", [b"short", b"not a database, but long enough to look" * 100])
def test_a_damaged_file_is_kept_aside_and_begun_anew(
    refresher: Refresher, opened: Opener, content: bytes
) -> None:
    assert refresher.snapshot
    opened.close()
    path = Path(opened.settings.state_folder) / "store.db"
    path.write_bytes(content)
    again = opened()
    assert again.snapshot is None
    assert path.with_suffix(".damaged").read_bytes() == content
    assert len(opened.said) == 1
    assert "was damaged" in opened.said[0]
    assert again.refresh()
    assert version(opened()) == 1


def test_only_the_first_damaged_one_is_kept(refresher: Refresher, opened: Opener) -> None:
    assert refresher.snapshot
    path = Path(opened.settings.state_folder) / "store.db"
    for content in (b"first", b"second"):
        opened.close()
        path.write_bytes(content)
        opened()
    assert path.with_suffix(".damaged").read_bytes() == b"first"


def test_a_page_that_went_bad_is_damage(
    simulator: Simulator, refresher: Refresher, opened: Opener
) -> None:
    for number in range(200):
        simulator.put(path_of(f"c{number}"), {"max_entries": 1024 + number})
    simulator.publish()
    refresher.refresh()
    opened.close()
    path = Path(opened.settings.state_folder) / "store.db"
    raw = bytearray(path.read_bytes())
    raw[4096 * 3 : 4096 * 5] = os.urandom(8192)
    path.write_bytes(raw)
    again = opened()
    assert again.refresh()
    assert version(opened()) == 2


@pytest.mark.parametrize("content", [b"short", b"not a database, but long enough" * 100, None])
def test_what_cannot_be_used_is_not_left_open(
    refresher: Refresher,
    opened: Opener,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    assert refresher.snapshot
    path = Path(opened.settings.state_folder) / "store.db"
    if content is None:
        sql(opened, "PRAGMA user_version = 99")
    else:
        opened.close()
        path.write_bytes(content)
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remembered(*arguments: Any, **options: Any) -> sqlite3.Connection:
        made.append(connect(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", remembered)
    if content is None:
        with pytest.raises(StoreError, match="of a newer release"):
            opened()
    else:
        opened()
        assert len(made) == 2
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        made[0].execute("SELECT 1")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM metadata WHERE role = 'snapshot' AND repository = 'director'",
        "DELETE FROM roots WHERE repository = 'config'",
        "UPDATE metadata SET repository = 'x' || repository",
        "UPDATE metadata SET raw = 1",
        "UPDATE roots SET raw = 2 WHERE repository = 'director'",
        "UPDATE metadata SET raw = x'7b7d' WHERE role = 'targets'",
    ],
)
def test_stored_metadata_are_verified_again_at_a_start(
    refresher: Refresher, opened: Opener, statement: str
) -> None:
    assert refresher.snapshot
    sql(opened, statement)
    again = opened()
    assert again.snapshot is None
    assert "was damaged" in opened.said[0]
    assert again.refresh()


@pytest.mark.parametrize(
    "statement", ["DELETE FROM files", "UPDATE files SET raw = x'7b7d'", "UPDATE files SET raw = 1"]
)
def test_a_stored_file_that_is_wrong_is_fetched_again(
    refresher: Refresher, opened: Opener, statement: str
) -> None:
    assert refresher.snapshot
    sql(opened, statement)
    again = opened()
    assert again.snapshot is None
    assert again.refresh()
    assert version(opened()) == 1


def test_a_store_of_a_newer_release_is_left_alone(refresher: Refresher, opened: Opener) -> None:
    assert refresher.snapshot
    sql(opened, "PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"schema 99, needed: up to 1"):
        opened()
    assert sql(opened, "SELECT count(*) FROM roots") == [(2,)]


def test_another_org_is_not_served_and_still_not_rolled_back(
    simulator: Simulator, refresher: Refresher, opened: Opener
) -> None:
    simulator.publish()
    refresher.refresh()
    opened.settings = replace(opened.settings, org=2)
    again = opened()
    assert again.snapshot is None
    assert "path" in again.last_error
    simulator.switch_to(1)
    refuse(again, "rollback")


def test_another_first_root_begins_anew(
    simulator: Simulator, refresher: Refresher, opened: Opener, tmp_path: Path
) -> None:
    """The operator's word: the old store is trusted no more, and its versions do not count."""
    simulator.publish()
    refresher.refresh()
    other = Simulator(tmp_path / "other")
    other.put(FIRST, {"udpv6_enabled": True})
    other.write()
    for name, repository in other.repositories.items():
        (tmp_path / f"{name}-root.json").write_bytes(repository.roots[1])
    opened.settings = replace(opened.settings, repository=str(other.folder))
    again = opened()
    assert again.snapshot is None
    assert again.refresh()
    assert version(again) == 1
    assert opened.store
    assert dict(opened.store.load().chains["director"].roots) == other.director.roots


def test_a_reset_begins_from_the_first_roots_and_keeps_all_if_it_fails(
    simulator: Simulator, refresher: Refresher
) -> None:
    simulator.publish()
    refresher.refresh()
    simulator.switch_to(1)
    before = refresher.snapshot
    (simulator.current / "director" / "timestamp.json").rename(simulator.folder / "aside")
    with pytest.raises(Refused, match=r"not found: director's timestamp\.json"):
        refresher.refresh(from_roots=True)
    assert refresher.snapshot is before
    (simulator.folder / "aside").rename(simulator.current / "director" / "timestamp.json")
    assert refresher.refresh(from_roots=True)
    assert version(refresher) == 1
    assert not refresher.refresh()


# --- full disks --------------------------------------------------------------------------------


def publish_much(simulator: Simulator) -> None:
    for number in range(300):
        simulator.put(path_of(f"c{number}"), {"max_entries": 1024 + number})
    simulator.publish()


def test_a_database_that_may_not_grow(
    simulator: Simulator, refresher: Refresher, opened: Opener
) -> None:
    publish_much(simulator)
    assert opened.store
    database = opened.store._database
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    refuse(refresher, "store", "full", "make room")
    database.execute("PRAGMA max_page_count = 100000")
    assert refresher.refresh()
    assert version(opened()) == 2


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """What a full disk does to a write, for this process: EFBIG in place of ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 5000, 20000, 60000])
def test_writes_that_fail_wherever_they_are(
    simulator: Simulator, refresher: Refresher, opened: Opener, size: int
) -> None:
    """In the staging folder, or in the middle of the transaction."""
    publish_much(simulator)
    with no_file_longer_than(size):
        refuse(refresher, "store", "make room")
    assert version(opened()) == 1
    assert opened().refresh()
    assert version(opened()) == 2


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="let the config service own it"):
        Store(str(tmp_path / "file" / "state"))
