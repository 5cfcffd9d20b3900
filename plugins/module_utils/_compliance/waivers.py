# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waivers: what somebody has taken on for a while, by name and with a reason."""

from __future__ import annotations

import calendar
import fnmatch
import re
import time
from typing import Any, Iterable, Mapping, NamedTuple

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY = 86400


class InvalidWaiver(Exception):
    """One line: which waiver, what is wrong with it, what is needed."""


class Waiver(NamedTuple):
    """`expires` is the last day that it holds on (UTC). Without `hosts` it holds on all."""

    control: str
    owner: str
    reason: str
    expires: str
    hosts: tuple[str, ...] = ()

    def covers(self, host: str) -> bool:
        """Whether it is for this host; patterns as in a shell."""
        return not self.hosts or any(fnmatch.fnmatchcase(host, one) for one in self.hosts)

    def has_expired(self, now: float) -> bool:
        """Whether its last day is over."""
        return now >= _midnight(self.expires) + _DAY

    def to_dict(self) -> dict[str, object]:
        """The form that a result has."""
        return {**self._asdict(), "hosts": list(self.hosts)}


def _midnight(date: str) -> int:
    return calendar.timegm(time.strptime(date, "%Y-%m-%d"))


def parse(given: Iterable[Mapping[str, Any]], known: Iterable[str]) -> tuple[Waiver, ...]:
    """Waivers from options; raises InvalidWaiver. `known` are the controls that can be waived."""
    names = tuple(known)
    return tuple(_parse(number, one, names) for number, one in enumerate(given, 1))


def _parse(number: int, given: Mapping[str, Any], known: tuple[str, ...]) -> Waiver:
    for key in ("control", "owner", "reason", "expires"):
        if not str(given.get(key) or "").strip():
            raise InvalidWaiver(
                f"waiver {number} has no {key}, needed: control, owner, reason, expires"
            )
    control, expires = str(given["control"]), str(given["expires"])
    if control not in known:
        raise InvalidWaiver(
            f"waiver {number} is for {control!r}, which is no control that can be waived: "
            f"{', '.join(known)}"
        )
    try:
        if not _DATE.fullmatch(expires):
            raise ValueError
        _midnight(expires)
    except ValueError:
        raise InvalidWaiver(
            f"waiver {number} (for {control}) expires {expires!r}, needed: a date as 2030-12-31"
        ) from None
    hosts = tuple(map(str, given.get("hosts") or ()))
    return Waiver(control, str(given["owner"]), str(given["reason"]), expires, hosts)
