# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata of one repository, as raw bytes and as what they say. Pure.

Who has verified it: python-tuf's Updater when it was fetched (`update`), and its metadata classes
once more when it comes out of the store (`reopen`).
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

from btfleet.service.errors import Refused
from btfleet.service.explain import explain

DIRECTOR, CONFIG = "director", "config"
REPOSITORIES = (DIRECTOR, CONFIG)
ROLES = ("timestamp", "snapshot", "targets")
# What fits the wire's uint64 and SQLite's integers, for all who read it
MAX_VERSION = 2**63 - 1


class Chain(NamedTuple):
    """Raw metadata: all roots by version, and the other roles by name."""

    roots: Mapping[int, bytes]
    metadata: Mapping[str, bytes]

    @property
    def root_version(self) -> int:
        """The newest root's version."""
        return max(self.roots)


class Opened(NamedTuple):
    """What the newest metadata of a chain say."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets

    @property
    def expires(self) -> int:
        """Unix time at which the first of them expires."""
        return min(int(signed.expires.timestamp()) for signed in self)


def open_chain(repository: str, chain: Chain) -> Opened:
    """What a verified chain says; raises Refused for what python-tuf takes and we do not.

    That is: versions that do not fit 63 bits or are no whole numbers, and roles that would count
    one key as several.
    """
    root = Metadata[Root].from_bytes(chain.roots[chain.root_version]).signed
    opened = Opened(
        root,
        Metadata[Timestamp].from_bytes(chain.metadata["timestamp"]).signed,
        Metadata[Snapshot].from_bytes(chain.metadata["snapshot"]).signed,
        Metadata[Targets].from_bytes(chain.metadata["targets"]).signed,
    )
    for signed in opened:
        check_version(repository, signed)
    for meta in (opened.timestamp.snapshot_meta, *opened.snapshot.meta.values()):
        _check_number(repository, "metadata that others name", meta.version)
    check_keys(repository, root)
    return opened


def reopen(repository: str, chain: Chain) -> Opened:
    """`open_chain` for a chain from the disk: signatures, versions and hashes are checked again.

    Not whether it has expired: the store may be older than that. Raises Refused.
    """
    try:
        root = Metadata[Root].from_bytes(chain.roots[chain.root_version])
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        for role in ROLES:
            metadata = Metadata[Any].from_bytes(chain.metadata[role])
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        opened = open_chain(repository, chain)
        named = opened.timestamp.snapshot_meta
        named.verify_length_and_hashes(chain.metadata["snapshot"])
        listed = opened.snapshot.meta["targets.json"]
        listed.verify_length_and_hashes(chain.metadata["targets"])
        if (named.version, listed.version) != (opened.snapshot.version, opened.targets.version):
            raise RepositoryError("versions of stored metadata do not fit each other")
    except RepositoryError as exc:
        raise explain(repository, f"{repository}/stored metadata", b"", exc) from None
    except (LookupError, ValueError) as exc:
        raise Refused("malformed", f"{repository}'s stored metadata lack {exc}") from None
    return opened


def check_version(repository: str, signed: Signed) -> None:
    """Raises Refused for a version that is no whole number of 63 bits."""
    _check_number(repository, f"{signed.type}.json", signed.version)


def _check_number(repository: str, what: str, version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version <= MAX_VERSION:
        raise Refused(
            "version_range",
            f"{repository}'s {what}: version {str(version)[:40]}, "
            f"needed: a number from 1 to {MAX_VERSION} (rotate the role's key, then start anew)",
        )


def check_keys(repository: str, root: Root) -> None:
    """Raises Refused if one key stands under two names in a role: it would count twice."""
    for role, delegation in root.roles.items():
        seen: dict[str, str] = {}
        for keyid in delegation.keyids:
            key = root.keys.get(keyid)
            if key is None:
                continue
            public = "".join(str(key.keyval.get("public", "")).split())
            if seen.setdefault(public, keyid) != keyid:
                raise Refused(
                    "unsigned",
                    f"{repository}'s root.json: role {role} counts one key as two "
                    f"({seen[public][:12]} and {keyid[:12]}): rotate the role's keys",
                )
