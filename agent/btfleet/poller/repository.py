# SPDX-License-Identifier: GPL-3.0-or-later
"""The state repository: the last good state of this host's remote config, on the disk.

SQLite (WAL, synchronous FULL): a commit is there as a whole or not at all, whenever the process is
killed, the power fails or the disk is full. What comes back is verified again by `verify.restore`,
so that this file is trusted no more than the network is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import Collection, Iterator

from btfleet.poller.errors import StorageError
from btfleet.poller.states import ApplyState
from btfleet.poller.verify import Stored, Trusted

NAME = "state.db"
DAMAGED = "state.db.damaged"
_SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS roots (place INTEGER PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS targets (one INTEGER PRIMARY KEY CHECK (one = 1), raw BLOB NOT NULL,
    refill INTEGER NOT NULL, host_digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS states (path TEXT PRIMARY KEY, version INTEGER NOT NULL,
    sha256 TEXT NOT NULL, phase INTEGER NOT NULL, reason TEXT NOT NULL, fingerprint TEXT NOT NULL,
    changed_at INTEGER NOT NULL);
"""


class StateRepository:
    """One file; used by the poll loop and by listeners, each call whole. Raises StorageError."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, NAME)
        self._lock = threading.Lock()
        # Set if there was a file that is no state: what it was, for the log
        self.damage: str | None = None
        with self._explained():
            try:
                self._database = _open(self.path)
            except sqlite3.DatabaseError as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    raise
                self.damage = str(exc)
                _set_aside(folder)
                self._database = _open(self.path)

    def close(self) -> None:
        """Nothing can be read or written after this."""
        with self._lock:
            self._database.close()

    def load(self) -> Stored:
        """What was committed last."""
        with self._explained(), self._lock:
            read = self._database.execute
            roots = tuple(raw for (raw,) in read("SELECT raw FROM roots ORDER BY place"))
            row = read("SELECT raw, refill, host_digest FROM targets").fetchone()
            files = dict(read("SELECT path, raw FROM files"))
        targets, refill, digest = row or (None, 0, "")
        return Stored(roots, targets, files, bool(refill), digest)

    def commit(self, trusted: Trusted, host_digest: str) -> None:
        """Replaces the state as a whole."""
        files = [(path, config.raw) for path, config in trusted.configs.items()]
        with self._transaction() as write:
            write.execute("DELETE FROM roots")
            write.executemany("INSERT INTO roots VALUES (?, ?)", enumerate(trusted.roots))
            write.execute("DELETE FROM targets")
            if trusted.targets is not None:
                write.execute(
                    "INSERT INTO targets VALUES (1, ?, ?, ?)",
                    (trusted.targets.raw, trusted.refill, host_digest),
                )
            write.execute("DELETE FROM files")
            write.executemany("INSERT INTO files VALUES (?, ?)", files)

    def load_states(self) -> list[ApplyState]:
        """The states of configs as saved last."""
        with self._explained(), self._lock:
            return [
                ApplyState(*row)
                for row in self._database.execute(
                    "SELECT path, version, sha256, phase, reason, fingerprint, changed_at "
                    "FROM states"
                )
            ]

    def save_states(self, states: Collection[ApplyState]) -> None:
        """Replaces the states of all configs."""
        with self._transaction() as write:
            write.execute("DELETE FROM states")
            write.executemany("INSERT INTO states VALUES (?, ?, ?, ?, ?, ?, ?)", states)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise StorageError(
                f"cannot keep or read the state in {self.path} ({exc}): see to room and "
                "permissions there; what is in force stays in force"
            ) from exc


def _open(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 1048576")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if version not in (0, _SCHEMA):
            raise sqlite3.DatabaseError(f"schema {version}, this release has {_SCHEMA}")
        if version == 0:
            database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_SCHEMA}; COMMIT;")
    except BaseException:
        database.close()
        raise
    return database


def _set_aside(folder: str) -> None:
    """A file that is no database is kept for whoever wants to know why, and replaced."""
    os.replace(os.path.join(folder, NAME), os.path.join(folder, DAMAGED))
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, NAME + suffix))
