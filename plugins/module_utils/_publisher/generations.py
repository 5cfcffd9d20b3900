# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The published folder: generations side by side, one of them current.

    <root>/current -> generations/<n>
    <root>/generations/<n>/{config,director}/   metadata
    <root>/generations/<n>/targets -> ../../targets
    <root>/targets/<path's folder>/<sha256>.<name>

Target files are named after their content and never change, so that all generations share them;
one goes when no kept generation lists it. A generation also has the snapshots and targets of those
before it, for a reader who was half-way when `current` was redirected. Redirecting, a rename, is
the only step that a reader can notice.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Iterable, Iterator, Mapping, NamedTuple

from . import libraries
from .errors import PublisherError
from .plan import REPOSITORIES
from .repository import FIELD, TARGETS_FILE, Repository

_SCRATCH = ".new-"
_LOCK = ".lock"
_NUMBER = re.compile(r"[1-9][0-9]*")
_VERSIONED = re.compile(r"([1-9][0-9]*)\.(root|snapshot|targets)\.json")
_WAIT_SECONDS = 120


class Generation(NamedTuple):
    """A published state: its number, its folder, and the repositories by name."""

    number: int
    folder: str
    repositories: dict[str, Repository]


@dataclass(frozen=True)
class Generations:
    """The published folder at `root`, in which `keep` generations stay beside the current one."""

    root: str
    keep: int

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other publishers away; raises PublisherError if one stays at work for minutes."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            os.makedirs(self.root, mode=0o755, exist_ok=True)
            with open(os.path.join(self.root, _LOCK), "a", encoding="utf-8") as stream:
                if self._lock(stream):
                    yield  # closing the file lets go of the lock
                    return
            if time.monotonic() > deadline:
                raise PublisherError(
                    f"another publisher has been at work on {self.root} for "
                    f"{_WAIT_SECONDS} s: wait for it, or end it"
                )
            time.sleep(0.05)

    def _lock(self, stream: IO[str]) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who removed the folder has removed the file with it
            return os.path.samestat(os.fstat(stream.fileno()), os.stat(stream.name))
        except (BlockingIOError, FileNotFoundError):
            return False

    def current_number(self) -> int | None:
        """The number of the current generation, None if there is none."""
        link = os.path.join(self.root, "current")
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            return None
        except OSError:
            raise PublisherError(
                f"{link} is not a link, needed: a link to generations/<n> (give a path of its own)"
            ) from None
        folder, _slash, number = target.rpartition("/")
        if folder != "generations" or not _NUMBER.fullmatch(number):
            raise PublisherError(
                f"{link} leads to {target!r}, needed: generations/<n> (restore the link)"
            )
        return int(number)

    def read(self) -> Generation | None:
        """The current generation, None if nothing was published; raises PublisherError."""
        number = self.current_number()
        if number is None:
            return None
        folder = self._folder(number)
        return Generation(
            number,
            folder,
            {name: _read_repository(os.path.join(folder, name)) for name in REPOSITORIES},
        )

    def roots(self, generation: Generation, name: str, after: int) -> Iterator[bytes]:
        """The roots of a repository that come after a version, oldest first."""
        for version in range(after + 1, generation.repositories[name].root.version + 1):
            path = os.path.join(generation.folder, name, f"{version}.root.json")
            yield _read(path)

    def write(
        self, before: Generation | None, repositories: Mapping[str, Repository]
    ) -> Generation:
        """Puts a generation beside the others, durable and not yet current.

        It lies under a name that no reader looks for until `switch`.
        """
        os.makedirs(self._generations, mode=0o755, exist_ok=True)
        self._remove_unfinished()
        folder = tempfile.mkdtemp(dir=self._generations, prefix=_SCRATCH)
        os.chmod(folder, 0o755)  # noqa: S103  (what is published is for everybody)
        for name, repository in repositories.items():
            target = os.path.join(folder, name)
            os.mkdir(target, mode=0o755)
            files = _files(repository)
            if before:
                source = os.path.join(before.folder, name)
                unchanged = _files(before.repositories[name])
                for file in self._carried(source, repository):
                    if file not in files or files[file] == unchanged.get(file):
                        os.link(os.path.join(source, file), os.path.join(target, file))
                        files.pop(file, None)
            for file, raw in files.items():
                _write(os.path.join(target, file), raw)
        os.symlink("../../targets", os.path.join(folder, "targets"))
        number = max([0, *self._numbers()]) + 1
        return Generation(number, folder, dict(repositories))

    def switch(self, generation: Generation) -> None:
        """Makes a written generation the current one."""
        _sync(self.root)
        os.rename(generation.folder, self._folder(generation.number))
        link = os.path.join(self.root, f"{_SCRATCH}current")
        os.symlink(f"generations/{generation.number}", link)
        _sync(self.root)
        os.rename(link, os.path.join(self.root, "current"))
        _sync(self.root)

    def prune(self) -> None:
        """Removes generations beyond `keep`, and target files that none of the rest lists."""
        current = self.current_number()
        others = sorted((number for number in self._numbers() if number != current), reverse=True)
        for number in others[self.keep :]:
            shutil.rmtree(self._folder(number))
        listed = self._listed_files()
        for path in self._target_files():
            if path not in listed:
                os.unlink(path)
                self._remove_empty(os.path.dirname(path))

    def target_path(self, file: str) -> str:
        """Where a target file (<folder>/<sha256>.<name>) lies."""
        return os.path.join(self.root, "targets", file)

    def read_target(self, target: libraries.TargetFile) -> bytes | None:
        """A target's bytes, None if they are missing or not those that were published."""
        try:
            raw = _read(self.target_path(target.get_prefixed_paths()[0]))
            target.verify_length_and_hashes(raw)
        except (PublisherError, libraries.RepositoryError):
            return None
        return raw

    def write_targets(self, files: Iterable[tuple[libraries.TargetFile, bytes]]) -> None:
        """Keeps targets' bytes; those of new ones nobody reads before a generation lists them."""
        for target, raw in files:
            path = self.target_path(target.get_prefixed_paths()[0])
            folder = os.path.dirname(path)
            os.makedirs(folder, mode=0o755, exist_ok=True)
            scratch = os.path.join(folder, f"{_SCRATCH}target")
            _write(scratch, raw)
            os.rename(scratch, path)

    def remove(self) -> None:
        """Removes all that was published, the link first."""
        for name in ("current", f"{_SCRATCH}current"):
            if os.path.islink(os.path.join(self.root, name)):
                os.unlink(os.path.join(self.root, name))
        for folder in ("generations", "targets"):
            shutil.rmtree(os.path.join(self.root, folder), ignore_errors=True)
        lock = os.path.join(self.root, _LOCK)
        if os.path.exists(lock):
            os.unlink(lock)
        if os.path.isdir(self.root) and not os.listdir(self.root):
            os.rmdir(self.root)

    @property
    def _generations(self) -> str:
        return os.path.join(self.root, "generations")

    def _folder(self, number: int) -> str:
        return os.path.join(self._generations, str(number))

    def _numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(self._generations) if _NUMBER.fullmatch(name)]

    def _carried(self, source: str, repository: Repository) -> list[str]:
        """Files of the generation before that a slow or lagging reader may still ask for."""
        found = []
        for file in os.listdir(source):
            match = _VERSIONED.fullmatch(file)
            if match:
                version, role = int(match.group(1)), match.group(2)
                if role == "root" or version >= repository.versions[role] - self.keep:
                    found.append(file)
        return found

    def _remove_unfinished(self) -> None:
        """What a killed publisher left."""
        for name in os.listdir(self._generations):
            if name.startswith(_SCRATCH):
                shutil.rmtree(os.path.join(self._generations, name))
        link = os.path.join(self.root, f"{_SCRATCH}current")
        if os.path.islink(link):
            os.unlink(link)

    def _listed_files(self) -> set[str]:
        listed: set[str] = set()
        seen: set[int] = set()
        for number in self._numbers():
            for name in REPOSITORIES:
                folder = os.path.join(self._folder(number), name)
                for file in os.listdir(folder):
                    path = os.path.join(folder, file)
                    inode = os.stat(path).st_ino  # generations share files
                    if file.endswith(".targets.json") and inode not in seen:
                        seen.add(inode)
                        listed.update(map(self.target_path, _listed_in(path)))
        return listed

    def _target_files(self) -> list[str]:
        return [
            os.path.join(folder, file)
            for folder, _folders, files in os.walk(os.path.join(self.root, "targets"))
            for file in files
        ]

    def _remove_empty(self, folder: str) -> None:
        while folder != self.root and not os.listdir(folder):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _files(repository: Repository) -> dict[str, bytes]:
    """The names and bytes of a repository's current metadata, with consistent snapshots."""
    return {
        "timestamp.json" if role == "timestamp" else f"{repository.versions[role]}.{role}.json": raw
        for role, raw in repository.raw.items()
    }


def _read_repository(folder: str) -> Repository:
    """Follows the timestamp to the snapshot and the targets; raises PublisherError."""
    try:
        roots = [int(name.split(".")[0]) for name in os.listdir(folder) if _is_root(name)]
    except OSError as exc:
        raise PublisherError(
            f"cannot read {folder} ({exc.strerror}): put it back from the backup"
        ) from None
    if not roots:
        raise PublisherError(f"{folder} has no root: put it back from the backup")
    metadata: dict[str, libraries.Metadata[Any]] = {}
    raw: dict[str, bytes] = {}

    def read(role: str, file: str) -> Any:
        path = os.path.join(folder, file)
        raw[role] = _read(path)
        try:
            metadata[role] = libraries.Metadata.from_bytes(raw[role])
        except libraries.DeserializationError as exc:
            raise PublisherError(
                f"{path} is damaged ({type(exc.__cause__ or exc).__name__}): "
                "put it back from the backup"
            ) from None
        if metadata[role].signed.type != role:
            raise PublisherError(
                f"{path} holds {metadata[role].signed.type}, needed: {role} "
                "(put it back from the backup)"
            )
        return metadata[role].signed

    root = read("root", f"{max(roots)}.root.json")
    if not _is_ours(root.unrecognized_fields.get(FIELD)):
        raise PublisherError(
            f"{folder} was not made by this publisher: give a path of its own to publish to"
        )
    timestamp = read("timestamp", "timestamp.json")
    snapshot = read("snapshot", f"{timestamp.snapshot_meta.version}.snapshot.json")
    if TARGETS_FILE not in snapshot.meta:
        raise PublisherError(f"the snapshot in {folder} lists no targets: put it back from backup")
    read("targets", f"{snapshot.meta[TARGETS_FILE].version}.targets.json")
    return Repository(metadata, raw)


def _is_root(name: str) -> bool:
    match = _VERSIONED.fullmatch(name)
    return bool(match) and match.group(2) == "root" if match else False


def _is_ours(said: object) -> bool:
    return isinstance(said, dict) and {"org", "expiry_days", "rotations"} <= set(said)


def _listed_in(path: str) -> list[str]:
    found: list[str] = []
    try:
        with open(path, "rb") as stream:
            targets = json.load(stream)["signed"]["targets"]
        for name, target in targets.items():
            folder, _slash, base = name.rpartition("/")
            found += [f"{folder}/{digest}.{base}" for digest in target["hashes"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return found  # a former generation that somebody damaged
    return found


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as exc:
        raise PublisherError(
            f"cannot read {path} ({exc.strerror}): put it back from the backup"
        ) from None


def _write(path: str, raw: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(raw)
    os.chmod(path, 0o644)


def _sync(folder: str) -> None:
    """Waits until all that was written to the folder's file system is on the disk.

    One call in place of one a file: ten thousand files take as long as one.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # not Linux
        os.sync()
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(fd) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), folder)
    finally:
        os.close(fd)
