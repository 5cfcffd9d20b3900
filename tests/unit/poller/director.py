# SPDX-License-Identifier: GPL-3.0-or-later
"""A director in memory, made with python-tuf alone, that also makes what an attacker would."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from btfleet._config.predicates import HostFacts
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller.verify import Host
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

NOW = 1_800_000_000
DAY = 86400
ROLES = ("root", "targets", "snapshot", "timestamp")
HOST = Host(HostFacts("gw1", frozenset({"edge"}), {"site": "b"}), ("CONNTRACK", "AGENT"), 1)

NO_UDP6 = "btfleet/1/CONNTRACK/edge/no-udp6"
CALM = "btfleet/1/AGENT/edge/calm"


def when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def signer() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


def content(**settings: object) -> bytes:
    return json.dumps(settings).encode()


@dataclass
class Director:
    """`publish` and `rotate` make new versions; what the attributes hold is what is current."""

    signers: dict[str, list[CryptoSigner]] = field(
        default_factory=lambda: {role: [signer()] for role in ROLES}
    )
    thresholds: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    customs: dict[str, dict[str, Any]] = field(default_factory=dict)
    expires: int = NOW + 30 * DAY
    roots: list[bytes] = field(default_factory=list)
    targets_version: int = 0
    targets: bytes = b""

    def __post_init__(self) -> None:
        self.roots.append(self.root(1).to_bytes())
        self.publish({})

    @property
    def first_root(self) -> bytes:
        return self.roots[0]

    # --- root -----------------------------------------------------------------------------------

    def root(
        self, version: int, expires: int | None = None, signed_by: list[CryptoSigner] | None = None
    ) -> Metadata[Root]:
        root = Root(version=version, expires=when(self.expires if expires is None else expires))
        for role, signers in self.signers.items():
            for each in signers:
                root.add_key(each.public_key, role)
            root.roles[role].threshold = self.thresholds.get(role, 1)
        return signed(Metadata(root), self.signers["root"] if signed_by is None else signed_by)

    def rotate(self, *roles: str, expires: int | None = None) -> bytes:
        """A new root, in which these roles have other keys."""
        before = list(self.signers["root"])
        for role in roles:
            self.signers[role] = [signer() for _number in self.signers[role]]
        by = list({id(each): each for each in before + self.signers["root"]}.values())
        raw = self.root(len(self.roots) + 1, expires, by).to_bytes()
        self.roots.append(raw)
        return raw

    # --- targets --------------------------------------------------------------------------------

    def publish(
        self, files: dict[str, bytes], version: int | None = None, **custom: Any
    ) -> Metadata[Targets]:
        """New targets with these files, for all hosts or as `custom` says."""
        self.files = dict(files)
        self.customs = {path: {"v": 1, **custom} for path in files}
        self.targets_version = version or self.targets_version + 1
        return self.sign_targets()

    def sign_targets(self) -> Metadata[Targets]:
        metadata = self.make_targets()
        self.targets = metadata.to_bytes()
        return metadata

    def make_targets(self) -> Metadata[Targets]:
        targets = Targets(version=self.targets_version, expires=when(self.expires))
        for path, raw in self.files.items():
            targets.targets[path] = target(path, raw, self.customs[path])
        return signed(Metadata(targets), self.signers["targets"])

    # --- answers --------------------------------------------------------------------------------

    def answer(self, have_root: int = 1, **other: Any) -> pb.ClientGetConfigsResponse:
        """What an honest service sends to a client with that root and no files; or `other`."""
        fields: dict[str, Any] = {
            "roots": self.roots[have_root:],
            "targets": self.targets,
            "target_files": [pb.File(path=path, raw=raw) for path, raw in self.files.items()],
            "client_configs": list(self.files),
        }
        return pb.ClientGetConfigsResponse(**{**fields, **other})

    def repository(self) -> dict[str, bytes]:
        """All of it as files, for python-tuf's own client."""
        snapshot = Snapshot(
            version=self.targets_version,
            expires=when(self.expires),
            meta={"targets.json": MetaFile(self.targets_version)},
        )
        timestamp = Timestamp(
            version=self.targets_version,
            expires=when(self.expires),
            snapshot_meta=MetaFile(self.targets_version),
        )
        files = {f"{number}.root.json": raw for number, raw in enumerate(self.roots, 1)}
        files[f"{self.targets_version}.targets.json"] = self.targets
        files[f"{self.targets_version}.snapshot.json"] = signed(
            Metadata(snapshot), self.signers["snapshot"]
        ).to_bytes()
        files["timestamp.json"] = signed(Metadata(timestamp), self.signers["timestamp"]).to_bytes()
        return files


def target(path: str, raw: bytes, custom: dict[str, Any]) -> TargetFile:
    hashes = {"sha256": hashlib.sha256(raw).hexdigest()}
    return TargetFile(len(raw), hashes, path, {"custom": custom})


def signed(metadata: Metadata[Any], signers: list[CryptoSigner]) -> Metadata[Any]:
    metadata.signatures.clear()
    for each in signers:
        metadata.sign(each, append=True)
    return metadata


def edited(raw: bytes, signers: list[CryptoSigner], **signed_fields: Any) -> bytes:
    """Metadata with other fields, which python-tuf would not write, signed all the same."""
    from securesystemslib.formats import encode_canonical  # noqa: PLC0415 only attackers need it

    data = json.loads(raw)
    data["signed"].update(signed_fields)
    payload = encode_canonical(data["signed"])
    assert payload is not None
    data["signatures"] = [each.sign(payload.encode()).to_dict() for each in signers]
    return json.dumps(data).encode()
