# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Predicates: which hosts a config is for."""

from __future__ import annotations

from collections.abc import Mapping  # isinstance is slow with typing's
from typing import Any, NamedTuple

from .errors import ConfigError

MAX_PREDICATES = 1000
MAX_LABELS = 64
MAX_TEXT = 256

_FIELDS = ("host", "group", "labels")


class HostFacts(NamedTuple):
    """What predicates are held against."""

    host: str
    groups: frozenset[str]
    labels: Mapping[str, str]


def check(predicates: object) -> list[Any]:
    """The predicates, each `{"host": …, "group": …, "labels": {…}}`, if they are well-formed.

    Raises ConfigError for anything else, and for a predicate in which nothing is set: it would
    match every host, which has to be said by giving none.
    """
    if not isinstance(predicates, (list, tuple)):
        raise ConfigError(f"predicates are {_shown(predicates)}, needed: a list of predicates")
    if len(predicates) > MAX_PREDICATES:
        raise ConfigError(f"{len(predicates)} predicates, needed: at most {MAX_PREDICATES}")
    return [_check_one(index, predicate) for index, predicate in enumerate(predicates, 1)]


def matches(predicates: list[Any], facts: HostFacts) -> bool:
    """Whether a config with these (checked) predicates is for the host."""
    return not predicates or any(_one_matches(predicate, facts) for predicate in predicates)


def _one_matches(predicate: Mapping[str, Any], facts: HostFacts) -> bool:
    host, group = predicate.get("host"), predicate.get("group")
    labels = predicate.get("labels") or {}
    return (
        (not host or host == facts.host)
        and (not group or group in facts.groups)
        and all(facts.labels.get(key) == value for key, value in labels.items())
    )


def _check_one(index: int, predicate: object) -> dict[str, Any]:
    what = f"predicate {index}"
    if not isinstance(predicate, Mapping):
        raise ConfigError(
            f"{what} is {_shown(predicate)}, needed: an object with any of {', '.join(_FIELDS)}"
        )
    for key in predicate:
        if key not in _FIELDS:
            raise ConfigError(
                f"{what} has the unknown field {_shown(key)}, known are: {', '.join(_FIELDS)}"
            )
    for key in ("host", "group"):
        if key in predicate:
            _check_text(f"{key} of {what}", predicate[key])
    labels = predicate.get("labels", {})
    if not isinstance(labels, Mapping) or len(labels) > MAX_LABELS:
        raise ConfigError(
            f"labels of {what} are {_shown(labels)}, "
            f"needed: an object of at most {MAX_LABELS} texts"
        )
    for key, value in labels.items():
        if not key:
            raise ConfigError(f"labels of {what} have an empty name, needed: the label's name")
        _check_text(f"a label's name in {what}", key)
        _check_text(f"the label {_shown(key)} of {what}", value)
    if not any(predicate.get(key) for key in _FIELDS):
        raise ConfigError(
            f"{what} sets nothing, so it would match every host: set one of "
            f"{', '.join(_FIELDS)}, or leave predicates out if every host is meant"
        )
    return dict(predicate)


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ConfigError(
            f"{what} is {_shown(value)}, needed: text of at most {MAX_TEXT} characters"
        )


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 100 else text[:100] + "..."
