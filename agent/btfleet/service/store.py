# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: the last verified generation, in SQLite. A commit is one transaction.

Every root is kept, for hosts that were away; of the files only those that the targets name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Callable, Iterator, Mapping

from btfleet.service.chain import Chain
from btfleet.service.errors import StoreError
from btfleet.service.generation import NOTHING, Generation, Stored

SCHEMA_VERSION = 1
_TABLES = """
CREATE TABLE roots (repository TEXT, version INTEGER, raw BLOB NOT NULL,
                    PRIMARY KEY (repository, version)) WITHOUT ROWID;
CREATE TABLE metadata (repository TEXT, role TEXT, raw BLOB NOT NULL,
                       PRIMARY KEY (repository, role)) WITHOUT ROWID;
CREATE TABLE files (sha256 TEXT PRIMARY KEY, raw BLOB NOT NULL);
"""


class Store:
    """One folder's store; only one process may have it open."""

    def __init__(self, folder: str, say: Callable[[str], None] = lambda _line: None) -> None:
        """Opens it, or makes it; `say` is told of a damaged one. Raises StoreError."""
        self._folder, self._say = Path(folder), say
        self.path = self._folder / "store.db"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(
                self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise StoreError(
                f"cannot use the state folder {folder} ({exc.strerror}): "
                "let the config service own it, and see that there is room"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._database = self._open()
        except BlockingIOError:
            os.close(self._lock)
            raise StoreError(
                f"{folder} is in use: another config service runs, stop it or give this one "
                "another state_folder"
            ) from None
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def staging(self) -> Path:
        """The folder for what is not verified yet."""
        return self._folder / "staging"

    def close(self) -> None:
        """Lets another process open it."""
        self._database.close()
        os.close(self._lock)

    def load(self) -> Stored:
        """All that was committed last; raises StoreError."""
        try:
            return self._load()
        except sqlite3.Error as exc:
            raise StoreError(f"cannot read {self.path} ({exc}): look at its disk") from None

    def commit(self, generation: Generation) -> None:
        """Puts it in place of what is stored: all of it or, with StoreError, nothing."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for name, chain in generation.chains.items():
                self._put_chain(name, chain)
            self._put_files(generation.files)
            self._database.execute("COMMIT")
        except sqlite3.Error as exc:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise StoreError(
                f"cannot write {self.path} ({exc}): make room on its disk; "
                "what was stored before is unchanged"
            ) from None

    def set_aside(self, reason: str) -> None:
        """Starts an empty store; the damaged one is kept beside it, if it is the first one."""
        self._database.close()
        self._move(reason)
        self._database = self._create()

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            return self._create()
        try:
            with self._connected() as database:
                reason = self._damage(database)
                if not reason:
                    return database
                database.close()
        except sqlite3.OperationalError as exc:
            raise StoreError(f"cannot open {self.path} ({exc}): look at its disk") from None
        except sqlite3.DatabaseError as exc:
            reason = str(exc)
        self._move(reason)
        return self._create()

    def _damage(self, database: sqlite3.Connection) -> str:
        """What is wrong with it, empty if nothing; raises StoreError for a newer release's."""
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} is of a newer release (schema {found}, needed: up to "
                f"{SCHEMA_VERSION}): start that release, or remove the file"
            )
        if not found:
            return "it was never finished"
        damage = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
        return "" if damage == "ok" else damage

    def _create(self) -> sqlite3.Connection:
        try:
            with self._connected() as database, contextlib.closing(database.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                for statement in _TABLES.split(";"):
                    cursor.execute(statement)
                cursor.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                cursor.execute("COMMIT")
                return database
        except sqlite3.Error as exc:
            raise StoreError(
                f"cannot make {self.path} ({exc}): look at its disk and at the folder's owner"
            ) from None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The database, which stays open unless the block fails."""
        # The refresh and an operator's reset are different threads, one at a time
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(self.path, 0o600)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            yield database
        except BaseException:
            database.close()
            raise

    def _move(self, reason: str) -> None:
        kept = self.path.with_suffix(".damaged")
        if kept.exists():
            self.path.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                self.path.rename(kept)
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        self._say(
            f"{self.path} was damaged ({' '.join(reason.split())}) and is begun anew at "
            f"{time.strftime('%FT%TZ', time.gmtime())}; the first damaged one is {kept}"
        )

    def _load(self) -> Stored:
        roots: dict[str, dict[int, bytes]] = {}
        metadata: dict[str, dict[str, bytes]] = {}
        execute = self._database.execute
        for name, version, raw in execute("SELECT * FROM roots WHERE typeof(raw) = 'blob'"):
            roots.setdefault(name, {})[version] = raw
        for name, role, raw in execute("SELECT * FROM metadata WHERE typeof(raw) = 'blob'"):
            metadata.setdefault(name, {})[role] = raw
        if not roots:
            return NOTHING
        chains = {name: Chain(found, metadata.get(name, {})) for name, found in roots.items()}
        return Stored(chains, dict(execute("SELECT * FROM files WHERE typeof(raw) = 'blob'")))

    def _put_chain(self, name: str, chain: Chain) -> None:
        execute = self._database.execute
        stored = dict(execute("SELECT version, raw FROM roots WHERE repository = ?", (name,)))
        if any(chain.roots.get(version) != raw for version, raw in stored.items()):
            execute("DELETE FROM roots WHERE repository = ?", (name,))  # another first root
            stored = {}
        self._database.executemany(
            "INSERT INTO roots VALUES (?, ?, ?)",
            [(name, version, raw) for version, raw in chain.roots.items() if version not in stored],
        )
        self._database.executemany(
            "REPLACE INTO metadata VALUES (?, ?, ?)",
            [(name, role, raw) for role, raw in chain.metadata.items()],
        )

    def _put_files(self, files: Mapping[str, bytes]) -> None:
        stored = dict(self._database.execute("SELECT sha256, raw FROM files"))
        self._database.executemany(
            "DELETE FROM files WHERE sha256 = ?",
            [(sha256,) for sha256 in stored if sha256 not in files],
        )
        self._database.executemany(
            "REPLACE INTO files VALUES (?, ?)",
            [(sha256, raw) for sha256, raw in files.items() if stored.get(sha256) != raw],
        )
