# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the kernel library. Each message is one line: found, needed, what to do."""

from __future__ import annotations


class TrackerError(Exception):
    """Something a user can meet; `str()` of it is the line to show.

    `result` is the load result that it is counted as (see `telemetry`), None where no load was
    tried.
    """

    result: str | None = None


class InvalidSpec(TrackerError):
    """A setting is unknown, of the wrong type or out of range."""


class BtfNotFound(TrackerError):
    """No usable BTF: the kernel's types are not to be had, or a named file is not BTF."""

    result = "btf_not_found"


class AssetReadError(TrackerError):
    """The object file is missing, damaged, of another kind or not the one that was asked for."""

    result = "asset_read"


class VerifierError(TrackerError):
    """The kernel's verifier refused a program."""

    result = "verifier"


class LoaderError(TrackerError):
    """Anything else on the way from the object to pinned, attached programs."""

    result = "loader"


class LoadUnfinished(LoaderError):
    """The new spec is active, but not all is as it should be after that.

    `record` is that of the load; `new_keeper` says that a process had to be started for it.
    """

    def __init__(self, reason: str, record: dict[str, object], new_keeper: bool = False) -> None:
        super().__init__(reason)
        self.record = record
        self.new_keeper = new_keeper
