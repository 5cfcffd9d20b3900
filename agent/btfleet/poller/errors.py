# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the poller agent. Each message is one line: found, needed, what to do."""

from __future__ import annotations


class PollerError(Exception):
    """A poll, or the agent's start, has failed; `kind` is the word that metrics count it under."""

    kind = "other"


class SettingsError(PollerError):
    """A file that Ansible deploys (settings, token, CA, first root) is missing or wrong."""

    kind = "settings"


class ServiceError(PollerError):
    """The config service could not be asked, or refused to answer."""

    kind = "service"


class Unauthorised(ServiceError):
    """The config service does not take our token."""

    kind = "token"


class SwitchedOff(ServiceError):
    """The config service has remote config switched off: polling ends."""

    kind = "switched_off"


class TooMuchData(ServiceError):
    """The answer is larger than any answer may be."""

    kind = "endless_data"


class StorageError(PollerError):
    """The last good state could not be kept on the disk."""

    kind = "storage"


class UpdateRefused(PollerError):
    """An answer does not verify. Nothing of it was taken, and what was in force stays in force.

    `kind` names the attack that it would be, from ATTACKS.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{ATTACKS[kind]}: {text}")
        self.kind = kind


ATTACKS = {
    "malformed": "malformed answer",
    "duplicate": "something stands twice",
    "signature": "not signed as needed",
    "root_gap": "gap in the chain of roots",
    "root_rollback": "rollback of the root",
    "too_many_roots": "endless chain of roots",
    "targets_rollback": "rollback of the targets",
    "freeze": "freeze",
    "mix_and_match": "mix and match",
    "delegation": "delegation by the director",
    "path": "bad path",
    "unlisted": "arbitrary config",
    "wrong_host": "another host's config",
    "withheld": "withheld config",
    "hash": "wrong length or hash",
    "algorithm": "unknown hash algorithm",
    "endless_data": "endless data",
}
