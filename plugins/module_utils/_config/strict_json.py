# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON that means one thing only: no key twice, no NaN, no lone surrogates, bounded."""

from __future__ import annotations

import json
import math

from .errors import ConfigError

MAX_DEPTH = 32
# Enough for every 64-bit number; converting longer ones takes time that grows with their square
_MAX_DIGITS = 20


class _Refused(ValueError):
    """Why the text is not taken, without its name."""


def loads(raw: bytes, what: str, limit: int = 1 << 20) -> object:
    """Parses UTF-8 JSON of at most `limit` bytes; `what` names it in messages.

    Raises ConfigError for what is not JSON, and for what readers could take differently: keys that
    stand twice, NaN and Infinity, numbers of more than 20 digits, text that is no Unicode, and
    more than 32 levels.
    """
    if len(raw) > limit:
        raise ConfigError(f"{what} has {len(raw)} bytes, needed: at most {limit}")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_bounded,
            parse_float=_finite,
        )
        _check(value)
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is not UTF-8: write it again as UTF-8 JSON") from None
    except RecursionError:
        raise ConfigError(f"{what} has more than {MAX_DEPTH} levels: make it flatter") from None
    except ValueError as exc:
        raise ConfigError(f"{what} is not valid JSON ({exc}): write it again") from None
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {_shown(key)} stands twice")
        found[key] = value
    return found


def _no_constant(text: str) -> object:
    raise _Refused(f"{text} is no JSON number")


def _bounded(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise _Refused(f"a number has more than {_MAX_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"the number {_shown(text)} is out of range")
    return value


def _check(top: object) -> None:
    """Depth and text, without recursion."""
    level = [top]
    for _depth in range(MAX_DEPTH + 1):
        inner: list[object] = []
        containers = 0
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                containers += 1
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                containers += 1
                inner += value
        if not containers:
            return
        level = inner
    raise RecursionError


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Refused(f"the text {_shown(text)} is no Unicode") from None


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 100 else shown[:100] + "..."
