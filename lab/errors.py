# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception whose text is meant for a person."""

from __future__ import annotations


class LabError(Exception):
    """Says in one line what was found, what was needed and what to do."""


class GuestEnded(LabError):
    """A guest's QEMU ended before the guest answered ssh."""
