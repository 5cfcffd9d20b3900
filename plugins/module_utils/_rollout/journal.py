# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout leaves on a host's disk: the restore points, and how the last one ended."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import (
    Store,
    write_atomically,
)

from . import points
from .points import Points, RestorePoint

PASSED, FAILED = "passed", "failed"


class Outcome(NamedTuple):
    """How the last rollout ended here: PASSED or FAILED, and then why, in one line.

    `release` is the one in use since, `returned_to` says in words what was returned to, None if
    nothing was.
    """

    outcome: str
    release: str | None
    reason: str | None = None
    returned_to: str | None = None
    at: int = 0


def read_points(store: Store) -> list[RestorePoint]:
    """The restore points, the way back first; none if there is no file or it is damaged."""
    try:
        with open(store.points_path, encoding="utf-8") as stream:
            return points.from_json(stream.read())
    except (OSError, UnicodeDecodeError):
        return []


def write_points(store: Store, found: Points) -> None:
    """Replaces them. The agent's token is among them, so nobody but root may read the file."""
    write_atomically(store.points_path, points.to_json(found).encode(), 0o600)


def read_outcome(store: Store) -> Outcome | None:
    """How the last rollout ended, None if that is not known."""
    try:
        with open(store.rollout_path, encoding="utf-8") as stream:
            return Outcome(**json.load(stream))
    except (OSError, ValueError, TypeError):
        return None


def write_outcome(store: Store, outcome: Outcome) -> None:
    """Says how it ended, for whoever looks at the host."""
    write_atomically(store.rollout_path, json.dumps(outcome._asdict(), indent=1).encode() + b"\n")


def forget(store: Store) -> None:
    """Removes both files."""
    for path in (store.points_path, store.rollout_path):
        if os.path.lexists(path):
            os.unlink(path)
