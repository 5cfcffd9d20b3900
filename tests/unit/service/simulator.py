# SPDX-License-Identifier: GPL-3.0-or-later
"""The two repositories as a publisher writes them, made with python-tuf alone; open to tampering.

It is on purpose not the publisher of this collection: what both sides got wrong in the same way
would go unseen.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

DIRECTOR, CONFIG = "director", "config"
ROLES = ("root", "timestamp", "snapshot", "targets")


def later(days: float = 30) -> datetime:
    """An expiry; TUF's have no fractions of seconds."""
    return (datetime.now(timezone.utc) + timedelta(days=days)).replace(microsecond=0)


def path_of(name: str, product: str = "CONNTRACK", org: int = 1) -> str:
    """A config's path."""
    return f"btfleet/{org}/{product}/all/{name}"


class Repository:
    """One of the two, with all keys at hand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signers = {role: [CryptoSigner.generate_ed25519()] for role in ROLES}
        self.root = Metadata(Root(expires=later(), consistent_snapshot=True))
        for role in ROLES:
            self.root.signed.add_key(self.signers[role][0].public_key, role)
        self.timestamp = Metadata(Timestamp(expires=later()))
        self.snapshot = Metadata(Snapshot(expires=later()))
        self.targets = Metadata(Targets(expires=later()))
        self.roots: dict[int, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.sign_root([])

    def sign(self, metadata: Metadata[Any], role: str) -> bytes:
        """Signed by all of the role's keys, as bytes."""
        metadata.signatures.clear()
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def sign_root(self, former: list[CryptoSigner]) -> None:
        """Adds the root as it is now, signed by its own keys and the former ones."""
        self.root.signatures.clear()
        for signer in [*self.signers["root"], *former]:
            self.root.sign(signer, append=True)
        self.roots[self.root.signed.version] = self.root.to_bytes()

    def next_root(self) -> None:
        """One more version."""
        self.root.signed.version += 1
        self.sign_root([])

    def rotate(self, *roles: str) -> None:
        """New keys for the roles, in one more root."""
        former = list(self.signers["root"])
        for role in roles:
            for signer in self.signers[role]:
                self.root.signed.revoke_key(signer.public_key.keyid, role)
            self.signers[role] = [CryptoSigner.generate_ed25519()]
            self.root.signed.add_key(self.signers[role][0].public_key, role)
        self.root.signed.version += 1
        self.sign_root(former if "root" in roles else [])

    def change(self) -> None:
        """New versions of everything below the root, as after any change of the targets."""
        self.targets.signed.version += 1
        self.snapshot.signed.version += 1
        self.timestamp.signed.version += 1

    def build(self) -> dict[str, bytes]:
        """The metadata files, each naming the next with version, length and hash."""
        targets = self.sign(self.targets, "targets")
        self.snapshot.signed.meta["targets.json"] = _meta(self.targets.signed.version, targets)
        snapshot = self.sign(self.snapshot, "snapshot")
        self.timestamp.signed.snapshot_meta = _meta(self.snapshot.signed.version, snapshot)
        self.files |= {f"{version}.root.json": raw for version, raw in self.roots.items()}
        self.files |= {
            f"{self.targets.signed.version}.targets.json": targets,
            f"{self.snapshot.signed.version}.snapshot.json": snapshot,
            "timestamp.json": self.sign(self.timestamp, "timestamp"),
        }
        return self.files


class Simulator:
    """Both repositories, and the folder that they are written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories = {name: Repository(name) for name in (DIRECTOR, CONFIG)}
        self.contents: dict[str, bytes] = {}
        self.generation = 0

    @property
    def director(self) -> Repository:
        """Who gets it."""
        return self.repositories[DIRECTOR]

    @property
    def config(self) -> Repository:
        """What exists."""
        return self.repositories[CONFIG]

    @property
    def current(self) -> Path:
        """The generation that is offered."""
        return (self.folder / "current").resolve()

    def put(
        self,
        path: str,
        settings: Mapping[str, object] | bytes,
        version: int = 1,
        **director_custom: object,
    ) -> None:
        """A config in both repositories; `write` publishes it."""
        raw = settings if isinstance(settings, bytes) else json.dumps(settings).encode()
        for repository in self.repositories.values():
            target = TargetFile.from_data(path, raw)
            custom: dict[str, object] = {"v": version}
            if repository is self.director:
                custom.update(director_custom)
            target.unrecognized_fields["custom"] = custom
            repository.targets.signed.targets[path] = target
        self.contents[hashlib.sha256(raw).hexdigest()] = raw

    def remove(self, path: str) -> None:
        """Withdraws a config; `write` publishes that."""
        for repository in self.repositories.values():
            del repository.targets.signed.targets[path]

    def target(self, repository: Repository, path: str) -> TargetFile:
        """The entry of a config, to tamper with."""
        return repository.targets.signed.targets[path]

    def change(self) -> None:
        """New versions in both repositories."""
        for repository in self.repositories.values():
            repository.change()

    def write(self) -> None:
        """A new generation with everything as it is now, switched to at one moment."""
        self.generation += 1
        top = self.folder / "generations" / str(self.generation)
        for name, repository in self.repositories.items():
            (top / name).mkdir(parents=True)
            for file, raw in repository.build().items():
                (top / name / file).write_bytes(raw)
        targets = self.director.targets.signed.targets | self.config.targets.signed.targets
        for path, target in targets.items():
            content = self.contents.get(target.hashes.get("sha256", ""))
            if content is None:
                continue
            folder, _slash, name = path.rpartition("/")
            where = top / "targets" / folder / f"{next(iter(target.hashes.values()))}.{name}"
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(content)
        self.switch_to(self.generation)

    def publish(self) -> None:
        """New versions, written."""
        self.change()
        self.write()

    def switch_to(self, generation: int) -> None:
        """Offers a generation, an old one too."""
        link = self.folder / "next"
        link.symlink_to(f"generations/{generation}")
        os.replace(link, self.folder / "current")

    def copy_keys(self) -> dict[str, dict[str, list[CryptoSigner]]]:
        """Who signs what now, for an attacker who got hold of old keys."""
        return {name: copy.copy(each.signers) for name, each in self.repositories.items()}


def second_name(key: Key, keyid: str) -> Key:
    """The same public key under another id."""
    return SSlibKey(keyid, key.keytype, key.scheme, dict(key.keyval))


def _meta(version: int, raw: bytes) -> MetaFile:
    return MetaFile(version, len(raw), {"sha256": hashlib.sha256(raw).hexdigest()})
