# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata in memory: what it says of its roles, and new versions of it, signed. No files.

Beside TUF's own fields a root says, under `x-btfleet`, which org the repository is for, how long
each role's signatures are good, and each role's last rotation, so that whoever publishes next
knows without being told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Collection, Mapping

from . import libraries
from .plan import ROLES, Plan, RoleState, expiry

FIELD = "x-btfleet"
TARGETS_FILE = "targets.json"


@dataclass(frozen=True)
class Repository:
    """The current metadata of one repository's roles, parsed and as the bytes that were signed."""

    metadata: dict[str, libraries.Metadata[Any]]
    raw: dict[str, bytes]

    @property
    def root(self) -> libraries.Root:
        """What the root says."""
        root: libraries.Root = self.metadata["root"].signed
        return root

    @property
    def targets(self) -> libraries.Targets:
        """What the targets say."""
        targets: libraries.Targets = self.metadata["targets"].signed
        return targets

    @property
    def versions(self) -> dict[str, int]:
        """The version of each role."""
        return {role: self.metadata[role].signed.version for role in ROLES}

    @property
    def org(self) -> int:
        """The org that the repository is for."""
        return int(self.root.unrecognized_fields[FIELD]["org"])


def state(repository: Repository, available: Collection[str]) -> dict[str, RoleState]:
    """What a plan is made from; `available` are the ids of all keys that are at hand."""
    root = repository.root
    said = root.unrecognized_fields[FIELD]
    return {
        role: RoleState(
            version=repository.metadata[role].signed.version,
            expires=repository.metadata[role].signed.expires,
            keyids=tuple(sorted(root.roles[role].keyids)),
            available=frozenset(available).intersection(root.roles[role].keyids),
            threshold=root.roles[role].threshold,
            days=said["expiry_days"][role],
            rotation=said["rotations"].get(role),
        )
        for role in ROLES
    }


def sign(
    before: Repository | None,
    plan: Plan,
    signers: Mapping[str, list[libraries.Signer]],
    fresh: Mapping[str, list[libraries.Key]],
    targets: Mapping[str, libraries.TargetFile],
    org: int,
    now: datetime,
) -> Repository:
    """The repository with a new version of each role that the plan has signed.

    `signers` are, by role, all that sign it (for the root, those of the old root too); `fresh`
    are the public keys that are new to a role; `targets` are all targets there are then.
    """
    made = _Signing(before, plan, signers, now)
    if plan["root"].reason:
        made.add(_next_root(before, plan, fresh, org))
    if plan["targets"].reason:
        made.add(libraries.Targets(targets=dict(targets)))
    if plan["snapshot"].reason:
        listed = _listing(made.result, "targets")
        made.add(libraries.Snapshot(meta={TARGETS_FILE: listed}))
    if plan["timestamp"].reason:
        made.add(libraries.Timestamp(snapshot_meta=_listing(made.result, "snapshot")))
    return made.result


class _Signing:
    """Collects new versions."""

    def __init__(
        self,
        before: Repository | None,
        plan: Plan,
        signers: Mapping[str, list[libraries.Signer]],
        now: datetime,
    ) -> None:
        self._before, self._plan, self._signers, self._now = before, plan, signers, now
        self.result = Repository(
            dict(before.metadata) if before else {}, dict(before.raw) if before else {}
        )

    def add(self, signed: libraries.Signed) -> None:
        """Gives the role its next version and expiry, and signs it."""
        role = signed.type
        signed.version = self._before.metadata[role].signed.version + 1 if self._before else 1
        signed.expires = expiry(self._now, self._plan[role].days)
        metadata: libraries.Metadata[Any] = libraries.Metadata(signed)
        for signer in self._signers[role]:
            metadata.sign(signer, append=True)
        self.result.metadata[role] = metadata
        self.result.raw[role] = metadata.to_bytes(libraries.JSONSerializer(compact=True))


def _next_root(
    before: Repository | None,
    plan: Plan,
    fresh: Mapping[str, list[libraries.Key]],
    org: int,
) -> libraries.Root:
    old = before.root.keys if before else {}
    keys: dict[str, libraries.Key] = {}
    roles: dict[str, libraries.Role] = {}
    for role, one in plan.items():
        of_role = {keyid: old[keyid] for keyid in one.keep}
        of_role.update({key.keyid: key for key in fresh.get(role, [])})
        keys.update(of_role)
        roles[role] = libraries.Role(sorted(of_role), one.threshold)
    said = {
        "org": org,
        "expiry_days": {role: one.days for role, one in plan.items()},
        "rotations": {role: one.rotation for role, one in plan.items() if one.rotation},
    }
    return libraries.Root(
        keys=keys, roles=roles, consistent_snapshot=True, unrecognized_fields={FIELD: said}
    )


def _listing(repository: Repository, role: str) -> libraries.MetaFile:
    """Version, length and hash: a file of that version with other bytes is not taken."""
    return libraries.MetaFile.from_data(
        repository.metadata[role].signed.version, repository.raw[role], ["sha256"]
    )
