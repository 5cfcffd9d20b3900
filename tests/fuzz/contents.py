# SPDX-License-Identifier: GPL-3.0-or-later
"""What a config of each product says, and whom its director means."""

from __future__ import annotations

import json
from typing import Any

from btfleet._config import catalogue, custom, paths, predicates, strict_json
from btfleet._config.errors import ConfigError
from btfleet._config.merge import BASE, merge
from btfleet._config.predicates import HostFacts
from btfleet._kernel.spec import Spec
from btfleet.poller import wanted
from btfleet.service.audience import Audience

from tests.fuzz.target import check_line

_SPEC = Spec("a" * 64)
_ALLOWED = [f"{product}.{key}" for product, keys in catalogue.KEYS.items() for key in keys]
_AGENT_BASE = {"log_level": "info", "metrics": True, "poll_interval_seconds": 5}


class Contents:
    """`PRODUCT {...}`: what is taken is a fixed point, and the agent makes a plan of it."""

    def seeds(self) -> list[bytes]:
        whole = {key: _SPEC.to_dict()[key] for key in catalogue.CONNTRACK_KEYS}
        return [
            b"CONNTRACK " + json.dumps(whole).encode(),
            b'CONNTRACK {"udpv6_enabled": false}',
            b'CONNTRACK {"tiers": ["kprobe"], "max_entries": 4096}',
            b"AGENT " + json.dumps(_AGENT_BASE).encode(),
            b'AGENT {"log_level": "debug"}',
            b"AGENT {}",
        ]

    def run(self, data: bytes) -> None:
        word, _space, raw = data.partition(b" ")
        for product in (word.decode("ascii", "replace"), *catalogue.PRODUCTS):
            settings = None
            try:
                settings = catalogue.check_content(product, raw)
            except ConfigError as exc:
                check_line(exc)
            if settings is not None:
                assert set(settings) <= set(catalogue.KEYS[product])
                again = catalogue.check_content(product, json.dumps(settings).encode())
                assert again == settings
            if product in catalogue.PRODUCTS:
                self._apply(product, raw, settings)

    def _apply(self, product: str, raw: bytes, settings: dict[str, object] | None) -> None:
        path = f"btfleet/1/{product}/all/fuzzed"
        if product == wanted.PRODUCT:
            plan = wanted.make_plan(_SPEC, "", {path: raw}, _ALLOWED)
            assert (path in plan.refused) != (path in plan.wanted.owners.values()) or not settings
            for reason in plan.refused.values():
                check_line(reason)
            assert plan.spec is not None
            assert Spec.from_dict(plan.spec.to_dict()) == plan.spec
            return
        merged = merge(product, _AGENT_BASE, {path: settings} if settings else {}, _ALLOWED)
        assert merged.values.keys() == _AGENT_BASE.keys()
        assert set(merged.owners.values()) <= {BASE, path}


class Audiences:
    """A list of targets' paths and custom fields, and a host's facts, as JSON.

    The index that the service asks and the rule that the agent holds against it agree.
    """

    def seeds(self) -> list[bytes]:
        facts = {"host": "h1", "groups": ["edge"], "labels": {"site": "b"}}
        customs = [
            {"v": 1},
            {"v": 2, "expires": 1_900_000_000, "predicates": [{"host": "h1"}]},
            {"v": 3, "predicates": [{"group": "edge", "labels": {"site": "b", "rack": "1"}}]},
            {"v": 4, "predicates": [{"host": "", "labels": {"site": "b"}}, {"group": "core"}]},
        ]
        path = "btfleet/1/CONNTRACK/edge/no-udp6"
        return [
            json.dumps({"facts": facts, "path": path, "customs": customs[:count]}).encode()
            for count in range(5)
        ]

    def run(self, data: bytes) -> None:
        try:
            value = strict_json.loads(data, "the input")
        except ConfigError as exc:
            check_line(exc)
            return
        if not isinstance(value, dict):
            return
        self._path(value.get("path"))
        found = []
        customs = value.get("customs")
        for each in customs if isinstance(customs, list) else [customs]:
            for director in (True, False):
                try:
                    fields = custom.parse(each, director)
                except ConfigError as exc:
                    check_line(exc)
                else:
                    assert custom.is_expired(fields, custom.MAX_NUMBER) == (fields.expires > 0)
                    found.append(fields.predicates)
        self._select(found, _facts(value.get("facts")))

    def _path(self, text: object) -> None:
        try:
            path = paths.parse(text)
        except ConfigError as exc:
            check_line(exc)
            return
        assert str(path) == text
        assert ".." not in str(path).split("/")

    def _select(self, found: list[list[Any]], facts: HostFacts) -> None:
        selected = Audience(found).select(facts)
        assert selected == [n for n, each in enumerate(found) if predicates.matches(each, facts)]


def _facts(value: object) -> HostFacts:
    """Whatever a client may say of itself (service/poll.py)."""
    data = value if isinstance(value, dict) else {}
    groups, labels = data.get("groups"), data.get("labels")
    return HostFacts(
        str(data.get("host")),
        frozenset(map(str, groups if isinstance(groups, list) else ())),
        {key: str(text) for key, text in (labels if isinstance(labels, dict) else {}).items()},
    )
