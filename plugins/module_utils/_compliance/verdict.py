# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a control is, and what it finds. Words, and nothing that reads a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    from .host import Host
    from .wanted import Wanted

PASS, FAIL, NOT_APPLICABLE, UNKNOWN, WAIVED = "pass", "fail", "not_applicable", "unknown", "waived"
STATUSES = (PASS, FAIL, UNKNOWN, WAIVED, NOT_APPLICABLE)

# Worst first
HIGH, MEDIUM, LOW = "high", "medium", "low"
SEVERITIES = (HIGH, MEDIUM, LOW)

# Who puts it right: those who run the hosts, those who run the tracker, those who keep the secrets
PLATFORM, NETWORK, SECURITY = "platform", "network", "security"
OWNERS = (PLATFORM, NETWORK, SECURITY)


class Finding(NamedTuple):
    """What one control has found on one host; `fix` is empty where there is nothing to do."""

    status: str
    expected: str
    actual: str
    fix: str = ""


class Control(NamedTuple):
    """One thing that has to be so on every host."""

    id: str
    title: str
    severity: str
    owner: str
    check: Callable[[Host, Wanted], Finding]


def judge(good: bool, expected: str, actual: str, fix: str) -> Finding:
    """Passed or failed; the fix goes with what failed."""
    return Finding(PASS, expected, actual) if good else Finding(FAIL, expected, actual, fix)


def unknown(expected: str, why: str, fix: str = "") -> Finding:
    """It could not be found out, and that is worth a look."""
    return Finding(UNKNOWN, expected, why, fix)


def not_applicable(expected: str, why: str) -> Finding:
    """There is nothing to judge here, or another control has said so already."""
    return Finding(NOT_APPLICABLE, expected, why)


def listed(items: list[str], limit: int = 5) -> str:
    """Some of many, in one line."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more
