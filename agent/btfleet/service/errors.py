# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the config service. Each message is one line: found, needed, what to do."""

from __future__ import annotations

# What a refused or failed refresh is counted as. The names are those of the attacks that a
# repository, or whoever stands before it, could be trying.
REASONS = (
    "content",
    "delegation",
    "endless_data",
    "freeze",
    "malformed",
    "mix_and_match",
    "not_found",
    "path",
    "rollback",
    "root_gap",
    "slow_retrieval",
    "store",
    "too_many_roots",
    "unreachable",
    "unsigned",
    "version_range",
    "wrong_hash",
)


class ServiceError(Exception):
    """Something an operator can meet; `str()` of it is the line to show."""


class SettingsError(ServiceError):
    """A setting, or a file that a setting names, is not as it should be."""


class StoreError(ServiceError):
    """The store cannot be read or written."""


class Refused(ServiceError):
    """A refresh that was refused or failed; `reason` is one of REASONS."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason.replace('_', ' ')}: {text}")
        self.reason = reason
