# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The custom fields of a target: version, predicates and expiry of a config."""

from __future__ import annotations

from collections.abc import Mapping  # isinstance is slow with typing's
from typing import Any, NamedTuple

from . import predicates as predicates_
from .errors import ConfigError

MAX_NUMBER = 2**63 - 1
_DIRECTOR_ONLY = ("predicates", "expires")


class Custom(NamedTuple):
    """`version` is `v`; `expires` is Unix time in seconds, 0 = never."""

    version: int
    predicates: list[Any]
    expires: int


def parse(custom: Mapping[str, Any] | None, director: bool) -> Custom:
    """The custom fields of a target of the director, or else of the config repository.

    Raises ConfigError if `v` is missing, a field is wrong, or the config repository says what only
    the director may. Fields that are not known are left alone.
    """
    if not isinstance(custom, Mapping) or "v" not in custom:
        raise ConfigError("custom.v is missing, needed: the config's version, a number from 1")
    version = _number("v", custom["v"], 1)
    if not director:
        for key in _DIRECTOR_ONLY:
            if key in custom:
                raise ConfigError(
                    f"custom.{key} stands in the config repository, needed: only in the director"
                )
        return Custom(version, [], 0)
    return Custom(
        version,
        predicates_.check(custom.get("predicates", [])),
        _number("expires", custom.get("expires", 0), 0),
    )


def is_expired(custom: Custom, now: int) -> bool:
    """Whether the config is for nobody any more at the Unix time `now`."""
    return custom.expires != 0 and now >= custom.expires


def _number(key: str, value: object, lowest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= MAX_NUMBER:
        raise ConfigError(
            f"custom.{key} is {ascii(value)[:100]}, needed: a number from {lowest} to {MAX_NUMBER}"
        )
    return value
