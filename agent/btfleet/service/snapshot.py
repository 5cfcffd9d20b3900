# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot that polls are answered from: built once for a generation, and never changed.

A serialized protobuf message is its fields' bytes one after the other. So every root, path and file
is serialized once, here, and an answer is a selection of these pieces put together.

It has the configs of all products, whether or not somebody asks for them now: a client that was
never heard of is answered at once, with no refresh to wait for.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Mapping, NamedTuple

from btfleet._config import custom
from btfleet._config.predicates import HostFacts
from btfleet.config.v1.config_pb2 import (
    CONFIG_STATUS_EXPIRED,
    ClientGetConfigsResponse,
    File,
    FileMetaState,
    PublishedConfig,
)
from btfleet.service.audience import Audience
from btfleet.service.chain import DIRECTOR, Chain, Opened
from btfleet.service.crosscheck import Target
from btfleet.service.generation import Generation
from btfleet.service.poll import Poll

# Hosts whose selections are remembered
MAX_SELECTIONS = 100000

UP_TO_DATE, FULL, EXPIRED = "up_to_date", "full", "expired"
_EXPIRED = ClientGetConfigsResponse(config_status=CONFIG_STATUS_EXPIRED).SerializeToString()


class MissingRoots(Exception):
    """The client's root is older than the oldest one that is known here."""


class _Piece(NamedTuple):
    """A config, with its serialized parts of an answer."""

    target: Target
    path: bytes
    file: bytes


class Snapshot:
    """Answers polls from one generation; safe to use from any number of threads."""

    def __init__(self, generation: Generation, suggested_interval_seconds: int = 0) -> None:
        chain, opened = generation.chains[DIRECTOR], generation.opened[DIRECTOR]
        self.file_states = {
            name: file_states(generation.chains[name], generation.opened[name])
            for name in generation.chains
        }
        self.root_version = chain.root_version
        self.oldest_root = min(chain.roots)
        self.targets_version = opened.targets.version
        # Of all of the director's metadata: none of them may be used for longer
        self.expires = opened.expires
        self.chain_expires = {
            name: {signed.type: int(signed.expires.timestamp()) for signed in each}
            for name, each in generation.opened.items()
        }
        self._roots = {
            version: ClientGetConfigsResponse(roots=[raw]).SerializeToString()
            for version, raw in sorted(chain.roots.items())
        }
        targets = chain.metadata["targets"]
        self._targets = ClientGetConfigsResponse(targets=targets).SerializeToString()
        self._pieces = [_piece(target, generation.files) for target in generation.targets]
        self._audience = Audience([target.custom.predicates for target in generation.targets])
        # One a host: else one that says other facts in each poll would fill the memory
        self._selections: dict[str, tuple[object, tuple[int, ...]]] = {}
        self.up_to_date = ClientGetConfigsResponse(
            suggested_interval_seconds=suggested_interval_seconds
        ).SerializeToString()

    @property
    def first_expiry(self) -> int:
        """Unix time at which the first metadata of either repository expire."""
        return min(expires for roles in self.chain_expires.values() for expires in roles.values())

    def is_expired(self, now: float) -> bool:
        """Whether the director's metadata are too old to be used."""
        return now >= self.expires

    def answer(self, poll: Poll, now: float) -> tuple[str, bytes]:
        """What it is (UP_TO_DATE, FULL or EXPIRED), and the serialized ClientGetConfigsResponse.

        Raises MissingRoots if the chain of roots from the client's to the newest is not known.
        """
        if self.is_expired(now):
            return EXPIRED, _EXPIRED
        if poll.targets_version == self.targets_version and poll.root_version >= self.root_version:
            return UP_TO_DATE, self.up_to_date
        if poll.root_version < self.oldest_root - 1:
            raise MissingRoots(
                f"client.state.root_version is {poll.root_version}, and the oldest director root "
                f"here is {self.oldest_root}: give the service (roots.director) an older first "
                "root, or the host a newer one"
            )
        parts = [
            self._roots[version] for version in range(poll.root_version + 1, self.root_version + 1)
        ]
        parts.append(self._targets)
        for number in self.select(poll.facts, poll.products):
            piece = self._pieces[number]
            if custom.is_expired(piece.target.custom, int(now)):
                continue
            parts.append(piece.path)
            if poll.cached.get(piece.target.path) != (
                piece.target.file.length,
                piece.target.sha256,
            ):
                parts.append(piece.file)
        parts.append(self.up_to_date)
        return FULL, b"".join(parts)

    def select(self, facts: HostFacts, products: frozenset[str]) -> tuple[int, ...]:
        """The numbers of the configs of these products for a host, whether expired or not."""
        key = (facts.groups, facts.labels, products)
        known = self._selections.get(facts.host)
        if known is not None and known[0] == key:
            return known[1]
        found = tuple(
            number
            for number in self._audience.select(facts)
            if self._pieces[number].target.product in products
        )
        if len(self._selections) >= MAX_SELECTIONS:
            self._selections = {}
        self._selections[facts.host] = (key, found)
        return found

    def published(self) -> list[PublishedConfig]:
        """All configs, for whomever."""
        return [
            PublishedConfig(
                path=target.path,
                version=target.custom.version,
                sha256=target.sha256,
                length=target.file.length,
                expires=target.custom.expires,
                predicates=json.dumps(target.custom.predicates) if target.custom.predicates else "",
            )
            for target in (piece.target for piece in self._pieces)
        ]

    @property
    def size(self) -> int:
        """Bytes of all serialized parts."""
        pieces = sum(len(piece.path) + len(piece.file) for piece in self._pieces)
        return pieces + len(self._targets) + sum(map(len, self._roots.values()))

    @property
    def configs(self) -> int:
        """How many configs there are."""
        return len(self._pieces)


def file_states(chain: Chain, opened: Opened) -> dict[str, FileMetaState]:
    """Version and SHA-256 of the newest metadata, by file name."""
    raw = {"root": chain.roots[chain.root_version], **chain.metadata}
    return {
        f"{signed.type}.json": FileMetaState(
            version=signed.version, hash=sha256(raw[signed.type]).hexdigest()
        )
        for signed in opened
    }


def _piece(target: Target, files: Mapping[str, bytes]) -> _Piece:
    return _Piece(
        target,
        ClientGetConfigsResponse(client_configs=[target.path]).SerializeToString(),
        ClientGetConfigsResponse(
            target_files=[File(path=target.path, raw=files[target.sha256])]
        ).SerializeToString(),
    )
