# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The products, and what the content of a config of each may be."""

from __future__ import annotations

from collections.abc import Mapping  # isinstance is slow with typing's
from typing import Any, Callable

# The kernel library's own checks, so that what is published is what a loader takes
from .._kernel.errors import InvalidSpec
from .._kernel.spec import Spec
from . import strict_json
from .errors import ConfigError

MAX_CONTENT = 64 * 1024
# Of a map's entries: 0.7 GB. A mistake that is published to a fleet must not cost each host 3 GB
MAX_ENTRIES = 4194304

CONNTRACK_KEYS = (
    "allow_fentry_deadlock",
    "closed_entries",
    "max_entries",
    "tcpv6_enabled",
    "tiers",
    "udpv6_enabled",
)
LOG_LEVELS = ("debug", "info", "warning", "error")


def check_content(product: str, raw: bytes) -> dict[str, object]:
    """The settings in a config's file; raises ConfigError for what the product does not take."""
    check_product(product)
    return check_settings(product, strict_json.loads(raw, f"the {product} config", MAX_CONTENT))


def check_settings(product: str, data: object) -> dict[str, object]:
    """The settings, in their one form; raises ConfigError for what the product does not take."""
    check_product(product)
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"the content of a {product} config is a {type(data).__name__}, "
            "needed: an object of settings"
        )
    for key in data:
        if key not in KEYS[product]:
            raise ConfigError(
                f"unknown setting {ascii(key)[:100]} for the product {product}, "
                f"known are: {', '.join(KEYS[product])}"
            )
    return _CHECKS[product](data)


def check_product(product: object) -> None:
    """Raises ConfigError if there is no such product."""
    if product not in PRODUCTS:
        raise ConfigError(f"product is {ascii(product)[:100]}, known are: {', '.join(PRODUCTS)}")


def _conntrack(data: Mapping[str, Any]) -> dict[str, object]:
    try:
        spec = Spec.from_dict({"object_sha256": "0" * 64, **data}).to_dict()
    except InvalidSpec as exc:
        raise ConfigError(str(exc)) from None
    for key in ("closed_entries", "max_entries"):
        if key in data and data[key] > MAX_ENTRIES:
            raise ConfigError(
                f"{key} is {data[key]}, a config may ask for {MAX_ENTRIES} at the most: "
                "set more in the inventory"
            )
    return {key: spec[key] for key in data}


def _interval(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 3600


_AGENT: dict[str, Any] = {
    "log_level": (lambda value: value in LOG_LEVELS, "one of " + ", ".join(LOG_LEVELS)),
    "metrics": (lambda value: isinstance(value, bool), "true or false"),
    "poll_interval_seconds": (_interval, "a whole number from 1 to 3600"),
}


def _agent(data: Mapping[str, Any]) -> dict[str, object]:
    for key, value in data.items():
        is_good, needed = _AGENT[key]
        if not is_good(value):
            raise ConfigError(f"{key} is {ascii(value)[:100]}, needed: {needed}")
    return dict(data)


KEYS = {"AGENT": tuple(_AGENT), "CONNTRACK": CONNTRACK_KEYS}
PRODUCTS = tuple(KEYS)
_CHECKS: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
    "AGENT": _agent,
    "CONNTRACK": _conntrack,
}
