# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's row of the fleet's view, from the config service's message. Pure.

What a host says is taken as text; it can be anything. fleet_view.py says what a row holds.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from typing import Any, Iterable, NoReturn

from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.config_state import (
    APPLIED,
    PHASES,
)

UNHEARD, STALE, FAILING, PENDING = "unheard", "stale", "failing", "pending"
APPLIED_STATE = "applied"
# In the order in which they are looked for: a host is in the first one that is true of it.
# unheard: never heard since the service started. stale: not heard lately. failing: its agent says
# that something is wrong. pending: it has not got, or not brought into force, all that is served.
# applied: everything is in force.
STATES = (UNHEARD, STALE, FAILING, PENDING, APPLIED_STATE)

FAILED = PHASES[-1]
# The message's numbers of what is known of a host's presence
_PRESENCES = {1: "active", 2: STALE, 3: UNHEARD}
# As the protocol family counts, for clients that do not know our phases
_FAMILY_PHASES = {1: "RECEIVED", 2: APPLIED, 3: FAILED}
_EXPIRED = 1
_MAX_INTEGER = 1 << 63


def row(known: Any, page: Any) -> dict[str, Any]:
    """The row of a KnownClient on a ListClientsResponse."""
    client = known.client
    found: dict[str, Any] = {
        "host": client.id,
        "presence": _PRESENCES.get(known.presence, UNHEARD),
        "last_seen": client.last_seen or None,
        "as_of": page.now,
        "service_started_at": page.started_at,
        "served_root_version": page.root_version,
        "served_targets_version": page.targets_version,
        "served_expired": page.config_status == _EXPIRED,
        "version": _version(client),
        "products": sorted(client.products),
        "groups": sorted(client.groups),
        "labels": dict(sorted(client.labels.items())),
        "root_version": client.state.root_version,
        "targets_version": client.state.targets_version,
        "error": (client.state.error or "no reason given") if client.state.has_error else None,
        "health": _health(client.health) if client.HasField("health") else None,
        "configs": sorted(map(_config, client.state.config_states), key=lambda each: each["path"]),
        "effective": sorted(map(_effective, client.effective), key=lambda each: each["key"]),
    }
    found["state"] = state(found)
    found["problems"] = list(problems(found))
    return found


def state(found: dict[str, Any]) -> str:
    """Which of STATES a row is in."""
    presence: str = found["presence"]
    if presence in (UNHEARD, STALE):
        return presence
    health, phases = found["health"], {config["phase"] for config in found["configs"]}
    if found["error"] or FAILED in phases or (health and not health["healthy"]):
        return FAILING
    if phases - {APPLIED} or any(
        found[version] != found[f"served_{version}"]
        for version in ("root_version", "targets_version")
    ):
        return PENDING
    return APPLIED_STATE


def problems(found: dict[str, Any]) -> Iterable[str]:
    """What is wrong with a host, a line each."""
    if found["presence"] == UNHEARD:
        yield f"not heard since the config service started, {_time(found['service_started_at'])}"
    elif found["presence"] == STALE:
        yield f"not heard since {_time(found['last_seen'] or 0)}"
    if found["error"]:
        yield _line(f"the last update failed: {found['error']}")
    health = found["health"]
    if health and not health["healthy"]:
        yield _line(f"the agent is not well: {health['status'] or 'no reason given'}")
    for config in found["configs"]:
        if config["phase"] == FAILED:
            yield _line(f"{config['path']} failed: {config['reason'] or 'no reason given'}")


def _version(client: Any) -> str | None:
    if client.is_tracer:
        return client.client_tracer.tracer_version or None
    return client.client_agent.version or None


def _config(config: Any) -> dict[str, Any]:
    phase = config.apply_phase
    return {
        "path": config.path,
        "product": config.product,
        "id": config.id,
        "version": config.version,
        "phase": PHASES[phase]
        if 0 < phase < len(PHASES)
        else _FAMILY_PHASES.get(config.apply_state, PHASES[0]),
        "reason": config.apply_error or None,
        "fingerprint": config.fingerprint or None,
        "changed_at": config.changed_at or None,
    }


def _effective(effective: Any) -> dict[str, Any]:
    return {
        "key": effective.key,
        "value": value(effective.value),
        "owner": effective.owner or None,
    }


def value(text: str) -> Any:
    """What a host's JSON means, or the text itself where that is not plain.

    Deep nesting, numbers without end, and characters that cannot be written would break whoever
    handles the value later.
    """
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    if isinstance(found, list):
        return found if all(map(_is_plain, found)) else text
    return found if _is_plain(found) else text


def _is_plain(found: Any) -> bool:
    if isinstance(found, str):
        return not any("\ud800" <= character <= "\udfff" for character in found)
    if isinstance(found, float):
        return math.isfinite(found)
    if isinstance(found, int):
        return abs(found) < _MAX_INTEGER
    return found is None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _health(health: Any) -> dict[str, Any]:
    return {
        **_condition(health),
        "started_at": health.started_at or None,
        "components": {name: _condition(part) for name, part in sorted(health.components.items())},
    }


def _condition(health: Any) -> dict[str, Any]:
    return {
        "healthy": health.healthy,
        "status": health.status,
        "last_error": health.last_error or None,
    }


def _line(text: str) -> str:
    """In one line, and without what a terminal would take as an order."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in " ".join(text.split())
    )


def _time(seconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
