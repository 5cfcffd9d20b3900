# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is published, and nothing is signed again, that python-tuf does not verify."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from . import libraries
from .errors import PublisherError
from .generations import Generation, Generations
from .keys import Anchor
from .plan import REPOSITORIES, ROLES
from .repository import TARGETS_FILE, Repository

# What python-tuf's client downloads at most
_LIMITS = {"root": 512_000, "timestamp": 16_384, "snapshot": 2_000_000, "targets": 5_000_000}


def anchor_of(repositories: dict[str, Repository]) -> Anchor:
    """What to remember once these are published."""
    return Anchor(
        {name: one.versions for name, one in repositories.items()},
        {name: one.raw["root"].decode() for name, one in repositories.items()},
    )


def first_anchor(repositories: dict[str, Repository]) -> Anchor:
    """What to remember before the very first switch, so that a death after it is no riddle."""
    anchor = anchor_of(repositories)
    return Anchor({name: dict.fromkeys(ROLES, 0) for name in repositories}, anchor.roots)


def check_current(generations: Generations, now: Generation, anchor: Anchor | None) -> None:
    """Raises PublisherError unless what is published follows from what we published last.

    Somebody who can write to the published folder must not get his metadata signed by us, nor an
    older generation. It may be newer by one: a publisher may die before it can note down what it
    has published. Expiry does not matter here; renewing what has expired is our business.
    """
    if anchor is None:
        raise PublisherError(
            f"{generations.root} is published, but the key folder does not know of it: give the "
            "key folder that belongs to it, or put that back from the backup"
        )
    for name in REPOSITORIES:
        _check_repository(generations, now, name, anchor)


def _check_repository(generations: Generations, now: Generation, name: str, anchor: Anchor) -> None:
    repository = now.repositories[name]
    for role in ROLES:
        found, needed = repository.versions[role], anchor.versions[name][role]
        if found < needed:
            raise PublisherError(
                f"{name}.{role} in {generations.root}/current has version {found}, but {needed} "
                "was published: put the newest generation back from the backup"
            )
    try:
        trusted = libraries.Metadata.from_bytes(anchor.roots[name].encode())
        for raw in generations.roots(now, name, trusted.signed.version):
            following = libraries.Metadata.from_bytes(raw)
            _verify(trusted.signed, "root", following)
            _verify(following.signed, "root", following)
            trusted = following
        if trusted.signed != repository.root:
            raise libraries.RepositoryError("its root is not the one that was published")
        for role in ROLES[1:]:
            _verify(trusted.signed, role, repository.metadata[role])
        timestamp = repository.metadata["timestamp"].signed
        timestamp.snapshot_meta.verify_length_and_hashes(repository.raw["snapshot"])
        snapshot = repository.metadata["snapshot"].signed
        snapshot.meta[TARGETS_FILE].verify_length_and_hashes(repository.raw["targets"])
    except (libraries.RepositoryError, libraries.DeserializationError) as exc:
        raise PublisherError(
            f"{name} in {generations.root}/current is not what was published "
            f"({_line(exc)}): put it back from the backup, and find out who changed it"
        ) from None


def _verify(root: libraries.Root, role: str, metadata: libraries.Metadata[libraries.Root]) -> None:
    root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


def check_new(generations: Generations, before: Generation | None, new: Generation) -> None:
    """Raises PublisherError unless every reader will take a written generation.

    python-tuf's own client reads it as one who starts from the first root and has seen the
    generation before; then both repositories are held against each other, and every file against
    them.
    """
    for name in REPOSITORIES:
        for role, limit in _LIMITS.items():
            size = len(new.repositories[name].raw[role])
            if size > limit:
                raise PublisherError(
                    f"{role} of {name} would have {size} bytes, clients take at most {limit}: "
                    "withdraw configs that are no longer needed"
                )
        seen = before.repositories[name] if before else None
        try:
            _read_as_client(os.path.join(new.folder, name), seen)
        except (libraries.RepositoryError, OSError, ValueError) as exc:
            raise PublisherError(
                f"clients would refuse {name} ({_line(exc)}), so it was not published: "
                "put the published folder back from the backup"
            ) from None
    director = new.repositories["director"].targets.targets
    config = new.repositories["config"].targets.targets
    for path, target in director.items():
        other = config.get(path)
        if (
            other is None
            or (target.length, target.hashes) != (other.length, other.hashes)
            or (target.custom or {}).get("v") != (other.custom or {}).get("v")
        ):
            raise PublisherError(f"{path} differs between director and config: withdraw it")
    for path, target in config.items():
        if generations.read_target(target) is None:
            raise PublisherError(
                f"the published file of {path} is missing or damaged: "
                "publish it again with its content, or withdraw it"
            )


def _read_as_client(folder: str, seen: Repository | None) -> None:
    first = Path(folder, "1.root.json").read_bytes()
    newest = max(int(name.split(".")[0]) for name in os.listdir(folder) if ".root." in name)
    with tempfile.TemporaryDirectory() as cache:
        if seen:
            for role in ROLES[1:]:
                Path(cache, f"{role}.json").write_bytes(seen.raw[role])
        updater = libraries.Updater(
            cache,
            Path(folder).absolute().as_uri(),
            fetcher=libraries.FolderFetcher(),
            config=libraries.UpdaterConfig(max_root_rotations=newest),
            bootstrap=first,
        )
        updater.refresh()


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
