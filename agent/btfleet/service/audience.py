# SPDX-License-Identifier: GPL-3.0-or-later
"""Which configs are for a host, without looking at each config for each host. Pure.

Every predicate is filed under one thing that it demands, so that only configs that can match are
held against a host: ten thousand hosts with a config each cost as much as one host with one.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from btfleet._config.predicates import HostFacts, matches

_EVERYBODY = ("everybody",)


class Audience:
    """An index over the predicates of configs, which are known by their numbers."""

    def __init__(self, predicates: Sequence[list[Any]]) -> None:
        self._predicates = predicates
        found: dict[tuple[str, ...], list[int]] = {}
        for number, each in enumerate(predicates):
            for key in {_key(predicate) for predicate in each} or {_EVERYBODY}:
                found.setdefault(key, []).append(number)
        self._index = {key: tuple(numbers) for key, numbers in found.items()}

    def select(self, facts: HostFacts) -> list[int]:
        """The numbers of the configs that are for this host, in order."""
        candidates: set[int] = set()
        for key in _keys(facts):
            candidates.update(self._index.get(key, ()))
        return [n for n in sorted(candidates) if matches(self._predicates[n], facts)]


def _key(predicate: Mapping[str, Any]) -> tuple[str, ...]:
    """What a host has to have to match, the rarest first; empty fields demand nothing."""
    if predicate.get("host"):
        return ("host", predicate["host"])
    for name, value in (predicate.get("labels") or {}).items():
        return ("label", name, value)
    if predicate.get("group"):
        return ("group", predicate["group"])
    return _EVERYBODY


def _keys(facts: HostFacts) -> Iterable[tuple[str, ...]]:
    yield _EVERYBODY
    yield ("host", facts.host)
    for group in facts.groups:
        yield ("group", group)
    for name, value in facts.labels.items():
        yield ("label", name, value)
